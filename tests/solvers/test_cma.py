"""CMA-ES against its published behaviour."""

import math

import numpy as np
import pytest

import dfo
from dfo.bench.measures.cma import ellipsoid, rosenbrock, sphere
from dfo.components.borders import MARGIN, into_box, onto_line
from dfo.components.restarts import Regime, next_regime
from dfo.feedback import Values
from dfo.random import Key, normal
from dfo.solvers.cma.generation import orthogonalized, rates


# pycma's medians over 11 runs; the interval of the median of 7 runs is about +-8 %, so 15 % is generous
@pytest.mark.parametrize(
    ("f", "start", "sigma", "expected"),
    [(sphere, 1.0, 0.5, 1460), (ellipsoid, 1.0, 0.5, 4150), (rosenbrock, 0.1, 0.3, 4980)],
)
def test_median_calls_to_1e_9_are_those_of_pycma(f, start, sigma, expected):
    calls = []
    for seed in range(7):
        res = dfo.minimize(
            f, np.full(10, start), method=dfo.CMA(sigma=sigma), budget=20_000, seed=seed, stop=dfo.Target(1e-9)
        )
        calls.append(res.nfev if res.status == "target" else math.inf)
    assert abs(np.median(calls) / expected - 1) <= 0.15


def test_strategy_parameters_equal_the_tutorials_for_ten_variables():
    r = rates(10, 10, False)
    assert r.mu_eff == pytest.approx(3.167, abs=1e-3)
    assert r.positive.sum() == pytest.approx(1.0)
    assert (r.weights[:5] == r.positive[:5]).all()
    assert (r.weights[5:] < 0).all()
    assert (np.diff(r.weights) < 0).all()
    assert r.c_1 == pytest.approx(2 / (11.3**2 + r.mu_eff))
    assert r.c_1 + r.c_mu < 1


def test_orthogonal_steps_keep_their_lengths_and_groups_are_orthogonal():
    Z = normal(Key(0), (7, 3))
    Q = orthogonalized(Z)
    np.testing.assert_allclose((Q**2).sum(axis=1), (Z**2).sum(axis=1))
    for at in (0, 3):
        gram = Q[at : at + 3] @ Q[at : at + 3].T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)


def test_orthogonal_steps_keep_the_law_of_each_step():
    drawn = np.concatenate([orthogonalized(normal(Key(0).child(i), (4, 4))) for i in range(5000)])
    assert np.abs(drawn.mean(axis=0)).max() < 5 / math.sqrt(len(drawn))  # false alarm below 1e-5
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(4), atol=0.05)  # five standard deviations


def test_rotation_changes_nothing_but_the_draws():
    rotation, _ = np.linalg.qr(normal(Key(1), (6, 6)))
    medians = []
    for turn in (np.eye(6), rotation):
        runs = [
            dfo.minimize(
                lambda x, turn=turn: ellipsoid(turn @ x), turn.T @ np.ones(6), method="cma", budget=8000, seed=seed,
                stop=dfo.Target(1e-9),
            ).nfev
            for seed in range(7)
        ]  # fmt: skip
        medians.append(np.median(runs))
    assert abs(medians[0] / medians[1] - 1) < 0.15


def test_the_separable_variant_learns_scales_faster_and_rotations_not_at_all():
    rotation, _ = np.linalg.qr(normal(Key(1), (10, 10)))

    def calls(method, f):
        return dfo.minimize(f, np.ones(10), method=method, budget=6000, stop=dfo.Target(1e-9)).nfev

    assert calls("sep-cma", ellipsoid) < 0.7 * calls("cma", ellipsoid)
    assert calls("sep-cma", lambda x: ellipsoid(rotation @ x)) == 6000


