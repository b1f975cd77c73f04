"""Ask and tell: any order, any number, any thread; what was never asked is observed, what went wrong is a failure."""

import sys
import threading

import numpy as np
import pytest
import torch

import dfo
from dfo import errors
from dfo.solvers import SOLVERS, solver_class
from dfo.testing import takes_functions

VECTORS = [name for name in SOLVERS if takes_functions(name)]
RANKED = [name for name in VECTORS if "ranking" in solver_class(name).needs]
BY_ORDER = {"deep-ga": {"reevaluations": 1}, "genetic": {"again": True, "rate": 1.0}}
"""Options without which values of two questions are compared, which orders cannot be, or points come twice and tie."""


def sphere(x):
    return float(((x - 0.3) ** 2).sum())


def ask(method="cma", x0=(1.0, 2.0, -1.0), **kwargs):
    return dfo.AskTell(method, list(x0), **kwargs)


# ---------------------------------------------------------------------- the plain loop


@pytest.mark.parametrize("method", VECTORS)
def test_in_order_it_is_minimize(method):
    """Asked one by one and told at once, a solver takes the way that ``minimize`` takes it."""
    opt, seen = ask(method, seed=3, budget=150), []
    for _ in range(150):
        x = opt.ask()
        seen.append(x)
        opt.tell(x, sphere(x))
    points = []
    res = dfo.minimize(lambda x: points.append(x) or sphere(x), [1.0, 2.0, -1.0], method=method, seed=3, budget=150)
    np.testing.assert_array_equal(seen, points)
    assert opt.best_fun == res.best_fun
    np.testing.assert_array_equal(opt.best_x, res.best_x)
    assert opt.nfev == 150
    assert not opt.pending


@pytest.mark.parametrize("method", VECTORS)
def test_order_of_tells_does_not_matter(method):
    def run(order):
        opt, xs = ask(method, seed=1), []
        for _ in range(12):
            candidates = opt.ask_batch()
            xs += [c.x for c in candidates]
            for i in order(len(candidates)):
                opt.tell(candidates[i], sphere(candidates[i].x))
        return xs

    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(run(range), run(rng.permutation))


def test_candidates_are_numbered_private_copies():
    opt = ask(options={"population": 6})
    candidates = opt.ask_batch()
    assert [c.id for c in candidates] == list(range(6))
    assert opt.ask_batch() == []
    assert sorted(opt.pending) == list(range(6))
    before = opt.pending[2].copy()
    candidates[2].x[:] = 99.0
    np.testing.assert_array_equal(opt.pending[2], before)
    opt.tell(2, 1.0)
    np.testing.assert_array_equal(opt.best_x, before)
    assert sorted(opt.pending) == [0, 1, 3, 4, 5]


def test_pending_candidates_can_be_handed_out_again():
    """After a crash of the evaluator the points are still there, and their values are taken by number."""
    opt, same = ask(options={"population": 5}, seed=2), ask(options={"population": 5}, seed=2)
    for _ in range(5):
        opt.ask()
    for number, x in opt.pending.items():
        opt.tell(number, sphere(x))
    for c in same.ask_batch():
        same.tell(c, sphere(c.x))
    np.testing.assert_array_equal(opt.ask(), same.ask())


def test_candidates_by_object_number_or_point():
    opt = ask(options={"population": 6})
    candidates = opt.ask_batch()
    opt.tell(candidates[0], 5.0)
    opt.tell(1, 4.0)
    opt.tell(candidates[2].x, 3.0)
    opt.tell(candidates[3].x.tolist(), 2.0)
    opt.tell(tuple(candidates[4].x), 1.0)
    assert list(opt.pending) == [5]
    assert opt.best_fun == 1.0
    np.testing.assert_array_equal(opt.best_x, candidates[4].x)


# ---------------------------------------------------------------------- extra candidates, equal points


@pytest.mark.parametrize("method", VECTORS)
def test_candidates_beyond_the_batch(method):
    """A pool larger than the batch never waits: the extra points are new, inside, and told like the others."""
    opt = dfo.AskTell(method, [1.0, 2.0, -1.0], bounds=[(-5, 5)] * 3, seed=1)
    candidates = [opt.ask_candidate() for _ in range(100)]
    assert [c.id for c in candidates] == list(range(100))
    points = np.array([c.x for c in candidates])
    assert (abs(points) <= 5).all()
    if method not in ("nelder-mead", "zo-sgd", "gld", "cbo", "cbs"):  # no distribution; their point, particles, again
        assert len(np.unique(points, axis=0)) >= 98
    for c in reversed(candidates):
        opt.tell(c, sphere(c.x))
    assert opt.nfev == 100
    assert not opt.pending
    assert opt.best_fun == min(map(sphere, points))
    x = opt.ask()
    opt.tell(x, sphere(x))


