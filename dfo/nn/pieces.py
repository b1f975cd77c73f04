"""Directions of one tensor a stretch at a time, written into buffers that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfo.arrays import Floats
from dfo.directions import Gaussian, LowRank, Rademacher
from dfo.random import Key, fill_normal, fill_signs

__all__ = ["CHUNK", "COPIED", "Block", "Piece", "Scratch", "Short", "block_of"]

CHUNK = 1 << 16
"""Entries moved at a time; with what they need they stay in the cache of a core."""

COPIED = 1 << 18
"""The same where there is a copy of the center, beside which a move needs one more stretch at most."""


def bits_of(x: Tensor) -> Any:
    """Return the bits of a flat tensor as integers: a numpy view on the host, a tensor elsewhere."""
    view = x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.itemsize])
    return view.numpy() if x.device.type == "cpu" else view


class Views(NamedTuple):
    """The first entries of four buffers, and the bits of two of them."""

    drawn: Tensor
    """Numbers as they were drawn."""
    delta: Tensor
    """A scaled direction."""
    center: Tensor
    """Weights of the center."""
    trial: Tensor
    """Weights after the way back was tried."""
    center_bits: Any
    trial_bits: Any


class Scratch:
    """Buffers for one piece of one dtype on one device, shared by all pieces."""

    def __init__(self, size: int, like: Tensor) -> None:
        self.buffers = [torch.empty(size, dtype=like.dtype, device=like.device) for _ in range(4)]
        self.cuts: dict[int, Views] = {}
        self.drawn: object = None  # what lies in the first buffer

    def views(self, n: int) -> Views:
        """Return the first ``n`` entries of the buffers."""
        if n not in self.cuts:
            cut = [b[:n] for b in self.buffers]
            self.cuts[n] = Views(cut[0], cut[1], cut[2], cut[3], bits_of(cut[2]), bits_of(cut[3]))
        return self.cuts[n]


class Piece:
    """A stretch of one tensor: where it is, and the way back.

    Args:
        block: the tensor it belongs to.
        part: its live weights, ``(n,)``.
        at: place of the first in the tensor.
    """

    __slots__ = ("at", "block", "copies", "done", "kept", "kept_of", "lost", "n", "part", "scale", "shadow", "stop")

    def __init__(self, block: Block, part: Tensor, at: int) -> None:
        self.block, self.part, self.at = block, part, at
        self.n, self.stop = len(part), at + len(part)
        self.scale = 0.0  # where it is: part == center + scale u
        self.done = False  # whether the pending update has been through
        self.copies = False  # whether the shadow is a promise and not an emergency
        self.shadow: Tensor | None = None  # the center
        self.lost: tuple[Any, Any] | None = None  # places and bits that the way back would miss
        self.kept: Tensor | None = None  # room for drawn numbers
        self.kept_of: int | None = None


class Block:
    """The directions of one tensor, a stretch at a time.

    Args:
        flat: the tensor, ``(m,)``.
        key: of its directions.
        law: of its directions.
        count: number of directions.
    """

    unit = 1
    """Stretches begin at multiples of this."""

    worth = False
    """Whether drawn numbers are worth keeping."""

    single = True
    """Whether entries are computed one by one; the last bits of matrix products depend on the height of a stretch."""

    def __init__(self, flat: Tensor, key: Key, law: Any, count: int) -> None:
        self.flat, self.key, self.law, self.count = flat, key, law, count
        self.size = len(flat)
        self.scratch: Scratch
        self.kept: Tensor | None = None  # room for the drawn numbers of all pieces

    def pieces(self, copied: bool) -> Iterator[Piece]:
        """Yield the stretches of the tensor, larger ones where they are copied."""
        chunk = COPIED if copied and self.single else CHUNK
        step = self.unit * max(1, chunk // self.unit)
        for at in range(0, self.size, step):
            yield Piece(self, self.flat[at : at + step], at)

    def scaled(self, piece: Piece, i: int, scale: float) -> Tensor:
        """Return ``scale u_i`` in the second buffer."""
        raise NotImplementedError

    def shift(self, piece: Piece, i: int, scale: float, center: Tensor) -> None:
        """Write ``center + scale u_i`` into a piece."""
        torch.add(center, self.scaled(piece, i, scale), out=piece.part)

    def add(self, piece: Piece, weights: Floats, center: Tensor) -> None:
        """Write ``center + sum_j weights[j] u_j`` into a piece, added up as :meth:`Directions.add_to` does."""
        total = center
        for j in np.flatnonzero(weights):
            torch.add(total, self.scaled(piece, int(j), float(weights[j])), out=piece.part)
            total = piece.part
        if total is center:
            piece.part.copy_(center)

    def begin(self, weights: Floats) -> None:
        """Prepare what the pieces of an update share."""

    def drawn(self, pieces: Sequence[Piece]) -> Any:
        """Return direction 0 as a stream of it keeps it, where all pieces have it in memory; else None."""
        whole = self.kept is not None and all(piece.kept_of == 0 for piece in pieces)
        return self.kept.view(1, -1) if whole and self.kept is not None else None

    def forget(self) -> None:
        """Drop what was drawn."""


class _Entries(Block):
    """Laws that draw entry by entry; gaussian ones."""

    worth = True

    def draw(self, piece: Piece, i: int, out: Tensor) -> None:
        start = i * self.size + piece.at
        if isinstance(self.law, Gaussian):
            fill_normal(out, self.key, start)
        else:
            out.copy_(self.law.piece(self.key, start, len(out), out))

    def scaled(self, piece: Piece, i: int, scale: float) -> Tensor:
        views = self.scratch.views(piece.n)
        drawn = views.drawn
        if piece.kept is not None:
            if piece.kept_of != i:
                piece.kept_of = None
                self.draw(piece, i, piece.kept)
                piece.kept_of = i
            drawn = piece.kept
        elif self.scratch.drawn != (piece, i):
            self.scratch.drawn = None
            self.draw(piece, i, drawn)
            self.scratch.drawn = (piece, i)
        return torch.mul(drawn, scale, out=views.delta)


class _Signs(Block):
    """Signs, which are looked up already scaled."""

    def scaled(self, piece: Piece, i: int, scale: float) -> Tensor:
        out = self.scratch.views(piece.n).delta
        fill_signs(out, self.key, i * self.size + piece.at, scale)
        return out


class _Cut(Block):
    """Laws whose directions exist already, such as places in a table."""

    def scaled(self, piece: Piece, i: int, scale: float) -> Tensor:
        n = piece.n
        row = self.law.views(self.key, self.count, self.flat)[i]
        return torch.mul(row[piece.at : piece.at + n], scale, out=self.scratch.views(n).delta)


class _Rows(Block):
    """Products of two factors, a few rows at a time; the factors of the last direction are kept."""

    def __init__(self, flat: Tensor, key: Key, law: LowRank, count: int, sides: tuple[int, int]) -> None:
        super().__init__(flat, key, law, count)
        self.a, self.unit = sides
        self.single = law.rank * count == 1
        self.held: tuple[int, Tensor, Tensor] | None = None
        self.short: dict[float, Tensor] = {}  # left factors by their scale
        self.sums: tuple[Tensor, Tensor] | None = None

    def _factors(self, i: int, scale: float) -> tuple[Tensor, Tensor]:
        if self.held is None or self.held[0] != i:
            left, right = self.law.factors(self.key, self.a, self.unit, 1, self.flat, i)
            self.short, self.held = {}, (i, left[0], right[0])  # (a, r), (r, b); in this order, see Ctrl-C
        if scale not in self.short:
            self.short[scale] = self.held[1] * scale
        return self.short[scale], self.held[2]

    def scaled(self, piece: Piece, i: int, scale: float) -> Tensor:
        return self._product(piece, *self._factors(i, scale))

    def shift(self, piece: Piece, i: int, scale: float, center: Tensor) -> None:
        """Add the products as they are made, where that rounds to no less than single precision."""
        if self.law.rank > 1 and center.itemsize < 4:
            super().shift(piece, i, scale, center)
            return
        left, right = self._factors(i, scale)
        rows = left[piece.at // self.unit : piece.stop // self.unit]
        total, out = center.view(-1, self.unit), piece.part.view(-1, self.unit)
        if self.law.rank == 1:
            torch.addcmul(total, rows, right, out=out)
            return
        for column, row in zip(rows.split(1, 1), right, strict=True):
            total = torch.addcmul(total, column, row, out=out)

    def _product(self, piece: Piece, left: Tensor, right: Tensor) -> Tensor:
        out = self.scratch.views(piece.n).delta
        rows = left[piece.at // self.unit : piece.stop // self.unit]
        (torch.mul if right.shape[0] == 1 else torch.mm)(rows, right, out=out.view(-1, self.unit))
        return out

    def drawn(self, pieces: Sequence[Piece]) -> Any:
        """Return the factors of direction 0, ``(1, a, r)`` and ``(1, r, b)``, where it is the last that was drawn."""
        return None if self.held is None or self.held[0] else (self.held[1][None], self.held[2][None])

    def forget(self) -> None:
        self.held, self.sums, self.short = None, None, {}

    def begin(self, weights: Floats) -> None:
        self.sums = None
        if not weights.any():
            return
        if self.count == 1 and self.held is not None:
            left, right = self.held[1][None], self.held[2]
        else:
            left, right = self.law.factors(self.key, self.a, self.unit, self.count, self.flat)
        left = left * torch.as_tensor(weights).to(left)[:, None, None]  # (q, a, r)
        self.sums = left.permute(1, 0, 2).reshape(self.a, -1), right.reshape(-1, self.unit)

    def add(self, piece: Piece, weights: Floats, center: Tensor) -> None:
        """Add the sum of the products, taken first."""
        if self.sums is None:
            super().add(piece, weights, center)
        else:
            torch.add(center, self._product(piece, *self.sums), out=piece.part)


class Short(_Entries):
    """Vectors of a low-rank law, in one piece."""

    def pieces(self, copied: bool) -> Iterator[Piece]:
        """Yield the vector."""
        yield Piece(self, self.flat, 0)

    def add(self, piece: Piece, weights: Floats, center: Tensor) -> None:
        """Add the sum of the directions, taken first."""
        if self.count == 1 or not weights.any():
            super().add(piece, weights, center)
            return
        rows: Any = self.law.rows(self.key, self.count, center)
        torch.add(center, torch.as_tensor(weights).to(center) @ rows, out=piece.part)


def block_of(flat: Tensor, key: Key, law: Any, count: int) -> Block:
    """Return the directions of one tensor."""
    if isinstance(law, LowRank):
        ((inner, a, b),) = law._parts(key, flat)
        return Short(flat, inner, law.vectors, count) if b == 1 else _Rows(flat, inner, law, count, (a, b))
    if hasattr(law, "views"):
        return _Cut(flat, key, law, count)
    return (_Signs if isinstance(law, Rademacher) else _Entries)(flat, key, law, count)
