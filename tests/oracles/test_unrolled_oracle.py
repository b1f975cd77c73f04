"""Unrolled inner problems: lanes, endings, data numbers, losses that add up, and what a user's functions may do."""

import math
from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.batch import Items, Points
from dfo.errors import InvalidArgument, InvalidType
from dfo.oracles.lanes import Draws
from dfo.oracles.unrolled import Unrolled
from dfo.random import Key, normal
from dfo.run.packing import load, save
from dfo.testing import check_oracle

LIMITS = {"seconds": 300.0, "cases": 5}


def reset(data):
    return np.zeros(2), 0, data.normal((2,))


def step(theta, state, t, data):
    """A state that drifts to theta, a count, and a start that is remembered; losses with noise by number."""
    s, count, start = state
    s = 0.7 * s + 0.3 * theta + 0.05 * data.normal((2,))
    return (s, count + 1, start), float(((s - start) ** 2).sum()) + 0.1 * t


def reset_all(data):
    n = len(data.number)
    return np.zeros((n, 2)), np.zeros(n, np.int64), data.normal((2,))


def step_all(theta, state, t, data):
    s, count, start = state
    s = 0.7 * s + 0.3 * theta + 0.05 * data.normal((2,))
    return (s, count + 1, start), ((s - start) ** 2).sum(axis=1) + 0.1 * t


ONE = Unrolled(reset, step, steps=4, horizon=10)
ALL = Unrolled(reset_all, step_all, steps=4, horizon=10, vectorized=True)


def by_hand(theta, length, number, seed=0):
    """The losses of an episode, without any of the oracle's code."""
    draws = Draws(number, -1, Key(seed, ("data",)))
    state, losses = reset(draws), []
    for t in range(length):
        state, loss = step(np.asarray(theta), state, t, draws.at(t))
        losses.append(loss)
    return np.array(losses)