def test_equal_points_take_one_value_each():
    space = {"a": dfo.Int(0, 1)}
    opt = dfo.AskTell("random", space, options={"batch": 40})
    candidates = opt.ask_batch()
    assert len({c.x["a"] for c in candidates}) == 2
    for c in candidates:
        opt.tell(c.x, float(c.x["a"]))
    assert opt.nfev == 40
    assert not opt.pending
    assert opt.best_x == {"a": 0}


# ---------------------------------------------------------------------- mistakes


def test_tells_that_cannot_be():
    opt = ask()
    x = opt.ask_candidate()
    with pytest.raises(errors.UnknownCandidate, match="observe"):
        opt.tell([9.0, 9.0, 9.0], 1.0)
    with pytest.raises(errors.UnknownCandidate, match="no candidate 7"):
        opt.tell(7, 1.0)
    opt.tell(x, 1.0)
    with pytest.raises(errors.AlreadyTold, match="candidate 0"):
        opt.tell(x, 1.0)
    with pytest.raises(errors.AlreadyTold):
        opt.tell(0, 1.0)
    with pytest.raises(errors.UnknownCandidate):
        opt.tell(x.x, 1.0)
    with pytest.raises(KeyError):  # the errors are Python's own, too
        opt.tell(0, 1.0)
    assert opt.nfev == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "low", 1j, True, [1.0, 2.0]])
@pytest.mark.parametrize("method", VECTORS)
def test_failed_evaluations(method, bad):
    opt = ask(method, seed=1, budget=200)
    for i in range(200):
        x = opt.ask()
        opt.tell(x, bad if i % 5 == 3 else sphere(x))
    assert opt.nfev == 200
    assert 0 <= opt.best_fun < sphere(np.array([1.0, 2.0, -1.0]))
    assert np.isfinite(opt.recommended).all()


def test_none_is_a_failed_evaluation():
    opt = ask(options={"population": 4})
    first = opt.ask_batch()
    for c in first:
        opt.tell(c, None)
    second = opt.ask_batch()
    assert len(second) == 4


@pytest.mark.parametrize("method", VECTORS)
def test_nothing_but_failures(method):
    opt = ask(method, seed=1)
    for _ in range(80):
        opt.tell(opt.ask(), np.nan)
    assert opt.best_x is None
    assert opt.best_fun == np.inf
    assert np.isfinite(opt.ask()).all()


@pytest.mark.parametrize("value", [3, np.float32(3.0), np.array([3.0]), torch.tensor(3.0), np.int64(3)])
def test_values_of_every_kind(value):
    opt = ask()
    opt.tell(opt.ask(), value)
    assert opt.best_fun == 3.0


@pytest.mark.parametrize("method", ["scipy:COBYQA", "pycma", "nevergrad:NGOpt"])
def test_peers_cannot_be_asked(method):
    with pytest.raises(errors.InvalidArgument, match=r"cannot be asked\. Use minimize"):
        ask(method)


def test_arguments_are_judged_as_in_minimize():
    for kwargs, error in [
        ({"method": "cmaa"}, "Did you mean 'cma'"),
        ({"options": {"populatio": 3}}, "Did you mean 'population'"),
        ({"x0": [1.0, np.nan]}, r"x0\[1\]"),
        ({"bounds": [(0, 1)]}, "bounds"),
        ({"seed": -1}, "seed"),
        ({"batch": 0}, "batch"),
        ({"budget": 2.5}, "budget"),
    ]:
        with pytest.raises(errors.DfoError, match=error):
            ask(**{"method": "cma", **kwargs})


# ---------------------------------------------------------------------- rankings


@pytest.mark.parametrize("method", RANKED)
def test_orders_and_values_lead_the_same_way(method):
    by_value, by_order = (ask(method, seed=1, options=BY_ORDER.get(method)) for _ in range(2))
    for _ in range(15):
        a, b = by_value.ask_batch(), by_order.ask_batch()
        values = [sphere(c.x) for c in a]
        for c, value in zip(a, values, strict=True):
            by_value.tell(c, value)
        by_order.tell_order(np.argsort(values).tolist())
        np.testing.assert_array_equal([c.x for c in a], [c.x for c in b])
    assert by_order.nfev == by_value.nfev
    assert not by_order.pending
    assert by_order.best_x is None


def test_orders_partial_tied_and_skipped():
    opt = ask(options={"population": 6})
    for order in ([3], [0, [1, 2]], [[0, 1, 2, 3, 4, 5]], None, []):
        assert len(opt.ask_batch()) == 6
        opt.tell_order(order)
    assert opt.nfev == 30
    candidate = opt.ask_candidate()
    with pytest.raises(errors.BadObjective, match="different indices of the 6"):
        opt.tell_order([0, 0])
    with pytest.raises(errors.BadObjective):
        opt.tell_order([6])
    assert list(opt.pending) == [candidate.id]  # a wrong order changes nothing
    opt.tell(candidate, 1.0)


def test_orders_need_a_solver_that_ranks():
    opt = ask("nelder-mead")
    opt.ask()
    with pytest.raises(errors.InvalidType, match="needs values"):
        opt.tell_order([0])


# ---------------------------------------------------------------------- observations


