"""Reasons to end a run, alone and combined; hooks, what they see and how they end it; signals."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

import dfo
from dfo import errors
from dfo.run.stopping import seconds
from dfo.solvers import SOLVERS
from dfo.testing import takes_functions

VECTORS = [name for name in SOLVERS if takes_functions(name)]
X0 = [1.0, 2.0, -1.0]


def sphere(x):
    return float(((x - 0.3) ** 2).sum())


def wild(x):
    return float(np.sin(1e3 * x).sum())


class Counted:
    def __init__(self, f=sphere):
        self.f, self.values = f, []

    def __call__(self, x):
        self.values.append(self.f(x))
        return self.values[-1]


# ---------------------------------------------------------------------- one stop


@pytest.mark.parametrize("method", VECTORS)
def test_target_ends_within_a_batch(method):
    f = Counted()
    res = dfo.minimize(f, X0, method=method, budget=3000, stop=dfo.Target(1.5))
    assert (res.status, res.success) == ("target", True)
    assert [v <= 1.5 for v in f.values] == [False] * (len(f.values) - 1) + [True]
    assert res.nfev == len(f.values)
    assert res.fun == f.values[-1]
    assert "1.5" in res.message


def test_target_at_the_start_and_out_of_reach():
    f = Counted()
    res = dfo.minimize(f, X0, method="cma", budget=50, stop=dfo.Target(100))
    assert (res.status, res.nfev) == ("target", 1)
    assert dfo.minimize(f, X0, method="cma", budget=50, stop=dfo.Target(-1)).status == "budget"
    assert dfo.minimize(f, X0, method="cma", budget=0, stop=dfo.Target(100)).status == "budget"


def test_target_counts_feasible_points_only():
    beyond = {"type": "ineq", "fun": lambda x: x[0] - 1.5}
    res = dfo.minimize(sphere, [2.0, 2.0], method="cma", budget=3000, constraints=beyond, stop=dfo.Target(1.5))
    assert res.status == "target"
    assert res.violation == 0.0
    assert res.fun <= 1.5


def test_target_with_vectorized_and_mapped_batches():
    for extra in ({"vectorized": True}, {"workers": map}):
        f = (lambda X: ((X - 0.3) ** 2).sum(axis=1)) if "vectorized" in extra else sphere
        res = dfo.minimize(f, X0, method="cma", budget=3000, stop=dfo.Target(1.5), **extra)
        assert res.status == "target"
        assert res.fun <= 1.5


@pytest.mark.parametrize("method", VECTORS)
def test_steps(method):
    res = dfo.minimize(wild, X0, method=method, budget=3000, stop=dfo.MaxSteps(3))
    assert (res.status, res.nit, res.success) == ("steps", 3, False)
    res = dfo.minimize(wild, X0, method=method, budget=3000, options={"maxiter": 3})
    assert (res.status, res.nit) == ("steps", 3)
    assert dfo.minimize(wild, X0, method=method, stop=dfo.MaxSteps(0)).nfev == 0


@pytest.mark.parametrize("method", VECTORS)
def test_stagnation(method):
    res = dfo.minimize(lambda x: 1.0, X0, method=method, budget=3000, stop=dfo.Stalled(40))
    assert (res.status, res.success) == ("stagnation", False)
    assert 41 <= res.nfev <= 41 + 64
    assert f"{res.nfev - 1} evaluations" in res.message


def test_time():
    began = time.perf_counter()
    res = dfo.minimize(lambda x: time.sleep(0.01) or sphere(x), X0, method="cma", timeout=0.05)
    assert (res.status, res.success) == ("time", False)
    assert 1 <= res.nfev <= 10  # the evaluation in progress is finished, the rest of the batch is not begun
    assert time.perf_counter() - began < 1.0
    assert dfo.minimize(sphere, X0, timeout=0).nfev == 0
    assert dfo.minimize(sphere, X0, method="cma", stop=dfo.MaxTime("0s")).status == "time"
    assert dfo.minimize(sphere, X0, method="cma", budget=3, timeout="1h").status == "budget"
    assert dfo.minimize(sphere, X0, method="cma", options={"maxtime": 0}).status == "time"


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800), ("250ms", 0.25), (" 3 s ", 3), (2, 2), (0.5, 0.5)],
)
def test_durations(text, value):
    assert seconds(text) == value
    assert dfo.MaxTime(text).limit_seconds == value


@pytest.mark.parametrize("wrong", ["", "10", "m", "1.2.3s", "-1s", "10 minutes", -1, float("nan"), None, True, [1], 1j])
def test_durations_that_are_none(wrong):
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match="expected seconds"):
        seconds(wrong)
    if wrong is not None:
        with pytest.raises((errors.InvalidArgument, errors.InvalidType), match="timeout: expected seconds"):
            dfo.minimize(sphere, X0, timeout=wrong)


# ---------------------------------------------------------------------- several


def test_any_of_several():
    stop = dfo.Target(1e-9) | dfo.Stalled(500) | dfo.MaxTime("10m")
    assert isinstance(stop, dfo.AnyOf)
    assert stop == dfo.AnyOf((dfo.Target(1e-9), dfo.Stalled(500), dfo.MaxTime("10m")))
    assert (dfo.Target(1) | (dfo.Stalled(2) | dfo.MaxSteps(3))).stops == (
        dfo.Target(1), dfo.Stalled(2), dfo.MaxSteps(3),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("others", "status"),
    [
        (dfo.Target(1.5), "target"),
        (dfo.MaxSteps(2), "steps"),
        (dfo.MaxEvals(11), "budget"),
        (dfo.Stalled(1), "stagnation"),
        (dfo.MaxTime(0), "time"),
    ],
)
def test_the_first_reason_ends_the_run(others, status):
    never = dfo.Target(-1) | dfo.MaxSteps(10**6) | dfo.Stalled(10**6) | dfo.MaxTime("9h")
    for stop in (never | others, others | never):
        res = dfo.minimize(sphere, X0, method="cma", budget=5000, stop=stop)
        assert res.status == status


def test_own_stops():
    """A stop is any function of the progress that returns None, or a status and a sentence."""

    def stop(progress):
        return ("stagnation", "I have seen enough.") if progress.nfev >= 20 else None

    res = dfo.minimize(sphere, X0, method="nelder-mead", budget=500, stop=stop)
    assert (res.status, res.message, res.nfev) == ("stagnation", "I have seen enough.", 20)
    both = dfo.AnyOf((dfo.Target(-1), stop))
    assert dfo.minimize(sphere, X0, method="nelder-mead", budget=500, stop=both).nfev == 20
    assert dfo.minimize(sphere, X0, method="nelder-mead", budget=500, stop=dfo.Target(-1) | stop).nfev == 20


@pytest.mark.parametrize("wrong", [1e-8, "target", [dfo.Target(1)]])
def test_stops_that_are_none(wrong):
    f = Counted()
    with pytest.raises(errors.InvalidType, match="stop: expected a stop"):
        dfo.minimize(f, X0, stop=wrong)
    assert not f.values


# ---------------------------------------------------------------------- hooks


@pytest.mark.parametrize("method", VECTORS)
def test_hooks_see_every_step(method):
    seen, f = [], Counted()
    res = dfo.minimize(f, X0, method=method, budget=100, callback=seen.append)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert res.nit == len(seen)
    nfev = 0
    for p in seen:
        assert isinstance(p, dfo.Progress)
        np.testing.assert_array_equal(p.told.f, f.values[nfev : p.nfev])
        assert len(p.batch) == p.nfev - nfev
        nfev = p.nfev
        assert p.best_fun == p.fun == min(f.values[:nfev]) == sphere(p.best_x)
        assert p.x is p.best_x
        assert p.stalled == nfev - 1 - int(np.argmin(f.values[:nfev]))
        assert p.seconds >= 0
        assert p.nfail == 0
        assert np.isfinite(p.recommended()).all()
        assert all(isinstance(v, float) for v in p.gauges().values())
    assert all(a.seconds <= b.seconds for a, b in pairwise(seen))


def test_hooks_see_points_as_the_objective_does():
    points, seen = [], []

    def hook(progress):
        batch = progress.points()
        seen.extend(batch.member(i) for i in range(len(batch)))

    dfo.minimize(
        lambda x: points.append(x) or sphere(x), X0, bounds=[(-5, 5)] * 3, method="cma", budget=70, callback=hook
    )
    np.testing.assert_array_equal(seen, points[: len(seen)])
    assert len(seen) == 70


@pytest.mark.parametrize("method", VECTORS)
def test_stop_iteration_ends(method):
    def hook(progress):
        if progress.step == 3:
            raise StopIteration("that is enough")

    res = dfo.minimize(sphere, X0, method=method, budget=3000, callback=hook)
    assert (res.status, res.message, res.nit, res.success) == ("callback", "that is enough", 3, False)
    assert res.fun == sphere(res.x)


def test_stop_iteration_without_a_word():
    def hook(progress):
        raise StopIteration

    assert dfo.minimize(sphere, X0, method="cma", callback=hook).message == "A hook ended the run."


@pytest.mark.parametrize("answer", [True, 1, "stop", [0]])
def test_answers_are_errors(answer):
    f = Counted()
    with pytest.raises(errors.InvalidType, match=r"returned .* Raise StopIteration to end the run"):
        dfo.minimize(f, X0, method="nelder-mead", callback=lambda progress: answer)
    assert len(f.values) == 4


@pytest.mark.parametrize("answer", [None, False, 0, ""])
def test_empty_answers_are_not(answer):
    assert dfo.minimize(sphere, X0, method="cma", budget=30, callback=lambda progress: answer).nfev == 30


def test_forms_of_scipy():
    got = {}

    def by_word(intermediate_result):
        got["word"] = (intermediate_result.x.copy(), intermediate_result.fun)

    def by_keyword(*, intermediate_result):
        got["keyword"] = (intermediate_result.x.copy(), intermediate_result.fun)

    class Method:
        def __call__(self, intermediate_result):
            got["method"] = (intermediate_result.x.copy(), intermediate_result.fun)

    def by_point(xk):
        got["xk"] = (xk.copy(), sphere(xk))

    def by_point_and_more(x, *args):
        got["x"] = (x.copy(), sphere(x))
        assert args == ()

    hooks = [by_word, by_keyword, Method(), by_point, by_point_and_more, lambda p: got.update(ours=(p.x.copy(), p.fun))]
    res = dfo.minimize(sphere, X0, method="nelder-mead", budget=50, callback=hooks)
    assert len(got) == 6
    for x, fun in got.values():
        np.testing.assert_array_equal(x, res.x)
        assert fun == res.fun


def test_hooks_may_keep_and_change_what_they_get():
    kept = []

    def hook(xk):
        kept.append(xk)
        xk[:] = 77.0

    res = dfo.minimize(sphere, X0, method="nelder-mead", budget=60, callback=hook)
    assert res.fun == sphere(res.x) < 5
    assert len({id(x) for x in kept}) == len(kept)


def test_hooks_run_in_order_until_one_ends_it():
    calls = []

    def stop(progress):
        calls.append("stop")
        raise StopIteration

    hooks = [lambda p: calls.append("first"), stop, lambda p: calls.append("never")]
    dfo.minimize(sphere, X0, method="cma", callback=hooks)
    assert calls == ["first", "stop"]


def test_errors_of_hooks_come_out():
    def hook(progress):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        dfo.minimize(sphere, X0, callback=hook, budget=20)


@pytest.mark.parametrize("wrong", [3, "print", [print, 3], {"a": print}])
def test_hooks_that_are_none(wrong):
    f = Counted()
    with pytest.raises(errors.InvalidType, match="callback: expected"):
        dfo.minimize(f, X0, callback=wrong)
    assert not f.values


def test_builtins_and_partials_are_hooks(capsys):
    dfo.minimize(sphere, X0, method="cma", budget=10, callback=[print, [].append])
    assert "Progress(" in capsys.readouterr().out


def test_a_run_is_silent(capfd):
    dfo.minimize(sphere, X0, budget=100)
    dfo.minimize(sphere, X0, method="cma", budget=100, options={"disp": False})
    assert capfd.readouterr() == ("", "")


def test_print(capsys):
    stream = io.StringIO()
    dfo.minimize(sphere, X0, method="cma", budget=100, callback=dfo.Print(every=0, file=stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) > 5
    assert all("evaluations" in line and "best" in line and "sigma" in line for line in lines)
    dfo.minimize(sphere, X0, method="cma", budget=100, callback=dfo.Print(every=1e9, file=stream))
    assert len(stream.getvalue().splitlines()) == len(lines) + 1
    dfo.minimize(sphere, X0, method="cma", budget=100, options={"disp": True})
    assert "evaluations" in capsys.readouterr().err


def test_record():
    record, points = dfo.Record(), []
    dfo.minimize(
        lambda x: points.append(x.copy()) or sphere(x),
        X0,
        bounds=[(-3, 3)] * 3,
        method="cma",
        budget=70,
        callback=record,
    )
    np.testing.assert_array_equal(record.X, points)
    np.testing.assert_array_equal(record.f, [sphere(x) for x in points])
    assert dfo.Record().X.shape == (0, 0)
    named = dfo.Record()
    dfo.minimize(lambda p: p["a"], {"a": dfo.Float(0, 1)}, method="cma", budget=12, callback=named)
    assert set(named.points[0]) == {"a"}


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("method", VECTORS)
def test_first_signal_returns_the_result(method, number):
    before = signal.getsignal(number)
    f = Counted()
    f.f = lambda x: (signal.raise_signal(number) if len(f.values) == 12 else None) or sphere(x)
    res = dfo.minimize(f, X0, method=method, budget=3000)
    assert (res.status, res.success, res.nfev) == ("interrupted", False, 13)
    assert res.fun == min(f.values)
    assert signal.getsignal(number) is before


def test_second_signal_raises():
    def f(x):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return 1.0

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        dfo.minimize(f, X0, method="cma", budget=100)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_inner_run_ends_the_outer_one():
    def f(x):
        inner = dfo.minimize(lambda y: signal.raise_signal(signal.SIGINT) or sphere(y), X0, method="cma", budget=50)
        assert inner.status == "interrupted"
        return sphere(x)

    res = dfo.minimize(f, X0, method="cma", budget=50)
    assert (res.status, res.nfev) == ("interrupted", 1)


def test_handlers_of_others_are_left_alone():
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    try:
        res = dfo.minimize(lambda x: signal.raise_signal(signal.SIGINT) or sphere(x), X0, method="cma", budget=9)
    finally:
        signal.signal(signal.SIGINT, before)
    assert res.status == "budget"
    assert len(caught) == 9


def test_runs_in_other_threads_change_no_handler():
    results = []
    thread = threading.Thread(target=lambda: results.append(dfo.minimize(sphere, X0, method="cma", budget=30)))
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    assert signal.getsignal(signal.SIGINT) is before
    thread.join()
    assert results[0].nfev == 30


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to send")
def test_a_killed_script_prints_its_result():
    script = """
import os, signal, threading, dfo
calls = []
def f(x):
    if not calls: threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    calls.append(1)
    return float(x @ x)
res = dfo.minimize(f, [1.0, 2.0], method="cma", timeout=60, budget=10**9)
print(res.status, res.nfev == len(calls), res.fun < 1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("interrupted True True\n", "")
