"""Accelerated descent on non-smooth convex functions: ball smoothing and Lan's AC-SA.

A convex M2-Lipschitz function is smoothed over a ball: ``f_gamma(x) = E f(x + gamma e)`` lies within ``gamma M2``
above ``f`` and has a gradient with Lipschitz constant ``L = sqrt(d) M2 / gamma``. The central two-point estimate over
the sphere is unbiased for that gradient, so that an optimal smooth method solves the non-smooth problem in ``N =
O(d^(1/4) M2 R / eps)`` steps of ``B`` parallel pairs. Descent along single pairs needs as many calls, one after the
other: what is gained is depth.

References: Gasnikov, Novitskii, Novitskii, Abdukhakimov, Kamzolov, Beznosikov, Takac, Dvurechensky and Gu 2022,
"The power of first-order smooth optimization for black-box non-smooth problems", arXiv:2201.12289; Lan 2012, "An
optimal method for stochastic composite optimization" (AC-SA); Shamir 2017, arXiv:1507.08752 (the estimate).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, Floats, copy
from dfo.batch import Batch, Perturbations
from dfo.components import estimators
from dfo.components.borders import within_box
from dfo.components.geometry import GEOMETRIES, Geometry, Kind, geometry
from dfo.components.options import check_positive
from dfo.components.stages import Staged
from dfo.directions import Directions, Sphere
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key
from dfo.sets import Convex
from dfo.spaces import Box, Space

__all__ = ["ACSA", "ACSAState"]

_SPREAD = 2.0
"""c in ``E |g_hat|^2 <= c d M2^2``."""

_PATIENCE = 8
"""Questions in a row without a value before the round begins anew, half as far, where there were values."""


@dataclass(frozen=True, eq=False)
class ACSAState:
    """The memory of :class:`ACSA`."""

    x: Array  # (d,) the point that takes the steps
    z: Array  # (d,) its dual
    ag: Array  # (d,) the aggregate, which is the answer
    start: Array  # (d,) of the round
    k: int  # step of the round, from 1
    round: int
    lipschitz: float  # M2
    distance: float  # R
    squares: float  # sum and number of the squared slopes of the round
    slopes: int
    lost: int  # questions without a value in a row
    level: float
    stage: str
    key: Key
    step: int


@dataclass(frozen=True)
class ACSA(Staged):
    """AC-SA on the ball-smoothed function, for convex functions with kinks.

    What is left None is estimated: ``lipschitz`` is the root mean square of the slopes of a first batch, renewed from
    every round; ``distance`` begins at 1 (in a box at ``sqrt(d / 12)``, the root mean square distance of a point from
    the middle; in a convex set at its size) and becomes what each round moved: twice that where it was more than
    ``R``, and ``R / 2`` at least; ``eps`` is the accuracy that a round can pay for, ``M2 R`` times ``sqrt(d / calls)``
    or ``4 d^(1/4) / N``, the larger one.

    Args:
        eps: accuracy wanted, in units of f; the ball has radius ``gamma = eps / (2 M2)``.
        lipschitz: M2, a bound on the slope of f.
        distance: R, a bound on the distance from the start to a minimiser.
        samples: pairs of values a step, B; by default ``batch // 2``, else what is left of the budget after ``N = 4
            d^(1/4) M2 R / eps`` steps.
        steps: N in all rounds; the budget divided by ``2 B`` by default.
        rounds: restarts from the aggregate, each with twice the steps of the last, ``R`` less by ``sqrt(2)`` and
            ``eps`` by 2, which on strongly convex functions needs ``O(d M2^2 / (mu eps))`` calls; 1 by default where
            the distance is known, else 4.
        geometry: ``"euclidean"``, ``"entropy"``, ``"p-norm"`` or ``"spectral"``: in what distance a step is near; the
            space's own by default.
        space: where to search; points around the iterate are projected into a box only. Filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number that is not positive; when planned, a geometry that
            the space does not have.

    Example:
        >>> import dfo
        >>> solver = dfo.ACSA(distance=2.0)
        >>> dfo.minimize(lambda x: float(abs(x - 0.3).sum()), [1.0, 2.0], method=solver, budget=2000).fun < 0.1
        True
    """

    eps: float | None = None
    lipschitz: float | None = None
    distance: float | None = None
    samples: int | None = None
    steps: int | None = None
    rounds: int | None = None
    geometry: Kind | None = None
    space: Space | None = None

    stages: ClassVar[tuple[str, ...]] = ("probe", "query")
    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset({"translation"})

    def __post_init__(self) -> None:
        if self.geometry not in (None, *GEOMETRIES):
            raise InvalidArgument(f"geometry: expected one of {', '.join(GEOMETRIES)}, got {self.geometry!r}.")
        check_positive(self, "eps", "lipschitz", "distance", "samples", "steps", "rounds")

    def plan(self, task: Task) -> ACSA:
        """Divide the budget into steps and pairs."""
        d, calls = task.space.dim, task.budget or 1000 * task.space.dim
        reach = geometry(task.space, self.geometry).reach
        known = self.eps and self.lipschitz and self.distance
        share = self.eps / (self.lipschitz * self.distance) if known else _affordable(d, calls)  # type: ignore[operator]
        samples = self.samples or (max(1, task.batch // 2) if task.batch else None)
        if samples is None:
            depth = max(1, min(math.ceil(4.0 * d**0.25 / share), calls // 2))
            samples = max(1, min(calls // (2 * depth), 2**26 // d))
        steps = self.steps or max(1, (calls - 2 * self._first(samples)) // (2 * samples))
        return replace(
            self, samples=samples, steps=steps, space=task.space,
            rounds=self.rounds or (4 if self.distance is None and reach is None else 1),
        )  # fmt: skip

    def _first(self, samples: int) -> int:
        """Return the pairs of the probe."""
        return max(4, min(samples, 16)) if self.lipschitz is None else 0

    @property
    def _map(self) -> Geometry:
        return geometry(self.space, self.geometry)

    # ------------------------------------------------------------------ state

    def init(self, x0: Array, key: Key) -> ACSAState:
        """Return the state before the first question; a start on the border of a simplex is moved inside."""
        x, z = self._map.primal(self._map.dual(copy(x0)))
        distance = self.distance or self._map.reach or self._usual()
        return ACSAState(
            x, z, x, x, 1, 0, self.lipschitz or 0.0, distance, 0.0, 0, 0, np.inf,
            "query" if self.lipschitz else "probe", key, 0,
        )  # fmt: skip

    def _usual(self) -> float:
        """Return a distance to begin with."""
        if isinstance(self.space, Box) and self.space.bounded.all():
            return math.sqrt(self.space.dim / 12.0)
        return float(self.space.size) if isinstance(self.space, Convex) else 1.0

    def _length(self, s: ACSAState) -> int:
        """Return the steps of the round, N."""
        rounds = self.rounds or 1
        share = 2.0 ** min(s.round, rounds - 1) / (2.0**rounds - 1.0)
        return max(1, round((self.steps or 100) * share))

    def _gamma(self, s: ACSAState) -> float:
        """Return the radius of the ball, ``eps / (2 M2)``."""
        if self.eps is None or s.stage == "probe":
            d, steps = s.x.shape[0], self._length(s)
            share = max(_affordable(d, 2 * (self.samples or 1) * steps), 4.0 * d**0.25 / steps)
            return float(0.5 * s.distance * min(share, 1.0))
        eps = self.eps * 2.0 ** max((self.rounds or 1) - 1 - s.round, 0) if self.distance else self.eps
        return min(eps / (2.0 * s.lipschitz), s.distance) if s.lipschitz > 0.0 else s.distance

    def _drawn(self, s: ACSAState) -> Directions:
        count = self._first(self.samples or 1) if s.stage == "probe" else self.samples or 1
        return Directions(Sphere(), s.key.child(s.step), count, s.x)

    def _around(self, s: ACSAState, x: Array) -> Batch:
        """Return central pairs ``x +- gamma e``; house directions are ``u = sqrt(d) e``."""
        drawn = self._drawn(s)
        index, scale = estimators.layout("central", drawn.count, self._gamma(s) / math.sqrt(x.shape[0]))
        return within_box(self.space, Perturbations((x,), drawn, scale, index=index, step=s.step))

    def _slopes(self, s: ACSAState, told: Feedback) -> Floats:
        mu = self._gamma(s) / math.sqrt(s.x.shape[0])
        return estimators.differences("central", estimators.usable(told), mu)

    # ------------------------------------------------------------------ how steep it is

    def ask_probe(self, s: ACSAState) -> Batch:
        """Ask about pairs around the start."""
        return self._around(s, s.x)

    def tell_probe(self, s: ACSAState, batch: Batch, told: Feedback) -> ACSAState:
        """Estimate M2: the mean of squared slopes along ``u`` is ``|g|^2``."""
        slopes = self._slopes(s, told)
        steep = _mean_square_root(slopes[np.isfinite(slopes)])
        if steep is None:
            return replace(s, step=s.step + 1)
        return replace(s, lipschitz=steep, stage="query", step=s.step + 1)

    # ------------------------------------------------------------------ steps

    def _middle(self, s: ACSAState) -> Array:
        """Return ``x_md = 2/(k+1) x + (k-1)/(k+1) x_ag``."""
        middle: Any = s.ag + (2.0 / (s.k + 1)) * (s.x - s.ag)
        result: Array = middle
        return result

    def ask_query(self, s: ACSAState) -> Batch:
        """Ask about B pairs around ``x_md``."""
        return self._around(s, self._middle(s))

    def tell_query(self, s: ACSAState, batch: Batch, told: Feedback) -> ACSAState:
        """Take one step of AC-SA (Lan 2012)."""
        slopes = self._slopes(s, told)
        g: Any = estimators.gradient(self._drawn(s), slopes)
        if g is None:
            return self._lost(replace(s, step=s.step + 1))
        f, good = estimators.usable(told), slopes[np.isfinite(slopes)]
        with np.errstate(over="ignore"):
            squares = min(s.squares + float((good * good).sum()), 1e300)
        x, z = self._map.primal(s.z - 0.5 * s.k * self._rate(s) * g)
        ag: Any = s.ag + (2.0 / (s.k + 1)) * (x - s.ag)
        s = replace(
            s, x=x, z=z, ag=ag, k=s.k + 1, squares=squares, slopes=s.slopes + len(good), lost=0,
            level=float(np.nanmean(f)), step=s.step + 1,
        )  # fmt: skip
        return self._renewed(s) if s.k > self._length(s) else s

    def _rate(self, s: ACSAState) -> float:
        """Return ``a = min{1 / (2 L), sqrt(6) R / ((N + 2)^(3/2) s)}`` with ``s^2 = c d M2^2 / B``."""
        d, m2 = s.x.shape[0], max(s.lipschitz, 1e-150)
        smooth = self._gamma(s) / (2.0 * d**0.5 * m2)
        spread = math.sqrt(_SPREAD * self._map.gain(d) / (self.samples or 1)) * m2
        return float(min(smooth, math.sqrt(6.0) * s.distance / ((self._length(s) + 2.0) ** 1.5 * spread)))

    def _renewed(self, s: ACSAState) -> ACSAState:
        """Return the state at the start of the next round."""
        apart: Any = s.ag - s.start
        moved = math.sqrt(float((apart * apart).sum()))
        if self.distance is None and self._map.reach is None:
            further = min(2.0 * moved, 4.0 * s.distance)
            distance = further if moved > s.distance else max(moved, s.distance / 2.0)
        else:
            distance = s.distance / math.sqrt(2.0)
        lipschitz = s.lipschitz if self.lipschitz or not s.slopes else math.sqrt(s.squares / s.slopes)
        return self._begun(replace(s, distance=distance, lipschitz=lipschitz, round=s.round + 1), s.ag)

    def _begun(self, s: ACSAState, x: Array) -> ACSAState:
        x, z = self._map.primal(self._map.dual(x))
        return replace(s, x=x, z=z, ag=x, start=x, k=1, squares=0.0, slopes=0, lost=0)

    def _lost(self, s: ACSAState) -> ACSAState:
        """Return the state after a question without a value: once too often, and the round begins anew.

        It begins where it has come to, or where it began if no question of it was answered. A distance that was
        given stays.
        """
        if s.lost + 1 < _PATIENCE:
            return replace(s, lost=s.lost + 1)
        distance = s.distance if self.distance is not None else max(s.distance / 2.0, 1e-12)
        return self._begun(replace(s, distance=distance), s.start if s.k == 1 else s.ag)

    # ------------------------------------------------------------------ reports

    def finished(self, s: ACSAState) -> str | None:
        """Return why there is nothing left to do."""
        done = s.round >= (self.rounds or 1)
        return f"AC-SA took its {self.steps} steps. Give it more with steps= or a larger budget." if done else None

    def recommend(self, s: ACSAState) -> Array:
        """Return the aggregate point."""
        result: Array = copy(s.ag)
        return result

    def gauges(self, s: ACSAState) -> dict[str, float]:
        """Return the bounds in use, the radius of the ball and the mean value of the last step."""
        return {"lipschitz": s.lipschitz, "distance": s.distance, "gamma": self._gamma(s), "level": s.level}


def _affordable(d: int, calls: int) -> float:
    """Return the accuracy, as a share of ``M2 R``, that a number of calls can pay for."""
    return min(math.sqrt(d / max(calls, 1)), 0.25)


def _mean_square_root(slopes: Floats) -> float | None:
    if not slopes.size:
        return None
    top = float(np.abs(slopes).max())
    return top * math.sqrt(float(((slopes / max(top, 1e-300)) ** 2).mean()))
