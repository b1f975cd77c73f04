"""Evolution strategies on lanes: sums over an episode, unbiasedness, variances, who is credited with what.

Figures: algorithms of Vicol et al. 2021 (arXiv:2112.13835) and 2023 (arXiv:2304.11153). Seeds are fixed; the
chance that a correct implementation fails under another seed is given where there is one.
"""

from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.arrays import to_numpy
from dfo.feedback import Values
from dfo.oracles.unrolled import Unrolled
from dfo.random import Key, normal
from dfo.run.loop import lanes_of
from dfo.solvers.unrolled_es.outer import noise

STILL = {"rule": "sgd", "lr": 1e-200}  # theta does not move


def hilly(theta, s, t, data):
    """No quadratic, and different in every step."""
    s = np.tanh(s + 0.3 * theta[:, : s.shape[1]] * (1 + 0.1 * t[:, None]))
    return s, np.exp(s).sum(axis=1) + np.sin(3 * theta).sum(axis=1)


HILLY = Unrolled(lambda data: np.zeros((len(data.number), 2)), hilly, steps=4, horizon=10, vectorized=True)


def unrolls(solver, oracle, x0, count, seed=0):
    """Yield the state after each tell."""
    x0 = np.asarray(x0, dtype=float) if isinstance(x0, list) else x0
    solver = solver.plan(dfo.Task(dfo.Free(len(x0)), gives=oracle.gives))
    state, memory = solver.init(x0, Key(seed)), oracle.start(lanes_of(solver), Key(seed, ("oracle",)))
    for _ in range(count):
        batch = solver.ask(state)
        told, memory = oracle.evaluate(batch, memory)
        state = solver.tell(state, batch, told)
        yield state


def last(*args, **options):
    *_, state = unrolls(*args, **options)
    return state


# ---------------------------------------------------------------------- sums over an episode


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 13])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_es_single_sums_to_full_es_over_an_episode(steps, dtype):
    oracle, count = replace(HILLY, steps=steps), -(-10 // steps)
    options, x0 = {"population": 8, "sigma": 0.2, **STILL}, np.array([0.3, -0.2], dtype)
    options["lr"] = 1e-30
    for episodes in (1, 2):
        parts = [s.g for s in unrolls(dfo.ESSingle(**options), oracle, x0, count * episodes)]
        full = last(dfo.FullES(**options), oracle, x0, count * episodes)
        assert full.moments.count == episodes
        np.testing.assert_allclose(sum(parts[-count:]), full.g, rtol=1e-10 if dtype == "float64" else 1e-4)


def test_pes_with_one_noise_an_episode_is_es_single():
    """GPES with ``share`` as long as the episode: the same noise, credited once."""
    options = {"population": 6, "rule": "sgd", "lr": 1e-3}
    a = list(unrolls(dfo.GPES(share=3, **options), HILLY, [0.3, -0.2], 12))
    b = list(unrolls(dfo.ESSingle(**options), HILLY, [0.3, -0.2], 12))
    np.testing.assert_allclose([s.x for s in a], [s.x for s in b], rtol=1e-12)


def test_an_unroll_of_a_whole_episode_makes_all_of_them_full_es():
    oracle, options = replace(HILLY, steps=10), {"population": 6, "rule": "sgd", "lr": 1e-3}
    paths = [
        [s.x for s in unrolls(cls(**options), oracle, [0.3, -0.2], 8)] for cls in (dfo.FullES, dfo.PES, dfo.ESSingle)
    ]
    np.testing.assert_array_equal(paths[0], paths[1])
    np.testing.assert_array_equal(paths[0], paths[2])


# ---------------------------------------------------------------------- unbiased, and how noisy

A, B, C = (normal(Key(3, (name,)), (3, 3)) for name in "ABC")


def through_the_state(theta, s, t, data):
    """Two unrolls; the second loss depends on the first theta through the state, quadratically."""
    first = theta @ A.T
    second = np.where(t[:, None] == 0, first, s @ B.T + theta @ C.T)
    return second, 0.5 * ((second - 1.0) ** 2).sum(axis=1)


QUADRATIC = Unrolled(lambda data: np.zeros((len(data.number), 3)), through_the_state, horizon=2, vectorized=True)


def gradient(theta):
    second = A, B @ A + C
    return sum(J.T @ (J @ theta - 1.0) for J in second)


@pytest.mark.parametrize("cls", [dfo.PES, dfo.ESSingle, dfo.FullES])
def test_unbiased_on_a_quadratic_through_the_state(cls):
    """Within five standard errors of each of three coordinates: a false alarm once in 500,000 seeds."""
    theta, estimates = np.array([0.4, -1.0, 0.2]), []
    for seed in range(40):
        states = list(unrolls(cls(population=500, sigma=0.5, **STILL), QUADRATIC, theta, 2, seed))
        estimates.append(sum(s.g for s in states) if cls is not dfo.FullES else states[-1].g)
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - gradient(theta)) < 5 * error).all()
    assert error.max() < 0.05 * np.abs(gradient(theta)).max()


