"""One question to an oracle: the points to evaluate, without necessarily building them.

:class:`Points` holds an ``(n, d)`` array. :class:`Perturbations` holds centers and a recipe of
directions: member ``i`` is ``centers[origin[i]] + scale[i] * u[index[i]]``, and nothing of the size of
the population exists until somebody asks for it. :class:`Items` holds anything else: strings, token
lists, graphs, named parameters.

A batch is valid until it is told; who keeps a member keeps a copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from dfo.arrays import (
    Array,
    Floats,
    Point,
    as_like,
    copy,
    host_view,
    is_blocks,
    namespace,
    put_mirrored,
    put_scaled,
    scratch,
    size,
)
from dfo.directions import Directions
from dfo.errors import ProblemTooLarge

__all__ = ["DENSE_LIMIT", "Batch", "Items", "Linear", "Perturbations", "Points"]

DENSE_LIMIT = 1 << 28
"""Most numbers that :meth:`Linear.dense` builds (2 GiB in double precision)."""

WIDE = 1 << 17
"""Coordinates of a large population written at a time: half a mebibyte in single precision."""

Ints = npt.NDArray[np.int64]
_PER_MEMBER = ("data", "lane", "origin", "index", "scale", "latent")


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """What every batch carries beside its points.

    Args:
        step: number of the question within its run; repeated asks repeat it.
        data: ``(n,)`` integers, or None: what each member sees (minibatch, episode seed, fidelity).
            Equal numbers mean the same data; with None the oracle chooses.
        lane: ``(n,)`` integers, or None: which persistent inner state each member continues; with None each
            member has a fresh one, which is not kept.
        commit: whether the inner states advance.
        top: how many of the best a ranking has to name; None for all.
        port: ``"value"``, or ``"propose"`` for a question to a second oracle that suggests points.
    """

    step: int = 0
    data: Ints | None = None
    lane: Ints | None = None
    commit: bool = True
    top: int | None = None
    port: Literal["value", "propose"] = "value"

    def __len__(self) -> int:
        raise NotImplementedError

    def member(self, i: int) -> Any:
        """Return a copy of member ``i``."""
        raise NotImplementedError

    def part(self, start: int, stop: int) -> Self:
        """Return the batch of members ``start .. stop``."""
        cut = {f: getattr(self, f)[start:stop] for f in _PER_MEMBER if getattr(self, f, None) is not None}
        return dataclasses.replace(self, **cut)

    def pick(self, members: Sequence[int]) -> Self:
        """Return the batch of some members, in this order."""
        chosen = list(members)
        if chosen == list(range(chosen[0], chosen[0] + len(chosen)) if chosen else ()):
            return self.part(chosen[0], chosen[0] + len(chosen)) if chosen else self.part(0, 0)
        return self._picked(chosen)

    def _picked(self, chosen: list[int]) -> Self:
        cut = {f: getattr(self, f)[chosen] for f in _PER_MEMBER if getattr(self, f, None) is not None}
        return dataclasses.replace(self, **cut)


class Linear(Batch):
    """A batch of points of a vector space."""

    def dense(self) -> Array:
        """Return the members as an ``(n, d)`` array.

        Raises:
            ProblemTooLarge: the array would hold more than :data:`DENSE_LIMIT` numbers.
        """
        raise NotImplementedError

    def combine(self, weights: Array) -> Point:
        """Return the sum of ``weights[i]`` times direction (or point) ``i``, shaped like a point."""
        raise NotImplementedError

    def add_to(self, x: Point, weights: Array) -> Point:
        """Add :meth:`combine` to ``x`` in place, block by block, and return ``x``."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Points(Linear):
    """Points given one by one.

    Args:
        X: ``(n, d)``, one point a row.
        latent: ``(n, k)`` what the solver drew to make them, for its own use when it is told; or None.
    """

    X: Array
    latent: Array | None = None

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def member(self, i: int) -> Array:
        """Return a copy of row ``i``."""
        row: Array = copy(self.X[i])
        return row

    def part(self, start: int, stop: int) -> Points:
        """Return the batch of rows ``start .. stop``."""
        return dataclasses.replace(super().part(start, stop), X=self.X[start:stop])

    def _picked(self, chosen: list[int]) -> Points:
        return dataclasses.replace(super()._picked(chosen), X=self.X[chosen])

    def dense(self) -> Array:
        """Return ``X`` itself."""
        return self.X

    def combine(self, weights: Array) -> Array:
        """Return ``weights @ X``."""
        return weights @ self.X

    def add_to(self, x: Point, weights: Array) -> Point:
        """Add ``weights @ X`` to ``x`` in place."""
        moved: Any = x
        moved += self.combine(weights)
        return x


