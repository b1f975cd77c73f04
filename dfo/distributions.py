"""Distributions of random directions, normalised so that ``E[u u^T] = I``.

One radius then means the same length of step for all of them (a sphere direction has norm ``sqrt(d)``). For a
linear function and one central difference, the second moment ``E|g_hat|^2 / |g|^2`` is exactly ``d + 2``
(gaussian), ``d`` (sphere, rademacher, and coordinates drawn at random), ``d/q`` (``q`` orthogonal directions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace, scratch
from dfo.errors import InvalidArgument, InvalidType, short, unknown
from dfo.random import Key, choice, fill_normal, integers, normal, signs, uniform

__all__ = [
    "DISTRIBUTIONS",
    "Coordinate",
    "Distribution",
    "Gaussian",
    "LowRank",
    "NoiseTable",
    "Orthogonal",
    "Rademacher",
    "Sparse",
    "Sphere",
    "Subspace",
    "distribution",
]

CHUNK = 1 << 18
"""Numbers drawn at a time where a law makes temporaries."""

ALIGNED = 16
"""Directions out of a table begin at multiples of this."""


class Distribution(Protocol):
    """A law of directions in R^d with ``E[u u^T] = I``.

    Optional members: ``within(shape)`` returns the law of a block of that shape of a point in named blocks, or None
    where the block stays where it is (a law without it draws whole points only, unless it is elementwise);
    ``over(key, shapes)``, where it exists, returns instead the laws of all blocks that directions of this key move,
    by name (see :mod:`dfo.structured`); ``combined(key, weights, like)`` returns ``weights @ rows`` without building
    the rows, and ``row(key, i, like)`` one row alone; ``views(key, count, like)`` returns the rows as a list of arrays
    that exist already.
    """

    elementwise: ClassVar[bool]

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions for a point like ``like``, ``(d,)``."""
        ...

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return entries ``start .. start + count`` of the flattened rows (elementwise laws only)."""
        ...


class _Joint:
    """Base of the laws whose coordinates depend on each other."""

    elementwise: ClassVar[bool] = False

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        raise InvalidType(f"{type(self).__name__} draws whole directions; use a gaussian, rademacher or sparse law.")


@dataclass(frozen=True)
class Gaussian:
    """Standard normal directions: isotropic, with a heavy radial tail (second moment d + 2)."""

    elementwise: ClassVar[bool] = True

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        return fill_normal(scratch((count, like.shape[-1]), like), key)

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        return normal(key, (count,), like, start)


@dataclass(frozen=True)
class Rademacher:
    """Directions of +1 and -1 (SPSA, Spall 1992): one bit a coordinate, not rotation invariant."""

    elementwise: ClassVar[bool] = True

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        d = like.shape[-1]
        if count * d <= CHUNK:
            return signs(key, (count, d), like)
        rows = scratch((count, d), like)
        flat = rows.reshape(-1)
        for at in range(0, count * d, CHUNK):
            flat[at : at + CHUNK] = signs(key, (min(CHUNK, count * d - at),), like, at)
        return rows

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        return signs(key, (count,), like, start)


@dataclass(frozen=True)
class Sparse:
    """Gaussian directions that touch each coordinate with probability ``density``, scaled by ``density**-0.5``.

    Args:
        density: expected share of the coordinates that move, in (0, 1].
    """

    density: float = 0.1
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise InvalidArgument(f"density: expected a share in (0, 1], got {self.density!r}.")

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        d = like.shape[-1]
        return self.piece(key, 0, count * d, like).reshape(count, d)

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        kept = uniform(key.child("mask"), (count,), None, start) < self.density
        entries: Array = normal(key, (count,), like, start) * as_like(kept * self.density**-0.5, like)
        return entries


@dataclass(frozen=True)
class Sphere(_Joint):
    """Uniform on the sphere of radius ``sqrt(d)``: the least variance among isotropic laws."""

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        xp, drawn = namespace(like), normal(key, (count, like.shape[-1]), like)
        norms = xp.sqrt((drawn * drawn).sum(axis=1))[:, None]
        rows: Array = drawn * (math.sqrt(like.shape[-1]) / norms)
        return rows

    def within(self, shape: tuple[int, ...]) -> Distribution:
        """Return the law of a block: on a sphere of its own, of radius ``sqrt(m)``."""
        return _Spherical(math.prod(shape))


@dataclass(frozen=True, eq=False)
class _Spherical:
    """Sphere directions of a block of ``size`` entries, any stretch of them alone; their norms are kept."""

    size: int
    norms: dict[Any, float] = field(default_factory=dict, repr=False)
    elementwise: ClassVar[bool] = True

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        return self.piece(key, 0, count * self.size, like).reshape(count, self.size)

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        out: Any = normal(key, (count,), like, start)
        at, m = 0, self.size
        while at < count:
            i, first = divmod(start + at, m)
            out[at : at + m - first] *= math.sqrt(m) / self._norm(key, i, like)
            at += m - first
        drawn: Array = out
        return drawn

    def _norm(self, key: Key, i: int, like: Any) -> float:
        where = (key, i, *_kind(like))
        if where not in self.norms:
            total, m = 0.0, self.size
            for at in range(0, m, CHUNK):
                part: Any = normal(key, (min(CHUNK, m - at),), like, i * m + at)
                wide = part.double() if is_torch(part) else part.astype(float)
                total += float((wide * wide).sum())
            self.norms[where] = math.sqrt(total)
        return self.norms[where]


@dataclass(frozen=True)
class Orthogonal(_Joint):
    """Haar-random orthogonal directions of norm ``sqrt(d)``, in groups of at most ``d``.

    With ``q = d`` directions the estimate is the finite-difference gradient in a random basis.
    """

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        xp, d = namespace(like), like.shape[-1]
        groups = []
        for at in range(0, count, d):
            drawn = normal(key.child(at // d), (min(d, count - at), d), like)
            q, r = xp.linalg.qr(drawn.T)
            groups.append((q * xp.sign(xp.linalg.diagonal(r))).T)  # the sign makes the law exactly Haar
        rows: Array = math.sqrt(d) * (groups[0] if len(groups) == 1 else xp.concat(groups))
        return rows


@dataclass(frozen=True)
class Coordinate(_Joint):
    """Coordinate axes scaled by ``sqrt(d)``: all of them in order when ``q = d`` (CGE), else a random block.

    With ``q = d`` the estimate is the finite-difference gradient itself.
    """

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        d = like.shape[-1]
        picked = np.concatenate(
            [
                np.arange(d) if count - at >= d else np.sort(choice(key.child(at // d), d, count - at))
                for at in range(0, count, d)
            ]
        )
        rows: Any = np.zeros((count, d))
        rows[np.arange(count), picked] = math.sqrt(d)
        return as_like(rows, like)


@dataclass(frozen=True)
class LowRank(_Joint):
    """Matrices ``A B^T / sqrt(r)`` (EGGROLL, Sarkar et al. 2025, arXiv:2511.16652), by default with factors of signs.

    The second moment for an ``a x b`` matrix at rank 1 is ``(a + 2)(b + 2)`` with gaussian factors, those of the paper.
    With signs it is ``a b``, that of dense signs, every matrix of rank 1 has the same norm, and an entry costs a bit
    instead of half a word. Entries of vectors are drawn as those of the factors are.

    Args:
        shape: what the point is, row by row: the two sides ``(a, b)`` of a matrix, or the shapes of several
            matrices and vectors one behind the other, such as ``((64, 32), (32,))``. For a point in named
            blocks None: each block has its own shape, of which the sides behind the first count as one.
        rank: ``r``, at least 1.
        entries: law of the entries of the factors and of vectors, ``"rademacher"`` or ``"gaussian"``.

    Raises:
        InvalidArgument: the shapes have not as many coordinates as the point, the rank is below 1, or another law of
            entries.
    """

    shape: tuple[int, int] | tuple[tuple[int, ...], ...] | None = None
    rank: int = 1
    entries: Literal["gaussian", "rademacher"] = "rademacher"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidArgument(f"LowRank: expected a rank >= 1, got a matrix of rank {self.rank}.")
        if self.entries not in ("gaussian", "rademacher"):
            raise InvalidArgument(f'LowRank: expected entries "gaussian" or "rademacher", got {self.entries!r}.')

    @property
    def vectors(self) -> Distribution:
        """The law of vectors, and of the entries of the factors."""
        return distribution(self.entries)

    def _entries(self, key: Key, shape: tuple[int, ...], like: Array, start: int = 0) -> Any:
        return self.vectors.piece(key, start, math.prod(shape), like).reshape(shape)

    def _parts(self, key: Key, like: Array) -> list[tuple[Key, int, int]]:
        """Return key and sides of every matrix; a vector has one side of 1."""
        shape: Any = (like.shape[-1],) if self.shape is None else self.shape
        several = shape and isinstance(shape[0], (tuple, list))
        sides = [(int(s[0]) if len(s) else 1, math.prod(s[1:])) for s in (shape if several else (shape,))]
        if sum(a * b for a, b in sides) != like.shape[-1]:
            raise InvalidArgument(f"LowRank: shape {shape} does not fit {like.shape[-1]} coordinates.")
        return [(key.child(j) if several else key, a, b) for j, (a, b) in enumerate(sides)]

    def factors(self, key: Key, a: int, b: int, count: int, like: Array, start: int = 0) -> tuple[Any, Any]:
        """Return factors ``(count, a, r)`` and ``(count, r, b)`` of the directions from ``start`` on.

        Their products are the directions of a matrix ``(a, b)``; the second is scaled by ``r**-0.5``.
        """
        r = self.rank
        right = self._entries(key.child("right"), (count, r, b), like, start * r * b)
        if r > 1:
            right *= r**-0.5
        return self._entries(key.child("left"), (count, a, r), like, start * a * r), right

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        out: Any = scratch((count, like.shape[-1]), like)
        at = 0
        for part, a, b in self._parts(key, like):
            if b == 1:
                out[:, at : at + a] = self._entries(part, (count, a), like)
            else:
                left, right = self.factors(part, a, b, count, like)
                out[:, at : at + a * b] = (left @ right).reshape(count, a * b)
            at += a * b
        rows: Array = out
        return rows

    def row(self, key: Key, i: int, like: Array) -> Array:
        """Return direction ``i`` alone, ``(d,)``."""
        parts = []
        for part, a, b in self._parts(key, like):
            if b == 1:
                parts.append(self._entries(part, (a,), like, i * a))
                continue
            left, right = self.factors(part, a, b, 1, like, i)
            parts.append((left @ right).reshape(-1))
        row: Array = parts[0] if len(parts) == 1 else namespace(like).concat(parts)
        return row

    def combined(self, key: Key, weights: Array, like: Array) -> Array:
        """Return ``weights @ rows``, ``(d,)``, as one product of the weighted factors for every matrix."""
        xp, count, sums = namespace(like), weights.shape[0], []
        for part, a, b in self._parts(key, like):
            if b == 1:
                sums.append(weights @ self._entries(part, (count, a), like))
            else:
                left, right = self.factors(part, a, b, count, like)
                left *= weights[:, None, None]
                tall = xp.permute_dims(left, (1, 0, 2)).reshape(a, count * self.rank)
                sums.append((tall @ right.reshape(count * self.rank, b)).reshape(-1))
        total: Array = sums[0] if len(sums) == 1 else xp.concat(sums)
        return total

    def within(self, shape: tuple[int, ...]) -> Distribution:
        """Return the law of a block of this shape."""
        return LowRank((shape,), self.rank, self.entries)


@dataclass(frozen=True)
class NoiseTable(_Joint):
    """Gaussian directions cut out of one table of normal numbers, at random places (Salimans et al. 2017, section 2.1).

    Nothing is drawn but the places, so directions cost what reading them costs. They overlap, hence depend on each
    other: two of ``q`` directions share a part of their numbers with probability below ``2 d / (size - d)``, and all
    numbers repeat from step to step. Take a table much larger than the point.

    Args:
        size: numbers in the table; 2**25 by default, 128 MiB in single precision.
        seed: of the table, which is made once in a process.

    Raises:
        InvalidArgument: the point does not fit into the table.
    """

    size: int = 1 << 25
    seed: int = 0

    def views(self, key: Key, count: int, like: Array) -> list[Array]:
        """Return ``count`` directions as slices of the table, ``(d,)`` each."""
        d = like.shape[-1]
        if d > self.size:
            raise InvalidArgument(f"NoiseTable: {d} coordinates do not fit; expected size >= {d}, got {self.size}.")
        table: Any = _table(self.size, self.seed, *_kind(like))
        places = ALIGNED * integers(key, (self.size - d) // ALIGNED + 1, (count,))  # whole lines of the cache
        return [table[int(at) : int(at) + d] for at in places]

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        rows: Array = namespace(like).stack(self.views(key, count, like))
        return rows

    def within(self, shape: tuple[int, ...]) -> Distribution:
        """Return the law itself: every block is cut out on its own."""
        return self


def _kind(like: Any) -> tuple[str, Any, Any]:
    """Return what makes two arrays of one kind: library, dtype, device."""
    return ("torch", like.dtype, str(like.device)) if is_torch(like) else ("numpy", like.dtype, None)


@lru_cache(maxsize=2)
def _table(size: int, seed: int, library: str, dtype: Any, device: Any) -> Array:
    if library == "torch":
        import torch

        return fill_normal(torch.empty(size, dtype=dtype, device=device), Key(seed, ("noise table",)))
    table = fill_normal(np.empty(size, dtype), Key(seed, ("noise table",)))
    table.flags.writeable = False
    return table


@dataclass(frozen=True, eq=False)
class Subspace(_Joint):
    """Gaussian directions within the span of ``k`` orthonormal rows, scaled by ``sqrt(d/k)``.

    Args:
        basis: ``(k, d)`` orthonormal rows.
    """

    basis: Floats

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        k, d = self.basis.shape
        basis: Any = self.basis
        if is_torch(like):
            basis = namespace(like).asarray(basis).to(like)
        rows: Array = normal(key, (count, k), like) @ basis * math.sqrt(d / k)
        return rows


DISTRIBUTIONS: Mapping[str, Distribution] = {
    "coordinate": Coordinate(),
    "gaussian": Gaussian(),
    "orthogonal": Orthogonal(),
    "rademacher": Rademacher(),
    "sparse": Sparse(),
    "sphere": Sphere(),
}
"""The laws that a name alone describes."""


def distribution(spec: str | Distribution) -> Distribution:
    """Return the law that a name or an instance stands for."""
    if isinstance(spec, str):
        if spec not in DISTRIBUTIONS:
            raise unknown("distribution of directions", spec, DISTRIBUTIONS)
        return DISTRIBUTIONS[spec]
    if not hasattr(spec, "rows"):
        raise InvalidType(f"directions: expected a name or a dfo.directions law, got {short(spec)}.")
    return spec
