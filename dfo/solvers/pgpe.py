"""PGPE, policy gradients with parameter-based exploration: a gaussian cloud that follows its parameters' gradient.

The cloud has a center ``mu`` and one standard deviation a coordinate. A generation evaluates mirrored pairs
``mu +- sigma z_j``; the difference of a pair says where the center goes, its mean whether the cloud is too wide.

References: Sehnke, Osendorfer, Rueckstiess, Graves, Peters and Schmidhuber 2010, "Parameter-exploring policy
gradients", Neural Networks 23 (symmetric sampling: eqs. 14-16); Toklu, Liskowski and Srivastava 2020,
arXiv:2008.02387 (ClipUp, and the limit on the change of a standard deviation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from dfo.arrays import Array, copy, namespace
from dfo.batch import Batch, Points
from dfo.components import descent
from dfo.components.borders import into_box, onto_line
from dfo.components.generations import SCHEDULES, Schedule, annealed, first_sigma, members, widened
from dfo.components.options import check_choice, check_population, check_positive
from dfo.components.sampling import cloud, moments
from dfo.components.shaping import SHAPINGS, Shaping, shaped
from dfo.components.strategy import bounded_steps
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key
from dfo.spaces import Space

__all__ = ["PGPE", "PGPEState"]


@dataclass(frozen=True, eq=False)
class PGPEState:
    """The memory of :class:`PGPE`."""

    x: Array  # (d,) center, in free coordinates
    stdev: Array  # (d,)
    mean: Array | None  # (d,) average of the centers
    moments: descent.Moments
    moved: float  # length of the last step
    key: Key
    step: int


@dataclass(frozen=True)
class PGPE:
    """PGPE with symmetric sampling, rank shaping and ClipUp.

    Uses only the order of the values of one generation. Steps are measured in the cloud's own size, so that the
    cloud may shrink with the distance to the minimum. Memory beside the point: two arrays of its size.

    Args:
        population: members of a generation; ``4 + floor(3 ln d)`` by default.
        sigma: first standard deviation. By default a fifth of the box between two bounds and 0.5 elsewhere, and
            less above a hundred variables, so that the cloud has a radius of at most 5 (2 in a box).
        lr: step size of the rule at the start, which then shrinks and grows with the cloud. By default 1/30 of
            the cloud's radius ``|sigma|`` for ClipUp (its fastest step is then 1/15 of it, as in its section 4), half
            a standard deviation for Adam and its kin, and 4 for sgd and momentum, whose gradient is the cloud's size.
        lr_sigma: step size of the standard deviations.
        max_change: most that a standard deviation may change in a step, as a share of it.
        shaping: utilities: ``"centered"`` ranks, ``"nes"``, ``"log"``, ``"standardized"`` values or ``"none"``.
        rule: ``"clipup"``, ``"adam"``, ``"sgd"``, ``"momentum"``, ``"sign"`` or ``"amsgrad"``.
        betas: decay of the first and second moment; the first is ClipUp's momentum.
        eps: of Adam.
        schedule: how the step size shrinks beside the cloud: ``"constant"``, ``"cosine"`` or ``"exponential"``.
        floor: what the schedule leaves at the end, as a share.
        horizon: evaluations of the schedule; the budget of the run by default.
        average: recommend an average of the centers, in which late ones count more; by default with noise.
        xtol: converged when all standard deviations are below this.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of its range.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method="pgpe", budget=3000).fun < 1e-4
        True
    """

    population: int | None = None
    sigma: float | None = None
    lr: float | None = None
    lr_sigma: float = 0.1
    max_change: float = 0.2
    shaping: Shaping = "centered"
    rule: descent.Rule = "clipup"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule = "constant"
    floor: float = 1e-3
    horizon: int | None = None
    average: bool | None = None
    xtol: float = 1e-11
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        check_choice(self, shaping=SHAPINGS, rule=descent.RULES, schedule=SCHEDULES)
        check_positive(self, "sigma", "lr", "lr_sigma", "eps", "floor", "horizon", "xtol")
        if not 0 < self.max_change < 1:
            raise InvalidArgument(f"max_change: expected a share in (0, 1), got {self.max_change!r}.")
        check_population(self)

    def plan(self, task: Task) -> PGPE:
        """Fill in the population, the first step, the horizon and the space."""
        d = task.space.dim
        return replace(
            self, population=members(task, self.population, 4 + int(3 * math.log(d))),
            sigma=first_sigma(task, self.sigma), horizon=self.horizon or task.budget or 1000 * d,
            space=self.space or task.space, average=task.noisy if self.average is None else self.average,
        )  # fmt: skip

    def init(self, x0: Array, key: Key) -> PGPEState:
        """Return the state before the first question."""
        x = onto_line(self.space, copy(x0))
        stdev = namespace(x).zeros_like(x) + (self.sigma or 0.1)
        return PGPEState(x, stdev, copy(x) if self.average else None, descent.first_moments(self.rule, x), 0.0, key, 0)

    @property
    def _n(self) -> int:
        return self.population or 16

    def _lr(self, s: PGPEState) -> float:
        """Return the step size: a multiple of the present size of the cloud."""
        share = annealed(self.schedule, s.step * self._n / (self.horizon or math.inf), self.floor)
        if self.rule in ("sgd", "momentum"):  # the gradient has the size of the cloud already
            return (self.lr or 4.0) * share
        radius = descent.norm(s.stdev)
        first = (self.sigma or 0.1) * math.sqrt(s.x.shape[0])  # its radius at the start
        usual = first / 30.0 if self.rule == "clipup" else 0.5 * (self.sigma or 0.1)
        return (self.lr or usual) * share * radius / first

    def ask(self, s: PGPEState) -> Points:
        """Ask about mirrored pairs around the center (Sehnke et al. 2010, eq. 14)."""
        n, spread = self._n, widened(self.space, s.stdev, self._n, s.x)
        G = cloud(s.x, spread, s.key.child(s.step), n + n % 2, mirrored=True)[:n]  # the last one may have no mirror
        X = into_box(self.space, G)
        return Points(X, step=s.step, latent=None if X is G else G)

    def tell(self, s: PGPEState, batch: Batch, told: Feedback) -> PGPEState:
        """Move the center and the standard deviations along their gradients."""
        assert isinstance(batch, Points)
        u, later = shaped(self.shaping, told), replace(s, step=s.step + 1)
        if not u.any():  # nobody was better than anybody
            return later
        n, G = self._n, batch.X if batch.latent is None else batch.latent
        spread = widened(self.space, s.stdev, n, s.x)
        # eqs. 15 and 16 with utilities: mean over the pairs of 1/2 (u+ - u-) z and of (1/2 (u+ + u-) - b) (z^2 - 1)
        first, second = moments(G, s.x, spread, u / -n, (u - u.mean()) / n, mirrored=True)
        first *= s.stdev
        delta, memory = descent.step(self.rule, first, s.moments, self._lr(s), self.betas, self.eps)
        moved = descent.norm(delta)
        if not math.isfinite(moved):  # utilities without shaping may be of any size
            return later
        change = namespace(second).clip(self.lr_sigma * second, -self.max_change, self.max_change)
        x = s.x + delta
        stdev = bounded_steps(s.stdev + change * s.stdev, x)
        mean = descent.averaged(s.mean, x, memory.count)
        return replace(later, x=x, stdev=stdev, mean=mean, moments=memory, moved=moved)

    def finished(self, s: PGPEState) -> str | None:
        """Return why there is nothing left to do."""
        largest = float(s.stdev.max())
        return f"PGPE converged: all standard deviations are below xtol={self.xtol:g}." if largest < self.xtol else None

    def recommend(self, s: PGPEState) -> Array:
        """Return the center, or the average of the centers."""
        point: Array = copy(into_box(self.space, s.x if s.mean is None else s.mean))
        return point

    def gauges(self, s: PGPEState) -> dict[str, float]:
        """Return the largest standard deviation, the step size and the length of the last step."""
        return {"sigma": float(s.stdev.max()), "lr": self._lr(s), "update": s.moved}
