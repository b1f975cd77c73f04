"""From the points that an objective sees to the coordinates that a solver moves, and back.

Coordinates between two finite bounds are worked in the unit interval, anchored at the start:
``x = x0 + (z - z0) (upper - lower)``, so that the start comes back to the last bit, precision is best
around it, ``z <= 0`` and ``z >= 1`` are exactly the bounds, and no width of a box overflows. Other
coordinates are left as they are.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, to_numpy
from dfo.spaces import Box, Free, Named, Text, Vector

__all__ = ["BoxEncoding", "Encoding", "Identity", "NamedEncoding", "encoding"]


class Encoding(Protocol):
    """A user space seen by a solver."""

    @property
    def inner(self) -> Vector | Text:
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

    def __init__(self, inner: Vector | Text, start: Any) -> None:
        self.inner, self.start = inner, start

    def encode(self, x: Any) -> Any:
        """Return ``x``."""
        return x

    def decode(self, z: Any) -> Any:
        """Return ``z``."""
        return z


class BoxEncoding:
    """The unit-box encoding of a :class:`~dfo.spaces.Box` around a start inside it."""

    def __init__(self, box: Box, x0: Array) -> None:
        self.box, self.anchor = box, np.asarray(to_numpy(x0), dtype=float)
        self.scaled = box.bounded
        edge = np.where(box.integer, 0.5, 0.0)  # integers own cells of equal width
        self.low = np.where(self.scaled, box.lower - edge, 0.0)
        self.high = np.where(self.scaled, box.upper + edge, 1.0)
        self.half = self.high / 2 - self.low / 2  # (d,) half widths: these never overflow
        self.fixed = self.scaled & (self.half == 0.0)
        self.huge = bool(np.any(~np.isfinite(self.high - self.low)))
        self.any_integer = bool(box.integer.any())
        self.lower = np.where(self.scaled, 0.0, box.lower)
        self.upper = np.where(self.scaled, 1.0, box.upper)
        divisor = np.where(self.scaled & ~self.fixed, self.half, 0.5)
        self.start = self._unit(self.anchor, divisor)
        self._divisor = divisor
        cells = np.where(self.scaled & (box.cells > 0), box.cells / (2 * divisor), box.cells)
        self.inner: Vector = Box(self.lower, self.upper, cells=np.where(self.fixed, 1.0, cells))
        self._like: Array | None = x0 if is_torch(x0) else None
        if self._like is not None:
            self.start = as_like(self.start, self._like)

    def _unit(self, x: Floats, divisor: Floats) -> Floats:
        z = (x / 2 - self.low / 2) / divisor
        z = np.where(self.scaled, np.clip(z, 0.0, 1.0), x)
        return np.where(self.fixed, 0.5, z)

    def encode(self, x: Any) -> Any:
        """Return the ``(d,)`` coordinates of ``x``."""
        z = self._unit(np.asarray(to_numpy(x), dtype=float), self._divisor)
        return z if self._like is None else as_like(z, self._like)

    def decode(self, z: Any) -> Any:
        """Return the ``(n, d)`` points at ``z``."""
        if self._like is not None:
            return as_like(self.decode_numpy(np.asarray(to_numpy(z), dtype=float)), self._like)
        return self.decode_numpy(z)

    def decode_numpy(self, z: Floats) -> Floats:
        """Return the ``(n, d)`` double-precision points at ``z``."""
        start = self.start if self._like is None else np.asarray(to_numpy(self.start), dtype=float)
        shift = z - start
        if self.huge:
            x = 2.0 * (self.anchor / 2 + shift * self.half * np.where(self.scaled, 1.0, 0.5))
        else:
            x = self.anchor + shift * np.where(self.scaled, 2.0 * self.half, 1.0)
        x = np.where(z <= self.lower, self.box.lower, x)
        x = np.where(z >= self.upper, self.box.upper, x)
        if self.any_integer:
            x = np.where(self.box.integer, np.rint(x), x)
        return np.clip(x, self.box.lower, self.box.upper)


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


def encoding(space: Free | Box | Named | Text, x0: Any) -> Encoding:
    """Return how a solver sees ``space`` when it starts from ``x0``, a point of the space."""
    if isinstance(space, Named):
        return NamedEncoding(space, x0)
    if isinstance(space, Box) and (space.bounded.any() or space.integer.any()):
        return BoxEncoding(space, x0)
    return Identity(space, x0)
