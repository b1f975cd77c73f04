"""Safe mutation by rescaling (SM-R): noise is scaled until a network's outputs change by a given amount.

Two mutations of the same length may change what a network does a thousandfold differently. SM-R measures the change
of the outputs on stored inputs by forward passes and searches along the line for the scale at which it hits a target
(Lehman, Chen, Clune and Stanley 2018, "Safe mutations for deep and recurrent neural networks through output
gradients", arXiv:1712.06563, section 4.1; the gradient form of that paper needs derivatives and is left out).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, Point, copy, to_numpy
from dfo.directions import Directions

__all__ = ["divergence", "rescaled"]

REACH = 2.0**10
"""A scale is changed by at most this factor."""


def divergence(before: Array, after: Array) -> float:
    """Return the root mean square of the change of outputs; infinite where one is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.asarray(to_numpy(after), dtype=float) - np.asarray(to_numpy(before), dtype=float)
        size = float(np.sqrt((apart * apart).mean()))
    return size if math.isfinite(size) else math.inf


def rescaled(
    outputs: Callable[[Any], Array],
    centers: Sequence[Point],
    noise: Directions,
    origin: Any,
    scale: Floats,
    change: float,
    passes: int = 12,
) -> Floats:
    """Return ``(n,)`` scales at which each member's outputs differ by ``change`` from those of its center.

    Doubling or halving brackets the target, bisection of the logarithm follows; where the outputs do not change
    at all, the scale ends ``REACH`` times larger. One member is built at a time.

    Args:
        outputs: what a point answers on stored inputs; a pure function of the point.
        centers: the centers.
        noise: direction ``i`` belongs to member ``i``.
        origin: ``(n,)`` center of each member.
        scale: ``(n,)`` positive scales to begin with.
        change: root mean square of the change wanted.
        passes: most evaluations of ``outputs`` for one member.
    """
    before = {int(j): outputs(copy(centers[int(j)])) for j in set(np.asarray(origin).tolist())}

    def one(i: int, first: float) -> float:
        center, there = centers[int(origin[i])], before[int(origin[i])]

        def too_far(factor: float) -> bool:
            return divergence(there, outputs(noise.add_member(copy(center), i, first * factor))) > change

        low, high, left = _bracket(too_far, passes)
        for _ in range(left):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if too_far(middle) else (middle, high)
        return first * math.sqrt(low * high)

    return np.array([one(i, float(first)) for i, first in enumerate(scale)])


def _bracket(too_far: Callable[[float], bool], passes: int) -> tuple[float, float, int]:
    """Return factors between which the target lies, and the passes left."""
    factor, left, over = 1.0, passes - 1, too_far(1.0)
    step = 0.5 if over else 2.0
    while left and 1 / REACH < factor < REACH:
        following = factor * step
        left -= 1
        if too_far(following) != over:
            return min(factor, following), max(factor, following), left
        factor = following
    return factor, factor, 0
