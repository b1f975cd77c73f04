"""Every draw is a function of a key: no generator object exists to be lost, shared or advanced.

A :class:`Key` is a seed and a path. It names an infinite stream of 64-bit words: Philox4x64-10
(Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11) in
counter mode. The transforms below turn words into numbers; they are part of the format, carry the
version :data:`RNG_VERSION` and never change under one version number:

- **key words**: BLAKE2b-128 of the canonical text of ``(seed, path)``, as two little-endian words.
- **word** ``i``: output ``i % 4`` of the block with counter ``i // 4 + 1``.
- **uniform** ``i``: ``(word_i >> 11) * 2**-53``, in [0, 1); a narrower type takes its highest bits.
- **normal** ``2k, 2k+1`` (double precision): Box-Muller on words ``2k, 2k+1``:
  ``r = sqrt(-2 log(1 - uniform_2k))``, ``z_2k = r cos(2 pi uniform_2k+1)``, ``z_2k+1 = r sin(...)``, on the host
  by the tangent of half the angle.
- **normal** (single precision and below): the same in single precision on the 32-bit halves of word ``k``: with
  ``u = (low + 1) 2**-32`` for the radius ``sqrt(-2 log u)`` and ``2 pi high 2**-32`` for the angle, so that a
  single-precision normal costs half a word and no arithmetic in double precision.
- **sign** ``i``: bit ``i % 64`` of word ``i // 64``; a set bit is +1.

Any slice of a stream can be drawn alone (``start=``) and equals the slice of the whole, which is
how large points are perturbed block by block. Integers and uniforms are equal on every machine and
device; normals agree to a few units in the last place across devices and exactly on one device.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from dfo.arrays import Array, is_torch, namespace
from dfo.errors import InvalidArgument, InvalidType, short

__all__ = [
    "RNG_VERSION",
    "Key",
    "choice",
    "fill_normal",
    "fill_signs",
    "integers",
    "normal",
    "permutation",
    "signs",
    "uniform",
    "words",
]

RNG_VERSION = 2
"""Version of the key derivation and of the transforms, stored with every result."""

Words = npt.NDArray[np.uint64]
_ELEVEN = np.uint64(11)
_TWO_PI = 2.0 * math.pi


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a stream of random words: a seed and a path of integers and strings.

    Args:
        seed: any integer >= 0; 0 is a seed like any other.
        path: the way from the root, extended by :meth:`child`.

    Example:
        >>> from dfo.random import Key, normal
        >>> key = Key(0)
        >>> bool((normal(key.child(3), (2,)) == normal(Key(0, (3,)), (2,))).all())
        True
    """

    seed: int
    path: tuple[int | str, ...] = ()

    def child(self, *parts: int | str) -> Key:
        """Return the key at ``path + parts``; different parts name independent streams."""
        return Key(self.seed, self.path + tuple(str(p) if isinstance(p, str) else index(p) for p in parts))

    @property
    def words(self) -> tuple[int, int]:
        """The two 64-bit Philox key words."""
        text = ";".join(f"i{p}" if type(p) is int else f"s{len(str(p))}:{p}" for p in (self.seed, *self.path))
        digest = blake2b(text.encode(), digest_size=16).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")

    @staticmethod
    def of(seed: object) -> Key:
        """Return the root key of a user's seed.

        Raises:
            InvalidType: the seed is not an integer.
            InvalidArgument: the seed is negative.
        """
        if isinstance(seed, Key):
            return seed
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise InvalidType(f"seed: expected an integer >= 0, got {short(seed)}. Pass an int, such as seed=0.")
        if seed < 0:
            raise InvalidArgument(f"seed: expected an integer >= 0, got {seed}. Pass its absolute value.")
        return Key(int(seed))


