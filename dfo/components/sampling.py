"""A gaussian population as one dense array, and the weighted sums that strategies take over it.

Row ``i`` of a population occupies words ``i d .. (i + 1) d`` of its key's stream, so any slice of any
member can be drawn alone. Sums over the population are taken from its points: ``z = (x - center) /
stdev`` up to rounding, so that no second array of the size of the population is kept.
"""

from __future__ import annotations

from typing import Any

from dfo.arrays import Array, as_like, namespace
from dfo.random import Key, normal

__all__ = ["cloud", "moments"]


def cloud(center: Array, stdev: Array | float, key: Key, n: int, mirrored: bool = False) -> Array:
    """Return ``(n, d)`` points ``center + stdev * z`` with standard normal ``z``.

    Args:
        center: ``(d,)``; its library, dtype and device are those of the result.
        stdev: a number, or ``(d,)``.
        key: the stream.
        n: points; even when ``mirrored``.
        mirrored: points ``2j`` and ``2j + 1`` are ``center + stdev * z_j`` and ``center - stdev * z_j``.
    """
    xp, middle, spread = namespace(center), as_like(center, center), stdev
    z: Any = normal(key, (n // 2 if mirrored else n, middle.shape[0]), middle)
    if mirrored:
        z = xp.reshape(xp.stack([z, -z], axis=1), (n, middle.shape[0]))
    points: Array = middle + spread * z
    return points


def moments(
    X: Array, center: Array, stdev: Array | float, first: Array | None = None, second: Array | None = None
) -> tuple[Any, Any]:
    """Return ``(sum_i first_i z_i, sum_i second_i z_i^2)`` with ``z_i = (X_i - center) / stdev``, each ``(d,)``.

    Args:
        X: ``(n, d)`` a population.
        center: ``(d,)`` where it was drawn.
        stdev: a number, or ``(d,)``; with what it was drawn.
        first: ``(n,)`` weights of the first sum, or None to leave it out (the result is then None).
        second: ``(n,)`` weights of the second sum, or None to leave it out.
    """
    z: Any = (X - center) / stdev
    one = None if first is None else as_like(first, X) @ z
    two = None if second is None else as_like(second, X) @ (z * z)
    return one, two