def test_restarts_find_what_one_run_misses():
    def rastrigin(x):
        return float(10 * len(x) + (x * x - 10 * np.cos(2 * np.pi * x)).sum())

    solved = {}
    for policy in ("none", "bipop", "ipop"):
        runs = [
            dfo.minimize(
                rastrigin, np.full(3, 2.7), method=dfo.CMA(restarts=policy), bounds=[(-5, 5)] * 3, budget=15_000,
                seed=seed, stop=dfo.Target(1e-8),
            ).status
            for seed in range(5)
        ]  # fmt: skip
        solved[policy] = runs.count("target")
    assert solved["none"] == 0
    assert solved["ipop"] >= 4
    assert solved["bipop"] >= 2  # half of its evaluations go to small populations, which this function does not need


def test_bipop_spends_about_the_same_on_small_and_large_populations():
    regime, spent = Regime(10), {True: 0, False: 0}
    for run in range(40):
        cost = min(regime.cap or 10**9, 300 * regime.population)
        spent[regime.small] += cost
        regime = next_regime("bipop", regime, cost, 10, Key(0).child(run))
    assert 0.3 < spent[True] / spent[False] < 3
    assert next_regime("ipop", Regime(10), 1, 10, Key(0)).population == 20
    assert next_regime("ipop", Regime(10), 1, 10, Key(0), most=15).population == 15


def test_the_map_into_the_box_is_continuous_onto_and_inverted():
    box = dfo.Box(np.array([-1.0, 0.0]), np.array([3.0, 1.0]))
    line = np.linspace(-9, 9, 20_001)
    mapped = into_box(box, np.stack([line, line], axis=1))
    assert (mapped >= box.lower).all()
    assert (mapped <= box.upper).all()
    assert np.abs(np.diff(mapped, axis=0)).max() < 1e-3  # no faster than the identity
    np.testing.assert_allclose(mapped.min(axis=0), box.lower, atol=1e-6)
    np.testing.assert_allclose(mapped.max(axis=0), box.upper, atol=1e-6)
    inside = np.array([0.5, 0.5])
    assert (into_box(box, inside) == inside).all()
    for x in (box.lower, box.upper, inside, box.lower + MARGIN / 2, box.upper - MARGIN):
        np.testing.assert_allclose(into_box(box, onto_line(box, x)), x, atol=1e-12)


def test_a_minimum_in_a_corner_is_reached_exactly():
    res = dfo.minimize(lambda x: float(x.sum()), [0.3, 0.2, 0.1], method="cma", bounds=[(-1, 1)] * 3, budget=1500)
    assert res.fun == pytest.approx(-3.0, abs=1e-9)


def test_integers_are_solved_and_never_freeze():
    target = np.array([3, -7, 0, 12])

    def f(x):
        assert (x[:4] == np.rint(x[:4])).all()
        return float(np.abs(x[:4] - target).sum() + (x[4] - 0.3) ** 2)

    space = dfo.Box([-20] * 5, [20] * 5, integer=[True] * 4 + [False])
    found = [dfo.minimize(f, space, method="cma", budget=2000, seed=seed).fun for seed in range(5)]
    assert np.median(found) < 1e-8


def test_a_flat_generation_ends_a_run_and_an_invalid_one_does_not():
    solver = dfo.CMA(population=6, restarts="none")
    state = solver.init(np.zeros(3), Key(0))
    for _ in range(4):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(np.full(6, np.inf), failed=np.ones(6, bool)))
    assert solver.finished(state) is None
    for _ in range(2):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(np.ones(6)))
    assert "equal" in solver.finished(state)


def test_a_noisy_run_reports_an_honest_value_of_a_good_point():
    recommended = []
    for seed in range(8):
        key, count = Key(seed), [0]

        def f(x, key=key, count=count):
            count[0] += 1
            return float(x @ x) + float(normal(key.child(count[0]), (1,))[0])

        res = dfo.minimize(f, np.full(5, 2.0), method="cma", budget=1500, seed=seed, noise=True)
        assert res.nfev == 1500
        assert 0.05 < res.fun_stderr < 0.5
        recommended.append(sphere(res.x))
        assert res.fun > res.best_fun + 1.0  # the lowest value is luck ...
        assert abs(res.fun - sphere(res.x)) < 5 * res.fun_stderr  # ... the mean of the re-evaluations is not
    assert np.median(recommended) < 0.3  # from 20, with noise of standard deviation 1
