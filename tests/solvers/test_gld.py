"""Gradientless descent: the ladder of its paper, and no step to a worse point."""

import math
from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.errors import InvalidArgument
from dfo.feedback import Ranking, Values
from dfo.protocols import Task
from dfo.random import Key
from dfo.solvers.gld import GLD
from dfo.spaces import Free


def sphere(X):
    return (X * X).sum(axis=-1)


def planned(d=3, most=None, **options):
    solver = GLD(**options).plan(Task(Free(d), max_batch=most))
    return solver, solver.init(np.ones(d), Key(0))


def test_the_fast_ladder_spans_condition_and_halves_as_in_the_paper():
    solver, state = planned(radius=2.0, condition=16.0)
    rungs = math.log2(4 * math.sqrt(16))
    np.testing.assert_allclose(solver._ladder(state), 2.0 * 2.0 ** np.arange(rungs, -rungs - 1, -1))
    every = 3 * 16 * 4  # d alpha log2 alpha
    assert solver._ladder(replace(state, age=every - 1))[0] == solver._ladder(state)[0]
    assert solver._ladder(replace(state, age=every))[0] == solver._ladder(state)[0] / 2


def test_the_search_ladder_ends_at_the_smallest_step():
    solver, state = planned(variant="search", radius=1.0, smallest=2.0**-5)
    np.testing.assert_allclose(solver._ladder(state), 0.5 ** np.arange(6))


@pytest.mark.parametrize("most", [None, 2, 3, 8])
def test_a_ladder_climbed_in_several_questions_ends_where_one_question_does(most):
    solver, state = planned()
    whole = solver.tell(state, batch := solver.ask(state), Values(sphere(batch.dense())))
    solver, state = planned(most=most)
    while state.age == 0:
        batch = solver.ask(state)
        assert most is None or len(batch) <= most
        state = solver.tell(state, batch, Values(sphere(batch.dense())).ranking())
    np.testing.assert_array_equal(state.x, whole.x)
    assert sphere(state.x) <= 3.0


def test_it_descends_on_rankings_and_never_climbs():
    seen = []
    oracle = dfo.RankOracle.of(sphere, vectorized=True)
    dfo.minimize(
        oracle, np.ones(5), method="gld", budget=2400, callback=lambda p: seen.append(float(sphere(p.recommended())))
    )
    assert (np.diff(seen) <= 0).all()
    assert seen[-1] < 0.01 * 5


def test_a_skipped_question_moves_nothing():
    solver, state = planned(most=4)
    after = solver.tell(state, batch := solver.ask(state), Ranking(np.full(len(batch), np.nan), skipped=True))
    np.testing.assert_array_equal(after.best, state.best)
    assert (after.tried, after.step) == (3, 1)


@pytest.mark.parametrize("options", [{"variant": "slow"}, {"radius": 0}, {"condition": 1.0}, {"batch": 1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        GLD(**options)
