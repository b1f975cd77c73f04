"""OpenAI-ES, PGPE, ARS and guided ES against their equations; low-rank directions; penalties, blocks, odd sizes."""

import numpy as np
import pytest

import dfo
from dfo.bench.measures.evolution_strategies import drift_of_moments, guided_scale, path, rate, sphere, top_gap
from dfo.components.generations import annealed, first_sigma, members
from dfo.components.shaping import by_rank
from dfo.directions import LowRank
from dfo.errors import InvalidArgument
from dfo.feedback import Ranking, Values
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.solvers.ars import top_pairs
from dfo.solvers.guided_es import orthonormal
from dfo.spaces import Box, Free

ALL = ["openai-es", "pgpe", "ars", "guided-es"]
BY_RANK = ["openai-es", "pgpe", "guided-es"]


def solver_of(method, **options):
    return dfo.solvers.solver_class(method)(**options)


def one_step(solver, f, x0, key=0):
    state = solver.init(x0, Key(key))
    batch = solver.ask(state)
    return batch, solver.tell(state, batch, Values(f(batch.dense())))


# ---------------------------------------------------------------------- OpenAI-ES


def test_a_step_of_plain_descent_is_the_formula():
    """Salimans et al. 2017, algorithm 1: x - lr g with g = -1/(n sigma) sum w_i z_i."""
    solver = dfo.OpenAIES(population=8, sigma=0.2, lr=0.3, rule="sgd", schedule="constant")
    x0 = np.array([1.0, -2.0, 0.5])
    batch, after = one_step(solver, sphere, x0)
    X = batch.dense()
    w = by_rank("centered", 8)[np.argsort(np.argsort(sphere(X)))]
    np.testing.assert_allclose(after.x, x0 + 0.3 * (w @ (X - x0)) / (8 * 0.2**2), rtol=1e-12)


def test_pairs_are_mirrored_and_the_last_of_an_odd_generation_is_alone():
    batch = dfo.OpenAIES(population=7, sigma=0.5).ask(dfo.OpenAIES(population=7).init(np.zeros(4), Key(0)))
    X = batch.dense()
    assert len(X) == 7
    np.testing.assert_allclose(X[0:6:2], -X[1:6:2])
    assert abs(X[6]).min() > 0


def test_the_variant_for_language_models_steps_by_the_mean_of_scored_directions():
    """No mirrors, z-scores, plain descent: x + alpha mean(w_i z_i), sigma folded into alpha."""
    solver = dfo.OpenAIES(
        population=30, mirrored=False, shaping="standardized", rule="sgd", sigma=1e-3, lr=5e-7, schedule="constant"
    )
    x0 = np.ones(5)
    batch, after = one_step(solver, sphere, x0)
    X = batch.dense()
    f = sphere(X)
    step = 5e-4 * ((f.mean() - f) / f.std()) @ ((X - x0) / 1e-3) / 30
    np.testing.assert_allclose(after.x - x0, step, rtol=1e-6)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam", "amsgrad", "sign", "clipup"])
def test_every_rule_descends_without_options(rule):
    x = dfo.minimize(sphere, np.ones(10), method=dfo.OpenAIES(rule=rule), budget=3000, vectorized=True).x
    assert x @ x < 0.01


def test_penalties_pull_and_gauges_tell():
    """With values that tell nothing but noise, l2 pulls to 0 and the anchor to the start."""
    noise = lambda X: normal(Key(5).child(int(1e6 * abs(X[0, 0]))), (len(X),))  # noqa: E731
    x0 = np.full(6, 3.0)
    free = path(dfo.OpenAIES(schedule="constant"), noise, x0, 300)[-1]
    pulled = path(dfo.OpenAIES(schedule="constant", l2=0.3), noise, x0, 300)[-1]
    held = path(dfo.OpenAIES(schedule="constant", anchor=0.3), noise, x0, 300)[-1]
    assert np.abs(pulled).max() < 1.5
    assert np.abs(held - x0).max() < min(1.5, np.abs(free - x0).max())
    solver = dfo.OpenAIES(population=6, sigma=0.1)
    _, after = one_step(solver, sphere, x0)
    gauges = solver.gauges(after)
    np.testing.assert_allclose([gauges["update"], gauges["drift"]], np.linalg.norm(after.x - x0))