class _Engine(threading.local):
    """One numpy Philox per thread, re-pointed at every draw (twelve times cheaper than a new one)."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.state: Any = self.bits.state
        self.state["buffer_pos"] = 4
        self.state["has_uint32"] = 0

    def draw(self, key: Key, start: int, count: int) -> Words:
        low, high = key.words
        state = self.state["state"]
        state["key"][0], state["key"][1] = low, high
        block, skip = divmod(start, 4)
        state["counter"][0] = block  # numpy adds one before it encrypts
        self.bits.state = self.state
        drawn: Words = self.bits.random_raw(count + skip)
        return drawn[skip:] if skip else drawn


_engine = _Engine()


def words(key: Key, count: int, start: int = 0) -> Words:
    """Return words ``start .. start + count`` of the stream ``key``, ``(count,)`` uint64."""
    return _engine.draw(key, start, count)


def uniform(key: Key, shape: tuple[int, ...], like: Array | None = None, start: int = 0) -> Array:
    """Return uniform numbers in [0, 1).

    Args:
        key: the stream.
        shape: of the result, filled in C order.
        like: array whose library, dtype and device the result takes (numpy double by default).
        start: index in the stream of the first number.
    """
    bits = 53 if like is None else 1 - round(math.log2(_eps(like)))  # what the type holds: 1 is never reached
    drawn = words(key, math.prod(shape), start)
    drawn >>= np.uint64(64 - bits)
    unit: Array = drawn * 2.0**-bits
    return _cast(unit.reshape(shape), like)


def _eps(like: Array) -> float:
    return float(namespace(like).finfo(like.dtype).eps)


def normal(key: Key, shape: tuple[int, ...], like: Array | None = None, start: int = 0) -> Array:
    """Return standard normal numbers; arguments as in :func:`uniform`.

    With ``like`` in single precision or below, the numbers are made in single precision.
    """
    if like is None:
        return fill_normal(np.empty(shape), key, start)
    reference: Any = like
    xp = namespace(like)
    if is_torch(like):
        return fill_normal(xp.empty(shape, dtype=reference.dtype, device=reference.device), key, start)
    return fill_normal(np.empty(shape, dtype=reference.dtype), key, start)


def fill_normal(out: Array, key: Key, start: int = 0) -> Array:
    """Write standard normal numbers ``start ..`` of a stream into ``out``, in C order, and return ``out``.

    Nothing of the size of ``out`` is allocated beside it where it is a contiguous array of single or double
    precision on the host.

    Args:
        out: array or tensor of floats, of any shape.
        key: the stream.
        start: index in the stream of the first number.
    """
    target: Any = out
    if is_torch(out):
        xp = namespace(out)
        if target.device.type != "cpu":
            target.copy_(_device_normal(key, start, target).reshape(target.shape))
            return out
        direct = target.is_contiguous() and target.dtype in (xp.float32, xp.float64) and not target.requires_grad
        wide = xp.float64 if target.dtype == xp.float64 else xp.float32
        host = target if direct else xp.empty(target.shape, dtype=wide)
        _fill(host.numpy().reshape(-1), key, start)
        if not direct:
            with xp.no_grad():
                target.copy_(host)
        return out
    direct = target.flags.c_contiguous and target.dtype in (np.float32, np.float64) and target.flags.writeable
    flat = target.reshape(-1) if direct else np.empty(target.size, np.float32 if target.dtype.itemsize < 8 else float)
    _fill(flat, key, start)
    if not direct:
        target[...] = flat.reshape(target.shape)
    return out


PAIRS = {True: 1 << 14, False: 1 << 13}
"""Pairs of normal numbers made at a time, in single and in double precision.