def test_truncated_es_is_biased_there():
    theta, estimates = np.array([0.4, -1.0, 0.2]), []
    for seed in range(40):
        states = list(unrolls(dfo.TruncatedES(population=500, sigma=0.5, **STILL), QUADRATIC, theta, 4, seed))
        estimates.append(states[0].g + states[2].g)  # look, follow, look, follow
    blind = A.T @ (A @ theta - 1.0) + C.T @ ((B @ A + C) @ theta - 1.0)
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - blind) < 5 * error).all()
    assert (np.abs(blind - gradient(theta)) > 20 * error).any()


def variance(cls, slopes, runs, pairs):
    """Return the variance of one pair's estimate, summed over an episode, for each run's slopes ``(runs, U, P)``."""
    total = 0.0
    for run in range(runs):
        p = slopes[run]
        oracle = Unrolled(
            lambda data: np.zeros(len(data.number)), lambda theta, s, t, data: (s, (theta * p[t]).sum(axis=1)),
            horizon=len(p), vectorized=True,
        )  # fmt: skip
        states = unrolls(cls(population=2 * pairs, **STILL), oracle, np.zeros(p.shape[1]), len(p), run)
        total += pairs * ((sum(s.g for s in states) - p.sum(axis=0)) ** 2).sum()
    return total / sum((p.sum(axis=0) ** 2).sum() for p in slopes)


@pytest.mark.parametrize("cls", [dfo.PES, dfo.ESSingle])
@pytest.mark.parametrize("alike", [True, False])
def test_variances_of_linear_losses(cls, alike):
    """P = 100, U = 5; the standard deviation of the ratio over seeds is 4 % (measured), so 20 % is five of them."""
    P, U, runs = 100, 5, 16
    drawn = normal(Key(5), (runs, 1 if alike else U, P))
    slopes = np.repeat(drawn, U, axis=1) if alike else drawn
    theory = P + 1 if cls is dfo.ESSingle else P * (1 + 1 / U) / 2 if alike else P * (U + 1) / 2
    assert variance(cls, slopes, runs, pairs=20) == pytest.approx(theory, rel=0.2)


# ---------------------------------------------------------------------- published figures in short form


def unrolled(name):
    dfo_problems = pytest.importorskip("dfo_problems")
    return dfo_problems.make(f"unrolled-{name}")


@pytest.mark.parametrize("cls", [dfo.PES, dfo.ESSingle, dfo.TruncatedES])
def test_influence_balancing(cls):
    problem = unrolled("influence-balancing")
    """After 800 updates; the published figures are those of `dfo bench paper-unrolled`."""
    solver = cls(rule="sgd", lr=1e-4, population=100 if cls is dfo.TruncatedES else 1000)
    state = last(solver, problem.fun, problem.x0, 1600 if cls is dfo.TruncatedES else 800)
    theta = solver.recommend(state)[0]
    if cls is dfo.TruncatedES:
        assert theta > 0.7
    else:
        assert abs(theta + 1 / 6) < 0.03


@pytest.mark.parametrize("cls", [dfo.PES, dfo.ESSingle, dfo.TruncatedES])
def test_toy_regression(cls):
    problem = unrolled("toy-regression")
    solver = cls(sigma=0.3, lr=0.02, betas=(0.99, 0.999), population=40)
    state = last(solver, problem.fun, problem.x0, 800)
    loss = problem.measure(solver.recommend(state))
    assert loss > 2300 if cls is dfo.TruncatedES else loss < 650


# ---------------------------------------------------------------------- what a pair carries