@pytest.mark.parametrize("options", [{}, {"anchor": 0.01, "l2": 0.01}, {"rule": "clipup", "directions": LowRank()}])
def test_named_blocks_are_moved_in_place(options):
    x0 = {"w": np.ones((4, 3)), "b": np.ones(3)}
    solver = dfo.OpenAIES(population=12, sigma=0.1, schedule="constant", **options)
    state = solver.init(x0, Key(0))
    for _ in range(200):
        batch = solver.ask(state)
        f = [sum(float((block**2).sum()) for block in batch.member(i).values()) for i in range(len(batch))]
        state = solver.tell(state, batch, Values(np.array(f)))
    assert all((block == 1.0).all() for block in x0.values())
    assert sum(float((block**2).sum()) for block in state.x.values()) < 0.5


@pytest.mark.parametrize("method", ["openai-es", "pgpe", "ars"])
def test_with_noise_an_average_of_the_centers_is_recommended(method):
    """Shamir and Zhang 2013: weights (eta + 1) / (t + eta) of the centers after t steps."""
    solver = solver_of(method, population=6).plan(Task(Free(4), 1000, noisy=True))
    state, mean = solver.init(np.ones(4), Key(0)), np.ones(4)
    for t in range(1, 30):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(sphere(batch.dense())))
        mean = mean + 4.0 / (t + 3.0) * (state.x - mean)
    np.testing.assert_allclose(solver.recommend(state), mean, rtol=1e-12)
    still = solver_of(method).plan(Task(Free(4), 1000))
    assert still.init(np.ones(4), Key(0)).mean is None


def test_with_noise_every_member_has_a_direction_of_its_own():
    solver = dfo.OpenAIES(population=6).plan(Task(Free(4), 1000, noisy=True))
    X = solver.ask(solver.init(np.zeros(4), Key(0))).dense()
    assert np.linalg.matrix_rank(X[:4]) == 4
    assert dfo.OpenAIES(mirrored=True).plan(Task(Free(4), 1000, noisy=True)).mirrored is True


def test_directions_of_rank_one_have_the_second_moments_of_the_identity():
    # the largest of 5,886 standard normals is below 5.5 but for 2e-4 of the seeds, and this one is fixed
    assert drift_of_moments(20_000) < 5.5


def test_low_rank_directions_train_a_matrix():
    target = normal(Key(1), (6, 5)).reshape(-1)
    f = lambda X: ((X - target) ** 2).sum(axis=1)  # noqa: E731
    solver = dfo.OpenAIES(directions=LowRank((6, 5)))
    res = dfo.minimize(f, np.zeros(30), method=solver, budget=6000, vectorized=True)
    assert res.fun < 1e-3 * f(np.zeros((1, 30)))[0]


# ---------------------------------------------------------------------- PGPE