What they need stays in the cache of a core, and below the size from which every array is fresh memory.
"""


def _fill(out: Array, key: Key, start: int) -> None:
    """Fill a flat numpy array of single or double precision."""
    single, count = out.dtype == np.float32, len(out)
    if not count:
        return
    at = 0
    if start % 2:  # Box-Muller makes them in pairs: the first number is the second of its pair
        pair = np.empty(2, out.dtype)
        (_single_pairs if single else _double_pairs)(key, start - 1, pair)
        out[0], at = pair[1], 1
    even = (count - at) // 2 * 2
    piece = 2 * PAIRS[bool(single)]
    for begin in range(at, at + even, piece):
        part = out[begin : min(begin + piece, at + even)]
        (_single_pairs if single else _double_pairs)(key, start + begin, part)
    if at + even < count:
        pair = np.empty(2, out.dtype)
        (_single_pairs if single else _double_pairs)(key, start + at + even, pair)
        out[-1] = pair[0]


def _double_pairs(key: Key, first: int, out: Array) -> None:
    drawn = words(key, len(out), first)
    drawn >>= _ELEVEN
    unit = drawn * 2.0**-53
    radius = 1.0 - unit[0::2]  # exact
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    half = unit[1::2] * math.pi  # cosine and sine by the tangent of the half angle, which is five times quicker
    np.tan(half, out=half)
    square = half * half
    radius /= 1.0 + square
    np.multiply(1.0 - square, radius, out=out[0::2])
    half *= 2.0
    np.multiply(half, radius, out=out[1::2])


def _single_pairs(key: Key, first: int, out: Array) -> None:
    halves = words(key, len(out) // 2, first // 2).view(np.uint32)
    if not np.little_endian:
        halves = halves.reshape(-1, 2)[:, ::-1].reshape(-1)
    radius, angle = halves[0::2].astype(np.float32), halves[1::2].astype(np.float32)
    radius += np.float32(1.0)
    radius *= np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2.0)
    np.sqrt(radius, out=radius)
    angle *= np.float32(_TWO_PI * 2.0**-32)
    np.multiply(radius, np.cos(angle), out=out[0::2])
    np.sin(angle, out=angle)
    np.multiply(radius, angle, out=out[1::2])


def _device_normal(key: Key, start: int, like: Any) -> Any:
    """Return as many flat normals as ``like`` has entries, made on its device."""
    xp, count = namespace(like), like.numel()
    first = start - start % 2
    pairs = (start + count - first + 1) // 2
    if like.dtype == xp.float64:
        drawn = _torch_words(key, 2 * pairs, first, like)
        unit = ((drawn >> 11) & ((1 << 53) - 1)).to(xp.float64) * 2.0**-53
        radius = xp.sqrt(-2.0 * xp.log1p(-unit[0::2]))
        angle = unit[1::2] * _TWO_PI
    else:
        drawn = _torch_words(key, pairs, first // 2, like)
        radius = (drawn & 0xFFFFFFFF).to(xp.float32) + 1.0
        radius = xp.sqrt(-2.0 * xp.log(radius * 2.0**-32))
        angle = ((drawn >> 32) & 0xFFFFFFFF).to(xp.float32) * (_TWO_PI * 2.0**-32)
    flat = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1).reshape(-1)
    return flat[start - first : start - first + count]


def _torch_words(key: Key, count: int, start: int, like: Any) -> Any:
    """Return words as int64 (the same bits) on the device of ``like``."""
    if like.device.type == "cpu":
        return namespace(like).from_numpy(words(key, count, start).view(np.int64))
    return philox_on_device(key, count, start, like)


def philox_on_device(key: Key, count: int, start: int, like: Any) -> Any:
    """Return the words of :func:`words` computed by torch operations on the device of ``like``.

    Returns:
        ``(count,)`` int64 with the bits of the unsigned words.
    """
    xp = namespace(like)
    block, skip = divmod(start, 4)
    blocks = (skip + count + 3) // 4
    zeros = xp.zeros(blocks, dtype=xp.int64, device=like.device)
    counter = [xp.arange(block + 1, block + 1 + blocks, dtype=xp.int64, device=like.device), zeros, zeros, zeros]
    k0, k1 = key.words
    for _ in range(10):
        high0, low0 = _multiply_128(0xD2E7470EE14C6C93, counter[0])
        high1, low1 = _multiply_128(0xCA5A826395121157, counter[2])
        counter = [high1 ^ counter[1] ^ _signed(k0), low1, high0 ^ counter[3] ^ _signed(k1), low0]
        k0 = (k0 + 0x9E3779B97F4A7C15) % 2**64
        k1 = (k1 + 0xBB67AE8584CAA73B) % 2**64
    return xp.stack(counter, axis=1).reshape(-1)[skip : skip + count]


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _multiply_128(a: int, b: Any) -> tuple[Any, Any]:
    """Return the high and low words of the 128-bit product, in int64 arithmetic that wraps."""
    low32 = 0xFFFFFFFF
    a0, a1 = a & low32, a >> 32
    b0, b1 = b & low32, (b >> 32) & low32
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = ((p00 >> 32) & low32) + (p01 & low32) + (p10 & low32)
    high = p11 + ((p01 >> 32) & low32) + ((p10 >> 32) & low32) + ((middle >> 32) & low32)
    return high, b * _signed(a)


def signs(key: Key, shape: tuple[int, ...], like: Array | None = None, start: int = 0) -> Array:
    """Return +1 and -1 with equal probability; arguments as in :func:`uniform`."""
    if like is None:
        return fill_signs(np.empty(shape), key, start)
    reference: Any = like
    if is_torch(like):
        return fill_signs(namespace(like).empty(shape, dtype=reference.dtype, device=reference.device), key, start)
    return fill_signs(np.empty(shape, dtype=reference.dtype), key, start)


def fill_signs(out: Array, key: Key, start: int = 0, scale: float = 1.0) -> Array:
    """Write signs ``start ..`` of a stream, times ``scale``, into ``out``, in C order, and return ``out``.

    Eight at a time: a byte of the stream picks one of 256 rows of a table, which costs less than a sixth of a
    nanosecond a number in single precision.

    Args:
        out: array or tensor of any signed type and shape.
        key: the stream.
        start: index in the stream of the first sign.
        scale: what +1 becomes; rounded once to the type of ``out``.
    """
    target: Any = out
    if not math.prod(target.shape):
        return out
    table = _sign_table(target.dtype, scale)
    if is_torch(out):
        target = target.detach()
        direct = target.is_contiguous() and target.device.type == "cpu" and target.numel() > 1  # one: of any stride
        host = target if direct else namespace(out).empty(target.shape, dtype=target.dtype)
        _take_signs(host.reshape(-1).view(namespace(out).uint8).numpy(), key, start, table)
    else:
        direct = target.flags.c_contiguous and target.flags.writeable
        host = target if direct else np.empty(target.shape, target.dtype)
        _take_signs(host.reshape(-1).view(np.uint8), key, start, table)
    if not direct and is_torch(out):
        target.copy_(host)
    elif not direct:
        target[...] = host
    return out


@lru_cache(maxsize=64)
def _sign_table(dtype: Any, scale: float) -> Array:
    """Return 256 rows of raw bytes: the eight numbers that the bits of a byte stand for, lowest bit first."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")  # (256, 8)
    values: Any = np.where(bits == 1, scale, -scale)
    if str(dtype).startswith("torch."):
        import torch

        raw = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy()
    else:
        raw = values.astype(dtype).view(np.uint8)
    return np.ascontiguousarray(raw).view(f"V{raw.shape[1]}").reshape(-1)


