"""ZO-RankSGD: its weights are the edges of a ranking, its runs are those of the paper, and only the order counts."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

import dfo
from dfo.bench.measures.zo_rank_sgd import PAPER, _graph, drive, quadratic, rosenbrock
from dfo.components.ranking import edge_weights
from dfo.errors import InvalidArgument
from dfo.feedback import Ranking, Values, average_ranks
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.solvers.zo_rank_sgd import ZORankSGD, signal
from dfo.spaces import Free


def by_counting(merit):
    """Return weights and edges of a ranking, edge by edge."""
    w, edges = np.zeros(len(merit)), 0
    for i, j in permutations(range(len(merit)), 2):
        if merit[i] < merit[j]:
            w[i], w[j], edges = w[i] + 1, w[j] - 1, edges + 1
    return w, edges


# ---------------------------------------------------------------------- weights


@pytest.mark.parametrize("m", range(2, 9))
def test_weights_of_a_partial_ranking_are_those_of_the_paper_and_sum_to_zero(m):
    for k in range(1, m + 1):
        w, edges = edge_weights(np.minimum(np.arange(float(m)), k))
        assert w.tolist() == [m - 1 - 2 * r if r < k else -k for r in range(m)]
        assert edges == k * m - (k * k + k) // 2
        assert w.sum() == 0
        if k >= m - 1:
            assert np.abs(w).sum() == m * m // 2


def test_edges_and_their_neighbours_are_as_many_as_the_paper_says():
    assert [row.measured for row in _graph()] == [0, 0, 0]


def test_weights_are_the_edges_with_ties_and_members_not_shown():
    for seed in range(50):
        rng = np.random.Generator(np.random.Philox(key=seed))
        merit = rng.integers(0, 4, 7).astype(float)
        merit[rng.uniform(size=7) < 0.2] = np.nan
        w, edges = edge_weights(merit)
        assert w.tolist() == by_counting(merit)[0].tolist()
        assert edges == by_counting(merit)[1]
        assert w.sum() == 0


def test_tied_members_get_the_mean_weight_of_the_orders_that_break_the_tie():
    tied, _ = edge_weights(np.array([0.0, 1.0, 1.0, 1.0, 2.0]))
    broken = [edge_weights(np.array([0.0, *order, 4.0]))[0] for order in permutations([1.0, 2.0, 3.0])]
    np.testing.assert_allclose(tied, np.mean(broken, axis=0))


def test_weights_follow_their_members():
    merit = np.array([3.0, 0.5, np.nan, 2.0, 0.5, 9.0])
    order = np.array([4, 2, 0, 5, 1, 3])
    np.testing.assert_array_equal(edge_weights(merit)[0][order], edge_weights(merit[order])[0])


def test_the_signal_that_sets_the_lengths_is_that_of_the_table():
    for m, k, s, n in ((2, 1, 1.129, 2.0), (15, 1, 1.860, 1.071), (15, 5, 1.389, 0.2194), (15, 15, 1.1284, 0.1016)):
        assert signal(m, k)[0] == pytest.approx(s, rel=0.05)  # Blom's scores
        assert signal(m, k)[1] == pytest.approx(n, rel=1e-3)


# ---------------------------------------------------------------------- one question


@pytest.fixture
def asked():
    """A planned solver, its first state and its first question: eight points in four variables."""
    solver = ZORankSGD().plan(Task(Free(4), 1000, gives=frozenset({"ranking"}), max_batch=8))
    state = solver.init(np.linspace(1.0, 2.0, 4), Key(3))
    return solver, state, solver.ask(state)


def test_a_full_ranking_gives_the_mean_over_all_pairs(asked):
    solver, state, batch = asked
    X = batch.dense()
    f = quadratic(X)
    xi = (X - state.x) / batch.scale[0]
    pairs = [xi[i] - xi[j] for i, j in permutations(range(8), 2) if f[i] < f[j]]
    after = solver.tell(state, batch, Values(f).ranking())
    np.testing.assert_allclose(after.p, np.mean(pairs, axis=0), rtol=1e-9)
    assert after.stage == "search"


def test_a_skipped_question_and_one_without_an_order_teach_nothing(asked):
    solver, state, batch = asked
    skipped = solver.tell(state, batch, Ranking(np.full(8, np.nan), skipped=True))
    alike = solver.tell(state, batch, Ranking(np.full(8, 3.5)))
    assert (skipped.stage, skipped.lr, skipped.step) == ("query", state.lr, 1)
    assert (alike.stage, alike.lr) == ("query", 2 * state.lr)  # look further away
    for after in (skipped, alike):
        assert not np.array_equal(solver.ask(after).dense(), batch.dense())
        np.testing.assert_array_equal(after.x, state.x)


def test_members_not_shown_do_not_count(asked):
    solver, state, batch = asked
    rank = average_ranks(quadratic(batch.dense()))
    rank[[1, 5]] = np.nan
    after = solver.tell(state, batch, Ranking(rank))
    other = normal(Key(9), (8,))
    other[~np.isnan(rank)] = rank[~np.isnan(rank)]
    assert edge_weights(rank)[0][[1, 5]].tolist() == [0, 0]
    assert not np.allclose(after.p, solver.tell(state, batch, Ranking(other)).p)


def test_staying_unless_a_step_is_named_better(asked):
    solver, state, batch = asked
    state = solver.tell(state, batch, Values(quadratic(batch.dense())).ranking())
    steps = solver.ask(state)
    assert steps.top == 1
    np.testing.assert_array_equal(steps.X[0], state.x)
    for rank in ([0, 3, 3, 3, 3, 3], [2.5] * 6, [np.nan, 0, 1, 2, 3, 4]):
        np.testing.assert_array_equal(solver.tell(state, steps, Ranking(np.array(rank, dtype=float))).x, state.x)
    won = solver.tell(state, steps, Ranking(np.array([3.0, 3, 0, 3, 3, 3])))
    np.testing.assert_array_equal(won.x, steps.X[2])
    assert won.count == 0


def test_directions_are_averaged_until_a_step_wins(asked):
    solver, state, _ = asked
    parts = []
    for count in (1, 2, 3):
        state = solver.tell(state, solver.ask(state), Ranking(np.arange(8.0)))
        parts.append(solver._drawn(replace(state, age=count - 1)).combine(
            edge_weights(np.arange(8.0))[0] / 28
        ))  # fmt: skip
        assert state.count == count
        np.testing.assert_allclose(state.p, np.mean(parts, axis=0), rtol=1e-9)
        state = solver.tell(state, solver.ask(state), Ranking(np.array([0.0, 3, 3, 3, 3, 3])))  # staying wins
        assert state.stage == "query"


# ---------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("transform", [np.exp, lambda f: f**3, lambda f: 2.0**-70 * f], ids=["exp", "cube", "tiny"])
@pytest.mark.parametrize("options", [{}, {"search": 0, "lr": 0.1, "top": 3}], ids=["fitted", "fixed"])
def test_only_the_order_counts_to_the_last_bit(transform, options):
    def path(g):
        seen = []
        fun = lambda X: g(np.minimum(quadratic(X), 500.0))  # noqa: E731
        oracle = dfo.RankOracle.of(fun, vectorized=True)
        dfo.minimize(
            oracle, np.ones(5), method=ZORankSGD(**options), budget=500, seed=2,
            callback=lambda p: seen.append(p.recommended()),
        )  # fmt: skip
        return np.array(seen)

    plain = path(lambda f: f)
    assert quadratic(plain[-1:])[0] < 0.5
    np.testing.assert_array_equal(path(transform), plain)


def test_sizes_follow_the_task():
    def sizes(options=(), **task):
        solver = ZORankSGD(**dict(options)).plan(Task(Free(3), **task))
        return solver.population, solver.search

    assert sizes() == (15, 5)
    assert sizes(batch=4) == (4, 3)
    assert sizes(batch=1) == (2, 1)
    assert sizes(batch=64, max_batch=8) == (8, 5)
    assert sizes({"search": 0}, max_batch=8) == (8, 0)


@pytest.mark.parametrize("f", [quadratic, rosenbrock])
@pytest.mark.parametrize("options", [{}, PAPER, {"top": 2, "radius": 0.1}], ids=["fitted", "paper", "radius"])
def test_a_search_never_accepts_a_worse_point(f, options):
    values = drive(ZORankSGD(**options).plan(Task(Free(6))), f, normal(Key(1), (6,)), 0, range(1, 60))[0]
    assert (np.diff(values) <= 0).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize(("most", "options"), [(2, {}), (3, {}), (8, {}), (4, {"population": 9, "search": 9})])
def test_no_question_is_larger_than_the_oracle_ranks_and_both_units_are_counted(most, options):
    shown = []

    def judge(points):
        shown.append(len(points))
        return None if len(shown) % 5 == 0 else sorted(range(len(points)), key=lambda i: float(points[i] @ points[i]))

    oracle = dfo.RankOracle(judge, max_batch=most)
    res = dfo.minimize(oracle, np.ones(3), method="zo-rank-sgd", options=options, budget=600)
    assert max(shown) <= most
    assert (res.nit, res.nfev) == (len(shown), sum(shown))  # rankings, and items, which the budget counts
    assert res.cost == res.nfev <= 600
    assert res.x @ res.x < 0.3


def test_it_moves_in_boxes_sets_and_named_spaces():
    judge = dfo.RankOracle.of(lambda x: float(((x - [2.0, 0.3]) ** 2).sum()))
    res = dfo.minimize(judge, bounds=[(-1, 1)] * 2, method="zo-rank-sgd", budget=800)
    np.testing.assert_allclose(res.x, [1.0, 0.3], atol=0.02)
    mix = dfo.RankOracle.of(lambda x: float(((x - [0.7, 0.3, -0.2]) ** 2).sum()))
    res = dfo.minimize(mix, bounds=dfo.Simplex(3), method="zo-rank-sgd", budget=800)
    np.testing.assert_allclose(res.x, [0.7, 0.3, 0.0], atol=0.02)
    taste = dfo.RankOracle.of(lambda p: abs(np.log10(p["dose"]) + 2) + (p["kind"] != "b"))
    space = {"dose": dfo.Float(1e-4, 1, log=True), "kind": dfo.Choice(["a", "b", "c"])}
    assert -2.2 < np.log10(dfo.minimize(taste, space, method="zo-rank-sgd", budget=800).x["dose"]) < -1.8


def test_the_runs_of_the_paper_in_short():
    """m = k = 15 with line search is below 1e-2 after 200 steps on every seed, and k = 1 behind k = 15 after 100.

    The quartiles over ten seeds are 0.9e-3..1.1e-3, and 0.03 against 8..11: no seed in a thousand comes near.
    """
    for seed in range(3):
        x0 = normal(Key(seed, ("start",)), (100,))
        full = drive(ZORankSGD(top=15, **PAPER), quadratic, x0, seed, (100, 200))[0]
        best = drive(ZORankSGD(top=1, **PAPER), quadratic, x0, seed, (100,))[0]
        assert full[1] < 1e-2
        assert best[0] > 10 * full[0]


def test_it_learns_from_a_person():
    """Medians over eleven seeds are f/f0 = 0.06; a run above 0.5 was not seen in a hundred."""
    for seed in range(2):
        problem = dfo.bench.make("ranking-human-quadratic-i01-d10")
        res = dfo.minimize(problem.fun, problem.x0, method="zo-rank-sgd", budget=2400, seed=seed)
        assert problem.measure(res.x) < 0.5 * problem.measure(problem.x0)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [{"population": 1}, {"top": 0}, {"lr": 0.0}, {"radius": -1.0}, {"search": -1}, {"shrink": 1.5}, {"decay": -1.0},
     {"reach": 0.0}, {"directions": "gausian"}],
    ids=lambda o: next(iter(o)),
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        ZORankSGD(**options)


def test_lengths_decay_on_request():
    solver = ZORankSGD(lr=1.0, search=0, decay=0.5, radius_decay=1.0)
    state = solver.init(np.zeros(3), Key(0))
    for _ in range(3):
        state = solver.tell(state, solver.ask(state), Ranking(np.arange(15.0)))
    assert solver.gauges(state)["radius"] == pytest.approx(0.01 / 4)
    before = state.x
    state = solver.tell(state, solver.ask(state), Ranking(np.arange(15.0)))
    p = solver._drawn(replace(state, age=3)).combine(edge_weights(np.arange(15.0))[0] / 105)
    np.testing.assert_allclose(state.x - before, p / np.sqrt(4))
