"""Zeroth-order gradient descent against the theory of its estimates and steps."""

import numpy as np
import pytest

import dfo
from dfo.bench.measures.zo_sgd import contraction
from dfo.components import estimators
from dfo.components.descent import first_moments, step
from dfo.feedback import Values
from dfo.random import Key, normal


def quadratic(x):
    return float((np.arange(1, len(x) + 1) * x * x).sum())


# theory: 2000 log(1 - 1/100) = -20.1; one run spreads by 0.7, the mean of 8 by 0.25, and 1.1 is beyond four of it
@pytest.mark.parametrize(("directions", "lr", "expected"), [("sphere", 1 / 100, -20.2), ("gaussian", 1 / 102, -19.9)])
def test_steps_along_one_direction_contract_as_derived(directions, lr, expected):
    mean, _ = contraction(directions, lr, 8)
    assert abs(mean - expected) < 1.1


@pytest.mark.parametrize("radius", [1e-3, 1.0, 10.0])
def test_a_central_difference_of_a_quadratic_does_not_depend_on_the_radius(radius):
    solver = dfo.ZOSGD(lr=0.01, samples=3, radius=radius)
    state = solver.init(np.ones(4), Key(3))
    batch = solver.ask(state)
    moved = solver.tell(state, batch, Values(np.array([quadratic(x) for x in batch.dense()]))).x
    reference = dfo.ZOSGD(lr=0.01, samples=3, radius=0.1)
    batch = reference.ask(reference.init(np.ones(4), Key(3)))
    told = Values(np.array([quadratic(x) for x in batch.dense()]))
    np.testing.assert_allclose(moved, reference.tell(reference.init(np.ones(4), Key(3)), batch, told).x, rtol=1e-9)


@pytest.mark.parametrize("directions", ["orthogonal", "coordinate"])
def test_as_many_orthogonal_directions_as_variables_give_the_gradient(directions):
    solver = dfo.ZOSGD(lr=1.0, samples=5, directions=directions, radius=0.1)
    state = solver.init(np.arange(1.0, 6.0), Key(0))
    batch = solver.ask(state)
    after = solver.tell(state, batch, Values(np.array([quadratic(x) for x in batch.dense()])))
    np.testing.assert_allclose(state.x - after.x, 2 * np.arange(1, 6) * np.arange(1.0, 6.0), rtol=1e-9)


@pytest.mark.parametrize("scheme", estimators.SCHEMES)
def test_calls_per_step_are_the_formulas(scheme):
    solver = dfo.ZOSGD(lr=0.01, samples=4, scheme=scheme)
    batch = solver.ask(solver.init(np.ones(6), Key(0)))
    assert len(batch) == estimators.calls(scheme, 4) == {"central": 8, "forward": 5}.get(scheme, 4)


def test_schemes_estimate_the_slope_of_a_linear_function():
    f = np.array([7.0, 7.5, 6.5])
    np.testing.assert_allclose(estimators.differences("forward", f, 0.5), [1.0, -1.0])
    np.testing.assert_allclose(estimators.differences("central", f[1:], 0.5), [1.0])
    np.testing.assert_allclose(estimators.differences("one-point", f, 0.5), 2 * f)
    np.testing.assert_allclose(estimators.differences("residual", f, 0.5, previous=7.0), [0.0, 1.0, -2.0])


def test_missing_values_are_left_out_of_the_mean():
    slopes = estimators.differences("central", np.array([1.0, 0.0, np.nan, 0.0, 3.0, 0.0]), 0.5)
    weights = estimators.weights(estimators.filtered("none", slopes, 1.0), slopes)
    np.testing.assert_allclose(weights, [0.5, 0.0, 1.5])


