"""The budget is hard, counted in evaluations, and a run that is granted more goes on as if it had never stopped."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest

import dfo
from dfo import errors
from dfo.batch import Items
from dfo.feedback import Values
from dfo.random import Key
from dfo.run.loop import Loop, lanes_of
from dfo.run.session import Session
from dfo.run.setup import resolve
from dfo.solvers import SOLVERS
from dfo.testing import takes_functions

VECTORS = [name for name in SOLVERS if takes_functions(name)]
PLANNED = ("zo-acsa",)
"""Solvers that plan their steps for the budget, and have finished when they are done."""
ENDLESS = [name for name in VECTORS if name not in PLANNED]
X0 = [1.0, 2.0, -1.0]


class Counted:
    def __init__(self, f=lambda x: float(((x - 0.3) ** 2).sum())):
        self.f, self.points = f, []

    def __call__(self, x):
        self.points.append(np.array(x))
        return self.f(x)


def wild(x):
    return float(np.sin(1e3 * x).sum())


# ---------------------------------------------------------------------- never more


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 17, 100])
@pytest.mark.parametrize("method", ENDLESS)
def test_never_exceeded_and_all_used(method, budget):
    f = Counted(wild)
    res = dfo.minimize(f, X0, method=method, budget=budget)
    assert len(f.points) == res.nfev == len(res.history) == budget
    assert res.status == "budget"
    assert res.success is False
    if budget:
        assert res.fun == min(map(wild, f.points)) == wild(res.x)
    else:
        assert math.isnan(res.fun)
        np.testing.assert_array_equal(res.x, X0)


@pytest.mark.parametrize("method", VECTORS)
def test_all_used_with_failures(method):
    f = Counted()
    f.f = lambda x: math.nan if len(f.points) % 4 == 2 else wild(x)
    with pytest.warns(errors.EvaluationWarning):
        res = dfo.minimize(f, X0, method=method, budget=60)
    assert len(f.points) == res.nfev == 60
    assert res.nfail == 15


@pytest.mark.parametrize("method", [m for m in ENDLESS if m != "cbs"])  # a sampler, which does not start anew
def test_converged_solvers_use_it_all(method):
    f = Counted()
    res = dfo.minimize(f, X0, method=method, budget=3000)
    assert len(f.points) == res.nfev == 3000
    assert res.fun < 1e-3 or method == "random"


def test_without_one_a_run_ends_at_its_first_convergence_or_the_default():
    res = dfo.minimize(Counted(), X0, method="cma")
    assert res.status == "finished"
    assert res.nfev < 3000
    f = Counted(wild)
    res = dfo.minimize(f, X0, method="random")
    assert len(f.points) == res.nfev == 3000
    assert res.status == "budget"


@pytest.mark.parametrize("word", ["maxfev", "maxfun"])
def test_scipy_s_words(word):
    f = Counted(wild)
    assert dfo.minimize(f, X0, method="cma", options={word: 23}).nfev == len(f.points) == 23


def test_stop_is_a_budget_too():
    for stop in (
        dfo.MaxEvals(23),
        dfo.MaxEvals(23) | dfo.Target(-9),
        dfo.Target(-9) | dfo.MaxEvals(23) | dfo.MaxEvals(40),
    ):
        f = Counted(wild)
        res = dfo.minimize(f, X0, method="cma", stop=stop)
        assert (res.nfev, len(f.points), res.status) == (23, 23, "budget")
    f = Counted(wild)
    assert dfo.minimize(f, X0, method="cma", budget=9, stop=dfo.MaxEvals(23)).nfev == 9
    assert dfo.minimize(f, X0, method="cma", budget=90, stop=dfo.MaxEvals(23)).nfev == 23


@pytest.mark.parametrize(
    ("budget", "error"),
    [(-1, ValueError), (2.5, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("10", TypeError),
     (True, TypeError), ([10], TypeError), (Decimal(10), TypeError), (10j, TypeError)],
)  # fmt: skip
def test_budgets_that_are_none(budget, error):
    f = Counted()
    with pytest.raises(error, match="budget: expected"):
        dfo.minimize(f, X0, budget=budget)
    assert not f.points


@pytest.mark.parametrize("budget", [7, 7.0, np.int64(7), np.float32(7)])
def test_budgets_of_every_number_type(budget):
    assert dfo.minimize(Counted(wild), X0, method="cma", budget=budget).nfev == 7


# ---------------------------------------------------------------------- the last batch


def test_prefix_of_the_last_batch():
    """Of a batch that does not fit, a prefix is evaluated: it counts for the best, and the solver is not told."""
    record = dfo.Record()
    f = Counted()
    res = dfo.minimize(f, X0, method=dfo.CMA(population=10), budget=25, callback=record)
    assert len(f.points) == res.nfev == 25
    assert res.nit == 2
    assert record.X.shape == (20, 3)
    np.testing.assert_array_equal(record.X, f.points[:20])
    assert res.fun == min(map(f.f, f.points))
    whole = Counted()
    dfo.minimize(whole, X0, method=dfo.CMA(population=10), budget=30)
    np.testing.assert_array_equal(whole.points[:25], f.points)


def test_prefix_of_the_first_batch_may_be_the_best():
    f = Counted()
    res = dfo.minimize(f, X0, method=dfo.CMA(population=10), budget=4)
    assert res.nit == 0
    assert res.fun == min(map(f.f, f.points))


def loop_of(method, f, budget, **kwargs):
    """A run of the front door that may be granted more."""
    arguments = {
        "noise": None, "batch": None, "workers": None, "timeout": None, "stop": None, "vectorized": False,
        "on_error": "raise", **kwargs,
    }  # fmt: skip
    setup = resolve(f, X0, (), method, None, (), None, None, None, budget=budget, seed=4, **arguments)
    session = Session(setup.oracle, setup.encoding, budget, setup.stop, setup.hooks, lanes=lanes_of(setup.solver))
    return session, Loop(setup.solver, session, setup.encoding.start, setup.key.child("solver"))


@pytest.mark.parametrize("method", ENDLESS)
def test_a_larger_budget_completes_the_batch(method):
    """Stopped anywhere and granted the rest, a run is the run that was never stopped."""
    whole = Counted()
    session, loop = loop_of(method, whole, 90)
    loop.go()
    assert session.nfev == 90
    for stops in ([13, 90], [0, 1, 2, 3, 4, 5, 50, 51, 90], [89, 90]):
        parts = Counted()
        session, loop = loop_of(method, parts, 90)
        for budget in stops:
            session.budget = budget
            loop.go()
            assert session.nfev == len(parts.points) == budget
            assert session.status == "budget"
        np.testing.assert_array_equal(parts.points, whole.points)
        assert session.best_fun == min(map(whole.f, whole.points))
        np.testing.assert_array_equal(session.history.fun, [whole.f(x) for x in whole.points])


@pytest.mark.parametrize("method", VECTORS)
def test_the_same_with_targets_on_the_way(method):
    whole = Counted()
    _, loop = loop_of(method, whole, 90)
    loop.go()
    values = np.minimum.accumulate([whole.f(x) for x in whole.points])
    targets = sorted(set(values[1:]), reverse=True)[:3]
    parts = Counted()
    session, loop = loop_of(method, parts, 90, stop=dfo.Target(targets[0]) if targets else None)
    for target in targets:
        session.stop = dfo.Target(target)
        session._target = target
        loop.session.oracle.watch = session.watch
        loop.go()
        assert session.status == "target"
        assert session.best_fun <= target
    session.stop, session._target = None, -math.inf
    loop.go()
    np.testing.assert_array_equal(parts.points, whole.points)


# ---------------------------------------------------------------------- other units


@pytest.mark.parametrize("budget", [0, 1, 10, 33])
def test_vectorized_points_are_evaluations(budget):
    shapes = []

    def f(points):
        shapes.append(points.shape)
        return np.sin(1e3 * points).sum(axis=1)

    res = dfo.minimize(f, X0, method=dfo.CMA(population=10), vectorized=True, budget=budget)
    assert sum(n for n, _ in shapes) == res.nfev == budget


@pytest.mark.parametrize("budget", [0, 1, 10, 33])
def test_workers_share_one_budget(budget):
    f = Counted(wild)
    with ThreadPoolExecutor(3) as pool:
        res = dfo.minimize(f, X0, method=dfo.CMA(population=10), workers=pool, budget=budget)
    assert len(f.points) == res.nfev == budget


@pytest.mark.parametrize("budget", [0, 1, 15, 39, 40, 200, 700])
def test_the_reserve_of_a_noisy_run_is_part_of_it(budget):
    rng = np.random.default_rng(0)
    f = Counted(lambda x: float((x**2).sum() + rng.standard_normal()))
    res = dfo.minimize(f, X0, method="cma", noise=True, budget=budget)
    assert len(f.points) == res.nfev == len(res.history) == budget
    again = min(30, budget // 20)
    if again:
        assert (np.array(f.points[-again:]) == f.points[-1]).all()
        np.testing.assert_array_equal(res.x, f.points[-1])
        assert res.fun == pytest.approx(np.mean(res.history.fun[-again:]))


@dataclass
class Priced:
    """An oracle whose evaluations cost more than one: episodes, seconds, tokens."""

    price: float = 3.0
    gives = frozenset({"values", "ranking"})
    max_batch = None

    def start(self, lanes, key):
        return ()

    def evaluate(self, batch, memory):
        points = [batch.member(i) for i in range(len(batch))]
        f = np.array([float((x**2).sum()) for x in points])
        return Values(f, cost=np.full(len(f), self.price)), memory


@pytest.mark.parametrize("budget", [0, 2, 3, 10, 31, 60])
@pytest.mark.parametrize("method", VECTORS)
def test_cost_is_hard_in_the_oracle_s_unit(method, budget):
    res = dfo.minimize(Priced(), X0, method=method, budget=budget)
    assert res.nfev == budget // 3
    assert res.status == "budget"


def test_rankings_are_counted():
    shown = []

    def order(points):
        shown.append(len(points))
        return sorted(range(len(points)), key=lambda i: float(points[i] @ points[i]))

    for budget in (0, 8, 30):
        shown.clear()
        res = dfo.minimize(dfo.RankOracle(order), X0, method="cma", budget=budget)
        assert sum(shown) == res.nfev <= budget


def test_oracles_that_take_few_at_once():
    sizes = []

    class Small(Priced):
        max_batch = 4

        def evaluate(self, batch, memory):
            sizes.append(len(batch))
            return super().evaluate(batch, memory)

    res = dfo.minimize(Small(price=1.0), X0, method=dfo.RandomSearch(batch=10), budget=37)
    assert sum(sizes) == res.nfev == 37
    assert max(sizes) <= 4


def test_items_are_counted():
    seen = []
    res = dfo.minimize(lambda word: seen.append(word) or len(word), dfo.Text("ab", (1, 5)), method="random", budget=11)
    assert len(seen) == res.nfev == 11
    assert isinstance(res.x, str)
    assert len(Items(seen)) == 11


def test_keys_name_the_same_run_for_every_budget():
    short, long = Counted(), Counted()
    dfo.minimize(short, X0, method="cma", budget=40, seed=9)
    dfo.minimize(long, X0, method="cma", budget=400, seed=9)
    np.testing.assert_array_equal(short.points, long.points[:40])
    assert Key.of(9) == Key(9)
