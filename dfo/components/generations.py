"""What evolution strategies agree on before they differ: members a generation, the first step, how steps shrink."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from dfo.arrays import Array, as_like, to_numpy
from dfo.components.borders import step_floor
from dfo.protocols import Task
from dfo.spaces import Box, Space

__all__ = ["RADIUS", "SCHEDULES", "Schedule", "annealed", "first_sigma", "members", "widened"]

Schedule = Literal["cosine", "exponential", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "exponential", "constant")

RADIUS = 5.0
"""Longest first cloud of a free space: the standard deviation is at most ``RADIUS / sqrt(d)``."""


def members(task: Task, wanted: int | None, default: int, least: int = 2) -> int:
    """Return the members of a generation: what is wanted, what the run asks for, or the default.

    Args:
        task: says how many the oracle takes at once, and the ``batch`` of the run.
        wanted: the solver's own option, or None.
        default: where nobody says anything.
        least: fewest that the solver can learn from.
    """
    n = wanted or task.batch or default
    return max(least, n if task.max_batch is None else min(n, task.max_batch))


def first_sigma(task: Task, sigma: float | None) -> float:
    """Return the first standard deviation: as given; else 0.5, or a fifth of a box, less in many variables.

    A cloud has the radius ``sigma sqrt(d)``. Above a hundred variables the default keeps it at 5 (2 in a unit
    box), as step sizes found for networks do (PGPE with ClipUp: 4.5, Toklu et al. 2020, section 4).
    """
    boxed = isinstance(task.space, Box) and bool(task.space.bounded.all())
    scale = 0.4 if boxed else 1.0
    return sigma or scale * min(0.5, RADIUS / math.sqrt(task.space.dim))


def annealed(schedule: Schedule, spent: float, floor: float) -> float:
    """Return the factor of a step when a share ``spent`` of the run is over, from 1 down to ``floor``.

    Args:
        schedule: ``"cosine"``: ``floor + (1 - floor) (1 + cos(pi spent)) / 2`` (Loshchilov and Hutter 2017,
            arXiv:1608.03983, eq. 5); ``"exponential"``: ``floor ** spent``; ``"constant"``: 1.
        spent: 0 at the start; 1 at the end and beyond.
        floor: the last factor.
    """
    t = min(max(spent, 0.0), 1.0)
    if schedule == "cosine":
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * t))
    return floor**t if schedule == "exponential" else 1.0


def widened(space: Space | None, sigma: Any, population: int, like: Array) -> Any:
    """Return ``sigma`` (a number or ``(d,)``), raised in coordinates with cells so that steps keep leaving them."""
    floor = step_floor(space, population)
    return sigma if floor is None else as_like(np.maximum(floor, to_numpy(sigma)), like)
