"""Directions on a part of the entries of every tensor: a random mask, or the weights of small magnitude.

A mask is held for ``period`` steps; see :mod:`dfo.structured`. :class:`dfo.directions.Sparse` draws one a direction.

References: Liu et al. 2024, arXiv:2402.15751 (Sparse-MeZO).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, as_like, is_torch, namespace
from dfo.distributions import Distribution
from dfo.errors import InvalidType
from dfo.random import Key, normal, uniform
from dfo.structured import NamedOnly, PerEntry, Shapes, checked, held

__all__ = ["MagnitudeMask", "Masks", "RandomMask"]


@dataclass(frozen=True)
class RandomMask(NamedOnly):
    """Gaussian directions on a random mask, the same for all directions of ``period`` steps.

    Args:
        density: probability that an entry moves; those that do are scaled by ``density**-0.5``.
        period: steps for which a mask is held.
    """

    density: float = 0.1
    period: int = 100

    def __post_init__(self) -> None:
        checked(self, period=self.period, density=self.density)

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Return the law of every block."""
        masks = held(key, self.period).child("mask")
        return {
            name: _Drawn(self.density**-0.5, math.prod(shape), masks.child(name), self.density)
            for name, shape in shapes.items()
        }


@dataclass(frozen=True)
class MagnitudeMask(NamedOnly):
    """Gaussian directions on the small weights of every tensor (Sparse-MeZO, Liu et al. 2024).

    An entry moves if its magnitude is at most the quantile ``density`` of its tensor. The mask is taken from the
    unperturbed weights at the start of every period and held, at a bit a weight: :class:`dfo.nn.ZOSGD` and
    :class:`dfo.nn.ES` do so, keep it in their ``state_dict``, and find it again in a replay. For a loop of one's own,
    ``Directions(law.of(tensors), ...)``.

    What moves is scaled so that ``E|u|^2`` is the number of weights: ``E[u u^T] = (m / k) P``, with ``P`` the
    projection onto the ``k`` of ``m`` entries. The other entries never move within a period, so the estimate of the
    gradient is biased, on purpose.

    Args:
        density: share of the entries of a tensor that move.
        period: steps for which a mask is held.
    """

    density: float = 0.25
    period: int = 100

    def __post_init__(self) -> None:
        checked(self, period=self.period, density=self.density)

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Refuse: the weights are not known."""
        raise InvalidType(
            "MagnitudeMask: expected to have seen the weights."
            " Use dfo.nn.ZOSGD(net, directions=...), or Directions(law.of(tensors), ...)."
        )

    def of(self, tensors: Mapping[str, Any]) -> Masks:
        """Return the law on the masks that these weights have now."""
        return Masks({name: _small(x, self.density) for name, x in tensors.items()})


@dataclass(frozen=True, eq=False)
class Masks(NamedOnly):
    """Gaussian directions on given masks.

    Args:
        masks: by name, the mask of a tensor with eight entries a byte, ``(ceil(m / 8),)``, lowest bit first.
    """

    masks: Mapping[str, Any]

    def over(self, key: Key, shapes: Shapes) -> dict[str, Distribution]:
        """Return the law of every block."""
        laws: dict[str, Distribution] = {}
        for name, shape in shapes.items():
            bits, m = self.masks[name], math.prod(shape)
            laws[name] = _Given(math.sqrt(m / max(1, _ones(bits))), m, bits)
        return laws


@dataclass(frozen=True, eq=False)
class _Masked(PerEntry):
    """Gaussian entries on a mask that is the same for all directions."""

    factor: float
    size: int

    def kept(self, first: int, count: int) -> Any:
        """Return whether entries ``first ..`` of the block move, zeros and ones."""
        raise NotImplementedError

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Return a slice of the flattened rows."""
        out: Any = normal(key, (count,), like, start)
        whole = None
        for at, first, n in _stretches(start, count, self.size):
            mask = whole if whole is not None and n == self.size else as_like(self.kept(first, n), out) * self.factor
            whole = mask if n == self.size else whole
            out[at : at + n] *= mask
        drawn: Array = out
        return drawn


@dataclass(frozen=True, eq=False)
class _Drawn(_Masked):
    key: Key
    density: float

    def kept(self, first: int, count: int) -> Any:
        return uniform(self.key, (count,), None, first) < self.density


@dataclass(frozen=True, eq=False)
class _Given(_Masked):
    bits: Any

    def kept(self, first: int, count: int) -> Any:
        packed = self.bits[first // 8 : (first + count + 7) // 8]
        places = np.arange(8, dtype=np.uint8)
        shifts = namespace(packed).asarray(places, device=packed.device) if is_torch(packed) else places
        return ((packed[:, None] >> shifts) & 1).reshape(-1)[first % 8 : first % 8 + count]


def _ones(bits: Any) -> int:
    """Return how many entries of a packed mask move."""
    if is_torch(bits):
        counts = namespace(bits).asarray(_COUNTS, device=bits.device)
        return int(counts[bits.to(counts.dtype)].sum())
    return int(_COUNTS[bits].sum())


_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.int64)


def _small(x: Any, density: float) -> Any:
    """Return the packed mask of the entries of small magnitude."""
    xp, flat = namespace(x), abs(x.detach() if is_torch(x) else x).reshape(-1)
    m = flat.shape[0]
    if not m:
        return xp.empty(0, dtype=xp.uint8)
    k = max(1, math.ceil(density * m))
    if is_torch(x):
        flat = flat.float() if x.itemsize < 4 else flat
        small = flat <= flat.kthvalue(k).values
        padded = xp.zeros(-(-m // 8) * 8, dtype=xp.uint8, device=x.device)
        padded[:m] = small
        powers = xp.asarray(1 << np.arange(8), dtype=xp.uint8, device=x.device)
        return (padded.view(-1, 8) * powers).sum(1).to(xp.uint8)
    small = flat <= np.partition(flat, k - 1)[k - 1]
    return np.packbits(small, bitorder="little")


def _stretches(start: int, count: int, m: int) -> Iterator[tuple[int, int, int]]:
    """Yield ``(at, first, n)``: entries ``at ..`` of a piece of the flattened rows are ``first ..`` of the block."""
    at = 0
    while at < count:
        first = (start + at) % m
        n = min(m - first, count - at)
        yield at, first, n
        at += n
