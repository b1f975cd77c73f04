"""A genetic algorithm of real vectors and of strings: selection, crossover, mutation.

References: Deb and Agrawal 1995 (SBX), Deb and Goyal 1996 (polynomial mutation), see
:mod:`dfo.components.variation`; Goldberg and Deb 1991, "A comparative analysis of selection schemes used in genetic
algorithms" (tournaments); Clune et al. 2008 and Kumar et al. 2022 (rates), see :mod:`dfo.components.mutation_rates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, namespace, scratch
from dfo.batch import Batch, Items, Points
from dfo.components.mutation_rates import group_elites, group_scores, inherited
from dfo.components.options import check_population, check_positive
from dfo.components.ranking import merits
from dfo.components.variation import (
    CROSSOVERS,
    Crossover,
    add_gaussian,
    crossed,
    crossed_texts,
    edited,
    polynomial_step,
    positions,
)  # fmt: skip
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback, Ranking
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key, integers, normal, uniform
from dfo.spaces import Box, Space, Text

__all__ = ["Genetic", "GeneticState"]

COARSE = 0.1
"""Width of a cell, as a share of the box, from which polynomial mutation draws the coordinate anew every other time."""


@dataclass(frozen=True, eq=False)
class GeneticState:
    """The memory of :class:`Genetic`."""

    parents: Any  # (m, d), or a tuple of m strings; the best first
    merits: Floats  # (m,)
    rates: Floats  # (m,) standard deviations of the parents, or (groups,)
    generation: int  # selections so far
    ordinal: bool  # whether a ranking was told: the members of two questions cannot be compared
    key: Key
    step: int


@dataclass(frozen=True)
class Genetic:
    """Tournament or truncation selection, crossover, mutation; of vectors or strings, by values or rankings.

    The next parents are the best of the children and of the parents kept (elitism). Values without noise can be
    compared across questions, so all parents are kept. A ranking, or a noisy value, is good for one question only:
    a few parents, the elites, are then asked again among the children, and nothing else is kept.

    Args:
        population: members of a question, 20 by default; at most what the oracle takes.
        parents: that survive; half of the population by default.
        elites: parents that compete with their children: all of them, or, where they are asked again, a quarter
            of the question.
        again: whether the elites are asked again; with rankings and noise by default.
        selection: ``"tournament"`` (a parent is the best of ``tournament`` random ones) or ``"truncation"`` (each
            survivor breeds alike).
        tournament: contestants.
        crossover: ``"sbx"``, ``"uniform"``, ``"one-point"`` or ``"none"``; SBX for vectors and one-point for strings
            by default.
        eta_c: distribution index of SBX.
        mutation: ``"polynomial"`` (where all coordinates have two bounds, by default there) or ``"gaussian"``.
        eta_m: distribution index of polynomial mutation.
        rate: probability that a coordinate or a symbol mutates; 1 over their number by default. A string always
            gets one edit at least.
        sigma: standard deviation of gaussian mutation to begin with; 0.5 in units of x, 0.2 of the width of a box.
        adapt: of sigma: ``"none"``; ``"samr"``: inherited with changes; ``"gesmr"``: groups of children share a rate,
            and rates whose best child gained most breed. SAMR with gaussian mutation by default.
        groups: of GESMR.
        tau: a rate is multiplied by ``tau ** U(-1, 1)``.
        space: where to search. Filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number out of range.

    Example:
        >>> import dfo
        >>> space = dfo.Text("abc", 6)
        >>> dfo.minimize(lambda s: -s.count("a"), space, method="genetic", budget=900).x
        'aaaaaa'
    """

    population: int | None = None
    parents: int | None = None
    elites: int | None = None
    again: bool | None = None
    selection: Literal["tournament", "truncation"] = "tournament"
    tournament: int = 2
    crossover: Crossover | None = None
    eta_c: float = 15.0
    mutation: Literal["polynomial", "gaussian"] | None = None
    eta_m: float = 20.0
    rate: float | None = None
    sigma: float | None = None
    adapt: Literal["none", "samr", "gesmr"] | None = None
    groups: int = 5
    tau: float = 2.0
    space: Space | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "text"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        check_population(self)
        check_positive(
            self, "parents", "elites", "tournament", "eta_c", "eta_m", "rate", "sigma", "groups", "tau"
        )  # fmt: skip
        for name, known in (
            ("selection", ("tournament", "truncation")),
            ("crossover", (*CROSSOVERS, None)),
            ("mutation", ("polynomial", "gaussian", None)),
            ("adapt", ("none", "samr", "gesmr", None)),
        ):
            if getattr(self, name) not in known:
                words = ", ".join(str(word) for word in known)
                raise InvalidArgument(f"{name}: expected one of {words}, got {getattr(self, name)!r}.")

    def plan(self, task: Task) -> Genetic:
        """Fill in the sizes, the operators and the space."""
        text, boxed = isinstance(task.space, Text), _boxed(task.space)
        if text and self.crossover == "sbx":
            raise InvalidArgument("crossover: 'sbx' is for vectors; strings take 'one-point', 'uniform' or 'none'.")
        if self.mutation == "polynomial" and not boxed:
            raise InvalidArgument(
                "mutation: polynomial mutation needs two bounds for every coordinate. Use 'gaussian'."
            )
        gaussian = self.mutation == "gaussian" or (self.mutation is None and (not boxed or self.adapt is not None))
        again = self.again if self.again is not None else task.noisy or "values" not in task.gives
        n = max(2, min(self.population or task.batch or 20, task.max_batch or 10**9))
        parents = max(2, min(self.parents or n // 2, n))
        elites = min(self.elites or (max(1, n // 4) if again else parents), parents, n - 1 if again else parents)
        return replace(
            self, population=n, parents=parents, elites=elites, again=again,
            crossover=self.crossover or ("one-point" if text else "sbx"),
            mutation=None if text else "gaussian" if gaussian else "polynomial",
            rate=self.rate or 1.0 / task.space.dim, sigma=self.sigma or (0.2 if boxed else 0.5),
            adapt=self.adapt or ("samr" if gaussian and not text else "none"), space=self.space or task.space,
        )  # fmt: skip

    # ------------------------------------------------------------------ asking

    def init(self, x0: Any, key: Key) -> GeneticState:
        """Return the state before the first question."""
        start = (x0,) if isinstance(x0, str) else copy(x0)[None]
        rates = np.full(self.groups if self.adapt == "gesmr" else 1, self.sigma or 0.5)
        return GeneticState(start, np.full(1, np.inf), rates, 0, False, key, 0)

    def ask(self, s: GeneticState) -> Batch:
        """Ask about the start and a random population, then about children (and the elites among them)."""
        n, kept, key = self.population or 20, self._asked_again(s), s.key.child(s.step)
        if s.generation == 0:
            fresh = self._first(key, n - (s.step == 0), s.parents[0])
            if s.step > 0:
                return self._batch(s, tuple(fresh) if isinstance(self.space, Text) else fresh)
            return self._batch(s, (s.parents[0], *fresh) if isinstance(self.space, Text) else _below(s.parents, fresh))
        pairs = self._pairs(s)
        if isinstance(self.space, Text):
            children = crossed_texts(self.crossover or "one-point", key.child("cross"), s.parents, pairs)[: n - kept]
            texts = edited(self.space, key.child("edit"), children, self.rate or 0.1)
            return self._batch(s, (*s.parents[:kept], *texts))
        X = crossed(self.crossover or "sbx", key.child("cross"), s.parents, pairs, self.eta_c)[: n - kept]
        self._mutate(s, X)
        X = as_like(self.space.project(X), X) if isinstance(self.space, Box) else X
        return self._batch(s, _below(s.parents[:kept], X) if kept else X)

    def _asked_again(self, s: GeneticState) -> int:
        """Return how many parents stand before the children in a question."""
        if not (self.again or s.ordinal) or not s.generation:
            return 0
        some = (self.elites or 1) if self.again else max(1, (self.population or 20) // 4)
        return min(some, len(s.merits))

    def _batch(self, s: GeneticState, members: Any) -> Batch:
        return Items(members, step=s.step) if isinstance(members, tuple) else Points(members, step=s.step)

    def _first(self, key: Key, n: int, x0: Any) -> Any:
        """Return the members of the first question but the start: normal around it, uniform between bounds."""
        if isinstance(self.space, Text):
            return self.space.sample(key, n)
        X: Any = x0 + (self.sigma or 0.5) * normal(key.child("around"), (n, x0.shape[0]), x0)
        if not isinstance(self.space, Box):
            return X
        xp, flags = namespace(X), self.space.bounded
        lower = as_like(np.where(flags, self.space.lower, 0.0), X)
        upper = as_like(np.where(flags, self.space.upper, 1.0), X)
        inside = lower + uniform(key.child("box"), (n, x0.shape[0]), X) * (upper - lower)
        return as_like(self.space.project(xp.where(xp.asarray(flags, device=X.device), inside, X)), X)

    def _pairs(self, s: GeneticState) -> Any:
        """Return ``(k, 2)`` different parents that breed; they lie in order: the smaller number is better."""
        k = ((self.population or 20) - self._asked_again(s) + 1) // 2
        contestants = self.tournament if self.selection == "tournament" else 1
        pairs = integers(s.key.child(s.step, "mates"), len(s.merits), (k, 2, contestants)).min(axis=2)
        alone = pairs[:, 0] == pairs[:, 1]
        pairs[alone, 1] = (pairs[alone, 1] + 1) % len(s.merits)
        return pairs

    def _deviations(self, s: GeneticState, n: int) -> Floats:
        """Return ``(n,)`` standard deviations of the children."""
        if self.adapt == "gesmr":
            return s.rates[np.arange(n) % self.groups]
        mine = s.rates[self._pairs(s).reshape(-1)[:n]]  # child i leans towards parent i of the flattened pairs
        return inherited(s.key.child(s.step, "rates"), mine, self.tau) if self.adapt == "samr" else mine

    def _mutate(self, s: GeneticState, X: Any) -> None:
        """Mutate children in place."""
        key, rate = s.key.child(s.step, "mutate"), self.rate or 1.0
        if self.mutation == "gaussian":
            add_gaussian(X, key, rate, self._deviations(s, X.shape[0]))
            return
        assert isinstance(self.space, Box)
        n, d = X.shape
        xp, at = namespace(X), positions(key.child("at"), n * d, rate)
        where = xp.asarray(at, device=X.device)
        column, flat = at % d, X.reshape(-1)
        lower, upper = as_like(self.space.lower[column], X), as_like(self.space.upper[column], X)
        width, u = upper - lower, uniform(key.child("by"), (len(at),), X)
        unit = (flat[where] - lower) / xp.where(width > 0, width, xp.ones_like(width))
        moved = polynomial_step(unit, u, self.eta_m)
        coarse = self.space.cells[column] >= COARSE * (self.space.upper - self.space.lower)[column]
        anew = coarse & (uniform(key.child("anew"), (len(at),)) < 0.5)
        if anew.any():
            moved = xp.where(xp.asarray(anew, device=X.device), uniform(key.child("to"), (len(at),), X), moved)
        flat[where] = lower + width * moved

    # ------------------------------------------------------------------ being told

    def tell(self, s: GeneticState, batch: Batch, told: Feedback) -> GeneticState:
        """Keep the best of the children and of the parents that compete."""
        merit, kept = merits(told), self._asked_again(s)
        apart = bool(self.again) or s.ordinal or isinstance(told, Ranking)
        s_next = replace(s, step=s.step + 1, ordinal=s.ordinal or isinstance(told, Ranking))
        usable = np.flatnonzero(np.isfinite(merit))
        if not usable.size:
            return s_next
        old = np.arange(kept, len(s.merits) if s.generation else 0)  # parents that were not asked
        if not apart:
            old = old[: self.elites]
        pool = np.concatenate([s.merits[old], merit[usable]])
        best = np.argsort(pool, kind="stable")
        if apart:  # parents that were not shown cannot be compared: they only fill up
            best = np.concatenate([len(old) + np.argsort(merit[usable], kind="stable"), np.arange(len(old))])
        best = best[: self.parents]
        rates = np.concatenate([self._old_rates(s)[old], self._told_rates(s, len(merit), kept)[usable]])[best]
        return replace(
            s_next, parents=_chosen(s.parents, old, batch, usable, best), merits=pool[best],
            generation=s.generation + 1, rates=self._groups(s, merit, kept, apart) if self.adapt == "gesmr" else rates,
        )  # fmt: skip

    def _old_rates(self, s: GeneticState) -> Floats:
        return np.zeros(len(s.merits)) if self.adapt == "gesmr" else s.rates

    def _told_rates(self, s: GeneticState, n: int, kept: int) -> Floats:
        """Return ``(n,)`` standard deviations of the members of the question."""
        if self.adapt == "gesmr":
            return np.zeros(n)
        if s.generation == 0:
            return np.full(n, self.sigma or 0.5)
        return np.concatenate([s.rates[:kept], self._deviations(s, n - kept)])

    def _groups(self, s: GeneticState, merit: Floats, kept: int, apart: bool) -> Floats:
        """Return the rates of the groups after the children told how well they did."""
        if s.generation == 0:
            return s.rates
        child = merit[kept:]
        mine = self._pairs(s).reshape(-1)[: len(child)]
        above = np.zeros(len(child)) if apart else s.merits[mine]
        finite = np.isfinite(child) & np.isfinite(above)
        gain = np.where(finite, 0.0, np.nan)
        gain[finite] = above[finite] - child[finite]
        scores = group_scores(np.arange(len(child)) % self.groups, gain, self.groups)
        return group_elites(s.key.child(s.step, "groups"), s.rates, scores, self.tau)

    def recommend(self, s: GeneticState) -> Any:
        """Return the best parent."""
        best = s.parents[0]
        return best if isinstance(best, str) else copy(best)

    def gauges(self, s: GeneticState) -> dict[str, float]:
        """Return the mean standard deviation and the number of generations."""
        return {"sigma": float(s.rates.mean()), "generation": float(s.generation)}


def _boxed(space: Space) -> bool:
    return isinstance(space, Box) and bool(space.bounded.all())


def _below(first: Array, second: Array) -> Array:
    """Return the rows of both arrays."""
    joined: Array = namespace(first).concat([first, second])
    return joined


def _chosen(parents: Any, old: Any, batch: Any, usable: Any, best: Any) -> Any:
    """Return rows ``best`` of the pool: the old parents ``old``, then the usable members of the batch."""
    if isinstance(batch, Items):
        pool: Sequence[str] = [*(parents[i] for i in old.tolist()), *(batch.items[i] for i in usable.tolist())]
        return tuple(pool[i] for i in best.tolist())
    X = batch.dense()
    if len(best) * X.shape[1] < 1 << 20:  # few numbers: one call instead of one a row
        return _below(parents[old], X[usable])[best]
    chosen: Any = scratch((len(best), X.shape[1]), X)
    for row, i in enumerate(best.tolist()):
        chosen[row] = parents[old[i]] if i < len(old) else X[usable[i - len(old)]]
    return chosen
