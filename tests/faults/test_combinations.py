"""Arguments in combinations that nobody writes down: every run keeps its budget, its space and its word."""

import json
import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ledger import SOLVERS, Ledger

import dfo
from dfo.errors import EvaluationWarning
from dfo.solvers import solver_class
from dfo.spaces import Box

NAMED = {"rate": dfo.Float(1e-3, 1, log=True), "layers": dfo.Int(1, 4), "rule": dfo.Choice(["a", "b", "c"])}
SPACES = {
    "free": ([0.5, 0.5, 0.5], None),
    "box": ([0.5, 0.5, 0.5], [(-2, 2)] * 3),
    "corner": ([-2.0, 2.0, 2.0], [(-2, 2)] * 3),
    "half": ([0.5, 0.5], [(None, 1), (0, None)]),
    "mixed": ([0.5, 0.5], [(None, None), (0, 1)]),
    "fixed": ([0.5, 0.5], [(0.5, 0.5), (0, 1)]),
    "integers": (Box(-3 * np.ones(2), 3 * np.ones(2), np.array([True, False])), None),
    "named": (NAMED, None),
    "no start": (None, [(-1, 3)] * 2),
}
STOPS = {
    "none": None,
    "target": dfo.Target(0.3),
    "stalled": dfo.Stalled(20),
    "steps": dfo.MaxSteps(3),
    "both": dfo.Target(-1.0) | dfo.MaxEvals(17),
    "now": dfo.MaxTime(0.0),
}
FAULTS = {
    "none": None,
    "nan": lambda f, n, x: math.nan if n % 4 == 2 else f,
    "plateau": lambda f, n, x: math.floor(2 * f) / 2,
    "raises": lambda f, n, x: f if n % 5 else 1 / 0,
}


def numbers(x):
    return np.array([math.log10(x["rate"]), x["layers"] / 4, "abc".index(x["rule"])] if isinstance(x, dict) else x)


def drawn(number):
    """Return the arguments of combination ``number``."""
    random = np.random.default_rng(number)
    one_of = lambda *choices: choices[random.integers(len(choices))]  # noqa: E731
    case = {
        "method": one_of(*SOLVERS, "auto"),
        "space": one_of(*SPACES),
        "stop": one_of(*STOPS),
        "fault": one_of(*FAULTS),
        "budget": int(random.integers(0, 90)),
        "batch": one_of(None, None, 1, 2, 5, 12),
        "seed": int(random.integers(0, 2**62)),
        "noise": one_of(None, False, True, 0.1),
        "workers": one_of("none", "threads", "map"),
        "constrained": one_of(True, False, False),
        "known": one_of(True, False),
    }
    if case["method"] == "auto":
        case["batch"] = None
    elif "violations" not in solver_class(case["method"]).handles:
        case["constrained"] = False
    return case


def run(case, workers):
    """Run a combination and return the ledger and the result."""
    x0, bounds = SPACES[case["space"]]
    ledger = Ledger(FAULTS[case["fault"]])
    arguments = {name: case[name] for name in ("method", "budget", "batch", "seed", "noise")}
    if case["known"] and isinstance(x0, list):
        arguments["known"] = ([np.array(x0), np.array(x0)], [1.0, math.nan])
    if case["constrained"]:
        arguments["constraints"] = {"type": "ineq", "fun": lambda x: 0.8 - numbers(x)[-1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)
        res = dfo.minimize(
            lambda x: ledger(numbers(x)), x0, bounds=bounds, stop=STOPS[case["stop"]], on_error="record",
            workers=workers, **arguments,
        )  # fmt: skip
    return ledger, res


def box_of(name):
    x0, bounds = SPACES[name]
    if name == "named":
        return dfo.Named(NAMED)
    if bounds is None:
        return x0 if isinstance(x0, Box) else dfo.Free(3)
    return Box(*np.array([[-np.inf if a is None else a, np.inf if b is None else b] for a, b in bounds]).T)


@pytest.mark.parametrize("number", range(300))
def test_combinations(number):
    case = drawn(number)
    with ThreadPoolExecutor(1) as threads:
        workers = {"none": None, "threads": threads, "map": map}[case["workers"]]
        ledger, res = run(case, workers)
    limit = min(case["budget"], 17 if case["stop"] == "both" else case["budget"])
    assert len(ledger) == res.nfev == len(res.history) <= limit, case
    assert res.nfail == sum(not math.isfinite(f) for f in res.history.fun), case
    assert box_of(case["space"]).contains(res.x), case
    assert math.isfinite(res.fun) or res.nfail == res.nfev or case["noise"], case
    assert type(res.success) is bool
    json.loads(res.to_json())
    if workers is not None and case["stop"] in ("none", "stalled", "steps"):  # the others may cut a batch short
        _, serial = run(case, None)
        assert np.array_equal(serial.history.fun, res.history.fun), case
        assert serial.status == res.status, case


def test_auto_respects_a_batch():
    ledger = Ledger()
    assert dfo.minimize(ledger, [0.5] * 3, batch=4, noise=False, budget=90).nfev <= 90
