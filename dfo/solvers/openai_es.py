"""OpenAI's evolution strategy: gradient descent on ranks, along random directions.

A generation evaluates points ``x +- sigma u_j``; the order of its values becomes utilities ``w``, these an estimate
``g = -1/(n sigma) sum_i w_i u_i`` of the gradient of a smoothed objective, and an update rule takes a step. Nothing
of the size of the population is stored: directions are recipes, redrawn from a key.

References: Salimans, Ho, Chen, Sidor and Sutskever 2017, arXiv:1703.03864; Rechenberg 1973; Brockhoff et al. 2010
(mirrored sampling); Sarkar et al. 2025, "Evolution strategies at the hyperscale" (EGGROLL: low-rank directions).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Floats, Point, copy, is_blocks, size
from dfo.batch import Batch, Perturbations, Points
from dfo.components import descent
from dfo.components.borders import into_box, onto_line
from dfo.components.generations import SCHEDULES, Schedule, annealed, first_sigma, members, widened
from dfo.components.options import check_choice, check_not_negative, check_population, check_positive
from dfo.components.shaping import SHAPINGS, Shaping, by_rank, shaped
from dfo.directions import Directions, Distribution, LowRank, distribution
from dfo.feedback import Feedback
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key
from dfo.spaces import Box, Space

__all__ = ["STEP", "OpenAIES", "OpenAIESState"]

STEP = 2.0
"""Default step of plain descent, in standard deviations along the mean direction, whose weights sum to 1."""


@dataclass(frozen=True, eq=False)
class OpenAIESState:
    """The memory of :class:`OpenAIES`."""

    x: Any  # (d,) center, in free coordinates; or named blocks, moved in place
    start: Any  # where it began; None in blocks without an anchor
    mean: Any  # average of the centers, or None
    moments: descent.Moments
    moved: float  # length of the last step
    key: Key
    step: int


@dataclass(frozen=True)
class OpenAIES:
    """Evolution strategy with a cloud of fixed shape, rank shaping and mirrored directions.

    Uses only the order of the values of one generation, so it takes rankings too. Defaults are free of the scale of
    f: utilities depend on ranks, and the step size is a multiple of ``sigma``. Both shrink over the budget (over 1000
    evaluations a variable where none is given); with noise they stay, the centers are averaged, and directions are
    not mirrored. The default rule is plain descent: it needs no memory beside the point, and its steps grow shorter
    with the noise of the estimate, where the Adam of the paper (``rule="adam"``) moves every coordinate as far, those
    without a slope at random.

    Low-rank directions (EGGROLL) are ``directions=dfo.directions.LowRank(...)``. The variant for fine-tuning language
    models is ``OpenAIES(population=30, mirrored=False, shaping="standardized", rule="sgd", sigma=1e-3, lr=5e-7,
    schedule="constant")``: the step is then ``5e-4`` times the mean of ``w_i u_i``.

    Args:
        population: members of a generation; ``4 + floor(3 ln d)`` by default.
        sigma: first standard deviation. By default a fifth of the box between two bounds and 0.5 elsewhere, and
            less above a hundred variables, so that the cloud has a radius of at most 5 (2 in a box).
        lr: step size of the rule at the start; by default a multiple of sigma that suits the rule.
        directions: ``"gaussian"``, another name of :data:`dfo.directions.DISTRIBUTIONS`, or a law.
        mirrored: evaluate both ends of every direction, which cancels what is even in f (default); by default with
            noise only one end, so that the slope is estimated in twice as many directions (not if they are low-rank).
        shaping: utilities: ``"centered"`` ranks, ``"nes"``, ``"log"``, ``"standardized"`` values or ``"none"``.
        rule: ``"sgd"``, ``"adam"`` (the paper's), ``"clipup"``, ``"momentum"``, ``"sign"`` or ``"amsgrad"``.
        betas: decay of the first and second moment.
        eps: of Adam.
        l2: pull towards 0: ``l2 x`` is added to ``sigma g`` (0.005 in the paper).
        anchor: pull towards the start: ``anchor (x - x0)`` is added likewise, against forgetting.
        schedule: how ``sigma`` and ``lr`` shrink: ``"cosine"`` (default), ``"exponential"`` or ``"constant"`` (default
            with noise).
        average: recommend an average of the centers, in which late ones count more; by default with noise.
        floor: what is left of ``sigma`` and ``lr`` at the end, as a share of the first.
        horizon: evaluations over which they shrink; the budget of the run by default.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of its range.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method="openai-es", budget=2000).fun < 1e-4
        True
    """

    population: int | None = None
    sigma: float | None = None
    lr: float | None = None
    directions: str | Distribution = "gaussian"
    mirrored: bool | None = None
    shaping: Shaping = "centered"
    rule: descent.Rule = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    l2: float = 0.0
    anchor: float = 0.0
    schedule: Schedule | None = None
    average: bool | None = None
    floor: float = 1e-3
    horizon: int | None = None
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        check_choice(self, shaping=SHAPINGS, rule=descent.RULES, schedule=(None, *SCHEDULES))
        distribution(self.directions)
        check_positive(self, "sigma", "lr", "eps", "floor", "horizon")
        check_not_negative(self, "l2", "anchor")
        check_population(self)

    def plan(self, task: Task) -> OpenAIES:
        """Fill in the population, the first step, the horizon and the space."""
        d = task.space.dim
        return replace(
            self, population=members(task, self.population, 4 + int(3 * math.log(d))),
            sigma=first_sigma(task, self.sigma), horizon=self.horizon or task.budget or 1000 * d,
            space=self.space or task.space, schedule=self.schedule or ("constant" if task.noisy else "cosine"),
            average=task.noisy if self.average is None else self.average,
            mirrored=self._pairs_for(task.noisy) if self.mirrored is None else self.mirrored,
        )  # fmt: skip

    def _pairs_for(self, noisy: bool) -> bool:
        """Tell whether members come in pairs: low-rank directions (of very different lengths) always do."""
        return not noisy or isinstance(distribution(self.directions), LowRank)

    # ------------------------------------------------------------------ state

    def init(self, x0: Point, key: Key) -> OpenAIESState:
        """Return the state before the first question."""
        x = copy(x0) if is_blocks(x0) else onto_line(self.space, copy(x0))
        start = x if not is_blocks(x0) else copy(x0) if self.anchor else None
        mean = copy(x) if self.average else None
        return OpenAIESState(x, start, mean, descent.first_moments(self.rule, x), 0.0, key, 0)

    @property
    def _n(self) -> int:
        return self.population or 16

    def _layout(self) -> tuple[Any, Floats]:
        """Return which direction each member takes, and its sign; the last of an odd generation has no mirror."""
        each: Any = np.arange(self._n)
        return (each, np.ones(self._n)) if self.mirrored is False else (each // 2, 1.0 - 2.0 * (each % 2))

    def _shrunk(self, s: OpenAIESState) -> float:
        spent = s.step * self._n / (self.horizon or math.inf)
        return annealed(self.schedule or "cosine", spent, self.floor)

    def _sigma(self, s: OpenAIESState) -> float:
        return (self.sigma or 0.1) * self._shrunk(s)

    def _lr(self, s: OpenAIESState) -> float:
        """Return the step size, by default as scale-free as the rule allows."""
        if self.lr is not None:
            return self.lr * self._shrunk(s)
        sigma = self._sigma(s)
        if self.rule == "clipup":  # the cloud is 15 times the fastest step (Toklu et al. 2020, section 4)
            return sigma * math.sqrt(size(s.x)) / 30.0
        if self.rule in ("sgd", "momentum"):  # 2 sigma times a mean direction whose weights sum to 1
            kind: Shaping = self.shaping if self.shaping in ("centered", "nes", "log") else "centered"
            share = float(np.abs(by_rank(kind, self._n)).sum()) if self.shaping != "standardized" else 0.8 * self._n
            return STEP * sigma**2 * self._n / max(share, 1e-300)
        return 0.5 * sigma

    def _drawn(self, s: OpenAIESState) -> Directions:
        count = self._n if self.mirrored is False else (self._n + 1) // 2
        return Directions(distribution(self.directions), s.key.child(s.step), count, s.x)

    # ------------------------------------------------------------------ ask and tell

    def ask(self, s: OpenAIESState) -> Batch:
        """Ask about the ends of the directions: ``x +- sigma u_j`` (their section 2.1)."""
        index, sign = self._layout()
        batch = Perturbations((s.x,), self._drawn(s), self._sigma(s) * sign, index=index, step=s.step)
        if not isinstance(self.space, Box):
            return batch
        spread = widened(self.space, self._sigma(s), self._n, s.x) / self._sigma(s)
        return Points(into_box(self.space, s.x + (batch.dense() - s.x) * spread), step=s.step)

    def tell(self, s: OpenAIESState, batch: Batch, told: Feedback) -> OpenAIESState:
        """Take a step of the rule along ``g = -1/(n sigma) sum_i w_i u_i`` (their algorithm 1)."""
        index, sign = self._layout()
        w = shaped(self.shaping, told) * sign / -self._n
        later = replace(s, step=s.step + 1)
        if not w.any():  # nobody was better than anybody
            return later
        if not isinstance(batch, Perturbations):
            batch = Perturbations((s.x,), self._drawn(s), sign, index=index)
        g = self._pulled(s, batch.combine(w))  # sigma g: for most rules only the direction counts
        lr = self._lr(s) / (self._sigma(s) if self.rule in ("sgd", "momentum") else 1.0)
        delta, moments = descent.step(self.rule, g, s.moments, lr, self.betas, self.eps)
        moved = descent.norm(delta)
        if not math.isfinite(moved):  # utilities without shaping may be of any size
            return later
        x = descent.plus(s.x, delta)
        mean = descent.averaged(s.mean, x, moments.count)
        return replace(later, x=x, mean=mean, moments=moments, moved=moved)

    def _pulled(self, s: OpenAIESState, g: Any) -> Any:
        """Return the gradient of the objective plus those of the penalties."""
        if self.l2:
            g = descent.each(lambda g, x: g + self.l2 * x, g, s.x)
        if self.anchor:
            g = descent.each(lambda g, x, start: g + self.anchor * (x - start), g, s.x, s.start)
        return g

    # ------------------------------------------------------------------ reports

    def recommend(self, s: OpenAIESState) -> Any:
        """Return the center, or the average of the centers."""
        x = s.x if s.mean is None else s.mean
        return copy(x) if is_blocks(x) else copy(into_box(self.space, x))

    def gauges(self, s: OpenAIESState) -> dict[str, float]:
        """Return the standard deviation, the step size, the length of the last step, and the way from the start."""
        gauges = {"sigma": self._sigma(s), "lr": self._lr(s), "update": s.moved}
        if s.start is not None:
            gauges["drift"] = descent.norm(descent.each(lambda x, start: x - start, s.x, s.start))
        return gauges
