"""Inner problems that are unrolled a few steps at a time: toys with known answers, trainings, a recurrence.

=======================  ===  =======  ====  ==================================================================
name                       d        T     K  theta
=======================  ===  =======  ====  ==================================================================
``influence-balancing``    1       --     1  a push that helps at once and harms in the long run (minimum -1/6)
``toy-regression``         2      100    10  logarithms of the first and last step size of a descent in the plane
``lorenz``                 2     2000   100  logarithms of two constants of the Lorenz system, to fit a trajectory
``digits-schedule``        2      500    10  step size and its decay for a network on the digits
``digits-layers``         29      200    10  step sizes, momenta, widths of a network with five hidden layers
``copy``                 193        6     1  weights of a recurrent network that repeats three bits
=======================  ===  =======  ====  ==================================================================

The objective is an :class:`dfo.Unrolled` oracle: T is its horizon, K the steps of an unroll. ``measure`` is the
loss of whole episodes, on data that no run sees where data are drawn; of influence balancing, which never ends, the
loss after 500 steps.

References: Tallec and Ollivier 2017, arXiv:1702.05043 (influence balancing); Vicol, Metz and Sohl-Dickstein 2021,
arXiv:2112.13835 (toy regression, schedule, layers, in larger forms); Vicol, Kolter and Swersky 2023,
arXiv:2304.11153 (copying); Li et al. 2023, arXiv:2304.12180 (Lorenz).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.oracles.lanes import Draws
from dfo.oracles.unrolled import Unrolled
from dfo.protocols import Problem
from dfo.random import Key, normal
from dfo.spaces import Free
from dfo_problems.pack import Cell, Pack
from dfo_problems.unrolled_networks import Copying, Layered, Scheduled, Training

__all__ = ["UNROLLED"]

HELD_OUT = tuple(range(1 << 40, (1 << 40) + 4))
"""Data numbers of the measures: larger than those that a run gets to."""


@dataclass(frozen=True)
class Episodes:
    """The measure: the mean loss of whole episodes.

    Args:
        oracle: of the problem, or a variant of it.
        data: data numbers of the episodes.
        steps: of an episode without a horizon.
    """

    oracle: Unrolled
    data: tuple[int, ...] = (0,)
    steps: int | None = None

    def __call__(self, x: Any) -> float:
        """Return the loss of one point."""
        return float(self.oracle.full(x, self.data, self.steps))


# ---------------------------------------------------------------------- influence balancing

PUSH = np.where(np.arange(23) < 10, 1.0, -1.0)
"""Ten units are pushed up by theta and thirteen down."""


def _balance(theta: Floats, s: Floats, t: Any, data: Draws) -> tuple[Floats, Floats]:
    """``s <- A s + theta b`` with A half the identity and half a shift; the loss is ``(s_0 - 1)^2 / 2``."""
    after = 0.5 * s + theta * PUSH
    after[:, :-1] += 0.5 * s[:, 1:]
    return after, 0.5 * (after[:, 0] - 1.0) ** 2


def _balanced(data: Draws) -> Floats:
    return np.ones((len(data.number), 23))


def _influence_balancing(name: str) -> Problem:
    oracle = Unrolled(_balanced, _balance, steps=1, vectorized=True)
    return Problem(
        name, Free(1), oracle, np.array([0.5]), 0.0, np.array([-1 / 6]),
        measure=Episodes(replace(oracle, reduce="last"), steps=500), reference="arXiv:1702.05043, section 4.1",
    )  # fmt: skip


# ---------------------------------------------------------------------- toy regression


def hilly(x: Floats) -> Floats:
    """``sqrt(x_0^2 + 5) - sqrt 5 + sin(x_1)^2 exp(-5 x_0^2) + |x_1 - 100| / 4`` of ``(n, 2)`` points."""
    bumps = np.sin(x[:, 1]) ** 2 * np.exp(-5.0 * x[:, 0] ** 2)
    values: Floats = np.sqrt(x[:, 0] ** 2 + 5.0) - math.sqrt(5.0) + bumps + 0.25 * np.abs(x[:, 1] - 100.0)
    return values


def _descend(theta: Floats, x: Floats, t: Any, data: Draws) -> tuple[Floats, Floats]:
    """One step of gradient descent on :func:`hilly`; the step size runs from ``exp theta_0`` to ``exp theta_1``."""
    with np.errstate(over="ignore", invalid="ignore"):
        share = t / 100.0
        rate = (1.0 - share) * np.exp(theta[:, 0]) + share * np.exp(theta[:, 1])
        decay, sine = np.exp(-5.0 * x[:, 0] ** 2), np.sin(x[:, 1])
        slope_0 = x[:, 0] / np.sqrt(x[:, 0] ** 2 + 5.0) - 10.0 * x[:, 0] * sine**2 * decay
        slope_1 = 2.0 * sine * np.cos(x[:, 1]) * decay + 0.25 * np.sign(x[:, 1] - 100.0)
        after = x - rate[:, None] * np.stack([slope_0, slope_1], axis=1)
        return after, hilly(after)


def _ones(data: Draws) -> Floats:
    return np.ones((len(data.number), 2))


def _toy_regression(name: str) -> Problem:
    oracle = Unrolled(_ones, _descend, steps=10, horizon=100, vectorized=True, worst=1e6)
    return Problem(
        name, Free(2), oracle, np.array([-4.0, -4.0]), measure=Episodes(oracle),
        reference="arXiv:2112.13835, section 5.1",
    )  # fmt: skip


# ---------------------------------------------------------------------- Lorenz

TRUTH = np.log([10.0, 28.0])
"""Logarithms of the constants that made the trajectory."""


def _flow(s: Floats, theta: Floats) -> Floats:
    """One Euler step of 0.005 of the Lorenz system with constants ``exp theta`` and 8/3."""
    (x, y, z), (a, r) = s.T, np.exp(theta.T)
    return s + 0.005 * np.stack([a * (y - x), x * (r - z) - y, x * y - 8.0 / 3.0 * z], axis=1)


def _lorenz_step(theta: Floats, state: tuple[Floats, Floats], t: Any, data: Draws) -> tuple[Any, Floats]:
    with np.errstate(over="ignore", invalid="ignore"):
        here, there = _flow(state[0], theta), _flow(state[1], np.broadcast_to(TRUTH, theta.shape))
        return (here, there), (here[:, 2] - there[:, 2]) ** 2


def _lorenz_start(data: Draws) -> tuple[Floats, Floats]:
    start = np.tile([1.2, 1.3, 1.6], (len(data.number), 1))
    return start, start.copy()


def _lorenz(name: str) -> Problem:
    oracle = Unrolled(_lorenz_start, _lorenz_step, steps=100, horizon=2000, reduce="mean", vectorized=True, worst=1e4)
    return Problem(
        name, Free(2), oracle, np.array([3.116, 3.7]), 0.0, TRUTH, measure=Episodes(oracle),
        reference="arXiv:2304.12180, section 5.1",
    )  # fmt: skip


# ---------------------------------------------------------------------- networks


def _schedule(name: str) -> Problem:
    inner = Training((32, 32), Scheduled(500), batch=32)
    return _trained(name, inner, 500, np.array([math.log(0.003), math.log(30.0)]), "section 5.2")


def _layers(name: str) -> Problem:
    hidden = (24,) * 5
    inner = Training(hidden, Layered(hidden), batch=32)
    x0 = np.concatenate([np.full(12, math.log(0.01)), np.zeros(12), np.zeros(5)])
    return _trained(name, inner, 200, x0, "section 5.4")


def _trained(name: str, inner: Training, horizon: int, x0: Floats, where: str) -> Problem:
    oracle = Unrolled(
        inner.reset, inner.step, steps=10, horizon=horizon, reduce="mean", vectorized=True, worst=math.log(10.0)
    )
    return Problem(
        name, Free(len(x0)), oracle, x0, measure=Episodes(oracle, HELD_OUT),
        noisy=True, reference=f"arXiv:2112.13835, {where}",
    )  # fmt: skip


def _copy(name: str) -> Problem:
    inner = Copying(units=12, length=3, batch=32)
    oracle = Unrolled(inner.reset, inner.step, steps=1, horizon=6, vectorized=True)
    x0 = normal(Key(0, ("copy",)), (inner.dim,)) / 12**0.5
    return Problem(
        name, Free(inner.dim), oracle, x0, measure=Episodes(oracle, HELD_OUT),
        noisy=True, reference="arXiv:2304.11153, section 5",
    )  # fmt: skip


BUILDERS: dict[str, Callable[[str], Problem]] = {
    "influence-balancing": _influence_balancing,
    "toy-regression": _toy_regression,
    "lorenz": _lorenz,
    "digits-schedule": _schedule,
    "digits-layers": _layers,
    "copy": _copy,
}


def _build(cell: Cell) -> Problem:
    return replace(BUILDERS[cell.function](cell.name), group=UNROLLED.group(cell.function))


UNROLLED = Pack(
    name="unrolled",
    summary="inner problems on lanes: toys, hyper-parameters of trainings, a recurrent network",
    groups={
        "toys": ("influence-balancing", "toy-regression", "lorenz"),
        "hyper-parameters": ("digits-schedule", "digits-layers"),
        "recurrent": ("copy",),
    },
    build=_build,
)
"""The pack of inner problems."""
