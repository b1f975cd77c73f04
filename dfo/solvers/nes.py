"""Natural evolution strategies: steps along the natural gradient of the expected utility of a gaussian.

``SNES`` learns a standard deviation for each coordinate (O(d)), ``XNES`` a full covariance (O(d^2) for each
point). Utilities depend on ranks only: ``u_k = max(0, ln(n/2 + 1) - ln k) / sum - 1/n``.

References: Wierstra, Schaul, Glasmachers, Sun, Peters and Schmidhuber 2014, "Natural evolution strategies", JMLR 15
(equations by its numbers); Glasmachers, Schaul, Sun, Wierstra and Schmidhuber 2010, "Exponential natural evolution
strategies", GECCO (xNES); Schaul, Glasmachers and Schmidhuber 2011, "High dimensions and heavy tails for natural
evolution strategies", GECCO (SNES).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dfo.arrays import Array, as_like, namespace
from dfo.components.borders import step_floor
from dfo.components.options import check_positive
from dfo.components.sampling import cloud, moments
from dfo.components.shaping import shaped
from dfo.components.strategy import Run, Strategy, bounded_steps
from dfo.errors import ProblemTooLarge
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key

__all__ = ["SNES", "XNES", "SNESState", "XNESState"]


@dataclass(frozen=True, eq=False)
class SNESState:
    """The memory of :class:`SNES`, in free coordinates."""

    mean: Array  # (d,)
    stdev: Array  # (d,)
    run: Run
    key: Key
    step: int


@dataclass(frozen=True)
class SNES(Strategy):
    """Separable natural evolution strategy: a mean and a standard deviation for each coordinate, O(d).

    ``m += lr s sum_k u_k z_k`` and ``s *= exp(lr_sigma/2 sum_k u_k (z_k^2 - 1))`` with ``x_k = m + s z_k``
    (Wierstra et al. 2014, algorithm 6; ``u`` by rank).

    Args:
        population: points per generation; ``4 + floor(3 ln d)`` by default, three times that with noise.
        sigma: initial standard deviation: a fraction of the box between two bounds (0.2 by default), in
            units of x elsewhere (0.5 by default); the defaults shrink above a hundred variables.
        restarts: as in :class:`~dfo.components.strategy.Strategy`.
        xtol: a run has converged when all standard deviations are below this.
        ftol: a run has converged when the values of recent generations differ by less than this.
        space: where to search; filled in by the run.
        noisy: values jitter: a run is not ended because of values, and by default there are no restarts.
        max_population: bound on what restarts double.
        lr: step of the mean.
        lr_sigma: step of the standard deviations; ``(3 + ln d) / (5 sqrt(d))`` by default.
        mirrored: draw pairs ``m + s z``, ``m - s z``; the population is then even.

    Raises:
        InvalidArgument: population below 2, a number that is not positive and finite, unknown restarts.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method="snes", budget=2000).fun < 1e-8
        True
    """

    lr: float = 1.0
    lr_sigma: float | None = None
    mirrored: bool = False

    title: ClassVar[str] = "SNES"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "lr", "lr_sigma")

    def _begin(self, mean: Array, sigma: float, run: Run, key: Key, step: int) -> SNESState:
        stdev: Any = sigma * namespace(mean).ones_like(mean)
        return SNESState(mean, bounded_steps(stdev, mean), run, key, step)

    def _draw(self, s: SNESState, n: int) -> Array:
        return cloud(s.mean, self._steps(s), s.key.child(s.step), *_paired(n, self.mirrored))

    def _steps(self, s: SNESState) -> Any:
        """Return the standard deviations, raised in coordinates with cells so that steps keep leaving them."""
        floor = step_floor(self.space, s.run.regime.population)
        return s.stdev if floor is None else namespace(s.mean).maximum(s.stdev, as_like(floor, s.mean))

    def _learn(self, s: SNESState, G: Array, told: Feedback) -> SNESState:
        xp, d, stdev = namespace(s.mean), int(s.mean.shape[0]), self._steps(s)
        u = shaped("nes", told)
        lr_sigma = self.lr_sigma or min(1.0, (3 + math.log(d)) / (5 * math.sqrt(d)))
        slope, curve = moments(G, s.mean, stdev, u, u, self.mirrored)
        pace = xp.clip(0.5 * lr_sigma * (curve - float(u.sum())), -5.0, 5.0)
        mean = s.mean + self.lr * stdev * slope
        return replace(s, mean=mean, stdev=bounded_steps(s.stdev * xp.exp(pace), mean))

    def _spread(self, s: SNESState) -> Any:
        return s.stdev


@dataclass(frozen=True, eq=False)
class XNESState:
    """The memory of :class:`XNES`, in free coordinates: steps are ``sigma B z`` with ``det B = 1``."""

    mean: Array  # (d,)
    sigma: float
    B: Array  # (d, d)
    run: Run
    key: Key
    step: int


@dataclass(frozen=True)
class XNES(Strategy):
    """Exponential natural evolution strategy: a full covariance, moved by matrix exponentials.

    With ``x_k = m + sigma B z_k`` and ``M = sum_k u_k (z_k z_k' - I)``: ``m += lr sigma B sum_k u_k z_k``,
    ``sigma *= exp(lr_sigma/2 tr(M)/d)``, ``B <- B expm(lr_shape/2 (M - tr(M)/d I))`` (Glasmachers et al. 2010,
    algorithm 1). ``M`` lives in the span of the ``z_k``, so its exponential costs O(d n^2) and is exact. The path
    does not depend on the coordinates: rotate and scale them, and it rotates and scales along.

    Args:
        population: points per generation; ``4 + floor(3 ln d)`` by default, three times that with noise.
        sigma: initial standard deviation: a fraction of the box between two bounds (0.2 by default), in
            units of x elsewhere (0.5 by default); the defaults shrink above a hundred variables.
        restarts: as in :class:`~dfo.components.strategy.Strategy`.
        xtol: a run has converged when all standard deviations are below this.
        ftol: a run has converged when the values of recent generations differ by less than this.
        space: where to search; filled in by the run.
        noisy: values jitter: a run is not ended because of values, and by default there are no restarts.
        max_population: bound on what restarts double.
        lr: step of the mean.
        lr_sigma: step of the scale; ``(9 + 3 ln d) / (5 d sqrt(d))`` by default, at most 1.
        lr_shape: step of the shape; as ``lr_sigma`` by default.
        mirrored: draw pairs ``m + sigma B z``, ``m - sigma B z``; the population is then even.

    Raises:
        InvalidArgument: population below 2, a number that is not positive and finite, unknown restarts.
        ProblemTooLarge: the shape would take more than 8 GiB.

    Example:
        >>> import dfo
        >>> tilted = lambda x: float((x[0] + x[1]) ** 2 + 1e4 * (x[0] - x[1]) ** 2)
        >>> dfo.minimize(tilted, [1.0, 2.0], method="xnes", budget=3000).fun < 1e-8
        True
    """

    lr: float = 1.0
    lr_sigma: float | None = None
    lr_shape: float | None = None
    mirrored: bool = False

    title: ClassVar[str] = "xNES"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "lr", "lr_sigma", "lr_shape")

    def plan(self, task: Task) -> XNES:
        """Fill in population, step, restarts and space."""
        d = task.space.dim
        if 3 * 8 * d * d > 8 << 30:
            raise ProblemTooLarge(
                f"xnes: a shape of {d} x {d} needs {3 * 8 * d * d / 2**30:.0f} GiB, more than the 8 GiB allowed."
                " Use method='snes' or 'sep-cma', whose costs are linear in the number of variables."
            )
        return super().plan(task)

    def _begin(self, mean: Array, sigma: float, run: Run, key: Key, step: int) -> XNESState:
        d = int(mean.shape[0])
        eye = namespace(mean).eye(d, dtype=mean.dtype, device=mean.device)
        return XNESState(mean, bounded_steps(sigma, mean), eye, run, key, step)

    def _normal(self, s: XNESState, n: int) -> Array:
        n, mirrored = _paired(n, self.mirrored)
        return cloud(namespace(s.mean).zeros_like(s.mean), 1.0, s.key.child(s.step), n, mirrored)

    def _draw(self, s: XNESState, n: int) -> Array:
        steps: Any = self._normal(s, n) @ s.B.T
        points: Array = s.mean + s.sigma * steps
        return points

    def _learn(self, s: XNESState, G: Array, told: Feedback) -> XNESState:
        xp, d = namespace(s.mean), int(s.mean.shape[0])
        u = as_like(shaped("nes", told), s.mean)
        rate = min(1.0, (9 + 3 * math.log(d)) / (5 * d * math.sqrt(d)))
        lr_sigma, lr_shape = self.lr_sigma or rate, self.lr_shape or rate
        Z: Any = self._normal(s, len(G))  # drawn again: exact, however small sigma has become
        Q, R = xp.linalg.qr(xp.matrix_transpose(Z))  # (d, k), (k, n): M + sum(u) I = Q R diag(u) R' Q'
        values, V = xp.linalg.eigh((R * u) @ R.T)
        logs = xp.clip(0.5 * lr_shape * values, -20.0, 20.0)
        axes = Q @ V  # (d, k); outside of their span the exponential is the identity
        B = (s.B + ((s.B @ axes) * (xp.exp(logs) - 1.0)) @ axes.T) * math.exp(-float(logs.sum()) / d)
        pace = 0.5 * lr_sigma * (float(values.sum()) / d - float(u.sum()))
        mean = s.mean + self.lr * s.sigma * (s.B @ (u @ Z))
        sigma = bounded_steps(s.sigma * math.exp(min(max(pace, -5.0), 5.0)), mean)
        return replace(s, mean=mean, sigma=sigma, B=B)

    def _spread(self, s: XNESState) -> Any:
        B: Any = s.B
        return s.sigma * namespace(B).sqrt((B * B).sum(axis=1))


def _paired(n: int, mirrored: bool) -> tuple[int, bool]:
    """Return the population, even if it comes in pairs."""
    return (max(2, n - n % 2), True) if mirrored else (n, False)
