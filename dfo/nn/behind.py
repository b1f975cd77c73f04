"""Updates that have not been added to tensors of 16 bits yet: sums of directions, of which the factors are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from dfo.arrays import Floats
from dfo.directions import LowRank
from dfo.nn.members import Draws, Factors
from dfo.nn.rounding import add_product_
from dfo.nn.tensors import done_with
from dfo.nn.weights import Lag
from dfo.random import Key

__all__ = ["Behind"]

WIDTH = 8
"""Columns of products are filled up to a multiple of this: for every width torch prepares, and keeps, kernels anew."""


class Numbers:
    """Vectors, kept as they are.

    Args:
        rows: ``(k, n)``, copied.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows.clone()

    def add(self, rows: Tensor) -> None:
        """Keep more vectors of this length."""
        self.rows = torch.cat([self.rows, rows])

    def read(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the vectors times a weight each, ``(k, n)``; the product is rounded once."""
        return (self.rows.to(weights.dtype) * weights.unsqueeze(1)).to(dtype)


class Signs:
    """Vectors whose entries are all of one size, a bit each: byte ``i`` of a row of codes is entry ``i`` of eight.

    Args:
        rows: ``(k, n)``.
    """

    def __init__(self, rows: Tensor) -> None:
        self.size, self.count = rows[0, 0].abs(), 0
        self.codes = torch.empty(0, rows.shape[1], dtype=torch.uint8, device=rows.device)
        self.bits = (1 << torch.arange(8, device=rows.device)).to(torch.uint8).unsqueeze(1)
        self.add(rows)

    def add(self, rows: Tensor) -> None:
        """Keep more vectors of this length."""
        missing = -(-(self.count + len(rows)) // 8) - len(self.codes)
        self.codes = pad(self.codes, (0, 0, 0, missing)) if missing else self.codes
        for row in rows:
            self.codes[self.count // 8] |= (row > 0).to(torch.uint8) << self.count % 8
            self.count += 1

    def read(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the vectors times a weight each, ``(k, n)``; the product is rounded once."""
        size = (weights * self.size).to(dtype).unsqueeze(1)
        plus = (self.codes.unsqueeze(1) & self.bits).ne(0).flatten(0, 1)
        return torch.where(plus[: self.count], size, -size)


Kept: TypeAlias = Numbers | Signs
"""Vectors of one tensor."""


class Behind:
    """Directions of the last steps, and how much of each is still to be added.

    Args:
        tensors: what lags behind, by name; its directions are products of two factors.
        laws: of its directions.
        group_of: number of the group of every tensor.
    """

    def __init__(self, tensors: Mapping[str, Tensor], laws: Mapping[str, LowRank], group_of: Mapping[str, int]) -> None:
        self.tensors, self.laws, self.group_of = tensors, laws, group_of
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.count = 0
        self._weights: Floats = np.zeros((0, 0))  # (groups, count)
        self._kept = dict[str, tuple[Kept, Kept]]()  # by name: left factors, right factors

    def add(self, draws: Draws, weights: Floats) -> None:
        """Take the directions of one more step, by weights ``(groups, q)``."""
        q = weights.shape[1]
        for name in self.tensors:
            law, stream = self.laws[name], draws.streams[name]
            assert isinstance(stream, Factors)
            left, right = stream.factors(0, q)  # (q, a, r), (q, r, b)
            tall, flat = left.transpose(1, 2).flatten(0, 1), right.flatten(0, 1)
            if self.count:
                self._kept[name][0].add(tall)
                self._kept[name][1].add(flat)
            else:
                kind = Signs if type(law) is LowRank and law.entries == "rademacher" else Numbers
                self._kept[name] = kind(tall), kind(flat)
        self._weights = np.hstack([self._weights, weights]) if self.count else weights
        self.count += q

    def lag(self, q: int) -> dict[str, Lag]:
        """Return, by name, what tensors lag behind in a step of ``q`` directions."""
        return {name: self._lag(name, q) for name in self.tensors}

    def _lag(self, name: str, q: int) -> Lag:
        rank, like = self.laws[name].rank, self.tensors[name]
        columns = self.count * rank
        spare = -(columns + q * rank) % WIDTH

        def factors() -> tuple[Tensor, Tensor]:
            tall, flat = self._factors(name, like.dtype)
            return pad(tall, (0, spare)), pad(flat, (0, 0, 0, spare))

        return Lag(columns + spare, factors)

    def _factors(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return factors ``(a, k)`` and ``(k, b)`` of what a tensor lags behind."""
        like = self.tensors[name]
        if not self.count:
            return like.new_zeros(like.shape[0], 0, dtype=dtype), like.new_zeros(0, like[0].numel(), dtype=dtype)
        weights = torch.as_tensor(self._weights[self.group_of[name]], dtype=torch.float32)
        weights = weights.repeat_interleave(self.laws[name].rank).to(like.device)
        left, right = self._kept[name]
        return left.read(weights, dtype).t(), right.read(torch.ones_like(weights), dtype)

    def settle(self, key: Key) -> None:
        """Add what lags behind to the tensors, by stochastic rounding under a key, and forget it."""
        for name in self._kept:
            add_product_(self.tensors[name], *self._factors(name, torch.float32), key.child(name))
            done_with(self.tensors[name])
        self.clear()