@dataclass(frozen=True, eq=False)
class Perturbations(Linear):
    """Points given as centers plus scaled directions that are drawn when they are needed.

    Args:
        centers: the centers, each a ``(d,)`` array or named blocks.
        directions: the recipe of the directions.
        scale: ``(n,)`` signed radius of each member.
        origin: ``(n,)`` which center each member leaves from; center 0 by default.
        index: ``(n,)`` which direction each member takes; direction ``i`` by default.
    """

    centers: Sequence[Point]
    directions: Directions
    scale: Floats
    origin: Ints | None = None
    index: Ints | None = None

    def __len__(self) -> int:
        return len(self.scale)

    def part(self, start: int, stop: int) -> Perturbations:
        """Return the batch of members ``start .. stop``; they keep their directions."""
        index = np.arange(len(self)) if self.index is None else self.index
        return super(Perturbations, dataclasses.replace(self, index=index)).part(start, stop)

    def _picked(self, chosen: list[int]) -> Perturbations:
        index = np.arange(len(self)) if self.index is None else self.index
        return super(Perturbations, dataclasses.replace(self, index=index))._picked(chosen)

    def _origin(self, i: int) -> Point:
        return self.centers[0 if self.origin is None else int(self.origin[i])]

    def _index(self, i: int) -> int:
        return i if self.index is None else int(self.index[i])

    def member(self, i: int) -> Point:
        """Return member ``i``, drawn block by block."""
        point: Point = copy(self._origin(i))
        return self.directions.add_member(point, self._index(i), float(self.scale[i]))

    def dense(self) -> Array:
        """Return the members as an ``(n, d)`` array."""
        first = self.centers[0]
        if is_blocks(first) or len(self) * size(first) > DENSE_LIMIT:
            raise ProblemTooLarge(
                f"dense: {len(self)} members of {size(first)} coordinates in "
                f"{'blocks' if is_blocks(first) else 'one array'} are not built at once."
                " Use member(i), or an oracle that takes perturbations."
            )
        if len(self) * size(first) > 1 << 18 and (self.origin is not None or len(self) > 1):
            return self._written()
        drawn: Any = self.directions.dense()
        members = scratch((len(self), size(first)), first)  # type: ignore[arg-type]
        X, rows = host_view(members), host_view(drawn)  # numpy is quicker with little arrays
        scale = as_like(self.scale, X)[:, None]
        base: Any = host_view(first)
        if self.origin is not None:
            base = namespace(X).stack([host_view(self.centers[int(i)]) for i in self.origin])
        if self._in_pairs():
            plus, minus = X[0::2], X[1::2]
            plus[...] = rows
            plus *= scale[0::2]
            minus[...] = base - plus
            plus += base
            return members
        X[...] = rows if self.index is None else rows[self.index]
        X *= scale
        X += base
        return members

    def _in_pairs(self) -> bool:
        """Tell whether members ``2j`` and ``2j + 1`` are direction ``j`` and its mirror image, around one center."""
        n, index, scale = len(self), self.index, self.scale
        if index is None or self.origin is not None or n != 2 * self.directions.count:
            return False
        return bool((index == np.arange(n) // 2).all() and (scale[0::2] == -scale[1::2]).all())

    def _written(self) -> Array:
        """Return the members of a large population, written once into recycled memory.

        Mirrored neighbours share what they read; a piece of every member is written before the next piece, so
        that the center stays in the cache.
        """
        first: Any = self.centers[0]
        d, n, scale = size(first), len(self), self.scale
        X = scratch((n, d), first)
        index, origin = (np.zeros(n, int) if part is None else part for part in (self.index, self.origin))
        index = np.arange(n) if self.index is None else index
        rows = self.directions.rows()
        bases, points = [host_view(c) for c in self.centers], host_view(X)
        u = {int(j): host_view(rows[int(j)]) for j in np.unique(index)}
        twins = np.zeros(n, bool)  # whether the next member is this one mirrored
        twins[:-1] = (index[:-1] == index[1:]) & (scale[:-1] == -scale[1:]) & (origin[:-1] == origin[1:])
        for at in range(0, d, WIDE):
            cut = slice(at, at + WIDE)
            i = 0
            while i < n:
                base = bases[int(origin[i])][cut]
                if twins[i]:
                    put_mirrored(points[i][cut], points[i + 1][cut], base, u[int(index[i])][cut], float(scale[i]))
                else:
                    put_scaled(points[i][cut], base, u[int(index[i])][cut], float(scale[i]))
                i += 2 if twins[i] else 1
        return X

    def _per_direction(self, weights: Array) -> Floats:
        index = np.arange(len(self)) if self.index is None else self.index
        return np.asarray(np.bincount(index, np.asarray(weights, dtype=float), self.directions.count), dtype=float)

    def combine(self, weights: Array) -> Point:
        """Return the sum of ``weights[i]`` times the *direction* of member ``i`` (its scale left out)."""
        return self.directions.combine(self._per_direction(weights))

    def add_to(self, x: Point, weights: Array) -> Point:
        """Add :meth:`combine` to ``x`` in place, block by block."""
        return self.directions.add_to(x, self._per_direction(weights))


@dataclass(frozen=True, eq=False)
class Items(Batch):
    """Points that are no vectors.

    Args:
        items: one object a member.
    """

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def member(self, i: int) -> Any:
        """Return item ``i``."""
        return self.items[i]

    def part(self, start: int, stop: int) -> Items:
        """Return the batch of items ``start .. stop``."""
        return dataclasses.replace(super().part(start, stop), items=self.items[start:stop])

    def _picked(self, chosen: list[int]) -> Items:
        return dataclasses.replace(super()._picked(chosen), items=[self.items[i] for i in chosen])
