"""Laws of directions for points in named blocks, such as the tensors of a network: groups, held subspaces, coordinates.

Such a law says, for a key and the shapes of all blocks, which of them move and by what law each does: ``over(key,
shapes)``. Blocks draw from keys of their own names, so that no two of them share a number. All laws here have
``E[u u^T] = I``, in expectation over what they hold as well.

What is held for ``period`` steps is drawn from the key in which step ``t`` is replaced by ``t // period``: nothing is
stored, and a replay finds it again. The step is the last integer in the path of the directions' key, as in
``key.child(t)``, which is what :class:`dfo.nn.ZOSGD` and the solvers use.

References: Chen et al. 2024, arXiv:2410.07698 (LOZO); Yu et al. 2024, arXiv:2410.08989 (SubZero); Zhang et al. 2024,
arXiv:2402.11592 (blocks).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, as_like, is_torch, namespace
from dfo.distributions import Distribution, Gaussian, LowRank, distribution
from dfo.errors import InvalidArgument, InvalidType
from dfo.random import Key, integers, normal, signs

__all__ = [
    "LOZO",
    "Block",
    "NamedOnly",
    "PerEntry",
    "RandomCoordinate",
    "Shapes",
    "SubZero",
    "checked",
    "held",
    "layer",
    "over",
]

Shapes = Mapping[str, tuple[int, ...]]


def over(law: Distribution, key: Key, shapes: Shapes) -> dict[str, Distribution]:
    """Return by name the laws of the blocks that directions of this key move; each draws from ``key.child(name)``."""
    given: Any = law
    if hasattr(given, "over"):
        return dict(given.over(key, shapes))
    within = getattr(given, "within", None)
    laws = {name: law if within is None else within(shape) for name, shape in shapes.items()}
    return {name: mine for name, mine in laws.items() if mine is not None}


def held(key: Key, period: int) -> Key:
    """Return the key of what is held for ``period`` steps: the step, its last integer, is divided by the period."""
    at = max((i for i, part in enumerate(key.path) if isinstance(part, int)), default=-1)
    if at < 0:
        return key.child("held")
    return Key(key.seed, (*key.path[:at], "held", int(key.path[at]) // period, *key.path[at + 1 :]))


def _step(key: Key) -> int:
    return next((part for part in reversed(key.path) if isinstance(part, int)), 0)


def checked(law: object, rank: int = 1, period: int = 1, density: float = 1.0) -> None:
    """Refuse the numbers of a law that make no sense."""
    name = type(law).__name__
    if rank < 1:
        raise InvalidArgument(f"{name}: expected a rank >= 1, got {rank!r}.")
    if period < 1:
        raise InvalidArgument(f"{name}: expected a period of at least one step, got {period!r}.")
    if not 0.0 < density <= 1.0:
        raise InvalidArgument(f"{name}: expected a density in (0, 1], got {density!r}.")


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the sides of a block as a matrix; those behind the first count as one."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


class NamedOnly:
    """Base of the laws that need the names and shapes of the blocks."""

    elementwise: ClassVar[bool] = False

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Refuse a point in one array."""
        raise InvalidType(
            f"{type(self).__name__}: expected a point in named blocks, got one array."
            ' Use dfo.nn.ZOSGD(net, directions=...), or a point such as {"w": matrix}.'
        )

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Refuse a point in one array."""
        return self.rows(key, count, like)


class PerEntry:
    """Base of the laws of one block that draw entry by entry."""

    elementwise: ClassVar[bool] = True

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions."""
        d = like.shape[-1]
        return self.piece(key, 0, count * d, like).reshape(count, d)

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return entries ``start .. start + count`` of the flattened rows."""
        raise NotImplementedError


# ---------------------------------------------------------------------- one group of blocks a step


def layer(name: str) -> str:
    """Return the layer of a tensor: its name up to the first number, or else that of its module.

    Example:
        >>> [layer(name) for name in ("h.0.attn.weight", "h.0.norm.bias", "head.weight")]
        ['h.0', 'h.0', 'head']
    """
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[:-1] if first is None else parts[: first + 1]) or name


@dataclass(frozen=True)
class Block(NamedOnly):
    """Directions that move one group of tensors a step, such as a layer, and leave the others where they are.

    All directions of a step move the same group, so that what lies below it is the same for all members. Scaled by
    the square root of the number of groups, so that ``E[u u^T] = I`` over a cycle, or over the random choice.

    Args:
        law: of the group that moves, a name or a law that works on named blocks.
        groups: expressions; a tensor belongs to the first that its name matches, and those that match none are one
            more group. By default the layers: see :func:`layer`.
        order: ``"cyclic"``, group ``t`` modulo their number at step ``t``; or ``"random"``.

    Raises:
        InvalidArgument: an unknown order; a law that looks at the weights.
    """

    law: str | Distribution = "gaussian"
    groups: tuple[str, ...] | None = None
    order: Literal["cyclic", "random"] = "cyclic"

    def __post_init__(self) -> None:
        if self.order not in ("cyclic", "random"):
            raise InvalidArgument(f'Block: expected order "cyclic" or "random", got {self.order!r}.')
        if hasattr(distribution(self.law), "of"):
            raise InvalidArgument(f"Block: expected a law that does not look at the weights, got {self.law!r}.")

    @property
    def rank(self) -> int:
        """Columns of an update of one direction, where directions are products."""
        return int(getattr(distribution(self.law), "rank", 1))

    def split(self, names: Sequence[str]) -> list[list[str]]:
        """Return the groups of the names, in order of appearance."""
        found: dict[object, list[str]] = {}
        for name in names:
            if self.groups is None:
                group: object = layer(name)
            else:
                group = next((i for i, pattern in enumerate(self.groups) if re.search(pattern, name)), None)
            found.setdefault(group, []).append(name)
        return list(found.values())

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Return the laws of the group of this step."""
        groups = self.split(list(shapes))
        n = len(groups)
        turn = _step(key) % n if self.order == "cyclic" else int(integers(key.child("group"), n, (1,))[0])
        mine = over(distribution(self.law), key, {name: shapes[name] for name in groups[turn]})
        return {name: _scaled(law, shapes[name], math.sqrt(n)) for name, law in mine.items()}


