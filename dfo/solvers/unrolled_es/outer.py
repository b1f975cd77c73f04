"""What evolution strategies on unrolled problems share: members around a point, their noise, and the update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from dfo.arrays import Array, Floats, namespace
from dfo.components import descent, estimators
from dfo.components.borders import into_box
from dfo.components.descent import Moments
from dfo.components.options import check_choice, check_positive
from dfo.errors import InvalidArgument, InvalidType
from dfo.feedback import Feedback, Values
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.spaces import Space

__all__ = ["Flags", "Ints", "Outer", "answers", "length", "noise"]

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outer:
    """What all of them share: a smoothing, a population and an update rule."""

    sigma: float = 0.1
    lr: float = 0.01
    population: int | None = None
    rule: descent.Rule = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_norm: float | None = None
    filter: estimators.Filter = "none"
    limit: float = 1.0
    space: Space | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"values", "ended"})
    handles: ClassVar[frozenset[str]] = frozenset()
    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    laws: ClassVar[frozenset[str]] = frozenset({"translation"})

    def __post_init__(self) -> None:
        check_choice(self, filter=estimators.FILTERS, rule=descent.RULES)
        check_positive(self, "sigma", "lr", "eps", "limit", "max_norm")
        n = self.population
        if n is not None and (n < 2 or n % 2):
            raise InvalidArgument(f"population: expected an even number of at least 2, for pairs, got {n!r}.")
        if not all(0 <= b < 1 for b in self.betas):
            raise InvalidArgument(f"betas: expected two numbers in [0, 1), got {self.betas!r}.")

    def plan(self, task: Task) -> Self:
        """Take the population and the space from the task: pairs for a batch, 32 members by default."""
        batch = task.batch and max(2, task.batch - task.batch % 2)
        return replace(self, population=self.population or batch or 32, space=self.space or task.space)

    @property
    def pairs(self) -> int:
        """Antithetic pairs."""
        return (self.population or 32) // 2

    def _members(self, x: Array, z: Array) -> Array:
        """Return ``(2 pairs, d)`` points ``x + sigma z_0, x - sigma z_0, x + sigma z_1, ...``."""
        xp, move = namespace(x), self.sigma * z
        members: Array = xp.stack([x + move, x - move], axis=1).reshape(-1, x.shape[0])
        return into_box(self.space, members)

    def _weights(self, delta: Floats) -> Floats:
        """Return the weights of the unit noise of each pair; 0 where the difference is missing (NaN)."""
        return estimators.filtered(self.filter, delta, self.limit) / (2.0 * self.sigma)

    def _moved(self, x: Array, g: Array, moments: Moments) -> tuple[Array, Array, Moments]:
        """Return the point, the estimate (clipped to ``max_norm``) and the rule's memory after an update."""
        if self.max_norm is not None:
            g = g * min(1.0, self.max_norm / max(length(g), 1e-300))
        step, moments = descent.step(self.rule, g, moments, self.lr, self.betas, self.eps)
        return x + step, g, moments


def noise(key: Key, drawn: Ints, x: Array) -> Array:
    """Return ``(pairs, d)`` unit noise: row ``i`` is row ``i`` of draw number ``drawn[i]``, whoever asks for it."""
    d, pairs = x.shape[0], len(drawn)
    if (drawn == drawn[0]).all():  # the pairs are in step
        return normal(key.child(int(drawn[0])), (pairs, d), x)
    z: Any = namespace(x).zeros((pairs, d), dtype=x.dtype, device=x.device)
    for number in np.unique(drawn):
        at = np.flatnonzero(drawn == number)
        low = int(at[0])
        z[at] = normal(key.child(int(number)), (int(at[-1]) + 1 - low, d), x, low * d)[at - low]
    rows: Array = z
    return rows


def answers(told: Feedback, like: Array) -> tuple[Floats, Flags]:
    """Return ``(n,)`` losses, NaN where there is no usable one, and whether the episodes ended."""
    if not isinstance(told, Values):
        raise InvalidType(f"expected values, got {type(told).__name__}.")
    most = min(float(namespace(like).finfo(like.dtype).max) ** 0.4, 1e120)  # squares of estimates must not overflow
    with np.errstate(invalid="ignore"):
        usable = told.valid & (np.abs(told.f) < most)
    ended = np.zeros(len(told.f), bool) if told.ended is None else told.ended
    return np.where(usable, told.f, np.nan), ended


def length(g: Array) -> float:
    """Return the euclidean length."""
    return float(namespace(g).linalg.norm(g))