def test_pairs_see_the_same_data_and_are_mirrored():
    def noisy(theta, s, t, data):
        return s, data.normal() + 0.0 * theta[:, 0]

    oracle = Unrolled(lambda data: data.normal((1,)), noisy, steps=2, horizon=4, vectorized=True)
    for cls in (dfo.PES, dfo.ESSingle, dfo.FullES, dfo.NRES, dfo.TruncatedES):
        for state in unrolls(cls(population=8), oracle, [0.5], 9):
            np.testing.assert_array_equal(state.g, 0.0)  # L+ = L- whatever is drawn
    solver = dfo.PES(population=8, sigma=0.3)
    batch = solver.ask(solver.init(np.array([0.5, 1.0]), Key(0)))
    np.testing.assert_allclose(batch.X[0::2] + batch.X[1::2], [[1.0, 2.0]] * 4)
    np.testing.assert_array_equal(batch.data[0::2], batch.data[1::2])
    assert len(set(batch.data)) == 4


def test_pes_accumulates_and_an_end_clears_exactly_its_pair():
    """Pair 1 ends after its first unroll, pairs 0 and 2 go on."""
    solver = dfo.PES(population=6, **STILL)
    state = solver.init(np.zeros(2), Key(7))
    z0, z1 = (noise(state.key, np.full(3, k), state.x) for k in (0, 1))
    ended = np.repeat([False, True, False], 2)
    f = np.array([3.0, 1.0, 7.0, 2.0, 0.5, 1.0])
    state = solver.tell(state, solver.ask(state), Values(f, ended=ended))
    delta = np.array([2.0, 5.0, -0.5])
    np.testing.assert_allclose(state.g, delta @ z0 / (2 * 0.1 * 3))
    np.testing.assert_allclose(state.trail, z0 * [[1], [0], [1]])
    np.testing.assert_array_equal(state.episode, [0, 1, 0])
    np.testing.assert_array_equal(solver.ask(state).data, np.repeat([0, 3 + 1, 2], 2))
    state = solver.tell(state, solver.ask(state), Values(f, ended=np.zeros(6, bool)))
    np.testing.assert_allclose(state.g, delta @ (z0 * [[1], [0], [1]] + z1) / (2 * 0.1 * 3))


def test_es_single_redraws_for_the_pair_that_ended_and_keeps_no_noise():
    solver = dfo.ESSingle(population=6, sigma=0.5, **STILL)
    state = solver.init(np.zeros(50), Key(7))
    before = solver.ask(state).X
    state = solver.tell(state, solver.ask(state), Values(np.zeros(6), ended=np.repeat([False, True, False], 2)))
    after = solver.ask(state).X
    same = (before == after).all(axis=1)
    np.testing.assert_array_equal(same, [True, True, False, False, True, True])
    sizes = [getattr(state, name).size for name in ("x", "g", "total", "delta", "drawn", "resting")]
    assert max(sizes) == 50  # nothing of the size of the population
    assert state.trail is None


def test_a_member_that_ends_before_its_partner_waits_for_it():
    """Rates decide when an inner problem ends: no member is asked beyond its end, and the sum is full ES's."""

    def leaking(theta, s, t, data):
        s = s - np.exp(theta[:, 0])
        return s, s + 0.1 * t, s <= 0

    oracle = Unrolled(lambda data: np.full(len(data.number), 5.0), leaking, steps=1, vectorized=True)
    options = {"population": 4, "sigma": 0.7, **STILL}
    solver = dfo.FullES(**options)
    state, memory, asked = solver.init(np.zeros(1), Key(1)), oracle.start(4, Key(0)), []
    single = last(dfo.ESSingle(**options), replace(oracle, steps=100), [0.0], 1, seed=1)
    while not state.moments.count:
        batch = solver.ask(state)
        asked.append(batch.lane)
        told, memory = oracle.evaluate(batch, memory)
        state = solver.tell(state, batch, told)
        assert state.moments.count or not told.ended.all() or len(batch) < 4
    lengths = np.bincount(np.concatenate(asked), minlength=4)
    assert len(set(lengths)) > 2
    np.testing.assert_array_equal(memory.episode, 1)
    np.testing.assert_allclose(state.g, single.g, rtol=1e-12)


def test_answers_that_are_missing_leave_their_pair_out():
    solver = dfo.PES(population=6, **STILL)
    state = solver.init(np.zeros(2), Key(7))
    z = noise(state.key, np.zeros(3, int), state.x)
    f, failed = np.array([3.0, 1.0, np.inf, 2.0, 0.5, 1.0]), np.arange(6) == 2
    told = Values(f, failed=failed, ended=np.zeros(6, bool))
    state = solver.tell(state, solver.ask(state), told)
    np.testing.assert_allclose(state.g, (2.0 * z[0] - 0.5 * z[2]) / (2 * 0.1 * 2))
    nothing = Values(np.full(6, np.inf), failed=np.ones(6, bool), ended=np.zeros(6, bool))
    after = solver.tell(state, solver.ask(state), nothing)
    np.testing.assert_array_equal(after.x, state.x)
    assert after.step == state.step + 1
    assert np.isfinite(after.trail).all()


