"""A function that tells what a point did beside how well it did: values and behaviours, for novelty search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from dfo.arrays import Floats, copy, to_numpy
from dfo.batch import Batch, Linear
from dfo.errors import BadObjective, short
from dfo.feedback import Values
from dfo.oracles.function import Function, Halted, members
from dfo.oracles.values import values_of, values_of_array

__all__ = ["Behaviour"]


class Behaviour(Function):
    """Values and behaviours from ``fun(x, *args)``, which returns the pair ``(value, behaviour)``.

    A behaviour is a short vector of numbers that says what the point did: where a robot stood in the end, how
    often each action was taken. Its length is the same for all points.

    Args:
        fun: the objective; gets a private copy of each point.
        args: further arguments.
        vectorized: ``fun`` takes all points of a batch at once and returns ``n`` values and ``(n, b)`` behaviours.
        on_error: ``"raise"`` lets an exception of the objective end the run; ``"record"`` masks it.

    Example:
        >>> import dfo
        >>> walk = dfo.Behaviour(lambda x: (float(x @ x), x[:2]))
        >>> dfo.minimize(walk, [2.0, 2.0, 0.0], method="novelty", budget=300).nfev
        300
    """

    def __init__(
        self,
        fun: Callable[..., tuple[Any, Any]],
        args: tuple[Any, ...] = (),
        *,
        vectorized: bool = False,
        on_error: Literal["raise", "record"] = "raise",
    ) -> None:
        super().__init__(fun, args, vectorized=vectorized, on_error=on_error)
        self.gives = self.gives | {"behaviour"}
        self._seen: list[Any] = []
        self._pair, self.fun = fun, self._value

    def _value(self, x: Any, *args: Any) -> Any:
        """Return the value of one point and keep its behaviour aside."""
        self._seen.append(None)
        value, self._seen[-1] = _two(self._pair(x, *args))
        return value

    def _one_by_one(self, batch: Batch) -> Values:
        self._seen = []
        return super()._one_by_one(batch)

    def _values(self, raw: list[Any], batch: Batch) -> Values:
        told = values_of(raw, self._first)
        return replace(told, behaviour=_rows(self._seen[: len(raw)], told))

    def _together(self, batch: Batch) -> Values:
        n = len(batch)
        points: Any = copy(batch.dense()) if isinstance(batch, Linear) else members(batch)
        try:
            raw, did = _two(self._pair(points, *self.args))
        except BadObjective:
            raise
        except Exception as error:
            if self.on_error == "raise":
                raise Halted(Values(np.empty(0)), n, error) from error
            told = values_of([error] * n)
            return replace(told, behaviour=_rows([None] * n, told))
        if len(did) != n:
            raise BadObjective(f"behaviour: expected {n} rows for {n} points, got {len(did)}.")
        told = values_of_array(raw, n, self._first)
        return replace(told, behaviour=_rows(to_numpy(did), told))


def _two(answer: Any) -> tuple[Any, Any]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise BadObjective(f"The objective must return a pair (value, behaviour), got {short(answer)}.")
    return answer


def _rows(did: Sequence[Any] | Floats, told: Values) -> Floats:
    """Return ``(n, b)`` behaviours; NaN where an evaluation failed."""
    rows = [np.asarray(to_numpy(b), dtype=float).reshape(-1) for b in did if b is not None]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise BadObjective(f"behaviour: expected vectors of one length, got lengths {sorted(widths)}.")
    every, known = np.full((len(told.f), max(widths, default=0)), np.nan), iter(rows)
    for i, b in enumerate(did):
        if b is not None:
            every[i] = next(known)
    every[~told.valid] = np.nan
    return every