def test_filters():
    slopes = np.array([3.0, -4.0])
    assert estimators.filtered("sign", slopes, 1.0).tolist() == [1.0, -1.0]
    assert estimators.filtered("clip", slopes, 3.5).tolist() == [3.0, -3.5]
    standardized = estimators.filtered("standardized", slopes, 1.0)
    assert (standardized**2).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(standardized, estimators.filtered("standardized", 1e6 * slopes, 1.0))


@pytest.mark.parametrize("rule", ["sgd", "momentum", "sign", "adam", "amsgrad"])
def test_rules_are_equal_on_an_array_and_on_its_blocks(rule):
    x = normal(Key(0), (5,))
    whole, parts = first_moments(rule, x), first_moments(rule, {"a": x[:2], "b": x[2:]})
    for i in range(3):
        g = normal(Key(1).child(i), (5,))
        one, whole = step(rule, g, whole, 0.1, (0.9, 0.99), 1e-8)
        two, parts = step(rule, {"a": g[:2], "b": g[2:]}, parts, 0.1, (0.9, 0.99), 1e-8)
        np.testing.assert_array_equal(one, np.concatenate([two["a"], two["b"]]))


def test_adam_takes_steps_of_length_lr_first_and_amsgrad_never_lengthens_them():
    g = np.array([3.0, -0.001])
    delta, _ = step("adam", g, first_moments("adam", g), 0.1, (0.9, 0.999), 0.0)
    np.testing.assert_allclose(delta, [-0.1, 0.1])
    memory = first_moments("amsgrad", g)
    for scale in (1.0, 0.1, 0.01):
        before = memory.peak
        _, memory = step("amsgrad", scale * g, memory, 0.1, (0.9, 0.99), 1e-8)
        assert (memory.peak >= before).all()


@pytest.mark.parametrize("rule", ["sgd", "momentum", "sign", "adam", "amsgrad", "conservative", "svrg"])
def test_every_rule_descends_without_a_step_size(rule):
    found = [
        dfo.minimize(quadratic, np.ones(6), method=dfo.ZOSGD(rule=rule), budget=1500, seed=seed).fun
        for seed in range(3)
    ]
    assert np.median(found) < 0.05 * quadratic(np.ones(6))


@pytest.mark.parametrize("scheme", ["one-point", "residual"])
def test_one_point_schemes_descend_with_a_step_size(scheme):
    def f(x):
        return float(x @ x) + (0.0 if scheme == "one-point" else 5.0)

    lr = {"one-point": 5e-3, "residual": 5e-3}[scheme]
    solver = dfo.ZOSGD(lr=lr, scheme=scheme, radius=0.5, samples=1)
    ends = []
    for seed in range(3):
        state = solver.init(np.full(2, 2.0), Key(seed))
        for _ in range(1500):
            batch = solver.ask(state)
            state = solver.tell(state, batch, Values(np.array([f(x) for x in batch.dense()])))
        ends.append(float(state.x @ state.x))
    assert np.median(ends) < 0.5 * 8.0


def test_shifting_values_changes_no_two_point_step_and_scaling_no_sign_step():
    def path(transform, **options):
        solver = dfo.ZOSGD(lr=0.05, samples=2, radius=0.125, **options)
        state = solver.init(np.array([1.0, 2.0]), Key(0))
        for _ in range(5):
            batch = solver.ask(state)
            state = solver.tell(state, batch, Values(transform(np.array([quadratic(x) for x in batch.dense()]))))
        return state.x

    np.testing.assert_allclose(path(lambda f: f), path(lambda f: f + 64.0), rtol=1e-12)
    np.testing.assert_array_equal(path(lambda f: f, filter="sign"), path(lambda f: 8 * f, filter="sign"))


def test_points_stay_in_the_box():
    seen = []

    def f(x):
        seen.append(x)
        return float(x.sum())

    res = dfo.minimize(f, [0.9, 0.1], method="zo-sgd", bounds=[(0, 1)] * 2, budget=300)
    assert (np.array(seen) >= 0).all()
    assert (np.array(seen) <= 1).all()
    assert res.fun == 0.0