def test_a_step_of_pgpe_is_the_formula():
    """Sehnke et al. 2010, eqs. 15-16, over pairs, with ranks for rewards."""
    x0, n = np.array([1.0, -2.0, 0.5]), 8
    solver = dfo.PGPE(population=n, sigma=0.2, rule="sgd", lr=0.7, schedule="constant")
    batch, after = one_step(solver, sphere, x0)
    z = (batch.dense()[::2] - x0) / 0.2
    u = by_rank("centered", n)[np.argsort(np.argsort(sphere(batch.dense())))].reshape(-1, 2)
    mean = (0.5 * (u[:, 0] - u[:, 1]))[:, None] * z * 0.2
    wide = (0.5 * (u[:, 0] + u[:, 1]))[:, None] * (z**2 - 1) * 0.2
    np.testing.assert_allclose(after.x, x0 + 0.7 * mean.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(after.stdev, 0.2 + 0.1 * wide.mean(axis=0), rtol=1e-9)


def test_pgpe_converges_linearly_on_the_sphere():
    middle, last = rate(dfo.PGPE(), 10, 900, 0)  # a fixed seed; over seeds the ratio spreads by 0.2
    assert middle > 1.0
    assert 0.5 < last / middle < 2.0


def test_pgpe_learns_a_scale_for_each_coordinate():
    scales = 10.0 ** np.arange(0, 5)
    res = dfo.minimize(lambda X: X**2 @ scales, np.ones(5), method="pgpe", budget=20_000, vectorized=True)
    assert res.fun < 1e-8


def test_pgpe_is_finished_when_the_cloud_is_small():
    res = dfo.minimize(sphere, np.ones(3), method=dfo.PGPE(xtol=1e-3), vectorized=True)
    assert res.status == "finished"
    assert "xtol" in res.message


# ---------------------------------------------------------------------- ARS


def test_a_step_of_ars_is_algorithm_1():
    assert top_gap(5) <= 1e-12


def test_failed_pairs_are_left_out_and_equal_values_move_nothing():
    f = np.array([1.0, 2.0, np.nan, 0.0, 5.0, 3.0])
    w = top_pairs(f, 3)
    assert w[1] == 0.0
    np.testing.assert_allclose(w[[0, 2]], np.array([-1.0, 2.0]) / (2 * np.array([1.0, 2.0, 5.0, 3.0]).std()))
    assert not top_pairs(np.ones(6), 2).any()
    assert not top_pairs(np.full(6, np.nan), 2).any()
    assert np.isfinite(top_pairs(np.array([1e149, -1e149, 0.0, 1.0]), 1)).all()


def test_ars_needs_values():
    with pytest.raises(dfo.errors.IncompatibleOracle):
        dfo.minimize(dfo.RankOracle.of(lambda x: float(x @ x)), [1.0, 1.0], method="ars", budget=80)


# ---------------------------------------------------------------------- guided ES


def test_guided_es_with_alpha_1_is_openai_es():
    x0 = normal(Key(3), (12,))
    plain = path(dfo.OpenAIES(rule="clipup", population=8), sphere, x0, 30)
    guided = path(dfo.GuidedES(rule="clipup", population=8, alpha=1.0), sphere, x0, 30)
    np.testing.assert_allclose(plain, guided, atol=1e-9)


def test_guided_es_with_alpha_0_stays_in_the_subspace():
    solver = dfo.GuidedES(alpha=0.0, population=8, subspace=2, own=False, rule="sgd", sigma=0.3)
    state = solver.init(np.zeros(9), Key(0))
    for g in normal(Key(4), (2, 9)):
        state = solver.guide(state, g)
    for _ in range(20):
        batch = solver.ask(state)
        X = batch.dense()
        np.testing.assert_allclose(X - (X @ state.basis.T) @ state.basis, 0.0, atol=1e-12)
        state = solver.tell(state, batch, Values(sphere(X - 1.0)))
    assert np.linalg.norm(state.x) > 0.1


@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_the_guided_estimate_has_the_scale_of_its_equation(alpha):
    # 4 draws of 2,000 pairs: the mean spreads by 0.015; 0.06 is four of that
    ratios = [measured / theory for measured, theory in (guided_scale(alpha, 2_000, seed) for seed in range(4))]
    assert abs(np.mean(ratios) - 1.0) < 0.06


def test_guided_es_remembers_no_more_than_the_last_surrogates():
    solver = dfo.GuidedES(subspace=3, population=6)
    state = solver.init(np.zeros(8), Key(0))
    for g in np.eye(8)[:5]:
        state = solver.guide(state, 7.0 * g)
    np.testing.assert_allclose(state.history, np.eye(8)[2:5])
    assert solver.guide(state, np.zeros(8)) is state
    assert solver.guide(state, np.full(8, np.nan)) is state


def test_repeated_surrogates_add_nothing():
    rows = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 1.0, 0.0]])
    basis = orthonormal(rows)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(rows @ basis.T @ basis, rows, atol=1e-12)


