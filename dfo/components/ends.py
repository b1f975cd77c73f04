"""When a run of a strategy has converged or stands still, judged by the values of recent generations.

Reference: Hansen 2009, "Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed", section 3.
"""

from __future__ import annotations

import math

import numpy as np

from dfo.arrays import Floats

__all__ = ["no_progress", "patience", "window"]


def no_progress(recent: Floats, age: int, d: int, population: int) -> str:
    """Return why the record of lowest and median merits says that a run stands still, or an empty string."""
    lows = recent[0, -window(d, population) :]
    if lows[0] == lows.min() == lows.max():
        return "the lowest values of recent generations are equal"
    wait = min(max(patience(d, population), age // 10), recent.shape[1] - 20)
    before = recent[:, -20 - wait : -wait]  # medians of twenty generations, now and a while ago
    if age > 2 * wait + 20 and bool((np.median(recent[:, -20:], axis=1) >= np.median(before, axis=1)).all()):
        return f"no progress for {wait} generations"
    return ""


def window(d: int, population: int) -> int:
    """Return over how many generations equal values mean convergence."""
    return min(10 + math.ceil(30 * d / population), 2000)


def patience(d: int, population: int) -> int:
    """Return how many generations without progress end a run; the tenth of its age if that is more."""
    return min(10 + math.ceil(10 * d * math.sqrt(d) / population), 2000)
