"""The arithmetic of comparisons, on plain arrays.

Letters in shapes: m methods, p problems, s seeds, t targets, b resamples, x budgets.

Source of the paired bootstrap: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 8, 13.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dfo.arrays import Floats
from dfo.random import Key, integers

__all__ = ["interval", "mean_ranks", "ranks", "resamples", "shares", "weighted_means"]

Integers = npt.NDArray[np.int64]


def shares(runtimes: Floats, budgets: Floats) -> Floats:
    """Return the share of (seed, target) pairs that each method has hit on each problem.

    Args:
        runtimes: ``(m, p, s, t)`` evaluations per variable at the first hit, infinite where there is none.
        budgets: ``(x,)`` evaluations per variable granted, or ``(p, 1)`` for one budget a problem.

    Returns:
        ``(m, p, x)`` shares between 0 and 1.

    Example:
        >>> shares(np.array([[[[1.0, 4.0, np.inf]]]]), np.array([1.0, 5.0]))
        array([[[0.33333333, 0.66666667]]])
    """
    m, p, s, t = runtimes.shape
    flat = np.sort(runtimes.reshape(m, p, s * t), axis=2)
    limits = np.broadcast_to(budgets, (p, budgets.shape[-1]))
    hit = np.array([[np.searchsorted(flat[i, j], limits[j], side="right") for j in range(p)] for i in range(m)])
    share: Floats = hit.reshape(m, p, -1) / (s * t)
    return share


def resamples(clusters: Integers, count: int, key: Key) -> Floats:
    """Return how often each problem is drawn when whole clusters are drawn with replacement.

    The same draw is used for all methods, so that differences between methods are paired: a resample full
    of hard problems is hard for everybody.

    Args:
        clusters: ``(p,)`` number of the cluster of each problem: problems that are drawn together, such as
            one function and instance in several dimensions.
        count: resamples.
        key: names the draw.

    Returns:
        ``(b, p)`` weights.
    """
    _, index = np.unique(clusters, return_inverse=True)
    c = int(index.max()) + 1
    drawn = integers(key, c, (count, c))
    times = np.zeros((count, c))
    np.add.at(times, (np.arange(count)[:, None], drawn), 1.0)
    return times[:, index]


def weighted_means(values: Floats, weights: Floats) -> Floats:
    """Return the mean of ``values (..., p)`` under each of ``weights (b, p)``: ``(..., b)``."""
    means: Floats = (values @ weights.T) / weights.sum(axis=1)
    return means


def interval(values: Floats, weights: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the mean of ``values (p,)`` over ``weights (b, p)``.

    NaN where there is a single cluster: one sample tells nothing about its spread.
    """
    if (weights == weights[:, :1]).all():
        return math.nan, math.nan
    low, high = np.quantile(weighted_means(values, weights), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ranks(values: Floats) -> Floats:
    """Return ``(m, p)`` ranks from 1 within each problem, lowest value first; equal values share their mean.

    Example:
        >>> ranks(np.array([[3.0], [1.0], [3.0], [np.inf]]))[:, 0]
        array([2.5, 1. , 2.5, 4. ])
    """
    below = (values[None] < values[:, None]).sum(axis=1)  # (m, p)
    equal = (values[None] == values[:, None]).sum(axis=1)
    rank: Floats = below + (equal + 1) / 2
    return rank


def mean_ranks(values: Floats) -> Floats:
    """Return ``(m,)`` ranks of ``values (m, p)`` averaged over problems."""
    mean: Floats = ranks(values).mean(axis=1)
    return mean
