"""Sets made of sets: products, translations, scalings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.random import Key
from dfo.sets.convex import Convex, floating, is_convex
from dfo.spaces import Box

__all__ = ["Product", "Scaled", "Shifted"]


def _checked(name: str, part: Any) -> Any:
    if not (is_convex(part) or (isinstance(part, Box) and bool(part.bounded.all()))):
        raise InvalidType(f"{name}: expected a set such as dfo.L1Ball(3) or a bounded box, got {short(part)}.")
    return part


def _excess(part: Any, x: Any) -> Any:
    """Return the excess over a set, also over a box or a set of somebody else's."""
    if isinstance(part, Box):
        xp = namespace(x)
        return xp.max(xp.maximum(as_like(part.lower, x) - x, x - as_like(part.upper, x)), axis=-1)
    if hasattr(part, "excess"):
        return part.excess(x)
    return abs(part.project(x) - x).max(axis=-1)


def _tangent(part: Any, z: Any) -> Any:
    return part.tangent(z) if hasattr(part, "tangent") else z


def _size(part: Any) -> float:
    if isinstance(part, Box):
        return float(max(np.abs(part.lower).max(), np.abs(part.upper).max(), 1e-300))
    return float(getattr(part, "size", 1.0))


@dataclass(frozen=True)
class Product(Convex):
    """Points made of a point of each set, one after the other.

    Args:
        sets: at least one set, or bounded box.

    Example:
        >>> import dfo
        >>> dfo.Product([dfo.Simplex(2), dfo.L1Ball(2)]).lmo([1.0, 0.0, 1.0, 0.0])
        array([ 0.,  1., -1.,  0.])
    """

    sets: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sets", tuple(_checked("sets", part) for part in self.sets))
        if not self.sets:
            raise InvalidArgument("sets: expected at least one set, got none.")

    @property
    def dim(self) -> int:
        """Number of coordinates of all."""
        return sum(part.dim for part in self.sets)

    @property
    def size(self) -> float:
        """The largest size of a set."""
        return max(_size(part) for part in self.sets)

    @property
    def center(self) -> Array:
        """The centers."""
        return np.concatenate([part.center for part in self.sets])

    def _pieces(self, x: Any) -> list[tuple[Any, Any]]:
        ends = np.cumsum([part.dim for part in self.sets]).tolist()
        starts = [0, *ends[:-1]]
        return [(part, x[..., a:b]) for part, a, b in zip(self.sets, starts, ends, strict=True)]

    def _each(self, x: Any, of: Callable[[Any, Any], Any]) -> Any:
        x = floating(x)
        return namespace(x).concat([as_like(of(part, piece), piece) for part, piece in self._pieces(x)], axis=-1)

    def lmo(self, s: Any) -> Array:
        """Return the lowest point of each set."""
        v: Array = self._each(s, lambda part, piece: part.lmo(piece))
        return v

    def lmo_warm(self, s: Any, warm: Any = None) -> tuple[Array, Any]:
        """Return ``lmo(s)`` and what each set keeps for the next call."""
        s = floating(s)
        kept = warm or (None,) * len(self.sets)
        both = [
            part.lmo_warm(piece, before) if hasattr(part, "lmo_warm") else (part.lmo(piece), None)
            for (part, piece), before in zip(self._pieces(s), kept, strict=True)
        ]
        after = tuple(w for _, w in both)
        v: Array = namespace(s).concat([v for v, _ in both], axis=-1)
        return v, None if all(w is None for w in after) else after

    def tangent(self, z: Any) -> Any:
        """Return the directions along which the sets extend."""
        return self._each(z, _tangent)

    def excess(self, x: Any) -> Any:
        """Return the largest excess over a set."""
        xp = namespace(x)
        each = [_excess(part, piece) for part, piece in self._pieces(x)]
        if all(np.ndim(e) == 0 and not is_torch(e) for e in each):
            return max(float(e) for e in each)
        return xp.max(xp.stack([as_like(e, x) for e in each]), axis=0)

    def project(self, x: Any) -> Array:
        """Return the nearest point of each set."""
        nearest: Array = self._each(x, lambda part, piece: part.project(piece))
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points, drawn from each set."""
        return np.concatenate([part.sample(key.child(i), n) for i, part in enumerate(self.sets)], axis=1)


@dataclass(frozen=True, eq=False)
class Shifted(Convex):
    """A set moved by a vector.

    Args:
        inner: the set.
        by: ``(d,)``.
    """

    inner: Any
    by: Floats

    def __post_init__(self) -> None:
        _checked("inner", self.inner)
        by = np.asarray(self.by, dtype=float)
        if by.shape != (self.inner.dim,) or not np.isfinite(by).all():
            raise InvalidArgument(f"by: expected {self.inner.dim} finite numbers, got {short(self.by)}.")
        object.__setattr__(self, "by", by)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.inner.dim)

    @property
    def size(self) -> float:
        """The size of the set, or of the vector where that is larger (rounding grows with it)."""
        return max(_size(self.inner), float(np.abs(self.by).max()))

    @property
    def center(self) -> Array:
        """The center, moved."""
        return np.asarray(self.inner.center + self.by)

    def lmo(self, s: Any) -> Array:
        """Return the lowest point of the set, moved."""
        return self.lmo_warm(s)[0] if floating(s).ndim == 1 else self.inner.lmo(s) + as_like(self.by, floating(s))

    def lmo_warm(self, s: Any, warm: Any = None) -> tuple[Array, Any]:
        """Return ``lmo(s)`` and what the set keeps for the next call."""
        s = floating(s)
        v, warm = self.inner.lmo_warm(s, warm) if hasattr(self.inner, "lmo_warm") else (self.inner.lmo(s), None)
        return v + as_like(self.by, v), warm

    def tangent(self, z: Any) -> Any:
        """Return the directions along which the set extends."""
        return _tangent(self.inner, z)

    def excess(self, x: Any) -> Any:
        """Return the excess of the point moved back."""
        return _excess(self.inner, x - as_like(self.by, x))

    def project(self, x: Any) -> Array:
        """Return the nearest point."""
        x = floating(x)
        by: Any = as_like(self.by, x)
        nearest: Array = self.inner.project(x - by) + by
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points of the set, moved."""
        return np.asarray(self.inner.sample(key, n) + self.by)


