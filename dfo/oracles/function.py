"""A Python function as an oracle: one point a call, or a whole batch (``vectorized``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from dfo.arrays import copy
from dfo.batch import Batch, Items, Linear
from dfo.errors import InvalidArgument
from dfo.feedback import Values
from dfo.oracles.values import values_of, values_of_array
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
    """

    def __init__(self, done: Values, started: int, cause: BaseException | None) -> None:
        super().__init__(f"stopped after {started} evaluations")
        self.done, self.started, self.cause = done, started, cause


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
        watch: called with each value; a true return ends the batch.
        mapper: ``map``-like function that evaluates the points, in parallel perhaps, in order.

    Raises:
        InvalidArgument: vectorized together with a mapper.
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
        mapper: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] | None = None,
    ) -> None:
        if vectorized and mapper is not None:
            raise InvalidArgument("workers: a vectorized objective gets the whole batch; give one or the other.")
        self.fun, self.args, self.vectorized, self.on_error = fun, args, vectorized, on_error
        self.violation, self.watch, self.mapper = violation, watch, mapper
        self.gives = frozenset({"values", "ranking"} | ({CONSTRAINTS} if violation else set()))
        self._first = True

    def start(self, lanes: int, key: Key) -> tuple[()]:
        """Return the empty memory: a function remembers nothing."""
        return ()

    def evaluate(self, batch: Batch, memory: tuple[()]) -> tuple[Values, tuple[()]]:
        """Evaluate every member.

        Raises:
            Halted: the objective raised (with ``on_error="raise"``) or ``watch`` asked to stop.
            BadObjective: the first value ever is not a number, or a vectorised answer has a wrong shape.
        """
        if self.vectorized:
            told = self._together(batch)
        elif self.mapper is not None:
            told = self._mapped(batch)
        else:
            told = self._one_by_one(batch)
        self._first = False
        return told, memory

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

    def _mapped(self, batch: Batch) -> Values:
        assert self.mapper is not None
        call = _Call(self.fun, self.args, self.on_error == "record")
        raw: list[Any] = []
        try:
            for value in self.mapper(call, members(batch)):
                raw.append(value)
        except Exception as error:  # of the objective, or of the pool: what came before is kept
            raise Halted(self._values(raw, batch), len(batch), error) from error
        return self._values(raw, batch)

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


def _with_violation(told: Values, total: list[float]) -> Values:
    """Return the values of the first members, for as many as there are violations."""
    n, violation = len(total), np.array(total, dtype=float)
    return Values(
        told.f[:n], failed=None if told.failed is None else told.failed[:n],
        notes=tuple(note for note in told.notes if note[0] < n),
        violation=np.where(np.isnan(violation), np.inf, violation),
    )  # fmt: skip


class _Call:
    """The objective with its arguments, as a picklable function of one point."""

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...], record: bool) -> None:
        self.fun, self.args, self.record = fun, args, record

    def __call__(self, x: Any) -> Any:
        if not self.record:
            return self.fun(x, *self.args)
        try:
            return self.fun(x, *self.args)
        except Exception as error:
            return RuntimeError(f"{type(error).__name__}: {error}")  # any exception can cross a pipe as text
