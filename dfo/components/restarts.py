"""When a run has converged: how large the next one is, and where and how wide it starts.

References: Auger and Hansen 2005, "A restart CMA evolution strategy with increasing population size"
(IPOP); Hansen 2009, "Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed" (BIPOP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dfo.arrays import Array, as_like
from dfo.random import Key, normal, uniform
from dfo.spaces import Box, Space

__all__ = ["POLICIES", "Policy", "Regime", "first_regime", "next_regime", "restart_point"]

Policy = Literal["none", "same", "ipop", "bipop"]
POLICIES: tuple[Policy, ...] = ("none", "same", "ipop", "bipop")


@dataclass(frozen=True)
class Regime:
    """Where a sequence of runs stands.

    Args:
        population: of the current run.
        sigma: initial step of the current run, as a multiple of the solver's.
        cap: most evaluations of the current run, or None.
        run: number of the current run, from 0.
        doublings: how often the large population has been doubled.
        small: whether the current run belongs to the small regime of BIPOP.
        spent_small: evaluations of finished small runs.
        spent_large: evaluations of finished large runs.
        last_large: evaluations of the last finished large run.
    """

    population: int
    sigma: float = 1.0
    cap: int | None = None
    run: int = 0
    doublings: int = 0
    small: bool = False
    spent_small: int = 0
    spent_large: int = 0
    last_large: int = 0


def first_regime(population: int) -> Regime:
    """Return the regime of the first run."""
    return Regime(population)


def next_regime(policy: Policy, now: Regime, spent: int, default: int, key: Key, most: int | None = None) -> Regime:
    """Return the regime of the run after one that spent ``spent`` evaluations.

    Args:
        policy: ``"same"`` repeats the population, ``"ipop"`` doubles it, ``"bipop"`` alternates between
            doubled and random small ones so that both regimes spend about the same.
        now: the finished run.
        spent: its evaluations.
        default: the population of the first run.
        key: stream for the random small populations.
        most: largest population allowed, or None.
    """
    small, large = now.spent_small + spent * now.small, now.spent_large + spent * (not now.small)
    last = now.last_large if now.small else spent
    run = now.run + 1
    if policy == "same":
        return Regime(default, run=run)
    if policy == "bipop" and now.run > 0 and small < large:
        u = uniform(key, (2,))
        ratio = 0.5 * 2.0**now.doublings
        population = max(2, int(default * ratio ** float(u[0]) ** 2))  # Hansen 2009, eq. 1
        return Regime(
            min(population, most or population), 10.0 ** (-2.0 * float(u[1])), max(last // 2, 1), run,
            now.doublings, True, small, large, last,
        )  # fmt: skip
    population = default * 2 ** (now.doublings + 1)
    return Regime(min(population, most or population), 1.0, None, run, now.doublings + 1, False, small, large, last)


def restart_point(space: Space | None, x0: Array, sigma: float, key: Key) -> Array:
    """Return where the next run starts: uniform in the box where there is one, else around ``x0``.

    Coordinates without two finite bounds are normal around ``x0`` with three times the initial step.
    """
    around: Any = x0 + 3.0 * sigma * normal(key.child("around"), (x0.shape[0],), x0)
    if not isinstance(space, Box):
        result: Array = around
        return result
    unit = uniform(key.child("inside"), (x0.shape[0],), x0)
    bounded = as_like(space.bounded, x0)
    lower = as_like(np.where(space.bounded, space.lower, 0.0), x0)
    upper = as_like(np.where(space.bounded, space.upper, 0.0), x0)
    mixed: Any = bounded * (lower + unit * (upper - lower)) + (1.0 - bounded) * around
    return as_like(space.project(mixed), x0)
