"""The simplex and the balls of vector norms.

References: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions";
Jaggi 2013, "Revisiting Frank-Wolfe: projection-free sparse convex optimization" (table of oracles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, namespace
from dfo.errors import InvalidArgument
from dfo.random import Key, normal, signs, uniform
from dfo.sets.convex import Convex, dirichlet, floating, lowered, positive

__all__ = ["Ball", "KSparse", "L1Ball", "L2Ball", "LInfBall", "Simplex", "length", "sign"]


def _at(index: Any, like: Any) -> Any:
    """Return whether each coordinate is the one of ``index``, shaped as ``like``."""
    xp = namespace(like)
    place = np.arange(like.shape[-1]) if xp is np else xp.arange(like.shape[-1], device=like.device)
    return place == index[..., None]


def length(x: Any) -> Any:
    """Return euclidean lengths along the last axis, ``(..., 1)``, without overflow."""
    xp = namespace(x)
    top = xp.max(xp.abs(x), axis=-1, keepdims=True)
    safe = xp.where(top > 0.0, top, 1.0)
    return safe * xp.sqrt(xp.sum((x / safe) ** 2, axis=-1, keepdims=True))


def sign(x: Any) -> Any:
    """Return +1 and -1; 0 counts as positive, so that extreme points stay extreme."""
    one = namespace(x).ones_like(x)
    return namespace(x).where(x < 0.0, -one, one)


class Ball(Convex):
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
class Simplex(Ball):
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

    def tangent(self, z: Any) -> Any:
        """Return directions without their mean."""
        z = floating(z)
        return z - namespace(z).mean(z, axis=-1, keepdims=True)

    def excess(self, x: Any) -> Any:
        """Return the larger of the lowest coordinate's distance below 0 and of the sum's error."""
        xp = namespace(x)
        return xp.maximum(-xp.min(x, axis=-1), xp.abs(xp.sum(x, axis=-1) - self.radius))

    def project(self, x: Any) -> Array:
        """Return the nearest point: all coordinates lowered by one level, negative ones cut."""
        nearest: Array = lowered(floating(x), self.radius)
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        return self.radius * dirichlet(key, n, self.dim)


@dataclass(frozen=True)
class L1Ball(Ball):
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
        v: Array = xp.where(_at(xp.argmax(xp.abs(s), axis=-1), s), -self.radius * sign(s), xp.zeros_like(s))
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
        nearest: Array = xp.where(inside, x, sign(x) * lowered(a, self.radius))
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        inside = dirichlet(key.child("length"), n, self.dim + 1)[:, :-1]
        return np.asarray(self.radius * inside * signs(key.child("sign"), (n, self.dim)))


@dataclass(frozen=True)
class L2Ball(Ball):
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
        norm = length(s)
        v: Array = -self.radius * (s / namespace(s).where(norm > 0.0, norm, 1.0))
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r |s|_2``."""
        return -self.radius * length(floating(s))[..., 0]

    def excess(self, x: Any) -> Any:
        """Return ``|x|_2 - r``."""
        return length(x)[..., 0] - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: shortened where it is too long."""
        x = floating(x)
        nearest: Array = x * (self.radius / namespace(x).clip(length(x), self.radius, None))
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points."""
        z, u = normal(key.child("way"), (n, self.dim)), uniform(key.child("length"), (n, 1))
        return np.asarray(self.radius * u ** (1.0 / self.dim) * z / length(z))


@dataclass(frozen=True)
class LInfBall(Ball):
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
        v: Array = -self.radius * sign(s)
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
class KSparse(Ball):
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
        v: Array = xp.where(rank < self.k, -self.radius * sign(s), xp.zeros_like(s))
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
        nearest: Array = sign(x) * xp.where(inside, clipped, lowered(a, most, self.radius))
        return nearest
