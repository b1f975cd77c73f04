"""An oracle whose answers are kept: what was answered before, by this process or another, is not asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import is_blocks, size
from dfo.batch import Batch, Perturbations
from dfo.errors import CannotWrite
from dfo.feedback import Feedback, Values
from dfo.oracles.function import Function, Halted, members
from dfo.oracles.outcomes import Answer
from dfo.protocols import Oracle
from dfo.random import Key

if TYPE_CHECKING:
    from dfo.run.store import Run

__all__ = ["Recorded", "points_of", "recorded"]

LARGE = 1 << 24
"""Most numbers of a batch whose members are stored one by one."""


def recorded(oracle: Oracle[Any], run: Run | None) -> Oracle[Any]:
    """Return the oracle with its answers kept in a run's store; as it is where there is none.

    A function keeps every single answer by itself; other oracles answer batch by batch, with their memory.
    """
    if run is None:
        return oracle
    if type(oracle) is Function:
        oracle.ledger = run
        return oracle
    return Recorded(oracle, run)


class Recorded:
    """Keeps whole batches of an oracle that is no function, with what it remembers after each.

    Args:
        oracle: answers what the store does not know.
        run: the store.
    """

    def __init__(self, oracle: Oracle[Any], run: Run) -> None:
        self.oracle, self.run = oracle, run
        self.gives, self.max_batch = oracle.gives, oracle.max_batch
        self.price: float = getattr(oracle, "price", 1.0)

    def start(self, lanes: int, key: Key) -> Any:
        """Return the inner oracle's memory."""
        return self.oracle.start(lanes, key)

    def evaluate(self, batch: Batch, memory: Any) -> tuple[Feedback, Any]:
        """Answer from the store, or ask the oracle and keep what it says.

        Raises:
            Halted: the oracle's own, or the answer cannot be kept.
            RunMismatch: the store holds the answers to other questions.
        """
        try:
            first, known = self.run.ask(batch, points_of(batch))
        except CannotWrite as error:
            raise Halted(Values(_none()), 0, error) from error
        return self._answer(batch, first, memory, known)

    def _answer(self, batch: Batch, first: int, memory: Any, known: Mapping[int, Answer]) -> tuple[Feedback, Any]:
        done = min(self.run.answered_from(first), len(batch)) if first in known else 0
        kept = self.run.answered(first, done) if done else None
        if kept is not None and done == len(batch):
            return kept
        if kept is not None and isinstance(kept[0], Values):  # a smaller budget ended within this batch
            more, memory = self._answer(batch.part(done, len(batch)), first + done, kept[1], known)
            assert isinstance(more, Values)
            return kept[0].joined(more), memory
        try:
            told, memory = self.oracle.evaluate(batch, memory)
        except Halted as halt:
            self.run.seek(first + len(halt.done.f))
            raise
        try:
            self.run.answer(first, len(batch), told, memory)
        except CannotWrite as error:
            done_now = told if isinstance(told, Values) else Values(_none())
            raise Halted(done_now, len(batch), error) from error
        return told, memory


def points_of(batch: Batch) -> Sequence[Any]:
    """Return what identifies the members: themselves, or where they are large, how they are made.

    Members of a network's population are perturbations of one center; they are neither built nor stored one by one.
    """
    from dfo.run.store.points import encoded

    if not isinstance(batch, Perturbations) or size(batch.centers[0]) * len(batch) <= LARGE:
        return members(batch)
    centers = [[encoded(block).digest.hex() for block in blocks_of(center)] for center in batch.centers]
    index = range(len(batch)) if batch.index is None else batch.index.tolist()
    origin = [0] * len(batch) if batch.origin is None else batch.origin.tolist()
    law, key = repr(batch.directions.law), repr(batch.directions.key)
    return [
        {"center": ",".join(centers[o]), "law": law, "key": key, "direction": i, "scale": repr(float(s))}
        for o, i, s in zip(origin, index, batch.scale, strict=True)
    ]


def blocks_of(point: Any) -> Sequence[Any]:
    """Return the arrays of a point."""
    return list(point.values()) if is_blocks(point) else [point]


def _none() -> Any:
    return np.empty(0)
