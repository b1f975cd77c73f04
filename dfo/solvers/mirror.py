"""Zeroth-order mirror descent: estimated gradients added where the set is flat, in the dual.

On the simplex the step is the exponentiated gradient, on the l1 ball that of the p-norm, on the spectrahedron
the matrix exponential; elsewhere it is the projected step (:mod:`dfo.components.geometry`). What the geometry buys
is a logarithm of the dimension in place of a root where gradients have no large coordinates.

The step size needs no tuning: ``D / sqrt(sum of squared dual norms)`` where the geometry knows the reach ``D`` of its
set, and the largest distance from the start so far in place of ``D`` where it does not.

References: Duchi, Jordan, Wainwright and Wibisono 2015, arXiv:1312.2139 (two-point mirror descent); Shamir 2017,
arXiv:1507.08752 (non-smooth functions); Streeter and McMahan 2010, arXiv:1002.4862 (the norm of past gradients as
step size); Ivgi, Hinder and Carmon 2023, arXiv:2302.12022 (the distance in place of D); Shamir and Zhang 2013,
arXiv:1212.1824 (polynomial-decay averaging).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, as_like, copy
from dfo.batch import Batch, Perturbations
from dfo.components import estimators
from dfo.components.borders import within_box
from dfo.components.geometry import GEOMETRIES, Geometry, Kind, geometry
from dfo.components.options import check_choice, check_positive
from dfo.directions import Directions, Distribution, distribution
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key, integers
from dfo.spaces import Space

__all__ = ["ZOMirror", "ZOMirrorState"]

_PATIENCE = 8
"""Missing values in a row at one iterate before the step that led there is taken back."""

_DECAY = 3.0
"""How fast the mean of the iterates forgets the first ones (eta of Shamir and Zhang 2013)."""


@dataclass(frozen=True, eq=False)
class ZOMirrorState:
    """The memory of :class:`ZOMirror`."""

    x: Array  # (d,) a point of the set
    z: Array  # (d,) its dual
    start: Array  # (d,)
    safe: Array  # (d,) dual of the last iterate around which there were values
    lost: int  # values missing in a row around this one
    cut: float  # share of the step that is taken
    mean: Array  # (d,) of the iterates, the last ones weighing most
    total: float  # sum of squared dual norms of the gradients
    far: float  # largest distance from the start
    previous: float | None  # last value queried (residual scheme); None before there is one
    level: float  # mean value of the last step
    age: int  # updates done
    key: Key
    step: int


@dataclass(frozen=True)
class ZOMirror:
    """Mirror descent on gradients estimated from values.

    Args:
        lr: step size in the dual, or None for one that adapts to the gradients seen.
        radius: smoothing mu, the length of a direction's unit; 1e-4 in double, 1e-2 in single precision, 0.05
            with noise by default.
        samples: directions per step, q; as many as ``batch`` pays for, else ``max(1, d // 2)`` up to 8.
        directions: a name or a law of :mod:`dfo.directions`.
        scheme: ``"central"`` (2q values a step), ``"forward"`` (q + 1), ``"one-point"`` or ``"residual"`` (q).
        filter: ``"none"``, ``"sign"``, ``"clip"`` or ``"standardized"`` on the q directional derivatives.
        limit: for ``"clip"``.
        geometry: ``"euclidean"``, ``"entropy"``, ``"p-norm"`` or ``"spectral"``; the space's own by default.
        average: whether to recommend the mean of the iterates instead of the last one; with noise by default.
        decay: the step size at update t is ``lr / (1 + t) ** decay`` (with ``lr`` only).
        minibatches: number of different data numbers; a step draws one and all its members share it.
        space: where to search; the iterate stays inside, queries around it are projected into a box only. Filled in
            by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number that is not positive; when planned, a geometry that
            the space does not have.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(abs(x - 0.3).sum()), [1.0, 2.0], method="zo-mirror", budget=800).fun < 0.1
        True
    """

    lr: float | None = None
    radius: float | None = None
    samples: int | None = None
    directions: str | Distribution = "sphere"
    scheme: estimators.Scheme = "central"
    filter: estimators.Filter = "none"
    limit: float = 1.0
    geometry: Kind | None = None
    average: bool | None = None
    decay: float = 0.0
    minibatches: int | None = None
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "sphere"})

    def __post_init__(self) -> None:
        check_choice(self, scheme=estimators.SCHEMES, filter=estimators.FILTERS, geometry=(None, *GEOMETRIES))
        distribution(self.directions)
        check_positive(self, "lr", "radius", "samples", "limit", "minibatches")

    def plan(self, task: Task) -> ZOMirror:
        """Fill in the number of directions, the smoothing and the averaging (with noise), and the space."""
        geometry(task.space, self.geometry)
        q = self.samples or max(1, min(task.space.dim // 2, 8))
        if self.samples is None and task.batch is not None:
            q = max(1, task.batch // 2 if self.scheme == "central" else task.batch - (self.scheme == "forward"))
        average = task.noisy if self.average is None else self.average
        radius = self.radius or (0.05 if task.noisy else None)
        return replace(self, samples=q, radius=radius, average=average, space=task.space)

    @property
    def _map(self) -> Geometry:
        return geometry(self.space, self.geometry)

    def _radius(self, x: Array) -> float:
        return self.radius or estimators.default_radius(x)

    def init(self, x0: Array, key: Key) -> ZOMirrorState:
        """Return the state before the first question; a start on the border of a simplex is moved inside."""
        x, z = self._map.primal(self._map.dual(copy(x0)))
        far = 10.0 * self._radius(x) * math.sqrt(x.shape[0])
        return ZOMirrorState(x, z, copy(x), z, 0, 1.0, copy(x), 0.0, far, None, np.inf, 0, key, 0)

    def _drawn(self, s: ZOMirrorState) -> Directions:
        return Directions(distribution(self.directions), s.key.child(s.step), self.samples or 1, s.x)

    def ask(self, s: ZOMirrorState) -> Batch:
        """Ask about points around the iterate, all on the same data."""
        index, scale = estimators.layout(self.scheme, self.samples or 1, self._radius(s.x))
        data: Any = None
        if self.minibatches is not None:
            data = np.full(len(index), integers(s.key.child(s.step, "data"), self.minibatches, (1,))[0])
        batch = Perturbations((s.x,), self._drawn(s), scale, index=index, data=data, step=s.step)
        return within_box(self.space, batch)

    def tell(self, s: ZOMirrorState, batch: Batch, told: Feedback) -> ZOMirrorState:
        """Estimate the gradient and take a mirror step along it."""
        f = estimators.usable(told)
        before = np.nan if s.previous is None else s.previous
        slopes = estimators.differences(self.scheme, f, self._radius(s.x), before)
        g: Any = estimators.gradient(self._drawn(s), slopes, self.filter, self.limit)
        known = f[~np.isnan(f)]
        s = replace(
            s, step=s.step + 1, level=float(known.mean()) if known.size else np.inf,
            previous=s.previous if np.isnan(f[-1]) else float(f[-1]),
        )  # fmt: skip
        return self._lost(s, len(f)) if g is None else self._moved(s, g)

    def _lost(self, s: ZOMirrorState, missing: int) -> ZOMirrorState:
        """Return the state after a batch without a value: once too often, and the last step is taken back."""
        if s.lost + missing < _PATIENCE:
            return replace(s, lost=s.lost + missing)
        x, z = self._map.primal(s.safe)
        return replace(s, x=x, z=z, mean=s.mean if self.average else x, lost=0, cut=max(0.5 * s.cut, 1e-12))

    def _moved(self, s: ZOMirrorState, g: Any) -> ZOMirrorState:
        space, age = self._map, s.age + 1
        norm = space.norm(g)
        usual = 10.0 * math.sqrt(s.total / s.age) if s.age else norm
        if 0.0 < usual < norm:  # one wild value must not freeze the run
            g, norm = g * (usual / norm), usual
        total = s.total + norm * norm
        if total == 0.0:
            return replace(s, age=age)
        lr = s.cut * (self.lr * age**-self.decay if self.lr else (space.reach or s.far) / math.sqrt(total))
        x, z = space.primal(s.z - lr * g)
        apart: Any = x - s.start
        far = max(s.far, math.sqrt(float((apart * apart).sum())))
        share = (1.0 + _DECAY) / (age + _DECAY)
        mean = s.mean + share * (x - s.mean) if self.average else x
        cut = min(1.0, 1.05 * s.cut)
        return replace(
            s, x=x, z=z, safe=s.z, lost=0, cut=cut, mean=as_like(mean, x), total=total, far=far, age=age
        )  # fmt: skip

    def recommend(self, s: ZOMirrorState) -> Array:
        """Return the mean of the iterates with ``average``, else the last one."""
        result: Array = copy(s.mean)
        return result

    def gauges(self, s: ZOMirrorState) -> dict[str, float]:
        """Return the mean value of the last step and the largest distance from the start."""
        return {"level": s.level, "distance": s.far}
