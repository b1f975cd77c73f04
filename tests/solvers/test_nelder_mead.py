"""The simplex method: its geometry, its restarts, its bounds."""

import numpy as np
import pytest
from scipy import optimize

import dfo
from dfo.bench.measures.cma import ellipsoid, rosenbrock
from dfo.feedback import Values
from dfo.random import Key


@pytest.mark.parametrize("d", [2, 5, 8])
def test_reaches_the_minimum_in_no_more_calls_than_scipys(d):
    ours = dfo.minimize(rosenbrock, np.full(d, 0.1), method=dfo.NelderMead(size=0.1), options={"ftol": 1e-9})
    size = np.vstack([np.full(d, 0.1), np.full(d, 0.1) + 0.1 * np.eye(d)])
    theirs = optimize.minimize(
        rosenbrock, np.full(d, 0.1), method="Nelder-Mead",
        options={"adaptive": True, "initial_simplex": size, "xatol": 1e-8, "fatol": 1e-9, "maxfev": 10**5},
    )  # fmt: skip
    assert ours.success
    assert ours.fun < 1e-9
    assert ours.nfev < 1.3 * theirs.nfev


def test_stages_follow_the_textbook_on_a_line():
    solver = dfo.NelderMead(size=1.0, restarts=False)
    state = solver.init(np.array([4.0]), Key(0))
    stages, points = [], []
    for _ in range(6):
        batch = solver.ask(state)
        stages.append(state.stage)
        points.append(batch.X[:, 0].tolist())
        state = solver.tell(state, batch, Values((batch.X[:, 0]) ** 2))
    assert stages[:3] == ["simplex", "reflect", "expand"]
    assert points[:3] == [[4.0, 5.0], [3.0], [2.0]]  # reflected at 4, then twice as far
    assert state.merit[0] <= 4.0


def test_a_new_simplex_avoids_a_bound_and_stays_inside():
    seen = []

    def f(x):
        seen.append(x)
        return float((x**2).sum())

    dfo.minimize(f, [5.0, 5.0], method="nelder-mead", bounds=[(-5, 5)] * 2, budget=200)
    assert np.abs(np.array(seen)).max() <= 5.0
    assert len({tuple(x) for x in seen[:3]}) == 3  # no vertex was projected onto another


def test_restarts_leave_a_local_minimum():
    def two_wells(x):
        return float(min((x[0] + 3) ** 2 + 1.0, 4 * (x[0] - 3) ** 2) + x[1] ** 2)

    once = dfo.minimize(two_wells, [-3.5, 0.5], method="nelder-mead", bounds=[(-5, 5)] * 2)
    again = dfo.minimize(two_wells, [-3.5, 0.5], method="nelder-mead", bounds=[(-5, 5)] * 2, budget=3000)
    assert once.fun == pytest.approx(1.0)
    assert again.fun < 1e-8


def test_a_start_that_fails_everywhere_is_left():
    def hidden(x):
        return float("nan") if x[0] < 0.9 else float((x**2).sum())

    with pytest.warns(dfo.errors.EvaluationWarning):
        res = dfo.minimize(hidden, [0.0, 0.0], method="nelder-mead", bounds=[(-1, 1)] * 2, budget=400)
    assert res.fun == pytest.approx(0.81, abs=1e-4)


def test_ill_conditioning_does_not_stop_it_in_few_variables():
    assert dfo.minimize(ellipsoid, np.ones(4), method="nelder-mead", budget=4000).fun < 1e-8
