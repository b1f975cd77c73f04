"""Augmented random search: differences of mirrored pairs, the best of them, over their standard deviation.

References: Mania, Guy and Recht 2018, "Simple random search of static linear policies is competitive for
reinforcement learning", arXiv:1803.07055 (algorithms V1 and V1-t by their numbers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Floats, Point, copy, is_blocks
from dfo.batch import Batch, Perturbations, Points
from dfo.components import descent, estimators
from dfo.components.borders import into_box, onto_line
from dfo.components.generations import SCHEDULES, Schedule, annealed, first_sigma, members, widened
from dfo.components.options import check_choice, check_population, check_positive
from dfo.directions import Directions, Distribution, distribution
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key
from dfo.spaces import Box, Space

__all__ = ["ARS", "ARSState"]


@dataclass(frozen=True, eq=False)
class ARSState:
    """The memory of :class:`ARS`."""

    x: Any  # (d,) center, in free coordinates; or named blocks, moved in place
    mean: Any  # average of the centers, or None
    moved: float  # length of the last step
    key: Key
    step: int


@dataclass(frozen=True)
class ARS:
    """Augmented random search, V1-t.

    Of ``N`` mirrored pairs ``x +- sigma u_j`` the ``b`` with the lowest ``min(f+, f-)`` count, and the step is ``lr /
    (b sigma_R)`` times the sum of ``(f- - f+) u_j``, where ``sigma_R`` is the standard deviation of the ``2 b`` values.
    It needs values. There is no memory beside the point. The normalisation of observations of V2 belongs to a
    policy, not to a solver: give the policy a running mean and standard deviation of what it sees.

    Args:
        population: members of a generation, twice N; ``4 + floor(3 ln d)`` by default, rounded to even.
        top: b; half of the pairs by default.
        sigma: radius of the search at the start (the paper's nu). By default a fifth of the box between two bounds
            and 0.5 elsewhere, and less above a hundred variables.
        lr: step size at the start (the paper's alpha); ``sigma sqrt(b) / 5`` by default, whose random part is two
            fifths of a ``sigma`` in each coordinate.
        directions: ``"gaussian"``, another name of :data:`dfo.directions.DISTRIBUTIONS`, or a law.
        schedule: how ``sigma`` and ``lr`` shrink: ``"cosine"`` (default), ``"exponential"`` or ``"constant"`` (the
            paper's; default with noise).
        average: recommend an average of the centers, in which late ones count more; by default with noise.
        floor: what is left of them at the end, as a share.
        horizon: evaluations over which they shrink; the budget of the run by default.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of its range.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method="ars", budget=2000).fun < 1e-3
        True
    """

    population: int | None = None
    top: int | None = None
    sigma: float | None = None
    lr: float | None = None
    directions: str | Distribution = "gaussian"
    schedule: Schedule | None = None
    average: bool | None = None
    floor: float = 1e-3
    horizon: int | None = None
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "sphere"})

    def __post_init__(self) -> None:
        check_choice(self, schedule=(None, *SCHEDULES))
        distribution(self.directions)
        check_positive(self, "sigma", "lr", "floor", "horizon", "top")
        check_population(self)

    def plan(self, task: Task) -> ARS:
        """Fill in the population, the first step, the horizon and the space."""
        d = task.space.dim
        return replace(
            self, population=members(task, self.population, 4 + int(3 * math.log(d))),
            sigma=first_sigma(task, self.sigma), horizon=self.horizon or task.budget or 1000 * d,
            space=self.space or task.space, schedule=self.schedule or ("constant" if task.noisy else "cosine"),
            average=task.noisy if self.average is None else self.average,
        )  # fmt: skip

    def init(self, x0: Point, key: Key) -> ARSState:
        """Return the state before the first question."""
        x = copy(x0) if is_blocks(x0) else onto_line(self.space, copy(x0))
        return ARSState(x, copy(x) if self.average else None, 0.0, key, 0)

    @property
    def _pairs(self) -> int:
        return max(1, (self.population or 16) // 2)

    @property
    def _top(self) -> int:
        return min(self._pairs, int(self.top or max(1, (self._pairs + 1) // 2)))

    def _shrunk(self, s: ARSState) -> float:
        return annealed(self.schedule or "cosine", s.step * 2 * self._pairs / (self.horizon or math.inf), self.floor)

    def _sigma(self, s: ARSState) -> float:
        return (self.sigma or 0.1) * self._shrunk(s)

    def _lr(self, s: ARSState) -> float:
        return (self.lr or (self.sigma or 0.1) * math.sqrt(self._top) / 5.0) * self._shrunk(s)

    def _drawn(self, s: ARSState) -> Directions:
        return Directions(distribution(self.directions), s.key.child(s.step), self._pairs, s.x)

    def ask(self, s: ARSState) -> Batch:
        """Ask about both ends of every direction (algorithm 1, line 4)."""
        index, scale = estimators.layout("central", self._pairs, self._sigma(s))
        batch = Perturbations((s.x,), self._drawn(s), scale, index=index, step=s.step)
        if not isinstance(self.space, Box):
            return batch
        spread = widened(self.space, self._sigma(s), len(batch), s.x) / self._sigma(s)
        return Points(into_box(self.space, s.x + (batch.dense() - s.x) * spread), step=s.step)

    def tell(self, s: ARSState, batch: Batch, told: Feedback) -> ARSState:
        """Step along the best pairs, over the standard deviation of their values (lines 5-7)."""
        later = replace(s, step=s.step + 1)
        w = top_pairs(estimators.usable(told), self._top)
        if not w.any():
            return later
        if not isinstance(batch, Perturbations):
            index, sign = estimators.layout("central", self._pairs, 1.0)
            batch = Perturbations((s.x,), self._drawn(s), sign, index=index)
        per_member = np.repeat(-self._lr(s) * w, 2) / 2.0  # both members of a pair name its direction
        delta: Any = batch.combine(per_member)
        x, moved = descent.plus(s.x, delta), descent.norm(delta)
        return replace(later, x=x, mean=descent.averaged(s.mean, x, later.step), moved=moved)

    def recommend(self, s: ARSState) -> Any:
        """Return the center, or the average of the centers."""
        x = s.x if s.mean is None else s.mean
        return copy(x) if is_blocks(x) else copy(into_box(self.space, x))

    def gauges(self, s: ARSState) -> dict[str, float]:
        """Return the radius, the step size and the length of the last step."""
        return {"sigma": self._sigma(s), "lr": self._lr(s), "update": s.moved}


def top_pairs(f: Floats, b: int) -> Floats:
    """Return ``(N,)`` weights ``(f+ - f-) / (b sigma_R)`` of the best ``b`` directions, 0 of the others.

    Args:
        f: ``(2 N,)`` values of mirrored pairs, neighbours; NaN where missing: such a pair is left out.
        b: directions that count: those with the lowest ``min(f+, f-)``.
    """
    pairs = f.reshape(-1, 2)
    low = np.where(np.isfinite(pairs).all(axis=1), pairs.min(axis=1), np.inf)
    best = np.argsort(low, kind="stable")[:b]
    best = best[np.isfinite(low[best])]
    w = np.zeros(len(pairs))
    if not best.size:
        return w
    chosen = pairs[best]
    size = max(float(np.abs(chosen).max()), 1e-300)  # so that no square overflows
    spread = float((chosen / size).std())
    if spread > 0.0:
        w[best] = (chosen[:, 0] / size - chosen[:, 1] / size) / (len(best) * spread)
    return w
