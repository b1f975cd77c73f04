"""Consensus-based sampling: particles take the mean and the covariance of their own weighted population.

Reference: Carrillo, Hoffmann, Stuart and Vaes 2022, "Consensus-based sampling", arXiv:2106.02519.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy
from dfo.batch import Batch, Points
from dfo.components.options import check_population
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.solvers.cbo.dynamics import fold, mix, spread
from dfo.solvers.cbo.particles import owned, scattered
from dfo.solvers.cbo.weights import alpha_for, consensus_weights, energies, sample_size
from dfo.spaces import Space

__all__ = ["CBS", "CBSState"]


@dataclass(frozen=True, eq=False)
class CBSState:
    """The memory of :class:`CBS`."""

    X: Array  # (n, d) particles; large ones are moved in place
    c: Array  # (d,) weighted mean
    w: Floats  # (n,) weights that made it
    alpha: float
    key: Key
    step: int


@dataclass(frozen=True)
class CBS:
    """Consensus-based sampling: samples of ``exp(-f)``, or its minimiser.

    ``x_i <- c + a (x_i - c) + sqrt((1 - a^2) / lambda) C^1/2 z`` with the mean c and the covariance C under the weights
    ``exp(-alpha f)``, and ``a = exp(-dt)``; invariant under affine maps. With ``lambda = 1 / (1 + alpha)`` a gaussian
    ``exp(-f)`` is a fixed point whatever alpha is; with ``lambda = 1`` the particles contract to the minimiser.
    There C is divided by ``1 - sum w^2``, which makes it unbiased for few particles too.

    Args:
        mode: ``"optimisation"``, or ``"sampling"``: f is then minus the logarithm of a density.
        population: particles; ``6 d``, at least 30, by default. Fewer than d + 1 explore a subspace only.
        alpha: inverse temperature: ``"ess"`` (the effective sample size is the share ``eta`` of the particles), a
            number, or a function of the step.
        eta: for ``"ess"``.
        dt: length of a step; infinite by default: no memory of where a particle was.
        size: standard deviation of the first particles around the start, where there are no bounds.
        xtol: converged when no coordinate of any particle is further from the mean.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of its range.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cbs", budget=2000).fun < 1e-4
        True
    """

    mode: Literal["optimisation", "sampling"] = "optimisation"
    population: int | None = None
    alpha: float | Literal["ess"] | Callable[[int], float] = "ess"
    eta: float = 0.5
    dt: float = math.inf
    size: float = 1.0
    xtol: float = 1e-11
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "sphere"})

    def __post_init__(self) -> None:
        if self.mode not in ("optimisation", "sampling"):
            raise InvalidArgument(f'mode: expected "optimisation" or "sampling", got {self.mode!r}.')
        if isinstance(self.alpha, str) and self.alpha != "ess":
            raise InvalidArgument(f'alpha: expected "ess", a number or a function of the step, got {self.alpha!r}.')
        for name in ("eta", "dt", "size", "xtol", "population", "alpha"):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not (0 < value < 1e150 or (name == "dt" and value > 0)):
                raise InvalidArgument(f"{name}: expected a positive number below 1e150, got {value!r}.")
        check_population(self)

    def plan(self, task: Task) -> CBS:
        """Fill in population and space."""
        population = self.population or max(2, task.batch or max(30, 6 * min(task.space.dim, 250)))
        return replace(self, population=population, space=self.space or task.space)

    def init(self, x0: Array, key: Key) -> CBSState:
        """Return the state before the first question: the start is the first particle."""
        X = scattered(self.space, x0, self.size, key.child("init"), self.population or 100)
        X[0] = x0
        return CBSState(X, copy(x0), np.full(1, 1.0), 0.0, key, 0)

    def ask(self, s: CBSState) -> Batch:
        """Ask about the particles."""
        return Points(s.X, step=s.step)

    def tell(self, s: CBSState, batch: Batch, told: Feedback) -> CBSState:
        """Move the particles to their weighted mean and covariance."""
        E = energies(told)
        alpha = alpha_for(E, self.eta) if self.alpha == "ess" else float(self._alpha(s.step))
        w, X, n = consensus_weights(E, alpha), owned(s.X), len(E)
        c: Any = as_like(w, X) @ X
        kept = math.exp(-self.dt)
        # 1 / lambda; a swarm that contracts to a point is not to contract because it is small
        scale = (1.0 + alpha) if self.mode == "sampling" else 1.0 / max(1.0 - float(w @ w), 0.5)
        A = math.sqrt((1.0 - kept * kept) * scale) * normal(s.key.child(s.step), (n, n)) * np.sqrt(w)
        mix(X, c, as_like(A + kept * np.eye(n), X))
        fold(self.space, X)
        return CBSState(X, c, w, alpha, s.key, s.step + 1)

    def _alpha(self, step: int) -> float:
        given: Any = self.alpha
        return float(given(step) if callable(given) else given)

    def finished(self, s: CBSState) -> str | None:
        """Return why there is nothing left to do."""
        if s.step == 0 or spread(s.X, s.c, self.xtol) > self.xtol:
            return None
        return f"CBS converged: all particles agree to xtol={self.xtol:g}."

    def recommend(self, s: CBSState) -> Array:
        """Return the weighted mean."""
        point: Array = copy(s.c)
        return point

    def gauges(self, s: CBSState) -> dict[str, float]:
        """Return the largest distance to the mean, alpha, and the effective sample size."""
        return {"spread": spread(s.X, s.c), "alpha": s.alpha, "ess": sample_size(s.w)}
