"""Search for what was not seen before: a genetic algorithm and evolution strategies led by novelty.

References: Lehman and Stanley 2011, Evol. Comput. 19 (novelty search); Such et al. 2017, arXiv:1712.06567 (GA-NS);
Conti et al. 2018, "Improving exploration in evolution strategies for deep reinforcement learning via a population of
novelty-seeking agents", NeurIPS, arXiv:1712.06560 (NS-ES, NSR-ES, NSRA-ES).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, copy, namespace, to_numpy
from dfo.batch import Batch, Perturbations, Points
from dfo.components import descent
from dfo.components.borders import into_box, onto_line
from dfo.components.descent import Moments
from dfo.components.novelty import known_rows, novelty
from dfo.components.options import check_population, check_positive
from dfo.components.ranking import merits
from dfo.components.shaping import shaped
from dfo.components.stages import Staged
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback, Values
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key, integers, uniform
from dfo.solvers.genetic.genome import mutations, projected
from dfo.spaces import Box, Space

__all__ = ["NoveltySearch", "NoveltyState"]

Variant = Literal["ga", "ns", "nsr", "nsra"]
VARIANTS: tuple[Variant, ...] = ("ga", "ns", "nsr", "nsra")


@dataclass(frozen=True, eq=False)
class NoveltyState:
    """The memory of :class:`NoveltySearch`."""

    centers: tuple[Array, ...]  # parents of the GA; means of the strategies, in free coordinates
    moments: tuple[Moments, ...]  # of Adam, one for each mean
    seen: Floats  # (M, b) last behaviour of each mean; 0 wide before the first
    known: Floats  # (M,) 1 where it is known
    archive: Floats  # (a, b)
    at: int  # the mean that moves
    weight: float  # of the value against novelty (NSRA)
    record: float  # lowest merit of a mean (NSRA)
    stale: int  # steps since then
    best: Array  # lowest point so far
    merit: float
    generation: int
    key: Key
    stage: str
    step: int


@dataclass(frozen=True)
class NoveltySearch(Staged):
    """Novelty in place of the value, or beside it: for objectives whose slope leads into a trap.

    The oracle tells the behaviour of each point (:class:`dfo.Behaviour`). Novelty is the mean distance to the
    ``neighbours`` nearest behaviours of the archive (and, for the GA, of the population). The value decides only which
    point is reported, unless the variant says otherwise.

    Args:
        variant: ``"ga"``: truncation selection by novelty, each child archived with probability ``keep``;
            ``"ns"``: an evolution strategy that ascends novelty, for a few means of which one moves at a time, picked
            in proportion to its novelty, and archived after each step; ``"nsr"``: novelty and value weigh alike, as
            centered ranks; ``"nsra"``: the weight of the value moves by ``change``: up with every new best, down
            after ``patience`` steps without one.
        population: members of a generation (even for the strategies); 100, or 40 for the strategies, by default.
        parents: of the GA; a tenth of the population by default, at least 2.
        means: M of the strategies.
        sigma: standard deviation of a mutation or perturbation; 0.1 in units of x, 0.05 of the width of a box.
        spread: of the first generation, or means, around the start; 0.5 in units of x, 0.2 of a box.
        lr: step of Adam, in units of x or of the box; equal to ``sigma`` by default.
        neighbours: k.
        keep: probability with which a child of the GA enters the archive.
        change: of NSRA's weight.
        patience: of NSRA, in steps.
        space: where to search. Filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of range.

    Example:
        >>> import dfo
        >>> walk = dfo.Behaviour(lambda x: (float(x @ x), x))
        >>> dfo.minimize(walk, [1.0, 1.0], method=dfo.NoveltySearch("nsr"), budget=2000, seed=1).fun < 0.1
        True
    """

    variant: Variant = "ga"
    population: int | None = None
    parents: int | None = None
    means: int = 3
    sigma: float | None = None
    spread: float | None = None
    lr: float | None = None
    neighbours: int = 10
    keep: float = 0.01
    change: float = 0.05
    patience: int = 50
    space: Space | None = None

    stages: ClassVar[tuple[str, ...]] = ("breed", "visit", "explore")
    needs: ClassVar[frozenset[str]] = frozenset({"values", "behaviour"})
    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation"})

    def __post_init__(self) -> None:
        check_population(self)
        check_positive(self, "parents", "means", "sigma", "spread", "lr", "neighbours", "patience")
        if self.variant not in VARIANTS:
            raise InvalidArgument(f"variant: expected one of {', '.join(VARIANTS)}, got {self.variant!r}.")
        for name in ("keep", "change"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgument(f"{name}: expected a number from 0 to 1, got {getattr(self, name)!r}.")

    def plan(self, task: Task) -> NoveltySearch:
        """Fill in the sizes, the steps and the space."""
        boxed = isinstance(task.space, Box) and bool(task.space.bounded.all())
        most, ga = task.max_batch or 10**9, self.variant == "ga"
        n = max(2, min(self.population or task.batch or (100 if ga else 40), most))
        sigma = self.sigma or (0.05 if boxed else 0.1)
        return replace(
            self, population=n, parents=min(self.parents or max(2, n // 10), n), means=min(self.means, most),
            sigma=sigma, spread=self.spread or (0.2 if boxed else 0.5), lr=self.lr or sigma,
            space=self.space or task.space,
        )  # fmt: skip

    # ------------------------------------------------------------------ state

    def init(self, x0: Array, key: Key) -> NoveltyState:
        """Return the state before the first question."""
        ga, m = self.variant == "ga", 1 if self.variant == "ga" else self.means
        first: Any = copy(x0) if ga else onto_line(self.space, copy(x0))
        centers = [first]
        for i in range(1, m):
            moved: Any = mutations(key.child("means"), 0, m, first).add_member(copy(first), i, self.spread or 0.5)
            centers.append(moved)
        fresh = () if ga else (descent.first_moments("adam", first),) * m
        return NoveltyState(
            tuple(centers), fresh, np.zeros((m, 0)), np.zeros(m), np.zeros((0, 0)), 0, 1.0, np.inf, 0,
            copy(x0), np.inf, 0, key, "breed" if ga else "visit", 0,
        )  # fmt: skip

    def _remember(self, s: NoveltyState, batch: Batch, told: Feedback) -> tuple[NoveltyState, Floats, Floats]:
        """Return the state after the lowest point was noted, the merits, and the behaviours (NaN where unknown)."""
        assert isinstance(told, Values)
        merit, n = merits(told), len(batch)
        did = (
            np.zeros((n, 0))
            if told.behaviour is None
            else np.asarray(to_numpy(told.behaviour), dtype=float).reshape(n, -1)
        )
        s = replace(s, step=s.step + 1)
        i = int(np.argmin(merit))
        if merit[i] < s.merit:
            s = replace(s, best=batch.member(i), merit=float(merit[i]))
        known = known_rows(did, n) & np.isfinite(merit)
        return s, merit, np.where(known[:, None], did, np.nan)

    def _archived(self, s: NoveltyState, rows: Floats) -> NoveltyState:
        old = s.archive if s.archive.shape[1] else np.zeros((0, rows.shape[1]))
        return replace(s, archive=np.concatenate([old, rows]))

    # ------------------------------------------------------------------ the genetic algorithm

    def ask_breed(self, s: NoveltyState) -> Batch:
        """Ask about children of the most novel parents; about the start and points around it first."""
        n, first = self.population or 100, s.generation == 0
        origin = integers(s.key.child(s.step, "origin"), len(s.centers), (n,))
        scale = np.full(n, (self.spread if first else self.sigma) or 0.1)
        scale[0] = 0.0 if first else scale[0]
        batch = Perturbations(s.centers, mutations(s.key, s.step, n, s.best), scale, origin, step=s.step)
        if not isinstance(self.space, Box):
            return batch
        return Points(projected(self.space, batch.dense()), step=s.step)

    def tell_breed(self, s: NoveltyState, batch: Batch, told: Feedback) -> NoveltyState:
        """Select by novelty within archive and generation, then archive a few children at random."""
        s, _, did = self._remember(s, batch, told)
        known = np.flatnonzero(np.isfinite(did).all(axis=1) & (did.shape[1] > 0))
        if not known.size:
            return s
        rows = did[known]
        others = np.concatenate([rows, s.archive]) if s.archive.shape[1] else rows
        new = novelty(rows, others, self.neighbours, itself=True)
        best = known[np.argsort(-new, kind="stable")[: self.parents]]
        entering = uniform(s.key.child(batch.step, "archive"), (len(batch),))[known] < self.keep
        return replace(
            self._archived(s, rows[entering]), centers=tuple(batch.member(i) for i in best.tolist()),
            generation=s.generation + 1,
        )  # fmt: skip

    # ------------------------------------------------------------------ the evolution strategies

    def ask_visit(self, s: NoveltyState) -> Batch:
        """Ask where the means are: all of them first, then the one that has moved."""
        centers = s.centers if s.generation == 0 else s.centers[s.at : s.at + 1]
        return Points(into_box(self.space, namespace(s.best).stack(list(centers))), step=s.step)

    def tell_visit(self, s: NoveltyState, batch: Batch, told: Feedback) -> NoveltyState:
        """Archive the behaviours of the means, adapt the weight, and pick the mean that moves next."""
        s, merit, did = self._remember(s, batch, told)
        known = np.isfinite(did).all(axis=1) & (did.shape[1] > 0)
        at = np.arange(len(s.centers)) if s.generation == 0 else np.array([s.at])
        if known.any():
            seen = np.array(s.seen) if s.seen.shape[1] else np.zeros((len(s.centers), did.shape[1]))
            flags = s.known.copy()
            seen[at[known]], flags[at[known]] = did[known], 1.0
            s = replace(self._archived(s, did[known]), seen=seen, known=flags)
        s = self._weighed(s, float(merit.min()))
        return replace(s, at=self._pick(s), stage="explore", generation=s.generation + 1)

    def _weighed(self, s: NoveltyState, merit: float) -> NoveltyState:
        """Move the weight of the value: up with a new best, down after many steps without one."""
        if merit < s.record:
            return replace(s, record=merit, stale=0, weight=min(1.0, s.weight + self.change))
        if s.stale + 1 < self.patience:
            return replace(s, stale=s.stale + 1)
        return replace(s, stale=0, weight=max(0.0, s.weight - self.change))

    def _pick(self, s: NoveltyState) -> int:
        """Return a mean with probability proportional to its novelty (Conti et al. 2018, eq. 2)."""
        new = np.zeros(len(s.centers))
        some = s.known > 0
        if some.any():
            new[some] = novelty(s.seen[some], s.archive, self.neighbours)
        share = new / new.sum() if new.sum() > 0 else np.full(len(new), 1.0 / len(new))
        u = float(uniform(s.key.child(s.step, "pick"), (1,))[0])
        return min(int(np.searchsorted(np.cumsum(share), u, side="right")), len(new) - 1)

    def _pairs(self, s: NoveltyState) -> Any:
        return mutations(s.key, s.step, max(1, (self.population or 40) // 2), s.centers[s.at])

    def ask_explore(self, s: NoveltyState) -> Batch:
        """Ask about antithetic pairs around the mean that moves."""
        drawn, center = self._pairs(s), s.centers[s.at]
        sign = np.tile([1.0, -1.0], drawn.count) * (self.sigma or 0.1)
        batch = Perturbations((center,), drawn, sign, index=np.repeat(np.arange(drawn.count), 2), step=s.step)
        return Points(into_box(self.space, batch.dense()), step=s.step) if isinstance(self.space, Box) else batch

    def tell_explore(self, s: NoveltyState, batch: Batch, told: Feedback) -> NoveltyState:
        """Move the mean along novelty, value, or both, as centered ranks (Conti et al. 2018, eq. 1, 4)."""
        drawn, center = self._pairs(s), s.centers[s.at]
        after, merit, did = self._remember(s, batch, told)
        after = replace(after, stage="visit")
        known = np.isfinite(did).all(axis=1) & (did.shape[1] > 0)
        if not known.any():
            return after
        new = np.full(len(batch), -np.inf)
        new[known] = novelty(did[known], s.archive, self.neighbours) if len(s.archive) else 0.0
        share = {"ns": 0.0, "nsr": 0.5}.get(self.variant, s.weight)
        weights = (1.0 - share) * shaped("centered", Values(-new)) + share * shaped("centered", Values(merit))
        slope: Any = drawn.combine(weights[0::2] - weights[1::2])
        slope *= -1.0 / (len(batch) * (self.sigma or 0.1))
        step, memory = descent.step("adam", slope, s.moments[s.at], self.lr or 0.1, (0.9, 0.999), 1e-8)
        moved: Any = center + step
        return replace(
            after, centers=(*s.centers[: s.at], moved, *s.centers[s.at + 1 :]),
            moments=(*s.moments[: s.at], memory, *s.moments[s.at + 1 :]),
        )  # fmt: skip

    # ------------------------------------------------------------------ reports

    def recommend(self, s: NoveltyState) -> Array:
        """Return the lowest point so far."""
        point: Array = copy(s.best)
        return point

    def gauges(self, s: NoveltyState) -> dict[str, float]:
        """Return the size of the archive and the weight of the value."""
        return {"archive": float(len(s.archive)), "weight": float(s.weight)}