@dataclass(frozen=True)
class Scaled(Convex):
    """A set stretched about the origin.

    Args:
        inner: the set.
        factor: above 0.
    """

    inner: Any
    factor: float

    def __post_init__(self) -> None:
        _checked("inner", self.inner)
        if not 0.0 < self.factor < float("inf"):
            raise InvalidArgument(f"factor: expected a positive finite number, got {self.factor!r}.")

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.inner.dim)

    @property
    def size(self) -> float:
        """The size of the set, stretched."""
        return self.factor * _size(self.inner)

    @property
    def center(self) -> Array:
        """The center, stretched."""
        return np.asarray(self.factor * self.inner.center)

    def lmo(self, s: Any) -> Array:
        """Return the lowest point of the set, stretched."""
        v: Array = self.factor * self.inner.lmo(s)
        return v

    def lmo_warm(self, s: Any, warm: Any = None) -> tuple[Array, Any]:
        """Return ``lmo(s)`` and what the set keeps for the next call."""
        v, warm = self.inner.lmo_warm(s, warm) if hasattr(self.inner, "lmo_warm") else (self.inner.lmo(s), None)
        return self.factor * v, warm

    def tangent(self, z: Any) -> Any:
        """Return the directions along which the set extends."""
        return _tangent(self.inner, z)

    def excess(self, x: Any) -> Any:
        """Return the excess of the point shrunk back, stretched."""
        return self.factor * _excess(self.inner, x / self.factor)

    def project(self, x: Any) -> Array:
        """Return the nearest point."""
        nearest: Array = self.factor * self.inner.project(floating(x) / self.factor)
        return nearest

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points of the set, stretched."""
        return np.asarray(self.factor * self.inner.sample(key, n))