def _scaled(law: Distribution, shape: tuple[int, ...], factor: float) -> Distribution:
    if isinstance(law, LowRank):
        return _Scaled(law.vectors, factor) if _sides(shape)[1] == 1 else _ScaledFactors.of(law, shape, factor)
    if not law.elementwise:
        raise InvalidType(f"Block: expected a law of entries or of factors, got {type(law).__name__}.")
    return _Scaled(law, factor)


@dataclass(frozen=True)
class _Scaled(PerEntry):
    """A law of entries times a number."""

    law: Distribution
    factor: float

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        drawn: Array = self.law.piece(key, start, count, like) * self.factor
        return drawn


@dataclass(frozen=True)
class _ScaledFactors(LowRank):
    """A law of factors times a number."""

    law: Any = None
    factor: float = 1.0

    @classmethod
    def of(cls, law: Any, shape: tuple[int, ...], factor: float) -> _ScaledFactors:
        return cls((shape,), law.rank, law=law, factor=factor)

    def factors(self, key: Key, a: int, b: int, count: int, like: Array, start: int = 0) -> tuple[Any, Any]:
        """Return factors ``(count, a, r)`` and ``(count, r, b)``."""
        left, right = self.law.factors(key, a, b, count, like, start)
        return left * self.factor, right


# ---------------------------------------------------------------------- held subspaces


@dataclass(frozen=True)
class LOZO(NamedOnly):
    """Matrices ``U V^T / sqrt(r)``: ``U`` is drawn anew, ``V`` is held for ``period`` steps (Chen et al. 2024).

    All directions of a period share ``V``, so the sum of their updates has rank ``r`` too. Vectors are gaussian.

    Args:
        rank: ``r``.
        period: steps for which ``V`` is held.
    """

    rank: int = 2
    period: int = 50

    def __post_init__(self) -> None:
        checked(self, self.rank, self.period)

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Return the law of every block."""
        lazy = held(key, self.period).child("right")
        return {
            name: Gaussian() if _sides(shape)[1] == 1 else _Lazy((shape,), self.rank, lazy=lazy.child(name))
            for name, shape in shapes.items()
        }


@dataclass(frozen=True)
class _Lazy(LowRank):
    lazy: Any = None  # the key of V

    def factors(self, key: Key, a: int, b: int, count: int, like: Array, start: int = 0) -> tuple[Any, Any]:
        """Return factors ``(count, a, r)`` and ``(count, r, b)``; the second is one for all."""
        r = self.rank
        right = normal(self.lazy, (r, b), like) * r**-0.5
        return normal(key.child("left"), (count, a, r), like, start * a * r), _shared(right, count)


@dataclass(frozen=True)
class SubZero(NamedOnly):
    """Matrices ``sqrt(a b) / r U Z V^T``: ``U`` and ``V`` orthonormal and held, ``Z`` gaussian (Yu et al. 2024).

    ``U (a, r)`` and ``V (b, r)`` are the QR factors of gaussian matrices, uniform among the orthonormal ones; a side
    shorter than ``r`` takes its own length. Vectors are gaussian.

    Args:
        rank: ``r``.
        period: steps for which ``U`` and ``V`` are held.
    """

    rank: int = 24
    period: int = 1000
    _bases: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked(self, self.rank, self.period)

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Return the law of every block."""
        now = held(key, self.period).child("bases")
        kept = self._bases.setdefault(now, {})  # what a period holds, made once; it can always be made again
        for old in list(self._bases)[:-2]:
            self._bases.pop(old, None)
        laws: dict[str, Distribution] = {}
        for name, shape in shapes.items():
            a, b = _sides(shape)
            law = _Projected((shape,), min(self.rank, b), bases=now.child(name), left_rank=min(self.rank, a), kept=kept)
            laws[name] = Gaussian() if b == 1 else law
        return laws

    def __getstate__(self) -> dict[str, Any]:
        return {"rank": self.rank, "period": self.period, "_bases": {}}


