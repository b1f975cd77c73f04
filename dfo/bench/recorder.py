"""Counts the evaluations of a run and notes when it got how far, from outside the solver.

The recorder stands between the method and the objective, so that it sees the same thing for every method,
whatever the method believes about itself. An evaluation costs it well below a microsecond unless the
value is a new best.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from dfo.batch import Batch
from dfo.errors import InvalidArgument, short
from dfo.feedback import Feedback, Values
from dfo.protocols import Problem, Progress

__all__ = ["Recorder", "thinned"]


class Recorder:
    """The objective of a problem, with books.

    The *merit* of a point is what the books are about:

    ==========================================  ====================================================
    the problem                                 merit
    ==========================================  ====================================================
    is an oracle                                ``measure`` of the solver's recommendation after every step
    has ``measure``                             ``measure(x)``: without noise, constraints counted
    has ``constraint`` and a known ``f_opt``    ``f_opt + max(f - f_opt, 0) + sum_i max(g_i, 0)``
    has ``constraint`` only                     ``f`` where feasible, else infinite
    else                                        ``f``
    ==========================================  ====================================================

    What an oracle answers need not be a value (a ranking, the losses of an unroll), so its problem must have a
    ``measure``, and evaluations are counted in the unit of the oracle's budget.

    With targets, the books hold gaps ``merit - f_opt``; without, merits.

    Args:
        problem: a function, or an oracle with a ``measure``; with a known ``f_opt`` where there are targets.
        targets: gaps, largest first; empty to record the lowest merits only.

    Raises:
        InvalidArgument: targets without ``f_opt``, an oracle without ``measure``, or neither function nor oracle.
    """

    def __init__(self, problem: Problem, targets: Sequence[float] = ()) -> None:
        oracle = hasattr(problem.fun, "evaluate") and hasattr(problem.fun, "gives")
        if oracle and problem.measure is None:
            raise InvalidArgument(
                f"{problem.name}: the answers of its oracle are no merits; expected a `measure`. Give the problem one."
            )
        if not oracle and not callable(problem.fun):
            raise InvalidArgument(f"{problem.name}: a bench needs a function or an oracle, got {short(problem.fun)}.")
        if targets and problem.f_opt is None:
            raise InvalidArgument(f"{problem.name}: targets need f_opt, which is not known. Leave `targets` out.")
        self.problem, self.targets = problem, tuple(targets)
        self.evaluations = 0
        self.hits: list[int] = []
        """Evaluations spent when each target was first hit, in order, as far as they were hit."""
        self.steps: list[tuple[int, float]] = []
        """(evaluations, gap or merit) of every new best."""
        self._fun, self._vectorized = problem.fun, problem.vectorized
        self._oracle = oracle
        self.fun: Any = _Counted(problem.fun, self) if oracle else self
        """What the method is given to minimise."""
        self._plain = problem.measure is None and problem.constraint is None
        self._origin = float(problem.f_opt) if targets and problem.f_opt is not None else 0.0
        self._lowest = math.inf

    @property
    def best(self) -> float:
        """The lowest gap (merit, without targets) so far; infinite before there is one."""
        return self._lowest - self._origin

    @property
    def done(self) -> bool:
        """Whether the last target is hit."""
        return bool(self.targets) and len(self.hits) == len(self.targets)

    def stop(self, progress: Progress) -> tuple[str, str] | None:
        """End a run, as its ``stop``, once the last target is hit; of an oracle's run, look at every step."""
        if self._oracle and progress.nfev:
            assert self.problem.measure is not None
            merit = float(self.problem.measure(progress.recommended()))
            if merit < self._lowest:
                self._improve(self.evaluations, merit)
        return ("target", "The last target was hit.") if self.done else None

    def __call__(self, x: Any) -> Any:
        """Evaluate one point, or the ``(n, d)`` points of a vectorised problem."""
        before = self.evaluations
        self.evaluations += len(x) if self._vectorized else 1  # started is spent, should it raise
        answer = self._fun(x)
        if self._vectorized:
            self._count_all(x, answer, before)
            return answer
        try:
            merit = answer if self._plain else self._merit(x, answer)
            if merit < self._lowest:
                self._improve(self.evaluations, float(merit))
        except TypeError:  # not a number: whoever asked will say so
            pass
        return answer

    def _count_all(self, X: Any, answer: Any, before: int) -> None:
        merits = np.asarray(answer if self._plain else [self._merit(x, f) for x, f in zip(X, answer, strict=True)])
        if merits.size == 1:  # peers ask for one point at a time
            if merits.item() < self._lowest:
                self._improve(self.evaluations, float(merits.item()))
        elif not merits.min(initial=math.inf) >= self._lowest:  # NaN takes this way too
            for i in np.flatnonzero(merits < self._lowest):
                if merits[i] < self._lowest:
                    self._improve(before + int(i) + 1, float(merits[i]))

    def _merit(self, x: Any, f: Any) -> float:
        problem = self.problem
        if problem.measure is not None:
            return float(problem.measure(x))
        assert problem.constraint is not None
        violation = float(np.maximum(problem.constraint(x), 0.0).sum())
        if problem.f_opt is None:
            return float(f) if violation <= 0.0 else math.inf
        return problem.f_opt + max(float(f) - problem.f_opt, 0.0) + violation

    def _improve(self, count: int, merit: float) -> None:
        if merit == -math.inf:  # a failed evaluation, as dfo sees it
            return
        self._lowest = merit
        gap, hits, targets = merit - self._origin, self.hits, self.targets
        while len(hits) < len(targets) and gap <= targets[len(hits)]:
            hits.append(count)
        self.steps.append((count, gap))


class _Counted:
    """An oracle whose evaluations are counted, in the unit of its budget."""

    def __init__(self, oracle: Any, recorder: Recorder) -> None:
        self.gives, self.max_batch = oracle.gives, oracle.max_batch
        self.price, self.start = float(getattr(oracle, "price", 1.0)), oracle.start
        self._oracle, self._recorder, self._spent = oracle, recorder, 0.0

    def evaluate(self, batch: Batch, memory: Any) -> tuple[Feedback, Any]:
        cost = len(batch) * self.price  # started is spent, should it raise
        try:
            told, memory = self._oracle.evaluate(batch, memory)
            if isinstance(told, Values) and told.cost is not None:
                cost = float(told.cost.sum())
        finally:
            self._spent += cost
            self._recorder.evaluations = math.ceil(self._spent)
        return told, memory


def thinned(steps: Sequence[tuple[int, float]], counts: Sequence[int]) -> list[tuple[int, float]]:
    """Return of a falling sequence what is needed to know its value at ``counts`` exactly.

    Args:
        steps: (evaluations, value) of every new best, in order.
        counts: numbers of evaluations of interest.

    Returns:
        The last step at or before each of the counts, each once.

    Example:
        >>> thinned([(1, 9.0), (4, 5.0), (6, 2.0), (90, 1.0)], [1, 10, 100])
        [(1, 9.0), (6, 2.0), (90, 1.0)]
    """
    when = [count for count, _ in steps]
    last = {bisect_right(when, count) - 1 for count in counts}
    return [steps[i] for i in sorted(last) if i >= 0]
