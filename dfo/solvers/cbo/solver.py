"""Consensus-based optimisation: particles drift to a weighted mean of themselves and scatter around it.

The weights are ``exp(-alpha f)``; the noise of a particle grows with its distance to the mean, so the swarm searches
where it disagrees and settles where it agrees.

References: Pinnau, Totzeck, Tse and Martin 2017 (isotropic noise, drift truncation); Carrillo, Jin, Li and Zhu 2021,
arXiv:1909.09249 (anisotropic noise, batches, the kick); Fornasier, Klock and Riedl 2021, arXiv:2103.15130 (they
converge); Fornasier, Richtarik, Riedl and Sun 2023, arXiv:2310.16610 (truncated noise); Grassi and Pareschi 2021,
arXiv:2012.05613 (memory, inertia); Bungert, Roith and Wacker 2022, arXiv:2211.05238 (polarised); Kalise, Sharma and
Tretyakov 2022, arXiv:2205.04880 (jumps); Riedl et al. 2023, arXiv:2306.09778 (consensus hopping).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, namespace
from dfo.batch import Batch, Points
from dfo.components.stages import Staged
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key, choice, normal, uniform
from dfo.solvers.cbo.dynamics import Forces, Noise, fold, kick, mix, move, spread
from dfo.solvers.cbo.mirror import Mirror, from_dual, to_dual
from dfo.solvers.cbo.options import at_step, check, filled
from dfo.solvers.cbo.particles import at, owned, part, polarised, put, scattered
from dfo.solvers.cbo.weights import alpha_for, consensus_weights, energies, sample_size
from dfo.spaces import Space

__all__ = ["CBO", "CBOState"]

Schedule = Callable[[int], float]
Scheme = Literal["euler", "exponential", "hopping"]


@dataclass(frozen=True, eq=False)
class CBOState:
    """The memory of :class:`CBO`; optional parts are None where they are not in use."""

    x0: Array  # (d,) start
    X: Array  # (n, d) particles; large ones are moved in place
    E: Floats  # (n,) their last energies, infinite before they are known
    Y: Any  # (n, d) the best point of each particle (memory)
    Y_E: Floats  # (n,) energies there
    V: Any  # (n, d) velocities (inertia)
    Z: Any  # (n, d) dual variables (mirror)
    c: Array  # (d,) consensus point
    w: Floats  # weights that made it
    alpha: float
    shift: float  # largest change of a coordinate of the consensus point in the last step
    champion: Array  # (d,) consensus point of the best swarm that has collapsed
    level: float  # lowest energy that it knew
    ended: bool  # collapsed, and not to be scattered anew
    stage: str
    age: int  # steps of the particles
    key: Key
    step: int


@dataclass(frozen=True)
class CBO(Staged):
    """Consensus-based optimisation.

    ``x_i += -drift dt D_i + sigma sqrt(dt) S(D_i) z`` with ``D_i = x_i - c`` and ``c = sum_j w_j x_j``,
    ``w = softmax(-alpha f)``.

    Args:
        population: particles; ``10 + 10 ln d`` by default (100 from 100 variables on), fewer on a small budget.
        batch: particles drawn for each consensus point, without replacement until all had their turn; all by default.
        update: with a batch: ``"partial"`` moves the particles of the batch, ``"full"`` moves all.
        alpha: inverse temperature: ``"ess"`` (the effective sample size is the share ``eta`` of the particles, so that
            the scale of f does not matter), a number, or a function of the step such as
            :class:`~dfo.solvers.cbo.Growth`.
        eta: share of the particles that count, for ``"ess"``.
        drift: lambda.
        sigma: strength of the noise: a number, or a function of the step. By default ``0.9 / sqrt(dt)`` with
            anisotropic noise; else such that drift and noise leave 95 % of a squared distance.
        dt: length of a step; 0.2, or 1 with isotropic noise or hopping, by default.
        noise: ``"anisotropic"``: ``S = D * z``, the default up to 100 variables; ``"isotropic"``: ``|D| z``, from there
            on; ``"covariance"``: ``C^1/2 z`` with the weighted covariance C.
        scheme: ``"euler"``; ``"exponential"``: drift and noise integrated exactly for a fixed consensus point; or
            ``"hopping"``: ``x_i = c + sigma z``.
        heaviside: drift only particles that are worse than the consensus point, ``H = (1 + tanh((f - f(c)) /
            heaviside)) / 2``, a step function at 0; None for all. Costs one more evaluation a step.
        limit: bound M on the scale of the noise (truncated noise), or None.
        memory: drift to the best point of each particle, lambda_2; consensus is then taken over best points.
        memory_sigma: noise with it; ``memory * sigma`` by default.
        inertia: mass m in [0, 1) of the particles; friction is ``1 - m``.
        kappa: width of the polarising kernel ``exp(-|x_i - x_j|^2 / (2 kappa^2))``, which gives every particle a
            consensus point of its own and finds several minima; None for one point. O(n^2 d).
        jump_rate: kicks ``D * J``, ``J ~ N(0, jump_sigma^2)``, per particle and unit of time: a number or a function of
            the step.
        jump_sigma: their strength.
        kick: where the consensus point moves less than this in every coordinate, all particles move by ``sigma
            sqrt(dt) size z``; 0 never. By default 1e-5 with noise and 0 without.
        mirror: ``"none"`` moves particles in the space and mirrors or projects them back into it; else dual variables
            move and ``x`` is their image: ``"entropy"`` (simplex), ``"barrier"`` (logarithmic, box), ``"projection"``.
        size: standard deviation of the first particles around the start, where there are no bounds; 1 by default,
            0.3 from 100 variables on.
        restarts: ``"same"`` scatters a swarm that has collapsed anew, ``"none"`` ends the run; by default the first
            with a budget and without noise.
        xtol: a swarm has collapsed when no coordinate of any particle is further from the consensus point.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of its range.

    Example:
        >>> import dfo, numpy as np
        >>> rastrigin = lambda x: float((x * x + 10 - 10 * np.cos(2 * np.pi * x)).sum())
        >>> dfo.minimize(rastrigin, bounds=[(-5, 4)] * 2, method="cbo", budget=4000).fun < 1e-2
        True
    """

    population: int | None = None
    batch: int | None = None
    update: Literal["partial", "full"] = "partial"
    alpha: float | Literal["ess"] | Schedule = "ess"
    eta: float = 0.2
    drift: float = 1.0
    sigma: float | Schedule | None = None
    dt: float | None = None
    noise: Noise | None = None
    scheme: Scheme = "euler"
    heaviside: float | None = None
    limit: float | None = None
    memory: float = 0.0
    memory_sigma: float | None = None
    inertia: float = 0.0
    kappa: float | None = None
    jump_rate: float | Schedule = 0.0
    jump_sigma: float = 1.0
    kick: float | None = None
    mirror: Mirror = "none"
    size: float | None = None
    restarts: Literal["same", "none"] | None = None
    xtol: float = 1e-11
    space: Space | None = None

    stages: ClassVar[tuple[str, ...]] = ("particles", "center")
    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "sphere"})

    def __post_init__(self) -> None:
        check(self)

    def plan(self, task: Task) -> CBO:
        """Fill in population, noise, step length and the space."""
        return replace(self, **filled(self, task))

    # ------------------------------------------------------------------ state

    def init(self, x0: Array, key: Key) -> CBOState:
        """Return the state before the first question: the start is the first particle."""
        n = self.population or 100
        X = scattered(self.space, x0, self.size or 1.0, key.child("init"), n)
        X[0] = x0
        unknown = np.full(n, np.inf)
        xp = namespace(x0)
        return CBOState(
            copy(x0), X, unknown, copy(X) if self.memory else None, unknown,
            xp.zeros_like(X) if self.inertia else None,
            None if self.mirror == "none" else to_dual(self.mirror, self.space, X),
            copy(x0), np.full(1, 1.0), 0.0, np.inf, copy(x0), np.inf, False, "particles", 0, key, 0,
        )  # fmt: skip

    def _picked(self, s: CBOState) -> Any:
        """Return the indices of the batch of this step; None for all particles."""
        n, k = int(s.X.shape[0]), self.batch or 0
        if not 0 < k < n:
            return None
        turns = n // k
        epoch, turn = divmod(s.age, turns)
        return choice(s.key.child("epoch", epoch), n, n)[turn * k : (turn + 1) * k]

    # ------------------------------------------------------------------ questions

    def ask_particles(self, s: CBOState) -> Batch:
        """Ask about the particles, or about those of this step's batch."""
        picked = self._picked(s)
        X: Any = at(s.X, picked)
        return Points(X, step=s.step, data=self._data(s, X.shape[0]))

    def ask_center(self, s: CBOState) -> Batch:
        """Ask about the consensus point, on the data of the particles."""
        return Points(copy(s.c)[None], step=s.step, data=self._data(s, 1))

    def _data(self, s: CBOState, n: int) -> Any:
        return None if self.heaviside is None else np.full(n, s.age)

    # ------------------------------------------------------------------ answers

    def tell_particles(self, s: CBOState, batch: Batch, told: Feedback) -> CBOState:
        """Form the consensus point; then move, or first ask about it."""
        picked, E = self._picked(s), energies(told)
        known = E if picked is None else put(s.E.copy(), E, picked)
        points: Any = batch.dense()  # type: ignore[attr-defined]
        if s.Y is not None:
            s = self._remembered(replace(s, E=known))
            points, E = at(s.Y, picked), at(s.Y_E, picked)
        alpha = alpha_for(E, self.eta) if self.alpha == "ess" else at_step(self.alpha, s.age)
        w = consensus_weights(E, alpha)
        c: Any = as_like(w, s.X) @ points
        if self.kappa is not None:
            c = polarised(points, E, alpha, self.kappa, points)[int(np.argmin(E))]
        shift = float(abs(c - s.c).max())
        stage = "particles" if self.heaviside is None else "center"
        s = replace(s, E=known, c=c, w=w, alpha=alpha, shift=shift, stage=stage, step=s.step + 1)
        return self._moved(s, self.drift * (self.dt or 0.0)) if self.heaviside is None else s

    def _remembered(self, s: CBOState) -> CBOState:
        """Return the state with the best points of the particles that have improved."""
        better = s.E < s.Y_E
        rows = np.flatnonzero(better)
        return replace(s, Y=put(owned(s.Y), at(s.X, rows), rows), Y_E=np.where(better, s.E, s.Y_E))

    def tell_center(self, s: CBOState, batch: Batch, told: Feedback) -> CBOState:
        """Move, where the drift of particles better than the consensus point is held back."""
        with np.errstate(over="ignore"):
            gap = s.E - min(float(energies(told)[0]), 1e308)  # an unknown consensus point is worse than everybody
            H = 0.5 * (1.0 + np.tanh(gap / self.heaviside)) if self.heaviside else (gap > 0.0) * 1.0
        return self._moved(replace(s, stage="particles", step=s.step + 1), self.drift * (self.dt or 0.0) * H)

    # ------------------------------------------------------------------ motion

    def _moved(self, s: CBOState, pace: Any) -> CBOState:
        """Return the state after one step of the particles; ``pace`` is ``lambda dt H``."""
        picked = self._picked(s) if self.update == "partial" else None
        X, V = part(s.X, picked), part(s.V, picked)
        Y = None if s.Y is None else at(s.Y, picked)
        pace = pace if isinstance(pace, float) else at(pace, picked)
        before = copy(X) if s.Z is not None else None
        self._step(s, X, Y, V, pace, picked)
        sigma = at_step(self.sigma, s.age) * math.sqrt(self.dt or 0.0)
        if s.age > 0 and s.shift < (self.kick or 0.0):
            kick(X, sigma * (self.size or 1.0), s.key.child(s.age, "kick"))
        Z = s.Z
        if Z is None:
            fold(self.space, X)
        else:
            dual = at(Z, picked) + (X - before)
            X, Z = from_dual(self.mirror, self.space, dual), put(copy(Z), dual, picked)
        if picked is not None:
            X, V = put(owned(s.X), X, picked), None if V is None else put(owned(s.V), V, picked)
        return self._after(replace(s, X=X, V=V, Z=Z, age=s.age + 1))

    def _step(self, s: CBOState, X: Any, Y: Any, V: Any, pace: Any, picked: Any) -> None:
        dt, key = self.dt or 0.0, s.key.child(s.age, "move")
        gain = at_step(self.sigma, s.age) * math.sqrt(dt)
        pull: Any = 1.0 - pace
        noise: Noise = self.noise or "anisotropic"
        if self.scheme == "exponential":
            pull = np.exp(-pace) if not isinstance(pace, float) else math.exp(-pace)
            gain *= math.sqrt(-math.expm1(-2.0 * self.drift * dt) / (2.0 * self.drift * dt))
        elif self.scheme == "hopping":
            pull, gain, noise = 0.0, at_step(self.sigma, s.age), "constant"
        if noise == "covariance":
            self._mixed(s, X, pull, gain, key)
        else:
            own = self.memory_sigma if self.memory_sigma is not None else self.memory * at_step(self.sigma, s.age)
            forces = Forces(pull, gain, noise, self.limit, self.memory * dt, own * math.sqrt(dt), self.inertia, dt)
            c = s.c if self.kappa is None else self._centers(s, X, picked)
            move(X, c, forces, key, Y, V)
        self._jump(s, X, dt)

    def _mixed(self, s: CBOState, X: Any, pull: Any, gain: float, key: Key) -> None:
        n = int(X.shape[0])
        A = gain * normal(key, (n, n)) * np.sqrt(s.w) + np.diag(np.broadcast_to(pull, (n,)))
        mix(X, s.c, as_like(A, X))

    def _centers(self, s: CBOState, X: Any, picked: Any) -> Any:
        """Return ``(n, d)`` consensus points, one for each moved particle."""
        seen = self._picked(s)
        points, E = (s.X, s.E) if s.Y is None else (s.Y, s.Y_E)
        if seen is not None:
            points, E = at(points, seen), at(E, seen)
        return polarised(points, E, s.alpha, self.kappa or 1.0, X)

    def _jump(self, s: CBOState, X: Any, dt: float) -> None:
        rate = at_step(self.jump_rate, s.age)
        if rate <= 0.0:
            return
        key = s.key.child(s.age, "jump")
        rows = np.flatnonzero(uniform(key.child("who"), (int(X.shape[0]),)) < -math.expm1(-rate * dt))
        if rows.size:
            jumped = at(X, rows)
            move(jumped, s.c, Forces(1.0, self.jump_sigma, "anisotropic"), key)
            put(X, jumped, rows)

    def _after(self, s: CBOState) -> CBOState:
        """End a swarm that has collapsed, or scatter it anew."""
        if self.kick or spread(s.X, s.c, self.xtol) > self.xtol or self.scheme == "hopping":
            return s
        if self.restarts != "same":
            return replace(s, ended=True)
        level = float((s.E if s.Y is None else s.Y_E).min())
        fresh = self.init(s.x0, s.key.child("restart", s.age))
        fresh = replace(fresh, key=s.key, age=s.age, step=s.step, champion=s.champion, level=s.level)
        return replace(fresh, champion=s.c, level=level, c=s.c) if level < s.level else replace(fresh, c=s.champion)

    # ------------------------------------------------------------------ reports

    def finished(self, s: CBOState) -> str | None:
        """Return why there is nothing left to do."""
        return f"CBO converged: all particles agree to xtol={self.xtol:g}." if s.ended else None

    def recommend(self, s: CBOState) -> Array:
        """Return the consensus point, of the best swarm that has collapsed if this one is not better yet."""
        point: Array = copy(s.champion if s.level < float(s.E.min()) else s.c)
        return point

    def gauges(self, s: CBOState) -> dict[str, float]:
        """Return the largest distance to the consensus point, alpha, and the effective sample size."""
        return {"spread": spread(s.X, s.c), "alpha": s.alpha, "ess": sample_size(s.w)}
