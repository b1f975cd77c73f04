"""Random directions as recipes: a distribution, a key and a count.

Elementwise distributions (gaussian, rademacher, sparse) are drawn in slices of the flat stream:
member ``i`` of a block of ``m`` coordinates occupies ``i m .. (i + 1) m`` of the block's own stream, so
any block of any member can be rebuilt alone and nothing of the size of the point is ever held twice.
Once :meth:`Directions.dense` has drawn the rows, the same object keeps them for the sums that follow;
sums are the same to the last bit with and without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, Point, as_like, is_blocks, is_torch, size, zeros
from dfo.distributions import (
    DISTRIBUTIONS,
    Coordinate,
    Distribution,
    Gaussian,
    LowRank,
    NoiseTable,
    Orthogonal,
    Rademacher,
    Sparse,
    Sphere,
    Subspace,
    distribution,
)
from dfo.errors import InvalidArgument, InvalidType
from dfo.masks import MagnitudeMask, RandomMask
from dfo.random import Key
from dfo.structured import LOZO, Block, RandomCoordinate, SubZero, over

__all__ = [
    "DISTRIBUTIONS",
    "LOZO",
    "Block",
    "Coordinate",
    "Directions",
    "Distribution",
    "Gaussian",
    "LowRank",
    "MagnitudeMask",
    "NoiseTable",
    "Orthogonal",
    "Rademacher",
    "RandomCoordinate",
    "RandomMask",
    "Sparse",
    "Sphere",
    "SubZero",
    "Subspace",
    "distribution",
]

CHUNK = 1 << 18
"""Numbers up to which directions are drawn together for a sum (2 MiB in double precision)."""

PIECE = 1 << 15
"""Coordinates of a point that are moved at a time; what they need stays in the cache of a core."""


@dataclass(frozen=True, eq=False)
class Directions:
    """``count`` directions of a law, drawn from a key when they are needed.

    Args:
        law: the distribution.
        key: names the stream; every block of a point in blocks has a child stream of its own name.
        count: number of directions.
        like: a point: its shape, library, dtype and device are those of the directions.
    """

    law: Distribution
    key: Key
    count: int
    like: Point

    def dense(self) -> Array:
        """Return the directions as a ``(count, d)`` array (points in one array only); the object keeps it."""
        if is_blocks(self.like):
            raise InvalidType("dense: directions of a point in blocks are drawn member by member.")
        rows: Array | None = self.__dict__.get("_rows")
        if rows is None:
            like: Any = self.like
            rows = self.law.rows(self.key, self.count, like)
            self.__dict__["_rows"] = rows
        return rows

    def rows(self) -> Sequence[Array]:
        """Return the directions one by one, ``(d,)`` each; as :meth:`dense` where they do not exist already."""
        views = getattr(self.law, "views", None)
        drawn: Sequence[Array] = self.dense() if views is None else views(self.key, self.count, self.like)  # type: ignore[assignment]
        return drawn

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_rows"}

    def combine(self, weights: Floats) -> Point:
        """Return ``sum_i weights[i] u_i``, shaped like a point."""
        if self._streamed:
            return self.add_to(zeros(self.like), weights)
        rows = None if hasattr(self.law, "combined") else self.dense()
        total: Point = _sum(self.law, self.key, self.count, weights, self.like, rows)
        return total

    @property
    def _streamed(self) -> bool:
        """Whether sums are taken direction by direction, so that nothing of the size of all of them is needed."""
        if is_blocks(self.like) or hasattr(self.law, "views"):
            return True
        return self.law.elementwise and self.count * size(self.like) > CHUNK

    def add_to(self, x: Point, weights: Floats) -> Point:
        """Add ``sum_i weights[i] u_i`` to ``x`` in place, a chunk at a time, and return ``x``."""
        for key, block, law in self._blocks(x):
            self._add(key, block, law, weights)
        return x

    def _add(self, key: Key, block: Any, law: Any, weights: Floats) -> None:
        """Add the sum to a flat block in place."""
        if not law.elementwise and not hasattr(law, "views"):
            block += _sum(law, key, self.count, weights, block, self.__dict__.get("_rows"))
            return
        active = [(i, float(w)) for i, w in enumerate(weights) if w != 0.0]
        rows = self.__dict__.get("_rows") if not hasattr(law, "views") else law.views(key, self.count, block)
        m = block.shape[0]
        for at in range(0, m, PIECE):
            part = block[at : at + PIECE]
            for i, w in active:
                if rows is None:
                    part += w * law.piece(key, i * m + at, part.shape[0], part)
                else:
                    part += w * rows[i][at : at + part.shape[0]]

    def add_member(self, x: Point, i: int, scale: float) -> Point:
        """Add ``scale * u_i`` to ``x`` in place and return ``x``."""
        rows = self.__dict__.get("_rows")
        if rows is not None and not is_blocks(x):  # drawn already
            moved: Any = x
            moved += scale * rows[i]
            return x
        weights = np.zeros(self.count)
        weights[i] = scale
        for key, block, law in self._blocks(x):
            if hasattr(law, "row"):
                block += scale * law.row(key, i, block)
            else:
                self._add(key, block, law, weights)
        return x

    def _blocks(self, x: Point) -> Iterator[tuple[Key, Any, Any]]:
        """Yield the key, a flat view and the law of every block of ``x``."""
        if not is_blocks(x):
            yield self.key, x, self.law
            return
        if not (self.law.elementwise or hasattr(self.law, "within") or hasattr(self.law, "over")):
            raise InvalidType(f"{type(self.law).__name__} directions need a point in one array, got named blocks.")
        for name, law in over(self.law, self.key, {name: tuple(block.shape) for name, block in x.items()}).items():
            block: Any = x[name]
            flat = block.reshape(-1)
            if not _is_view(flat, block):
                raise InvalidArgument(f"block {name!r} is not contiguous, so it cannot be moved in place.")
            yield self.key.child(name), flat, law


def _sum(law: Any, key: Key, count: int, weights: Floats, like: Any, rows: Array | None) -> Any:
    """Return the weighted sum of whole directions; its last bits do not depend on whether there are rows."""
    given = as_like(weights, like)
    if hasattr(law, "combined"):
        return law.combined(key, given, like)
    return given @ (law.rows(key, count, like) if rows is None else rows)


def _is_view(flat: Any, block: Any) -> bool:
    if is_torch(block):
        return bool(flat.data_ptr() == block.data_ptr())
    return bool(np.shares_memory(flat, block))
