"""Geometries of mirror descent: how a step in gradients becomes a step in a convex set.

A geometry is a function ``psi`` that is 1-strongly convex in a norm. Its gradient takes a point to its dual,
where steps are added; the nearest point of the set in the divergence of ``psi`` takes the sum back:
``x+ = argmin_{y in Q} <g, y> + D_psi(y, x) / lr``. With ``psi = |x|^2 / 2`` this is the projected gradient step.

References: Nemirovski and Yudin 1983; Beck and Teboulle 2003, "Mirror descent and nonlinear projected subgradient
methods" (entropy on the simplex); Gentile 2003, "The robustness of the p-norm algorithms"; Tsuda, Raetsch and
Warmuth 2005, "Matrix exponentiated gradient updates" (the spectrahedron).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dfo.arrays import Array, namespace
from dfo.components.borders import nearest
from dfo.errors import InvalidArgument
from dfo.sets import L1Ball, Simplex, Spectrahedron
from dfo.spaces import Space

__all__ = ["GEOMETRIES", "Entropy", "Euclidean", "Geometry", "Kind", "PNorm", "Spectral", "geometry"]

Kind = Literal["euclidean", "entropy", "p-norm", "spectral"]
GEOMETRIES: tuple[Kind, ...] = ("euclidean", "entropy", "p-norm", "spectral")

_LOWEST = 60.0
"""Logarithms of weights are kept this close to the largest, so that a coordinate can come back."""


class Geometry(Protocol):
    """A mirror map on a set."""

    @property
    def reach(self) -> float | None:
        """Root of twice the largest divergence within the set, or None where it is not known."""
        ...

    def gain(self, d: int) -> float:
        """Return ``E |u|^2`` in the dual norm for a unit of slope: ``d``, or the logarithm that replaces it."""
        ...

    def norm(self, g: Array) -> float:
        """Return the dual norm of a gradient."""
        ...

    def dual(self, x: Array) -> Array:
        """Return the dual of a point, ``(d,)``."""
        ...

    def primal(self, z: Array) -> tuple[Array, Array]:
        """Return the point of the set for a dual, and the dual of that point, each ``(d,)``."""
        ...


@dataclass(frozen=True)
class Euclidean:
    """``psi = |x|^2 / 2``: the dual of a point is the point, and the way back is the projection.

    Args:
        space: any convex set with a projection.
    """

    space: Space | None = None

    @property
    def reach(self) -> float | None:
        """None: far from the solution, even a known diameter is too long a first step."""
        return None

    def gain(self, d: int) -> float:
        """Return ``d``."""
        return float(d)

    def norm(self, g: Array) -> float:
        """Return the Euclidean norm."""
        return math.sqrt(float((g * g).sum()))

    def dual(self, x: Array) -> Array:
        """Return the point itself."""
        return x

    def primal(self, z: Array) -> tuple[Array, Array]:
        """Return the projection, twice."""
        x = nearest(self.space, z)
        return x, x


@dataclass(frozen=True)
class Entropy:
    """``psi = r^2 sum w log w`` with ``w = x / r`` on the simplex: exponentiated gradient.

    Args:
        radius: what the coordinates sum to, r.
        size: number of coordinates.
    """

    radius: float
    size: int

    @property
    def reach(self) -> float | None:
        """``r sqrt(2 log d)``."""
        return self.radius * math.sqrt(2 * math.log(max(self.size, 2)))

    def gain(self, d: int) -> float:
        """Return ``2 log 2d``: the largest coordinate of a random direction grows no faster."""
        return 2 * math.log(2 * d)

    def norm(self, g: Array) -> float:
        """Return half the spread of the coordinates: the largest one, up to a multiple of 1 that no step feels."""
        return 0.5 * float(g.max() - g.min())

    def dual(self, x: Array) -> Array:
        """Return ``r log w``; a point on the border is first moved inside by a tenth."""
        xp, d = namespace(x), x.shape[-1]
        w: Any = xp.clip(x, 0.0, None) / self.radius
        if float(w.min()) < 1e-6 / d:
            w = 0.9 * w + 0.1 / d
        logs: Array = self.radius * xp.log(w)
        return logs

    def primal(self, z: Array) -> tuple[Array, Array]:
        """Return ``r softmax(z / r)``, and z with largest coordinate 0."""
        xp = namespace(z)
        logs: Any = xp.clip((z - z.max()) / self.radius, -_LOWEST, None)
        w = xp.exp(logs)
        return self.radius * (w / w.sum()), self.radius * logs


@dataclass(frozen=True)
class PNorm:
    """``psi = |x|_p^2 / (2 (p - 1))`` with ``p = 1 + 1 / log d`` on the l1 ball.

    Args:
        radius: of the ball, r.
        size: number of coordinates.
    """

    radius: float
    size: int

    @property
    def _excess(self) -> float:
        return 1.0 / max(math.log(self.size), 1.0)  # p - 1

    @property
    def reach(self) -> float | None:
        """``r (p - 1)^(-1/2)``."""
        return self.radius / math.sqrt(self._excess)

    def gain(self, d: int) -> float:
        """Return ``2 log 2d``."""
        return 2 * math.log(2 * d)

    def norm(self, g: Array) -> float:
        """Return the q-norm, ``1/p + 1/q = 1``."""
        size, q = abs(g), 1.0 + 1.0 / self._excess
        top = float(size.max())
        total = float(((size / max(top, 1e-30)) ** q).sum())
        return top * math.pow(total, 1.0 / q)

    def dual(self, x: Array) -> Array:
        """Return the gradient of psi."""
        xp, e = namespace(x), self._excess
        size = abs(x)
        top = float(size.max())
        if top == 0.0:
            return xp.zeros_like(x)  # type: ignore[no-any-return]
        share = size / top
        total = (share ** (1.0 + e)).sum() ** ((1.0 - e) / (1.0 + e))  # |x|_p^(2-p), over top^(2-p)
        z: Array = xp.sign(x) * share**e * (total * top / e)
        return z

    def primal(self, z: Array) -> tuple[Array, Array]:
        """Return the point whose dual is z less a threshold: none inside the ball, else the one that meets it."""
        xp = namespace(z)
        size = abs(z)
        low, high = xp.zeros_like(size.max()), size.max()
        if float(self._point(size).sum()) > self.radius:
            for _ in range(60):  # the l1 norm falls as the threshold grows
                middle = (low + high) / 2
                far = self._point(xp.clip(size - middle, 0.0, None)).sum() > self.radius
                low, high = xp.where(far, middle, low), xp.where(far, high, middle)
            size = xp.clip(size - high, 0.0, None)
        return xp.sign(z) * self._point(size), xp.sign(z) * size

    def _point(self, size: Any) -> Any:
        """Return the gradient of the conjugate at a dual without negative coordinates."""
        xp, e = namespace(size), self._excess
        q = 1.0 + 1.0 / e
        top = xp.clip(size.max(), 1e-30, None)
        share = size / top
        total = xp.clip((share**q).sum(), 1e-30, None) ** ((2.0 - q) / q)
        return share ** (q - 1.0) * (total * top * e)


@dataclass(frozen=True)
class Spectral:
    """Von Neumann's entropy on the spectrahedron, ``(n, n)`` matrices row by row: matrix exponentiated gradient.

    Args:
        radius: the trace, r.
        side: n.
    """

    radius: float
    side: int

    @property
    def reach(self) -> float | None:
        """``r sqrt(2 log n)``."""
        return self.radius * math.sqrt(2 * math.log(max(self.side, 2)))

    def gain(self, d: int) -> float:
        """Return ``4 n``: the square of the largest eigenvalue of a random symmetric direction, about."""
        return 4.0 * self.side

    def _matrix(self, x: Any) -> Any:
        M = x.reshape(self.side, self.side)
        return (M + M.T) / 2

    def norm(self, g: Array) -> float:
        """Return half the spread of the eigenvalues."""
        values = namespace(g).linalg.eigvalsh(self._matrix(g))
        return 0.5 * float(values[-1] - values[0])

    def dual(self, x: Array) -> Array:
        """Return ``r log X / r``; a singular matrix is first moved inside by a tenth."""
        values, vectors = namespace(x).linalg.eigh(self._matrix(x))
        logs = Entropy(self.radius, self.side).dual(values)
        z: Array = ((vectors * logs) @ vectors.T).reshape(-1)
        return z

    def primal(self, z: Array) -> tuple[Array, Array]:
        """Return ``r exp(Z / r)`` of trace r, and its logarithm."""
        values, vectors = namespace(z).linalg.eigh(self._matrix(z))
        weights, logs = Entropy(self.radius, self.side).primal(values)
        return ((vectors * weights) @ vectors.T).reshape(-1), ((vectors * logs) @ vectors.T).reshape(-1)


def geometry(space: Space | None, kind: Kind | None = None) -> Geometry:
    """Return the geometry of a space: its own one, or the Euclidean one.

    Args:
        space: where the points live.
        kind: one of :data:`GEOMETRIES`; by default the entropy on a simplex, the p-norm on an l1 ball, the spectral
            entropy on a spectrahedron, and the Euclidean one elsewhere.

    Raises:
        InvalidArgument: the space has no such geometry.
    """
    plain, own = Euclidean(space), _own(space)
    names = ("euclidean",) if own is None else (own[0], "euclidean")
    if kind not in (None, *names):
        known = " or ".join(map(repr, names))
        raise InvalidArgument(f"geometry: expected {known} in {type(space).__name__}, got {kind!r}.")
    return plain if own is None or kind == "euclidean" else own[1]


def _own(space: Space | None) -> tuple[Kind, Geometry] | None:
    if isinstance(space, Simplex):
        return "entropy", Entropy(space.radius, space.dim)
    if isinstance(space, L1Ball):
        return "p-norm", PNorm(space.radius, space.dim)
    if isinstance(space, Spectrahedron):
        return "spectral", Spectral(space.radius, space.side)
    return None
