"""Random directions as recipes: a distribution, a key and a count.

Every distribution is normalised so that ``E[u u^T] = I``: one radius means the same length of step
for all of them (a sphere direction has norm ``sqrt(d)``). For a linear function and one central
difference, the second moment ``E|g_hat|^2 / |g|^2`` is exactly ``d + 2`` (gaussian), ``d`` (sphere,
rademacher, and coordinates drawn at random), ``d/q`` (``q`` orthogonal directions).

Elementwise distributions (gaussian, rademacher, sparse) are drawn in slices of the flat stream:
member ``i`` of a block of ``m`` coordinates occupies ``i m .. (i + 1) m`` of the block's own stream, so
any block of any member can be rebuilt alone and nothing of the size of the point is ever held twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from dfo.arrays import Array, Floats, Point, as_like, is_blocks, is_torch, namespace, size, zeros
from dfo.errors import InvalidArgument, InvalidType, short, unknown
from dfo.random import Key, choice, normal, signs, uniform

__all__ = [
    "DISTRIBUTIONS",
    "Coordinate",
    "Directions",
    "Distribution",
    "Gaussian",
    "LowRank",
    "Orthogonal",
    "Rademacher",
    "Sparse",
    "Sphere",
    "Subspace",
    "distribution",
]

CHUNK = 1 << 18
"""Coordinates drawn at a time when a large point is moved in place (2 MiB in double precision)."""


class Distribution(Protocol):
    """A law of directions in R^d with ``E[u u^T] = I``."""

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
        return normal(key, (count, like.shape[-1]), like)

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        return normal(key, (count,), like, start)


@dataclass(frozen=True)
class Rademacher:
    """Directions of +1 and -1 (SPSA, Spall 1992): one bit a coordinate, not rotation invariant."""

    elementwise: ClassVar[bool] = True

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        return signs(key, (count, like.shape[-1]), like)

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
    """Matrices ``A B^T / sqrt(r)`` with gaussian factors (EGGROLL, Sarkar et al. 2025).

    The second moment for an ``a x b`` matrix at rank 1 is ``(a + 2)(b + 2)``.

    Args:
        shape: the two sides ``(a, b)`` of the matrix that the point is, row by row.
        rank: ``r``, at least 1.
    """

    shape: tuple[int, int]
    rank: int = 1

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, a b)`` directions."""
        a, b = self.shape
        if a * b != like.shape[-1] or self.rank < 1:
            raise InvalidArgument(f"LowRank: {a} x {b} of rank {self.rank} does not fit {like.shape[-1]} coordinates.")
        left = normal(key.child("left"), (count, a, self.rank), like)
        right = normal(key.child("right"), (count, self.rank, b), like)
        rows: Array = (left @ right).reshape(count, a * b) * self.rank**-0.5
        return rows


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
        """Return the directions as a ``(count, d)`` array (points in one array only)."""
        if is_blocks(self.like):
            raise InvalidType("dense: directions of a point in blocks are drawn member by member.")
        like: Any = self.like
        return self.law.rows(self.key, self.count, like)

    def combine(self, weights: Floats) -> Point:
        """Return ``sum_i weights[i] u_i``, shaped like a point."""
        if not is_blocks(self.like) and (self.count * size(self.like) <= CHUNK or not self.law.elementwise):
            rows: Any = self.dense()
            xp = namespace(rows)
            combined: Array = xp.asarray(weights, dtype=rows.dtype, device=rows.device) @ rows
            return combined
        return self.add_to(zeros(self.like), weights)

    def add_to(self, x: Point, weights: Floats) -> Point:
        """Add ``sum_i weights[i] u_i`` to ``x`` in place, a chunk at a time, and return ``x``."""
        active = [(i, float(w)) for i, w in enumerate(weights) if w != 0.0]
        for key, block in self._blocks(x):
            if not self.law.elementwise:
                block += self.combine(weights)
                continue
            m = block.shape[0]
            for at in range(0, m, CHUNK):
                part = block[at : at + CHUNK]
                for i, w in active:
                    part += w * self.law.piece(key, i * m + at, part.shape[0], part)
        return x

    def add_member(self, x: Point, i: int, scale: float) -> Point:
        """Add ``scale * u_i`` to ``x`` in place and return ``x``."""
        weights = np.zeros(self.count)
        weights[i] = scale
        return self.add_to(x, weights)

    def _blocks(self, x: Point) -> Iterator[tuple[Key, Any]]:
        """Yield the key and a flat view of every block of ``x``."""
        if not is_blocks(x):
            yield self.key, x
            return
        if not self.law.elementwise:
            raise InvalidType(f"{type(self.law).__name__} directions need a point in one array, got named blocks.")
        for name, block in x.items():
            flat = block.reshape(-1)
            if not _is_view(flat, block):
                raise InvalidArgument(f"block {name!r} is not contiguous, so it cannot be moved in place.")
            yield self.key.child(name), flat


def _is_view(flat: Any, block: Any) -> bool:
    if is_torch(block):
        return bool(flat.data_ptr() == block.data_ptr())
    return bool(np.shares_memory(flat, block))
