"""Polytopes given by vertices or by inequalities, and the doubly stochastic matrices.

Their oracles and projections work in double precision on the host; scipy is loaded when they are used.

References: Lawson and Hanson 1974, "Solving least squares problems", ch. 23 (least-distance programming by
nonnegative least squares); Birkhoff 1946.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, as_like, namespace, to_numpy
from dfo.errors import InvalidArgument
from dfo.random import Key, integers
from dfo.sets.convex import Convex, dirichlet, floating

__all__ = ["Birkhoff", "Polytope"]


def _rowwise(x: Any, function: Any) -> Any:
    """Apply a function of one ``(d,)`` point in double precision to each, and answer in the type of ``x``."""
    x = floating(x)
    rows = np.atleast_2d(np.asarray(to_numpy(x), dtype=float))
    return as_like(np.stack([function(row) for row in rows]).reshape(tuple(x.shape)), x)


def _matrix(name: str, value: Any, rows: int | None = None, dim: int | None = None) -> Floats:
    array = np.atleast_2d(np.asarray(value, dtype=float))
    if array.ndim != 2 or not np.isfinite(array).all() or (dim is not None and array.shape[1] != dim):
        wanted = "" if dim is None else f" with {dim} columns"
        raise InvalidArgument(f"{name}: expected a finite matrix{wanted}, got shape {array.shape}.")
    if rows is not None and array.shape[0] != rows:
        raise InvalidArgument(f"{name}: expected {rows} rows, one per right-hand side, got {array.shape[0]}.")
    return array


@dataclass(frozen=True, eq=False)
class Polytope(Convex):
    """The hull of points, or a bounded set given by linear inequalities and equations.

    Args:
        vertices: ``(m, d)`` points; then nothing else is given.
        A_ub: ``(k, d)``, with ``A_ub x <= b_ub``.
        b_ub: ``(k,)``.
        A_eq: ``(l, d)``, with ``A_eq x = b_eq``.
        b_eq: ``(l,)``.

    Raises:
        InvalidArgument: shapes that do not fit, or a set that is empty or unbounded.

    Example:
        >>> import dfo
        >>> triangle = dfo.Polytope(A_ub=[[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], b_ub=[1.0, 0.0, 0.0])
        >>> triangle.lmo([1.0, -1.0])
        array([0., 1.])
    """

    vertices: Any = None
    A_ub: Any = None
    b_ub: Any = None
    A_eq: Any = None
    b_eq: Any = None
    _rows: tuple[Floats, Floats, Floats, Floats] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sides = [self.A_ub, self.b_ub, self.A_eq, self.b_eq]
        if (self.vertices is None) == (self.A_ub is None and self.A_eq is None):
            raise InvalidArgument("Polytope: expected either vertices, or inequalities A_ub, b_ub (and A_eq, b_eq).")
        if self.vertices is not None:
            if any(side is not None for side in sides):
                raise InvalidArgument("Polytope: expected either vertices or inequalities, got both.")
            points = _matrix("vertices", self.vertices)
            object.__setattr__(self, "vertices", points)
            nothing = np.zeros((0, points.shape[1]))
            object.__setattr__(self, "_rows", (nothing, np.zeros(0), nothing, np.zeros(0)))
            return
        d = np.atleast_2d(np.asarray(self.A_ub if self.A_ub is not None else self.A_eq, dtype=float)).shape[1]
        rows: list[Floats] = []
        for name, A, b in (("A_ub", self.A_ub, self.b_ub), ("A_eq", self.A_eq, self.b_eq)):
            right = np.zeros(0) if b is None else np.atleast_1d(np.asarray(b, dtype=float))
            rows += [np.zeros((0, d)) if A is None else _matrix(name, A, len(right), d), right]
        object.__setattr__(self, "_rows", tuple(rows))
        _ = self._ends  # refuses what is empty or unbounded before anything is spent

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int((self._rows[0] if self.vertices is None else self.vertices).shape[1])

    @cached_property
    def _ends(self) -> Floats:
        """The lowest and the highest point in each coordinate (the vertices, where they are given)."""
        if self.vertices is not None:
            found: Floats = self.vertices
            return found
        axes = np.concatenate([np.eye(self.dim), -np.eye(self.dim)])
        return np.stack([self._lowest(row) for row in axes])

    @cached_property
    def size(self) -> float:
        """The largest coordinate of a point, at least a rounding of 1."""
        return max(float(np.abs(self._ends).max()), 1e-9)

    @cached_property
    def center(self) -> Array:
        """The mean of the vertices, or of the points that are lowest and highest in each coordinate."""
        return np.asarray(self._ends.mean(axis=0))

    def _lowest(self, s: Floats) -> Floats:
        if self.vertices is not None:
            return np.asarray(self.vertices[int(np.argmin(self.vertices @ s))], dtype=float)
        from scipy.optimize import linprog

        A, b, E, e = self._rows
        top = float(np.abs(s).max()) or 1.0
        ended = linprog(s / top, A, b, E, e, bounds=(None, None), method="highs")
        if ended.x is None:
            raise InvalidArgument(f"Polytope: expected a set that is not empty and bounded; HiGHS: {ended.message}")
        return np.asarray(ended.x, dtype=float)

    def lmo(self, s: Any) -> Array:
        """Return the vertex with the lowest ``<s, v>``: by comparison, or by a linear program."""
        if self.vertices is not None:
            slopes = floating(s)
            return as_like(self.vertices[np.argmin(np.asarray(to_numpy(slopes)) @ self.vertices.T, axis=-1)], slopes)
        v: Array = _rowwise(s, self._lowest) + 0.0  # no negative zeros
        return v

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points: random mixtures of four vertices, or of four ends in a coordinate (not uniform)."""
        picked = self._ends[integers(key.child("ends"), len(self._ends), (n, 4))]
        return np.asarray(np.einsum("nk,nkd->nd", dirichlet(key.child("weights"), n, 4), picked))

    def _nearest(self, x: Floats) -> Floats:
        from scipy.optimize import nnls

        if self.vertices is not None:  # min |P u| over the simplex: nnls of [P; 1] against [0; 1], scaled to sum 1
            P = (self.vertices - x).T
            P = P / max(float(np.abs(P).max()), 1e-300)
            u, _ = nnls(np.vstack([P, np.ones(P.shape[1])]), np.append(np.zeros(self.dim), 1.0))
            return np.asarray((u / u.sum()) @ self.vertices)
        A, b, E, e = self._rows
        G, h = np.vstack([-A, E, -E]), np.concatenate([A @ x - b, e - E @ x, E @ x - e])  # G z >= h, z = y - x
        lengths = np.sqrt((G * G).sum(axis=1))
        G, h = G / lengths[:, None], h / lengths
        far = max(float(h.max(initial=0.0)), 1e-300)
        u, _ = nnls(np.vstack([G.T, h / far]), np.append(np.zeros(self.dim), 1.0))
        r = np.append(G.T @ u, float(h @ u) / far - 1.0)
        return np.asarray(x - far * r[:-1] / r[-1])

    def project(self, x: Any) -> Array:
        """Return the nearest point, a quadratic program solved by nonnegative least squares."""
        nearest: Array = _rowwise(x, lambda row: row if self._off(row) <= 0.0 else self._nearest(row))
        return nearest

    def _off(self, x: Floats) -> float:
        if self.vertices is not None:
            return float(np.abs(self._nearest(x) - x).max())
        A, b, E, e = self._rows
        return max(float((A @ x - b).max(initial=-np.inf)), float(np.abs(E @ x - e).max(initial=-np.inf)))

    @cached_property
    def _flat(self) -> Floats:
        """``(d, k)`` orthonormal directions in which the set does not extend, as far as equations say."""
        _, values, V = np.linalg.svd(self._rows[2], full_matrices=False)
        return np.asarray(V[values > 1e-12 * max(values.max(initial=0.0), 1.0)].T)

    def tangent(self, z: Any) -> Any:
        """Return directions along which ``A_eq x`` stays as it is."""
        z = floating(z)
        flat: Any = as_like(self._flat, z)
        return z - (z @ flat) @ flat.T

    def excess(self, x: Any) -> Any:
        """Return the largest violation of a row, or the distance from the hull."""
        off = np.array([self._off(row) for row in np.atleast_2d(np.asarray(to_numpy(x), dtype=float))])
        return off if x.ndim == 2 else float(off[0])

    def __repr__(self) -> str:
        if self.vertices is not None:
            return f"<Polytope of {len(self.vertices)} vertices in {self.dim} variables>"
        rows = f"{len(self._rows[1])} inequalities and {len(self._rows[3])} equations"
        return f"<Polytope of {rows} in {self.dim} variables>"


@dataclass(frozen=True)
class Birkhoff(Convex):
    """Doubly stochastic ``side x side`` matrices: mixtures of permutations, row by row.

    Args:
        side: of the matrices.

    Example:
        >>> import dfo
        >>> dfo.Birkhoff(2).lmo([1.0, 0.0, 0.0, 1.0])
        array([0., 1., 1., 0.])
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InvalidArgument(f"side: expected at least 1, got {self.side}.")

    @property
    def dim(self) -> int:
        """Number of entries."""
        return self.side * self.side

    @property
    def center(self) -> Array:
        """Equal entries."""
        return np.full(self.dim, 1.0 / self.side)

    def _lowest(self, s: Floats) -> Floats:
        from scipy.optimize import linear_sum_assignment

        v = np.zeros((self.side, self.side))
        v[linear_sum_assignment(s.reshape(self.side, self.side))] = 1.0
        return v.reshape(-1)

    def lmo(self, s: Any) -> Array:
        """Return the permutation matrix of the lowest assignment (Hungarian method)."""
        v: Array = _rowwise(s, self._lowest)
        return v

    def tangent(self, z: Any) -> Any:
        """Return directions without the means of rows and columns."""
        z = floating(z)
        xp = namespace(z)
        Z = z.reshape((*z.shape[:-1], self.side, self.side))
        Z = Z - xp.mean(Z, axis=-1, keepdims=True)
        return (Z - xp.mean(Z, axis=-2, keepdims=True)).reshape(z.shape)

    def excess(self, x: Any) -> Any:
        """Return the largest error of a sum, or depth of an entry below 0."""
        xp = namespace(x)
        X = x.reshape((*x.shape[:-1], self.side, self.side))
        rows = xp.max(abs(xp.sum(X, axis=-1) - 1.0), axis=-1)
        columns = xp.max(abs(xp.sum(X, axis=-2) - 1.0), axis=-1)
        return xp.maximum(xp.maximum(rows, columns), -xp.min(x, axis=-1))

    def project(self, x: Any) -> Array:
        """Return the nearest point, by Newton's method on the multipliers of the sums."""
        nearest: Array = _rowwise(x, self._nearest)
        return nearest

    def _nearest(self, x: Floats) -> Floats:
        n, X = self.side, x.reshape(self.side, self.side)

        def kept(z: Floats) -> Floats:
            return np.maximum(X + z[:n, None] + z[None, n:], 0.0)

        def look(z: Floats) -> tuple[float, Floats, float]:
            Y = kept(z)
            slope = np.concatenate([Y.sum(axis=1), Y.sum(axis=0)]) - 1.0
            return 0.5 * float((Y**2).sum()) - float(z.sum()), slope, float(np.abs(slope).max())

        z = np.concatenate([(1.0 - X.sum(axis=1)) / n, np.zeros(n)])
        cost, slope, most = look(z)
        for _ in range(200):
            if most <= 1e-14 * n:
                break
            free = (kept(z) > 0.0).astype(float)
            bend = np.block([[np.diag(free.sum(axis=1)), free], [free.T, np.diag(free.sum(axis=0))]])
            bend += min(1e-6 * most, 1e-6) * np.eye(2 * n)  # where a row has no entry left
            step = -np.linalg.lstsq(bend, slope, rcond=None)[0]
            t, fall = 1.0, float(slope @ step)
            now = look(z + step)
            while now[0] > cost + 1e-4 * t * fall and now[2] > 0.9 * most and t > 1e-10:
                t /= 2.0
                now = look(z + t * step)
            z, (cost, slope, most) = z + t * step, now
        return kept(z).reshape(-1)
