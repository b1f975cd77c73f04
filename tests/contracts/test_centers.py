"""Several centers in one batch, and points that are stored as the seeds of their mutations.

The exemplar is the genetic algorithm of Such et al. 2017, arXiv:1712.06567: no crossover; an individual is
the chain of its mutations, each named by (generation, number), so that a genome costs a few integers
whatever it decodes to. Only the parents are ever built; a generation is ``centers[origin] + scale u``.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import dfo
from dfo.arrays import copy
from dfo.batch import Perturbations
from dfo.directions import Directions, Gaussian
from dfo.feedback import Values
from dfo.random import Key, integers
from dfo.run.packing import register
from dfo.run.stopping import MaxSteps


@register
@dataclass(frozen=True, eq=False)
class State:
    genomes: tuple  # one ((generation, number), ...) for each parent
    parents: tuple  # what they decode to, arrays or named blocks
    merits: Any  # (parents,)
    x0: Any
    key: Key
    step: int


@dataclass(frozen=True)
class SeedChainGA:
    """Truncation selection among parents and children; mutation by gaussian noise named by seeds."""

    population: int = 100
    survivors: int = 10
    spread: float = 1.0  # of the first generation around x0
    mutation: float = 0.1

    needs: ClassVar = frozenset({"values"})

    def init(self, x0, key):
        return State(((),), (x0,), np.array([np.inf]), x0, key, 0)

    def drawn(self, s, generation):
        return Directions(Gaussian(), s.key.child(generation), self.population, s.x0)

    def scale(self, generation):
        return self.mutation if generation else self.spread

    def ask(self, s):
        origin = integers(s.key.child(s.step, "origin"), len(s.parents), (self.population,))
        scale = np.full(self.population, self.scale(s.step))
        return Perturbations(s.parents, self.drawn(s, s.step), scale, origin, step=s.step)

    def tell(self, s, batch, told):
        merit, old = np.concatenate([s.merits, told.merit()]), len(s.parents)
        kept = np.argsort(merit, kind="stable")[: self.survivors].tolist()
        children = {i: i - old for i in kept if i >= old}
        chain = {i: (*s.genomes[batch.origin[k]], (s.step, k)) for i, k in children.items()}
        return replace(
            s, genomes=tuple(chain[i] if i in chain else s.genomes[i] for i in kept),
            parents=tuple(batch.member(children[i]) if i in chain else s.parents[i] for i in kept),
            merits=merit[kept], step=s.step + 1,
        )  # fmt: skip

    def decode(self, s, genome):
        x = copy(s.x0)
        for generation, number in genome:
            self.drawn(s, generation).add_member(x, number, self.scale(generation))
        return x

    def recommend(self, s):
        return s.parents[0]


INPUTS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
ANSWERS = np.array([0.0, 1.0, 1.0, 0.0])


def xor_error(X):
    """Return the mean squared error of ``(n, 13)`` networks 2-3-1 with tanh units."""
    hidden = np.tanh(INPUTS @ X[:, :6].reshape(-1, 2, 3) + X[:, None, 6:9])  # (n, 4, 3)
    outputs = np.tanh((hidden @ X[:, 9:12, None])[:, :, 0] + X[:, 12:])  # (n, 4)
    return ((outputs - ANSWERS) ** 2).mean(axis=1)


@pytest.mark.parametrize("seed", range(10))
def test_learns_xor_within_a_hundred_generations(seed):
    res = dfo.minimize(
        xor_error, np.zeros(13), method=SeedChainGA(), seed=seed, budget=10_000, vectorized=True, stop=dfo.Target(0.01)
    )
    assert res.status == "target"
    assert xor_error(res.x[None])[0] <= 0.01


def evolved(begin, steps):
    loop = begin(SeedChainGA(), dfo.Function(xor_error, vectorized=True), np.zeros(13), steps=steps)
    loop.go()
    return loop


def test_a_genome_decodes_to_its_parent_to_the_last_bit(begin):
    loop = evolved(begin, 12)
    s = loop.state
    assert max(map(len, s.genomes)) > 3
    for genome, parent in zip(s.genomes, s.parents, strict=True):
        np.testing.assert_array_equal(loop.solver.decode(s, genome), parent)
    np.testing.assert_array_equal(xor_error(np.stack(s.parents)), s.merits)


def test_a_member_built_alone_equals_the_one_built_among_all(begin):
    batch = SeedChainGA().ask(evolved(begin, 5).state)
    assert len(set(batch.origin)) == 10
    np.testing.assert_array_equal(np.stack([batch.member(i) for i in range(100)]), batch.dense())
    np.testing.assert_array_equal(batch.part(30, 60).dense(), batch.dense()[30:60])


def test_saved_as_seeds_alone_the_run_goes_on(begin, reloaded):
    """The parents are thrown away and decoded again: ten genomes are all that a checkpoint needs."""
    loop, whole = evolved(begin, 8), evolved(begin, 20)
    s = reloaded(replace(loop.state, parents=()))
    loop.state = replace(s, parents=tuple(loop.solver.decode(s, genome) for genome in s.genomes))
    loop.session.stop = MaxSteps(20)
    loop.go()
    assert loop.state.genomes == whole.state.genomes
    np.testing.assert_array_equal(loop.state.merits, whole.state.merits)


def test_the_best_never_gets_worse_and_a_failure_never_breeds(begin):
    levels = []

    def fragile(X):
        return np.where(X[:, 0] < 0, np.nan, xor_error(X))

    loop = begin(SeedChainGA(), dfo.Function(fragile, vectorized=True), np.zeros(13))
    for steps in range(1, 15):
        loop.session.stop = MaxSteps(steps)
        loop.go()
        levels.append(loop.state.merits[0])
        assert all(parent[0] >= 0 for parent in loop.state.parents)
    assert (np.diff(levels) <= 0).all()


class ByMember:
    """Sums of squares of points in named blocks, one member built at a time."""

    gives: ClassVar = frozenset({"values"})
    max_batch: ClassVar = None

    def start(self, lanes, key):
        return ()

    def evaluate(self, batch, memory):
        members = (batch.member(i) for i in range(len(batch)))
        return Values(np.array([sum(float((b * b).sum()) for b in member.values()) for member in members])), memory


def test_the_same_solver_breeds_points_in_named_blocks(begin, reloaded):
    loop = begin(SeedChainGA(), ByMember(), {"weight": np.ones((3, 2)), "bias": np.ones(3)}, steps=6)
    loop.go()
    s = reloaded(loop.state)
    assert s.merits[0] < 9.0
    for genome, parent in zip(s.genomes, s.parents, strict=True):
        for name, block in loop.solver.decode(s, genome).items():
            np.testing.assert_array_equal(block, parent[name])
