"""An oracle whose answers are kept: what was answered before, by this process or another, is not asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfo.batch import Batch
from dfo.errors import CannotWrite
from dfo.feedback import Feedback, Values
from dfo.oracles.function import Function, Halted, members
from dfo.protocols import Oracle
from dfo.random import Key

if TYPE_CHECKING:
    from dfo.run.store import Run

__all__ = ["Recorded", "recorded"]


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
            first, _ = self.run.ask(batch, members(batch))
        except CannotWrite as error:
            raise Halted(Values(_none()), 0, error) from error
        known = self.run.answered(first, len(batch))
        if known is not None:
            return known
        try:
            told, memory = self.oracle.evaluate(batch, memory)
        except Halted as halt:
            self.run.seek(first + len(halt.done.f))
            raise
        try:
            self.run.answer(first, len(batch), told, memory)
        except CannotWrite as error:
            done = told if isinstance(told, Values) else Values(_none())
            raise Halted(done, len(batch), error) from error
        return told, memory


def _none() -> Any:
    import numpy as np

    return np.empty(0)
