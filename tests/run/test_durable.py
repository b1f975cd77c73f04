"""A run with a store goes on where it was: equal to one that was never stopped, whatever stopped it."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest

import dfo
from dfo.bench.packs import make
from dfo.errors import RunMismatch
from dfo.run.store import View

METHODS = ("cma", "genetic", "zo-sgd", "cbo", "nelder-mead", "scipy:Nelder-Mead", "pycma")
X0 = [0.5, -0.4, 0.3]


def sphere(x):
    return float(((np.asarray(x) - 0.2) ** 2).sum())


class Counted:
    """A sphere that keeps account of its calls, and may stop the run at one of them."""

    def __init__(self, stop_at=None):
        self._stop_at, self._calls = stop_at, []

    def __call__(self, x):
        if self._stop_at is not None and len(self._calls) == self._stop_at:
            raise KeyboardInterrupt
        self._calls.append(np.array(x))
        return sphere(x)

    def __len__(self):
        return len(self._calls)


def digest(res):
    return hashlib.sha256(res.history.fun.tobytes()).hexdigest()


def plain(method, budget=120, **more):
    return dfo.minimize(Counted(), X0, method=method, bounds=[(-2, 2)] * 3, budget=budget, **more)


def same(a, b):
    assert digest(a) == digest(b)
    assert np.array_equal(a.x, b.x)
    assert (a.fun, a.best_fun, a.nfev, a.nit, a.status) == (b.fun, b.best_fun, b.nfev, b.nit, b.status)


@pytest.mark.parametrize("at", [0, 1, 7, 50, 119])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(method, at, tmp_path):
    store = tmp_path / "run.db"
    first = Counted(stop_at=at)
    with pytest.raises(KeyboardInterrupt):
        dfo.minimize(first, X0, method=method, bounds=[(-2, 2)] * 3, budget=120, store=store)
    again = Counted()
    res = dfo.minimize(again, X0, method=method, bounds=[(-2, 2)] * 3, budget=120, store=store)
    whole = plain(method)
    same(res, whole)
    assert len(first) + len(again) == whole.nfev  # nothing that was told is evaluated again


@pytest.mark.parametrize("method", METHODS)
def test_a_finished_run_is_answered_from_its_store(method, tmp_path):
    store = tmp_path / "run.db"
    res = plain(method, store=store)
    again = Counted()
    same(dfo.minimize(again, X0, method=method, bounds=[(-2, 2)] * 3, budget=120, store=store), res)
    assert len(again) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_larger_budget_extends_a_run(method, tmp_path):
    store = tmp_path / "run.db"
    plain(method, 50, store=store)
    again = Counted()
    res = dfo.minimize(again, X0, method=method, bounds=[(-2, 2)] * 3, budget=120, store=store)
    assert res.nfev == 120 or res.status in ("finished", "unconverged")
    assert len(again) == res.nfev - 50
    if method in ("cma", "genetic", "cbo", "nelder-mead"):  # their plans do not depend on the budget
        assert digest(res) == digest(plain(method))


def test_checkpoints_change_nothing(tmp_path):
    paths = tmp_path / "often.db", tmp_path / "never.db"
    every = 0.0, 1e9
    for path, seconds in zip(paths, every, strict=True):
        with pytest.raises(KeyboardInterrupt):
            dfo.minimize(Counted(90), X0, method="cma", budget=150, store=dfo.Store(path, every=seconds))
    found = [
        dfo.minimize(Counted(), X0, method="cma", budget=150, store=dfo.Store(path, every=seconds))
        for path, seconds in zip(paths, every, strict=True)
    ]
    same(*found)
    same(found[0], dfo.minimize(Counted(), X0, method="cma", budget=150))


def test_known_points_noise_and_constraints_go_on_too(tmp_path):
    def noisy(x):
        return sphere(x) + 1e-3 * float(np.sin(1e6 * x[0]))

    arguments = {
        "bounds": [(-2, 2)] * 3, "budget": 100, "noise": True, "known": ([[0.1, 0.1, 0.1]], [0.03]),
        "constraints": {"type": "ineq", "fun": lambda x: x[0] - 0.1}, "method": "cma",
    }  # fmt: skip
    whole = dfo.minimize(noisy, X0, **arguments)
    calls = []

    def cut(x):
        calls.append(1)
        if len(calls) in (40, 98):
            raise KeyboardInterrupt
        return noisy(x)

    store = tmp_path / "run.db"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            dfo.minimize(cut, X0, **arguments, store=store)
    res = dfo.minimize(cut, X0, **arguments, store=store)
    same(res, whole)
    assert res.fun_stderr == whole.fun_stderr
    assert len(calls) == 100 + 2


def test_a_noisy_run_that_is_extended_pays_its_recommendations(tmp_path):
    store, f = tmp_path / "run.db", Counted()
    dfo.minimize(f, X0, method="cma", budget=100, noise=True, store=store)
    res = dfo.minimize(f, X0, method="cma", budget=300, noise=True, store=store)
    assert len(f) == 300
    again = dfo.minimize(f, X0, method="cma", budget=300, noise=True, store=store)
    assert len(f) == 300
    same(res, again)


CHANGES = {
    "seed": {"seed": 1},
    "start": {"x0": [0.4, -0.4, 0.3]},
    "bounds": {"bounds": [(-3, 2)] * 3},
    "method": {"method": "cbo"},
    "option": {"options": {"population": 9}},
    "objective": {"fun": lambda x: 0.0},
    "noise": {"noise": True},
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_other_arguments_are_refused_with_the_difference(changed, tmp_path):
    arguments = {"fun": sphere, "x0": X0, "bounds": [(-2, 2)] * 3, "method": "cma", "budget": 30}
    store = tmp_path / "run.db"
    dfo.minimize(**arguments, store=store)
    with pytest.raises(RunMismatch) as caught:
        dfo.minimize(**{**arguments, **changed}, store=store)
    name = {"fun": "objective", "options": "options"}.get(next(iter(changed)), next(iter(changed)))
    assert name in str(caught.value)
    res = dfo.minimize(**arguments, store=store)  # and nothing was spoilt
    assert res.nfev == 30


def test_a_mended_objective_can_be_accepted(tmp_path):
    store = tmp_path / "run.db"

    def broken(x):
        if x[0] < 0.3:
            raise ZeroDivisionError("no mesh")
        return sphere(x)

    with pytest.raises(ZeroDivisionError) as caught:
        dfo.minimize(broken, X0, method="cma", budget=80, store=store)
    told = caught.value.result.nfev - 1
    mended = Counted()
    with pytest.raises(RunMismatch, match="objective"):
        dfo.minimize(mended, X0, method="cma", budget=80, store=store)
    res = dfo.minimize(mended, X0, method="cma", budget=80, store=dfo.Store(store, accept=("objective",)))
    assert len(mended) == 80 - told
    assert digest(res) == digest(dfo.minimize(sphere, X0, method="cma", budget=80))


@pytest.mark.parametrize("vectorized", [False, True])
def test_failures_are_kept_as_they_were(vectorized, tmp_path):
    def f(x):
        x = np.atleast_2d(x)
        values = np.where(x[:, 0] < 0.4, np.nan, (x**2).sum(axis=1))
        return values if vectorized else float(values[0])

    store = tmp_path / "run.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (
            dfo.minimize(f, X0, method="cma", budget=60, store=store, vectorized=vectorized) for _ in range(2)
        )
    same(first, second)
    assert first.nfail == second.nfail > 0
    with sqlite3.connect(store) as rows:
        (count,) = rows.execute("select count(*) from evaluations where status = 'nonfinite'").fetchone()
    assert count == first.nfail


def test_oracles_that_are_no_functions_are_kept_batch_by_batch(tmp_path):
    shown = []

    def best_first(points):
        shown.append(len(points))
        if len(shown) == 12:
            raise KeyboardInterrupt
        return np.argsort([sphere(x) for x in points])

    def go(**more):
        return dfo.minimize(dfo.RankOracle(best_first), X0, method="zo-rank-sgd", budget=200, **more)

    store = tmp_path / "run.db"
    with pytest.raises(KeyboardInterrupt):
        go(store=store)
    cut = len(shown)
    res = go(store=store)
    after = len(shown) - cut
    whole = go()
    assert np.array_equal(res.x, whole.x)
    assert cut - 1 + after == len(shown) - cut - after


@pytest.mark.parametrize("method", ["es-single", "truncated-es"])
def test_unrolled_problems_remember_their_inner_states(method, tmp_path):
    problem = make("unrolled-lorenz")
    store = tmp_path / "run.db"

    def go(budget, **more):
        return dfo.minimize(problem.fun, problem.x0, method=method, budget=budget, seed=3, **more)

    go(400, store=store)
    go(700, store=store)
    res, whole = go(1000, store=store), go(1000)
    assert len(res.history) > 900
    paid = 60  # at most: episodes of the recommendations of 400 and of 700, and of 1000
    assert np.array_equal(res.history.fun[:-paid], whole.history.fun[: len(res.history) - paid])


SCRIPT = """
    import os, sys, time
    import numpy as np
    import dfo

    def f(x):
        with open(sys.argv[2], "ab", buffering=0) as ledger:
            ledger.write(np.asarray(x, float).tobytes() + b"\\n;")
        time.sleep(0.003)
        return float(((x - 0.2) ** 2).sum())

    if __name__ == "__main__":
        res = dfo.minimize(f, [0.5, -0.4, 0.3], method=sys.argv[3], budget=150, store=sys.argv[1],
                           workers=int(sys.argv[4]), bounds=[(-2, 2)] * 3)
        print(res.history.fun.tobytes().hex())
