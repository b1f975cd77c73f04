"""What a run returns: every field always, in the user's own terms, printable and writable."""

import json
import math
import pickle
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

import dfo
from dfo.run.result import STATUS

X0 = [1.0, 2.0]


def sphere(x):
    return float((x**2).sum())


def failing(x):
    raise ValueError("mine")


def ended(status):
    """A run that ends in the given way."""
    runs = {
        "target": lambda: dfo.minimize(sphere, X0, method="cma", stop=dfo.Target(1)),
        "finished": lambda: dfo.minimize(sphere, X0, method="nelder-mead"),
        "unconverged": lambda: dfo.minimize(
            sphere, X0, method="scipy:SLSQP",
            constraints=[{"type": "ineq", "fun": lambda x: x[0] - 2}, {"type": "ineq", "fun": lambda x: 1 - x[0]}],
        ),
        "budget": lambda: dfo.minimize(sphere, X0, method="cma", budget=20),
        "steps": lambda: dfo.minimize(sphere, X0, method="cma", stop=dfo.MaxSteps(1)),
        "time": lambda: dfo.minimize(sphere, X0, method="cma", timeout=0),
        "stagnation": lambda: dfo.minimize(lambda x: 1.0, X0, method="random", stop=dfo.Stalled(9)),
        "callback": lambda: dfo.minimize(sphere, X0, method="cma", callback=lambda p: next(iter([]))),
        "interrupted": lambda: dfo.minimize(_interrupting, X0, method="cma"),
        "error": lambda: _result_of(lambda: dfo.minimize(failing, X0, method="cma")),
        "all_failed": lambda: dfo.minimize(lambda x: math.nan, X0, method="cma", budget=20),
    }  # fmt: skip
    return runs[status]()


def _interrupting(x):
    import signal

    signal.raise_signal(signal.SIGINT)
    return 1.0


def _result_of(run):
    with pytest.raises(ValueError, match="mine") as caught:
        run()
    return caught.value.result


