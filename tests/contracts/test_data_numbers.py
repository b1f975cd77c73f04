"""Who sees which data: ``Batch.data`` numbers it, the oracle maps the number to data.

Equal numbers mean the same data, whoever asks and whenever: that is all that common random numbers,
anchors and re-evaluated elites need. The exemplar is SVRG on values alone (Liu et al. 2018,
arXiv:1805.10367, with coordinate-wise differences at the anchor): every step subtracts from its estimate
what the same data and the same directions say at an anchor, whose full gradient is known.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import dfo
from dfo.batch import Perturbations, Points
from dfo.components.stages import Staged
from dfo.directions import Coordinate, Directions, Sphere
from dfo.feedback import Values
from dfo.random import Key, integers, normal
from dfo.run.packing import register

PARTS, ROWS, D = 20, 5, 6


class LeastSquares:
    """``mean (a x - b)^2 / 2`` over the rows of a minibatch; number k is minibatch k of ``PARTS``.

    Who names no number gets all the data. No minibatch agrees with another about the minimum, so that
    a plain stochastic method never comes to rest.
    """

    gives: ClassVar = frozenset({"values"})
    max_batch: ClassVar = None

    def __init__(self, seed=0):
        key = Key(seed, ("data",))
        self.A = normal(key.child("A"), (PARTS, ROWS, D))
        self.b = self.A @ np.ones(D) + normal(key.child("b"), (PARTS, ROWS))
        self.asked = []

    def start(self, lanes, key):
        return ()

    def evaluate(self, batch, memory):
        self.asked.append(batch.data)
        if batch.data is None:
            A, b = self.A.reshape(1, -1, D), self.b.reshape(1, -1)
        else:
            A, b = self.A[batch.data], self.b[batch.data]  # (n, rows, d), (n, rows)
        residual = (A @ batch.dense()[:, :, None])[:, :, 0] - b
        return Values(0.5 * (residual**2).mean(axis=1)), memory

    def excess(self, x):
        """Return how far the mean over all data is above its minimum."""
        A, b = self.A.reshape(-1, D), self.b.reshape(-1)
        best = np.linalg.lstsq(A, b)[0]
        return 0.5 * float(((A @ x - b) ** 2).mean() - ((A @ best - b) ** 2).mean())


@register
@dataclass(frozen=True, eq=False)
class State:
    x: Any  # (d,)
    anchor: Any  # (d,)
    g: Any  # (d,) full gradient at the anchor
    stage: str
    age: int
    key: Key
    step: int


@dataclass(frozen=True)
class SVRG(Staged):
    """Stochastic variance-reduced descent on central differences; without ``period`` plain ZO-SGD."""

    lr: float = 0.03
    radius: float = 1e-3
    samples: int = 3
    period: int | None = 40

    stages: ClassVar = ("anchor", "descend")
    needs: ClassVar = frozenset({"values"})

    def init(self, x0, key):
        return State(x0, x0, 0 * x0, "anchor" if self.period else "descend", 0, key, 0)

    def pairs(self, count):
        return np.repeat(np.arange(count), 2), np.tile([self.radius, -self.radius], count)

    def slopes(self, told):
        return (told.f[0::2] - told.f[1::2]) / (2 * self.radius)

    def ask_anchor(self, s):
        """Every coordinate on every minibatch."""
        index, scale = self.pairs(D)
        every, data = Directions(Coordinate(), s.key, D, s.x), np.repeat(np.arange(PARTS), 2 * D)
        scale, index = np.tile(scale, PARTS), np.tile(index, PARTS)
        return Perturbations((s.x,), every, scale, index=index, data=data, step=s.step)

    def tell_anchor(self, s, batch, told):
        mean = self.slopes(told).reshape(PARTS, D).mean(axis=0)
        return replace(s, anchor=s.x, g=batch.directions.combine(mean) / D, stage="descend", step=s.step + 1)

    def ask_descend(self, s):
        """The same directions and the same data at both centers."""
        index, scale = self.pairs(self.samples)
        drawn = Directions(Sphere(), s.key.child(s.age, "u"), self.samples, s.x)
        centers, n = ((s.x, s.anchor), 2) if self.period else ((s.x,), 1)
        origin, number = np.repeat(np.arange(n), len(index)), integers(s.key.child(s.age, "data"), PARTS, (1,))
        return Perturbations(
            centers, drawn, np.tile(scale, n), origin, np.tile(index, n), data=np.repeat(number, n * len(index)),
            step=s.step,
        )  # fmt: skip

    def estimate(self, s, batch, told):
        slopes = self.slopes(told).reshape(-1, self.samples)  # (1 or 2, q)
        apart = slopes[0] - slopes[1] if self.period else slopes[0]
        return batch.directions.combine(apart / self.samples) + s.g

    def tell_descend(self, s, batch, told):
        s = replace(s, x=s.x - self.lr * self.estimate(s, batch, told), age=s.age + 1, step=s.step + 1)
        return replace(s, stage="anchor" if self.period and s.age % self.period == 0 else "descend")

    def recommend(self, s):
        return s.x


# ---------------------------------------------------------------------- the oracle's side


def test_equal_numbers_are_the_same_data_and_other_numbers_are_not():
    x = np.full(D, 0.3)
    told, _ = LeastSquares().evaluate(Points(np.stack([x] * 5), data=np.array([3, 7, 3, 11, 7])), ())
    assert told.f[0] == told.f[2]
    assert told.f[1] == told.f[4]
    assert len(set(told.f)) == 3


def test_a_part_of_a_batch_sees_what_the_whole_does():
    solver, oracle = SVRG(), LeastSquares()
    batch = solver.ask(replace(solver.init(np.zeros(D), Key(4)), stage="descend", anchor=np.ones(D)))
    whole, _ = oracle.evaluate(batch, ())
    cut = [oracle.evaluate(batch.part(at, at + 5), ())[0].f for at in range(0, len(batch), 5)]
    np.testing.assert_allclose(np.concatenate(cut), whole.f, rtol=1e-14)


def test_both_terms_see_one_number_and_the_numbers_go_round(begin):
    oracle = LeastSquares()
    begin(SVRG(), oracle, np.zeros(D), steps=40).go()
    anchor, *steps = oracle.asked
    np.testing.assert_array_equal(np.unique(anchor, return_counts=True), [range(PARTS), [2 * D] * PARTS])
    assert all(len(data) == 12 and len(set(data)) == 1 for data in steps)
    assert len({data[0] for data in steps}) > PARTS // 2


# ---------------------------------------------------------------------- the solver's side


def estimates(solver, state, draws=200):
    """Return the estimates of one state under many keys: other data and other directions each time."""
    oracle, found = LeastSquares(), []
    for seed in range(draws):
        drawn = replace(state, key=Key(seed))
        batch = solver.ask(drawn)
        found.append(solver.estimate(drawn, batch, oracle.evaluate(batch, ())[0]))
    return np.stack(found)


def test_at_the_anchor_the_estimate_is_the_full_gradient_and_has_no_variance(begin):
    solver, oracle = SVRG(), LeastSquares()
    loop = begin(solver, oracle, np.zeros(D), steps=1)
    loop.go()
    at_anchor = estimates(solver, loop.state)
    np.testing.assert_array_equal(at_anchor, np.tile(loop.state.g, (len(at_anchor), 1)))  # to the last bit
    residual = oracle.A.reshape(-1, D) @ loop.state.x - oracle.b.reshape(-1)
    np.testing.assert_allclose(loop.state.g, oracle.A.reshape(-1, D).T @ residual / residual.size, rtol=1e-8)


def test_away_from_the_anchor_the_variance_grows_with_the_distance(begin):
    solver = SVRG()
    loop = begin(solver, LeastSquares(), np.zeros(D), steps=1)
    loop.go()
    moved = [replace(loop.state, x=loop.state.x + distance) for distance in (0.01, 0.1)]
    near, far = (estimates(solver, state).var(axis=0).sum() for state in moved)
    assert far == pytest.approx(100 * near, rel=1e-6)  # exactly quadratic: the objective is


def test_beats_plain_descent_at_equal_calls():
    """Medians of three problems; no plain step (0.03, 0.01, 0.003) is as long and as quiet at the same time."""

    def excess(solver):
        oracles = [LeastSquares(seed) for seed in range(3)]
        runs = [dfo.minimize(f, np.zeros(D), method=solver, budget=8000, noise=True, seed=1) for f in oracles]
        return np.median([f.excess(run.x) for f, run in zip(oracles, runs, strict=True)])

    plain = min(excess(SVRG(lr=lr, period=None)) for lr in (0.03, 0.01, 0.003))
    assert excess(SVRG()) < 1e-4 * plain