"""


@pytest.mark.parametrize(("method", "workers"), [("cma", 1), ("cma", 2), ("genetic", 2)])
def test_a_run_that_was_killed_loses_nothing(method, workers, tmp_path):
    script, store, ledger = tmp_path / "s.py", tmp_path / "run.db", tmp_path / "ledger"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(store), str(ledger), method, str(workers)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    end = time.monotonic() + 20
    while (not ledger.exists() or ledger.read_bytes().count(b"\n;") < 40) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.2)  # workers notice
    before = ledger.read_bytes().count(b"\n;")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole = [sys.executable, str(script), str(tmp_path / "other.db"), str(tmp_path / "l2"), method, "1"]
    assert done.stdout == subprocess.run(whole, capture_output=True, text=True, check=True).stdout
    calls = ledger.read_bytes().count(b"\n;")
    assert 40 <= before < 150
    assert 150 <= calls <= 150 + workers  # those in flight are asked again, and no others


def test_the_store_can_be_read_with_sql(tmp_path):
    store = tmp_path / "run.db"
    res = plain("cma", 30, store=store)
    with sqlite3.connect(store) as rows:
        (best,) = rows.execute("select min(value) from evaluations").fetchone()
        (x,) = rows.execute("select x from evaluations order by value limit 1").fetchone()
    assert best == res.fun
    assert json.loads(x) == res.x.tolist()


def test_a_callback_that_raises_leaves_a_store_that_says_so(tmp_path):
    store = tmp_path / "run.db"

    def broken(progress):
        if progress.nfev > 40:
            raise LookupError("no such plot")

    with pytest.raises(LookupError):
        plain("cma", store=store, callback=broken)
    with View.open(store) as view:
        assert (view.status, view.message) == ("error", "LookupError: no such plot")
    same(plain("cma", store=store), plain("cma"))


class Remembers:
    """An oracle with a large memory: a count, and as many numbers as fill a file."""

    gives, max_batch = frozenset({"values", "ranking"}), None

    def start(self, lanes, key):
        return (np.zeros(200_000),)

    def evaluate(self, batch, memory):
        (seen,) = memory
        f = (batch.dense() ** 2).sum(axis=1) + 1e-3 * seen[0]
        return dfo.feedback.Values(f), (seen + 1.0,)


def test_only_the_newest_memory_of_an_oracle_is_kept(tmp_path):
    store = tmp_path / "run.db"

    def go(budget, **more):
        return dfo.minimize(Remembers(), X0, method="cma", batch=10, budget=budget, **more)

    go(200, store=dfo.Store(store, every=0.0))
    assert len(list((tmp_path / "run.db.blobs").iterdir())) <= 3  # of 20: the newest answer's, and of two states
    assert np.array_equal(go(300, store=store).history.fun, go(300).history.fun)
