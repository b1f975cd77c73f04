"""Novelty: how far a behaviour lies from those seen before.

Reference: Lehman and Stanley 2011, "Abandoning objectives: evolution through the search for novelty alone", Evol.
Comput. 19, eq. 1: ``N(b) = 1/k sum_i |b - mu_i|`` over the ``k`` nearest behaviours of archive and population.
"""

from __future__ import annotations

import numpy as np

from dfo.arrays import Floats

__all__ = ["known_rows", "novelty"]


def known_rows(behaviour: object, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return ``(n,)`` true where a behaviour is known: finite, and told at all."""
    if behaviour is None:
        return np.zeros(n, bool)
    rows = np.asarray(behaviour, dtype=float).reshape(n, -1)
    known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = np.isfinite(rows).all(axis=1) & (rows.shape[1] > 0)
    return known


def novelty(behaviour: Floats, others: Floats, k: int = 10, itself: bool = False) -> Floats:
    """Return ``(n,)`` mean distances to the ``k`` nearest behaviours; to all where there are fewer, 0 where none.

    Args:
        behaviour: ``(n, b)`` finite.
        others: ``(m, b)`` archive, and population where that counts.
        k: neighbours.
        itself: whether the rows of ``behaviour`` stand in ``others`` too; a row is then no neighbour of its own.
    """
    m = len(others) - itself
    if m < 1 or not len(behaviour):
        return np.zeros(len(behaviour))
    from scipy.spatial import cKDTree

    near = min(k, m) + itself
    distance = np.asarray(cKDTree(others).query(behaviour, k=list(range(1, near + 1)))[0], dtype=float)
    return np.asarray(distance[:, 1:].mean(axis=1) if itself else distance.mean(axis=1), dtype=float)
