"""Search without walls in a box: a smooth map from R^d onto it, and steps that survive rounding.

The map is the identity in the interior, quadratic within a margin of each bound and mirrored beyond it,
so that a minimum on a bound is a smooth minimum of the mapped function (as in Hansen's pycma,
``BoxConstraintsLinQuadTransformation``; the margins here are the same on both sides).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_blocks, namespace
from dfo.batch import Batch, Linear, Points
from dfo.spaces import Box, Free, Space

__all__ = ["MARGIN", "into_box", "nearest", "onto_line", "step_floor", "within_box"]

MARGIN = 0.05
"""Width of the quadratic zone at each bound, as a share of the width of the box."""


def into_box(space: Space | None, g: Array) -> Array:
    """Return the points of the box at the free coordinates ``g``, ``(n, d)`` or ``(d,)``."""
    if not isinstance(space, Box):
        return g
    xp = namespace(g)
    if not space.bounded.all():
        return _partly(space, g)
    lower, upper = as_like(space.lower, g), as_like(space.upper, g)
    width = upper - lower
    a = MARGIN * width
    low = g - (lower - a)
    inside = bool(((low >= 2.0 * a) & (low <= width)).all())
    if inside:  # the common case: nothing near a bound
        return g
    period = width + 2.0 * a  # from the turning point lower - a to upper + a
    safe = xp.where(period > 0, period, 1.0)
    t = xp.abs(low) % (2.0 * safe)
    t = xp.where(t > period, 2.0 * period - t, t)  # mirrored beyond the turning points
    four = xp.where(a > 0, 4.0 * a, 1.0)
    x = xp.where(t < 2.0 * a, lower + t * t / four, lower - a + t)
    back = period - t
    x = xp.where(back < 2.0 * a, upper - back * back / four, x)
    result: Array = xp.clip(x, lower, upper)
    return result


def _partly(space: Box, g: Array) -> Array:
    """Map a box some of whose bounds are infinite: reflect at single bounds, map bounded coordinates."""
    bounded = space.bounded
    full = Box(np.where(bounded, space.lower, -1.0), np.where(bounded, space.upper, 1.0))
    xp = namespace(g)
    mapped = into_box(full, g)
    lower, upper = as_like(space.lower, g), as_like(space.upper, g)
    one_sided = xp.where(g < lower, 2.0 * lower - g, xp.where(g > upper, 2.0 * upper - g, g))
    flags: Any = as_like(bounded.astype(float), g)
    result: Array = xp.clip(xp.where(flags > 0, mapped, one_sided), lower, upper)
    return result


def onto_line(space: Space | None, x: Array) -> Array:
    """Return free coordinates that :func:`into_box` maps to ``x``, ``(d,)``."""
    if not isinstance(space, Box):
        return x
    xp = namespace(x)
    bounded = space.bounded
    lower = as_like(np.where(bounded, space.lower, -1.0), x)
    upper = as_like(np.where(bounded, space.upper, 1.0), x)
    a = MARGIN * (upper - lower)
    below, above = xp.clip(x - lower, 0.0, None), xp.clip(upper - x, 0.0, None)
    g = xp.where(below < a, lower - a + 2.0 * xp.sqrt(a * below), x)
    g = xp.where(above < a, upper + a - 2.0 * xp.sqrt(a * above), g)
    flags: Any = as_like(bounded.astype(float), x)
    result: Array = xp.where(flags > 0, g, x)
    return result


def nearest(space: Space | None, x: Any) -> Any:
    """Return the nearest points of a space, ``(d,)`` or ``(n, d)`` like ``x``; ``x`` itself where all is free."""
    if space is None or isinstance(space, Free) or is_blocks(x):
        return x
    return as_like(space.project(x), x)


def within_box(space: Space | None, batch: Linear) -> Batch:
    """Return a batch of queries around iterates with its points projected into a box, and unchanged elsewhere.

    A user's bounds are hard; around the points of another convex set, queries may lie outside.
    """
    if not isinstance(space, Box):
        return batch
    return Points(nearest(space, batch.dense()), step=batch.step, data=batch.data)


def step_floor(space: Space | None, population: int) -> Floats | None:
    """Return ``(d,)`` smallest standard deviations that still leave a cell now and then; None without cells.

    A coordinate on which the objective is constant within cells of width ``c`` keeps a probability of at
    least ``1 / (d population)`` of leaving the cell from its middle (Hamano, Saito, Nomura and Shirakawa
    2022, arXiv:2205.13482, the margin of CMA-ES with margin).
    """
    if not isinstance(space, Box) or not space.cells.any():
        return None
    tail = 0.5 / (space.dim * population)
    return np.where(space.cells > 0, 0.5 * space.cells / _normal_quantile(tail), 0.0)


def _normal_quantile(tail: float) -> float:
    """Return q with P(Z > q) = tail, by bisection on the complementary error function."""
    from math import erfc, sqrt

    low, high = 0.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * erfc(middle / sqrt(2.0)) > tail else (low, middle)
    return low
