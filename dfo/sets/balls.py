"""The simplex and the balls of vector norms.

References: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions";
Jaggi 2013, "Revisiting Frank-Wolfe: projection-free sparse convex optimization" (table of oracles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, namespace
from dfo.errors import InvalidArgument
from dfo.random import Key, normal, signs, uniform
from dfo.sets.convex import Convex, dirichlet, floating, positive, waterline

__all__ = ["GroupBall", "KSparse", "L1Ball", "L2Ball", "LInfBall", "LpBall", "Simplex"]


def _at(index: Any, like: Any) -> Any:
    """Return whether each coordinate is the one of ``index``, shaped as ``like``."""
    xp = namespace(like)
    place = np.arange(like.shape[-1]) if xp is np else xp.arange(like.shape[-1], device=like.device)
    return place == index[..., None]


def _norm(x: Any) -> Any:
    """Return euclidean lengths along the last axis, ``(..., 1)``, without overflow."""
    xp = namespace(x)
    top = xp.max(xp.abs(x), axis=-1, keepdims=True)
    safe = xp.where(top > 0.0, top, 1.0)
    return safe * xp.sqrt(xp.sum((x / safe) ** 2, axis=-1, keepdims=True))


def _sign(x: Any) -> Any:
    """Return +1 and -1; 0 counts as positive, so that extreme points stay extreme."""
    one = namespace(x).ones_like(x)
    return namespace(x).where(x < 0.0, -one, one)


class _Ball(Convex):
    """A ball of ``radius`` about the origin of R^``dim``."""

    dim: int
    radius: float

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise InvalidArgument(f"dim: expected at least one variable, got {self.dim}.")
        positive("radius", self.radius)

    @property
    def size(self) -> float:
        """The radius."""
        return self.radius


@dataclass(frozen=True)
class Simplex(_Ball):
    """Points with coordinates >= 0 that sum to ``radius``: mixtures.

    Args:
        dim: number of coordinates.
        radius: their sum.

    Example:
        >>> import dfo
        >>> dfo.Simplex(3).lmo([0.5, -2.0, 1.0])
        array([0., 1., 0.])
    """

    dim: int
    radius: float = 1.0

    @property
    def center(self) -> Array:
        """Equal coordinates."""
        return np.full(self.dim, self.radius / self.dim)

    def lmo(self, s: Any) -> Array:
        """Return ``r e_i`` with ``i = argmin s``; the lowest value is ``r min s``."""
        s = floating(s)
        xp = namespace(s)
        v: Array = xp.where(_at(xp.argmin(s, axis=-1), s), self.radius * xp.ones_like(s), xp.zeros_like(s))
        return v

    def support(self, s: Any) -> Any:
        """Return ``r min s``."""
        s = floating(s)
        return self.radius * namespace(s).min(s, axis=-1)

    def excess(self, x: Any) -> Any:
        """Return the larger of the lowest coordinate's distance below 0 and of the sum's error."""
        xp = namespace(x)
        return xp.maximum(-xp.min(x, axis=-1), xp.abs(xp.sum(x, axis=-1) - self.radius))

    def project(self, x: Any) -> Array:
        """Return the nearest point: all coordinates lowered by one level, negative ones cut."""
        x = floating(x)
        nearest: Array = namespace(x).clip(x - waterline(x, self.radius), 0.0, None)
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        return self.radius * dirichlet(key, n, self.dim)


@dataclass(frozen=True)
class L1Ball(_Ball):
    """Points with ``sum |x_i| <= radius``: its extreme points have one coordinate, iterates few.

    Args:
        dim: number of coordinates.
        radius: of the ball.

    Example:
        >>> import dfo
        >>> dfo.L1Ball(3, radius=2.0).lmo([0.5, -2.0, 1.0])
        array([0., 2., 0.])
    """

    dim: int
    radius: float = 1.0

    def lmo(self, s: Any) -> Array:
        """Return ``-r sign(s_i) e_i`` with ``i = argmax |s_i|``; the lowest value is ``-r |s|_inf``."""
        s = floating(s)
        xp = namespace(s)
        v: Array = xp.where(_at(xp.argmax(xp.abs(s), axis=-1), s), -self.radius * _sign(s), xp.zeros_like(s))
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r |s|_inf``."""
        s = floating(s)
        return -self.radius * namespace(s).max(abs(s), axis=-1)

    def excess(self, x: Any) -> Any:
        """Return ``|x|_1 - r``."""
        return namespace(x).sum(abs(x), axis=-1) - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: soft thresholding at the right level."""
        x = floating(x)
        xp, a = namespace(x), abs(x)
        inside = xp.sum(a, axis=-1, keepdims=True) <= self.radius
        nearest: Array = xp.where(inside, x, _sign(x) * xp.clip(a - waterline(a, self.radius), 0.0, None))
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        inside = dirichlet(key.child("length"), n, self.dim + 1)[:, :-1]
        return np.asarray(self.radius * inside * signs(key.child("sign"), (n, self.dim)))


@dataclass(frozen=True)
class L2Ball(_Ball):
    """Points with ``|x|_2 <= radius``.

    Args:
        dim: number of coordinates.
        radius: of the ball.
    """

    dim: int
    radius: float = 1.0

    def lmo(self, s: Any) -> Array:
        """Return ``-r s / |s|``, 0 where ``s`` is 0; the lowest value is ``-r |s|_2``."""
        s = floating(s)
        length = _norm(s)
        v: Array = -self.radius * (s / namespace(s).where(length > 0.0, length, 1.0))
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r |s|_2``."""
        return -self.radius * _norm(floating(s))[..., 0]

    def excess(self, x: Any) -> Any:
        """Return ``|x|_2 - r``."""
        return _norm(x)[..., 0] - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: shortened where it is too long."""
        x = floating(x)
        nearest: Array = x * (self.radius / namespace(x).clip(_norm(x), self.radius, None))
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        z, u = normal(key.child("way"), (n, self.dim)), uniform(key.child("length"), (n, 1))
        return np.asarray(self.radius * u ** (1.0 / self.dim) * z / _norm(z))


@dataclass(frozen=True)
class LInfBall(_Ball):
    """Points with ``|x_i| <= radius``: a cube in its own coordinates, which queries may leave.

    Bounds as pairs make a :class:`~dfo.Box`, which no query leaves.

    Args:
        dim: number of coordinates.
        radius: of the ball.
    """

    dim: int
    radius: float = 1.0

    def lmo(self, s: Any) -> Array:
        """Return ``-r sign(s)``; the lowest value is ``-r |s|_1``."""
        s = floating(s)
        v: Array = -self.radius * _sign(s)
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r |s|_1``."""
        s = floating(s)
        return -self.radius * namespace(s).sum(abs(s), axis=-1)

    def excess(self, x: Any) -> Any:
        """Return ``|x|_inf - r``."""
        return namespace(x).max(abs(x), axis=-1) - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: coordinates clipped."""
        x = floating(x)
        nearest: Array = namespace(x).clip(x, -self.radius, self.radius)
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        return np.asarray(self.radius * (2.0 * uniform(key, (n, self.dim)) - 1.0))


@dataclass(frozen=True)
class LpBall(_Ball):
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
        length = self._length(s, q)
        share = abs(s) / namespace(s).where(length > 0.0, length, 1.0)
        v: Array = -self.radius * _sign(s) * share ** (q - 1.0)
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
        nearest: Array = xp.where(inside, x, _sign(x) * y * scale)
        return nearest


@dataclass(frozen=True)
class KSparse(_Ball):
    """The hull of the points of at most ``k`` coordinates of ``+-radius``: ``|x|_inf <= r``, ``|x|_1 <= k r``.

    Args:
        dim: number of coordinates.
        k: most coordinates of an extreme point.
        radius: their size.

    Example:
        >>> import dfo
        >>> dfo.KSparse(4, k=2).lmo([0.5, -2.0, 1.0, -1.0])
        array([ 0.,  1., -1.,  0.])
    """

    dim: int
    k: int
    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.dim:
            raise InvalidArgument(f"k: expected 1 to {self.dim} coordinates, got {self.k}.")

    def lmo(self, s: Any) -> Array:
        """Return ``-r sign(s)`` at the ``k`` largest ``|s_i|``, 0 elsewhere."""
        s = floating(s)
        xp = namespace(s)
        order = xp.argsort(-abs(s), axis=-1, stable=True)
        rank = xp.argsort(order, axis=-1, stable=True)
        v: Array = xp.where(rank < self.k, -self.radius * _sign(s), xp.zeros_like(s))
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r`` times the sum of the ``k`` largest ``|s_i|``."""
        s = floating(s)
        xp = namespace(s)
        return -self.radius * xp.sum(xp.sort(abs(s), axis=-1)[..., self.dim - self.k :], axis=-1)

    def excess(self, x: Any) -> Any:
        """Return the larger of ``|x|_inf - r`` and ``|x|_1 - k r``."""
        xp, a = namespace(x), abs(x)
        return xp.maximum(xp.max(a, axis=-1) - self.radius, xp.sum(a, axis=-1) - self.k * self.radius)

    def project(self, x: Any) -> Array:
        """Return the nearest point: soft thresholding at the right level, clipped."""
        x = floating(x)
        xp, a, most = namespace(x), abs(x), self.k * self.radius
        clipped = xp.clip(a, 0.0, self.radius)
        inside = xp.sum(clipped, axis=-1, keepdims=True) <= most
        level = xp.clip(a - waterline(a, most, self.radius), 0.0, self.radius)
        nearest: Array = _sign(x) * xp.where(inside, clipped, level)
        return nearest


@dataclass(frozen=True)
class GroupBall(_Ball):
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
        return parts, _norm(parts)[..., 0]

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
