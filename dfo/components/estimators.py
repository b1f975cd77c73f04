"""From function values to gradient estimates: difference schemes and scalar filters.

Every scheme ends as one number a direction: the estimate is ``g_hat = sum_j w_j u_j`` with directions
normalised to ``E[u u^T] = I``, so that it can be formed without ever building the directions.

References: Nesterov and Spokoiny 2017 (forward, gaussian); Duchi, Jordan, Wainwright and Wibisono 2015 and
Shamir 2017 (central, sphere); Flaxman, Kalai and McMahan 2005 (one-point); Zhang, Zhou, Ji and Zavlanos
2022 (residual one-point); Liu et al. 2019 (signs).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from dfo.arrays import Floats

__all__ = [
    "FILTERS",
    "SCHEMES",
    "STEEPEST",
    "Filter",
    "Scheme",
    "calls",
    "differences",
    "filtered",
    "layout",
    "weights",
]

Scheme = Literal["central", "forward", "one-point", "residual"]
SCHEMES: tuple[Scheme, ...] = ("central", "forward", "one-point", "residual")

STEEPEST = 1e150
"""Slopes at and above this are missing: their squares would overflow."""

Filter = Literal["none", "sign", "clip", "standardized"]
FILTERS: tuple[Filter, ...] = ("none", "sign", "clip", "standardized")


def calls(scheme: Scheme, q: int) -> int:
    """Return the evaluations of one estimate from ``q`` directions."""
    return {"central": 2 * q, "forward": q + 1, "one-point": q, "residual": q}[scheme]


def layout(scheme: Scheme, q: int, radius: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats]:
    """Return which direction each member of a batch takes, ``(n,)``, and its signed radius, ``(n,)``.

    Central pairs are neighbours: ``+u_0, -u_0, +u_1, ...``; the forward scheme begins with the center.
    """
    each = np.arange(q)
    if scheme == "central":
        return np.repeat(each, 2), np.tile([radius, -radius], q)
    if scheme == "forward":
        return np.concatenate([[0], each]), np.concatenate([[0.0], np.full(q, radius)])
    return each, np.full(q, radius)


def differences(scheme: Scheme, f: Floats, radius: float, previous: float = 0.0) -> Floats:
    """Return ``(q,)`` estimates of the directional derivatives; NaN where a value is missing or of no use.

    Args:
        scheme: central ``(f+ - f-) / 2 mu``; forward ``(f+ - f) / mu``; one-point ``f+ / mu``; residual
            ``(f+ - f_previous) / mu`` with the values queried one after the other.
        f: ``(n,)`` values in the order of :func:`layout`; not finite where missing.
        radius: mu.
        previous: the last value of the previous step (residual only).
    """
    f = np.where(np.isfinite(f), f, np.nan)
    with np.errstate(over="ignore"):
        slopes = _rise(scheme, f, previous) / radius
    return np.where(np.abs(slopes) < STEEPEST, slopes, np.nan)


def _rise(scheme: Scheme, f: Floats, previous: float) -> Floats:
    if scheme == "central":
        return np.asarray((f[0::2] - f[1::2]) / 2.0)
    if scheme == "forward":
        return np.asarray(f[1:] - f[0])
    if scheme == "residual":
        return np.asarray(f - np.concatenate([[previous], f[:-1]]))
    return f


def filtered(kind: Filter, slopes: Floats, limit: float) -> Floats:
    """Return the derivatives after a scalar filter; missing ones become 0.

    Args:
        kind: ``"sign"``: the sign (Liu et al. 2019); ``"clip"``: within ``+-limit``; ``"standardized"``: divided
            by the root mean square over the step's directions, so that the step no longer depends on the
            scale of f (with one direction it is the sign).
        slopes: ``(q,)``, NaN where missing.
        limit: for ``"clip"``.
    """
    known = np.nan_to_num(slopes, nan=0.0)
    if kind == "sign":
        return np.sign(known)
    if kind == "clip":
        return np.clip(known, -limit, limit)
    if kind == "standardized":
        count = max(int(np.isfinite(slopes).sum()), 1)
        return known / max(float(np.sqrt((known**2).sum() / count)), 1e-300)
    return known


def weights(slopes: Floats, usable: Floats) -> Floats:
    """Return ``(q,)`` weights ``w`` with ``g_hat = sum_j w_j u_j``: the mean over the usable directions."""
    count = max(int(np.isfinite(usable).sum()), 1)
    return slopes / count
