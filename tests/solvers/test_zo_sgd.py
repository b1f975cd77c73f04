"""Zeroth-order gradient descent against the theory of its estimates and steps."""

from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.bench.measures.zo_sgd import contraction
from dfo.components import estimators
from dfo.components.descent import first_moments, step
from dfo.directions import Directions, distribution
from dfo.errors import InvalidArgument
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


def test_estimates_have_no_bias():
    """The largest of 20 coordinates stays below 5 sqrt(d / N): a false alarm once in 1e5."""
    d, n = 20, 40_000
    g = normal(Key(1), (d,))
    for law in ("gaussian", "sphere", "rademacher", "coordinate"):
        U = Directions(distribution(law), Key(2).child(law), n, g).dense()
        mean = ((U @ g)[:, None] * U).mean(axis=0)
        assert np.abs(mean - g).max() < 5 * np.sqrt(d / n) * np.linalg.norm(g)


def test_isotropic_directions_do_not_know_the_axes_and_signs_do():
    """E (u.g)^4 of a unit g is that of every rotation of g; for signs it is 1 along an axis, 3 - 2/d along a diagonal.

    20,000 draws have a standard error of 0.07 in the widest case, so that 0.35 is beyond five.
    """
    d = 16
    axis, diagonal = np.eye(d)[0], np.full(d, d**-0.5)
    expected = {
        "gaussian": (3, 3),
        "sphere": (3 * d / (d + 2),) * 2,
        "rademacher": (1, 3 - 2 / d),
        "coordinate": (d, 1),
    }
    for law, moments in expected.items():
        U = Directions(distribution(law), Key(5).child(law), 20_000, axis).dense()
        for g, moment in zip((axis, diagonal), moments, strict=True):
            assert ((U @ g) ** 4).mean() == pytest.approx(moment, abs=0.35 if law != "coordinate" else 2.5)


def test_a_block_of_coordinates_is_scaled_to_be_unbiased():
    g = np.arange(1.0, 7.0)
    drawn = Directions(distribution("coordinate"), Key(0), 2, g)
    estimate = drawn.combine((drawn.dense() @ g) / 2)
    block = np.flatnonzero(estimate)
    assert len(block) == 2
    np.testing.assert_allclose(estimate[block], 6 / 2 * g[block])  # d / |B| times the gradient


def test_a_run_is_rebuilt_from_its_key_and_one_number_a_direction():
    solver = dfo.ZOSGD(lr=0.01, samples=3)
    state = solver.init(np.ones(4), Key(9))
    x, log = state.x.copy(), []
    for _ in range(20):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(np.array([quadratic(x) for x in batch.dense()])))
        log.append(state.slopes)
    for age, weights in enumerate(log):
        x -= 0.01 * Directions(distribution("sphere"), Key(9).child(age, "query"), 3, x).combine(weights)
    np.testing.assert_allclose(x, state.x, rtol=1e-12)


def test_svrg_does_not_vary_at_its_anchor():
    solver = dfo.ZOSGD(lr=0.01, samples=2, rule="svrg", minibatches=3)

    def answer(batch):
        return Values(np.array([quadratic(x - k) for x, k in zip(batch.dense(), batch.data, strict=True)]))

    state = solver.init(np.ones(4), Key(0))
    batch = solver.ask(state)
    state = solver.tell(state, batch, answer(batch))
    steps = []
    for age in range(5):  # other directions and other data
        at = replace(state, age=age)
        batch = solver.ask(at)
        steps.append(solver.tell(at, batch, answer(batch)).x - state.x)
    gradient = 2 * np.arange(1, 5) * (1.0 - np.arange(3)).mean()  # of the mean over the data
    np.testing.assert_allclose(steps, np.tile(-0.01 * gradient, (5, 1)), rtol=1e-9, atol=1e-12)


def test_a_conservative_step_never_rises_on_its_data():
    solver = dfo.ZOSGD(lr=0.2, samples=1, rule="conservative", minibatches=4)
    state = solver.init(np.ones(3), Key(0))

    def f(x, k):
        return quadratic(x - 0.3 * k)

    for _ in range(100):
        batch, before = solver.ask(state), state.x
        state = solver.tell(
            state, batch, Values(np.array([f(*pair) for pair in zip(batch.dense(), batch.data, strict=True)]))
        )
        if len(batch) == 3:
            assert f(state.x, batch.data[0]) <= f(before, batch.data[0])


@pytest.mark.parametrize("space", [dfo.Simplex(5), dfo.L1Ball(5, 2.0), dfo.L2Ball(5)], ids=lambda s: type(s).__name__)
def test_the_iterate_stays_in_a_convex_set_and_reaches_the_nearest_point(space):
    target = np.array([2.0, -1.0, 0.5, 0.0, 0.0])
    best = ((space.project(target) - target) ** 2).sum()
    res = dfo.minimize(lambda x: float(((x - target) ** 2).sum()), space, method="zo-sgd", budget=2000)
    assert space.contains(res.x)
    assert res.fun == pytest.approx(best, rel=0.05)


def test_rules_that_rescale_coordinates_are_refused_in_a_convex_set():
    with pytest.raises(InvalidArgument, match="zo-mirror"):
        dfo.minimize(quadratic, dfo.Simplex(4), method=dfo.ZOSGD(rule="adam"), budget=100)


def test_going_back_leads_to_where_the_lowest_level_was_measured():
    """A step after the lowest level may lead up; the point before it is the one to go back to, and is asked again."""
    solver = dfo.ZOSGD(samples=2).plan(dfo.Task(dfo.Free(3)))
    state = solver.init(np.ones(3), Key(0))
    batch = solver.ask(state)
    state = solver.tell(state, batch, Values(np.array([quadratic(x) for x in batch.dense()])))
    low = state.x
    for level in (1.0, 5.0, 5.0, 5.0, 5.0):  # told, whatever was asked
        state = solver.tell(state, solver.ask(state), Values(np.full(4, level)))
    np.testing.assert_array_equal(state.x, low)
    assert state.best_level == np.inf
    state = solver.tell(state, solver.ask(state), Values(np.full(4, 2.0)))
    assert state.best_level == 2.0


@pytest.mark.parametrize("rule", ["sgd", "momentum", "conservative", "svrg"])
def test_recommendations_under_noise_are_better_than_the_start(rule):
    key = Key(4)

    def noisy(X):
        return (X * X).sum(axis=1) + 0.5 * normal(key.child(float(X.sum()).hex()), (len(X),))

    res = dfo.minimize(
        noisy, np.ones(20), method=dfo.ZOSGD(rule=rule), budget=6000, noise=True, vectorized=True, seed=1
    )  # fmt: skip
    assert res.x @ res.x < 5.0
