"""ZO-RankSGD: descent on nothing but rankings.

The solver shows ``m`` points around the current one and is told the order of the best ``k`` of them. Every pair
(i, j) of which the ranking says that i is better is an edge of a graph; the mean of ``xi_i - xi_j`` over the edges
is a direction of descent. It has no 1/mu in it: its length is of order one whatever the slope, as that of a
normalised gradient, so that the learning rate is a length. A second ranking, of the current point and of steps of
several lengths, finds the length; where no step is better than staying, the next direction is averaged with this one.

References: Tang, Rybin and Chang 2024, "Zeroth-order optimization meets human feedback: provable learning via
ranking oracles", ICLR, arXiv:2303.03751 (with its line search; the rule of averaging until success is that of the
authors' notebook, whose weights m - 2r do not sum to zero and are not used here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy
from dfo.batch import Batch, Perturbations, Points
from dfo.components.options import check_positive
from dfo.components.ranking import edge_weights, merits
from dfo.components.stages import Staged
from dfo.directions import Directions, Distribution, distribution
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback, average_ranks
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key
from dfo.sets.convex import ConvexSet, is_convex
from dfo.spaces import Box, Free, Space

__all__ = ["ZORankSGD", "ZORankSGDState", "signal"]

SURE, UNSURE = (0.3, 0.5), (1.0, 0.7)
"""``reach`` and ``shrink`` where the order is exact, and where it may err: noisy values, and whoever only ranks."""


@dataclass(frozen=True, eq=False)
class ZORankSGDState:
    """The memory of :class:`ZORankSGD`."""

    x: Array  # (d,)
    p: Any  # (d,) mean direction of descent since the last success, or None
    count: int  # rankings in it
    lr: float  # longest step tried
    stage: str
    age: int  # rankings of perturbed points
    key: Key
    step: int


@dataclass(frozen=True)
class ZORankSGD(Staged):
    """Stochastic gradient descent on directions from rankings.

    Args:
        population: points of a ranking, m; ``batch`` or 15 by default, no more than the oracle can rank.
        top: how many of the best are to be named, k; all by default. Rank more before showing more: the squared
            signal over the noise is 3 m / pi for k = m and about 2 ln m for k = 1.
        lr: longest step tried, in multiples of the direction; or None to fit it: the next steps surround the one
            that won, and shrink after a ranking in which staying won.
        radius: standard deviation of the perturbations, mu; choose it so that whoever ranks sees a difference. By
            default it is 0.01 with a given ``lr``, else it follows the fitted steps.
        search: step lengths compared with staying, l; 5 by default. With 0 every ranking is a step.
        reach: length of the perturbations that follow the steps, as a share of the distance to the minimum of an
            isotropic quadratic function on which these would be the best steps; 0.3 by default, and 1 with noise and
            with oracles that only rank.
        shrink: ratio of one step length to the next, gamma; 0.5 by default, and 0.7 in those cases.
        accumulate: average the directions of the rankings since the last success.
        decay: the step length at update t is ``lr / (1 + t) ** decay``.
        radius_decay: the same for the radius.
        directions: law of the perturbations, a name or a law of :mod:`dfo.directions`.
        xtol: converged when the fitted radius is below this.
        restarts: go on from there with the first lengths, which loses nothing; where a budget is given, by default.
        space: where to search; points and steps are projected into a box or a convex set. Filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of range.

    Example:
        >>> import dfo
        >>> judge = lambda points: sorted(range(len(points)), key=lambda i: float(abs(points[i] - 1).sum()))
        >>> res = dfo.minimize(dfo.RankOracle(judge), [3.0, -1.0], method="zo-rank-sgd", budget=1000)
        >>> bool(abs(res.x - 1).max() < 0.05)
        True
    """

    population: int | None = None
    top: int | None = None
    lr: float | None = None
    radius: float | None = None
    search: int | None = None
    reach: float | None = None
    shrink: float | None = None
    accumulate: bool = True
    decay: float = 0.0
    radius_decay: float = 0.0
    directions: str | Distribution = "gaussian"
    xtol: float = 1e-11
    restarts: bool | None = None
    space: Space | ConvexSet | None = None

    stages: ClassVar[tuple[str, ...]] = ("query", "search")
    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        distribution(self.directions)
        check_positive(self, "lr", "radius", "reach", "xtol")
        for name, least in (("population", 2), ("top", 1), ("search", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidArgument(f"{name}: expected at least {least}, got {value!r}.")
        for name, low, high in (("shrink", 0, 1), ("decay", -1e-9, 10), ("radius_decay", -1e-9, 10)):
            value = getattr(self, name)
            if value is not None and not low < value <= high:
                raise InvalidArgument(f"{name}: expected a number between {max(low, 0)} and {high}, got {value!r}.")

    def plan(self, task: Task) -> ZORankSGD:
        """Fill in the sizes of the two rankings and the space."""
        most = task.max_batch or 10**9
        search = max(1, min(5, (task.batch or 6) - 1)) if self.search is None else self.search
        usual = UNSURE if task.noisy or "values" not in task.gives else SURE
        return replace(
            self,
            population=max(2, min(self.population or task.batch or 15, most)),
            search=min(search, most - 1),
            reach=self.reach or usual[0],
            shrink=self.shrink or usual[1],
            restarts=task.budget is not None if self.restarts is None else self.restarts,
            space=self.space or task.space,
        )

    # ------------------------------------------------------------------ lengths

    @property
    def _sizes(self) -> tuple[int, int]:
        m = self.population or 15
        return m, min(self.top or m - 1, m - 1)  # the last of m is known when the others are

    @property
    def _steps(self) -> Floats:
        """``(l,)`` the step lengths compared, as shares of the longest."""
        return (self.shrink or SURE[1]) ** np.arange(5.0 if self.search is None else self.search)

    @property
    def _middle(self) -> int:
        return max(0, (5 if self.search is None else self.search) - 1) // 2

    def _first_radius(self) -> float:
        narrow = bool(self.space.bounded.all()) if isinstance(self.space, Box) else is_convex(self.space)
        return self.radius or (0.01 if self.lr else 0.1 if narrow else 0.3)

    def _longest(self, radius: float, d: int) -> float:
        """Return the longest step of a search whose middle step fits perturbations of this radius.

        From distance R to the minimum of an isotropic quadratic function the best step is ``R s / (s^2 + n d)``,
        with signal s and noise n of the direction; perturbations are of length ``reach R``.
        """
        s, n = signal(*self._sizes)
        middle = radius * math.sqrt(d) / (self.reach or SURE[0]) * s / (s * s + n * d)
        rung: float = (self.shrink or SURE[1]) ** self._middle
        return middle / rung

    def _radius(self, s: ZORankSGDState) -> float:
        if self.lr is not None or self.radius is not None:
            return self._first_radius() / float((1.0 + s.age) ** self.radius_decay)
        return s.lr / self._longest(1.0, int(s.x.shape[0]))

    # ------------------------------------------------------------------ state

    def init(self, x0: Array, key: Key) -> ZORankSGDState:
        """Return the state before the first question."""
        lr = self.lr or self._longest(self._first_radius(), x0.shape[0])
        return ZORankSGDState(copy(x0), None, 0, lr, "query", 0, key, 0)

    def _inside(self, X: Any, like: Array) -> Array:
        return as_like(self.space.project(X), like) if isinstance(self.space, Box) or is_convex(self.space) else X

    def _drawn(self, s: ZORankSGDState) -> Directions:
        return Directions(distribution(self.directions), s.key.child(s.age, "query"), self._sizes[0], s.x)

    # ------------------------------------------------------------------ a direction

    def ask_query(self, s: ZORankSGDState) -> Batch:
        """Ask for the order of the points ``x + mu xi_i``."""
        top = self.top if self.top and self.top < self._sizes[0] else None
        batch = Perturbations((s.x,), self._drawn(s), np.full(self._sizes[0], self._radius(s)), step=s.step, top=top)
        if isinstance(self.space, Free) or self.space is None:
            return batch  # nothing of the size of the population is built here
        return Points(self._inside(batch.dense(), s.x), step=s.step, top=top)

    def tell_query(self, s: ZORankSGDState, batch: Batch, told: Feedback) -> ZORankSGDState:
        """Form the direction ``sum_i w_i xi_i / |E|``; with it move, or search."""
        merit = merits(told)
        w, edges = edge_weights(_top(merit, batch.top))
        after = replace(s, age=s.age + 1, step=s.step + 1)
        if not edges:  # skipped, or all alike: look further away
            alike = bool(np.isfinite(merit).any()) and self.lr is None
            return replace(after, lr=min(2.0 * s.lr, 1e100)) if alike else after
        p: Any = self._drawn(s).combine(w / edges)
        if self.search == 0:
            x = self._inside(s.x + s.lr / (1.0 + s.age) ** self.decay * p, s.x)
            return replace(after, x=x)
        if s.count and self.accumulate:
            p = s.p + (p - s.p) / (s.count + 1)
        return replace(after, p=p, count=s.count + 1, stage="search")

    # ------------------------------------------------------------------ its length

    def ask_search(self, s: ZORankSGDState) -> Batch:
        """Ask for the best of ``x`` and ``x + eta gamma^i p``."""
        eta = s.lr / (1.0 + s.age) ** self.decay
        lengths: Any = as_like(np.concatenate([[0.0], eta * self._steps]), s.x)
        return Points(self._inside(s.x + lengths[:, None] * s.p, s.x), step=s.step, top=1)

    def tell_search(self, s: ZORankSGDState, batch: Batch, told: Feedback) -> ZORankSGDState:
        """Move to the best step if it beats staying; else stay and keep the direction."""
        merit = merits(told)
        s = replace(s, stage="query", step=s.step + 1)
        if np.isnan(merit[0]) or np.isnan(merit[1:]).all():  # nothing to compare
            return s
        best = 1 + int(np.nanargmin(merit[1:]))
        moved = merit[best] < merit[0]
        lr = s.lr
        if self.lr is None:
            power = best - 1 - self._middle if moved else 1
            lr = min(max(s.lr * (self.shrink or SURE[1]) ** power, 1e-300), 1e100)
        s = replace(s, x=batch.member(best), p=None, count=0, lr=lr) if moved else replace(s, lr=lr)
        if self.restarts and self._small(s):
            return replace(s, p=None, count=0, lr=self._longest(self._first_radius(), int(s.x.shape[0])))
        return s

    # ------------------------------------------------------------------ reports

    def finished(self, s: ZORankSGDState) -> str | None:
        """Return why there is nothing left to do."""
        return f"ZO-RankSGD converged: the radius is below xtol={self.xtol:g}." if self._small(s) else None

    def _small(self, s: ZORankSGDState) -> bool:
        return self.lr is None and self.radius is None and self._radius(s) < self.xtol

    def recommend(self, s: ZORankSGDState) -> Any:
        """Return the current point."""
        return copy(s.x)

    def gauges(self, s: ZORankSGDState) -> dict[str, float]:
        """Return the longest step, the radius, and the rankings in the direction."""
        return {"lr": s.lr, "radius": self._radius(s), "rankings": float(s.count)}


def _top(merit: Floats, k: int | None) -> Floats:
    """Return merits of which only the best ``k`` are told apart, as :class:`dfo.batch.Batch` asked."""
    if k is None:
        return merit
    rank = average_ranks(merit)
    return np.where(rank >= k, np.inf, rank)  # NaN stays


@lru_cache(maxsize=64)
def signal(m: int, k: int) -> tuple[float, float]:
    """Return signal ``s = E <p, -g> / |g|`` and noise ``n``, the variance in any other direction.

    Of a linear function: ``n = sum w^2 / |E|^2``, exactly; s from Blom's normal scores, within 5 %.
    """
    w, edges = edge_weights(np.minimum(np.arange(float(m)), k))
    scores = np.array([NormalDist().inv_cdf((r + 0.625) / (m + 0.25)) for r in range(m)])
    return -float(w @ scores) / edges, float(w @ w) / edges**2
