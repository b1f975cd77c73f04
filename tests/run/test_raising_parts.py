"""Constraints and pools that raise: the result so far is carried, and recording goes on."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dfo


def sphere(x):
    return float(x @ x)


class Breaks:
    """A constraint that raises at its seventh call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        if self.calls == 7:
            raise ArithmeticError("no mesh")
        return 1.0 - x[0]


def test_a_constraint_that_raises_carries_the_result():
    constraint = {"type": "ineq", "fun": Breaks()}
    with pytest.raises(ArithmeticError, match="no mesh") as caught:
        dfo.minimize(sphere, [0.5, 0.5], method="cma", constraints=constraint, budget=60)
    result = caught.value.result
    assert result.status == "error"
    assert np.isfinite(result.fun)
    assert result.nfev == 12  # the second generation of six was evaluated before its constraints


def test_a_constraint_that_raises_can_be_recorded():
    constraint = {"type": "ineq", "fun": Breaks()}
    res = dfo.minimize(sphere, [0.5, 0.5], method="cma", constraints=constraint, budget=60, on_error="record")
    assert (res.status, res.nfev, res.violation) == ("budget", 60, 0.0)


def test_values_before_the_one_that_raised_in_a_pool_are_kept():
    def f(x, seen=[]):  # noqa: B006
        seen.append(x)
        if len(seen) == 9:
            raise ArithmeticError("no mesh")
        return sphere(x)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ArithmeticError) as caught:
        dfo.minimize(f, [0.5, 0.5], method="cma", workers=pool, budget=60)
    values = caught.value.result.history.fun
    assert np.isfinite(values[:8]).all()
    assert len(values) == 12


class Dear:
    """An oracle whose evaluations cost four each, with noise."""

    gives = frozenset({"values", "ranking"})
    max_batch = None
    price = 4.0

    def start(self, lanes, key):
        return ()

    def evaluate(self, batch, memory):
        X = batch.dense()
        return dfo.feedback.Values((X**2).sum(axis=1), cost=np.full(len(X), self.price)), memory


def test_re_evaluations_are_paid_from_the_budget_at_their_price():
    res = dfo.minimize(Dear(), [1.0, 2.0], method="cma", budget=400, noise=True)
    assert res.cost == 400.0
    assert res.nfev == 100
