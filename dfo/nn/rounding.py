"""Updates that survive in low precision.

A weight of 0.02 in bfloat16 has neighbours 1.2e-4 away, so an update of 1e-6 that is rounded to the nearest is lost
nearly always (3 % of its length are left). Here the sum is taken in single precision and rounded to one of its two
neighbours with the probabilities that make it right on average (stochastic rounding: Forsythe 1950; Gupta et al. 2015,
arXiv:1502.02551).

The random bits of element ``i`` are a function of (key, ``i``) alone: a replay is equal to the last bit, and so is any
division into chunks. They are made by simple tabulation (Carter and Wegman 1979): three tables of words of the key's
streams, whose lengths have no common factor, are read round and round and joined,
``bits_i = A[i mod 4093] ^ B[i mod 3557] ^ C[i mod 3079]``. Every ``bits_i`` is uniform on 16 bits, and any three of
them are independent (Patrascu and Thorup 2012, "The power of simple tabulation hashing"), so the mean and the variance
of the error along any direction are those of independent bits, at a fraction of the cost of drawing these.

What holds: an element whose update is zero keeps its bits; NaN stays NaN and an infinity stays; a finite weight
never becomes infinite by rounding, it stops at the largest number of its type; numbers below the normal range are
rounded like the others (not where ``torch.set_flush_denormal`` took them away). Updates below the spacing of single
precision are rounded to the nearest multiple of it, as in training in single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.random import Key, words

__all__ = ["CHUNK", "add_", "add_product_", "rounding_bits"]

CHUNK = 1 << 17
"""Elements moved at a time; what they need, 2 MiB, stays in the cache."""

PERIODS = (4093, 3557, 3079)
"""Lengths of the three tables of random bits, primes; part of the format of a replay."""

GOLDEN = 40503
"""Odd, and 2**16 times the golden section: what the bits are turned by."""

STRETCH = 1 << 15
"""Random bits joined at a time."""

WIDE = (torch.float32, torch.float64)
NARROW = (torch.bfloat16, torch.float16)
SMALLEST_HALF = 2.0**-14
"""The smallest normal number of float16."""


def add_(
    target: torch.Tensor, chunk_of: Callable[[int, int], torch.Tensor], key: Key, turn: int = 0, *, chunk: int = CHUNK
) -> torch.Tensor:
    """Add an update to a tensor in place, a chunk at a time.

    bfloat16 and float16 are rounded stochastically, float32 and float64 as always.

    Args:
        target: of any shape and layout; a parameter is moved without a gradient being recorded.
        chunk_of: returns entries ``start .. stop`` of the update, flattened in C order, in single precision.
        key: of the random bits; give every tensor its own, and every step its own too or the next ``turn``.
        turn: under one key, adds ``40503 * turn`` to the random bits (modulo 2**16). Additions 0, 1, 2, ... then use
            bits that are spread evenly over time instead of independent ones, so that an update that comes again and
            again arrives as if its sum had been rounded once. Every single addition is right on average as before,
            but not given what the earlier ones did.
        chunk: elements at a time; the result does not depend on it.

    Returns:
        ``target``.

    Raises:
        InvalidType: ``target`` has no floating dtype of these four.
        InvalidArgument: a chunk of the update is not ``stop - start`` long.

    Example:
        >>> import torch
        >>> from dfo.random import Key
        >>> weights = torch.ones(1000, dtype=torch.bfloat16)
        >>> update = torch.full((1000,), 1e-4)
        >>> weights += update  # the spacing is 7.8e-3: nothing happens
        >>> for step in range(1000):
        ...     weights = add_(weights, lambda start, stop: update[start:stop], Key(0, (step,)))
        >>> round(float(weights.float().mean()), 2)
        1.1
    """

    def move(wide: torch.Tensor, start: int, stop: int) -> None:
        update = chunk_of(start, stop)
        if update.numel() != stop - start:
            raise InvalidArgument(
                f"add_: expected {stop - start} numbers for entries {start} .. {stop} of the update,"
                f" got a tensor of shape {tuple(update.shape)}."
            )
        wide.add_(update.reshape(-1))

    _check(target)
    return _add(target, move, key, turn, max(1, chunk))


def add_product_(
    target: torch.Tensor, left: torch.Tensor, right: torch.Tensor, key: Key, turn: int = 0, *, chunk: int = CHUNK
) -> torch.Tensor:
    """Add ``left @ right`` to a matrix in place, rows by rows; see :func:`add_`.

    The random bits do not depend on ``chunk``; the last bit of the product in single precision may.

    Args:
        target: ``(a, b)``, or any tensor with ``a * b`` elements, which in C order are those of the matrix.
        left: ``(a, k)`` in single precision.
        right: ``(k, b)`` in single precision.
        key: of the random bits.
        turn: see :func:`add_`.
        chunk: elements at a time, at least one row of at most this length.

    Returns:
        ``target``.

    Raises:
        InvalidType: ``target`` has no floating dtype of bfloat16, float16, float32 and float64.
        InvalidArgument: the shapes do not fit.
    """
    _check(target)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise InvalidArgument(
            f"add_product_: expected factors (a, k) and (k, b), got {tuple(left.shape)} and {tuple(right.shape)}."
        )
    a, b = left.shape[0], right.shape[1]
    if a * b != target.numel():
        raise InvalidArgument(
            f"add_product_: a product of shape {(a, b)} does not fit a target of shape {tuple(target.shape)}."
        )
    kind = torch.float64 if target.dtype == torch.float64 else torch.float32
    left, right = left.detach().to(kind), right.detach().to(kind)
    if target.dtype in WIDE and target.is_contiguous():
        with torch.no_grad():
            target.view(a, b).addmm_(left, right)
        return target

    def move(wide: torch.Tensor, start: int, stop: int) -> None:
        first, last = start // b, -(-stop // b)
        if start == first * b and stop == last * b:
            wide.view(last - first, b).addmm_(left[first:last], right)
        elif last == first + 1:
            wide.view(1, -1).addmm_(left[first:last], right[:, start - first * b : stop - first * b])
        else:  # no whole rows: the layout of the target forced it
            rows = (left[first:last] @ right).reshape(-1)
            wide.add_(rows[start - first * b : stop - first * b])

    chunk = max(1, chunk)
    return _add(target, move, key, turn, chunk // b * b if 0 < b <= chunk else chunk)


def _check(target: torch.Tensor) -> None:
    if not isinstance(target, torch.Tensor) or target.dtype not in WIDE + NARROW:
        got = f"a tensor of {target.dtype}" if isinstance(target, torch.Tensor) else short(target)
        raise InvalidType(
            f"target: expected a tensor of bfloat16, float16, float32 or float64, got {got}."
            " Move the scales of quantised weights, or a copy of them in one of these types."
        )


def _add(
    target: torch.Tensor, move: Callable[[torch.Tensor, int, int], None], key: Key, turn: int, size: int
) -> torch.Tensor:
    """Let ``move`` add to every piece of ``target`` in single precision or wider, and round."""
    count = target.numel()
    if not count:
        return target
    with torch.no_grad():
        data = target.detach()
        plain = data.dtype in WIDE
        kind = data.dtype if plain else torch.float32
        room = torch.empty(min(size, count), dtype=kind, device=data.device)
        rounder = None if plain else _Rounder(key, turn, count, len(room), data)
        for start, piece in _pieces(data, size):
            stop = start + piece.numel()
            if plain and piece.is_contiguous():
                move(piece.view(-1), start, stop)
                continue
            wide = room[: stop - start]
            wide.view(piece.shape).copy_(piece)
            move(wide, start, stop)
            if rounder is None:
                piece.copy_(wide.view(piece.shape))
            else:
                rounder.write(piece, wide, start)
    return target


def _pieces(tensor: torch.Tensor, size: int, start: int = 0) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield views of at most ``size`` elements that are neighbours in C order, with the index of the first."""
    if tensor.is_contiguous():
        flat = tensor.view(-1)
        for at in range(0, flat.shape[0], size):
            yield start + at, flat[at : at + size]
        return
    inner = tensor[0].numel()
    if inner > size:
        for i in range(tensor.shape[0]):
            yield from _pieces(tensor[i], size, start + i * inner)
        return
    rows = size // inner
    for i in range(0, tensor.shape[0], rows):
        yield start + i * inner, tensor[i : i + rows]


