"""From the points that an objective sees to the coordinates that a solver moves, and back.

Coordinates between two finite bounds are worked in the unit interval, anchored at the start:
``x = x0 + (z - z0) (upper - lower)``, so that the start comes back to the last bit, precision is best
around it, ``z <= 0`` and ``z >= 1`` are exactly the bounds, and no width of a box overflows. Other
coordinates are left as they are.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace, to_numpy
from dfo.sets.convex import ConvexSet
from dfo.spaces import Box, Free, Named, Text, Vector

__all__ = ["BoxEncoding", "Encoding", "Identity", "NamedEncoding", "encoding"]


class Encoding(Protocol):
    """A user space seen by a solver."""

    @property
    def inner(self) -> Vector | Text | ConvexSet:
        """The space in which the solver moves."""
        ...

    @property
    def start(self) -> Any:
        """The encoded start."""
        ...

    def encode(self, x: Any) -> Any:
        """Return the coordinates of one user point."""
        ...

    def decode(self, z: Any) -> Any:
        """Return the user points of ``(n, dim)`` coordinates: an ``(n, d)`` array or a list."""
        ...


class Identity:
    """The encoding of a space that solvers move in directly."""

    def __init__(self, inner: Vector | Text | ConvexSet, start: Any) -> None:
        self.inner, self.start = inner, start

    def encode(self, x: Any) -> Any:
        """Return ``x``."""
        return x

    def decode(self, z: Any) -> Any:
        """Return ``z``."""
        return z


class BoxEncoding:
    """The unit-box encoding of a :class:`~dfo.spaces.Box` around a start inside it.

    Works in the library, dtype and device of the start.
    """

    def __init__(self, box: Box, x0: Array) -> None:
        x = np.asarray(to_numpy(x0), dtype=float)
        scaled = box.bounded
        edge = np.where(box.integer, 0.5, 0.0)  # integers own cells of equal width
        low = np.where(scaled, box.lower - edge, 0.0)
        high = np.where(scaled, box.upper + edge, 1.0)
        half = high / 2 - low / 2  # (d,) half widths: these never overflow
        self._fixed = scaled & (half == 0.0)
        self._scaled, self._low = scaled, low
        self._divisor = np.where(scaled & ~self._fixed, half, 0.5)
        like: Array = x0 if is_torch(x0) or np.asarray(x0).dtype.kind == "f" else x
        limits = namespace(like).finfo(like.dtype)
        inside = scaled & ~self._fixed & (x > low) & (x < high)  # rounding must not move the start onto a bound
        start = self._unit(x)
        start = np.where(inside, np.clip(start, float(limits.tiny), 1.0 - float(limits.eps)), start)
        cells = np.where(scaled & (box.cells > 0), box.cells / 2 / self._divisor, box.cells)
        self.inner: Vector = Box(
            np.where(scaled, 0.0, box.lower),
            np.where(scaled, 1.0, box.upper),
            cells=np.where(self._fixed, 1.0, cells),
        )
        far = np.maximum(np.abs(box.lower), np.abs(box.upper))  # a sum that ends there may round beyond all numbers
        huge = scaled & (far > np.finfo(float).max / 2)  # worked at half their size; the others would lose a last bit
        width = np.where(scaled, np.where(huge, half, 2 * np.where(huge, 0.0, half)), 1.0)
        self._share = as_like(np.where(huge, 0.5, 1.0), like) if huge.any() else None
        self._integer = box.integer if box.integer.any() else None
        self.start, self._anchor, self._width = (as_like(v, like) for v in (start, x, width))
        self._lower, self._upper = as_like(box.lower, like), as_like(box.upper, like)
        self._zero, self._one = as_like(self.inner.lower, like), as_like(self.inner.upper, like)
        if self._integer is not None and is_torch(like):
            self._integer = namespace(like).asarray(self._integer, device=self.start.device)
        self._xp = namespace(like)

    def _unit(self, x: Floats) -> Floats:
        z = np.clip((x / 2 - self._low / 2) / self._divisor, 0.0, 1.0)
        return np.where(self._fixed, 0.5, np.where(self._scaled, z, x))

    def encode(self, x: Any) -> Any:
        """Return the ``(d,)`` coordinates of ``x``."""
        return as_like(self._unit(np.asarray(to_numpy(x), dtype=float)), self.start)

    def decode(self, z: Any) -> Any:
        """Return the ``(n, d)`` points at ``z``."""
        xp, z = self._xp, self._xp.clip(z, self._zero, self._one)
        shift = (z - self.start) * self._width
        if self._share is not None:
            share = self._share
            x = xp.clip(self._anchor * share + shift, self._lower * share, self._upper * share) / share
        else:
            x = self._anchor + shift
        x = xp.where(z <= self._zero, self._lower, xp.where(z >= self._one, self._upper, x))
        if self._integer is not None:
            x = xp.where(self._integer, xp.round(x), x)
        return xp.clip(x, self._lower, self._upper)


class NamedEncoding:
    """The unit-box encoding of named parameters; the start comes back exactly."""

    def __init__(self, space: Named, x0: dict[str, Any]) -> None:
        self.space, self._x0 = space, x0
        self.start = space.encode(x0)
        self.inner: Vector = Box(np.zeros(space.dim), np.ones(space.dim), cells=space.cells())

    def encode(self, x: Any) -> Any:
        """Return the ``(dim,)`` coordinates of a dictionary."""
        return self.space.encode(x)

    def decode(self, z: Any) -> Any:
        """Return the dictionaries at ``(n, dim)`` coordinates."""
        rows = np.asarray(to_numpy(z), dtype=float)
        return [dict(self._x0) if np.array_equal(row, self.start) else self.space.decode(row) for row in rows]


def encoding(space: Free | Box | Named | Text | ConvexSet, x0: Any) -> Encoding:
    """Return how a solver sees ``space`` when it starts from ``x0``, a point of the space."""
    if isinstance(space, Named):
        return NamedEncoding(space, x0)
    if isinstance(space, Box) and (space.bounded.any() or space.integer.any()):
        return BoxEncoding(space, x0)
    return Identity(space, x0)
