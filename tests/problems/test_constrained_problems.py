"""Problems over convex sets: minimisers that are ones, merits beside the set, and a classifier that is one."""

import pickle

import numpy as np
import pytest

import dfo
from dfo.bench import solve
from dfo.random import normal
from dfo.testing import check_problem
from dfo_problems import PROBLEMS, make

NAMES = PROBLEMS["constrained"].select(dims=[16], instances=[1])
KNOWN = [name for name in NAMES if "perturbation" not in name]


@pytest.mark.parametrize("name", NAMES)
def test_the_problem_keeps_the_laws(name):
    if "perturbation" in name:
        pytest.importorskip("sklearn")
    check_problem(make(name), cases=3, seconds=1.0).raise_if_failed()


@pytest.mark.parametrize("name", KNOWN)
def test_the_slope_at_the_minimiser_points_out_of_the_set(name):
    """The Frank-Wolfe gap of central differences at x_opt is rounding: x_opt is the minimum, by convexity."""
    p = make(name)
    merit = p.fun.loss.args[0] if p.noisy else p.fun
    E = 1e-4 * np.eye(p.space.dim)
    g = (merit(p.x_opt + E) - merit(p.x_opt - E)) / 2e-4
    gap = g @ p.x_opt - float(p.space.support(g))
    assert -1e-7 < gap < 1e-6
    assert p.measure(p.x_opt) == pytest.approx(p.f_opt, abs=1e-9)
    assert p.measure(p.x0) > p.f_opt + 0.01


def test_beside_the_set_the_merit_is_infinite():
    p = make("constrained-lasso-i01-d16")
    assert p.measure(np.ones(16)) == np.inf
    assert np.isfinite(p.fun(np.ones((1, 16))))


def test_the_cox_gradient_is_the_slope_of_the_likelihood():
    f = make("constrained-cox-i02-d16").fun
    x, E = 0.1 * normal(dfo.Key(0), (16,)), 1e-5 * np.eye(16)
    np.testing.assert_allclose(f.gradient(x), (f(x + E) - f(x - E)) / 2e-5, atol=1e-8)


def test_minibatches_are_unbiased():
    p = make("constrained-stochastic-lasso-i01-d16")
    f = p.fun.loss.args[0]
    x = p.x_opt[None]
    all_rows = np.mean([f.on(x, np.array([i]))[0] for i in range(len(f.b))])
    assert all_rows == pytest.approx(f(x)[0])


def test_problems_travel_between_processes():
    for name in KNOWN:
        p = pickle.loads(pickle.dumps(make(name)))
        assert p.measure(p.x0) == make(name).measure(p.x0)


def test_the_classifier_reads_digits_and_the_attack_hurts_it():
    pytest.importorskip("sklearn")
    p = make("constrained-perturbation-i01-d64")
    right = (p.fun.scores(p.x0).argmax(axis=1) == p.fun.labels).mean()
    assert right >= 0.9
    res = solve(p, "zo-fw", budget=600)
    assert p.space.contains(res.x)
    assert p.measure(res.x) < p.measure(p.x0) - 0.3


def test_patterns_of_other_sizes_are_the_same_picture():
    pytest.importorskip("sklearn")
    coarse, fine, finest = (make(f"constrained-perturbation-i01-d{d}").fun for d in (16, 64, 256))
    pattern = 0.4 * normal(dfo.Key(1), (4, 4))
    twice, again = np.kron(pattern, np.ones((2, 2))), np.kron(pattern, np.ones((4, 4)))
    values = [f(x.reshape(1, -1))[0] for f, x in ((coarse, pattern), (fine, twice), (finest, again))]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


@pytest.mark.parametrize("method", ["zo-fw", "zo-sgd"])
@pytest.mark.parametrize("function", ["lasso", "completion"])
def test_solvers_get_lower(method, function):
    p = make(f"constrained-{function}-i01-d16")
    res = solve(p, method, budget=1000)
    assert p.measure(res.x) - p.f_opt < 0.1 * (p.measure(p.x0) - p.f_opt)
