"""Problems of which only rankings are told keep their word."""

import numpy as np
import pytest

from dfo.batch import Points
from dfo.bench import solve
from dfo.random import Key, normal
from dfo.testing import check_problem
from dfo_problems import make
from dfo_problems.ranking import RANKING


@pytest.mark.parametrize("name", RANKING.select(dims=[5], instances=[1]))
def test_a_problem_keeps_the_laws_and_ranks_by_its_measure(name):
    problem = make(name)
    check_problem(problem, seconds=1.0, cases=5).raise_if_failed()
    oracle = problem.fun
    X = normal(Key(1), (8, 5)) * 10.0 ** np.arange(8)[:, None]  # differences that nobody overlooks
    ranks = [oracle.evaluate(Points(X, step=i), oracle.start(0, Key(0)))[0] for i in range(40)]
    shown = np.array([told.rank for told in ranks if not told.skipped])
    assert (len(shown) < 40) == ("human" in name)
    order = np.argsort([problem.measure(x) for x in X])
    assert (np.diff(shown.mean(axis=0)[order][:3]) > 0).all()
    assert oracle.max_batch == (None if "free" in name else 8)


def test_instances_are_starts_and_moods_share_them():
    starts = [make(f"ranking-{kind}-quadratic-i0{i}-d05").x0 for i in (1, 2) for kind in ("exact", "human")]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.allclose(starts[0], starts[2])


@pytest.mark.parametrize("kind", ["exact", "top3", "noisy", "human", "free"])
def test_a_method_that_compares_learns(kind):
    problem = make(f"ranking-{kind}-quadratic-i01-d05")
    res = solve(problem, "zo-rank-sgd", 800)
    assert problem.measure(res.x) < 0.5 * problem.measure(problem.x0)
