"""The one place that starts evaluations: budget, best so far, history, stops and hooks.

A session is what solvers of every kind have in common: dfo's own, driven by :mod:`dfo.run.loop`, and
peers that call the objective themselves (:mod:`dfo.run.peers`).
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfo.arrays import Floats, is_array, size
from dfo.batch import Batch, Perturbations
from dfo.encodings import Encoding
from dfo.errors import CannotWrite, EvaluationWarning, IncompatibleOracle, StoreWarning
from dfo.feedback import Feedback, Ranking, Values
from dfo.oracles.encoded import decoded
from dfo.oracles.function import Halted
from dfo.protocols import Hook, Oracle, Progress
from dfo.random import Key
from dfo.run.interrupt import Interruptible
from dfo.run.result import STATUS, History
from dfo.run.stopping import AnyOf, MaxTime, Target
from dfo.sets.convex import is_convex

__all__ = ["KEEP_LIMIT", "ObjectiveRaised", "Session"]

KEEP_LIMIT = 1 << 20
"""Most coordinates of a point of which every new best is copied; larger ones are rebuilt by replay."""


class ObjectiveRaised(Exception):
    """The objective raised; the session holds what was learned before."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Session:
    """Counts, limits and records the evaluations of one run.

    Args:
        oracle: answers questions in user coordinates (already wrapped where an encoding is needed).
        encoding: turns solver coordinates into user points, for the best point.
        budget: most evaluations, in the oracle's unit of cost.
        stop: further reasons to end, or None.
        hooks: called after every step.
        interrupt: tells when the user asked to stop.
        key: stream of the oracle's memory.
        lanes: persistent inner states that the solver uses.
    """

    def __init__(
        self,
        oracle: Oracle[Any],
        encoding: Encoding,
        budget: int,
        stop: Any = None,
        hooks: tuple[Hook, ...] = (),
        interrupt: Interruptible | None = None,
        key: Key | None = None,
        lanes: int = 0,
    ) -> None:
        self.oracle, self.encoding, self.budget = oracle, encoding, budget
        self.stop, self.hooks, self.interrupt = stop, hooks, interrupt
        self.memory = oracle.start(lanes, key or Key(0))
        self.nfev = self.nit = self.nfail = self.best_at = 0
        self._lowest, self._fell_at = math.inf, 0
        self.spent, self.price = 0.0, float(getattr(oracle, "price", 1.0))
        self.best_x: Any = None
        self.best_fun, self.best_merit, self.best_violation = math.inf, math.inf, 0.0
        self.status, self.message = "", ""
        self.note = ""
        self.inside = inside_of(encoding.inner)
        self.gauges: Callable[[], Mapping[str, float]] = dict
        self.recommended: Callable[[], Any] = lambda: None
        self.replaying: Callable[[], bool] = lambda: False
        self._fun, self._violation = array("d"), array("d")
        self._began = time.perf_counter()
        self._deadline, self._target = self._limits()
        self._partial: Values | None = None

    # ------------------------------------------------------------------ clock and ends

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the session began."""
        return time.perf_counter() - self._began

    def end(self, status: str, message: str = "") -> None:
        """Note why the run ends; the first reason stands."""
        if not self.status:
            self.status, self.message = status, message or STATUS[status]

    def _limits(self) -> tuple[float, float]:
        stops = self.stop.stops if isinstance(self.stop, AnyOf) else (self.stop,)
        deadline = min((s.limit_seconds for s in stops if isinstance(s, MaxTime)), default=math.inf)
        target = max((s.value for s in stops if isinstance(s, Target)), default=-math.inf)
        return deadline, target

    @property
    def watchful(self) -> bool:
        """Whether anything but the budget could end a batch early."""
        return self.interrupt is not None or self._deadline < math.inf or self._target > -math.inf

    def watch(self, value: Any) -> bool:
        """Tell, after each evaluation, whether the batch is to be cut short."""
        if self.interrupt is not None and self.interrupt.requested:
            return True
        if self._target > -math.inf and isinstance(value, (int, float)) and value <= self._target:
            return not self.oracle.gives & {"violations"} and self.inside is None
        return self._deadline < math.inf and self.seconds >= self._deadline

    def over(self) -> bool:
        """Tell whether the run has to end before the next question."""
        if self.interrupt is not None and self.interrupt.requested:
            self.end("interrupted")
        elif self.stop is not None:
            reason = self.stop(self.progress(None, None))
            if reason is not None:
                self.end(*reason)
        return bool(self.status)

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, batch: Batch) -> Feedback | None:
        """Answer a batch, or return None when the run has to end before it is answered whole.

        When fewer evaluations remain than the batch has members, a prefix is evaluated; it counts for the
        best but is not told, and asking for the same batch with a larger budget completes it.

        Raises:
            ObjectiveRaised: the objective raised an exception.
        """
        done = 0 if self._partial is None else len(self._partial.f)
        n, room = len(batch), math.floor((self.budget - self.spent) / self.price)
        cut = n - done > room
        if cut and (room <= 0 or "values" not in self.oracle.gives):  # nobody could use the ranking of a prefix
            self.end("budget", f"The evaluation budget of {self.budget} is spent.")
            return None
        asked = batch.part(done, done + room) if cut else batch.part(done, n) if done else batch
        try:
            told = self._answer(asked)
        except Halted as halt:
            self.halt(asked, halt)
            return None
        if told is None:
            return None
        if cut:
            self._keep(told)
            self.end("budget", f"The evaluation budget of {self.budget} is spent.")
            return None
        if self._partial is not None and isinstance(told, Values):
            told, self._partial = self._partial.joined(told), None
        return told

    def _answer(self, batch: Batch) -> Feedback | None:
        limit = self.oracle.max_batch
        if limit is not None and len(batch) > limit:
            return self._in_pieces(batch, limit)
        told, self.memory = self.oracle.evaluate(batch, self.memory)
        self.count(batch, told)
        return told

    def _in_pieces(self, batch: Batch, limit: int) -> Values | None:
        if "values" not in self.oracle.gives:
            raise IncompatibleOracle(
                f"The oracle ranks at most {limit} candidates at once, but the solver asked about {len(batch)}."
                f" Give the solver batch={limit} (or fewer)."
            )
        told: Values | None = None
        for at in range(0, len(batch), limit):
            asked = batch.part(at, min(at + limit, len(batch)))
            try:
                piece = self._answer(asked)
            except Halted as halt:  # the pieces before are in the books already
                if told is not None:
                    self._keep(told)
                self.halt(asked, halt)
                return None
            assert isinstance(piece, Values)
            told = piece if told is None else told.joined(piece)
        return told

    def _keep(self, told: Feedback) -> None:
        if isinstance(told, Values):
            self._partial = told if self._partial is None else self._partial.joined(told)

    def halt(self, batch: Batch, halt: Halted) -> None:
        """Enter what was answered before a batch was cut short, and why it was.

        Raises:
            ObjectiveRaised: the objective raised an exception.
        """
        done, who = len(halt.done.f), list(halt.who)
        self.count(batch.pick(who), halt.done)
        whole = next((k for k, i in enumerate(who) if i != k), done)  # members before the first without a value
        self._keep(halt.done if whole == done else halt.done.part(0, whole))
        self._fun.extend([math.inf] * (halt.started - done))
        self.nfev += halt.started - done
        self.spent += (halt.started - done) * self.price
        self.nfail += halt.started - done
        if isinstance(halt.cause, CannotWrite):
            self.end("unstored", f"{STATUS['unstored']} {halt.cause}")
        elif halt.cause is not None:
            self.end("error", f"The objective raised {type(halt.cause).__name__}.")
            raise ObjectiveRaised(halt.cause)
        elif not self.over():
            self.end("target" if self.best_fun <= self._target else "time")

    def count(self, batch: Batch, told: Feedback) -> None:
        """Enter an answer into the books."""
        n = len(batch)
        self.nfev += n
        cost = told.cost if isinstance(told, Values) else None
        self.spent += n * self.price if cost is None else float(cost.sum())
        if not isinstance(told, Values):
            self._fun.extend([math.nan] * (n if isinstance(told, Ranking) else 0))
            return
        f = told.f
        self._fun.frombytes(np.ascontiguousarray(f, dtype=float).tobytes())
        outside = self._outside(batch, told)
        if told.violation is not None or outside is not None:
            violation = (0.0 if told.violation is None else told.violation) + (0.0 if outside is None else outside)
            self._violation.frombytes(np.ascontiguousarray(violation, dtype=float).tobytes())
        if told.failed is not None:
            self.nfail += int(told.failed.sum())
            self.note = self.note or (told.notes[0][1] if told.notes else "")
        merit = told.merit() if outside is None else told.merit() + outside
        if not n:
            return
        if outside is not None and (lowest := float(told.merit().min())) < self._lowest:
            self._lowest, self._fell_at = lowest, self.nfev  # progress, though beside the set
        i = int(merit.argmin())
        if merit[i] < self.best_merit and told.valid[i]:
            self._improve(batch, told, i, float(merit[i]))

    def _outside(self, batch: Batch, told: Values) -> Floats | None:
        """Return infinity for members beside the convex set, as far as they are lower than the best; 0 for others."""
        if self.inside is None:
            return None
        outside = np.zeros(len(batch))
        for i in np.flatnonzero(told.merit() < self.best_merit):
            outside[i] = 0.0 if self.inside(batch.member(int(i))) else np.inf
        return outside

    def count_again(self, told: Feedback, price: float) -> None:
        """Enter evaluations, at this price each, of a point that is known already: they cannot be the best."""
        assert isinstance(told, Values)
        self.nfev += len(told.f)
        self.spent += len(told.f) * price
        self.nfail += int((~told.valid).sum())
        self._fun.frombytes(np.ascontiguousarray(told.f, dtype=float).tobytes())
        if told.violation is not None:
            self._violation.frombytes(np.ascontiguousarray(told.violation, dtype=float).tobytes())

    def _improve(self, batch: Batch, told: Values, i: int, merit: float) -> None:
        self.best_merit, self.best_fun = merit, float(told.f[i])
        self.best_violation = 0.0 if told.violation is None else float(told.violation[i])
        self.best_at = self.nfev - len(batch) + i + 1
        large = isinstance(batch, Perturbations) and size(batch.centers[0]) > KEEP_LIMIT
        self.best_x = None if large else self.user_point(batch, i)

    def user_point(self, batch: Batch, i: int) -> Any:
        """Return member ``i`` as the objective saw it."""
        member: Any = batch.member(i)
        return self.encoding.decode(member[None])[0] if is_array(member) else member

    @property
    def first_failure(self) -> str:
        """What is known of the first failure, as the end of a sentence."""
        return f"; the first {self.note}" if self.note else ""

    def note_known(self, x: Any, value: float) -> None:
        """Let a point that was evaluated before the run stand as the best so far."""
        if value < self.best_merit:
            self.best_x, self.best_fun, self.best_merit = x, value, value

    # ------------------------------------------------------------------ reports

    def after_step(self, batch: Batch | None, told: Feedback | None) -> None:
        """Count a step and call the hooks."""
        self.nit += 1
        if self.hooks and not self.replaying():  # what was known from a store has been shown before
            progress = self.progress(batch, told)
            try:
                for hook in self.hooks:
                    hook(progress)
            except StopIteration as reason:
                self.end("callback", str(reason.value or "") if reason.value else "")

    def progress(self, batch: Batch | None, told: Feedback | None) -> Progress:
        """Return what stops and hooks see."""
        return Progress(
            step=self.nit,
            nfev=self.nfev,
            seconds=self.seconds,
            best_x=self.best_x,
            best_fun=self.best_fun if self.best_violation <= 0.0 else math.inf,
            stalled=self.nfev - max(self.best_at, self._fell_at),
            nfail=self.nfail,
            batch=batch,
            told=told,
            gauges=self.gauges,
            points=lambda: None if batch is None else decoded(batch, self.encoding),
            recommended=self.recommended,
        )

    @property
    def history(self) -> History:
        """The values so far."""
        fun: Floats = np.array(self._fun)
        return History(fun, np.array(self._violation) if len(self._violation) == len(fun) and len(fun) else None)

    def warn(self) -> None:
        """Warn once about evaluations that gave no usable value, and of a store that failed."""
        if self.status == "unstored":
            warnings.warn(self.message, StoreWarning, stacklevel=_outside())
        if self.nfail and self.status != "error":
            warnings.warn(
                f"{self.nfail} of {self.nfev} evaluations gave no usable value{self.first_failure}."
                " They were ranked last.",
                EvaluationWarning,
                stacklevel=_outside(),
            )


def inside_of(space: Any) -> Callable[[Any], bool] | None:
    """Return what tells the points of a convex set from queries beside it; None where none can lie outside."""
    return space.contains if is_convex(space) else None


def _outside() -> int:
    """Return the stack level of the first caller outside the package, for a warning that it will see."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dfo":
        frame, level = frame.f_back, level + 1
    return level