TYPES = {
    "fun": float, "success": bool, "status": str, "message": str, "nfev": int, "nit": int, "nfail": int,
    "seconds": float, "best_fun": float, "fun_stderr": float, "violation": float, "history": dfo.History,
    "method": str, "reason": str, "seed": int,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::dfo.errors.EvaluationWarning")
@pytest.mark.parametrize("status", sorted(STATUS.keys() - {"unstored"}))  # that one needs a full disk: tests/faults
def test_every_field_whatever_the_end(status):
    res = ended(status)
    assert res.status == status
    assert res.success is (status in ("target", "finished"))
    for name, kind in TYPES.items():
        assert type(getattr(res, name)) is kind, name
    assert res.message
    assert res.x.shape == (2,)
    assert len(res.history) == res.nfev
    assert {"dfo", "numpy", "rng"} <= set(res.versions)
    assert json.loads(res.to_json())["status"] == status
    assert res.message in repr(res)


@pytest.mark.filterwarnings("ignore::dfo.errors.EvaluationWarning")
def test_scipy_s_habits():
    """A mapping with attributes, frozen."""
    res = ended("budget")
    assert list(res) == res.keys() == [f.name for f in fields(res)]
    assert res["fun"] == res.fun
    assert {"x", "fun", "nfev", "nit", "success", "status", "message"} <= set(res)
    assert "x" in res
    assert "jac" not in res
    assert dict(res)["nfev"] == 20
    with pytest.raises(KeyError):
        res["jac"]
    with pytest.raises(FrozenInstanceError):
        res.fun = 0.0


def test_json():
    res = dfo.minimize(sphere, X0, method="cma", budget=30, seed=5)
    content = json.loads(res.to_json())
    assert set(content) == set(res) - {"history"}
    assert content["x"] == res.x.tolist()
    assert content["fun"] == res.fun
    assert content["seed"] == 5
    assert all(isinstance(v, float) for v in content["gauges"].values())
    nothing = dfo.minimize(sphere, X0, method="cma", budget=0)
    assert json.loads(nothing.to_json())["fun"] is None
    tensor = dfo.minimize(lambda x: (x**2).sum(), torch.ones(2), method="cma", budget=9)
    assert len(json.loads(tensor.to_json())["x"]) == 2
    named = dfo.minimize(lambda p: p["a"], {"a": dfo.Int(1, 9), "b": dfo.Choice([None, (1, 2)])}, budget=9)
    assert set(json.loads(named.to_json())["x"]) == {"a", "b"}
    word = dfo.minimize(len, dfo.Text("ab", 2), budget=9)
    assert json.loads(word.to_json())["x"] == word.x


def test_repr_is_short_and_says_what_matters():
    res = dfo.minimize(sphere, X0, budget=200, noise=None)
    lines = repr(res).splitlines()
    names = [line.split(":")[0].strip() for line in lines]
    assert names[:5] == ["message", "success", "status", "fun", "x"]
    assert {"nfev", "nit", "seconds", "method", "seed"} <= set(names)
    assert res.reason in repr(res)
    long = dfo.minimize(lambda x: float(x @ x), np.ones(500), method="sep-cma", budget=20)
    assert len(repr(long)) < 1000
    assert len(repr(long.history)) < 80
    with pytest.warns(dfo.errors.EvaluationWarning):
        failed = dfo.minimize(lambda x: math.nan if x[0] < 1 else 1.0, X0, method="cma", budget=20)
    assert f"({failed.nfail} failed)" in repr(failed)
    beyond = {"type": "ineq", "fun": lambda x: x[0] - 9}
    assert "violation" in repr(dfo.minimize(sphere, X0, method="cma", budget=8, constraints=beyond))
    noisy = dfo.minimize(sphere, X0, method="cma", budget=100, noise=True)
    assert noisy.fun_stderr == 0.0 or "+-" in repr(noisy)


def test_method_can_be_written_again():
    """What ran is shown as it would be written, and is the same run when written."""
    names = {name: getattr(dfo, name) for name in dfo.__all__}
    for name in ("cma", "nelder-mead", "random", "sep-cma", "zo-sgd"):
        res = dfo.minimize(sphere, X0, method=name, budget=60, seed=2)
        again = dfo.minimize(sphere, X0, method=eval(res.method, names), budget=60, seed=2)
        np.testing.assert_array_equal(res.history.fun, again.history.fun)
        assert "space" not in res.method


def test_history():
    values = []
    res = dfo.minimize(lambda x: values.append(sphere(x)) or values[-1], X0, method="cma", budget=50)
    np.testing.assert_array_equal(res.history.fun, values)
    np.testing.assert_array_equal(res.history.best_fun, np.minimum.accumulate(values))
    np.testing.assert_array_equal(res.history.nfev, np.arange(1, 51))
    assert len(res.history) == 50
    assert res.history.violation is None
    empty = dfo.minimize(sphere, X0, method="cma", budget=0).history
    assert len(empty) == empty.best_fun.size == empty.nfev.size == 0
    assert repr(empty)


def test_history_with_constraints():
    beyond = {"type": "ineq", "fun": lambda x: x[0] - 1.5}
    res = dfo.minimize(sphere, X0, method="cma", budget=60, constraints=beyond)
    history = res.history
    feasible = history.violation <= 0
    assert 0 < feasible.sum() < 60
    first = int(feasible.argmax())
    assert np.isinf(history.best_fun[:first]).all()
    np.testing.assert_array_equal(
        history.best_fun[first:], np.minimum.accumulate(np.where(feasible, history.fun, np.inf))[first:]
    )


def test_negated():
    res = dfo.minimize(sphere, X0, method="cma", budget=30)
    back = res.negated().negated()
    assert res.negated().fun == -res.fun
    assert res.negated().best_fun == -res.best_fun
    assert (back.fun, back.best_fun) == (res.fun, res.best_fun)
    np.testing.assert_array_equal(back.history.fun, res.history.fun)
    np.testing.assert_array_equal(back.history.best_fun, res.history.best_fun)


def test_a_result_can_be_kept():
    res = dfo.minimize(sphere, X0, method="cma", budget=30)
    again = pickle.loads(pickle.dumps(res))
    assert repr(again) == repr(res)
    np.testing.assert_array_equal(again.x, res.x)
