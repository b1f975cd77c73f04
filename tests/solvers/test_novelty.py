"""Novelty search: distances, archives, the oracle of behaviours, and the maze in which rewards mislead."""

import numpy as np
import pytest

import dfo
from dfo.batch import Points
from dfo.bench.measures import genetic as measured
from dfo.components.novelty import known_rows, novelty
from dfo.errors import BadObjective, IncompatibleOracle, InvalidArgument
from dfo.feedback import Values
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.solvers.genetic import NoveltySearch
from dfo.spaces import Free
from dfo.testing import check_oracle


def told(X, f=None):
    return Values(np.zeros(len(X)) if f is None else f, behaviour=X[:, :2])


def test_novelty_is_the_mean_distance_to_the_nearest():
    B, others = normal(Key(0), (40, 3)), normal(Key(1), (60, 3))
    distance = np.sort(np.linalg.norm(B[:, None] - others, axis=2), axis=1)
    np.testing.assert_allclose(novelty(B, others, 10), distance[:, :10].mean(axis=1))
    np.testing.assert_allclose(novelty(B, others, 100), distance.mean(axis=1))
    own = np.sort(np.linalg.norm(B[:, None] - B, axis=2), axis=1)
    np.testing.assert_allclose(novelty(B, B, 5, itself=True), own[:, 1:6].mean(axis=1))
    assert novelty(B, B[:0]).tolist() == [0.0] * 40
    assert novelty(B[:1], B[:1], itself=True).tolist() == [0.0]


def test_behaviours_are_known_where_they_are_numbers():
    assert known_rows(np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 0.0]]), 3).tolist() == [True, False, False]
    assert known_rows(None, 2).tolist() == [False, False]
    assert known_rows(np.zeros((2, 0)), 2).tolist() == [False, False]


def test_the_most_novel_children_breed_and_few_enter_the_archive():
    solver = NoveltySearch(population=200, parents=5, keep=0.05).plan(Task(Free(3)))
    state, entered = solver.init(np.zeros(3), Key(0)), []
    for _ in range(20):
        batch = solver.ask(state)
        X = batch.dense()
        everything = np.concatenate([X[:, :2], state.archive]) if len(state.archive) else X[:, :2]
        new = novelty(X[:, :2], everything, 10, itself=True)
        after = solver.tell(state, batch, told(X))
        np.testing.assert_array_equal(np.stack(after.centers), X[np.argsort(-new, kind="stable")[:5]])
        entered.append(len(after.archive) - len(state.archive))
        state = after
    assert 120 < sum(entered) < 280  # binomial(4000, 0.05): 200 +- 14
    assert len(state.archive) == sum(entered)


def es_run(variant, steps, f, **options):
    solver = NoveltySearch(variant, population=20, **options).plan(Task(Free(3)))
    state = solver.init(np.zeros(3), Key(1))
    for _ in range(steps):
        batch = solver.ask(state)
        X = batch.dense()
        after = solver.tell(state, batch, told(X, f(X)))
        yield state, batch, after
        state = after


def test_strategies_archive_the_means_and_move_one_at_a_time():
    visited = 0
    for state, batch, after in es_run("ns", 40, lambda X: X[:, 0], means=4):
        moved = [not np.array_equal(a, b) for a, b in zip(state.centers, after.centers, strict=True)]
        if state.stage == "visit":
            assert len(batch) == (4 if state.generation == 0 else 1)
            visited += len(batch)
            assert len(after.archive) == visited
            assert not any(moved)
            np.testing.assert_array_equal(after.archive[-1], after.centers[state.at if state.generation else -1][:2])
        else:
            X = batch.dense()
            np.testing.assert_allclose(X[0::2] + X[1::2], 2 * np.tile(state.centers[state.at], (10, 1)), atol=1e-12)
            assert moved == [i == state.at for i in range(4)]


def test_means_run_away_from_the_archive_or_down_the_slope():
    def far(variant):
        last = list(es_run(variant, 120, lambda X: (X**2).sum(axis=1), means=2, change=0.0))[-1][2]
        return float(np.mean([np.linalg.norm(center[:2]) for center in last.centers]))

    assert far("ns") > 1.0
    assert far("nsra") < 0.5  # its weight stays 1: the value alone


def test_the_weight_of_the_value_falls_when_nothing_improves_and_rises_when_it_does():
    stuck = [after.weight for *_, after in es_run("nsra", 60, lambda X: np.ones(len(X)), patience=3)]
    assert stuck[-1] < 0.7
    assert np.diff(stuck).max() <= 0
    count = iter(range(1000))
    rising = [after.weight for *_, after in es_run("nsra", 60, lambda X: -np.full(len(X), next(count)), patience=3)]
    assert rising[-1] == 1.0


