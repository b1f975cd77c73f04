"""Sums of directions, added to the tensors of a network in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfo.arrays import Floats
from dfo.nn.members import SMALL, Draws, Entries, Factors, Stream
from dfo.nn.products import STRETCH
from dfo.nn.rounding import add_, add_product_
from dfo.nn.tensors import done_with
from dfo.random import Key

__all__ = ["Term", "factors_of", "move"]

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Term:
    """Directions of one step, and how much of each.

    Args:
        draws: the directions.
        weights: ``(q,)``.
        spans: stretches ``(start, stop)`` of directions that are drawn together; those of the passes, so that what
            was drawn for a pass need not be drawn again.
    """

    draws: Draws
    weights: Floats
    spans: Sequence[Span]

    def parts(self, name: str) -> Iterator[tuple[Stream, Span, Floats]]:
        """Yield the stream of a tensor with every span that counts."""
        stream = self.draws.streams.get(name)
        if stream is None:
            return
        for start, stop in self.spans:
            w = self.weights[start:stop]
            if w.any():
                yield stream, (start, stop), w


def move(
    tensors: Mapping[str, Tensor], terms: Sequence[Term], key: Key, shrink: Mapping[str, float] | None = None
) -> None:
    """Add ``sum_j w_j u_j`` of the terms to the tensors in place; in low precision by stochastic rounding.

    A tensor for which nothing is to be added keeps every bit.

    Args:
        tensors: by name.
        terms: directions and weights.
        key: of the rounding; every step its own.
        shrink: by name, factor of a tensor before the sum is added (weight decay); 1 where it is missing.
    """
    with torch.no_grad():
        for name, target in tensors.items():
            factor = 1.0 if shrink is None else shrink.get(name, 1.0)
            parts = [part for term in terms for part in term.parts(name)]
            if factor != 1.0:
                _scale(target, factor, key.child(name, "decay"))
            if parts and isinstance(parts[0][0], Factors):
                _products(target, parts, key.child(name))
            elif parts:
                _entries(target, parts, key.child(name))
            done_with(target)


def _scale(target: Tensor, factor: float, key: Key) -> None:
    if target.itemsize > 2:
        target.mul_(factor)
        return
    flat = target.view(-1)
    add_(target, lambda start, stop: flat[start:stop].float() * (factor - 1.0), key)


def _products(target: Tensor, parts: Sequence[Any], key: Key) -> None:
    tall, flat = factors_of(parts, torch.float64 if target.dtype == torch.float64 else torch.float32)
    add_product_(target, tall, flat, key)


def factors_of(parts: Sequence[Any], wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return factors ``(a, k)`` and ``(k, b)`` of a sum of directions.

    Args:
        parts: of :meth:`Term.parts`, of a tensor whose directions are products.
        wide: precision of the factors.
    """
    lefts, rights = [], []
    for stream, (start, stop), w in parts:
        left, right = stream.factors(start, stop)  # (k, a, r), (k, r, b)
        scaled = left.to(wide) * torch.as_tensor(w, dtype=wide, device=left.device).view(-1, 1, 1)
        lefts.append(scaled.permute(1, 0, 2).reshape(left.shape[1], -1))
        rights.append(right.to(wide).reshape(-1, right.shape[2]))
    return (lefts[0], rights[0]) if len(lefts) == 1 else (torch.cat(lefts, 1), torch.cat(rights))


def _entries(target: Tensor, parts: Sequence[Any], key: Key) -> None:
    wide = torch.float64 if target.dtype == torch.float64 else torch.float32
    width = max(1, target[0].numel()) if target.dim() > 1 else 1
    step = max(1, STRETCH // width) * width  # the stretches of the passes
    streamed = _streamed(parts, target)

    def chunk(start: int, stop: int) -> Tensor:
        if streamed:
            return _sum_of_pieces(parts, start, stop, wide)
        total = torch.zeros(stop - start, dtype=wide, device=target.device)
        for stream, (first, last), w in parts:
            rows = stream.rows(first, last).reshape(last - first, -1)[:, start:stop].to(wide)
            total += torch.as_tensor(w, dtype=wide, device=target.device) @ rows
        return total

    if target.dtype == wide and target.numel() <= step:
        target.view(-1).add_(chunk(0, target.numel()))
    else:
        add_(target, chunk, key, chunk=step)


def _sum_of_pieces(parts: Sequence[Any], start: int, stop: int, wide: torch.dtype) -> Tensor:
    total: Tensor | None = None
    for stream, (first, last), w in parts:
        for j in range(first, last):
            if share := float(w[j - first]):
                drawn = stream.piece(j, start, stop - start)
                total = drawn.to(wide) * share if total is None else total.add_(drawn, alpha=share)
    assert total is not None  # parts have weights
    return total


def _streamed(parts: Sequence[Any], target: Tensor) -> bool:
    """Tell whether a sum goes direction by direction: those of a step are too many to be drawn at once."""
    many = any((stop - start) * target.numel() > SMALL for _, (start, stop), _ in parts)
    return target.dim() > 1 and many and all(isinstance(stream, Entries) for stream, _, _ in parts)
