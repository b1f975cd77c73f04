"""From feedback to an order, for solvers that only compare."""

from __future__ import annotations

import numpy as np

from dfo.arrays import Floats
from dfo.errors import InvalidType
from dfo.feedback import Feedback, Ranking, Values

__all__ = ["edge_weights", "merits", "spread_over_ranks"]


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
    n, order = len(weights), np.argsort(merit, kind="stable")
    ranked, given = merit[order], np.zeros(len(weights))
    if (ranked[1:] > ranked[:-1]).all() and not np.isnan(ranked[-1:]).any():  # nobody is tied, everybody was shown
        given[order] = weights
        return given
    shown = ~np.isnan(merit)
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
    given[np.abs(given) < 1e-12 * np.abs(weights).max()] = 0.0  # rounding is no preference
    total: float = np.abs(weights).sum() / max(np.abs(given).sum(), 1e-300)
    return given if known.size == n else np.asarray(given * total)


def edge_weights(merit: Floats) -> tuple[Floats, int]:
    """Return how many members each one beats less by how many it is beaten, ``(n,)``, and the number of such pairs.

    The pairs are the edges of the directed graph that a ranking is (Tang, Rybin and Chang 2024): ``sum over edges
    (i -> j) of z_i - z_j  =  sum_i w_i z_i``. Of ``m`` members of which the best ``k`` are in order, the one of
    rank r weighs ``m - 1 - 2 r``, the others ``-k``, and there are ``k m - (k^2 + k) / 2`` edges; weights sum to 0.

    Args:
        merit: ``(n,)`` lower is better; equal numbers have no edge between them, NaN was not shown and has none.

    Example:
        >>> edge_weights(np.array([0.0, 1.0, 2.0, 2.0]))
        (array([ 3.,  1., -2., -2.]), 5)
    """
    shown = ~np.isnan(merit)
    known = merit[shown]
    ordered = np.sort(known)
    beaten_by = np.searchsorted(ordered, known, side="left")
    beats = known.size - np.searchsorted(ordered, known, side="right")
    w = np.zeros(len(merit))
    w[shown] = beats - beaten_by
    return w, int(beats.sum())
