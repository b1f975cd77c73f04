"""From the answers to a population to one weight a member: every kind of fitness shaping, in one place.

Weights are positive for better members, so that a step along ``sum_i u_i z_i`` descends. Members that
are tied share their weights, members that were not shown weigh nothing, failed ones count as the worst.

References: Salimans et al. 2017, arXiv:1703.03864 (centered ranks); Wierstra et al. 2014, JMLR 15, eq. 11
(utilities of natural evolution strategies); Hansen 2016, arXiv:1604.00772, eq. 8 (logarithmic recombination weights).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np

from dfo.arrays import Floats
from dfo.components.ranking import merits, spread_over_ranks
from dfo.feedback import Feedback, Ranking

__all__ = ["SHAPINGS", "Shaping", "by_rank", "shaped"]

Shaping = Literal["centered", "nes", "log", "standardized", "none"]
SHAPINGS: tuple[Shaping, ...] = ("centered", "nes", "log", "standardized", "none")


@lru_cache(maxsize=256)
def by_rank(kind: Shaping, n: int) -> Floats:
    """Return ``(n,)`` weights of the best, the second, ... member.

    Args:
        kind: ``"centered"``: ``1/2 - k / (n - 1)``, sum 0; ``"nes"``: ``max(0, ln(n/2 + 1) - ln(k + 1))``
            normalised to sum 1, less ``1/n``, sum 0; ``"log"``: ``max(0, ln((n + 1)/2) - ln(k + 1))``, sum 1.
        n: members.
    """
    k = np.arange(n)
    if kind == "centered":
        u = 0.5 - k / max(n - 1, 1)
    else:
        u = np.maximum(0.0, math.log(n / 2 + 1 if kind == "nes" else (n + 1) / 2) - np.log(k + 1.0))
        u = u / max(float(u.sum()), 1e-300) - (1.0 / n if kind == "nes" else 0.0)
    u.flags.writeable = False
    return u


def shaped(kind: Shaping, told: Feedback) -> Floats:
    """Return ``(n,)`` weights of the members of a batch, positive for the better ones.

    Args:
        kind: one of :func:`by_rank`; or, from values, ``"standardized"``: ``(mean f - f) / std f``, or
            ``"none"``: ``-f``. Of a ranking, the last two use the ranks as values. Failed members get the
            largest value of the others there; weights are all 0 where nothing differs.
        told: values or a ranking.
    """
    merit = merits(told)
    if kind in ("centered", "nes", "log"):
        return spread_over_ranks(by_rank(kind, len(merit)), merit)
    known = np.isfinite(merit) & (np.abs(merit) < 1e150)
    if not known.any() or (isinstance(told, Ranking) and told.skipped):
        return np.zeros(len(merit))
    f = np.where(known, merit, merit[known].max())
    if kind == "none":
        return np.where(np.isnan(merit), 0.0, -f)
    if f.max() - f.min() <= 4 * np.finfo(float).eps * np.abs(f).max():  # a mean rounds: equal values have a spread
        return np.zeros(len(f))
    return np.where(np.isnan(merit), 0.0, (f.mean() - f) / f.std())