@dataclass(frozen=True)
class _Projected(LowRank):
    bases: Any = None  # the key of U and V
    left_rank: int = 1
    kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def factors(self, key: Key, a: int, b: int, count: int, like: Array, start: int = 0) -> tuple[Any, Any]:
        """Return factors ``U Z (count, a, r)``, scaled, and ``V^T (count, r, b)``, one for all."""
        r, s = self.rank, self.left_rank
        wide = _wide(like)
        U, Vt = self._basis("left", a, s, wide), self._basis("right", b, r, wide).T
        Z = normal(key.child("core"), (count, s, r), wide, start * s * r) * math.sqrt(a * b / (r * s))
        left: Any = namespace(like).stack([U @ z for z in Z])  # one by one: their bits do not depend on the count
        return as_like(left, like), _shared(as_like(Vt, like), count)

    def _basis(self, side: str, n: int, r: int, like: Any) -> Any:
        """Return ``(n, r)`` orthonormal columns."""
        where = self.bases.child(side), str(like.dtype), str(getattr(like, "device", ""))
        if where not in self.kept:
            q, upper = np.linalg.qr(normal(where[0], (n, r)))
            self.kept[where] = as_like(q * np.sign(np.diagonal(upper)), like)  # the sign makes the law exactly Haar
        return self.kept[where]


def _wide(like: Any) -> Any:
    """Return an array of the same library and device, in single precision at least."""
    if like.dtype.itemsize > 2:
        return like
    return like[..., :0].float() if is_torch(like) else like[..., :0].astype(np.float32)


def _shared(right: Any, count: int) -> Any:
    """Return ``count`` times the same factor, without a copy."""
    xp = namespace(right)
    return xp.broadcast_to(right, (count, *right.shape))


# ---------------------------------------------------------------------- coordinates


@dataclass(frozen=True)
class RandomCoordinate(NamedOnly):
    """One random entry of every tensor, with a random sign, scaled by the square root of the tensor's size.

    For matrices as factors ``e_j`` and ``e_k``. Without the signs, entries of two tensors would be correlated. The
    whole gradient, coordinate by coordinate and with reuse of features, is :mod:`dfo.nn.coordinates`.
    """

    rank: ClassVar[int] = 1

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Return the law of every block."""
        return {
            name: _OneHot(math.prod(shape)) if _sides(shape)[1] == 1 else _OneEntry((shape,))
            for name, shape in shapes.items()
        }


@dataclass(frozen=True)
class _OneHot(PerEntry):
    size: int

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        m = self.size
        first = start // m
        rows = -(-(start + count) // m) - first
        where = np.arange(rows) * m + integers(key.child("entry"), m, (rows,), first) - (start - first * m)
        values = math.sqrt(m) * signs(key.child("sign"), (rows,), None, first)
        inside = (where >= 0) & (where < count)
        out = np.zeros(count)
        out[where[inside]] = values[inside]
        return as_like(out, like)


@dataclass(frozen=True)
class _OneEntry(LowRank):
    def factors(self, key: Key, a: int, b: int, count: int, like: Array, start: int = 0) -> tuple[Any, Any]:
        """Return factors ``(count, a, 1)``, which carries sign and scale, and ``(count, 1, b)``."""
        left, right, each = np.zeros((count, a, 1)), np.zeros((count, 1, b)), np.arange(count)
        sign = signs(key.child("sign"), (count,), None, start)
        left[each, integers(key.child("row"), a, (count,), start), 0] = math.sqrt(a * b) * sign
        right[each, 0, integers(key.child("column"), b, (count,), start)] = 1.0
        return as_like(left, like), as_like(right, like)
