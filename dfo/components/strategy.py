"""What evolution strategies share around their formulae: options, populations, ends, restarts, foreign points.

A :class:`Strategy` draws a population around a mean and learns from its order. A subclass says how: it
begins a state, draws free points, and moves the distribution. Everything lives in free coordinates, which
:func:`~dfo.components.borders.into_box` maps into the bounds; where that changes a population, its free points
ride along as ``latent``, and nowhere else is a second array of its size kept.

Reference: Hansen 2009, "Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed" (ends and restarts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from dfo.arrays import Array, Floats, as_like, namespace
from dfo.batch import Batch, Points
from dfo.components.borders import into_box, onto_line
from dfo.components.ends import no_progress, patience, window
from dfo.components.generations import first_sigma
from dfo.components.options import check_positive
from dfo.components.ranking import merits
from dfo.components.restarts import POLICIES, Policy, Regime, first_regime, next_regime, restart_point
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback, Values
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key
from dfo.spaces import Space

__all__ = ["Run", "Strategy", "bounded_steps"]


@dataclass(frozen=True, eq=False)
class Run:
    """Where a strategy stands in its sequence of runs.

    Args:
        x0: ``(d,)`` the start, as given.
        regime: population and step of the present run, and what the earlier ones spent.
        recent: ``(2, w)`` lowest and median merits of the last generations of this run, newest last.
        best: lowest merit of this run.
        age: generations of this run.
        ended: why the last run ended; empty while the first one goes on.
        champion: ``(d,)`` final mean of the best finished run.
        champion_level: mean of its last lowest merits.
        foreign: ``(d,)`` a better point that was evaluated elsewhere; the mean moves there after this generation.
    """

    x0: Array
    regime: Regime
    recent: Floats
    best: float
    age: int
    ended: str
    champion: Array
    champion_level: float
    foreign: Array | None = None

    @property
    def level(self) -> float:
        """Mean of the lowest merits of the last ten generations (under noise the minimum is luck); else infinite."""
        last = self.recent[0, -10:]
        return float(last.mean()) if np.isfinite(last).all() else math.inf


def _first_run(x0: Array, population: int) -> Run:
    return _begun(x0, first_regime(population), "", namespace(x0).zeros_like(x0), math.inf)


def _begun(x0: Array, regime: Regime, ended: str, champion: Array, level: float) -> Run:
    d, n = int(x0.shape[0]), regime.population
    recent = np.full((2, max(window(d, n), 20 + 4 * patience(d, n))), np.inf)
    return Run(x0, regime, recent, math.inf, 0, ended, champion, level)


def _noted(run: Run, told: Feedback) -> Run:
    """Return the record with one more generation in it; ranks of different generations are not comparable."""
    if not isinstance(told, Values):
        return replace(run, age=run.age + 1)
    merit = told.merit()
    low, median = float(merit.min()), float(np.sort(merit)[len(merit) // 2])
    recent = np.concatenate((run.recent[:, 1:], ((low,), (median,))), axis=1)
    return replace(run, recent=recent, best=min(low, run.best), age=run.age + 1)


def _stalled(run: Run, merit: Floats, d: int, ftol: float) -> str:
    """Return why the values say that this run has converged, or an empty string (Hansen 2009, section 3)."""
    lows, medians = run.recent
    high = float(merit.max())
    if not math.isfinite(lows[-1]) or not math.isfinite(high):  # a ranking, or failures
        return ""
    if lows[-1] == high and lows[-2] == medians[-2]:
        return "all values of a generation are equal"
    last = lows[-window(d, len(merit)) :]
    if high - float(lows[-1]) < ftol and float(last.max()) - float(last.min()) < ftol:
        return f"the values of recent generations differ by less than ftol={ftol:g}"
    return no_progress(run.recent, run.age, d, len(merit)) if run.age % 10 == 0 else ""


def bounded_steps(stdev: Any, mean: Array) -> Any:
    """Return standard deviations between the rounding of the mean and the root of the largest number.

    Below the first, points drawn around the mean fall on it; above the second, squares overflow.

    Args:
        stdev: a number, or ``(d,)``.
        mean: ``(d,)``.
    """
    xp, info = namespace(mean), namespace(mean).finfo(mean.dtype)
    low, high = float(info.tiny) ** 0.5, float(info.max) ** 0.5 * 1e-4
    if isinstance(stdev, float):
        return min(max(stdev, low), high)
    floor = float(info.eps) * xp.abs(mean)
    return xp.clip(xp.maximum(stdev, floor), low, high)


@dataclass(frozen=True)
class Strategy:
    """The frame of an evolution strategy; a subclass has ``_begin``, ``_draw``, ``_learn`` and ``_spread``.

    Its states are dataclasses with at least ``mean`` (d,), ``run``, ``key`` and ``step``.

    Args:
        population: points per generation; ``4 + floor(3 ln d)`` by default, three times that with noise.
        sigma: initial standard deviation.
        restarts: ``"bipop"`` (default), ``"ipop"``, ``"same"`` or ``"none"``. Without a budget, and with noise, the
            default is ``"none"``: the run ends when it has converged.
        xtol: a run has converged when all standard deviations are below this.
        ftol: a run has converged when the values of a generation and the best of the recent ones differ by less.
        space: where to search; filled in by the run.
        noisy: values jitter: a run is not ended because of values.
        max_population: bound on what restarts double; the most that the oracle takes by default.

    Raises:
        InvalidArgument: population below 2, a number that is not positive and finite, unknown restarts.
    """

    population: int | None = None
    sigma: float | None = None
    restarts: Policy | None = None
    xtol: float = 1e-11
    ftol: float = 1e-9
    space: Space | None = None
    noisy: bool = False
    max_population: int | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})
    title: ClassVar[str] = "the strategy"

    def __post_init__(self) -> None:
        if self.population is not None and (self.population != int(self.population) or self.population < 2):
            raise InvalidArgument(f"population: expected an integer >= 2, got {self.population!r}.")
        check_positive(self, "sigma")
        if self.restarts is not None and self.restarts not in POLICIES:
            raise InvalidArgument(f"restarts: expected one of {', '.join(POLICIES)}, got {self.restarts!r}.")

    def plan(self, task: Task) -> Self:
        """Fill in population, step, restarts and space."""
        population = self.population or task.batch or self._population(task.space.dim)
        if task.noisy and self.population is None and task.batch is None:  # many parents average the noise out
            population = max(population, min(3 * population, (task.budget or 10**9) // 30))
        if task.max_batch is not None:
            population = min(population, task.max_batch)
        once = task.budget is None or task.noisy or "values" not in task.gives  # rankings compare no two runs
        return replace(
            self, population=max(2, population), sigma=first_sigma(task, self.sigma),
            restarts=self.restarts or ("none" if once else "bipop"),
            space=self.space or task.space, noisy=self.noisy or task.noisy,
            max_population=self.max_population or task.max_batch,
        )  # fmt: skip

    def _population(self, d: int) -> int:
        return 4 + int(3 * math.log(d))

    def _inside(self, G: Array) -> Array:
        """Return the points of the space at free points, one or many."""
        return into_box(self.space, G)

    def _free(self, x: Array) -> Array:
        """Return the free point of a point of the space."""
        return onto_line(self.space, x)

    # ------------------------------------------------------------------ what a subclass does

    def _begin(self, mean: Array, sigma: float, run: Run, key: Key, step: int) -> Any:
        """Return the state at the beginning of a run."""
        raise NotImplementedError

    def _draw(self, s: Any, n: int) -> Array:
        """Return ``(n, d)`` free points."""
        raise NotImplementedError

    def _learn(self, s: Any, G: Array, told: Feedback) -> Any:
        """Return the state with the distribution moved by the order of the free points ``G``."""
        raise NotImplementedError

    def _spread(self, s: Any) -> Any:
        """Return the standard deviations, a number or ``(d,)``."""
        raise NotImplementedError

    # ------------------------------------------------------------------ ask and tell

    def init(self, x0: Array, key: Key) -> Any:
        """Return the state before the first question."""
        run = _first_run(x0, self.population or self._population(int(x0.shape[0])))
        return self._begin(self._free(x0), self.sigma or 0.5, run, key, 0)

    def ask(self, s: Any) -> Points:
        """Draw a population."""
        G = self._draw(s, s.run.regime.population)
        X = self._inside(G)
        return Points(X, step=s.step, latent=None if X is G else G)

    def tell(self, s: Any, batch: Batch, told: Feedback) -> Any:
        """Move the distribution, and begin anew where a run has ended."""
        merit = merits(told)
        if np.isnan(merit).all():  # a skipped ranking
            return replace(s, step=s.step + 1)
        G = batch.X if batch.latent is None else batch.latent  # type: ignore[attr-defined]
        s = replace(self._learn(s, G, told), run=_noted(s.run, told), step=s.step + 1)
        ended = self._ended(s, merit)
        if not ended:
            return s if s.run.foreign is None else self._moved(s)
        if self.restarts in (None, "none"):
            return replace(s, run=replace(s.run, ended=ended, foreign=None))
        return self._restart(s, ended)

    def _moved(self, s: Any) -> Any:
        mean = self._free(s.run.foreign)
        return replace(s, mean=mean, run=replace(s.run, foreign=None))

    # ------------------------------------------------------------------ ends and restarts

    def _ended(self, s: Any, merit: Floats) -> str:
        """Return why this run has ended, or an empty string."""
        run, d = s.run, int(s.mean.shape[0])
        if run.regime.cap is not None and run.age * run.regime.population >= run.regime.cap:
            return "small run: its share is spent"
        xp, spread = namespace(s.mean), self._spread(s)
        rounding = 4.0 * float(xp.finfo(s.mean.dtype).eps) * xp.abs(s.mean)
        if bool((spread < xp.clip(rounding, self.xtol, None)).all()):
            return f"all standard deviations are below xtol={self.xtol:g} or the rounding of the mean"
        return "" if self.noisy else _stalled(run, merit, d, self.ftol)

    def _restart(self, s: Any, ended: str) -> Any:
        run: Run = s.run
        key = s.key.child("restart", run.regime.run + 1)
        first = self.population or self._population(int(s.mean.shape[0]))
        spent = run.age * run.regime.population
        policy = self.restarts or "same"
        regime = next_regime(policy, run.regime, spent, first, key.child("regime"), self.max_population)
        # a large population explores from the user's start, small ones look closely somewhere else
        somewhere, sigma = regime.small or policy == "same", self.sigma or 0.5
        mean = restart_point(self.space, run.x0, sigma, key.child("start")) if somewhere else run.x0
        best = (s.mean, run.level) if run.level < run.champion_level else (run.champion, run.champion_level)
        fresh = _begun(run.x0, regime, ended, *best)
        return self._begin(self._free(mean), sigma * regime.sigma, fresh, s.key, s.step)

    def observe(self, s: Any, points: Array, values: Floats) -> Any:
        """Remember the best of points evaluated elsewhere; the mean moves there if it is better than this run's best.

        Args:
            s: the state.
            points: ``(k, d)``.
            values: ``(k,)``.
        """
        i = int(np.argmin(values))
        if not values[i] < s.run.best:
            return s
        return replace(s, run=replace(s.run, foreign=as_like(points[i], s.mean), best=float(values[i])))

    def finished(self, s: Any) -> str | None:
        """Return why a run without restarts has ended."""
        done = s.run.ended and self.restarts in (None, "none")
        return f"{self.title} converged: {s.run.ended}." if done else None

    def recommend(self, s: Any) -> Array:
        """Return the mean of the search distribution, of the best finished run if this one is not better yet."""
        return self._inside(s.run.champion if s.run.champion_level < s.run.level else s.mean)

    def gauges(self, s: Any) -> dict[str, float]:
        """Return the largest standard deviation, the population and the number of restarts."""
        spread: Any = self._spread(s)
        return {
            "sigma": spread if isinstance(spread, float) else float(spread.max()),
            "population": float(s.run.regime.population),
            "restarts": float(s.run.regime.run),
        }