def test_observed_points():
    opt = ask(options={"population": 6})
    opt.observe([0.3, 0.3, 0.3], 0.0)
    assert opt.best_fun == 0.0
    np.testing.assert_array_equal(opt.best_x, [0.3, 0.3, 0.3])
    assert opt.nfev == 0
    point = np.array([0.3, 0.4, 0.3])
    opt.observe(point, -1.0)
    point[:] = 9.0
    np.testing.assert_array_equal(opt.best_x, [0.3, 0.4, 0.3])
    opt.observe([1.0, 1.0, 1.0], np.nan)
    assert opt.best_fun == -1.0
    assert not opt.pending


def test_observed_points_must_be_in_the_space():
    opt = dfo.AskTell("cma", [0.5, 0.5], bounds=[(0, 1)] * 2)
    for x in ([0.5, 1.5], [0.5], [np.nan, 0.5]):
        with pytest.raises(errors.InvalidArgument, match="observe"):
            opt.observe(x, 1.0)
    opt = dfo.AskTell("cma", {"a": dfo.Float(0, 1), "b": dfo.Choice(["x", "y"])})
    with pytest.raises(errors.InvalidArgument, match="observe"):
        opt.observe({"a": 0.5}, 1.0)
    opt.observe({"a": 0.5, "b": "y"}, -1.0)
    assert opt.best_x == {"a": 0.5, "b": "y"}


def test_observations_teach_a_solver_that_listens():
    moved, still = ask("cma", seed=1), ask("cma", seed=1)
    for _ in range(10):
        moved.observe([0.31, 0.3, 0.3], 1e-4)
    for opt in (moved, still):
        for _ in range(120):
            x = opt.ask()
            opt.tell(x, sphere(x))
    assert not np.array_equal(moved.recommended, still.recommended)


# ---------------------------------------------------------------------- other points


def test_named_parameters():
    space = {"lr": dfo.Float(1e-4, 1, log=True), "layers": dfo.Int(1, 8), "opt": dfo.Choice(["sgd", "adam"])}
    opt = dfo.AskTell("cma", space, seed=1, budget=120)
    for _ in range(120):
        p = opt.ask()
        assert dfo.Named(space).contains(p)
        opt.tell(p, (np.log10(p["lr"]) + 2) ** 2 + (p["layers"] - 3) ** 2)
    assert opt.best_x["layers"] == 3
    assert dfo.Named(space).contains(opt.recommended)


def test_text():
    opt = dfo.AskTell("random", dfo.Text("ab", 4), seed=1)
    for _ in range(70):
        word = opt.ask()
        opt.tell(word, -word.count("a"))
    assert opt.best_x == "aaaa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch(dtype):
    opt = dfo.AskTell("cma", torch.ones(3, dtype=dtype), bounds=[(-2, 2)] * 3)
    for _ in range(30):
        x = opt.ask()
        assert isinstance(x, torch.Tensor)
        assert x.dtype == dtype
        opt.tell(x, (x**2).sum())
    assert opt.best_x.dtype == dtype
    assert opt.recommended.dtype == dtype


def test_finished_says_why():
    opt = ask("nelder-mead", seed=1)
    assert opt.finished is None
    for _ in range(2000):
        if opt.finished:
            break
        x = opt.ask()
        opt.tell(x, sphere(x))
    assert "converged" in opt.finished


def test_automatic_method():
    opt = ask("auto")
    x = opt.ask()
    opt.tell(x, sphere(x))
    assert opt.nfev == 1


# ---------------------------------------------------------------------- threads


def crowd(opt, rounds, by):
    """Ask and tell from eight threads that change every ten microseconds; return what was asked, and the failures."""
    asked, failures = [], []

    def work():
        try:
            for i in range(rounds):
                asked.append(by(opt))
                if i % 100 == 0:
                    _ = opt.recommended, opt.finished, opt.pending
        except Exception as error:
            failures.append(error)

    threads, interval = [threading.Thread(target=work) for _ in range(8)], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return asked, failures


def by_candidate(opt):
    candidate = opt.ask_candidate()
    opt.tell(candidate, sphere(candidate.x))
    return candidate.id


def by_point(opt):
    x = opt.ask()
    opt.tell(x, sphere(x))
    return 0


@pytest.mark.parametrize("method", VECTORS)
def test_threads(method):
    opt = ask(method, seed=1)
    numbers, failures = crowd(opt, 1000, by_candidate)
    assert failures == []
    assert sorted(numbers) == list(range(8000))
    assert opt.nfev == 8000
    assert not opt.pending
    assert opt.best_fun < sphere(np.array([1.0, 2.0, -1.0]))


@pytest.mark.parametrize("method", VECTORS)
def test_threads_that_tell_by_point(method):
    """Equal points, of which a converged solver asks many, take one value each."""
    opt = ask(method, seed=1)
    _, failures = crowd(opt, 200, by_point)
    assert failures == []
    assert opt.nfev == 1600
    assert not opt.pending
