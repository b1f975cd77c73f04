"""CMA-ES: evolution strategies that learn the covariance of their steps.

Full covariance (``CMA``) with active negative weights, cumulative step-size adaptation, IPOP and BIPOP
restarts, bounds by a smooth map, and integers by a floor under their steps; and the separable variant
(``SepCMA``) whose covariance is diagonal and whose cost is linear in d.

References: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772 (equations by its
numbers); Ros and Hansen 2008, "A simple modification in CMA-ES achieving linear time and space
complexity" (sep-CMA); Hansen 2009 (BIPOP, in :mod:`dfo.components.restarts`); Wang, Emmerich and Baeck 2019,
"Mirrored orthogonal sampling for covariance matrix adaptation evolution strategies" (orthogonal steps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, Floats, as_like, namespace, to_numpy
from dfo.batch import Batch, Points
from dfo.components.borders import into_box, onto_line, step_floor
from dfo.components.ends import no_progress, patience, window
from dfo.components.options import check_population
from dfo.components.ranking import merits
from dfo.components.restarts import POLICIES, Policy, Regime, first_regime, next_regime, restart_point
from dfo.errors import InvalidArgument, ProblemTooLarge
from dfo.feedback import Feedback, Values
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key, normal
from dfo.solvers.cma.generation import Generation, decompose, generation, orthogonalized, rates
from dfo.spaces import Box, Space

__all__ = ["CMA", "CMAState", "SepCMA"]


@dataclass(frozen=True, eq=False)
class CMAState:
    """The memory of CMA-ES.

    ``C`` is the covariance, ``(d, d)`` or its diagonal ``(d,)``. Everything lives in free coordinates, which
    :func:`~dfo.components.borders.into_box` maps into the bounds. Steps are drawn with the symmetric root of
    the covariance: unlike eigenvectors it is unique, so a run does not depend on the sign that a linear
    algebra library gives them.
    """

    x0: Array  # (d,) start, as given
    mean: Array  # (d,)
    sigma: float
    p_sigma: Array  # (d,) evolution path of the step size
    p_c: Array  # (d,) evolution path of the covariance
    C: Array
    root: Array  # C^1/2 as of the last decomposition; empty when diagonal
    D: Array  # (d,) lengths of the principal axes, or the standard deviations when diagonal
    recent: Floats  # (2, w) lowest and median merits of the last generations of this run, newest last
    best: float  # lowest merit of this run
    age: int  # generations of this run
    regime: Regime
    ended: str  # why the last run ended; empty while the first one goes on
    champion: Array  # (d,) final mean of the best finished run
    champion_level: float  # mean of its last lowest merits
    drawn: Array  # (k, n, d) steps of this and the next generations: small ones are cheaper drawn together
    drawn_at: int  # the question of the first of them
    drawn_by: Key  # the key that they belong to
    key: Key
    step: int


@dataclass(frozen=True)
class CMA:
    """CMA-ES with full covariance.

    Uses only the order of values, so it also takes rankings (ties share their weights, members that
    were not shown get none). Costs O(d^2) per evaluation and memory; above a few hundred coordinates
    take :class:`SepCMA`.

    Args:
        population: points per generation; ``4 + floor(3 ln d)`` by default, three times that with noise.
        sigma: initial standard deviation: a fraction of the box between two bounds (0.2 by default), in
            units of x elsewhere (0.5 by default).
        restarts: ``"bipop"`` (default), ``"ipop"``, ``"same"`` or ``"none"``. Without a budget, and with oracles
            that only rank, the default is ``"none"``: the run ends when it has converged.
        xtol: a run has converged when all standard deviations are below this.
        ftol: a run has converged when the values of a generation and the best of the recent ones differ
            by less than this.
        diagonal: learn variances only.
        orthogonal: make the steps of a generation orthogonal to each other in groups of at most d, with the
            lengths that they had (Wang, Emmerich and Baeck 2019): a better spread at the same law of each step.
        noisy: values jitter: a run is not ended because of values, and by default there are no restarts.
        max_population: bound on what restarts double; the most that the oracle takes by default.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: population below 2, sigma not positive and finite, unknown restarts.
        ProblemTooLarge: the covariance would take more than 8 GiB.

    Example:
        >>> import dfo
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> dfo.minimize(rosenbrock, [-1.0, 2.0], method=dfo.CMA(sigma=0.3), budget=2000).fun < 1e-8
        True
    """

    population: int | None = None
    sigma: float | None = None
    restarts: Policy | None = None
    xtol: float = 1e-11
    ftol: float = 1e-9
    diagonal: bool = False
    orthogonal: bool = True
    space: Space | None = None
    noisy: bool = False
    max_population: int | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        check_population(self)
        if self.sigma is not None and not (math.isfinite(self.sigma) and 0 < self.sigma < 1e150):
            raise InvalidArgument(f"sigma: expected a positive finite step below 1e150, got {self.sigma!r}.")
        if self.restarts is not None and self.restarts not in POLICIES:
            raise InvalidArgument(f"restarts: expected one of {', '.join(POLICIES)}, got {self.restarts!r}.")

    def plan(self, task: Task) -> CMA:
        """Fill in population, step, restarts and space."""
        d = task.space.dim
        if not self.diagonal and 3 * 8 * d * d > 8 << 30:
            raise ProblemTooLarge(
                f"cma: a covariance of {d} x {d} needs {3 * 8 * d * d / 2**30:.0f} GiB, more than the 8 GiB allowed."
                " Use method='sep-cma', whose cost is linear in the number of variables."
            )
        population = self.population or task.batch or 4 + int(3 * math.log(d))
        if task.noisy and self.population is None and task.batch is None:  # many parents average the noise out
            population = max(population, min(3 * population, (task.budget or 10**9) // 30))
        if task.max_batch is not None:
            population = min(population, task.max_batch)
        boxed = isinstance(task.space, Box) and bool(task.space.bounded.all())
        once = task.budget is None or task.noisy or "values" not in task.gives  # rankings compare no two runs
        return replace(
            self, population=max(2, population), sigma=self.sigma or (0.2 if boxed else 0.5),
            restarts=self.restarts or ("none" if once else "bipop"),
            space=self.space or task.space, noisy=self.noisy or task.noisy,
            max_population=self.max_population or task.max_batch,
        )  # fmt: skip

    # ------------------------------------------------------------------ state

    def init(self, x0: Array, key: Key) -> CMAState:
        """Return the state before the first question."""
        population = self.population or 4 + int(3 * math.log(x0.shape[0]))
        return self._begin(x0, x0, first_regime(population), key, 0)

    def _begin(self, x0: Array, mean: Array, regime: Regime, key: Key, step: int) -> CMAState:
        xp, d = namespace(x0), int(x0.shape[0])
        zero, one = xp.zeros_like(x0), xp.ones_like(x0)
        eye = one if self.diagonal else xp.eye(d, dtype=x0.dtype, device=x0.device)
        recent = np.full((2, max(window(d, regime.population), 20 + 4 * patience(d, regime.population))), np.inf)
        return CMAState(
            x0, onto_line(self.space, mean), (self.sigma or 0.5) * regime.sigma, zero, zero, eye,
            one[:0] if self.diagonal else eye, one, recent, np.inf, 0, regime, "", zero, np.inf,
            self._drawn(key, step, regime.population, x0), step, key, key, step,
        )  # fmt: skip

    def _drawn(self, key: Key, step: int, n: int, like: Array) -> Array:
        """Draw the standard normal steps of the generations from question ``step`` on."""
        d = int(like.shape[0])
        Z = normal(key.child(step), (max(1, min(16, 4096 // (n * d))), n, d), like)
        return orthogonalized(Z) if self.orthogonal and d < 5 * n else Z  # beyond that they nearly are

    def _next(self, s: CMAState, step: int) -> tuple[Array, int, Key]:
        """Return the steps for question ``step`` and later ones, the first question they are for, and their key."""
        if 0 <= step - s.drawn_at < s.drawn.shape[0] and s.drawn_by == s.key:
            return s.drawn, s.drawn_at, s.key
        return self._drawn(s.key, step, s.regime.population, s.mean), step, s.key

    def ask(self, s: CMAState) -> Points:
        """Sample a generation: ``x = m + sigma C^1/2 z`` (eqs. 38-40)."""
        drawn, at, _ = self._next(s, s.step)  # the state's own, but for AskTell's extra candidates
        Z: Any = drawn[s.step - at]
        Y = Z * s.D if self.diagonal else Z @ s.root
        return Points(into_box(self.space, s.mean + self._stretch(s) * Y), step=s.step, latent=Z)

    def _stretch(self, s: CMAState) -> Any:
        """Return sigma, raised in coordinates with cells so that steps keep leaving them."""
        floor = step_floor(self.space, s.regime.population)
        if floor is None:
            return s.sigma
        variances = to_numpy(s.C if self.diagonal else s.C.diagonal())
        return as_like(s.sigma * np.maximum(1.0, floor / (s.sigma * np.sqrt(variances) + 1e-300)), s.mean)

    def tell(self, s: CMAState, batch: Batch, told: Feedback) -> CMAState:
        """Update mean, step and covariance from the order of the members."""
        merit = merits(told)
        comparable = isinstance(told, Values)
        if not comparable and np.isnan(merit).all():  # a skipped ranking
            drawn, at, by = self._next(s, s.step + 1)
            return replace(s, step=s.step + 1, drawn=drawn, drawn_at=at, drawn_by=by)
        g = generation(rates(s.mean.shape[0], s.regime.population, self.diagonal), merit, batch.latent)  # type: ignore[attr-defined]
        s = self._update(s, g, comparable)
        ended = self._ended(s, g)
        if not ended:
            return s
        if self.restarts in (None, "none"):
            return replace(s, ended=ended)
        return self._restart(s, ended)

    def _update(self, s: CMAState, g: Generation, comparable: bool) -> CMAState:
        d, r = int(s.mean.shape[0]), g.rates
        z_mean = g.positive @ g.Z  # (d,)
        y_mean = s.D * z_mean if self.diagonal else s.root @ z_mean
        p_sigma = (1 - r.c_sigma) * s.p_sigma + math.sqrt(r.c_sigma * (2 - r.c_sigma) * g.mu_eff) * z_mean  # eq. 43
        length = math.sqrt(float(p_sigma @ p_sigma)) / r.chi
        slow = length / math.sqrt(1 - (1 - r.c_sigma) ** (2 * (s.age + 1))) < 1.4 + 2 / (d + 1)  # h_sigma
        p_c = (1 - r.c_c) * s.p_c + (math.sqrt(r.c_c * (2 - r.c_c) * g.mu_eff) if slow else 0.0) * y_mean  # eq. 45
        C = self._adapted(s, g, p_c, slow)
        # eq. 44; a flat generation says to look further away
        pace = min(1.0, r.c_sigma / r.d_sigma * (length - 1)) + (0.2 if g.low == g.high else 0.0)
        root, D = s.root, s.D
        if self.diagonal:
            C = namespace(C).clip(C, 1e-300, None)
            D = namespace(C).sqrt(C)
        elif (s.age + 1) % r.gap == 0:
            C, root, D = decompose(C)
        recent, low = s.recent, math.inf
        if comparable:  # ranks of different generations are not
            low = g.low
            recent = np.concatenate((recent[:, 1:], ((low,), (g.median,))), axis=1)
        return CMAState(
            s.x0, s.mean + self._stretch(s) * y_mean, min(s.sigma * math.exp(pace), 1e150), p_sigma, p_c, C, root, D,
            recent, min(low, s.best), s.age + 1, s.regime, s.ended, s.champion, s.champion_level,
            *self._next(s, s.step + 1), s.key, s.step + 1,
        )  # fmt: skip

    def _adapted(self, s: CMAState, g: Generation, p_c: Any, slow: bool) -> Any:
        """Return the covariance after the rank-one and the rank-mu update (eq. 47)."""
        r, Z = g.rates, g.Z
        # negative weights are scaled so that no member counts more than its length deserves  (eq. 46)
        scaled, losers = r.c_mu * g.weights, Z[g.losers]
        scaled[g.losers] *= Z.shape[1] / ((losers * losers).sum(axis=1) + 1e-300)
        keep = 1 - r.c_1 - r.c_mu * g.total + (0.0 if slow else r.c_1 * r.c_c * (2 - r.c_c))
        if self.diagonal:
            return keep * s.C + r.c_1 * p_c * p_c + (s.D * s.D) * (scaled @ (Z * Z))
        Y = Z @ s.root
        return keep * s.C + (r.c_1 * p_c)[:, None] * p_c + (Y.T * scaled) @ Y

    # ------------------------------------------------------------------ ends and restarts

    def _ended(self, s: CMAState, g: Generation) -> str:
        """Return why this run has converged or broken down, or an empty string (Hansen 2009, section 3)."""
        if s.regime.cap is not None and s.age * s.regime.population >= s.regime.cap:
            return "small run: its share is spent"
        longest, shortest = _axes(s, self.diagonal)
        if s.sigma * longest < self.xtol:
            return f"all standard deviations are below xtol={self.xtol:g}"
        if longest > 1e7 * shortest:
            return "the covariance has become too ill-conditioned"
        return "" if self.noisy else self._stalled(s, g)

    def _stalled(self, s: CMAState, g: Generation) -> str:
        """Return why the values say that this run has converged, or an empty string."""
        lows, medians = s.recent
        if not math.isfinite(lows[-1]):  # a ranking, or nothing but failures
            return ""
        if g.low == g.high and lows[-2] == medians[-2]:
            return "all values of a generation are equal"
        d, population = int(s.mean.shape[0]), s.regime.population
        if g.high - g.low < self.ftol and np.ptp(lows[-window(d, population) :]) < self.ftol:
            return f"the values of recent generations differ by less than ftol={self.ftol:g}"
        return no_progress(s.recent, s.age, d, population) if s.age % 10 == 0 else ""

    def _restart(self, s: CMAState, ended: str) -> CMAState:
        key = s.key.child("restart", s.regime.run + 1)
        first = self.population or 4 + int(3 * math.log(s.mean.shape[0]))
        spent = s.age * s.regime.population
        regime = next_regime(self.restarts or "same", s.regime, spent, first, key.child("regime"), self.max_population)
        # a large population explores from the user's start, small ones look closely somewhere else
        somewhere = regime.small or self.restarts == "same"
        mean = restart_point(self.space, s.x0, self.sigma or 0.5, key.child("start")) if somewhere else s.x0
        fresh = self._begin(s.x0, mean, regime, s.key, s.step)
        level = _level(s)
        if level < s.champion_level:
            return replace(fresh, ended=ended, champion=s.mean, champion_level=level)
        return replace(fresh, ended=ended, champion=s.champion, champion_level=s.champion_level)

    def observe(self, s: CMAState, points: Array, values: Floats) -> CMAState:
        """Move the mean to the best of points evaluated elsewhere, if it is better than this run's best.

        Args:
            s: the state.
            points: ``(k, d)``.
            values: ``(k,)``.
        """
        i = int(np.argmin(values))
        if not values[i] < s.best:
            return s
        zero = s.p_sigma * 0
        mean = onto_line(self.space, as_like(points[i], s.mean))
        return replace(s, mean=mean, p_sigma=zero, p_c=zero, best=float(values[i]))

    def finished(self, s: CMAState) -> str | None:
        """Return why a run without restarts has ended."""
        return f"CMA-ES converged: {s.ended}." if s.ended and self.restarts in (None, "none") else None

    def recommend(self, s: CMAState) -> Array:
        """Return the mean of the search distribution, of the best finished run if this one is not better yet."""
        return into_box(self.space, s.champion if s.champion_level < _level(s) else s.mean)

    def gauges(self, s: CMAState) -> dict[str, float]:
        """Return step size, axis ratio, population and number of restarts."""
        return {
            "sigma": s.sigma,
            "axis_ratio": float(s.D.max()) / float(s.D.min()),
            "population": float(s.regime.population),
            "restarts": float(s.regime.run),
        }


def _axes(s: CMAState, diagonal: bool) -> tuple[float, float]:
    """Return the longest and the shortest axis; those of a full covariance are sorted."""
    if diagonal:
        return float(s.D.max()), float(s.D.min())
    return float(s.D[-1]), float(s.D[0])


def _level(s: CMAState) -> float:
    """Return the mean of the lowest merits of the last ten generations of this run; infinite before there are ten.

    A mean and not a minimum, because under noise the minimum is luck.
    """
    last = s.recent[0, -10:]
    return float(last.mean()) if np.isfinite(last).all() else math.inf


@dataclass(frozen=True)
class SepCMA(CMA):
    """CMA-ES with a diagonal covariance: O(d) per evaluation and memory.

    Learns the scale of each coordinate but no correlation between them, (d + 2) / 3 times faster.
    Arguments as for :class:`CMA`.

    Example:
        >>> import dfo, numpy as np
        >>> scales = 10.0 ** np.linspace(0, 3, 20)
        >>> f = lambda x: float((scales * x * x).sum())
        >>> dfo.minimize(f, np.ones(20), method="sep-cma", budget=6000).fun < 1e-8
        True
    """

    diagonal: bool = True
