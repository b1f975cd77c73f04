"""Balls of the lp norms between 1 and infinity, and of sums of lengths of groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dfo.arrays import Array, namespace
from dfo.errors import InvalidArgument
from dfo.sets.balls import Ball, L1Ball, length, sign
from dfo.sets.convex import floating

__all__ = ["GroupBall", "LpBall"]


@dataclass(frozen=True)
class LpBall(Ball):
    """Points with ``(sum |x_i|^p)^(1/p) <= radius`` for a ``p`` above 1; for 1, 2 and infinity there are others.

    Args:
        dim: number of coordinates.
        p: above 1, finite.
        radius: of the ball.
    """

    dim: int
    p: float
    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1.0 < self.p < math.inf:
            raise InvalidArgument(f"p: expected a finite number above 1, got {self.p!r}. Use L1Ball or LInfBall.")

    def _length(self, x: Any, p: float) -> Any:
        xp = namespace(x)
        top = xp.max(abs(x), axis=-1, keepdims=True)
        safe = xp.where(top > 0.0, top, 1.0)
        return safe * xp.sum((abs(x) / safe) ** p, axis=-1, keepdims=True) ** (1.0 / p)

    def lmo(self, s: Any) -> Array:
        """Return ``-r sign(s_i) (|s_i| / |s|_q)^(q-1)`` with ``1/p + 1/q = 1``; the lowest value is ``-r |s|_q``."""
        s = floating(s)
        q = self.p / (self.p - 1.0)
        norm = self._length(s, q)
        share = abs(s) / namespace(s).where(norm > 0.0, norm, 1.0)
        v: Array = -self.radius * sign(s) * share ** (q - 1.0)
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r |s|_q``."""
        return -self.radius * self._length(floating(s), self.p / (self.p - 1.0))[..., 0]

    def excess(self, x: Any) -> Any:
        """Return ``|x|_p - r``."""
        return self._length(x, self.p)[..., 0] - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point, by bisection on its multiplier: ``y + t p y^(p-1) = |x|``."""
        x = floating(x)
        xp, a = namespace(x), abs(x)
        inside = self._length(x, self.p) <= self.radius
        scale = xp.where(inside, 1.0, xp.max(a, axis=-1, keepdims=True))
        a, r = a / scale, self.radius / scale

        def shrunk(t: Any) -> Any:
            low, high = 0.0 * a, a
            for _ in range(60):
                y = low / 2 + high / 2
                above = y + t * y ** (self.p - 1.0) > a
                low, high = xp.where(above, low, y), xp.where(above, y, high)
            return high

        few, many = -80.0 + 0.0 * scale, 80.0 + 0.0 * scale  # binary logarithms of t
        for _ in range(70):
            t = few / 2 + many / 2
            long = self._length(shrunk(2.0**t), self.p) > r
            few, many = xp.where(long, t, few), xp.where(long, many, t)
        y = shrunk(2.0**many)
        y = y * (r / xp.maximum(self._length(y, self.p), r))
        nearest: Array = xp.where(inside, x, sign(x) * y * scale)
        return nearest


@dataclass(frozen=True)
class GroupBall(Ball):
    """Points whose consecutive groups of ``group`` coordinates have lengths that sum to at most ``radius``.

    Args:
        dim: number of coordinates, a multiple of ``group``.
        group: coordinates of one group.
        radius: of the ball.
    """

    dim: int
    group: int
    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 1 or self.dim % self.group:
            raise InvalidArgument(f"group: expected a divisor of {self.dim}, got {self.group}.")

    def _groups(self, x: Any) -> tuple[Any, Any]:
        """Return ``(..., groups, group)`` coordinates and ``(..., groups)`` lengths."""
        parts = x.reshape((*x.shape[:-1], self.dim // self.group, self.group))
        return parts, length(parts)[..., 0]

    def lmo(self, s: Any) -> Array:
        """Return the whole of the longest group of ``-s``, scaled to the radius."""
        s = floating(s)
        xp = namespace(s)
        parts, lengths = self._groups(s)
        share = xp.where(lengths > 0.0, L1Ball(lengths.shape[-1], self.radius).lmo(lengths), 0.0)
        safe = xp.where(lengths > 0.0, lengths, 1.0)
        v: Array = (parts * (share / safe)[..., None]).reshape(s.shape)
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r`` times the length of the longest group."""
        s = floating(s)
        return -self.radius * namespace(s).max(self._groups(s)[1], axis=-1)

    def excess(self, x: Any) -> Any:
        """Return the sum of the lengths of the groups, less ``r``."""
        return namespace(x).sum(self._groups(x)[1], axis=-1) - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: the lengths are projected onto the l1 ball."""
        x = floating(x)
        parts, lengths = self._groups(x)
        kept = L1Ball(lengths.shape[-1], self.radius).project(lengths)
        share = kept / namespace(x).where(lengths > 0.0, lengths, 1.0)
        nearest: Array = (parts * share[..., None]).reshape(x.shape)
        return nearest
