"""Moving the weights themselves, and coming back to the bit.

For modules whose functions cannot be intercepted (compiled, scripted, or run by an engine elsewhere) the live
weights are moved to ``theta + s u_i``, a piece of a few hundred KiB at a time, so that nothing of the size of a
weight is allocated beside it. Subtracting ``s u_i`` again does not lead back: rounding loses bits, which
accumulates to a drift of 12 % of bfloat16 weights in a thousand steps of the public codes. Two remedies:

- **sparse**: while a piece is moved, the way back is tried at once, and the entries that would not return are
  remembered with their places: 7 % of weights of N(0, 0.02^2) at a radius of 1e-3, 1 % at 1e-4, in single and half
  precision alike. A piece of which more is lost than a copy would hold (large radii) is copied.
- **copy**: a second copy of the weights, from which they come back at the speed of memory.

The directions are drawn anew in every sweep, or kept where memory allows; signs cost a bit, low-rank directions two
factors, so that only gaussian and sparse laws are worth keeping. A two-point step is three sweeps::

    with InPlace(weights, directions) as moved:
        moved.to(0, eps)
        plus = loss(module, batch)
        moved.flip()
        minus = loss(module, batch)
        moved.back_and_add([-lr * (plus - minus) / (2 * eps)])

An update adds what :meth:`dfo.directions.Directions.add_to` adds, to the bit for laws that draw entry by entry; sums
of low-rank products may differ from it in the last bit, as every matrix product of another height does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from dfo.arrays import Floats
from dfo.directions import Directions
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.nn.members import Draws
from dfo.nn.pieces import Block, Piece, Scratch, Short, block_of

__all__ = ["Backup", "InPlace"]

Backup = Literal["auto", "copy", "sparse"]
"""How the way back is kept: a copy of the weights, the entries that rounding loses, or as memory allows."""

Weights = Sequence[float] | Floats


def _differ(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Return where the bits of two tensors differ, and those of the first."""
    if isinstance(ours, np.ndarray):
        places: Any = np.flatnonzero(ours != theirs)
        return places.astype(np.uint16 if len(ours) <= 1 << 16 else np.int32), ours.take(places)
    places = torch.nonzero(ours != theirs).view(-1)
    return places.to(torch.int32), ours[places]


def _mend(bits: Any, lost: tuple[Any, Any]) -> None:
    places, values = lost
    bits[places.astype(np.intp) if isinstance(places, np.ndarray) else places.long()] = values


