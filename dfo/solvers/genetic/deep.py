"""The genetic algorithm of deep neuroevolution: truncation, mutation, and nothing of the population's size.

References: Such, Madhavan, Conti, Lehman, Stanley and Clune 2017, "Deep neuroevolution: genetic algorithms are
a competitive alternative for training deep neural networks for reinforcement learning", arXiv:1712.06567; Clune
et al. 2008, PLoS Comput. Biol. 4 (self-adaptive mutation rates); Lehman et al. 2018, arXiv:1712.06563 (safe mutation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, Point, copy, is_blocks
from dfo.batch import Batch, Perturbations, Points
from dfo.components.mutation_rates import inherited
from dfo.components.options import check_population, check_positive
from dfo.components.ranking import merits
from dfo.components.safe_mutation import rescaled
from dfo.components.stages import Staged
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback, Ranking
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key, choice, integers
from dfo.solvers.genetic.genome import Chain, Genome, decode, layout, mutations, projected
from dfo.spaces import Box, Space

__all__ = ["DeepGA", "DeepGAState"]


@dataclass(frozen=True, eq=False)
class DeepGAState:
    """The memory of :class:`DeepGA`; ``parents`` can be decoded from ``chains``, the rest is numbers."""

    parents: tuple[Any, ...]  # (T,) arrays or named blocks, the elite first; all that wait for selection in "validate"
    chains: tuple[Chain, ...]  # (T,) their genomes
    merits: Floats  # (T,) at their selection
    powers: Floats  # (T,) mutation powers that they hand on
    sums: Floats  # (V,) merits of the candidates in their re-evaluations, infinite before the first
    counts: Floats  # (V,) how often each was shown
    rounds: int  # re-evaluations of each candidate so far
    generation: int  # selections so far
    ordinal: bool  # whether a ranking was told: the members of two questions cannot be compared
    x0: Any
    key: Key
    stage: str
    step: int


@dataclass(frozen=True)
class DeepGA(Staged):
    """Truncation selection without crossover; an individual is the chain of seeds of its mutations.

    A generation is ``population`` children of parents drawn uniformly from the ``parents`` best of the one before,
    each moved by ``sigma`` times gaussian noise. The best of the first few children and the previous elite are
    evaluated again, ``reevaluations`` times on fresh data, and the best mean stays as the elite: without that, one
    lucky evaluation stays for ever. With values that carry no noise nothing is evaluated twice.

    Args:
        population: P, children of a generation; ``batch``, else 100 by default.
        parents: T, how many of the best breed; a tenth of the population by default, at least 2.
        sigma: mutation power; 0.1 in units of x, 0.05 of the width of a box. About 1 % of the weights of a layer
            is the published choice for networks with millions of them (0.002 there).
        spread: standard deviation of the initial draw around the start (which is the first member); 0.5 in units
            of x, 0.2 of the width of a box by default.
        candidates: V, evaluated again; 10 by default (at most T + 1).
        reevaluations: E of each candidate; 0 for values without noise, 1 for rankings, else so many that they cost
            0.3 of a generation, as published (V = 10, E = 30 of P = 1000).
        minibatches: number of different data numbers; a generation sees one, each re-evaluation another.
        adapt: ``"none"``, or ``"samr"``: a child's power is its parent's times ``tau ** U(-1, 1)``.
        tau: of self-adaptation.
        outputs: function of a point that returns what a network answers on stored inputs, an array; each mutation is
            then rescaled so that this changes by ``change`` (root mean square). Costs no evaluations.
        change: of the outputs, by a safe mutation.
        space: where to search; children are projected into a box. Filled in by the run.

    Raises:
        InvalidArgument: a number out of range, or a name that does not exist.

    Example:
        >>> import dfo
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0], method="deep-ga", budget=2000, seed=1).fun < 1e-2
        True
    """

    population: int | None = None
    parents: int | None = None
    sigma: float | None = None
    spread: float | None = None
    candidates: int = 10
    reevaluations: int | None = None
    minibatches: int | None = None
    adapt: Literal["none", "samr"] = "none"
    tau: float = 2.0
    outputs: Callable[[Any], Array] | None = None
    change: float = 0.1
    space: Space | None = None

    stages: ClassVar[tuple[str, ...]] = ("breed", "validate")
    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance"})

    def __post_init__(self) -> None:
        check_population(self)
        check_positive(self, "parents", "sigma", "spread", "candidates", "minibatches", "tau", "change")
        if self.adapt not in ("none", "samr"):
            raise InvalidArgument(f"adapt: expected 'none' or 'samr', got {self.adapt!r}.")
        if self.reevaluations is not None and not 0 <= self.reevaluations < 1e9:
            raise InvalidArgument(f"reevaluations: expected a number from 0 on, got {self.reevaluations!r}.")

    def plan(self, task: Task) -> DeepGA:
        """Fill in the sizes, the powers and the space."""
        boxed = isinstance(task.space, Box) and bool(task.space.bounded.all())
        most = task.max_batch or 10**9
        n = max(2, min(self.population or task.batch or 100, most))
        parents = min(self.parents or max(2, n // 10), n)
        candidates = min(self.candidates, parents + 1, most)
        again = self.reevaluations
        if "values" not in task.gives:
            again = max(1, again or 0)  # members of different questions cannot be compared
        elif again is None:
            again = max(1, round(0.3 * n / candidates)) if task.noisy else 0
        return replace(
            self, population=n, parents=parents, candidates=candidates, reevaluations=again,
            sigma=self.sigma or (0.05 if boxed else 0.1), spread=self.spread or (0.2 if boxed else 0.5),
            space=self.space or task.space,
        )  # fmt: skip

    # ------------------------------------------------------------------ genomes

    def genome(self, s: DeepGAState, i: int = 0) -> Genome:
        """Return the genome of parent ``i``; parent 0 is the elite."""
        return Genome(s.key, s.chains[i], layout(s.x0))

    def offspring(self, s: DeepGAState, i: int) -> Genome:
        """Return the genome of child ``i`` of the generation that is asked about; builds no child."""
        return Genome(s.key, self._chain(s, i, *self._drawn(s)), layout(s.x0))

    def decode(self, genome: Genome, x0: Point) -> Any:
        """Return the point that a genome stands for, to the last bit; ``x0`` is the start in solver coordinates."""
        return decode(genome, x0, self.space)

    def _chain(self, s: DeepGAState, i: int, origin: Any, scale: Floats) -> Chain:
        return (*s.chains[origin[i]], (s.step, i, float(scale[i])))

    def _drawn(self, s: DeepGAState) -> tuple[Any, Floats]:
        """Return parent and mutation power of each child, ``(P,)`` both."""
        n = self.population or 100
        if s.generation == 0:
            scale = np.full(n, self.spread or 0.5)
            scale[0] = 0.0 if s.step == 0 else scale[0]  # the start itself
            return np.zeros(n, dtype=np.int64), scale
        origin = integers(s.key.child(s.step, "origin"), len(s.parents), (n,))
        scale = s.powers[origin]
        if self.adapt == "samr":
            scale = inherited(s.key.child(s.step, "powers"), scale, self.tau)
        if self.outputs is not None:
            noise = mutations(s.key, s.step, n, s.x0)
            scale = rescaled(self.outputs, s.parents, noise, origin, scale, self.change)
        return origin, scale

    # ------------------------------------------------------------------ state

    def init(self, x0: Point, key: Key) -> DeepGAState:
        """Return the state before the first question."""
        start = copy(x0)
        return DeepGAState(
            (start,), ((),), np.full(1, np.inf), np.full(1, self.sigma or 0.1), np.full(1, np.inf), np.zeros(1),
            0, 0, False, start, key, "breed", 0,
        )  # fmt: skip

    def ask_breed(self, s: DeepGAState) -> Batch:
        """Ask about one generation of children: centers, origins and keys; no child is built."""
        origin, scale = self._drawn(s)
        n = len(scale)
        data = None if self.minibatches is None else np.full(n, self._data(s, 1)[0])
        batch = Perturbations(s.parents, mutations(s.key, s.step, n, s.x0), scale, origin, step=s.step, data=data)
        if not isinstance(self.space, Box) or is_blocks(s.x0):
            return batch
        X = projected(self.space, batch.dense())
        return Points(X, step=s.step, data=data, latent=np.stack([origin, scale], axis=1))

    def tell_breed(self, s: DeepGAState, batch: Batch, told: Feedback) -> DeepGAState:
        """Build the best children and select, or first evaluate the candidates for the elite again."""
        merit = merits(told)
        usable = np.flatnonzero(np.isfinite(merit))
        best = usable[np.argsort(merit[usable], kind="stable")]
        s = replace(s, step=s.step + 1, ordinal=s.ordinal or isinstance(told, Ranking))
        if not best.size:
            return s
        again, first = self.reevaluations or int(s.ordinal), s.generation == 0
        best = best[: max(self.parents or 1, again and self.candidates)]
        pool = self._with_children(s, batch, best, merit[best])
        if again:
            v = min(self.candidates, len(pool.parents) if first else len(best) + 1)
            return replace(pool, sums=np.full(v, np.inf), counts=np.zeros(v), rounds=0, stage="validate")
        elite = 0 if first or pool.merits[0] <= pool.merits[1] else 1
        return self._selected(pool, elite)

    def _with_children(self, s: DeepGAState, batch: Any, best: Any, merit: Floats) -> DeepGAState:
        """Return the state whose parents are the previous elite, where there is one, and the best children."""
        latent = getattr(batch, "latent", None)
        origin, scale = (batch.origin, batch.scale) if latent is None else (latent[:, 0].astype(int), latent[:, 1])
        old = replace(s, step=batch.step)
        chains = tuple(self._chain(old, i, origin, scale) for i in best.tolist())
        points = tuple(batch.member(i) for i in best.tolist())
        if s.generation == 0:
            return replace(s, parents=points, chains=chains, merits=merit, powers=np.full(len(best), self.sigma or 0.1))
        return replace(
            s, parents=(s.parents[0], *points), chains=(s.chains[0], *chains),
            merits=np.concatenate([s.merits[:1], merit]), powers=np.concatenate([s.powers[:1], scale[best]]),
        )  # fmt: skip

    def _selected(self, pool: DeepGAState, elite: int) -> DeepGAState:
        """Return the state whose parents are the elite and the best of the other children."""
        children = [i for i in range(pool.generation > 0, len(pool.parents)) if i != elite]
        kept = [elite, *children[: (self.parents or 1) - 1]]
        return replace(
            pool, parents=tuple(pool.parents[i] for i in kept), chains=tuple(pool.chains[i] for i in kept),
            merits=pool.merits[kept], powers=pool.powers[kept], generation=pool.generation + 1, stage="breed",
        )  # fmt: skip

    # ------------------------------------------------------------------ evaluating again

    def _data(self, s: DeepGAState, count: int) -> Any:
        """Return ``(count,)`` data numbers: those of the generation first, then one for each re-evaluation."""
        again = self.reevaluations or 1
        if self.minibatches is None:
            return s.generation * again + np.arange(count)
        drawn = choice(s.key.child(s.generation, "data"), self.minibatches, min(self.minibatches, 1 + again))
        return np.resize(drawn, count)

    def _round(self, s: DeepGAState) -> int:
        """Return how many re-evaluations of every candidate fit into one question."""
        return max(1, min((self.reevaluations or 1) - s.rounds, (self.population or 100) // len(s.sums)))

    def ask_validate(self, s: DeepGAState) -> Batch:
        """Ask about the candidates again; each round shows all of them the same data, the next round other data."""
        v, rounds = len(s.sums), self._round(s)
        skip = 1 if self.minibatches is not None else 0  # the generation's own data come first there
        data = self._data(s, skip + s.rounds + rounds)[skip + s.rounds :]
        still = mutations(s.key, s.step, 1, s.x0)
        n = v * rounds
        return Perturbations(
            s.parents[:v], still, np.zeros(n), np.tile(np.arange(v), rounds), np.zeros(n, dtype=np.int64),
            step=s.step, data=np.repeat(data, v),
        )  # fmt: skip

    def tell_validate(self, s: DeepGAState, batch: Batch, told: Feedback) -> DeepGAState:
        """Add up the re-evaluations; after the last, the best mean is the elite."""
        merit = np.minimum(merits(told), 1e300).reshape(-1, len(s.sums))  # (rounds, V); a failure is a very bad value
        shown, s = ~np.isnan(merit), replace(s, step=s.step + 1)
        if not shown.any():
            return s
        sums = np.where(s.counts > 0, s.sums, 0.0) + np.where(shown, merit, 0.0).sum(axis=0)
        counts = s.counts + shown.sum(axis=0)
        s = replace(s, sums=np.where(counts > 0, sums, np.inf), counts=counts, rounds=s.rounds + len(merit))
        if s.rounds < (self.reevaluations or 1):
            return s
        mean = s.sums / np.maximum(counts, 1.0)
        elite = int(np.argmin(mean))
        known = s.merits.copy()
        known[elite] = mean[elite]
        return self._selected(replace(s, merits=known), elite)

    # ------------------------------------------------------------------ reports

    def recommend(self, s: DeepGAState) -> Any:
        """Return the elite."""
        return copy(s.parents[0])

    def gauges(self, s: DeepGAState) -> dict[str, float]:
        """Return the mean mutation power, the number of generations and the length of the elite's chain."""
        return {"sigma": float(s.powers.mean()), "generation": float(s.generation), "links": float(len(s.chains[0]))}
