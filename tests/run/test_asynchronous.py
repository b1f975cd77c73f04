"""Values told as they end: the exact budget, no waiting for the slowest, nothing lost when it is cut."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import dfo
from dfo.errors import InvalidArgument
from dfo.run.store import View

X0 = [0.5, -0.4, 0.3]


def sphere(x):
    return float(((np.asarray(x) - 0.2) ** 2).sum())


def uneven(x):
    time.sleep(0.002 if x[0] < 0.4 else 0.01)
    return sphere(x)


@pytest.mark.parametrize("method", ["cma", "random", "genetic", "sep-cma", "cbo"])
@pytest.mark.parametrize("workers", ["threads:4", 2])
def test_the_budget_is_exact_and_the_optimum_is_found(method, workers):
    if workers == 2 and method != "cma":
        pytest.skip("one method shows that processes do")
    res = dfo.minimize(uneven, X0, method=method, bounds=[(-2, 2)] * 3, budget=300, workers=workers, asynchronous=True)
    assert (res.nfev, len(res.history), res.status) == (300, 300, "budget")
    assert res.fun == res.history.fun.min() == sphere(res.x)
    assert res.fun < (0.3 if method == "random" else 0.02)


def test_nobody_waits_for_the_slowest():
    first, seen = [], []

    def f(x):
        if not first:
            first.append(1)
            time.sleep(0.5)
        seen.append(time.monotonic())
        return sphere(x)

    res = dfo.minimize(f, X0, method="cma", budget=60, workers="threads:3", asynchronous=True)
    assert res.nfev == 60
    assert sum(at < seen[-1] - 1e-9 for at in seen) == 59
    assert len(seen) == 60


def test_errors_and_failures():
    def f(x):
        if x[0] > 0.6:
            raise ValueError("no mesh")
        return sphere(x)

    with pytest.raises(ValueError, match="no mesh") as caught:
        dfo.minimize(f, [0.59, 0, 0], method="cma", budget=200, workers="threads:3", asynchronous=True)
    assert caught.value.result.status == "error"
    with pytest.warns(dfo.errors.EvaluationWarning):
        res = dfo.minimize(
            f, [0.59, 0, 0], method="cma", budget=200, workers="threads:3", asynchronous=True, on_error="record"
        )
    assert res.nfail > 0
    assert res.nfev == 200


def test_an_interrupt_gives_the_result_so_far():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread")
    threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
    res = dfo.minimize(uneven, X0, method="cma", budget=100_000, workers="threads:3", asynchronous=True)
    assert res.status == "interrupted"
    assert 0 < res.nfev < 1000


def test_a_store_keeps_what_was_told_and_goes_on(tmp_path):
    store, calls = tmp_path / "run.db", []

    def f(x):
        calls.append(np.array(x))
        return sphere(x)

    arguments = {"method": "cma", "workers": "threads:3", "asynchronous": True, "store": store}
    first = dfo.minimize(f, X0, budget=80, **arguments)
    second = dfo.minimize(f, X0, budget=200, **arguments)
    assert len(calls) == 200
    assert second.nfev == 200
    assert np.array_equal(second.history.fun[:80], first.history.fun)
    again = dfo.minimize(f, X0, budget=200, **arguments)
    assert len(calls) == 200
    assert np.array_equal(again.history.fun, second.history.fun)
    assert np.array_equal(again.x, second.x)


@pytest.mark.parametrize(
    "arguments",
    [{"workers": None}, {"workers": map}, {"vectorized": True}, {"method": "pycma", "workers": 2},
     {"workers": 2, "constraints": {"type": "ineq", "fun": lambda x: x[0]}}],
    ids=["none", "map", "vectorized", "peer", "constraints"],
)  # fmt: skip
def test_what_cannot_be_told_one_by_one_is_refused(arguments):
    with pytest.raises(InvalidArgument, match="asynchronous"):
        dfo.minimize(sphere, X0, budget=20, asynchronous=True, **{"method": "cma", **arguments})


@pytest.mark.parametrize("workers", [2, "threads:2"])
def test_the_recommendation_of_a_noisy_run_is_evaluated_too(workers, tmp_path):
    for store in (None, tmp_path / "run.db", tmp_path / "run.db"):
        res = dfo.minimize(
            sphere, X0, method="cma", budget=100, noise=True, workers=workers, asynchronous=True, store=store
        )
        assert (res.nfev, res.status) == (100, "budget")
        assert res.fun == pytest.approx(sphere(res.x), rel=1e-12)


def test_failures_are_stored_as_what_they_were(tmp_path):
    calls = []

    def f(x):
        calls.append(1)
        if len(calls) < 10:
            return sphere(x)
        return float("nan") if x[0] > 0.3 else "text" if x[1] > -0.1 else sphere(x)

    with pytest.warns(dfo.errors.EvaluationWarning):
        res = dfo.minimize(
            f, [0.4, -0.1, 0], method="cma", budget=100, workers="threads:2", asynchronous=True, store=tmp_path / "r.db"
        )
    with View.open(tmp_path / "r.db") as view:
        kinds = [row.status for row in view.rows()]
    assert kinds.count("nonfinite") > 0
    assert kinds.count("bad_type") > 0
    assert len(kinds) - kinds.count("ok") == res.nfail


def test_known_points_are_told_once(tmp_path):
    arguments = {"method": "cma", "workers": "threads:2", "asynchronous": True, "store": tmp_path / "r.db"}
    for budget in (30, 60):
        dfo.minimize(sphere, X0, budget=budget, known=([[0.1, 0.1, 0.1]], [0.03]), **arguments)
    with View.open(tmp_path / "r.db") as view:
        assert [event["kind"] for event in view.events].count("observed") == 1


def test_a_full_disk_ends_a_run_with_its_result(tmp_path):
    code = """
        import resource, sys, warnings, dfo
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_FSIZE, (160 << 10, 160 << 10))
        res = dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cma", budget=2000, workers="threads:2",
                           asynchronous=True, store=sys.argv[1])
        print(res.status, 0 < res.nfev < 2000, res.fun < 5.0)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "r.db")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["unstored", "True", "True"]
