"""Recombination and mutation of real vectors and of strings, as pure functions of keys.

References: Deb and Agrawal 1995, "Simulated binary crossover for continuous search space", Complex Systems 9 (SBX);
Deb and Goyal 1996, "A combined genetic adaptive search (GeneAS)"; Deb and Deb 2014, "Analysing mutation schemes for
real-parameter genetic algorithms", IJAISC 4 (polynomial mutation within bounds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dfo.arrays import Array, Floats, as_like, is_torch, namespace, scratch
from dfo.random import Key, integers, normal, uniform, words
from dfo.spaces import Text

__all__ = [
    "CROSSOVERS",
    "Crossover",
    "add_gaussian",
    "crossed",
    "crossed_texts",
    "edited",
    "polynomial_step",
    "positions",
    "spread_factors",
]

Crossover = Literal["sbx", "uniform", "one-point", "none"]
CROSSOVERS: tuple[Crossover, ...] = ("sbx", "uniform", "one-point", "none")

CHUNK = 1 << 16
"""Coordinates of a pair that are crossed at a time, within the cache of a core."""

Ints = npt.NDArray[np.int64]


# ---------------------------------------------------------------------- crossover of vectors


def spread_factors(u: Floats, eta: float) -> Floats:
    """Return the spread factors ``beta`` of SBX at uniform numbers ``u`` (Deb and Agrawal 1995, eq. 9).

    ``beta = (2u)^(1/(eta+1))`` up to ``u = 1/2``, ``(1/(2(1-u)))^(1/(eta+1))`` above: the children of ``a, b`` are
    ``(a + b)/2 -+ beta (b - a)/2``; ``P(beta <= 1) = 1/2``, and ``beta`` and ``1/beta`` have one distribution.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(u <= 0.5, 2.0 * u, 0.5 / (1.0 - u)) ** (1.0 / (eta + 1.0)), dtype=float)


@lru_cache(maxsize=16)
def _shares(eta: float, dtype: str) -> Array:
    """Return what of ``b - a`` child ``a`` gets, for each value of 16 random bits.

    The first bit decides whether the coordinate is crossed at all, the others pick one of the 32768 middles of
    equally likely pieces of the distribution of ``beta``.
    """
    u = (np.arange(1 << 15) + 0.5) / (1 << 15)
    table = np.concatenate([np.zeros(1 << 15), 0.5 * (1.0 - spread_factors(u, eta))]).astype(dtype)
    table.flags.writeable = False
    return table


