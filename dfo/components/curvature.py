"""A first step size for descent on estimated gradients, from one batch of values around the start."""

from __future__ import annotations

import math

import numpy as np

from dfo.arrays import Floats

__all__ = ["first_step"]


def first_step(f: Floats, radius: float, d: int, q: int) -> float | None:
    """Return a step size for gradients estimated from ``q`` directions, or None where the values tell nothing.

    The curvature ``T = E u^T H u`` is an unbiased estimate of the trace of the Hessian, and the step is ``q / (T +
    (q + 1) L)`` with ``L = max u^T H u / sqrt(d)``: on ``L``-isotropic quadratics this is the ``q / (L (q + d + 1))``
    of Nesterov and Spokoiny 2017 up to the square root. Where there is no curvature, the first step has length
    ``sqrt(d) / 10`` at most.

    Args:
        f: ``(2 m + 1,)`` values at the center and at ``m`` central pairs around it; NaN where missing.
        radius: length of the unit of a direction.
        d: dimension.
        q: directions per gradient estimate.
    """
    center, pairs = f[0], f[1:].reshape(-1, 2)
    good = np.isfinite(pairs).all(axis=1)
    if not math.isfinite(center) or not good.any():
        return None
    pairs = pairs[good]
    with np.errstate(over="ignore", invalid="ignore"):  # values near the largest number: the bound decides
        bend = np.nan_to_num(np.abs(pairs.sum(axis=1) - 2 * center) / radius**2, nan=np.inf)  # |u^T H u|
        usual = bend <= 1e3 * np.median(bend)  # one wild value must not freeze the run
        bend, pairs = bend[usual], pairs[usual]
        noise = 16 * np.finfo(float).eps * (abs(center) + np.abs(pairs).max()) / radius**2
        slope = float(np.sqrt((((pairs[:, 0] - pairs[:, 1]) / (2 * radius)) ** 2).mean()))  # ~ |g|
        trace = float(bend.mean())
        curved = trace + (q + 1) * float(bend.max()) / math.sqrt(d)
    longest = 0.1 * math.sqrt(d) / max(slope * math.sqrt(1 + d / q), 1e-300)
    return min(q / curved, longest) if trace > noise else longest
