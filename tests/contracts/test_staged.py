"""A solver with phases: each phase is a stage in the state, a stage is a pair of methods.

The exemplar estimates a slope, builds the two ends of a step along it, and keeps the lowest of
``{x, x - step, x + step}`` on the same data (Zhang et al. 2024, arXiv:2402.11592, "conservative"; ties
keep x). Whatever the estimate was, the objective never rises.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dfo
from dfo.batch import Perturbations, Points
from dfo.components.stages import Staged
from dfo.directions import Directions, Sphere
from dfo.feedback import Values
from dfo.random import Key, normal
from dfo.run.packing import register
from dfo.run.stopping import MaxSteps


@register
@dataclass(frozen=True, eq=False)
class State:
    x: Any  # (d,)
    slope: float  # along the direction of this age, while the comparison is pending
    stage: str
    age: int  # updates done: both questions of an update share its direction and its data
    key: Key
    step: int


@dataclass(frozen=True)
class ConservativeSGD(Staged):
    """Two-point gradient descent that takes a step only where it has been seen to lower the objective."""

    lr: float = 0.1
    radius: float = 1e-3

    stages: ClassVar = ("query", "compare")
    needs: ClassVar = frozenset({"values"})

    def init(self, x0, key):
        return State(x0, 0.0, "query", 0, key, 0)

    def direction(self, s):
        return Directions(Sphere(), s.key.child(s.age), 1, s.x)

    def ask_query(self, s):
        pair, scale = np.zeros(2, int), np.array([self.radius, -self.radius])
        return Perturbations((s.x,), self.direction(s), scale, index=pair, data=np.full(2, s.age), step=s.step)

    def tell_query(self, s, batch, told):
        return replace(s, slope=(told.f[0] - told.f[1]) / (2 * self.radius), stage="compare", step=s.step + 1)

    def ask_compare(self, s):
        move = self.direction(s).combine([self.lr * s.slope])
        return Points(np.stack([s.x, s.x - move, s.x + move]), data=np.full(3, s.age), step=s.step)

    def tell_compare(self, s, batch, told):
        best = int(np.argmin(told.f))  # the first of equals, which is x itself
        return replace(s, x=batch.X[best], stage="query", age=s.age + 1, step=s.step + 1)

    def recommend(self, s):
        return s.x


def rugged(x):
    """Many local minima, no smooth scale: a step along an estimated slope often goes up."""
    return float(x @ x + 3 * np.sin(40 * x).sum() + np.abs(x).max())


class NoisyByNumber:
    """Least squares whose noise depends on the point and on the number of the data, and on nothing else."""

    gives = frozenset({"values"})
    max_batch = None

    def __init__(self):
        self.seen = []

    def start(self, lanes, key):
        return ()

    def evaluate(self, batch, memory):
        X = batch.dense()
        tilt = np.stack([normal(Key(9, (int(number),)), (X.shape[1],)) for number in batch.data])
        self.seen.append(batch.data.tolist())
        return Values((X * X).sum(axis=1) + (X * tilt).sum(axis=1)), memory


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(1e-3, 10.0))
def test_never_increases_whatever_the_step(seed, d, lr):
    levels = []
    dfo.minimize(
        rugged, np.ones(d), method=ConservativeSGD(lr=lr), seed=seed, budget=150,
        callback=lambda progress: levels.append(rugged(progress.recommended())),
    )  # fmt: skip
    assert len(levels) == 60  # 2 + 3 evaluations an update, in two steps
    assert (np.diff([rugged(np.ones(d)), *levels]) <= 0).all()


def test_gets_to_the_minimum_all_the_same():
    res = dfo.minimize(lambda x: float(x @ x), np.ones(5), method=ConservativeSGD(lr=0.1), budget=600)
    assert res.fun < 1e-8


def test_ties_keep_the_point(begin):
    loop = begin(ConservativeSGD(), dfo.Function(lambda x: 7.0), np.ones(3), steps=10)
    loop.go()
    np.testing.assert_array_equal(loop.state.x, np.ones(3))
    assert loop.state.age == 5  # it advances all the same, so the next direction is a new one


def test_asking_twice_is_asking_once_in_each_stage(begin):
    solver = ConservativeSGD()
    loop = begin(solver, dfo.Function(rugged), np.ones(3))
    for stage in ("query", "compare", "query", "compare"):
        assert loop.state.stage == stage
        first, again = solver.ask(loop.state), solver.ask(loop.state)
        np.testing.assert_array_equal(first.dense(), again.dense())
        np.testing.assert_array_equal(first.data, again.data)
        loop.session.stop = MaxSteps(loop.session.nit + 1)
        loop.go()


@pytest.mark.parametrize("steps", range(1, 6))
def test_saved_between_any_two_stages_it_goes_on_as_if_nothing_had_been(steps, begin, reloaded):
    through, stopped = (begin(ConservativeSGD(), dfo.Function(rugged), np.ones(4)) for _ in range(2))
    through.session.stop = MaxSteps(40)
    through.go()
    stopped.session.stop = MaxSteps(steps)
    stopped.go()
    stopped.state = reloaded(stopped.state)
    stopped.session.stop = MaxSteps(40)
    stopped.go()
    np.testing.assert_array_equal(stopped.state.x, through.state.x)
    np.testing.assert_array_equal(stopped.session.history.fun, through.session.history.fun)


def test_both_stages_see_the_same_data_and_the_next_update_sees_other_data(begin):
    oracle = NoisyByNumber()
    loop = begin(ConservativeSGD(), oracle, np.ones(3), steps=6)
    loop.go()
    assert oracle.seen == [[age] * n for age in range(3) for n in (2, 3)]


def test_a_stage_without_its_methods_is_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match="stage 'climb' has no method tell_climb"):
        type("Half", (Staged,), {"stages": ("climb",), "ask_climb": lambda self, s: None})
