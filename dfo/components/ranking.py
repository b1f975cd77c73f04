"""From feedback to an order, for solvers that only compare."""

from __future__ import annotations

import numpy as np

from dfo.arrays import Floats
from dfo.errors import InvalidType
from dfo.feedback import Feedback, Ranking, Values

__all__ = ["merits", "spread_over_ranks"]


def merits(told: Feedback) -> Floats:
    """Return ``(n,)`` numbers whose order is the order of the members: values, or ranks; NaN not shown."""
    if isinstance(told, Values):
        return told.merit()
    if isinstance(told, Ranking):
        return np.full(len(told.rank), np.nan) if told.skipped else told.rank
    raise InvalidType(f"expected values or a ranking, got {type(told).__name__}.")


def spread_over_ranks(weights: Floats, merit: Floats) -> Floats:
    """Return ``(n,)`` member weights from weights by rank, averaging over ties.

    Args:
        weights: ``(n,)`` weight of the best, the second, ...
        merit: ``(n,)`` lower is better; NaN was not shown and gets weight 0. With ``m < n`` shown
            members the weights are stretched over their ranks, so that the best still counts most.
    """
    n, shown = len(weights), ~np.isnan(merit)
    given = np.zeros(n)
    known = merit[shown]
    if not known.size:
        return given
    ordered = np.sort(known)
    stretch = n / known.size
    low = np.searchsorted(ordered, known, side="left") * stretch  # the ranks that a group of ties covers
    high = np.searchsorted(ordered, known, side="right") * stretch
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    at = np.arange(n + 1.0)
    given[shown] = (np.interp(high, at, edges) - np.interp(low, at, edges)) / (high - low)
    total: float = np.abs(weights).sum() / max(np.abs(given).sum(), 1e-300)
    return given if known.size == n else np.asarray(given * total)
