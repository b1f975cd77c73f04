"""Ctrl-C and SIGTERM, really sent to a real process; and the state of the process, which a run leaves as it was."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest
from ledger import METHODS, SOLVERS, Ledger

import dfo

SIGNALS = (signal.SIGINT, signal.SIGTERM)

HEADER = """
import json, os, signal, sys, time, warnings
import numpy as np
import dfo
ready = [False]
def say(word):
    print(word, flush=True)
def slow(x):
    if not ready[0]:
        ready[0] = True
        say("ready")
    time.sleep(0.005)
    return float(((x - 0.3) ** 2).sum())
def report(res):
    content = {"status": res.status, "success": res.success, "nfev": res.nfev, "fun": res.fun,
               "history": len(res.history), "x": len(res.x), "message": res.message}
    say(json.dumps(content))
def handlers():
    return [signal.getsignal(n) is d for n, d in
            ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))]
"""


class Child:
    """A Python process that runs ``code`` after the header and says "ready" inside its first evaluation."""

    def __init__(self, code, ignore_sigint=False):
        here = "" if ignore_sigint else "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        command = [sys.executable, "-c", here + HEADER + textwrap.dedent(code)]
        if ignore_sigint:  # as nohup and "&" in a script do
            command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self):
        return self.process.stdout.readline().strip()

    def send(self, number, pause=0.05):
        time.sleep(pause)
        self.process.send_signal(number)

    def end(self):
        out, err = self.process.communicate(timeout=20)
        return out.strip().splitlines(), err


@pytest.mark.parametrize(
    ("method", "number"),
    [*((method, signal.SIGINT) for method in METHODS), *((method, signal.SIGTERM) for method in SOLVERS)],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_first_signal_gives_a_complete_result(method, number):
    child = Child(f"""
        res = dfo.minimize(slow, [1.0] * 3, method={method!r}, bounds=[(-2, 2)] * 3, budget=100_000)
        report(res)
        say(handlers())
    """)
    child.send(number)
    lines, err = child.end()
    assert child.process.returncode == 0, err
    res = json.loads(lines[0])
    assert (res["status"], res["success"], res["x"]) == ("interrupted", False, 3)
    assert res["message"] == "The run was interrupted."
    assert 1 <= res["nfev"] == res["history"] < 2000
    assert np.isfinite(res["fun"])
    assert lines[1] == "[True, True]"
    assert err == ""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_the_second_signal_raises_at_once(number):
    child = Child("""
        def stuck(x):
            slow(x)
            for _ in range(600):
                time.sleep(0.05)
            return 0.0
        try:
            dfo.minimize(stuck, [1.0] * 3, method="cma", budget=1000)
        except KeyboardInterrupt:
            say("raised")
            say(handlers())
    """)
    child.send(number)
    child.send(number, 0.3)
    lines, err = child.end()
    assert lines == ["raised", "[True, True]"], err


def test_without_a_handler_the_second_signal_ends_the_process():
    child = Child("""
        def stuck(x):
            slow(x)
            time.sleep(30)
        dfo.minimize(stuck, [1.0] * 3, method="cma", budget=1000)
    """)
    child.send(signal.SIGINT)
    child.send(signal.SIGINT, 0.3)
    _, err = child.end()
    assert child.process.returncode != 0
    assert "KeyboardInterrupt" in err


def test_a_signal_ends_nested_runs_from_the_inside_out():
    child = Child("""
        inner = []
        def outer(x):
            res = dfo.minimize(lambda y: slow(y) + float(x @ x), [1.0, 1.0], method="nelder-mead", budget=200)
            inner.append(res.status)
            return res.fun
        res = dfo.minimize(outer, [1.0] * 3, method="cma", budget=100)
        report(res)
        say(json.dumps(inner))
        say(handlers())
    """)
    child.send(signal.SIGINT, 0.3)
    lines, err = child.end()
    assert json.loads(lines[0])["status"] == "interrupted", err
    assert json.loads(lines[1])[-1] == "interrupted"
    assert lines[2] == "[True, True]"


def test_a_run_in_the_background_where_sigint_is_ignored_hears_sigterm():
    child = Child(
        """
        report(dfo.minimize(slow, [1.0] * 3, method="cma", budget=100_000))
        say(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
        """,
        ignore_sigint=True,
    )
    child.send(signal.SIGINT)
    child.send(signal.SIGTERM, 0.2)
    lines, err = child.end()
    assert json.loads(lines[0])["status"] == "interrupted", err
    assert lines[1] == "True"


def test_the_users_own_handler_stays_in_charge():
    child = Child("""
        caught = []
        signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
        mine = signal.getsignal(signal.SIGINT)
        res = dfo.minimize(slow, [1.0] * 3, method="cma", budget=100)
        report(res)
        say(json.dumps([len(caught), signal.getsignal(signal.SIGINT) is mine]))
    """)
    child.send(signal.SIGINT)
    lines, err = child.end()
    assert json.loads(lines[0])["status"] == "budget", err
    assert lines[1] == "[1, true]"


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_an_interrupted_run_says_so_even_when_everything_failed(on_error):
    child = Child(f"""
        warnings.simplefilter("ignore")
        def failing(x):
            slow(x)
            return float("nan")
        res = dfo.minimize(failing, [1.0] * 3, method="cma", budget=100_000, on_error={on_error!r})
        report(res)
    """)
    child.send(signal.SIGTERM)
    lines, err = child.end()
    assert json.loads(lines[0])["status"] == "interrupted", err


# ---------------------------------------------------------------------- what a run leaves behind


def process_state():
    states = {
        "numpy errors": np.geterr(),
        "error call": np.geterrcall(),
        "warning filters": list(warnings.filters),
        "show warning": warnings.showwarning,
        "sigint": signal.getsignal(signal.SIGINT),
        "sigterm": signal.getsignal(signal.SIGTERM),
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "threads": {t.name for t in threading.enumerate()},
        "recursion": sys.getrecursionlimit(),
        "print": np.get_printoptions(),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook),
        "files": os.listdir("."),
    }
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        states |= {"torch": torch.get_rng_state().tolist(), "grad": torch.is_grad_enabled(),
                   "dtype": torch.get_default_dtype(), "torch threads": torch.get_num_threads()}  # fmt: skip
    return states


def quiet(fun, method, **changed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dfo.minimize(fun, [0.5] * 3, method=method, bounds=[(-2, 2)] * 3, budget=60, **changed)


def fails(x):
    raise ValueError("no value")


def refused(fun, method, **changed):
    with pytest.raises(ValueError, match=r"no value|seed"):
        quiet(fun, method, **changed)


ENDS = {
    "budget": lambda method: quiet(Ledger(), method),
    "failures": lambda method: quiet(Ledger(lambda f, n, x: np.nan), method),
    "target": lambda method: quiet(Ledger(), method, stop=dfo.Target(1.0)),
    "exception": lambda method: refused(fails, method),
    "refusal": lambda method: refused(Ledger(), method, seed=-1),
    "callback": lambda method: quiet(Ledger(), method, callback=lambda progress: next(iter(()))),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_the_process_as_it_was(method, end, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet(Ledger(), method)  # what is imported on first use is no part of this
    before = process_state()
    ENDS[end](method)
    after = process_state()
    assert {name for name in before if before[name] != after[name]} == set()


@pytest.mark.parametrize("method", METHODS)
def test_the_users_random_stream_does_not_change_a_run_nor_the_other_way_round(method):
    def run(user_seed):
        np.random.seed(user_seed)
        random.seed(user_seed)
        ledger = Ledger(lambda f, n, x: f + 0.0 * np.random.random() * random.random())
        quiet(ledger, method)
        return ledger.points, np.random.random(3).tolist()

    kept, kept_random = np.random.get_state(), random.getstate()
    (first, stream), (second, other) = run(1), run(2)
    np.random.seed(1)
    drawn = [np.random.random() for _ in range(len(first))]
    expected = np.random.random(3).tolist()
    np.random.set_state(kept)
    random.setstate(kept_random)
    assert np.array_equal(first, second)
    assert len(drawn) == len(first)
    assert stream == expected != other


@pytest.mark.parametrize("method", SOLVERS)
def test_a_run_outside_the_main_thread_works_and_touches_no_handler(method):
    results, before = [], [signal.getsignal(n) for n in SIGNALS]
    thread = threading.Thread(target=lambda: results.append(quiet(Ledger(), method)))
    thread.start()
    thread.join()
    assert results[0].nfev == 60
    assert [signal.getsignal(n) for n in SIGNALS] == before
