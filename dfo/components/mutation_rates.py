"""Mutation rates that adapt themselves: inherited with the individual, or chosen by groups.

References: Clune et al. 2008, "Natural selection fails to optimize mutation rates for long-term adaptation on rugged
fitness landscapes" (SAMR, and that it shrinks rates too far); Kumar et al. 2022, "Effective mutation rate adaptation
through group elite selection", GECCO 2022, arXiv:2204.04817 (GESMR: a rate is judged by the best of its children,
not by all of them, which are mostly worse than their parents).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dfo.arrays import Floats
from dfo.random import Key, integers, uniform

__all__ = ["LARGEST", "SMALLEST", "group_elites", "group_scores", "inherited"]

Ints = npt.NDArray[np.int64]

SMALLEST, LARGEST = 1e-100, 1e100
"""Bounds of every rate."""


def inherited(key: Key, rates: Floats, tau: float) -> Floats:
    """Return ``(n,)`` rates of children: those of their parents times ``tau ** U(-1, 1)``."""
    return np.clip(rates * tau ** (2.0 * uniform(key, rates.shape) - 1.0), SMALLEST, LARGEST)


def group_scores(group: Ints, gain: Floats, count: int) -> Floats:
    """Return ``(count,)`` scores of the groups: the largest gain of a member, ``-inf`` where none is known.

    Args:
        group: ``(n,)`` group of each child.
        gain: ``(n,)`` improvement of each child over its parent (larger is better); NaN where it is not known.
        count: number of groups.
    """
    scores = np.full(count, -np.inf)
    known = ~np.isnan(gain)
    np.maximum.at(scores, group[known], gain[known])
    return scores


def group_elites(key: Key, rates: Floats, scores: Floats, tau: float, share: float = 0.5) -> Floats:
    """Return ``(k,)`` rates of the next generation: the best as it is, the others drawn from the best and changed.

    Args:
        key: the stream.
        rates: ``(k,)``.
        scores: ``(k,)`` as :func:`group_scores` gives them.
        tau: a drawn rate is multiplied by ``tau ** U(-1, 1)``.
        share: of the rates, from which the next ones are drawn.
    """
    if not (scores > -np.inf).any():
        return rates
    best = np.argsort(-scores, kind="stable")
    chosen = rates[best[integers(key.child("drawn"), max(1, round(share * len(rates))), (len(rates),))]]
    after = inherited(key.child("changed"), chosen, tau)
    after[0] = rates[best[0]]
    return after
