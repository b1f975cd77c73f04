"""What is handed out for evaluation, and what is remembered of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dfo.arrays import is_array, to_numpy
from dfo.batch import Batch
from dfo.encodings import Encoding
from dfo.oracles.encoded import decoded
from dfo.oracles.values import values_of
from dfo.protocols import Task
from dfo.run import auto
from dfo.run.peers import is_peer
from dfo.spaces import Box

__all__ = ["Asked", "Candidate", "Kept", "beyond", "chosen", "content", "members", "one"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A point to evaluate.

    Args:
        id: number of the candidate within its run, from 0.
        x: the point, a private copy.
        data: what to evaluate it on (minibatch, episode seed), or None.
    """

    id: int
    x: Any
    data: int | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """A candidate that was handed out, as the front remembers it."""

    member: int | None  # index in the batch, None for a candidate beyond it
    z: Any  # its solver coordinates, for one beyond the batch
    x: Any
    key: Any


@dataclass(frozen=True, eq=False)
class Kept:
    """What :meth:`AskTell.save` writes."""

    origin: Any
    state: Any
    values: tuple[float | None, ...]
    counts: tuple[int, int, int, int]
    pending: tuple[tuple[int, int | None, Any], ...]
    told: tuple[int, ...]
    best_x: Any
    best_fun: float


def chosen(space: Any, task: Task) -> str:
    """Return what ``auto`` chooses; peers cannot be asked."""
    integers = isinstance(task.space, Box) and bool(task.space.cells.any())
    name, _ = auto.choose(space, space.dim, task.budget, True if task.noisy else None, task.gives, integers)
    return "cma" if is_peer(name) else name


def beyond(solver: Any, state: Any, at: int, size: int, space: Encoding) -> tuple[Any, Any]:
    """Draw candidate number ``at`` beyond a batch of ``size`` from the solver's present distribution.

    Returns:
        The solver's coordinates, and the point.
    """
    if hasattr(state, "key"):
        state = replace(state, key=state.key.child("extra", at // size))
    if hasattr(state, "step"):
        state = replace(state, step=max(1, state.step))  # the first batch of some solvers begins with x0
    batch = solver.ask(state)
    i = at % len(batch)
    part = batch.part(i, i + 1)
    return part.member(0), members(decoded(part, space))[0]


def members(batch: Batch) -> list[Any]:
    """Return the members of a batch one by one."""
    return [batch.member(i) for i in range(len(batch))]


def content(x: Any) -> Any:
    """Return something hashable that equal points share."""
    if is_array(x):
        return to_numpy(x).tobytes()
    if isinstance(x, (list, tuple)):
        return np.asarray(x, dtype=float).tobytes()
    if isinstance(x, Mapping):
        return tuple((name, repr(value)) for name, value in sorted(x.items()))
    return x


def one(value: Any) -> float:
    """Return the number that was told, infinite where there is none."""
    told = values_of([value])
    return float(told.f[0]) if told.valid[0] else math.inf
