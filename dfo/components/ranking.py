"""From feedback to an order, for solvers that only compare."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dfo.arrays import Floats
from dfo.errors import InvalidType
from dfo.feedback import Feedback, Ranking, Values, average_ranks

__all__ = ["merits", "order_of", "spread_over_ranks"]


def merits(told: Feedback) -> Floats:
    """Return ``(n,)`` numbers whose order is the order of the members: values, or ranks; NaN not shown."""
    if isinstance(told, Values):
        return told.merit()
    if isinstance(told, Ranking):
        return np.full(len(told.rank), np.nan) if told.skipped else told.rank
    raise InvalidType(f"expected values or a ranking, got {type(told).__name__}.")


def order_of(merit: Floats) -> npt.NDArray[np.int64]:
    """Return the members best first; NaN (not shown) comes last."""
    return np.argsort(merit, kind="stable")


def spread_over_ranks(weights: Floats, merit: Floats) -> Floats:
    """Return ``(n,)`` member weights from weights by rank, averaging over ties.

    Args:
        weights: ``(n,)`` weight of the best, the second, ...
        merit: ``(n,)`` lower is better; NaN was not shown and gets weight 0. With ``m < n`` shown
            members the weights are stretched over their ranks, so that the best still counts most.
    """
    n = len(weights)
    ranks = average_ranks(merit)
    shown = ~np.isnan(ranks)
    m = int(shown.sum())
    given = np.zeros(n)
    if m == 0:
        return given
    place = ranks[shown] if m == n else (ranks[shown] + 0.5) * n / m - 0.5
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    if m == n and not np.any(place % 1.0):
        given[shown] = weights[place.astype(np.int64)]
        return given
    ordered = merit[shown]
    low = np.array([np.sum(ordered < v) for v in ordered]) * n / m
    high = np.array([np.sum(ordered <= v) for v in ordered]) * n / m
    at = np.arange(n + 1.0)
    given[shown] = (np.interp(high, at, edges) - np.interp(low, at, edges)) / np.maximum(high - low, 1e-300)
    total: float = np.abs(weights).sum() / max(np.abs(given).sum(), 1e-300)
    return np.asarray(given * total)
