"""From function values to gradient estimates: difference schemes and scalar filters.

Every scheme ends as one number a direction: the estimate is ``g_hat = sum_j w_j u_j`` with directions
normalised to ``E[u u^T] = I``, so that it can be formed without ever building the directions.

References: Nesterov and Spokoiny 2017 (forward, gaussian); Duchi, Jordan, Wainwright and Wibisono 2015 and
Shamir 2017 (central, sphere); Flaxman, Kalai and McMahan 2005 (one-point); Zhang, Zhou, Ji and Zavlanos
2022 (residual one-point); Liu et al. 2019 (signs).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from dfo.arrays import Array, Floats, Point, is_blocks, namespace
from dfo.directions import Directions
from dfo.errors import InvalidType
from dfo.feedback import Feedback, Values

__all__ = [
    "FILTERS",
    "SCHEMES",
    "STEEPEST",
    "Filter",
    "Scheme",
    "calls",
    "default_radius",
    "differences",
    "filtered",
    "gradient",
    "layout",
    "usable",
    "weights",
]

Scheme = Literal["central", "forward", "one-point", "residual"]
SCHEMES: tuple[Scheme, ...] = ("central", "forward", "one-point", "residual")

STEEPEST = 1e150
"""Slopes at and above this are missing: their squares would overflow."""

Filter = Literal["none", "sign", "clip", "standardized"]
FILTERS: tuple[Filter, ...] = ("none", "sign", "clip", "standardized")


def default_radius(x: Point) -> float:
    """Return a smoothing for values without noise: 1e-4 in double, 1e-2 in single precision and below."""
    first: Any = next(iter(x.values())) if is_blocks(x) else x
    return 1e-4 if namespace(first).finfo(first.dtype).eps < 1e-12 else 1e-2


def usable(told: Feedback) -> Floats:
    """Return ``(n,)`` values; NaN where one is missing, or so large that its square would overflow.

    Raises:
        InvalidType: the answer holds no values.
    """
    if not isinstance(told, Values):
        raise InvalidType(f"expected values, got {type(told).__name__}.")
    return np.where(told.valid & (np.abs(told.f) < STEEPEST), told.f, np.nan)


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


def gradient(drawn: Directions, slopes: Floats, kind: Filter = "none", limit: float = 1.0) -> Array | None:
    """Return the estimate ``sum_j w_j u_j`` from ``(q,)`` derivatives, ``(d,)``, or None where none is of use.

    Derivatives whose square is too large for the type of the points are missing.
    """
    like: Any = drawn.like
    with np.errstate(invalid="ignore"):
        fits = np.abs(slopes) < 1e-3 * math.sqrt(float(namespace(like).finfo(like.dtype).max) / like.shape[-1])
    if not fits.any():
        return None
    kept = np.where(fits, slopes, np.nan)
    combined: Any = drawn.combine(weights(filtered(kind, kept, limit), kept))
    g: Array = combined
    return g
