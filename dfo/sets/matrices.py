"""Balls of matrix norms and the spectrahedron; a point is a matrix row by row.

The oracles of the nuclear ball and of the spectrahedron need one extreme pair only. Small matrices are
decomposed; for larger ones (``exact`` sides) the pair comes from restarted Krylov spaces, which start from
the pair of the previous step where there is one (``lmo_warm``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import Array, as_like, namespace
from dfo.errors import InvalidArgument
from dfo.random import Key, normal
from dfo.sets.balls import L1Ball, Simplex, length
from dfo.sets.convex import Convex, dirichlet, floating, positive

__all__ = ["NuclearBall", "OpNormBall", "Spectrahedron"]


def lowest_pair(apply: Callable[[Any], Any], start: Any, width: int = 8, restarts: int = 60) -> tuple[Any, float]:
    """Return a unit vector of the lowest eigenvalue of a symmetric operator, and that eigenvalue.

    Krylov spaces of ``width`` vectors, restarted from their Ritz vector until its residual is rounding.

    Args:
        apply: the operator, from ``(n,)`` to ``(n,)``.
        start: ``(n,)`` where to start; the better, the fewer products are needed.
        width: products per restart (at least 3, so that a warm start is improved).
        restarts: most restarts.
    """
    xp, n = namespace(start), start.shape[0]
    tolerance = 30.0 * float(xp.finfo(start.dtype).eps)
    q, value = start / xp.sqrt(xp.sum(start * start)), 0.0
    for _ in range(restarts):
        basis, images = [q], [apply(q)]
        for _ in range(min(width, n) - 1):
            r = images[-1]
            for _ in range(2):  # twice is enough
                for b in basis:
                    r = r - xp.sum(b * r) * b
            new = xp.sqrt(xp.sum(r * r))
            if float(new) <= tolerance * (1e-300 + float(xp.sqrt(xp.sum(images[-1] ** 2)))):
                break
            basis.append(r / new)
            images.append(apply(basis[-1]))
        B, M = xp.stack(basis), xp.stack(images)  # (k, n)
        small = B @ M.T
        values, vectors = xp.linalg.eigh((small + small.T) / 2)
        y, value = vectors[:, 0], float(values[0])
        q, image = y @ B, y @ M
        rest = float(xp.sqrt(xp.sum((image - value * q) ** 2)))
        if rest <= tolerance * max(abs(float(values[-1])), abs(value), 1e-300) or len(basis) == n:
            break
    return q / xp.sqrt(xp.sum(q * q)), value


def _start(warm: Any, n: int, like: Any) -> Any:
    """Return the warm start with a little of everything, so that no eigenvector is missed."""
    fresh = normal(Key(0, ("matrix",)), (n,), like)
    if warm is None:
        return fresh
    xp = namespace(like)
    return as_like(warm, like) + 1e-3 * fresh / xp.sqrt(xp.sum(fresh * fresh))


class _Matrices(Convex):
    """Sets of ``shape`` matrices with a radius."""

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, int]: ...

    radius: float

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise InvalidArgument(f"shape: expected two sides, each at least 1, got {self.shape!r}.")
        positive("radius", self.radius)

    @property
    def dim(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def size(self) -> float:
        """The radius."""
        return self.radius

    def matrices(self, x: Any) -> Any:
        """Return ``(..., a, b)`` matrices of ``(..., a b)`` points."""
        return x.reshape((*x.shape[:-1], *self.shape))

    def _values(self, x: Any) -> Any:
        return namespace(x).linalg.svdvals(self.matrices(x))

    def _svd(self, x: Any) -> tuple[Any, Any, Any]:
        U, values, V = namespace(x).linalg.svd(self.matrices(x), full_matrices=False)
        return U, values, V

    def _with_values(self, x: Any, change: Callable[[Any], Any]) -> Any:
        U, values, V = self._svd(x)
        return ((U * change(values)[..., None, :]) @ V).reshape(x.shape)


def _fixed(v: Any) -> Any:
    """Return a vector or its negative: the one whose largest entry (the first of equals) is positive."""
    xp = namespace(v)
    return v * xp.sign(v[xp.argmax(abs(v))])


@dataclass(frozen=True)
class NuclearBall(_Matrices):
    """Matrices whose singular values sum to at most ``radius``: low rank; iterates gain one rank a step.

    Args:
        shape: the two sides.
        radius: of the ball.
        exact: decompose wholly up to this shorter side; above it, find one singular pair.

    Example:
        >>> import dfo
        >>> float(dfo.NuclearBall((2, 2), 3.0).support([4.0, 0.0, 0.0, 1.0]))
        -12.0
    """

    shape: tuple[int, int]
    radius: float = 1.0
    exact: int = 64

    def _pair(self, S: Any, warm: Any) -> tuple[Any, Any]:
        """Return the first left and right singular vectors of an ``(a, b)`` matrix."""
        xp = namespace(S)
        if min(self.shape) <= self.exact:
            U, _, V = xp.linalg.svd(S, full_matrices=False)
            sign = xp.sign(V[0][xp.argmax(abs(V[0]))])
            return U[:, 0] * sign, V[0] * sign
        top = xp.max(abs(S))
        S = S / xp.where(top > 0.0, top, xp.ones_like(top))
        right, _ = lowest_pair(lambda v: -((S @ v) @ S), _start(warm, self.shape[1], S))
        right = _fixed(right)
        left = S @ right
        size = xp.sqrt(xp.sum(left * left))
        return left / xp.where(size > 0.0, size, xp.ones_like(size)), right

    def lmo(self, s: Any) -> Array:
        """Return ``-r u v^T`` of the first singular pair; the lowest value is ``-r sigma_max``."""
        s = floating(s)
        if s.ndim == 1:
            return self.lmo_warm(s)[0]
        if min(self.shape) <= self.exact:
            U, _, V = self._svd(s)
            return -self.radius * (U[..., :, :1] @ V[..., :1, :]).reshape(s.shape)  # type: ignore[no-any-return]
        v: Array = namespace(s).stack([self.lmo_warm(row)[0] for row in s])
        return v

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points: mixtures of four random matrices of rank one, of length ``r`` (not uniform)."""
        left = normal(key.child("left"), (n, 4, self.shape[0]))
        right = normal(key.child("right"), (n, 4, self.shape[1]))
        pairs = dirichlet(key.child("weights"), n, 4)[..., None] * left / length(left)
        return np.asarray(self.radius * np.einsum("nka,nkb->nab", pairs, right / length(right)).reshape(n, self.dim))

    def lmo_warm(self, s: Any, warm: Any = None) -> tuple[Array, Any]:
        """Return ``lmo(s)`` and the right singular vector, from which the next call starts."""
        s = floating(s)
        left, right = self._pair(self.matrices(s), warm)
        v: Array = (-self.radius * left[:, None] * right[None, :]).reshape(s.shape)
        return v, None if min(self.shape) <= self.exact else right

    def support(self, s: Any) -> Any:
        """Return ``-r sigma_max(S)``."""
        return -self.radius * self._values(floating(s))[..., 0]

    def excess(self, x: Any) -> Any:
        """Return the sum of the singular values, less ``r``."""
        return namespace(x).sum(self._values(x), axis=-1) - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: the singular values are projected onto the l1 ball."""
        x = floating(x)
        ball = L1Ball(min(self.shape), self.radius)
        nearest: Array = self._with_values(x, ball.project)
        return nearest


@dataclass(frozen=True)
class OpNormBall(_Matrices):
    """Matrices whose largest singular value is at most ``radius``.

    Args:
        shape: the two sides.
        radius: of the ball.
    """

    shape: tuple[int, int]
    radius: float = 1.0

    def lmo(self, s: Any) -> Array:
        """Return ``-r U V^T``, the polar factor; the lowest value is ``-r`` times the sum of singular values."""
        v: Array = self._with_values(floating(s), lambda values: -self.radius * namespace(values).ones_like(values))
        return v

    def support(self, s: Any) -> Any:
        """Return ``-r |S|_*``."""
        s = floating(s)
        return -self.radius * namespace(s).sum(self._values(s), axis=-1)

    def excess(self, x: Any) -> Any:
        """Return the largest singular value, less ``r``."""
        return self._values(x)[..., 0] - self.radius

    def project(self, x: Any) -> Array:
        """Return the nearest point: singular values clipped."""
        x = floating(x)
        nearest: Array = self._with_values(x, lambda values: namespace(values).clip(values, 0.0, self.radius))
        return nearest


@dataclass(frozen=True)
class Spectrahedron(_Matrices):
    """Symmetric ``side x side`` matrices without negative eigenvalues, of trace ``radius``: density matrices.

    Args:
        side: of the matrices.
        radius: their trace.
        exact: decompose wholly up to this side; above it, find one eigenvector.
    """

    side: int
    radius: float = 1.0
    exact: int = 64

    @property
    def shape(self) -> tuple[int, int]:
        """The two sides."""
        return self.side, self.side

    @property
    def center(self) -> Array:
        """The identity, scaled to the trace."""
        return np.asarray(np.eye(self.side).reshape(-1) * (self.radius / self.side))

    def _symmetric(self, x: Any) -> Any:
        S = self.matrices(x)
        return (S + namespace(x).swapaxes(S, -1, -2)) / 2

    def lmo(self, s: Any) -> Array:
        """Return ``r w w^T`` of the lowest eigenvector of the symmetric part; the lowest value is ``r lambda_min``."""
        s = floating(s)
        if s.ndim == 1:
            return self.lmo_warm(s)[0]
        if self.side <= self.exact:
            w = namespace(s).linalg.eigh(self._symmetric(s))[1][..., :1]
            return self.radius * (w @ namespace(s).swapaxes(w, -1, -2)).reshape(s.shape)  # type: ignore[no-any-return]
        v: Array = namespace(s).stack([self.lmo_warm(row)[0] for row in s])
        return v

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points: ``W W^T`` of gaussian ``W``, scaled to the trace (uniform in volume)."""
        W = normal(key, (n, self.side, self.side))
        X = W @ W.swapaxes(1, 2)
        return np.asarray((self.radius * X / np.trace(X, axis1=1, axis2=2)[:, None, None]).reshape(n, self.dim))

    def lmo_warm(self, s: Any, warm: Any = None) -> tuple[Array, Any]:
        """Return ``lmo(s)`` and the eigenvector, from which the next call starts."""
        s = floating(s)
        xp, S = namespace(s), self._symmetric(s)
        exact = self.side <= self.exact
        w = xp.linalg.eigh(S)[1][:, 0] if exact else self._found(S, warm)
        v: Array = (self.radius * w[:, None] * w[None, :]).reshape(s.shape)
        return v, None if exact else w

    def _found(self, S: Any, warm: Any) -> Any:
        xp = namespace(S)
        top = xp.max(abs(S))
        S = S / xp.where(top > 0.0, top, xp.ones_like(top))
        return lowest_pair(lambda v: S @ v, _start(warm, self.side, S))[0]

    def support(self, s: Any) -> Any:
        """Return ``r lambda_min`` of the symmetric part."""
        s = floating(s)
        return self.radius * namespace(s).linalg.eigvalsh(self._symmetric(s))[..., 0]

    def tangent(self, z: Any) -> Any:
        """Return the symmetric parts without their trace."""
        z = floating(z)
        xp, S = namespace(z), self._symmetric(z)
        unit = as_like(np.eye(self.side), z)
        return (S - xp.linalg.trace(S)[..., None, None] / self.side * unit).reshape(z.shape)

    def excess(self, x: Any) -> Any:
        """Return the largest of the errors of trace, of symmetry, and of the lowest eigenvalue below 0."""
        xp, X, S = namespace(x), self.matrices(x), self._symmetric(x)
        trace = abs(xp.linalg.trace(X) - self.radius)
        low = -xp.linalg.eigvalsh(S)[..., 0]
        skew = xp.max(abs(X - S).reshape(x.shape), axis=-1)
        return xp.maximum(xp.maximum(trace, low), skew)

    def project(self, x: Any) -> Array:
        """Return the nearest point: the eigenvalues of the symmetric part are projected onto the simplex."""
        x = floating(x)
        xp = namespace(x)
        values, V = xp.linalg.eigh(self._symmetric(x))
        kept = Simplex(self.side, self.radius).project(values)
        nearest: Array = ((V * kept[..., None, :]) @ xp.swapaxes(V, -1, -2)).reshape(x.shape)
        return nearest
