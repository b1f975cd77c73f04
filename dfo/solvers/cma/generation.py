"""The formulae of one generation of CMA-ES: strategy parameters, weights by rank, decomposition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dfo.arrays import Floats, as_like, is_torch, namespace
from dfo.components.ranking import spread_over_ranks

__all__ = ["Generation", "Rates", "decompose", "generation", "orthogonalized", "rates"]


@dataclass(frozen=True)
class Rates:
    """Strategy parameters as functions of dimension and population (tutorial, table 1)."""

    weights: Floats  # (n,) recombination weights by rank, negative ones last
    positive: Floats  # (n,) the same with zeros for the negative ones
    losers: slice  # the members of negative weight
    total: float  # sum of the weights
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float  # E|N(0, I)|
    gap: int  # generations between eigendecompositions


@lru_cache(maxsize=256)
def rates(d: int, n: int, diagonal: bool) -> Rates:
    """Return the strategy parameters for ``d`` coordinates and a population of ``n``."""
    raw = math.log((n + 1) / 2) - np.log(np.arange(1, n + 1))  # eq. 49
    up, down = raw[raw > 0], raw[raw <= 0]
    mu_eff = up.sum() ** 2 / (up**2).sum()  # eq. 8
    mu_eff_down = down.sum() ** 2 / max((down**2).sum(), 1e-300)
    c_1 = 2.0 / ((d + 1.3) ** 2 + mu_eff)  # eq. 57
    c_mu = min(1 - c_1, 2.0 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((d + 2) ** 2 + mu_eff))  # eq. 58
    if diagonal:
        c_1, c_mu = c_1 * (d + 2) / 3, c_mu * (d + 2) / 3  # Ros and Hansen 2008
        c_1, c_mu = min(c_1, 0.5), min(c_mu, 1 - min(c_1, 0.5))
    limit = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_down / (mu_eff + 2), (1 - c_1 - c_mu) / (d * c_mu))  # eqs. 50-52
    positive = np.where(raw > 0, raw / up.sum(), 0.0)
    weights = np.where(raw > 0, positive, limit * raw / max(-down.sum(), 1e-300))  # eq. 53
    c_sigma = (mu_eff + 2) / (d + mu_eff + 5)  # eq. 55
    return Rates(
        weights, positive, slice(len(up), None), float(weights.sum()), float(mu_eff), float(c_sigma),
        float(1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (d + 1)) - 1) + c_sigma),
        float((4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)),  # eq. 56
        float(c_1), float(c_mu), math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d)),
        1 if diagonal else math.ceil(0.5 / (d * (c_1 + c_mu))),
    )  # fmt: skip


def orthogonalized(Z: Any) -> Any:
    """Return ``(..., n, d)`` normal steps made orthogonal in groups of ``d``; each keeps its law and its length."""
    xp, n, d = namespace(Z), Z.shape[-2], Z.shape[-1]
    groups = []
    for at in range(0, n, d):
        group = Z[..., at : at + d, :]
        q, r = xp.linalg.qr(xp.matrix_transpose(group))
        lengths = xp.sqrt((group * group).sum(axis=-1))
        signs = xp.sign(xp.linalg.diagonal(r))  # with them the law is exactly Haar's
        groups.append(xp.matrix_transpose(q) * (signs * lengths)[..., None])
    return groups[0] if len(groups) == 1 else xp.concat(groups, axis=-2)


class Generation(NamedTuple):
    """A generation in the order of its merits, best first."""

    rates: Rates
    Z: Any  # (n, d) the steps drawn
    weights: Any  # (n,)
    positive: Any  # (n,) the weights without the negative ones
    losers: Any  # the members of negative weight
    mu_eff: float  # effective number of parents
    total: float  # sum of the weights
    low: float  # merits: lowest, middle, highest
    median: float
    high: float


def generation(r: Rates, merit: Floats, Z: Any) -> Generation:
    """Sort a generation and give its members their weights.

    Ties share their weights. The effective number of parents grows with that, and the paths are normalised
    with it, so that under neutral selection the step size neither shrinks nor grows.
    """
    order = np.argsort(merit, kind="stable")
    ordered = merit[order]
    n, weights, positive, mu_eff, total = len(order), r.weights, r.positive, r.mu_eff, r.total
    losers: Any = r.losers
    if not (ordered[1:] > ordered[:-1]).all():  # ties, or members that were not shown
        weights = spread_over_ranks(weights, merit)[order]
        positive = spread_over_ranks(positive, merit)[order]
        losers, mu_eff, total = weights < 0, 1.0 / float(positive @ positive), float(weights.sum())
    if is_torch(Z) or Z.dtype != weights.dtype:
        weights, positive = as_like(weights, Z), as_like(positive, Z)
    shown = n - 1 - int(np.isnan(ordered).sum()) if ordered[-1] != ordered[-1] else n - 1
    middle, high = float(ordered[min(n // 2, shown)]), float(ordered[shown])
    return Generation(r, Z[order], weights, positive, losers, mu_eff, total, float(ordered[0]), middle, high)


def decompose(C: Any) -> tuple[Any, Any, Any]:
    """Return the symmetrised covariance, its symmetric root and the roots of its eigenvalues."""
    xp = namespace(C)
    C = (C + C.T) / 2
    if is_torch(C) and C.device.type == "cpu":  # torch's own is slow on small matrices when it has many threads
        values, B = (as_like(part, C) for part in np.linalg.eigh(C.numpy()))
    else:
        values, B = xp.linalg.eigh(C)
    if float(values[0]) <= 0.0:  # rounding has made it indefinite: lift it by just enough
        lift = 1e-14 * float(values[-1]) - float(values[0])
        C, values = C + lift * xp.eye(len(values), dtype=C.dtype, device=C.device), values + lift
    D = xp.sqrt(values)
    return C, (B * D) @ B.T, D
