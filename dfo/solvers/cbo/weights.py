"""From values to the weights of a consensus point, and the inverse temperature that makes them.

Energies may be as large as numbers get, or infinite where an evaluation failed: only their differences to
the lowest one count, so adding a constant changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dfo.arrays import Floats
from dfo.errors import InvalidArgument, InvalidType
from dfo.feedback import Feedback, Values

__all__ = ["Growth", "alpha_for", "consensus_weights", "energies", "gaps", "sample_size"]


@dataclass(frozen=True)
class Growth:
    """A schedule ``start * factor ** (step // every)``, at most ``most``, for ``alpha`` or (factor < 1) ``sigma``.

    Args:
        start: number at step 0.
        factor: multiplies it, every ``every`` steps.
        every: steps between two changes.
        most: largest number given.

    Example:
        >>> from dfo.solvers.cbo import Growth
        >>> round(Growth(30.0, 1.05)(2), 3)
        33.075
    """

    start: float
    factor: float = 1.05
    every: int = 1
    most: float = 1e15

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.factor > 0 and self.every >= 1):
            raise InvalidArgument(f"Growth: expected start > 0, factor > 0 and every >= 1, got {self}.")

    def __call__(self, step: int) -> float:
        """Return the number at a step."""
        power = (step // self.every) * math.log(self.factor) + math.log(self.start)
        return min(math.exp(power), self.most) if power < math.log(self.most) else self.most


def energies(told: Feedback) -> Floats:
    """Return ``(n,)`` values, infinite where an evaluation failed.

    Raises:
        InvalidType: the feedback holds no values.
    """
    if not isinstance(told, Values):
        raise InvalidType(f"consensus: expected values, got {type(told).__name__}. Weights need more than an order.")
    f: Floats = np.array(told.f, dtype=float)
    if told.failed is None and np.isfinite(f).all():
        return f
    return np.where(told.valid & np.isfinite(f), f, np.inf)


def gaps(E: Floats) -> Floats:
    """Return ``(n,)`` energies above the lowest one; all 0 where nothing is finite."""
    known = np.isfinite(E)
    if not known.any():
        return np.zeros(len(E))
    if known.all() and abs(E).max() < 1e300:
        return np.asarray(E - E.min())
    with np.errstate(over="ignore"):
        gap: Floats = np.where(known, E - E[known].min(), np.inf)
    return gap


def consensus_weights(E: Floats, alpha: float) -> Floats:
    """Return ``(n,)`` weights ``exp(-alpha E_i)``, normalised to sum 1; their plain mean where nothing is finite."""
    gap = gaps(E)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        exponent = alpha * gap
        if alpha == 0.0:
            exponent = np.zeros(len(gap))  # 0 * inf: all count
        w = np.exp(-exponent)
    total: Floats = w / w.sum()
    return total


def sample_size(w: Floats) -> float:
    """Return the effective sample size ``(sum w)^2 / sum w^2``: n for equal weights, 1 for a single one."""
    return float(w.sum() ** 2 / (w * w).sum())


def alpha_for(E: Floats, eta: float, rounds: int = 6) -> float:
    """Return the inverse temperature at which the effective sample size is the share ``eta`` of the finite energies.

    The size falls from n at 0 to the number of minimisers; a nested grid of 17 on the logarithm of alpha finds
    the place to a relative 1e-6. Scale free: ``alpha_for(a E + b) = alpha_for(E) / a``. Where ties at the minimum
    are a larger share already, alpha is as large as tells the energies apart; without differences it is 0.

    Args:
        E: ``(n,)`` energies.
        eta: wanted share, in (0, 1]; at least two energies count.
        rounds: grids.
    """
    gap = gaps(E)
    gap = gap[np.isfinite(gap)]
    known = gap[gap > 0]
    if not known.size or eta >= 1.0:
        return 0.0
    low, high = math.log(1e-3) - math.log(float(known.max())), math.log(1e3) - math.log(float(known.min()))
    wanted = max(eta * gap.size, min(2.0, 0.75 * gap.size))  # one alone would follow the best particle
    with np.errstate(over="ignore", under="ignore"):
        for _ in range(rounds):
            grid = np.linspace(low, high, 17)
            w = np.exp(-np.exp(np.minimum(grid, 709.0))[:, None] * gap)  # (17, n)
            size = w.sum(axis=1) ** 2 / (w * w).sum(axis=1)
            at = int(np.clip(np.count_nonzero(size >= wanted), 1, 16))  # the sizes fall along the grid
            low, high = float(grid[at - 1]), float(grid[at])
    return math.exp(min((low + high) / 2, 709.0))