# ---------------------------------------------------------------------- random bits


def rounding_bits(key: Key, start: int, stop: int, turn: int = 0) -> torch.Tensor:
    """Return the 16 random bits of elements ``start .. stop``, ``(stop - start,)`` int32 in 0 .. 65535."""
    return _Bits(key, turn, stop, max(1, stop - start), torch.device("cpu")).draw(start, stop).clone()


class _Bits:
    """The random bits of one tensor: three tables, and room for what is read of them.

    Args:
        key: of the tensor.
        turn: see :func:`add_`.
        count: elements of the tensor.
        longest: most elements that are asked for at once.
        device: where they are needed.
    """

    def __init__(self, key: Key, turn: int, count: int, longest: int, device: torch.device) -> None:
        self.host = device.type == "cpu"
        self.device = device
        self.shift = turn * GOLDEN % (1 << 16)
        self.tables = [self._table(key.child("rounding", i), p, count) for i, p in enumerate(PERIODS)]
        if self.host:
            self.joined = np.empty(min(longest, STRETCH), np.uint16)
            self.room = torch.empty(longest, dtype=torch.int32)
        else:
            self.on_device = [torch.from_numpy(t.astype(np.int32)).to(device) for t in self.tables]

    def _table(self, key: Key, period: int, count: int) -> npt.NDArray[np.uint16]:
        """Return the table, on the host so far beyond its period that every stretch of it is a view."""
        used = min(period, count)
        drawn = words(key, (used + 3) // 4).astype("<u8", copy=False).view("<u2")[:used].astype(np.uint16, copy=False)
        return np.resize(drawn, period + min(count, STRETCH)) if self.host and count > period else drawn

    def draw(self, start: int, stop: int) -> torch.Tensor:
        """Return the bits of elements ``start .. stop`` as int32, valid until the next call."""
        if not self.host:
            index = torch.arange(start, stop, device=self.device)
            a, b, c = (table[index % p] for table, p in zip(self.on_device, PERIODS, strict=True))
            return ((a ^ b ^ c) + self.shift) & 0xFFFF
        room = self.room[: stop - start]
        into = room.numpy()
        for at in range(start, stop, STRETCH):
            joined = self.joined[: min(STRETCH, stop - at)]
            a, b, c = (t[at % p : at % p + len(joined)] for t, p in zip(self.tables, PERIODS, strict=True))
            np.bitwise_xor(a, b, out=joined)
            np.bitwise_xor(joined, c, out=joined)
            if self.shift:
                joined += np.uint16(self.shift)
            into[at - start : at - start + len(joined)] = joined
        return room


# ---------------------------------------------------------------------- rounding


class _Rounder:
    """Rounds the pieces of one tensor.

    Args:
        key: of the random bits.
        count: elements of the tensor.
        longest: of the pieces, in elements.
        like: the tensor.
    """

    def __init__(self, key: Key, turn: int, count: int, longest: int, like: torch.Tensor) -> None:
        self.bits = _Bits(key, turn, count, longest, like.device)
        self.host = like.device.type == "cpu"
        self.top: float = torch.finfo(like.dtype).max
        self.half = like.dtype == torch.float16
        spare = 2 if self.half else 0
        self.spare = torch.empty((spare, longest), device=like.device)

    def write(self, piece: torch.Tensor, wide: torch.Tensor, start: int) -> None:
        """Round ``wide``, ``(n,)``, into ``piece``, whose old numbers it was made of; ``wide`` is used up."""
        bits = self.bits.draw(start, start + wide.shape[0])
        if self._usual(piece, wide):
            self._round(piece, wide, bits)
            return
        old, total = piece.clone(), wide.clone().view(piece.shape)
        self._round(piece, wide, bits)
        new = torch.where(total.isfinite(), piece.clamp(-self.top, self.top), total.to(piece.dtype))
        piece.copy_(torch.where((total == old.float()) | old.isnan(), old, new))

    def _usual(self, piece: torch.Tensor, wide: torch.Tensor) -> bool:
        """Return whether all sums are finite and below the largest number, and no old number is a negative zero.

        The square of the norm bounds the largest sum and is not a number when one of them is none. A negative zero is
        the smallest of all bit patterns read as integers; an update of zero would make it a positive one.
        """
        if not self.host:  # asking would cost more than the answer saves
            return False
        return float(wide.dot(wide)) < self.top**2 and int(piece.view(torch.int16).min()) != -(1 << 15)

    def _round(self, piece: torch.Tensor, wide: torch.Tensor, bits: torch.Tensor) -> None:
        (self._float16 if self.half else self._bfloat16)(piece, wide, bits)  # kept, a method would outlive the update

    def _bfloat16(self, piece: torch.Tensor, wide: torch.Tensor, bits: torch.Tensor) -> None:
        """Add 16 random bits below the last place and cut them off; sign and magnitude are apart: no bias."""
        pattern = wide.view(torch.int32)
        pattern.add_(bits).bitwise_right_shift_(16)
        piece.view(torch.int16).copy_(pattern.view(piece.shape))

    def _float16(self, piece: torch.Tensor, wide: torch.Tensor, bits: torch.Tensor) -> None:
        """Do the same with 13 bits; below the normal range on the sum with its end, where the spacing is the same."""
        size, below = self.spare[:, : wide.shape[0]]
        torch.abs(wide, out=size)
        torch.lt(size, SMALLEST_HALF, out=below)
        below *= SMALLEST_HALF
        size += below
        size.view(torch.int32).add_(bits.bitwise_right_shift_(3)).bitwise_and_(-(1 << 13))
        size -= below
        piece.copy_(size.copysign_(wide).view(piece.shape))