def _take_signs(out: Array, key: Key, start: int, table: Array) -> None:
    """Fill ``out``, the flat bytes of an array."""
    size = table.dtype.itemsize // 8
    count, (first, skip) = len(out) // size, divmod(start, 64)
    drawn = words(key, (skip + count + 63) // 64, first).astype("<u8", copy=False).view(np.uint8)
    byte, bit = divmod(skip, 8)
    rows = drawn[byte : byte + (bit + count + 7) // 8]
    if bit or count % 8:
        out[:] = table[rows].view(np.uint8)[bit * size : (bit + count) * size]
    else:
        np.take(table, rows, out=out.view(table.dtype), mode="clip")


def integers(key: Key, high: int, shape: tuple[int, ...], start: int = 0) -> npt.NDArray[np.int64]:
    """Return integers in ``0 .. high - 1``; the bias is below ``high * 2**-53``."""
    return np.asarray(uniform(key, shape, None, start) * high, dtype=np.int64)


def permutation(key: Key, n: int) -> npt.NDArray[np.int64]:
    """Return a random permutation of ``0 .. n - 1``."""
    return np.argsort(words(key, n), kind="stable").astype(np.int64, copy=False)


def choice(key: Key, n: int, k: int) -> npt.NDArray[np.int64]:
    """Return ``k`` different integers out of ``0 .. n - 1``, in random order."""
    return permutation(key, n)[:k]


def _cast(values: Array, like: Array | None) -> Array:
    if like is None:
        return values
    if is_torch(like):
        ref: Any = like
        result: Array = namespace(like).from_numpy(values).to(dtype=ref.dtype, device=ref.device)
        return result
    return values.astype(like.dtype, copy=False)
