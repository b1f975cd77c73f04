"""The biased baseline: all members look ahead from one inner state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, as_like, copy, zeros
from dfo.batch import Batch, Points
from dfo.components import descent
from dfo.components.borders import into_box, onto_line
from dfo.components.descent import Moments
from dfo.components.stages import Staged
from dfo.feedback import Feedback
from dfo.random import Key
from dfo.solvers.unrolled_es.outer import Outer, answers, length, noise

__all__ = ["TruncatedES", "TruncatedESState"]


@dataclass(frozen=True, eq=False)
class TruncatedESState:
    """The memory of :class:`TruncatedES`."""

    x: Array  # (d,) free coordinates
    g: Array  # (d,) the last estimate
    moments: Moments
    episode: int
    stage: str
    key: Key
    step: int


@dataclass(frozen=True)
class TruncatedES(Outer, Staged):
    """Truncated evolution strategies: all members look one unroll ahead from one inner state, which then follows.

    Biased towards what pays at once: what theta did to the state is not seen. The baseline of the others. An
    update costs one evaluation more than the population, for the state to follow the mean.

    Arguments are those of :class:`GPES` without ``share``, ``every`` and ``stagger``.

    Example:
        >>> import dfo
        >>> dfo.TruncatedES(population=8).lanes
        1
    """

    stages: ClassVar[tuple[str, ...]] = ("look", "follow")
    lanes: ClassVar[int] = 1

    def init(self, x0: Array, key: Key) -> TruncatedESState:
        """Return the state before the first question."""
        x = copy(onto_line(self.space, x0))
        return TruncatedESState(x, zeros(x), descent.first_moments(self.rule, x), 0, "look", key, 0)

    def _drawn(self, s: TruncatedESState) -> Any:
        return noise(s.key, np.full(self.pairs, s.step), s.x)

    def ask_look(self, s: TruncatedESState) -> Batch:
        """Ask where one unroll with each member leads; the inner state stays where it is."""
        X: Any = self._members(s.x, self._drawn(s))
        same = np.zeros(len(X), np.int64)
        return Points(X, lane=same, data=same + s.episode, commit=False, step=s.step)

    def tell_look(self, s: TruncatedESState, batch: Batch, told: Feedback) -> TruncatedESState:
        """Form the estimate."""
        f, _ = answers(told, s.x)
        delta = f[0::2] - f[1::2]
        live = int(np.isfinite(delta).sum())
        weights = as_like(self._weights(delta) / max(live, 1), s.x)
        return replace(s, g=weights @ self._drawn(s), stage="follow", step=s.step + 1)

    def ask_follow(self, s: TruncatedESState) -> Batch:
        """Unroll the inner state itself with the mean."""
        one, x = np.zeros(1, np.int64), into_box(self.space, s.x)
        return Points(x[None], lane=one, data=one + s.episode, step=s.step)

    def tell_follow(self, s: TruncatedESState, batch: Batch, told: Feedback) -> TruncatedESState:
        """Move the point."""
        _, ended = answers(told, s.x)
        x, g, moments = self._moved(s.x, s.g, s.moments)
        episode = s.episode + int(ended[0])
        return replace(s, x=x, g=g, moments=moments, episode=episode, stage="look", step=s.step + 1)

    def recommend(self, s: TruncatedESState) -> Array:
        """Return the point around which the members are drawn."""
        x: Array = copy(into_box(self.space, s.x))
        return x

    def gauges(self, s: TruncatedESState) -> dict[str, float]:
        """Return updates done, the length of the last estimate, and the episodes done."""
        return {"updates": s.moments.count, "slope": length(s.g), "episodes": float(s.episode)}