def _bits(key: Key, start: int, count: int) -> npt.NDArray[np.uint16]:
    """Return 16-bit numbers ``start .. start + count`` of a stream, four to a word."""
    first, skip = divmod(start, 4)
    drawn = words(key, (skip + count + 3) // 4, first).astype("<u8", copy=False)
    return drawn.view("<u2")[skip : skip + count]


def crossed(kind: Crossover, key: Key, parents: Array, pairs: Ints, eta: float = 15.0) -> Array:
    """Return the two children of every pair, ``(2 k, d)``: children ``2j`` and ``2j + 1`` of pair ``j``.

    The sum of two children is that of their parents. Nothing else of the population's size is made.

    Args:
        kind: ``"sbx"`` crosses each coordinate with probability 1/2; ``"uniform"`` swaps each with probability
            1/2; ``"one-point"`` swaps those behind one random place; ``"none"`` copies.
        key: the stream.
        parents: ``(m, d)``.
        pairs: ``(k, 2)`` rows of ``parents``.
        eta: distribution index of SBX; larger keeps children nearer to their parents.
    """
    k, d = len(pairs), parents.shape[1]
    out: Any = scratch((2 * k, d), parents)
    sons, daughters = out[0::2], out[1::2]
    rows = max(1, CHUNK // d)
    for at in range(0, k, rows):
        some = pairs[at : at + rows]
        for left in range(0, d, CHUNK):
            cut = (slice(at, at + len(some)), slice(left, min(left + CHUNK, d)))
            a, b = (_rows(parents, some[:, side], cut[1]) for side in (0, 1))
            _cross(kind, key, (at, left), (a, b), (sons[cut], daughters[cut]), (d, eta))
    children: Array = out
    return children


def _rows(parents: Array, which: Ints, cut: slice) -> Any:
    """Return rows of the parents; a single one is a view."""
    return parents[int(which[0]) :][:1, cut] if len(which) == 1 else parents[which, cut]


def _cross(
    kind: Crossover, key: Key, at: tuple[int, int], ab: tuple[Any, Any], out: tuple[Any, Any], more: tuple[int, float]
) -> None:
    """Write the children of the parents ``ab``, ``(r, w)`` each, whose block begins at pair and coordinate ``at``."""
    (a, b), (d, eta), (r, w) = ab, more, out[0].shape
    xp, start = namespace(a), at[0] * d + at[1]
    if kind == "none":
        out[0][...], out[1][...] = a, b
    elif kind == "sbx":
        dtype = str(a.dtype).rpartition(".")[2]
        table = _shares(eta, dtype if dtype in ("float32", "float64") else "float32")
        share = as_like(np.take(table, _bits(key, start, r * w)), a).reshape(r, w)
        share *= b - a
        xp.add(a, share, out=out[0])
        xp.subtract(b, share, out=out[1])
    else:
        swap = _swaps(kind, key, at, (r, w), d)
        mask = xp.asarray(swap, device=a.device)
        out[0][...], out[1][...] = xp.where(mask, b, a), xp.where(mask, a, b)


def _swaps(kind: Crossover, key: Key, at: tuple[int, int], shape: tuple[int, int], d: int) -> npt.NDArray[np.bool_]:
    """Return which coordinates are swapped, ``(r, w)``."""
    (r, w), start = shape, at[0] * d + at[1]
    if kind == "uniform":
        first, skip = divmod(start, 64)
        drawn = words(key, (skip + r * w + 63) // 64, first).astype("<u8", copy=False)
        bits = np.unpackbits(drawn.view(np.uint8), bitorder="little")[skip : skip + r * w]
        return bits.view(np.bool_).reshape(r, w)
    places = 1 + integers(key, max(1, d - 1), (r,), at[0])  # at least one coordinate stays, and one goes
    return np.asarray(np.arange(at[1], at[1] + w) >= places[:, None])


# ---------------------------------------------------------------------- mutation of vectors


def positions(key: Key, size: int, rate: float) -> Ints:
    """Return the sorted places of ``size`` that mutate, each with probability ``rate``; costs ``size * rate``.

    The gaps between them are geometric: ``1 + floor(log(1 - u) / log(1 - rate))``.
    """
    if rate >= 1.0:
        return np.arange(size)
    at, found, block = -1, [], 0
    expected = size * rate
    count = int(expected + 4.0 * math.sqrt(expected) + 16.0)
    while at < size:
        unit = uniform(key, (count,), None, block * count)
        gaps = np.floor(np.minimum(np.log1p(-unit) / math.log1p(-rate), size))
        found.append(at + np.cumsum(1 + gaps.astype(np.int64)))
        at, block = int(found[-1][-1]), block + 1
    every = np.concatenate(found)
    return every[every < size]


def add_gaussian(X: Array, key: Key, rate: float, stdev: Floats) -> None:
    """Add normal numbers to random coordinates in place.

    Args:
        X: ``(n, d)``, contiguous.
        key: the stream.
        rate: probability of each coordinate.
        stdev: ``(n,)`` of each row.
    """
    x: Any = X
    if rate >= 1.0:
        for i, row in enumerate(x):
            row += float(stdev[i]) * normal(key.child("by"), row.shape, row, i * row.shape[0])
        return
    at = positions(key.child("at"), math.prod(x.shape), rate)
    step = as_like(stdev[at // x.shape[1]], x) * normal(key.child("by"), (len(at),), x)
    flat = x.reshape(-1)
    flat[_index(at, x)] += step


def polynomial_step(x: Array, u: Array, eta: float) -> Array:
    """Return mutated coordinates of the unit interval (Deb and Deb 2014, eq. 1-3); they stay in it.

    ``x + dl x`` for ``u <= 1/2`` and ``x + dr (1 - x)`` above, each side in units of the whole interval:
    ``dl = (2u + (1 - 2u)(1 - x)^(eta+1))^(1/(eta+1)) - 1``; ``dr`` mirrored.

    Args:
        x: coordinates in [0, 1].
        u: uniform numbers.
        eta: distribution index; the mean step is about ``1 / (eta + 2)`` of the interval.
    """
    xp, power, a, v = namespace(x), eta + 1.0, _any(x), _any(u)
    t, w = xp.clip(v, 0.0, 0.5), xp.clip(1.0 - v, 0.0, 0.5)
    low = (2.0 * t + (1.0 - 2.0 * t) * (1.0 - a) ** power) ** (1.0 / power) - 1.0
    high = 1.0 - (2.0 * w + (1.0 - 2.0 * w) * a**power) ** (1.0 / power)
    moved: Array = xp.clip(a + xp.where(v <= 0.5, low, high), 0.0, 1.0)
    return moved


def _any(x: Any) -> Any:
    return x


def _index(at: Ints, like: Any) -> Any:
    return namespace(like).asarray(at, device=like.device) if is_torch(like) else at


# ---------------------------------------------------------------------- strings


def crossed_texts(kind: Crossover, key: Key, texts: Sequence[str], pairs: Ints) -> list[str]:
    """Return the two children of every pair; positions are aligned from the start, each child is as long as a parent.

    Args:
        kind: ``"one-point"`` swaps what stands behind a random place, ``"uniform"`` each position with probability
            1/2 and the tail that one string has alone likewise; ``"none"`` copies.
        key: the stream.
        texts: the parents.
        pairs: ``(k, 2)`` numbers of parents.
    """
    mates = [(texts[a], texts[b]) for a, b in pairs.tolist()]
    if kind == "none":
        return [text for pair in mates for text in pair]
    longest = max((len(text) for pair in mates for text in pair), default=0)
    unit = uniform(key, (len(mates), 1 if kind == "one-point" else longest + 1))
    cross = _cut if kind == "one-point" else _mixed
    return [child for (a, b), row in zip(mates, unit, strict=True) for child in cross(a, b, row)]


def _cut(a: str, b: str, unit: Floats) -> tuple[str, str]:
    shared = min(len(a), len(b))
    place = 1 + int(unit[0] * (shared - 1)) if shared > 1 else shared
    return a[:place] + b[place:], b[:place] + a[place:]


def _mixed(a: str, b: str, unit: Floats) -> tuple[str, str]:
    shared, swap = min(len(a), len(b)), (unit < 0.5).tolist()
    son = "".join(y if s else x for x, y, s in zip(a, b, swap, strict=False))
    daughter = "".join(x if s else y for x, y, s in zip(a, b, swap, strict=False))
    tails = (b[shared:], a[shared:]) if swap[-1] else (a[shared:], b[shared:])
    return son + tails[0], daughter + tails[1]


def edited(space: Text, key: Key, texts: Sequence[str], rate: float) -> list[str]:
    """Return strings after at least one edit each: a symbol replaced, put in or taken out, as the lengths allow.

    Args:
        space: alphabet and lengths.
        key: the stream.
        texts: strings of the space.
        rate: edits a symbol.
    """
    hits = uniform(key.child("edits"), (len(texts), space.dim)) < rate
    counts = [max(1, int(row[: len(text)].sum())) for row, text in zip(hits, texts, strict=True)]
    which = uniform(key.child("which"), (len(texts), max(counts, default=1), 3)).tolist()
    return [_edited(space, text, rows[:n]) for text, rows, n in zip(texts, which, counts, strict=True)]


def _edited(space: Text, text: str, draws: Sequence[Sequence[float]]) -> str:
    low, high = space.lengths
    for kind, place, symbol in draws:
        allowed = [c for c, yes in (("r", text), ("i", len(text) < high), ("d", len(text) > low)) if yes]
        what = allowed[int(kind * len(allowed))] if allowed else ""
        i = int(place * (len(text) + (what == "i")))
        if what == "r":
            text = text[:i] + _other(space.alphabet, text[i], symbol) + text[i + 1 :]
        elif what == "i":
            text = text[:i] + space.alphabet[int(symbol * len(space.alphabet))] + text[i:]
        elif what == "d":
            text = text[:i] + text[i + 1 :]
    return text


def _other(alphabet: str, symbol: str, unit: float) -> str:
    """Return a symbol that is another one, where there is one."""
    others = alphabet.replace(symbol, "")
    return others[int(unit * len(others))] if others else symbol
