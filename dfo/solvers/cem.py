"""The cross-entropy method: fit a gaussian to the best share of its own samples, again and again.

Plain CEM, its remedies against collapse (a floor, a fading extra variance), and what model-predictive control
adds: noise coloured over a horizon, elites that are kept, a population that shrinks, the mean as the last candidate.

References: Rubinstein and Kroese 2004, "The cross-entropy method" (smoothed updates, eqs. 4.4 and 5.3); de Boer,
Kroese, Mannor and Rubinstein 2005, Annals of Operations Research 134; Szita and Lorincz 2006, "Learning Tetris using
the noisy cross-entropy method", Neural Computation 18 (extra variance); Pinneri et al. 2020, "Sample-efficient
cross-entropy method for real-time planning", arXiv:2008.06389 (iCEM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace
from dfo.components.borders import step_floor
from dfo.components.options import check_positive
from dfo.components.ranking import merits, spread_over_ranks
from dfo.components.sampling import cloud, moments
from dfo.components.strategy import Run, Strategy, bounded_steps
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback, Values
from dfo.protocols import Task
from dfo.random import Key, normal, uniform
from dfo.spaces import Box

__all__ = ["CEM", "CEMState", "colored", "elite_weights", "small_sample"]


@dataclass(frozen=True, eq=False)
class CEMState:
    """The memory of :class:`CEM`."""

    mean: Array  # (d,)
    stdev: Array  # (d,)
    kept: Array  # (k, d) elites that are asked again; none before the first answer
    run: Run
    key: Key
    step: int


@dataclass(frozen=True)
class CEM(Strategy):
    """Cross-entropy method: a gaussian with one standard deviation a coordinate, fitted to the elite.

    ``mean <- a mean + (1 - a) mean of the elite``, ``stdev <- b stdev + (1 - b) stdev of the elite``, where the
    elite is the best share of the population and its standard deviation is the unbiased estimate. Between bounds the
    gaussian is truncated.

    Args:
        population: points per generation; ``8 + 2 floor(3 ln d)`` by default, three times that with noise.
        sigma: initial standard deviation: a fraction of the box between two bounds (0.2 by default), in
            units of x elsewhere (0.5 by default); the defaults shrink above a hundred variables.
        restarts: as in :class:`~dfo.components.strategy.Strategy`.
        xtol: a run has converged when all standard deviations are below this.
        ftol: a run has converged when the values of recent generations differ by less than this.
        space: where to search; filled in by the run.
        noisy: values jitter: a run is not ended because of values, and by default there are no restarts.
        max_population: bound on what restarts double.
        elite: share of the population that is the elite, at least three members (two of fewer than six).
        smoothing: share ``a`` of the old mean that is kept.
        smoothing_stdev: share ``b`` of the old standard deviations that is kept; ``1 - 0.12 (3 + ln d) / sqrt(d)`` by
            default, at least 0.1: what few elites say about many variances is mostly chance.
        floor: standard deviations never fall below this share of ``sigma``.
        extra: added to the standard deviations (as variances), as a share of ``sigma``, fading linearly ...
        extra_steps: ... to nothing over this many generations.
        horizon: time steps, when a point is a sequence of actions ``(horizon, actions)`` row by row.
        color: exponent of the noise over the horizon: its power falls as ``1 / frequency ** color``; 0 is white.
        keep: share of the elite that is asked again in the next generation.
        shrink: the population is divided by this from generation to generation, down to twice the elite.
        iterations: generations of one plan; the last one asks about the mean too, and the run ends after it.

    Raises:
        InvalidArgument: a share outside [0, 1], a number that is not positive, a horizon that does not fit.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method="cem", budget=4000).fun < 1e-8
        True
    """

    elite: float = 0.15
    smoothing: float = 0.1
    smoothing_stdev: float | None = None
    floor: float = 0.0
    extra: float = 0.0
    extra_steps: int = 50
    horizon: int | None = None
    color: float = 0.0
    keep: float = 0.0
    shrink: float = 1.0
    iterations: int | None = None

    title: ClassVar[str] = "CEM"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "elite", "extra_steps", "horizon", "iterations", "shrink")
        for name in ("elite", "smoothing", "smoothing_stdev", "keep"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise InvalidArgument(f"{name}: expected a share between 0 and 1, got {value!r}.")
        for name in ("floor", "extra", "color"):
            if not 0.0 <= getattr(self, name) < 1e3:
                raise InvalidArgument(f"{name}: expected a number >= 0, got {getattr(self, name)!r}.")
        if self.shrink < 1.0:
            raise InvalidArgument(f"shrink: expected a factor >= 1, got {self.shrink!r}.")

    def plan(self, task: Task) -> CEM:
        """Fill in population, step, restarts and space."""
        if self.horizon is not None and task.space.dim % self.horizon:
            raise InvalidArgument(
                f"horizon: expected a divisor of the {task.space.dim} variables, got {self.horizon!r}."
                " A point is (horizon, actions), row by row."
            )
        restarts = self.restarts or ("none" if self.iterations is not None else None)
        return super(CEM, replace(self, restarts=restarts)).plan(task)

    def _population(self, d: int) -> int:
        return 2 * (4 + int(3 * math.log(d)))

    def _elite(self, n: int) -> int:
        return min(n - 1, max(3 if n >= 6 else 2, round(self.elite * n)))

    def _inside(self, G: Array) -> Array:
        return as_like(self.space.project(G), G) if isinstance(self.space, Box) else G

    def _free(self, x: Array) -> Array:
        return x

    def _begin(self, mean: Array, sigma: float, run: Run, key: Key, step: int) -> CEMState:
        xp = namespace(mean)
        stdev = bounded_steps(sigma * xp.ones_like(mean), mean)
        return CEMState(mean, stdev, xp.zeros((0, mean.shape[0]), dtype=mean.dtype, device=mean.device), run, key, step)

    # ------------------------------------------------------------------ drawing

    def _draw(self, s: CEMState, n: int) -> Array:
        """Draw a population; kept elites and the last mean take the places of its last members."""
        age = s.run.age
        n = min(n, max(2 * self._elite(n), math.ceil(n * self.shrink**-age)))
        key, stdev = s.key.child(s.step), self._steps(s)
        if self.horizon is None:
            X: Any = cloud(s.mean, stdev, key, n)
            X = _truncated(self.space, X, s.mean, stdev, key.child("inside"))
        else:
            d = int(s.mean.shape[0])
            z = normal(key, (n, self.horizon, d // self.horizon), s.mean)
            X = s.mean + stdev * colored(z, self.color).reshape(n, d)
        kept = min(len(s.kept), n - 2)
        if kept:
            X[n - kept :] = s.kept[:kept]
        if self.iterations is not None and age == self.iterations - 1:
            X[n - kept - 1] = s.mean
        return X  # type: ignore[no-any-return]

    def _steps(self, s: CEMState) -> Any:
        """Return the standard deviations, raised in coordinates with cells so that steps keep leaving them."""
        cells = step_floor(self.space, s.run.regime.population)
        return s.stdev if cells is None else namespace(s.mean).maximum(s.stdev, as_like(cells, s.mean))

    # ------------------------------------------------------------------ learning

    def _learn(self, s: CEMState, G: Array, told: Feedback) -> CEMState:
        xp, merit = namespace(s.mean), merits(told)
        X: Any = G
        if isinstance(told, Values) and told.moved is not None:  # a filter moved the points: learn where they were
            M: Any = as_like(told.moved, s.mean)
            X = xp.where(xp.isfinite(M).all(axis=1)[:, None], M, G)
        count = self._elite(s.run.regime.population)
        w = elite_weights(merit, count)
        if not w.any():
            return s
        members = 1.0 / float(w @ w)
        shift, square = moments(X, s.mean, 1.0, w, w)
        mean = s.mean + (1.0 - self.smoothing) * shift
        stdev = s.stdev
        if members > 1.5:
            spread = xp.sqrt(xp.clip(square - shift * shift, 0.0, None)) / small_sample(members)
            spread = xp.sqrt(spread * spread + self._extra(s) ** 2)
            b = self._kept_stdev(int(s.mean.shape[0]))
            stdev = b * stdev + (1.0 - b) * spread
        best = np.argsort(np.where(w > 0, merit, np.inf), kind="stable")
        kept = X[best[: min(round(self.keep * count), int((w > 0).sum()))].tolist()]
        return replace(s, mean=mean, stdev=bounded_steps(self._floored(s, stdev), mean), kept=kept)

    def _kept_stdev(self, d: int) -> float:
        if self.smoothing_stdev is not None:
            return self.smoothing_stdev
        return 1.0 - min(0.9, 0.12 * (3 + math.log(d)) / math.sqrt(d))

    def _first(self, s: CEMState) -> float:
        return (self.sigma or 0.5) * s.run.regime.sigma

    def _extra(self, s: CEMState) -> float:
        """Return the extra standard deviation of this generation."""
        return self._first(s) * self.extra * max(0.0, 1.0 - s.run.age / self.extra_steps)

    def _floored(self, s: CEMState, stdev: Any) -> Any:
        return namespace(stdev).clip(stdev, self._first(s) * self.floor, None) if self.floor else stdev

    def _ended(self, s: CEMState, merit: Floats) -> str:
        if self.iterations is not None and s.run.age >= self.iterations:
            return f"{self.iterations} iterations are done"
        return super()._ended(s, merit)

    def _spread(self, s: CEMState) -> Any:
        return s.stdev

    def shifted(self, s: CEMState, actions: int = 1) -> CEMState:
        """Return the state for planning one time step later: everything moves up, the last actions are repeated.

        The standard deviations begin anew, the count of iterations too. A loop of model-predictive control calls
        this between plans.

        Args:
            s: the state at the end of a plan.
            actions: numbers of one time step.
        """
        xp = namespace(s.mean)
        run = replace(s.run, age=0, ended="", recent=np.full_like(s.run.recent, np.inf), best=math.inf)
        mean = xp.concat((s.mean[actions:], s.mean[-actions:]))
        fresh = self._begin(mean, self.sigma or 0.5, run, s.key, s.step)
        return replace(fresh, kept=xp.concat((s.kept[:, actions:], s.kept[:, -actions:]), axis=1))


def elite_weights(merit: Floats, count: int) -> Floats:
    """Return ``(n,)`` equal weights of the ``count`` best members, sum 1; ties at the edge share what is left.

    Args:
        merit: ``(n,)`` lower is better; members that were not shown or failed are no elite, all weights are 0
            where there are no others.
        count: members of the elite; fewer where fewer are usable.
    """
    usable = np.isfinite(merit)
    weights, known = np.zeros(len(merit)), int(usable.sum())
    if known:
        k = min(count, known)
        weights[usable] = spread_over_ranks(np.where(np.arange(known) < k, 1.0 / k, 0.0), merit[usable])
    return weights


def small_sample(k: float) -> float:
    """Return the mean of the root of the mean square deviation of ``k`` normal numbers from their own mean.

    Their standard deviation divided by this has mean 1. Without it every generation would shrink a little by itself,
    with two elites to 0.56.
    """
    return math.sqrt(2.0 / k) * math.exp(math.lgamma(k / 2) - math.lgamma((k - 1) / 2))


def colored(z: Array, color: float) -> Array:
    """Return white noise ``(n, horizon, a)`` with power ``1 / frequency ** color`` over the horizon.

    Each number keeps mean 0 and variance 1; the lowest frequency stands for the constant, too (Timmer and Koenig
    1995, "On generating power law noise"). With ``color=0`` it is ``z``.
    """
    h = int(z.shape[1])
    if color == 0.0 or h < 2:
        return z
    xp, f = namespace(z), np.arange(h // 2 + 1) / h
    amplitude = np.maximum(f, 1.0 / h) ** (-color / 2.0)
    both = np.full(len(f), 2.0)  # frequencies that stand for a pair
    both[0] = 1.0
    if h % 2 == 0:
        both[-1] = 1.0
    amplitude /= math.sqrt(float((both * amplitude**2).sum()) / h)
    spectrum = xp.fft.rfft(z, axis=1) * as_like(amplitude, z)[:, None]
    return as_like(xp.fft.irfft(spectrum, n=h, axis=1), z)


def _truncated(space: Any, X: Any, mean: Any, stdev: Any, key: Key) -> Any:
    """Return the points with the coordinates outside of the box drawn again from the normal law inside of it."""
    if not isinstance(space, Box):
        return X
    xp, lower, upper = namespace(X), as_like(space.lower, X), as_like(space.upper, X)
    outside = xp.clip(X, lower, upper) != X
    if not bool(outside.any()):
        return X
    erf, erfinv = _error_functions(X)
    low, high = erf((lower - mean) / stdev * 0.5**0.5), erf((upper - mean) / stdev * 0.5**0.5)
    edge = 1.0 - float(xp.finfo(X.dtype).eps)
    inside = mean + stdev * 2.0**0.5 * erfinv(xp.clip(low + uniform(key, X.shape, X) * (high - low), -edge, edge))
    return xp.where(outside, xp.clip(inside, lower, upper), X)


def _error_functions(like: Array) -> tuple[Any, Any]:
    if is_torch(like):
        xp = namespace(like)
        return xp.erf, xp.erfinv
    from scipy.special import erf, erfinv

    return erf, erfinv
