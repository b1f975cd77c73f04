"""Populations of particles: their first places, the rows that a step moves, and their consensus points."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, namespace
from dfo.random import Key
from dfo.sets import is_convex
from dfo.solvers.cbo.dynamics import fold, kick
from dfo.solvers.cbo.weights import consensus_weights
from dfo.spaces import Box, Space

__all__ = ["IN_PLACE", "at", "owned", "part", "polarised", "put", "scattered"]

IN_PLACE = 1 << 20
"""Numbers from which on a population is moved where it lies; smaller ones are copied: a batch stays readable."""


def scattered(space: Space | None, x0: Array, size: float, key: Key, n: int) -> Array:
    """Return ``(n, d)`` first particles: uniform between bounds, normal around ``x0`` where there are none."""
    if is_convex(space):
        return as_like(space.sample(key, n), x0)
    if not isinstance(space, Box):
        return _around(x0, size, key, n)
    inside = as_like(space.sample(key.child("inside"), n), x0)
    if space.bounded.all():
        return inside
    around: Any = _around(x0, size, key, n)
    fold(space, around)
    bounded: Any = as_like(space.bounded.astype(float), x0)
    mixed: Array = namespace(x0).where(bounded > 0, inside, around)
    return mixed


def _around(x0: Array, size: float, key: Key, n: int) -> Array:
    X: Array = namespace(x0).zeros((n, x0.shape[0]), dtype=x0.dtype, device=x0.device) + x0
    kick(X, size, key)
    return X


def polarised(points: Any, E: Floats, alpha: float, kappa: float, X: Any) -> Any:
    """Return ``(m, d)`` consensus points of the rows of ``X``: weights ``exp(-|x - x_j|^2 / (2 kappa^2) - alpha E_j)``.

    Reference: Bungert, Roith and Wacker 2022, arXiv:2211.05238.
    """
    xp, origin = namespace(points), points.mean(axis=0)
    A, B = X - origin, points - origin
    squares = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1)[None, :] - 2.0 * (A @ B.T)
    with np.errstate(divide="ignore"):
        log_w = as_like(np.maximum(np.log(consensus_weights(E, alpha)), -1e4), points)
    exponent = log_w[None, :] - xp.clip(squares, 0.0, None) / (2.0 * kappa * kappa)
    P = xp.exp(exponent - xp.max(exponent, axis=1)[:, None])
    return (P / P.sum(axis=1)[:, None]) @ points


def owned(X: Any) -> Any:
    """Return ``X`` itself where it is large, else a copy."""
    return X if X.shape[0] * X.shape[1] >= IN_PLACE else copy(X)


def _index(X: Any, rows: Any) -> Any:
    return rows if isinstance(X, np.ndarray) or isinstance(rows, slice) else namespace(X).asarray(rows, device=X.device)


def at(X: Any, rows: Any) -> Any:
    """Return the rows of ``X`` with these indices, None for all of them."""
    return X if rows is None else X[_index(X, rows)]


def part(X: Any, rows: Any) -> Any:
    """Return rows that may be written to: copies, or all of a large ``X`` itself; None for None."""
    if X is None:
        return None
    return owned(X) if rows is None else at(X, rows)


def put(X: Any, values: Any, rows: Any) -> Any:
    """Write rows of ``X`` and return it; None writes nothing and returns the values."""
    if rows is None:
        return values
    X[_index(X, rows)] = values
    return X