def test_pairs_out_of_step_begin_one_after_the_other():
    solver = dfo.NRES(population=8).plan(dfo.Task(dfo.Free(2), gives=HILLY.gives))
    sizes = [len(solver.ask(s)) for s in unrolls(solver, HILLY, [0.0, 0.0], 6)]
    assert sizes == [4, 6, 8, 8, 8, 8]
    state = last(solver, HILLY, [0.0, 0.0], 20)
    assert len(set(state.episode.tolist())) == 2


# ---------------------------------------------------------------------- the outer loop


def test_estimates_are_clipped_and_differences_filtered():
    for options, bound in (
        ({"max_norm": 0.01}, 0.01),
        ({"filter": "sign"}, None),
        ({"filter": "clip", "limit": 1e-3}, None),
    ):
        solver = dfo.ESSingle(population=4, rule="sgd", lr=1e-9, **options)
        for state in unrolls(solver, HILLY, [0.5, 0.5], 3):
            length = np.linalg.norm(state.g)
            assert length > 0
            z = np.abs(noise(Key(0), state.drawn, state.x)).sum()
            most = bound or {"sign": 1.0, "clip": 1e-3}[options["filter"]] / 0.2 * z
            assert length <= most * (1 + 1e-12)


def test_minimize_is_the_loop_by_hand_and_reports():
    solver, seen = dfo.PES(population=10, lr=0.05), []
    res = dfo.minimize(
        HILLY, [0.3, 0.3], method=solver, seed=4, budget=1000, stop=dfo.MaxSteps(30),
        callback=lambda progress: seen.append(progress.gauges()),
    )  # fmt: skip
    planned = solver.plan(dfo.Task(dfo.Free(2), gives=HILLY.gives))
    state, memory = planned.init(np.array([0.3, 0.3]), Key(4)), HILLY.start(10, Key(4, ("oracle",)))
    for _ in range(30):
        batch = planned.ask(state)
        told, memory = HILLY.evaluate(batch, memory)
        state = planned.tell(state, batch, told)
    assert seen[-1]["updates"] == 30
    assert seen[-1]["episodes"] == 10.0
    assert res.nit == 30
    assert np.isfinite(to_numpy(res.x)).all()
    assert HILLY.full(res.x) < HILLY.full([0.3, 0.3])


@pytest.mark.parametrize("name", ["es-single", "pes", "nres", "full-es", "truncated-es"])
def test_every_name_gets_lower_by_its_defaults(name):
    oracle = Unrolled(
        lambda data: np.zeros((len(data.number), 2)),
        lambda theta, s, t, data: (0.5 * s + theta, ((s - 1.0) ** 2).sum(axis=1)),
        steps=4, horizon=12, vectorized=True,
    )  # fmt: skip
    res = dfo.minimize(oracle, [0.0, -0.5], method=name, budget=5000)
    assert oracle.full(res.x) < 0.8 * oracle.full([0.0, -0.5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"population": 5}, "population: expected an even number"),
        ({"sigma": 0.0}, "sigma"),
        ({"rule": "newton"}, "rule: expected one of"),
        ({"filter": "none?"}, "filter"),
        ({"betas": (1.0, 0.5)}, "betas"),
        ({"share": 0}, "share"),
        ({"stagger": 0}, "stagger"),
    ],
)
def test_options_are_judged(options, words):
    with pytest.raises(dfo.errors.InvalidArgument, match=words):
        dfo.GPES(**options)


def test_ask_and_tell_has_no_lanes_to_offer():
    with pytest.raises(dfo.errors.IncompatibleOracle, match="needs ended"):
        dfo.AskTell("pes", [1.0, 2.0])


def test_the_result_is_judged_by_an_episode():
    oracle = dfo.Unrolled(
        lambda data: np.zeros(2),
        lambda theta, s, t, data: (0.9 * s + theta, float(((s - 1.0) ** 2).sum())),
        steps=4, horizon=12,
    )  # fmt: skip
    res = dfo.minimize(oracle, [1.0, -1.0], method="pes", budget=600)
    assert res.fun == pytest.approx(oracle.full(res.x))
    assert res.cost <= 600