def _unique(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without second names of the same memory, and without empty ones."""
    if not isinstance(tensors, Mapping) or not tensors:
        raise InvalidType(f"tensors: expected a mapping of names to tensors, got {short(tensors)}.")
    kept: dict[object, str] = {}
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise InvalidType(f"block {name!r}: expected a tensor of floating-point numbers, got {short(x)}.")
        if x.numel():
            kept.setdefault((x.device, x.data_ptr(), x.shape, x.stride()), name)
    unique = {name: tensors[name].detach() for name in kept.values()}
    end, last = 0, ""
    for name, x in sorted(unique.items(), key=lambda item: item[1].data_ptr()):
        if x.data_ptr() < end and x.device == unique[last].device:
            raise InvalidArgument(f"blocks {last!r} and {name!r} share memory. Move the larger one alone.")
        end, last = x.data_ptr() + x.nbytes, name
    return unique


class InPlace:
    """The weights of a network, moved along directions and back to the bit.

    Use it as a context: however it is left, by an exception or Ctrl-C within the loss as well, the weights are
    those of the center, and an update that had begun is finished.

    Args:
        tensors: names to live tensors, contiguous, of any floating-point type; a tensor with two names moves once,
            by the first.
        directions: of a point in blocks with these names.
        backup: ``"copy"`` costs the size of the weights, ``"sparse"`` a tenth of it in single precision (see
            :attr:`remembered`) and a comparison a sweep; ``"auto"`` copies as many pieces as ``memory`` allows.
        keep: bytes for numbers that were drawn, so that they are not drawn again in the next sweeps; None for
            what ``memory`` allows. Laws that are cheap to draw keep nothing.
        memory: bytes that drawn numbers and copies may take, in this order.

    Raises:
        InvalidArgument: a tensor is not contiguous, or two of them overlap.
        InvalidType: no tensor of floats, or a law that does not work block by block.

    Example:
        >>> import torch
        >>> from dfo.directions import Directions, Rademacher
        >>> from dfo.random import Key
        >>> weights = {"w": torch.randn(3, 4)}
        >>> before = weights["w"].clone()
        >>> with InPlace(weights, Directions(Rademacher(), Key(0), 1, weights)) as moved:
        ...     moved.to(0, 0.1)
        ...     inside = bool((weights["w"] - before).abs().mean() > 0.09)
        >>> inside, torch.equal(weights["w"], before)
        (True, True)
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        directions: Directions,
        *,
        backup: Backup = "auto",
        keep: int | None = None,
        memory: int = 1 << 26,
    ) -> None:
        if backup not in ("auto", "copy", "sparse"):
            raise InvalidArgument(f"backup: expected 'auto', 'copy' or 'sparse', got {backup!r}.")
        self._tensors: Any = _unique(tensors)
        self.directions = directions
        drawn = directions._blocks(self._tensors)
        self._blocks = [block_of(flat, key, law, directions.count) for key, flat, law in drawn]
        need = sum(block.flat.nbytes * (2 if block.worth else 1) for block in self._blocks)
        copied = backup == "copy" or (backup == "auto" and need <= memory)
        self._pieces = [piece for block in self._blocks for piece in block.pieces(copied)]
        self._share(backup, keep, memory)
        self._i, self._s = 0, 0.0
        self._pending: Floats | None = None
        self._open: tuple[Piece, Tensor] | None = None  # a piece that is being written, and what it falls back to

    def _share(self, backup: Backup, keep: int | None, memory: int) -> None:
        """Give every piece its buffers: scratch, room for drawn numbers, whether it is copied."""
        scratch: dict[tuple[Any, Any], Scratch] = {}
        largest = max(p.n for p in self._pieces)
        room = memory if keep is None else keep
        for piece in self._pieces:
            part, block = piece.part, piece.block
            kind = (part.dtype, part.device)
            if kind not in scratch:
                scratch[kind] = Scratch(largest, part)
            block.scratch = scratch[kind]
            if block.worth and not piece.at and (block.flat.nbytes <= room or isinstance(block, Short)):
                block.kept = torch.empty_like(block.flat)
            if block.kept is not None:
                piece.kept, room = block.kept[piece.at : piece.stop], room - part.nbytes
            elif block.worth and part.nbytes <= room:
                piece.kept, room = torch.empty_like(part), room - part.nbytes
        room = min(room, memory)
        for piece in self._pieces:
            piece.copies = backup == "copy" or (backup == "auto" and piece.part.nbytes <= room)
            room -= piece.part.nbytes if piece.copies else 0

    @property
    def remembered(self) -> float:
        """Bytes that the way back takes now, by those of the weights."""
        held = 0
        for p in self._pieces:
            held += p.shadow.nbytes if p.shadow is not None else 0 if p.lost is None else sum(x.nbytes for x in p.lost)
        return float(held / sum(p.part.nbytes for p in self._pieces))

    # ------------------------------------------------------------------ moves

    def take(self, directions: Directions) -> None:
        """Take other directions of the same law and number, for the next step; all memory is used again."""
        if (directions.law, directions.count) != (self.directions.law, self.directions.count):
            raise InvalidArgument("take: expected the same law and number of directions. Make another InPlace.")
        if hasattr(directions.law, "over"):
            raise InvalidArgument("take: expected a law that treats every step alike. Make another InPlace.")
        self.back()
        self.directions = directions
        drawn = [(key, flat, law) for key, flat, law in directions._blocks(self._tensors)]
        for block, (key, flat, law) in zip(self._blocks, drawn, strict=True):
            block.key, block.scratch.drawn = block_of(flat, key, law, block.count).key, None
            block.forget()
        for piece in self._pieces:
            piece.kept_of = None

    def to(self, i: int, scale: float) -> None:
        """Move the weights to ``theta + scale u_i``, from wherever they are."""
        if not 0 <= i < self.directions.count:
            raise InvalidArgument(f"to: expected a direction below {self.directions.count}, got {i}.")
        self._settle()
        if i != self._i or not scale:
            self.back()
        if not scale:
            return
        self._i, self._s = i, float(scale)
        with torch.no_grad():
            for piece in self._pieces:
                self._move(piece, i, self._s)

    def flip(self) -> None:
        """Move the weights from ``theta + s u_i`` to ``theta - s u_i``, in one sweep."""
        self.to(self._i, -self._s)

    def back(self) -> None:
        """Bring the weights back to ``theta``, to the bit."""
        self._settle()
        with torch.no_grad():
            for piece in self._pieces:
                if piece.scale:
                    self._restore(piece, self._center(piece))
        self._s = 0.0

    def back_and_add(self, weights: Weights) -> None:
        """Bring the weights back and add ``sum_j weights[j] u_j``, in one sweep."""
        given = np.asarray(weights, dtype=float)
        if given.shape != (self.directions.count,):
            raise InvalidArgument(f"weights: expected {self.directions.count} numbers, got shape {given.shape}.")
        self._settle()
        for piece in self._pieces:
            piece.done = False
        self._pending = given
        self._finish()

    def _finish(self) -> None:
        """Carry the pending update through the pieces that have not seen it."""
        weights = self._pending
        if weights is None:
            return
        with torch.no_grad():
            for block in self._blocks:
                block.begin(weights)
            for piece in self._pieces:
                if not piece.done:
                    self._update(piece, weights)
        self._pending, self._s = None, 0.0

    def lend(self, draws: Draws) -> None:
        """Put what was drawn of a single direction on the shelf of the same directions, for whoever needs it next."""
        if self.directions.count != 1:
            return
        streams = {stream.like.data_ptr(): stream for stream in draws.streams.values()}
        pieces: dict[Block, list[Piece]] = {}
        for piece in self._pieces:
            pieces.setdefault(piece.block, []).append(piece)
        for block, mine in pieces.items():
            found, stream = block.drawn(mine), streams.get(block.flat.data_ptr())
            if found is not None and stream is not None:
                stream.keep(found)

    # ------------------------------------------------------------------ one piece

    def _center(self, piece: Piece) -> Tensor:
        """Return the center of a piece: its shadow, or the third buffer."""
        buffers = piece.block.scratch.views(piece.n)
        if not piece.scale:
            return buffers.center.copy_(piece.part)
        if piece.shadow is not None:
            return piece.shadow
        delta = piece.block.scaled(piece, self._i, piece.scale)
        torch.sub(piece.part, delta, out=buffers.center)
        if piece.lost is not None:
            _mend(buffers.center_bits, piece.lost)
        return buffers.center

    def _restore(self, piece: Piece, center: Tensor) -> None:
        self._open = (piece, center)
        piece.part.copy_(center)
        self._rest(piece, False)

    def _update(self, piece: Piece, weights: Floats) -> None:
        center = self._center(piece)
        self._open = (piece, center)
        piece.block.add(piece, weights, center)
        self._rest(piece, True)

    def _rest(self, piece: Piece, done: bool) -> None:
        """Note that a piece has come to rest at a center."""
        piece.scale, piece.lost, piece.done = 0.0, None, done
        self._open = None
        if not piece.copies:
            piece.shadow = None

    def _move(self, piece: Piece, i: int, scale: float) -> None:
        if piece.copies and not piece.scale:
            if piece.shadow is None:
                piece.shadow = torch.empty_like(piece.part)
            piece.shadow.copy_(piece.part)
            piece.scale = scale  # from here on the shadow is the center
        if piece.shadow is not None and piece.scale:
            piece.scale = scale
            piece.block.shift(piece, i, scale, piece.shadow)
            return
        buffers, center = piece.block.scratch.views(piece.n), self._center(piece)
        turned = piece.scale == -scale  # then the buffer holds what is wanted, negative
        delta = buffers.delta if turned else piece.block.scaled(piece, i, scale)
        forth, back = (torch.sub, torch.add) if turned else (torch.add, torch.sub)
        self._open = (piece, center)
        forth(center, delta, out=piece.part)
        back(piece.part, delta, out=buffers.trial)
        lost = _differ(buffers.center_bits, buffers.trial_bits)
        much = sum(x.nbytes for x in lost) >= center.nbytes
        piece.shadow, piece.lost = (center.clone(), None) if much else (None, lost)
        piece.scale, self._open = scale, None

    def _settle(self) -> None:
        """Bring order into what an interruption left: a piece between two states, an update half done."""
        if self._open is not None:
            with torch.no_grad():
                self._restore(*self._open)
        self._finish()

    # ------------------------------------------------------------------ context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                self.back()
                break
            except KeyboardInterrupt as again:
                interrupted = again
        if interrupted is not None and error is None:
            raise interrupted