def test_means_are_picked_in_proportion_to_their_novelty():
    solver = NoveltySearch("ns", means=3).plan(Task(Free(2)))
    state = solver.init(np.zeros(2), Key(0))
    seen = np.array([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
    archive = np.array([[0.0, 0.0], [0.0, 0.0]])
    counts = np.zeros(3)
    for step in range(3000):
        counts[solver._pick(_with(state, seen=seen, archive=archive, known=np.ones(3), step=step))] += 1
    np.testing.assert_allclose(counts / 3000, [0.0, 0.2, 0.8], atol=0.03)  # four standard deviations


def _with(state, **changes):
    from dataclasses import replace

    return replace(state, **changes)


def test_novelty_finds_the_goal_that_rewards_miss():
    # 20 of 20 and 0 of 20 when measured; at shares of 0.9 and 0.1 a false alarm comes once in 27
    novel = measured.maze_shares("novelty", 3, 10_000, sigma=0.3, spread=1.0)
    reward = measured.maze_shares("deep-ga", 2, 4_000, sigma=0.3, spread=1.0)
    assert sum(novel) >= 2
    assert sum(reward) <= 1


# ---------------------------------------------------------------------- the oracle


def test_the_oracle_tells_values_and_behaviours():
    def one(x):
        return float(x @ x), x[:2]

    def many(X):
        return (X**2).sum(axis=1), X[:, :2]

    X = normal(Key(0), (5, 3))
    for oracle in (dfo.Behaviour(one), dfo.Behaviour(many, vectorized=True)):
        assert {"values", "ranking", "behaviour"} <= oracle.gives
        values, _ = oracle.evaluate(Points(X), ())
        np.testing.assert_allclose(values.f, (X**2).sum(axis=1))
        np.testing.assert_array_equal(values.behaviour, X[:, :2])
        assert not check_oracle(oracle, lambda key, n: Points(normal(key, (n, 3))), tolerance=1e-12, cases=8).failed


def test_failures_have_no_behaviour():
    def fun(x):
        if x[0] > 1:
            raise ValueError("too far")
        return (np.nan if x[0] > 0 else 1.0), x

    values, _ = dfo.Behaviour(fun, on_error="record").evaluate(Points(np.array([[-1.0], [0.5], [2.0]])), ())
    assert values.failed.tolist() == [False, True, True]
    np.testing.assert_array_equal(values.behaviour, [[-1.0], [np.nan], [np.nan]])
    oracle = dfo.Behaviour(lambda X: 1 / 0, vectorized=True, on_error="record")
    assert oracle.evaluate(Points(np.zeros((2, 1))), ())[0].failed.all()


def test_parts_of_which_all_failed_are_joined():
    failed = Values(np.full(2, np.inf), failed=np.ones(2, bool), behaviour=np.zeros((2, 0)))
    known = Values(np.ones(1), behaviour=np.array([[3.0, 4.0]]))
    for joined in (failed.joined(known), Values(failed.f, failed=failed.failed).joined(known)):
        np.testing.assert_array_equal(joined.behaviour, [[np.nan, np.nan], [np.nan, np.nan], [3.0, 4.0]])
    assert known.joined(failed).behaviour.shape == (3, 2)
    assert failed.joined(failed).behaviour.shape == (4, 0)


def test_answers_that_are_no_pairs_are_refused():
    with pytest.raises(BadObjective, match="pair"):
        dfo.minimize(dfo.Behaviour(lambda x: 1.0), [0.0], method="novelty", budget=5)
    with pytest.raises(BadObjective, match="one length"):
        dfo.minimize(dfo.Behaviour(lambda x: (1.0, np.zeros(1 + (x[0] > 0)))), [0.0], method="novelty", budget=50)
    fun = dfo.Behaviour(lambda X: (np.ones(len(X)), np.ones((1, 2))), vectorized=True)
    with pytest.raises(BadObjective, match="rows"):
        dfo.minimize(fun, [0.0], method="novelty", budget=50)
    with pytest.raises(IncompatibleOracle, match="behaviour"):
        dfo.minimize(lambda x: 1.0, [0.0], method="novelty", budget=5)
    with pytest.raises(InvalidArgument, match="variant"):
        NoveltySearch("nsx")
    with pytest.raises(InvalidArgument, match="keep"):
        NoveltySearch(keep=2.0)


def test_behaviours_serve_solvers_that_do_not_ask_for_them():
    res = dfo.minimize(dfo.Behaviour(lambda x: (float(x @ x), x)), [1.0, 1.0], method="cma", budget=300, seed=0)
    assert res.fun < 1e-6
