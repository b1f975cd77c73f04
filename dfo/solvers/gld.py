"""Gradientless descent: try gaussian steps on a ladder of lengths, keep the best.

References: Golovin, Karro, Kochanski, Lee, Song and Zhang 2020, "Gradientless descent: high-dimensional zeroth-order
optimization", ICLR, arXiv:1911.06317 (Algorithm 1, GLD-Search; Algorithm 2, GLD-Fast).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy
from dfo.batch import Batch, Perturbations, Points
from dfo.components.options import check_positive
from dfo.components.ranking import merits
from dfo.directions import Directions, Gaussian
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key
from dfo.spaces import Box, Space

__all__ = ["GLD", "GLDState"]


@dataclass(frozen=True, eq=False)
class GLDState:
    """The memory of :class:`GLD`."""

    x: Array  # (d,) where the ladder stands
    best: Array  # (d,) the best of x and of the steps of this ladder so far
    tried: int  # steps of this ladder so far
    age: int  # ladders climbed
    key: Key
    step: int


@dataclass(frozen=True)
class GLD:
    """Of the point and gaussian steps with standard deviations R, R/2, R/4, ... keep the best; only compares.

    Args:
        radius: R, the longest standard deviation (the middle one of the fast form): the distance to the minimum
            over sqrt(d); by default 0.1 in a box and 0.5 elsewhere.
        smallest: r; the ladder of the search form ends there, at ``k = log2(R / r)``.
        variant: ``"fast"``: standard deviations ``2^-k R`` for k in -K..K with ``K = log2(4 sqrt(condition))``, and R
            is halved every ``d condition log2(condition)`` ladders. ``"search"``: k in 0..log2(R / r), R stays.
        condition: bound on the condition number, for the fast form; 4 makes questions of eight points.
        batch: most points of a question; a longer ladder is climbed in several, the best so far among the shown.
        space: where to search; points are projected into a box. Filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of range.

    Example:
        >>> import dfo
        >>> bool(dfo.minimize(lambda x: float(x @ x), [1.0, -2.0], method="gld", budget=2000).fun < 1e-4)
        True
    """

    radius: float | None = None
    smallest: float = 1e-6
    variant: Literal["fast", "search"] = "fast"
    condition: float = 4.0
    batch: int | None = None
    space: Space | None = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        if self.variant not in ("fast", "search"):
            raise InvalidArgument(f'variant: expected "fast" or "search", got {self.variant!r}.')
        check_positive(self, "radius", "smallest")
        if not 1 < self.condition < 1e150:
            raise InvalidArgument(f"condition: expected a number above 1, got {self.condition!r}.")
        if self.batch is not None and self.batch < 2:
            raise InvalidArgument(f"batch: expected at least 2 points to compare, got {self.batch!r}.")

    def plan(self, task: Task) -> GLD:
        """Fill in the radius, the size of a question and the space."""
        boxed = isinstance(task.space, Box) and bool(task.space.bounded.all())
        limits = [n for n in (self.batch, task.batch, task.max_batch) if n is not None]
        return replace(
            self,
            radius=self.radius or (0.1 if boxed else 0.5),
            batch=max(2, min(limits)) if limits else None,
            space=self.space or task.space,
        )

    def _ladder(self, s: GLDState) -> Floats:
        """Return ``(n,)`` standard deviations, longest first."""
        longest = self.radius or 0.5
        if self.variant == "search":
            rungs = max(0, math.ceil(math.log2(longest / self.smallest) - 1e-9))
            return np.asarray(longest * 0.5 ** np.arange(rungs + 1.0))
        rungs = math.ceil(math.log2(4.0 * math.sqrt(self.condition)) - 1e-9)
        every = max(1, math.ceil(s.x.shape[0] * self.condition * math.log2(self.condition)))
        halved = longest * 0.5 ** min(s.age // every, 1000)
        return np.asarray(halved * 2.0 ** np.arange(rungs, -rungs - 1.0, -1.0))

    # ------------------------------------------------------------------ questions

    def init(self, x0: Array, key: Key) -> GLDState:
        """Return the state before the first question."""
        return GLDState(copy(x0), copy(x0), 0, 0, key, 0)

    def ask(self, s: GLDState) -> Batch:
        """Ask about the best point so far and the next steps of the ladder."""
        ladder = self._ladder(s)
        n = min((self.batch or len(ladder) + 1) - 1, len(ladder) - s.tried)
        drawn = Directions(Gaussian(), s.key.child(s.age), len(ladder), s.x)
        rungs = np.arange(s.tried, s.tried + n)
        batch = Perturbations(
            (s.best, s.x), drawn, step=s.step, origin=np.minimum(np.arange(n + 1), 1),
            index=np.concatenate([rungs[:1], rungs]), scale=np.concatenate([[0.0], ladder[rungs]]),
        )  # fmt: skip
        if not isinstance(self.space, Box):
            return batch
        return Points(as_like(self.space.project(batch.dense()), s.x), step=s.step)

    def tell(self, s: GLDState, batch: Batch, told: Feedback) -> GLDState:
        """Keep the best; after the last step of the ladder, stand there."""
        merit, tried = merits(told), s.tried + len(batch) - 1
        best: Any = s.best
        if not np.isnan(merit[0]) and not np.isnan(merit[1:]).all():
            i = 1 + int(np.nanargmin(merit[1:]))
            best = batch.member(i) if merit[i] < merit[0] else best
        if tried < len(self._ladder(s)):
            return replace(s, best=best, tried=tried, step=s.step + 1)
        return replace(s, x=best, best=best, tried=0, age=s.age + 1, step=s.step + 1)

    def recommend(self, s: GLDState) -> Any:
        """Return the best point so far."""
        return copy(s.best)

    def gauges(self, s: GLDState) -> dict[str, float]:
        """Return the longest standard deviation."""
        return {"radius": float(self._ladder(s)[0])}
