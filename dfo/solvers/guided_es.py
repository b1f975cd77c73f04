"""Guided evolution strategies: half of every direction lies where surrogate gradients point.

Directions have the covariance ``alpha I + (1 - alpha) (d / k) U U^T`` (in the paper's scale divided by d), where ``U``
is an orthonormal basis of the last ``k`` surrogate gradients. Without a surrogate of your own, these are the
solver's past estimates, which makes a random subspace of ``k`` out of ``d`` variables into one that holds the descent.

References: Maheswaranathan, Metz, Tucker, Choi and Sohl-Dickstein 2019, "Guided evolutionary strategies: augmenting
random search with surrogate gradients", arXiv:1806.10230 (equations by its numbers); Meier, Mujika, Gauy and
Steger 2019, arXiv:1910.05268 (past estimates as surrogates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, namespace
from dfo.batch import Batch, Perturbations, Points
from dfo.components import descent
from dfo.components.borders import into_box, onto_line
from dfo.components.estimators import layout
from dfo.components.generations import SCHEDULES, Schedule, annealed, first_sigma, members, widened
from dfo.components.options import check_choice, check_population, check_positive
from dfo.components.shaping import SHAPINGS, Shaping, shaped
from dfo.directions import CHUNK, Directions
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key, normal
from dfo.spaces import Box, Space

__all__ = ["Guided", "GuidedES", "GuidedESState", "orthonormal"]

REPEATED = 1e-3
"""A surrogate gradient whose part outside the span of the others is below this share adds nothing to it."""


@dataclass(frozen=True, eq=False)
class Guided:
    """Gaussian directions of covariance ``alpha I + (1 - alpha) (d / k) U^T U``, whose trace is d (eq. 3, times d).

    Args:
        basis: ``(k, d)`` orthonormal rows; with none the directions are gaussian.
        alpha: share of the variance outside the subspace, 0 to 1.
    """

    basis: Array
    alpha: float
    elementwise: ClassVar[bool] = False

    def rows(self, key: Key, count: int, like: Array) -> Array:
        """Return ``(count, d)`` directions ``sqrt(alpha) z + sqrt((1 - alpha) d / k) z' U``."""
        rows: Any = normal(key, (count, like.shape[-1]), like)
        k, d = self.basis.shape
        if not k:
            drawn: Array = rows
            return drawn
        rows *= math.sqrt(self.alpha)
        inner: Any = normal(key.child("subspace"), (count, k), like) * math.sqrt((1.0 - self.alpha) * d / k)
        each = max(1, CHUNK // d)
        for at in range(0, count, each):
            rows[at : at + each] += inner[at : at + each] @ self.basis
        result: Array = rows
        return result

    def piece(self, key: Key, start: int, count: int, like: Array) -> Array:
        """Refuse: the coordinates of a direction depend on each other."""
        raise NotImplementedError("guided directions are drawn whole")


@dataclass(frozen=True, eq=False)
class GuidedESState:
    """The memory of :class:`GuidedES`."""

    x: Array  # (d,) center, in free coordinates
    history: Array  # (j, d) the last surrogate gradients, of length 1, newest last; j <= subspace
    basis: Array  # (j, d) orthonormal rows that span them
    moments: descent.Moments
    moved: float  # length of the last step
    key: Key
    step: int


@dataclass(frozen=True)
class GuidedES:
    """Guided evolution strategies, in O(k d) memory.

    ``g = beta / (2 sigma_p^2 P) sum_i eps_i (f(x + eps_i) - f(x - eps_i))`` with ``eps_i = sigma u_i`` and the paper's
    ``sigma_p = sigma sqrt(d)`` (eq. 4). By default ranks take the place of the values, so that it takes rankings too,
    and Adam makes the step; ``shaping="none", rule="sgd"`` with an ``lr`` of your own is the paper's estimator. Give it
    surrogate gradients of your own with :meth:`guide`.

    Args:
        population: members of a generation, twice P; ``4 + floor(3 ln d)`` by default, rounded to even.
        alpha: share of the variance outside the subspace: 1 is plain evolution strategies, 0 stays in the subspace.
        beta: scale of the estimate; of no consequence for rules that normalise.
        subspace: k, surrogate gradients remembered; 10 by default, at most half of the variables.
        own: past estimates are the surrogates.
        sigma: first standard deviation, root of the mean over coordinates. By default a fifth of the box between two
            bounds and 0.5 elsewhere, and less above a hundred variables.
        lr: step size of the rule at the start; a multiple of sigma that suits the rule by default.
        shaping: utilities: ``"centered"`` ranks, ``"nes"``, ``"log"``, ``"standardized"`` values or ``"none"``.
        rule: ``"adam"``, ``"clipup"``, ``"sgd"``, ``"momentum"``, ``"sign"`` or ``"amsgrad"``.
        betas: decay of the first and second moment.
        eps: of Adam.
        schedule: how ``sigma`` and ``lr`` shrink: ``"cosine"``, ``"exponential"`` or ``"constant"``.
        floor: what is left of them at the end, as a share.
        horizon: evaluations over which they shrink; the budget of the run by default.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of its range.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method="guided-es", budget=2000).fun < 1e-3
        True
    """

    population: int | None = None
    alpha: float = 0.5
    beta: float = 2.0
    subspace: int | None = None
    own: bool = True
    sigma: float | None = None
    lr: float | None = None
    shaping: Shaping = "centered"
    rule: descent.Rule = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule = "cosine"
    floor: float = 1e-3
    horizon: int | None = None
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        check_choice(self, shaping=SHAPINGS, rule=descent.RULES, schedule=SCHEDULES)
        check_positive(self, "beta", "subspace", "sigma", "lr", "eps", "floor", "horizon")
        if not 0 <= self.alpha <= 1:
            raise InvalidArgument(f"alpha: expected a share from 0 to 1, got {self.alpha!r}.")
        check_population(self)

    def plan(self, task: Task) -> GuidedES:
        """Fill in the population, the subspace, the first step, the horizon and the space."""
        d = task.space.dim
        return replace(
            self, population=members(task, self.population, 4 + int(3 * math.log(d))),
            subspace=self.subspace or max(1, min(10, d // 2)),
            sigma=first_sigma(task, self.sigma), horizon=self.horizon or task.budget or 1000 * d,
            space=self.space or task.space,
        )  # fmt: skip

    def init(self, x0: Array, key: Key) -> GuidedESState:
        """Return the state before the first question."""
        x = onto_line(self.space, copy(x0))
        none = x[None][:0]  # (0, d)
        return GuidedESState(x, none, none, descent.first_moments(self.rule, x), 0.0, key, 0)

    @property
    def _pairs(self) -> int:
        return max(1, (self.population or 16) // 2)

    def _shrunk(self, s: GuidedESState) -> float:
        return annealed(self.schedule, s.step * 2 * self._pairs / (self.horizon or math.inf), self.floor)

    def _sigma(self, s: GuidedESState) -> float:
        return (self.sigma or 0.1) * self._shrunk(s)

    def _lr(self, s: GuidedESState) -> float:
        if self.lr is not None:
            return self.lr * self._shrunk(s)
        sigma = self._sigma(s)
        if self.rule in ("sgd", "momentum"):
            return float(4.0 * sigma * sigma * s.x.shape[0] / self.beta)
        return sigma * math.sqrt(s.x.shape[0]) / 30.0 if self.rule == "clipup" else 0.5 * sigma

    def _drawn(self, s: GuidedESState) -> Directions:
        return Directions(Guided(s.basis, self.alpha), s.key.child(s.step), self._pairs, s.x)

    # ------------------------------------------------------------------ ask and tell

    def ask(self, s: GuidedESState) -> Batch:
        """Ask about both ends of every direction."""
        index, scale = layout("central", self._pairs, self._sigma(s))
        batch = Perturbations((s.x,), self._drawn(s), scale, index=index, step=s.step)
        if not isinstance(self.space, Box):
            return batch
        spread = widened(self.space, self._sigma(s), len(batch), s.x) / self._sigma(s)
        return Points(into_box(self.space, s.x + (batch.dense() - s.x) * spread), step=s.step)

    def tell(self, s: GuidedESState, batch: Batch, told: Feedback) -> GuidedESState:
        """Estimate the gradient, step along it, and remember it."""
        later = replace(s, step=s.step + 1)
        u = shaped(self.shaping, told)
        if not u.any():  # nobody was better than anybody
            return later
        if not isinstance(batch, Perturbations):
            index, sign = layout("central", self._pairs, 1.0)
            batch = Perturbations((s.x,), self._drawn(s), sign, index=index)
        g: Any = batch.combine(self._weights(s, u))
        delta, moments = descent.step(self.rule, g, s.moments, self._lr(s), self.betas, self.eps)
        moved, length = descent.norm(delta), descent.norm(g)
        if not math.isfinite(moved + length):  # utilities without shaping may be of any size
            return later
        if self.own and length > 0.0:
            later = self.guide(later, self._unbiased(s, g))
        return replace(later, x=s.x + delta, moments=moments, moved=moved)

    def _weights(self, s: GuidedESState, u: Floats) -> Floats:
        """Return ``(n,)`` weights of the directions in the estimate (eq. 4); utilities are positive for low values."""
        sigma, d, pairs = self._sigma(s), s.x.shape[0], self._pairs
        sign = np.tile([1.0, -1.0], pairs)
        weights: Floats = -self.beta * u * sign / (2.0 * sigma * d * pairs)  # eps / sigma_p^2 = u / (sigma d)
        return weights

    def _unbiased(self, s: GuidedESState, g: Array) -> Array:
        """Return ``C^-1 g`` with the covariance C of the directions, up to a factor.

        The estimate itself magnifies what lies in the subspace; remembered as it is, it would never leave it.
        """
        k, d = s.basis.shape
        if not k or self.alpha == 0.0:
            return g
        inside = (1.0 - self.alpha) * d / k
        rest: Array = g - (inside / (self.alpha + inside)) * ((s.basis @ g) @ s.basis)
        return rest

    def guide(self, s: GuidedESState, gradient: Array) -> GuidedESState:
        """Return the state that also knows a surrogate gradient, ``(d,)``; only its direction counts.

        With ``own=False`` the surrogates given here are the only ones.
        """
        length = descent.norm(gradient)
        if not (math.isfinite(length) and length > 0.0):
            return s
        k, newest = self.subspace or max(1, min(10, s.x.shape[0] // 2)), as_like(gradient, s.x) / length
        history = namespace(s.x).concat([s.history[max(0, s.history.shape[0] - k + 1) :], newest[None]])
        return replace(s, history=history, basis=orthonormal(history))

    # ------------------------------------------------------------------ reports

    def recommend(self, s: GuidedESState) -> Array:
        """Return the center."""
        point: Array = copy(into_box(self.space, s.x))
        return point

    def gauges(self, s: GuidedESState) -> dict[str, float]:
        """Return the standard deviation, the step size, the length of the last step and the size of the subspace."""
        return {
            "sigma": self._sigma(s), "lr": self._lr(s), "update": s.moved, "subspace": float(s.basis.shape[0]),
        }  # fmt: skip


def orthonormal(rows: Array) -> Array:
    """Return orthonormal rows that span ``rows``, ``(k, d)``, by Gram and Schmidt, twice over; repetitions are dropped.

    Unlike a factorisation's, they are the same in every library.
    """
    xp = namespace(rows)
    basis: Any = rows[:0]
    for i in range(rows.shape[0]):
        row: Any = rows[i]
        for _ in range(2):
            row = row - (basis @ row) @ basis
        length = descent.norm(row)
        if length > REPEATED * descent.norm(rows[i]):
            basis = xp.concat([basis, (row / length)[None]])
    result: Array = basis
    return result
