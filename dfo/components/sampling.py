"""A gaussian population as one dense array, and the weighted sums that strategies take over it.

Row ``i`` of a population occupies words ``i d .. (i + 1) d`` of its key's stream, so any slice of any
member can be drawn alone. Sums over the population are taken from its points: ``z = (x - center) /
stdev`` up to rounding, so that no second array of the size of the population is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dfo.arrays import Array, as_like, host_view, namespace, on_host, put_mirrored, scratch, to_numpy
from dfo.random import Key, fill_normal, normal

__all__ = ["cloud", "moments"]


CHUNK = 1 << 16
"""Numbers that are drawn, scaled and shifted at a time, within the cache of a core."""


def cloud(center: Array, stdev: Array | float, key: Key, n: int, mirrored: bool = False) -> Array:
    """Return ``(n, d)`` points ``center + stdev * z`` with standard normal ``z``.

    A large population lies in recycled memory (:func:`dfo.arrays.scratch`) and is written once.

    Args:
        center: ``(d,)``; its library, dtype and device are those of the result.
        stdev: a number, or ``(d,)``.
        key: the stream.
        n: points; even when ``mirrored``.
        mirrored: points ``2j`` and ``2j + 1`` are ``center + stdev * z_j`` and ``center - stdev * z_j``.
    """
    d, rows = center.shape[0], n // 2 if mirrored else n
    if rows * d > 4 * CHUNK and on_host(center):
        return _written(center, stdev, key, n, mirrored)
    z: Any = normal(key, (rows, d), center)
    z *= stdev
    if mirrored:
        xp = namespace(center)
        z = xp.stack([z, -z], axis=1).reshape(n, d)
    z += center
    points: Array = z
    return points


def _written(at_center: Any, spread: Any, key: Key, n: int, mirrored: bool) -> Array:
    """Draw and place one chunk of one member, or some whole members, at a time."""
    d, population = at_center.shape[0], scratch((n, at_center.shape[0]), at_center)
    X, center = host_view(population), host_view(at_center)
    stdev: Any = spread if isinstance(spread, (int, float)) else host_view(spread)
    rows, several = n // 2 if mirrored else n, max(1, CHUNK // d)
    if several > 1:
        for j in range(0, rows, several):
            z: Any = normal(key, (min(several, rows - j), d), center, j * d)
            z *= stdev
            here = X[2 * j : 2 * (j + len(z))] if mirrored else X[j : j + len(z)]
            if mirrored:
                here[0::2], here[1::2] = center + z, center - z
            else:
                here[...] = center + z
        return population
    for j in range(rows):
        for at in range(0, d, CHUNK):
            cut = slice(at, min(at + CHUNK, d))
            here = X[2 * j if mirrored else j][cut]
            fill_normal(here, key, j * d + at)
            here *= stdev if isinstance(stdev, (int, float)) else stdev[cut]
            if mirrored:
                put_mirrored(here, X[2 * j + 1][cut], center[cut], here, 1.0)
            else:
                here += center[cut]
    return population


def moments(
    X: Array,
    center: Array,
    stdev: Array | float,
    first: Array | None = None,
    second: Array | None = None,
    mirrored: bool = False,
) -> tuple[Any, Any]:
    """Return ``(sum_i first_i z_i, sum_i second_i z_i^2)`` with ``z_i = (X_i - center) / stdev``, each ``(d,)``.

    Args:
        X: ``(n, d)`` a population.
        center: ``(d,)`` where it was drawn.
        stdev: a number, or ``(d,)``; with what it was drawn.
        first: ``(n,)`` weights of the first sum, or None to leave it out (the result is then None).
        second: ``(n,)`` weights of the second sum, or None to leave it out.
        mirrored: it was drawn mirrored, so half of it is enough to look at (the last of an odd one stands alone).
    """
    if mirrored:
        first, second, X = _halved(first, -1.0), _halved(second, 1.0), X[0::2]
    (n, d), xp = X.shape, namespace(X)
    one = None if first is None else as_like(first, X)
    two = None if second is None else as_like(second, X)
    width = d if not on_host(X) else max(1024, 4 * CHUNK // n)
    sums: tuple[list[Any], list[Any]] = ([], [])
    for at in range(0, d, width):
        cut = slice(at, min(at + width, d))
        z: Any = X[:, cut] - center[cut]
        if one is not None:
            sums[0].append(one @ z)
        if two is not None:
            z *= z
            sums[1].append(two @ z)
    whole = [None if not parts else parts[0] if len(parts) == 1 else xp.concat(parts) for parts in sums]
    if whole[0] is not None:
        whole[0] /= stdev
    if whole[1] is not None:
        whole[1] /= stdev * stdev
    return whole[0], whole[1]


def _halved(weights: Any, sign: float) -> Any:
    """Return the weights of the first of each pair, with those of its mirror image added."""
    if weights is None:
        return None
    one: Any = np.array(to_numpy(weights)[0::2])
    two = to_numpy(weights)[1::2]
    one[: len(two)] += sign * two
    return one
