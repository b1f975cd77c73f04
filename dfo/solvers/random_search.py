"""Random search: the baseline that every solver has to beat.

In a space with bounds, points are uniform in it. In a free space they are normal around the start with
a standard deviation that is itself drawn log-uniformly between ``radius * 10**-decades`` and ``radius``,
which finds the scale of a problem that nobody told.

References: Bergstra and Bengio 2012, "Random search for hyper-parameter optimization", JMLR 13.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, as_like, copy, namespace
from dfo.batch import Batch, Items, Points
from dfo.components.ranking import merits
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key, normal, uniform
from dfo.sets.convex import is_convex
from dfo.spaces import Box, Text

__all__ = ["RandomSearch", "RandomSearchState"]


@dataclass(frozen=True, eq=False)
class RandomSearchState:
    """The memory of :class:`RandomSearch`: the start, and the best point with its merit."""

    x0: Any
    best: Any
    merit: float
    key: Key
    step: int


@dataclass(frozen=True)
class RandomSearch:
    """Independent random points; the first is the start.

    With an oracle that only ranks, every question shows the best point so far among the new ones.

    Args:
        radius: largest standard deviation in coordinates without bounds.
        decades: how many powers of ten below ``radius`` the standard deviation may fall.
        batch: points per step; 64 by default, which changes no point, only how often hooks are called.
        again: show the best point so far again, to compare with it; so it is with oracles that only rank.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a number that is not positive.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [2.0, 2.0], method="random", budget=300).nfev
        300
    """

    radius: float = 2.0
    decades: float = 3.0
    batch: int | None = None
    again: bool = False
    space: Any = None

    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex", "text"})
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance"})

    def __post_init__(self) -> None:
        for name, value in (("radius", self.radius), ("decades", self.decades), ("batch", self.batch)):
            if value is not None and not 0 < value < 1e150:
                raise InvalidArgument(f"{name}: expected a positive number below 1e150, got {value!r}.")

    def plan(self, task: Task) -> RandomSearch:
        """Take the space and the batch from the task."""
        batch = self.batch or task.batch or min(64, task.max_batch or 64)
        again = self.again or "values" not in task.gives
        return replace(self, space=self.space or task.space, batch=max(batch, 2) if again else batch, again=again)

    def init(self, x0: Any, key: Key) -> RandomSearchState:
        """Return the state before the first question."""
        return RandomSearchState(x0, x0, np.inf, key, 0)

    def ask(self, s: RandomSearchState) -> Batch:
        """Return the next points."""
        n, key = self.batch or 64, s.key.child(s.step)
        if isinstance(self.space, Text):
            items = self.space.sample(key, n)
            return Items([s.best if s.step else s.x0, *items[1:]] if s.step == 0 or self.again else items, step=s.step)
        drawn = is_convex(self.space)
        X: Any = as_like(self.space.sample(key, n), s.x0) if drawn else self._around(key, n, s.x0)
        if isinstance(self.space, Box):
            X = self._inside(key, n, X)
        if s.step == 0 or self.again:
            X[0] = s.best if s.step else s.x0
        return Points(X, step=s.step)

    def _around(self, key: Key, n: int, x0: Array) -> Array:
        xp = namespace(x0)
        if isinstance(self.space, Box) and self.space.bounded.all():
            tiled: Array = xp.zeros((n, x0.shape[0]), dtype=x0.dtype, device=x0.device) + x0
            return tiled
        scale = 10.0 ** (-self.decades * uniform(key.child("scale"), (n, 1)))
        spread = as_like(self.radius * scale, x0)
        points: Array = x0 + spread * normal(key, (n, x0.shape[0]), x0)
        return points

    def _inside(self, key: Key, n: int, X: Array) -> Array:
        box = self.space
        assert isinstance(box, Box)
        xp, bounded = namespace(X), box.bounded
        lower, upper = as_like(np.where(bounded, box.lower, 0.0), X), as_like(np.where(bounded, box.upper, 1.0), X)
        drawn = lower + uniform(key.child("box"), (n, X.shape[1]), X) * (upper - lower)
        if not bounded.all():
            drawn = xp.where(xp.asarray(bounded, device=X.device), drawn, X)
        return xp.clip(drawn, as_like(box.lower, X), as_like(box.upper, X))  # type: ignore[no-any-return]

    def tell(self, s: RandomSearchState, batch: Batch, told: Feedback) -> RandomSearchState:
        """Remember the best point."""
        told_merit = merits(told)
        merit = np.nan_to_num(told_merit, nan=np.inf, posinf=np.inf)
        i = int(merit.argmin())
        if merit[i] < (told_merit[0] if self.again and s.step > 0 else s.merit):
            return replace(s, best=batch.member(i), merit=float(merit[i]), step=s.step + 1)
        return replace(s, step=s.step + 1)

    def observe(self, s: RandomSearchState, points: Any, values: Array) -> RandomSearchState:
        """Remember the best of points evaluated elsewhere."""
        i = int(np.argmin(values))
        return replace(s, best=copy(points[i]), merit=float(values[i])) if values[i] < s.merit else s

    def recommend(self, s: RandomSearchState) -> Any:
        """Return the best point seen."""
        return s.best
