"""Training losses: every member of a step sees the same few rows of the data.

The number that a batch gives each member (``Batch.data``) names a minibatch; equal numbers are the same rows,
today and in a resumed run, because the rows are drawn from a key and the number. Without numbers, the step's own
number serves: all members of a step are then compared on common random numbers, and the next step sees other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dfo.arrays import is_torch, namespace
from dfo.batch import Batch, Linear
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.feedback import Values
from dfo.oracles.function import Halted
from dfo.oracles.values import values_of_array
from dfo.random import Key, choice

__all__ = ["Minibatch"]

Loss = Callable[[Any, Any], Any]


class Minibatch:
    """Values from ``loss(X, rows)``, a mean over some rows of a data set.

    Args:
        loss: gets members ``(p, d)``, numpy or torch as the start was, and the indices ``(size,)`` of the rows,
            of the same library; returns ``(p,)`` values.
        n: rows of the data set.
        size: rows that a member sees; all of them, in order, where ``size == n``.
        key: names the sequence of minibatches; by default it is the run's.

    Raises:
        InvalidType: ``loss`` is no function.
        InvalidArgument: ``size`` is not between 1 and ``n``.

    Example:
        >>> import dfo, numpy as np
        >>> y = np.linspace(0.0, 2.0, 50)
        >>> mean_square = lambda X, rows: ((X - y[rows]) ** 2).mean(axis=1)  # (p, 1) - (size,)
        >>> oracle = dfo.Minibatch(mean_square, n=50, size=10)
        >>> res = dfo.minimize(oracle, [5.0], method="cma", budget=600, noise=True)
        >>> bool(abs(res.x[0] - 1.0) < 0.3)
        True
    """

    gives: frozenset[str] = frozenset({"values", "ranking"})
    max_batch: int | None = None

    def __init__(self, loss: Loss, n: int, size: int, key: Key | None = None) -> None:
        if not callable(loss):
            raise InvalidType(f"loss: expected a function of members and rows, got {short(loss)}.")
        if not 1 <= size <= n:
            raise InvalidArgument(f"size: expected 1 to {n} rows of the data set, got {size!r}.")
        self.loss, self.n, self.size, self.key = loss, int(n), int(size), key
        self._first = True

    def start(self, lanes: int, key: Key) -> Key:
        """Return the key from which the minibatches of a run are drawn."""
        return self.key or key

    def rows(self, number: int, key: Key) -> npt.NDArray[np.int64]:
        """Return the ``(size,)`` indices of the minibatch with this number."""
        if self.size == self.n:
            return np.arange(self.n)
        return choice(key.child("rows", int(number)), self.n, self.size)

    def evaluate(self, batch: Batch, memory: Key) -> tuple[Values, Key]:
        """Evaluate every member on the minibatch of its number.

        Raises:
            InvalidType: the members are no vectors.
            Halted: the loss raised an exception.
        """
        if not isinstance(batch, Linear):
            raise InvalidType(f"minibatch: expected a batch of vectors, got {type(batch).__name__}.")
        X: Any = batch.dense()
        if batch.data is None:
            return self._values(X, batch.step, memory), memory
        f, failed, notes = np.empty(len(batch)), np.zeros(len(batch), bool), []
        for number in np.unique(batch.data):
            where = np.flatnonzero(batch.data == number)
            told = self._values(X if len(where) == len(batch) else X[where], int(number), memory)
            f[where], failed[where] = told.f, ~told.valid
            notes += [(int(where[i]), text) for i, text in told.notes]
        return Values(f, failed=failed if failed.any() else None, notes=tuple(sorted(notes))), memory

    def _values(self, X: Any, number: int, key: Key) -> Values:
        rows: Any = self.rows(number, key)
        if is_torch(X):
            rows = namespace(X).asarray(rows).to(X.device)
        try:
            raw = self.loss(X, rows)
        except Exception as error:
            raise Halted(Values(np.empty(0)), len(X), error) from error
        told = values_of_array(raw, len(X), self._first)
        self._first = False
        return told
