"""A Python function as an oracle: one point a call, or a whole batch (``vectorized``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

import numpy as np

from dfo.arrays import copy
from dfo.batch import Batch, Items, Linear
from dfo.errors import BadObjective, CannotWrite, InvalidArgument, ObjectiveFailed, short
from dfo.feedback import Values
from dfo.oracles.outcomes import Answer, Evaluator, Failed, Ledger
from dfo.oracles.values import number, values_of, values_of_array
from dfo.protocols import CONSTRAINTS
from dfo.random import Key

__all__ = ["Function", "Halted", "members"]

Violation = Callable[[Any], float]


class Halted(Exception):
    """An evaluation ended the batch early: the run is to stop, or the objective raised.

    Args:
        done: values of the members that were evaluated, in order.
        started: evaluations started, the raising one included.
        cause: what the objective raised, or None when the run asked to stop.
        who: indices of the members in ``done``; the first ones by default.
    """

    def __init__(
        self, done: Values, started: int, cause: BaseException | None, who: Sequence[int] | None = None
    ) -> None:
        super().__init__(f"stopped after {started} evaluations")
        self.done, self.started, self.cause = done, started, cause
        self.who = range(len(done.f)) if who is None else who


def members(batch: Batch) -> Sequence[Any]:
    """Return private copies of the members: the objective may keep or overwrite what it gets."""
    if isinstance(batch, Linear):
        X: Any = copy(batch.dense())
        return list(X)
    if isinstance(batch, Items):
        return [dict(item) if isinstance(item, dict) else item for item in batch.items]
    return [batch.member(i) for i in range(len(batch))]


class Function:
    """Values from ``fun(x, *args)``.

    Args:
        fun: the objective; gets a private copy of each point.
        args: further arguments.
        vectorized: ``fun`` takes all points of a batch at once: an ``(n, d)`` array (numpy or torch, as
            the start was), or a list where points are no arrays, and returns ``n`` values.
        on_error: ``"raise"`` lets an exception of the objective end the run; ``"record"`` masks it.
        violation: total constraint violation of one point (0 where feasible), or None.
        watch: called with each value, and with None while nothing comes; a true return ends the batch.
        evaluator: evaluates several points at the same time (:mod:`dfo.oracles.outcomes`); one after the other in
            this process without it.
        ledger: keeps what is asked and answered, and answers what it knows already.

    Raises:
        InvalidArgument: vectorized together with an evaluator.
    """

    max_batch: int | None = None

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...] = (),
        *,
        vectorized: bool = False,
        on_error: Literal["raise", "record"] = "raise",
        violation: Violation | None = None,
        watch: Callable[[Any], bool] | None = None,
        evaluator: Evaluator | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        if vectorized and evaluator is not None:
            raise InvalidArgument("workers: a vectorized objective gets the whole batch; give one or the other.")
        self.fun, self.args, self.vectorized, self.on_error = fun, args, vectorized, on_error
        self.violation, self.watch, self.evaluator, self.ledger = violation, watch, evaluator, ledger
        self.gives = frozenset({"values", "ranking"} | ({CONSTRAINTS} if violation else set()))
        self.call: Callable[[Any], Any] = _Call(fun, args)
        self._first = True
        self._ending = False
        self._asked = 0

    def start(self, lanes: int, key: Key) -> tuple[()]:
        """Return the empty memory: a function remembers nothing."""
        return ()

    def evaluate(self, batch: Batch, memory: tuple[()]) -> tuple[Values, tuple[()]]:
        """Evaluate every member.

        Raises:
            Halted: the objective raised (with ``on_error="raise"``), ``watch`` asked to stop, or the ledger
                cannot keep an answer.
            BadObjective: the first value ever is not a number, or a vectorised answer has a wrong shape.
        """
        if self.ledger is None and self.vectorized:
            told = self._together(batch)
        elif self.ledger is None and self.evaluator is None:
            told = self._one_by_one(batch)
        else:
            told = self._numbered(batch)
        self._first = False
        return told, memory

    # ------------------------------------------------------------------ in this process, nothing kept

    def _one_by_one(self, batch: Batch) -> Values:
        points = members(batch)
        raw: list[Any] = []
        fun, args, watch = self.fun, self.args, self.watch
        for x in points:
            try:
                value = fun(x, *args) if args else fun(x)
            except Exception as error:
                if self.on_error == "raise":
                    raise Halted(self._values(raw, batch), len(raw) + 1, error) from error
                value = error
            raw.append(value)
            if watch is not None and watch(value) and len(raw) < len(points):
                raise Halted(self._values(raw, batch), len(raw), None)
        return self._values(raw, batch)

    def _values(self, raw: list[Any], batch: Batch) -> Values:
        told = values_of(raw, self._first)
        if self.violation is not None:
            told = self._constrained(told, members(batch.part(0, len(raw))))
        return told

    def _together(self, batch: Batch) -> Values:
        n = len(batch)
        points: Any = copy(batch.dense()) if isinstance(batch, Linear) else members(batch)
        try:
            raw = self.fun(points, *self.args)
        except Exception as error:
            if self.on_error == "raise":
                raise Halted(Values(np.empty(0)), n, error) from error
            return values_of([error] * n)
        told = values_of_array(raw, n, self._first)
        return told if self.violation is None else self._constrained(told, members(batch))

    def _constrained(self, told: Values, points: Sequence[Any]) -> Values:
        assert self.violation is not None
        total: list[float] = []
        for x in points:
            try:
                total.append(float(self.violation(x)))
            except Exception as error:
                if self.on_error == "raise":
                    raise Halted(_with_violation(told, total), len(points), error) from error
                total.append(np.inf)
        return _with_violation(told, total)

    # ------------------------------------------------------------------ numbered, kept, elsewhere

    def _numbered(self, batch: Batch) -> Values:
        """Evaluate the members whose answers are not known, in whatever order they come."""
        points = members(batch)
        try:
            first, known = self._ask(batch, points)
        except CannotWrite as error:
            raise Halted(Values(np.empty(0)), 0, error) from error
        answers = dict(known)
        left = {first + i: x for i, x in enumerate(points) if first + i not in answers}
        cause: Exception | None = None
        if left:
            work = self._as_one if self.vectorized else self._each
            cause = work(first, left, answers, batch)
        numbers = sorted(answers)
        told = self._values_of([answers[k] for k in numbers])
        if len(numbers) == len(points) and cause is None:
            return told
        who = [k - first for k in numbers]
        whole = next((i for i, k in enumerate(who) if i != k), len(who))  # members before the first without an answer
        if self.ledger is not None:
            self.ledger.seek(first + whole)
        else:
            self._asked = first + whole
        parallel = self.evaluator is not None and cause is not None
        started = len(points) if parallel else len(who) + (cause is not None)
        raise Halted(told, min(started, len(points)), cause, who) from cause

    def _ask(self, batch: Batch, points: Sequence[Any]) -> tuple[int, Mapping[int, Answer]]:
        if self.ledger is not None:
            return self.ledger.ask(batch, points)
        first, self._asked = self._asked, self._asked + len(points)
        return first, {}

    def _each(self, first: int, left: Mapping[int, Any], answers: dict[int, Answer], batch: Batch) -> Exception | None:
        """Answer point by point; return what ended this early, if anything was raised."""
        again = members(batch) if self.violation is not None else ()
        evaluate, last = self.evaluator or _one_after_the_other, first + len(batch)
        self._ending = False
        try:
            with closing(evaluate(self.call, left, self._halted)) as outcomes:  # type: ignore[type-var]
                for k, raw in outcomes:
                    if isinstance(raw, Failed) and raw.kind == "raised" and self.on_error == "raise":
                        return raw.error or ObjectiveFailed(raw.text)
                    answers[k] = self._judged(raw, again[k - first] if again else None, self._first and k == first)
                    if self.ledger is not None:
                        self.ledger.tell({k: answers[k]})
                    if self.watch is not None and len(answers) < last - first and self.watch(answers[k].value):
                        self._ending = True  # nothing new begins; what is under way may still come in
        except BadObjective:
            raise
        except Exception as error:  # of a constraint, of a pool, of the ledger: what came before is kept
            return error
        return None

    def _as_one(
        self, first: int, left: Mapping[int, Any], answers: dict[int, Answer], batch: Batch
    ) -> Exception | None:
        """Answer all that is left with one call; return what was raised."""
        part = batch.pick([k - first for k in left])
        points: Any = copy(part.dense()) if isinstance(part, Linear) else members(part)
        again = members(part) if self.violation is not None else [None] * len(part)
        try:
            try:
                raw = _unmasked(values_of_array(self.fun(points, *self.args), len(part), self._first))
            except BadObjective:
                raise
            except Exception as error:
                if self.on_error == "raise":
                    return error
                raw = [_failed(error)] * len(part)
            found = {k: self._judged(value, x, False) for k, value, x in zip(left, raw, again, strict=True)}
            answers.update(found)
            if self.ledger is not None:
                self.ledger.tell(found)
        except BadObjective:
            raise
        except Exception as error:
            return error
        return None

    def _judged(self, raw: Any, x: Any, first: bool) -> Answer:
        """Return what is to be kept of an outcome; ``x`` is the point where constraints have to be judged."""
        if isinstance(raw, Exception):
            raw = _failed(raw)
        value = raw if isinstance(raw, Failed) else number(raw)
        if isinstance(value, str):
            if first:
                raise BadObjective(f"The objective must return a real number, got {value}.")
            value = Failed("bad_type", f"returned {value}")
        if self.violation is None:
            return Answer(value)
        try:
            violation = float(self.violation(x))
        except Exception:
            if self.on_error == "raise":
                raise
            violation = np.inf
        return Answer(value, np.inf if np.isnan(violation) else violation)

    def _values_of(self, answers: Sequence[Answer]) -> Values:
        told = values_of([answer.value for answer in answers])
        if self.violation is None:
            return told
        return _with_violation(told, [np.inf if a.violation is None else a.violation for a in answers])

    def _halted(self) -> bool:
        return self._ending or (self.watch is not None and self.watch(None))


def _with_violation(told: Values, total: list[float]) -> Values:
    """Return the values of the first members, for as many as there are violations."""
    n, violation = len(total), np.array(total, dtype=float)
    return Values(
        told.f[:n], failed=None if told.failed is None else told.failed[:n],
        notes=tuple(note for note in told.notes if note[0] < n),
        violation=np.where(np.isnan(violation), np.inf, violation),
    )  # fmt: skip


def _one_after_the_other(
    call: Callable[[Any], Any], points: Mapping[int, Any], halted: Callable[[], bool]
) -> Iterator[tuple[int, Any]]:
    """Evaluate in this process, in order."""
    for k, x in points.items():
        yield k, call(x)
        if halted():
            return


def _unmasked(told: Values) -> list[Any]:
    """Return the values one by one, a failed one as what was wrong with it."""
    notes = dict(told.notes)
    kinds = {f"returned {value}": "nonfinite" for value in (np.nan, np.inf, -np.inf)}
    return [Failed(kinds.get(notes[i], "bad_type"), notes[i]) if i in notes else f for i, f in enumerate(told.f)]


def _failed(error: Exception) -> Failed:
    return Failed("raised", f"{type(error).__name__}: {short(str(error))}", error)


class _Call:
    """The objective with its arguments, as a picklable function of one point that never raises an ``Exception``."""

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fun, self.args = fun, args

    def __call__(self, x: Any) -> Any:
        try:
            return self.fun(x, *self.args)
        except Exception as error:
            return _failed(error)

    def __repr__(self) -> str:
        return short(self.fun)
