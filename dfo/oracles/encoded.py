"""An oracle seen through an encoding: solver coordinates in, user points on."""

from __future__ import annotations

import dataclasses
from typing import Any

from dfo.batch import Batch, Items, Linear, Points
from dfo.encodings import Encoding
from dfo.feedback import Feedback
from dfo.protocols import Oracle
from dfo.random import Key

__all__ = ["Encoded"]


class Encoded:
    """Decodes every batch before ``oracle`` sees it.

    Args:
        oracle: answers questions about user points.
        encoding: knows how user points and solver coordinates correspond.
    """

    def __init__(self, oracle: Oracle[Any], encoding: Encoding) -> None:
        self.oracle, self.encoding = oracle, encoding
        self.gives, self.max_batch = oracle.gives, oracle.max_batch
        self.price: float = getattr(oracle, "price", 1.0)

    def start(self, lanes: int, key: Key) -> Any:
        """Return the inner oracle's memory."""
        return self.oracle.start(lanes, key)

    def evaluate(self, batch: Batch, memory: Any) -> tuple[Feedback, Any]:
        """Answer the decoded batch."""
        return self.oracle.evaluate(decoded(batch, self.encoding), memory)


def decoded(batch: Batch, encoding: Encoding) -> Batch:
    """Return ``batch`` with its points as the user sees them."""
    if not isinstance(batch, Linear):
        return batch
    points: Any = encoding.decode(batch.dense())
    shared = {f.name: getattr(batch, f.name) for f in dataclasses.fields(Batch)}
    return Items(points, **shared) if isinstance(points, list) else Points(points, **shared)