# ---------------------------------------------------------------------- what they share


@pytest.mark.parametrize("method", BY_RANK)
def test_increasing_functions_of_f_change_nothing(method):
    x0 = np.linspace(1.0, 2.0, 4)
    plain, other = (path(solver_of(method), f, x0, 25) for f in (sphere, lambda X: np.exp(sphere(X) / 4)))
    assert np.array_equal(plain, other)


@pytest.mark.parametrize("method", BY_RANK)
def test_a_person_ranks_eight_with_ties_and_skips(method):
    values = []
    for seed in range(3):
        shown = []
        oracle = dfo.RankOracle.of(lambda x: round(float(x @ x), 1), skip=0.1, max_batch=8)
        evaluate = oracle.evaluate
        oracle.evaluate = lambda batch, memory: (shown.append(len(batch)), evaluate(batch, memory))[1]
        x = dfo.minimize(oracle, np.ones(6), method=method, budget=1200, seed=seed).x
        assert max(shown) <= 8
        values.append(x @ x / 6)
    assert np.median(values) < 0.1


@pytest.mark.parametrize("method", ALL)
def test_a_generation_fits_into_what_the_oracle_takes(method):
    for most in (2, 3, 8):
        solver = solver_of(method).plan(Task(Free(5), 100, max_batch=most))
        assert len(solver.ask(solver.init(np.zeros(5), Key(0)))) <= most


@pytest.mark.parametrize("method", BY_RANK)
def test_an_answer_of_ties_moves_nothing(method):
    solver = solver_of(method, population=6)
    state = solver.init(np.ones(3), Key(0))
    after = solver.tell(state, solver.ask(state), Ranking(np.full(6, 2.5)))
    assert after.step == state.step + 1
    assert np.array_equal(solver.recommend(after), solver.recommend(state))


@pytest.mark.parametrize("method", ALL)
def test_points_of_a_box_stay_inside_and_reach_a_corner(method):
    res = dfo.minimize(lambda x: float(x.sum()), [0.9, 0.4], method=method, bounds=[(0, 1)] * 2, budget=600)
    assert (np.asarray(res.x) >= 0).all()
    assert res.fun < 0.05


@pytest.mark.parametrize("method", ALL)
def test_integers_are_found(method):
    box = Box(np.full(3, -5.0), np.full(3, 5.0), np.ones(3, bool))
    res = dfo.minimize(lambda x: float(((x - 2) ** 2).sum()), box, method=method, budget=1500, seed=1)
    assert res.fun <= 1.0


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("openai-es", {"rule": "adamw"}), ("openai-es", {"population": 1}), ("openai-es", {"l2": -1.0}),
        ("openai-es", {"schedule": "linear"}), ("openai-es", {"sigma": 0.0}), ("pgpe", {"max_change": 1.0}),
        ("pgpe", {"lr": -1.0}), ("pgpe", {"population": 2.5}), ("ars", {"top": 0}), ("ars", {"schedule": "none"}),
        ("guided-es", {"alpha": 1.5}), ("guided-es", {"shaping": "ranks"}), ("guided-es", {"subspace": 0}),
    ],
)  # fmt: skip
def test_bad_options_are_refused(method, options):
    with pytest.raises(InvalidArgument, match=f"{next(iter(options))}: expected"):
        solver_of(method, **options)


def test_what_strategies_agree_on():
    assert members(Task(Free(4), batch=30, max_batch=8), None, 10) == 8
    assert members(Task(Free(4), batch=1), None, 10) == 2
    assert first_sigma(Task(Free(10)), None) == 0.5
    assert first_sigma(Task(Box(np.zeros(10), np.ones(10))), None) == 0.2
    np.testing.assert_allclose(first_sigma(Task(Free(10_000)), None), 0.05)
    assert [annealed("cosine", t, 0.1) for t in (0.0, 0.5, 1.0, 9.0)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    assert annealed("exponential", 0.5, 0.01) == pytest.approx(0.1)
    assert annealed("constant", 0.7, 0.01) == 1.0
