"""What a compact convex set can do, and what follows from that for all of them.

A set is a space of vectors with a *linear minimisation oracle*: ``lmo(s)`` returns an extreme point at
which ``<s, v>`` is lowest over the set; of several, the one at the lowest index. That is all that
Frank-Wolfe methods ask of a set; projected methods ask for ``project``. Matrices are points too, row by
row: an ``a x b`` matrix is a vector of ``a b`` coordinates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from dfo.arrays import Array, as_like, is_array, is_torch, namespace, to_numpy
from dfo.errors import InvalidArgument
from dfo.random import Key, normal, uniform
from dfo.spaces import Box

__all__ = ["Convex", "ConvexSet", "dirichlet", "floating", "is_convex", "lowered", "positive"]


@runtime_checkable
class ConvexSet(Protocol):
    """A compact convex set of vectors; a class of your own with these members is one."""

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        ...

    @property
    def center(self) -> Array:
        """A ``(d,)`` point to start from, in the relative interior."""
        ...

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` is a point of the set, up to rounding."""
        ...

    def project(self, x: Any) -> Array:
        """Return the nearest point of the set, ``(d,)`` or ``(n, d)`` as ``x``."""
        ...

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` random points of the set."""
        ...

    def lmo(self, s: Any) -> Array:
        """Return a point of the set where ``<s, v>`` is lowest, ``(d,)`` or ``(n, d)`` as ``s``."""
        ...


def is_convex(space: object) -> TypeGuard[ConvexSet]:
    """Tell whether a space is a set with a linear minimisation oracle; a :class:`~dfo.Box` is seen as a box."""
    return not isinstance(space, Box) and callable(getattr(space, "lmo", None))


class Convex:
    """Base of the sets: everything that follows from ``dim``, ``size``, ``excess``, ``project`` and ``lmo``."""

    if TYPE_CHECKING:

        @property
        def dim(self) -> int: ...  # noqa: D102

    @property
    def size(self) -> float:
        """A length of the set, by which rounding is judged."""
        return 1.0

    @property
    def center(self) -> Array:
        """A ``(d,)`` point to start from: the origin, about which most sets are symmetric."""
        return np.zeros(self.dim)

    def lmo(self, s: Any) -> Array:
        """Return a point of the set where ``<s, v>`` is lowest."""
        raise NotImplementedError

    def project(self, x: Any) -> Array:
        """Return the nearest point of the set."""
        raise NotImplementedError

    def tangent(self, z: Any) -> Any:
        """Return the part of directions along which the set extends, ``(d,)`` or ``(n, d)``: all, unless it is flat."""
        return floating(z)

    def excess(self, x: Any) -> Any:
        """Return by how much constraints are violated at ``x``: a number, or ``(n,)``; at most 0 inside."""
        raise NotImplementedError

    def contains(self, x: Any, tol: float | None = None) -> bool:
        """Tell whether ``x`` is a point of the set.

        Args:
            x: ``(d,)``.
            tol: violation allowed; by default 1e-9 of the set's size, more in single precision.
        """
        try:
            point = floating(x)
        except (TypeError, ValueError):
            return False
        if tuple(point.shape) != (self.dim,) or not bool(namespace(point).isfinite(point).all()):
            return False
        return bool(self.excess(point) <= (self.slack(point) if tol is None else tol))

    def slack(self, x: Array) -> float:
        """Return the violation that counts as rounding for points of the type of ``x``."""
        return self.size * max(1e-9, 100.0 * float(namespace(x).finfo(x.dtype).eps))

    def lmo_warm(self, s: Any, warm: Any = None) -> tuple[Array, Any]:
        """Return ``lmo(s)`` for one ``(d,)`` s, and what makes the next call cheap: data, or None.

        Args:
            s: ``(d,)``.
            warm: what the previous call returned; None at first.
        """
        return self.lmo(s), None

    def support(self, s: Any) -> Any:
        """Return the lowest ``<s, v>`` over the set, a number or ``(n,)``: minus the dual norm for a ball."""
        s = floating(s)
        return (s * self.lmo(s)).sum(axis=-1)

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points: random mixtures of four extreme points (not uniform)."""
        s = normal(key.child("ends"), (4 * n, self.dim))
        ends = self.lmo(s).reshape(n, 4, self.dim)
        return np.asarray(np.einsum("nk,nkd->nd", dirichlet(key.child("weights"), n, 4), ends))


def dirichlet(key: Key, n: int, k: int) -> Array:
    """Return ``(n, k)`` points, uniform on the simplex of sum 1."""
    e = -np.log1p(-uniform(key, (n, k)))
    result: Array = e / e.sum(axis=1, keepdims=True)
    return result


def floating(x: Any) -> Any:
    """Return ``x`` as an array of floating-point numbers of its library."""
    if is_torch(x):
        return x if x.dtype.is_floating_point else x.double()
    values = to_numpy(x) if is_array(x) else np.asarray(x)
    return values if values.dtype.kind == "f" else values.astype(float)


def positive(name: str, value: float) -> None:
    """Refuse a length that is not positive and finite.

    Raises:
        InvalidArgument: it is not.
    """
    if not 0.0 < value < math.inf:
        raise InvalidArgument(f"{name}: expected a positive finite number, got {value!r}.")


def lowered(a: Any, total: float, cap: float = math.inf) -> Any:
    """Return ``clip(a - t, 0, cap)`` with the level ``t`` at which its sum is ``total``, along the last axis.

    What projections onto simplices and l1 balls do to their coordinates. The level comes from the sorted
    coordinates without a cap; with one, from bisection to the right linear piece and its exact root.

    Args:
        a: ``(..., d)``.
        total: at most ``d cap``.
        cap: most of one coordinate.
    """
    xp, d = namespace(a), a.shape[-1]
    a = a - xp.max(a, axis=-1, keepdims=True)  # large numbers must not swallow the total
    if cap == math.inf:
        falling = -xp.sort(-a, axis=-1)
        count = as_like(np.arange(1.0, d + 1.0), a)
        above = as_like(falling * count > xp.cumsum(falling, axis=-1) - total, a)  # the first k: those that stay > 0
        level = (xp.sum(falling * above, axis=-1, keepdims=True) - total) / xp.sum(above, axis=-1, keepdims=True)
        return xp.clip(a - level, 0.0, None)
    high = xp.zeros_like(a[..., :1])
    low = xp.min(a, axis=-1, keepdims=True) - total / d
    for _ in range(8 - round(math.log2(float(xp.finfo(a.dtype).eps)))):
        middle = low / 2 + high / 2
        above = xp.sum(xp.clip(a - middle, 0.0, cap), axis=-1, keepdims=True) > total
        low, high = xp.where(above, middle, low), xp.where(above, high, middle)
    rest = a - low
    free = as_like((rest > 0.0) & (rest < cap), a)
    count = xp.clip(xp.sum(free, axis=-1, keepdims=True), 1.0, None)
    level = low + (xp.sum(xp.clip(rest, 0.0, cap), axis=-1, keepdims=True) - total) / count
    return xp.clip(a - level, 0.0, cap)