def on_lanes(key, n):
    return Points(normal(key, (n, 2)), lane=np.arange(n), data=np.arange(n) // 2)


def ask(oracle, memory, theta, lane, commit=True, data=None):
    data = None if data is None else np.array(data)
    return oracle.evaluate(Points(np.array(theta, float), lane=np.array(lane), commit=commit, data=data), memory)


# ---------------------------------------------------------------------- the contract


@pytest.mark.parametrize("oracle", [ONE, ALL, replace(ALL, chunk=3), replace(ALL, reduce="min", phase=True)])
def test_keeps_the_laws_of_oracles(oracle):
    check_oracle(oracle, on_lanes, lanes=8, **LIMITS).raise_if_failed()
    check_oracle(oracle, lambda key, n: Points(normal(key, (n, 2)), data=np.arange(n)), **LIMITS).raise_if_failed()


@pytest.mark.parametrize("oracle", [ONE, ALL, replace(ALL, chunk=2)])
def test_three_unrolls_are_an_episode_that_ends_inside_the_third(oracle):
    theta, memory, told = [[0.3, -1.0], [2.0, 0.1], [0.0, 0.0]], oracle.start(3, Key(5)), []
    for _ in range(3):
        answer, memory = ask(oracle, memory, theta, [0, 1, 2], data=[7, 7, 4])
        told.append(answer)
    hand = np.stack([by_hand(point, 10, number) for point, number in zip(theta, [7, 7, 4], strict=True)])
    np.testing.assert_allclose(np.concatenate([t.losses for t in told], axis=1)[:, :10], hand, rtol=1e-13)
    np.testing.assert_array_equal(np.isnan(told[-1].losses).sum(axis=1), 2)
    np.testing.assert_allclose(sum(t.f for t in told), hand.sum(axis=1), rtol=1e-13)
    np.testing.assert_array_equal([t.ended for t in told], [[False] * 3, [False] * 3, [True] * 3])
    np.testing.assert_array_equal(memory.age, 0)
    again, _ = ask(oracle, memory, theta, [0, 1, 2], data=[7, 7, 4])
    np.testing.assert_array_equal(again.f, told[0].f)  # a new episode with the same number is the same episode


def test_lanes_in_any_order_and_apart_and_without_commit():
    theta, memory = normal(Key(1), (6, 2)), ALL.start(6, Key(2))
    _, memory = ask(ALL, memory, theta[:3], [1, 3, 5])  # no two lanes at one age
    _, memory = ask(ALL, memory, theta[:2], [5, 3])
    order = np.array([4, 2, 5, 0, 1, 3])
    whole, after = ask(ALL, memory, theta, np.arange(6))
    other, after_other = ask(ALL, memory, theta[order], order)
    np.testing.assert_array_equal(other.f, whole.f[order])
    for a, b in zip(after.states, after_other.states, strict=True):
        np.testing.assert_array_equal(a, b)
    looked, same = ask(ALL, memory, theta, np.arange(6), commit=False)
    assert same is memory
    np.testing.assert_array_equal(looked.f, whole.f)
    assert after.states[1].dtype == np.int64  # counts stay counts
    np.testing.assert_array_equal(after.states[1], [4, 8, 4, 10, 4, 10])


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_nothing(chunk):
    theta, whole, cut = normal(Key(1), (5, 2)), ALL, replace(ALL, chunk=chunk)
    memories = [whole.start(5, Key(0)), cut.start(5, Key(0))]
    for _ in range(4):
        (a, memories[0]), (b, memories[1]) = (
            ask(o, m, theta, range(5)) for o, m in zip((whole, cut), memories, strict=True)
        )
        np.testing.assert_array_equal(a.f, b.f)
        np.testing.assert_array_equal(a.losses, b.losses)


def test_memory_is_data(tmp_path):
    memory = ALL.start(4, Key(3))
    for lanes in ([0, 1, 2, 3], [2, 3], [3]):
        _, memory = ask(ALL, memory, normal(Key(4), (len(lanes), 2)), lanes)
    save(tmp_path / "memory.npz", memory)
    theta = normal(Key(5), (4, 2))
    a, b = (ask(ALL, m, theta, range(4))[0] for m in (memory, load(tmp_path / "memory.npz")))
    np.testing.assert_array_equal(a.f, b.f)


def test_a_step_may_overwrite_its_arguments():
    def greedy(theta, state, t, data):
        state += theta
        theta[:] = np.nan
        return state, (state**2).sum(axis=1)

    start, theta = np.ones((2, 2)), np.full((2, 2), 0.5)
    oracle = Unrolled(lambda data: start, greedy, steps=2, vectorized=True)
    memory = oracle.start(2, Key(0))
    before, memory = ask(oracle, memory, theta, [0, 1], commit=False)
    told, memory = ask(oracle, memory, theta, [0, 1])
    kept = memory.states.copy()
    ask(oracle, memory, theta, [0, 1])
    np.testing.assert_array_equal(memory.states, kept)
    np.testing.assert_array_equal(start, 1.0)
    np.testing.assert_array_equal(before.f[0], told.f[0])


# ---------------------------------------------------------------------- data numbers


def test_equal_numbers_are_equal_data_and_others_are_not():
    same = Points(np.zeros((4, 2)), data=np.array([3, 8, 3, 9]))
    f = ALL.evaluate(same, ALL.start(0, Key(0)))[0].f
    assert f[0] == f[2]
    assert len(set(f)) == 3
    other_run = ALL.evaluate(same, ALL.start(0, Key(99)))[0].f
    np.testing.assert_array_equal(f, other_run)  # whoever asks, and whenever
    assert (replace(ALL, seed=1).evaluate(same, ())[0].f != f).all()


def test_without_numbers_every_episode_of_every_lane_has_its_own_data():
    oracle, seen = replace(ALL, steps=10), []
    memory = oracle.start(3, Key(0))
    for _ in range(3):
        told, memory = ask(oracle, memory, np.zeros((3, 2)), range(3))
        seen.extend(told.f)
    fresh, after = oracle.evaluate(Points(np.zeros((2, 2))), memory)
    more, _ = oracle.evaluate(Points(np.zeros((2, 2))), after)
    assert len({*seen, *fresh.f, *more.f}) == 13


def test_draws_of_one_lane_are_those_of_many():
    many = Draws(np.array([4, 1, 4]), np.array([2, 2, 5]), Key(1))
    for i in range(3):
        for draw in (
            lambda d: d.normal((3,)), lambda d: d.uniform((2, 2), name="a"), lambda d: d.integers(10, (4,), name="b"),
        ):  # fmt: skip
            np.testing.assert_array_equal(draw(many)[i], draw(many.take(i)))
    z = many.normal((3,))
    assert not (z[0] == z[2]).any()  # another step
    assert not (z == many.normal((3,), name="other")).any()


# ---------------------------------------------------------------------- what losses add up to


@pytest.mark.parametrize("steps", [1, 3, 4, 10])
@pytest.mark.parametrize("reduce", ["sum", "mean", "last", "min"])
def test_the_values_of_an_episode_add_up_to_the_loss(reduce, steps):
    oracle = replace(ALL, steps=steps, reduce=reduce)
    theta, memory, total = normal(Key(2), (3, 2)), oracle.start(3, Key(0)), 0.0
    for _ in range(-(-10 // steps)):
        told, memory = ask(oracle, memory, theta, range(3), data=[5, 6, 7])
        total = total + told.f
    hand = np.stack([by_hand(x, 10, n) for x, n in zip(theta, [5, 6, 7], strict=True)])
    wanted = {"sum": hand.sum(axis=1), "mean": hand.mean(axis=1), "last": hand[:, -1], "min": hand.min(axis=1)}[reduce]
    np.testing.assert_allclose(total, wanted, rtol=1e-12)
    np.testing.assert_allclose([oracle.full(x, n) for x, n in zip(theta, [5, 6, 7], strict=True)], wanted, rtol=1e-12)


def test_a_final_loss_telescopes_on_the_same_data():
    def final(state, data):
        return ((state[0] - data.normal((2,), name="test")) ** 2).sum(axis=1)

    oracle = replace(ALL, reduce="last", final=final)
    memory, parts = oracle.start(1, Key(0)), []
    for _ in range(3):
        told, memory = ask(oracle, memory, [[1.0, 2.0]], [0], data=[3])
        parts.append(told.f[0])
    state, draws = reset(Draws(3, -1, Key(0, ("data",)))), Draws(3, -1, Key(0, ("data",)))
    for t in range(10):
        state, _ = step(np.array([1.0, 2.0]), state, t, draws.at(t))
    wanted = ((state[0] - draws.normal((2,), name="test")) ** 2).sum()
    assert sum(parts) == pytest.approx(wanted, rel=1e-12)
    assert oracle.full([1.0, 2.0], 3) == pytest.approx(wanted, rel=1e-12)


def test_full_takes_points_of_many_kinds():
    X = normal(Key(3), (4, 2))
    np.testing.assert_allclose(ALL.full(X, [1, 2]), [(by_hand(x, 10, 1) + by_hand(x, 10, 2)).sum() / 2 for x in X])
    assert isinstance(ALL.full([0.0, 1.0]), float)
    assert ONE.full([0.0, 1.0], steps=7) == pytest.approx(by_hand([0.0, 1.0], 7, 0).sum())
    endless = replace(ONE, horizon=math.inf)
    with pytest.raises(InvalidArgument, match="say how many steps"):
        endless.full([0.0, 0.0])
    with pytest.raises(InvalidArgument, match="needs a finite one"):
        endless.whole()


def test_a_whole_episode_is_a_function_for_every_method():
    oracle = Unrolled(lambda data: 1.0, lambda x, w, t, data: ((1 - x[0]) * w, w * w), steps=5, horizon=10)
    res = dfo.minimize(oracle.whole(), [0.1], method="cma", budget=400)
    assert res.nfev == 200  # two unrolls each
    assert abs(res.x[0] - 1.0) < 0.01


# ---------------------------------------------------------------------- endings, phases, failures


def leaking(theta, s, t, data):
    """A vessel that is empty sooner or later."""
    s = s - theta[:, 0]
    return s, s, s <= 0


def test_an_inner_problem_ends_itself():
    oracle = Unrolled(lambda data: np.full(len(data.number), 5.0), leaking, steps=4, vectorized=True)
    memory = oracle.start(3, Key(0))
    told, memory = ask(oracle, memory, [[1.0], [2.0], [5.0]], range(3))
    np.testing.assert_array_equal(told.ended, [False, True, True])
    np.testing.assert_array_equal(told.f, [4 + 3 + 2 + 1, 3 + 1 - 1, 0])
    np.testing.assert_array_equal(np.isnan(told.losses).sum(axis=1), [0, 1, 3])
    np.testing.assert_array_equal(memory.age, [4, 0, 0])
    np.testing.assert_array_equal(memory.episode, [0, 1, 1])


def test_phases_shorten_the_first_episode_of_both_members_of_a_pair():
    oracle = replace(ALL, steps=1, horizon=30, phase=True)
    memory, lengths = oracle.start(40, Key(0)), np.zeros((2, 40), int)
    for _ in range(70):
        episode = memory.episode
        _, memory = ask(oracle, memory, np.zeros((40, 2)), range(40), data=np.arange(40) // 2 + 100 * episode)
        running = episode < 2
        lengths[episode[running], np.flatnonzero(running)] += 1
    np.testing.assert_array_equal(lengths[0][0::2], lengths[0][1::2])
    assert len(set(lengths[0])) > 8
    assert lengths[0].min() >= 1
    assert lengths[0].max() <= 30
    np.testing.assert_array_equal(lengths[1], 30)


def exploding(theta, s, t, data):
    with np.errstate(over="ignore", invalid="ignore"):
        s = s * theta[:, 0]
        return s, s * s - s


def test_losses_that_explode_count_as_the_worst():
    oracle = Unrolled(lambda data: np.ones(len(data.number)), exploding, steps=4, horizon=8, vectorized=True)
    theta = [[1e300], [0.5]]
    told, memory = ask(oracle, oracle.start(2, Key(0)), theta, [0, 1])
    np.testing.assert_array_equal(told.failed, [True, False])
    np.testing.assert_array_equal(np.isfinite(told.f), [False, True])
    again, memory = ask(oracle, memory, [[0.5], [0.5]], [0, 1])  # its state is gone until the episode ends
    np.testing.assert_array_equal(again.failed, [True, False])
    fresh, _ = ask(oracle, memory, [[0.5], [0.5]], [0, 1])
    assert fresh.failed is None
    clamped, _ = ask(replace(oracle, worst=3.0), oracle.start(2, Key(0)), theta, [0, 1])
    assert clamped.failed is None
    assert clamped.f[0] == 12.0


def test_a_step_that_raises_carries_the_result():
    def picky(theta, s, t, data):
        if theta[0] > 0.9:
            raise ArithmeticError("too far")
        return s + theta[0], (s - theta[0]) ** 2

    oracle = Unrolled(lambda data: 0.0, picky, steps=2, horizon=4)
    with pytest.raises(ArithmeticError) as error:
        dfo.minimize(oracle, [0.5], method=dfo.PES(sigma=0.3, lr=0.3), budget=10_000)
    assert error.value.result.status == "error"


# ---------------------------------------------------------------------- kinds of points and states


def test_named_parameters_reach_the_step_by_name():
    def one(p, w, t, data):
        return w * (1 - p["lr"]) if p["kind"] == "a" else w, w * w

    def many(p, w, t, data):
        return np.where(p["kind"] == "a", w * (1 - p["lr"]), w), w * w

    items = [{"lr": 0.5, "kind": "a"}, {"lr": 0.1, "kind": "b"}, {"lr": 0.1, "kind": "a"}]
    batch = Items(items, lane=np.arange(3))
    a = Unrolled(lambda data: 1.0, one, steps=3, horizon=5)
    b = Unrolled(lambda data: np.ones(len(data.number)), many, steps=3, horizon=5, vectorized=True)
    told = [o.evaluate(batch, o.start(3, Key(0)))[0] for o in (a, b)]
    np.testing.assert_allclose(told[0].f, told[1].f)
    assert a.full(items[0]) == pytest.approx(b.full(items[0]))
    space = dfo.Named({"lr": dfo.Float(1e-3, 1.0, log=True), "kind": dfo.Choice(["a", "b"])})
    res = dfo.minimize(b, space, method=dfo.ESSingle(sigma=0.2, lr=0.05), budget=3000)
    assert b.full(res.x) < b.full(space.start)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_states_on_torch_points(dtype):
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)

    def torch_step(theta, state, t, data):
        s = 0.7 * state["s"] + 0.3 * theta + 0.05 * data.normal((2,), like=theta)
        return {"s": s, "n": state["n"] + 1}, (s**2).sum(dim=1)

    oracle = Unrolled(
        lambda data: {"s": torch.zeros(len(data.number), 2, dtype=kind), "n": torch.zeros(len(data.number))},
        torch_step, steps=4, horizon=10, vectorized=True,
    )  # fmt: skip
    res = dfo.minimize(oracle, torch.ones(2, dtype=kind), method=dfo.PES(lr=0.1), budget=1600)
    assert res.x.dtype == kind
    assert oracle.full(res.x) < 0.5 * oracle.full(torch.ones(2, dtype=kind))


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"steps": 0}, InvalidArgument, "steps: expected a whole number"),
        ({"steps": 2.5}, InvalidArgument, "steps"),
        ({"steps": math.inf}, InvalidArgument, "steps"),
        ({"horizon": 0}, InvalidArgument, "horizon"),
        ({"chunk": 0}, InvalidArgument, "chunk"),
        ({"reduce": "max"}, InvalidArgument, "reduce: expected one of sum, mean, last, min"),
        ({"horizon": math.inf, "reduce": "mean"}, InvalidArgument, "finite"),
        ({"horizon": math.inf, "phase": True}, InvalidArgument, "finite"),
        ({"reset": 3}, InvalidType, "reset: expected a function"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, kind, words):
    with pytest.raises(kind, match=words):
        replace(ONE, **changed)


def test_a_plain_solver_is_offered_those_that_would_do():
    with pytest.raises(dfo.errors.IncompatibleOracle, match="es-single"):
        dfo.minimize(ONE, [0.0, 0.0], method="cma")
    assert "lanes" in dfo.minimize(ONE, [0.0, 0.0], budget=200).reason
    assert "lanes" not in dfo.minimize(ONE.whole(), [0.0, 0.0], budget=30).reason
