"""Other people's optimizers keep dfo's promises: budget, bounds, masks, stops, seeds, and leave no traces."""

import contextlib
import inspect
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.optimize import LinearConstraint, NonlinearConstraint

import dfo
from dfo import errors
from dfo.run.peers import PEERS, SCIPY_GLOBAL, SCIPY_LOCAL, is_peer

LOCAL = [f"scipy:{name}" for name in SCIPY_LOCAL]
GLOBAL = [f"scipy:{name}" for name in SCIPY_GLOBAL]
BOXED = ["scipy:differential_evolution", "scipy:dual_annealing", "scipy:direct", "scipy:shgo"]  # need finite bounds
NEVERGRAD = ["nevergrad:OnePlusOne", "nevergrad:TwoPointsDE", "nevergrad:CMA", "nevergrad:ScrHammersleySearch"]
ALL = [*LOCAL, *GLOBAL, "pycma", *NEVERGRAD]
FREE = [name for name in ALL if name not in BOXED]
ONE_EACH = ["scipy:Nelder-Mead", "scipy:SLSQP", "scipy:differential_evolution", "pycma", "nevergrad:OnePlusOne"]
CONSTRAINED = ["COBYLA", "COBYQA", "SLSQP", "trust-constr", "differential_evolution", "shgo"]
BOX = [(-2.0, 3.0), (-1.0, 4.0), (-3.0, 2.0)]

pytestmark = pytest.mark.filterwarnings("ignore::dfo.errors.EvaluationWarning")


class Seen:
    """An objective that remembers its points."""

    def __init__(self, f=lambda x: float(((x - 0.3) ** 2).sum())):
        self.f, self.points = f, []

    def __call__(self, x):
        self.points.append(np.array(x, dtype=float))
        return self.f(x)

    @property
    def X(self):
        return np.array(self.points)


def rugged(x):
    """No peer converges on this within a few hundred evaluations."""
    return float((x**2).sum() + 3 * np.sin(40 * x).sum() + np.cos(171 * x[0] + 1))


# ---------------------------------------------------------------------- the budget


@pytest.mark.parametrize("budget", [0, 1, 2, 7, 61])
@pytest.mark.parametrize("method", ALL)
def test_budget_is_never_exceeded(method, budget):
    f = Seen(rugged)
    res = dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=budget, options={"restart": True})
    assert len(f.points) == res.nfev == len(res.history) == budget
    assert res.status == "budget"
    assert not res.success
    if budget:
        assert res.fun == min(map(rugged, f.points))
        assert rugged(res.x) == res.fun
    else:
        assert np.isnan(res.fun)
        np.testing.assert_array_equal(res.x, [0.5, 1.0, -1.0])


def test_no_budget_ends_at_a_documented_default():
    f = Seen(rugged)
    res = dfo.minimize(f, [0.5], method="nevergrad:OnePlusOne", bounds=[(-2, 3)])
    assert res.nfev == len(f.points) == 1000


def test_a_budget_within_the_options_is_the_budget():
    for word in ("maxfev", "maxfun"):
        f = Seen(rugged)
        assert dfo.minimize(f, [0.5, 1], method="scipy:L-BFGS-B", options={word: 9}).nfev == 9 == len(f.points)


@pytest.mark.parametrize(
    "method", [*LOCAL, "scipy:basinhopping", "scipy:dual_annealing", "scipy:differential_evolution"]
)
def test_start_is_evaluated(method):
    f = Seen()
    dfo.minimize(f, [0.125, 1.0, -1.0], method=method, bounds=BOX, budget=45)
    np.testing.assert_allclose(f.X[0], [0.125, 1.0, -1.0], rtol=1e-14)  # differential evolution rounds it


# ---------------------------------------------------------------------- bounds


@pytest.mark.parametrize("method", ALL)
def test_no_point_leaves_the_box(method):
    f = Seen(lambda x: float(((x - [9.0, -9.0, 0.1]) ** 2).sum()))
    res = dfo.minimize(f, [3.0, -1.0, 0.0], method=method, bounds=BOX, budget=150)
    lower, upper = np.transpose(BOX)
    assert (np.clip(f.X, lower, upper) == f.X).all()
    if method in (*LOCAL, "scipy:dual_annealing", "scipy:shgo", "scipy:basinhopping"):
        np.testing.assert_allclose(res.x, [3.0, -1.0, 0.1], atol=0.02)


@pytest.mark.parametrize("method", FREE)
def test_half_bounded_and_fixed_variables(method):
    f = Seen(lambda x: float(((x - [-4.0, 9.0, 0.1, 5.0]) ** 2).sum()))
    bounds = [(-1, None), (None, 2), (None, None), (0.7, 0.7)]
    res = dfo.minimize(f, [0.0, 1.0, 0.0, 0.7], method=method, bounds=bounds, budget=200)
    assert (f.X[:, 0] >= -1).all()
    assert (f.X[:, 1] <= 2).all()
    assert (f.X[:, 3] == 0.7).all()
    if method.startswith("scipy"):
        np.testing.assert_allclose(res.x, [-1, 2, 0.1, 0.7], atol=0.02)


@pytest.mark.parametrize("method", ALL)
def test_box_with_a_fixed_variable(method):
    f = Seen()
    dfo.minimize(f, [0.0, 0.7, 1.0], method=method, bounds=[(-1, 1), (0.7, 0.7), (-1, 1)], budget=60)
    assert (f.X[:, 1] == 0.7).all()
    assert (abs(f.X) <= 1).all()


@pytest.mark.parametrize("method", [*LOCAL, *GLOBAL])
def test_all_variables_fixed(method):
    f = Seen()
    res = dfo.minimize(f, [0.7, 1.0], method=method, bounds=[(0.7, 0.7), (1, 1)], budget=60)
    assert f.X.tolist() == [[0.7, 1.0]]
    assert res.success
    assert "fixed" in res.message


@pytest.mark.parametrize("method", LOCAL)
def test_differences_and_first_steps_stay_inside_a_small_box(method):
    """scipy's COBYLA, left alone, steps by 1 whatever the bounds are; the gradients are taken at the corner."""
    f = Seen(lambda x: float((((x - 5.0) * 1e3 - 0.3) ** 2).sum()))
    bounds = [(5.0, 5.001)] * 2
    res = dfo.minimize(f, [5.001, 5.0], method=method, bounds=bounds, budget=400)
    assert ((f.X >= 5.0) & (f.X <= 5.001)).all()
    if method in ("scipy:L-BFGS-B", "scipy:SLSQP", "scipy:TNC", "scipy:Powell", "scipy:COBYLA", "scipy:COBYQA"):
        assert res.fun < 1e-3  # the others stop by absolute lengths, or know no bounds


@pytest.mark.parametrize("method", BOXED)
def test_global_methods_of_scipy_ask_for_bounds(method):
    f = Seen()
    with pytest.raises(errors.InvalidArgument, match="finite bounds"):
        dfo.minimize(f, [0.5, 1.0], method=method, bounds=[(0, 1), (0, None)], budget=50)
    assert not f.points


# ---------------------------------------------------------------------- constraints


def parabola(x):
    return float((x[0] - 1) ** 2 + (x[1] - 2.5) ** 2)


WEDGE = {  # x0 - 2 x1 + 2 >= 0, whose nearest point to (1, 2.5) is (1.4, 1.7)
    "dict": {"type": "ineq", "fun": lambda x, c: x[0] - 2 * x[1] + c, "args": (2,)},
    "nonlinear": NonlinearConstraint(lambda x: x[0] - 2 * x[1], -2, np.inf),
    "linear": LinearConstraint([[1.0, -2.0]], -2, np.inf),
}


@pytest.mark.parametrize("form", WEDGE)
@pytest.mark.parametrize("method", CONSTRAINED)
def test_constraints_reach_the_methods_that_take_them(method, form):
    f = Seen(parabola)
    res = dfo.minimize(
        f, [2.0, 0.5], method=f"scipy:{method}", constraints=WEDGE[form], bounds=[(0, 4), (0, 4)], budget=3000
    )
    np.testing.assert_allclose(res.x, [1.4, 1.7], atol=2e-3)
    assert res.violation == 0.0
    assert res.success, res.message
    assert len(res.history.violation) == res.nfev


@pytest.mark.parametrize("method", CONSTRAINED)
def test_constraints_see_the_user_s_points(method):
    """Encoded coordinates (an integer) and fixed variables: a constraint is asked about what the objective sees."""
    asked, seen = [], Seen(lambda x: float((x[0] - 1) ** 2 + (x[1] - 3) ** 2))
    space = dfo.Box([0, 0], [4, 8], integer=[False, True])
    constraint = {"type": "ineq", "fun": lambda x: asked.append(np.array(x)) or x[0] - 1.5}
    res = dfo.minimize(seen, space, method=f"scipy:{method}", constraints=[constraint], budget=300)
    assert all((x[1] == round(x[1])) and 0 <= x[0] <= 4 for x in asked)
    assert res.violation == 0.0
    assert res.x[0] >= 1.5 - 1e-8

    asked.clear()
    dfo.minimize(
        parabola, [2.0, 1.0], method=f"scipy:{method}", constraints=constraint, bounds=[(0, 4), (1, 1)], budget=100
    )
    assert all(x.shape == (2,) and x[1] == 1.0 for x in asked)


def test_linear_constraint_with_a_fixed_variable():
    above = LinearConstraint([[1.0, -2.0]], -1, np.inf)
    bounds = [(0, 4), (1.25, 1.25)]
    res = dfo.minimize(parabola, [2.0, 1.25], method="scipy:SLSQP", constraints=above, bounds=bounds, budget=200)
    np.testing.assert_allclose(res.x, [1.5, 1.25], atol=1e-6)


def test_infeasible_problem_is_reported():
    conflict = [{"type": "ineq", "fun": lambda x: x[0] - 2}, {"type": "ineq", "fun": lambda x: 1 - x[0]}]
    res = dfo.minimize(parabola, [1.5, 1.0], method="scipy:SLSQP", constraints=conflict, budget=200)
    assert res.violation > 0.9
    assert not res.success
    assert res.status == "unconverged"
    own = scipy.optimize.minimize(parabola, [1.5, 1.0], method="SLSQP", constraints=conflict)
    assert res.message == own.message


def test_nevergrad_is_told_the_violation():
    res = dfo.minimize(
        parabola, [2.0, 0.5], method="nevergrad:OnePlusOne", constraints=WEDGE["dict"], bounds=[(0, 4)] * 2, budget=400
    )
    assert res.violation == 0.0
    assert res.fun < 1.0


@pytest.mark.parametrize("method", ["pycma", "scipy:Nelder-Mead", "scipy:L-BFGS-B", "scipy:direct"])
def test_constraints_are_refused_where_they_would_be_ignored(method):
    f = Seen(parabola)
    with pytest.raises(errors.InvalidArgument, match="takes no constraints"):
        dfo.minimize(f, [2.0, 0.5], method=method, constraints=WEDGE["dict"], bounds=[(0, 4)] * 2, budget=50)
    assert not f.points


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("method", ALL)
def test_unknown_option_is_an_error_that_names_the_nearest(method):
    near = {
        "pycma": "popsize",
        "scipy:differential_evolution": "popsize",
        "scipy:dual_annealing": "initial_temp",
        "scipy:direct": "len_tol",
        "scipy:shgo": "iters",
        "scipy:basinhopping": "niter",
        "scipy:TNC": "minfev",
    }
    right = near.get(method, "num_workers" if "nevergrad" in method else "maxiter")
    wrong = right + "s"
    f = Seen()
    with pytest.raises(errors.UnknownName, match=f"option of {method} '{wrong}'. Did you mean '{right}'"):
        dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, options={wrong: 3}, budget=50)
    assert not f.points


@pytest.mark.parametrize("method", ["scipy:SLSQP", "scipy:differential_evolution"])
def test_processes_of_scipy_s_own_would_not_be_counted(method):
    with pytest.raises(errors.UnknownName, match="workers"):
        dfo.minimize(parabola, [0.5, 1.0], method=method, bounds=BOX[:2], options={"workers": 2}, budget=50)


@pytest.mark.parametrize("name", SCIPY_LOCAL)
def test_every_documented_option_of_scipy_is_known(name):
    module = scipy.optimize._minimize
    short = {"L-BFGS-B": "lbfgsb", "trust-constr": "trustregion_constr"}.get(name, name.lower().replace("-", ""))
    parameters = inspect.signature(getattr(module, f"_minimize_{short}")).parameters
    ours = {"f", "fun", "func", "x0", "args", "callback", "bounds", "constraints", "jac", "hess", "hessp", "grad"}
    ours |= {"workers", "unknown_options"}
    for option, parameter in parameters.items():
        if option in ours | {"mesg_num", "iprint", "maxfev", "maxfun"}:  # the last two are the budget
            continue
        default = parameter.default
        options = {} if default is inspect.Parameter.empty or default is None else {option: default}
        assert dfo.minimize(parabola, [0.5, 1.0], method=f"scipy:{name}", options=options, budget=3).nfev == 3


@pytest.mark.parametrize("method", [name for name in LOCAL if name != "scipy:CG"])
def test_tolerance_is_passed_on(method):
    loose, tight = (dfo.minimize(rosen, [-1.0, 2.0], method=method, tol=tol, budget=600) for tol in (1e-1, 1e-7))
    assert loose.nfev < tight.nfev
    assert tight.fun < loose.fun


def rosen(x):
    return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)


@pytest.mark.parametrize("method", ["scipy:direct", "scipy:shgo", "scipy:dual_annealing", "nevergrad:OnePlusOne"])
def test_tolerance_of_a_method_without_one_is_an_error(method):
    with pytest.raises(errors.InvalidArgument, match="has no tolerance"):
        dfo.minimize(parabola, [0.5, 1.0], method=method, bounds=BOX[:2], tol=1e-3, budget=50)


def test_tolerance_of_the_others():
    for method in ("scipy:differential_evolution", "scipy:basinhopping", "pycma"):
        options = {"niter": 1} if "hop" in method else {}
        loose, tight = (
            dfo.minimize(
                rosen, [-1.0, 2.0], method=method, bounds=BOX[:2], tol=tol, stop=dfo.MaxEvals(4000),
                options={"bipop": False} if method == "pycma" else options,
            )
            for tol in (1.0, 1e-7)
        )  # fmt: skip
        assert loose.nfev < tight.nfev, method


def test_options_keep_the_peer_s_own_names():
    simplex = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    f = Seen(parabola)
    dfo.minimize(f, [0.5, 1.0], method="scipy:nelder-mead", options={"initial_simplex": simplex}, budget=3)
    assert f.X.tolist() == simplex
    res = dfo.minimize(rosen, [0.5, 1.0], method="scipy:Nelder-Mead", options={"xatol": 1.0, "fatol": 1.0})
    assert res.nfev < 20

    sizes = []
    for options in ({"popsize": 5}, {"popsize": 20}):
        record = Seen(parabola)
        dfo.minimize(
            record, [0.5, 1.0], method="scipy:differential_evolution", bounds=BOX[:2],
            options={**options, "maxiter": 1, "polish": False},
        )  # fmt: skip
        sizes.append(len(record.points))
    assert sizes == [20, 80]  # two generations of popsize times two variables

    for word in ("popsize", "population"):
        steps = dfo.minimize(parabola, [0.5, 1.0], method="pycma", options={word: 10}, budget=30).nit
        assert steps == 3


@pytest.mark.parametrize("method", [name for name in LOCAL if name != "scipy:TNC"])  # which has none
def test_maxiter_counts_iterations(method):
    x0 = np.zeros(6)
    res = dfo.minimize(wide_rosen, x0, method=method, options={"maxiter": 8})
    own = scipy.optimize.minimize(
        wide_rosen, x0, method=method.partition(":")[2], options={"maxiter": 8}, callback=lambda *_: None
    )
    assert res.nfev == own.nfev
    assert res.message == own.message
    assert res.status == "steps"
    assert not res.success
    if "nit" in own:
        assert res.nit == own.nit


def wide_rosen(x):
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def test_what_the_peer_refuses_is_its_own_value_error():
    f = Seen(parabola)
    options = {"initial_simplex": np.zeros((2, 2))}
    with pytest.raises(ValueError, match="initial_simplex"):
        dfo.minimize(f, [0.5, 1.0], method="scipy:Nelder-Mead", options=options, budget=50)
    assert not f.points
    with pytest.raises(ValueError, match="c1") as caught:
        dfo.minimize(f, [0.5, 1.0], method="scipy:BFGS", options={"c1": 2.0, "c2": 0.1}, budget=50)
    assert caught.value.result.nfev == len(f.points)


def test_names():
    assert all(is_peer(name) for name in PEERS)
    assert is_peer("scipy:cobyqa")
    assert not is_peer("cma")
    with pytest.raises(errors.UnknownName, match="Did you mean 'COBYQA'"):
        dfo.minimize(parabola, [0.5, 1.0], method="scipy:COBYQ")
    with pytest.raises(errors.UnknownName, match="Did you mean 'OnePlusOne'"):
        dfo.minimize(parabola, [0.5, 1.0], method="nevergrad:OnePlusOn")
    with pytest.raises(errors.UnknownName, match="pycma"):
        dfo.minimize(parabola, [0.5, 1.0], method="pyccma")


@pytest.mark.parametrize(("method", "package"), [("pycma", "cma"), ("nevergrad:NGOpt", "nevergrad")])
def test_missing_package_names_the_extra(monkeypatch, method, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.MissingPackage, match=r"pip install 'dfo-optim\[peers\]'"):
        dfo.minimize(parabola, [0.5, 1.0], method=method, budget=50)


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("method", ALL)
def test_failures_are_masked(method, bad):
    f = Seen()
    f.f = lambda x: bad if x[0] < 0.1 and len(f.points) > 1 else float((x**2).sum())
    res = dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=120)
    assert res.nfail == int((f.X[1:, 0] < 0.1).sum())
    assert res.nfail < res.nfev
    if not method.startswith("nevergrad:Scr"):  # which begins elsewhere
        assert 0.01 <= res.fun < 2.0
        assert res.x[0] >= 0.1


@pytest.mark.parametrize("method", ALL)
def test_first_evaluations_failed(method):
    f = Seen()
    f.f = lambda x: np.nan if len(f.points) < 4 else float((x**2).sum())
    res = dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=50, options={"restart": True})
    assert res.nfail == 3
    assert np.isfinite(res.fun)


@pytest.mark.parametrize("method", ALL)
def test_everything_failed(method):
    res = dfo.minimize(lambda x: np.nan, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=40)
    assert res.status == "all_failed"
    assert not res.success
    assert np.isnan(res.fun)
    assert res.nfail == res.nfev > 0


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, StopIteration, FloatingPointError])
@pytest.mark.parametrize("method", ALL)
def test_exception_of_the_objective_comes_out_unchanged(method, error):
    f = Seen()

    def broken(x):
        if len(f.points) == 5:
            raise error("mine")
        return f(x)

    with pytest.raises(error, match="mine") as caught:
        dfo.minimize(broken, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=50, options={"restart": True})
    assert type(caught.value) is error
    assert caught.value.result.nfev == 6
    assert caught.value.result.status == "error"
    assert caught.value.result.fun == min(map(f.f, f.points))


@pytest.mark.parametrize("method", ALL)
def test_recorded_exceptions_are_failures(method):
    calls = []

    def broken(x):
        calls.append(1)
        if len(calls) % 3 == 0:
            raise ZeroDivisionError
        return float((x**2).sum())

    res = dfo.minimize(
        broken, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=30, on_error="record", options={"restart": True}
    )
    assert res.nfev == 30
    assert res.nfail == 10


@pytest.mark.parametrize("method", ONE_EACH)
def test_first_value_that_is_no_number(method):
    with pytest.raises(errors.BadObjective, match="real number"):
        dfo.minimize(lambda x: "low", [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=30)


def test_a_peer_that_breaks_leaves_the_result_so_far(monkeypatch):
    def direct(fun, bounds, maxfun=None, maxiter=None, callback=None):
        fun(np.array([0.5, 0.5]))
        fun(np.array([0.25, 0.5]))
        raise RuntimeError("a defect of the peer")

    monkeypatch.setattr(scipy.optimize, "direct", direct)
    with pytest.raises(RuntimeError, match="a defect of the peer") as caught:
        dfo.minimize(parabola, [0.5, 0.5], bounds=[(0, 1)] * 2, method="scipy:direct", budget=50)
    assert caught.value.result.nfev == 2
    assert caught.value.result.status == "error"
    assert "scipy:direct raised RuntimeError" in caught.value.result.message
    assert any("scipy:direct raised this" in note for note in caught.value.__notes__)


def swallowing(fun, bounds, maxfun=None, maxiter=None, callback=None):
    """A peer that catches everything."""
    for _ in range(9):
        with contextlib.suppress(BaseException):
            fun(np.array([0.5, 0.25]))
    return scipy.optimize.OptimizeResult(x=np.zeros(2), success=True, message="all is well", nit=1)


def test_a_peer_that_swallows_everything(monkeypatch):
    monkeypatch.setattr(scipy.optimize, "direct", swallowing)
    kwargs = {"bounds": [(0, 1)] * 2, "method": "scipy:direct"}
    f = Seen(lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        dfo.minimize(f, [0.5, 0.5], budget=50, **kwargs)
    assert len(f.points) == caught.value.result.nfev == 1
    f = Seen(parabola)
    with pytest.raises(errors.InvalidType):
        dfo.minimize(f, [0.5, 0.5], budget=50, callback=lambda progress: True, **kwargs)
    assert len(f.points) == 1
    f = Seen(parabola)
    res = dfo.minimize(f, [0.5, 0.5], budget=4, **kwargs)
    assert (res.status, res.nfev, len(f.points)) == ("budget", 4, 4)
    assert dfo.minimize(f, [0.5, 0.5], budget=40, **kwargs).message == "all is well"


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("method", ALL)
def test_target_ends_at_once(method):
    f = Seen()
    res = dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=2000, stop=dfo.Target(0.9))
    assert res.status == "target"
    assert res.success
    assert [f.f(x) <= 0.9 for x in f.points] == [False] * (res.nfev - 1) + [True]


@pytest.mark.parametrize("method", ALL)
def test_a_hook_ends_at_once(method):
    f = Seen(rugged)

    def hook(progress):
        assert progress.nfev == len(f.points)
        assert progress.best_fun == min(map(rugged, f.points))
        if progress.nfev == 8:
            raise StopIteration("enough")

    options = {"restart": True}
    res = dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=90, callback=hook, options=options)
    assert (res.nfev, res.status, res.message, res.success) == (8, "callback", "enough", False)


@pytest.mark.parametrize("method", ALL)
def test_a_wrong_hook_is_an_error(method):
    f = Seen()
    with pytest.raises(errors.InvalidType, match="Raise StopIteration"):
        dfo.minimize(f, [0.5, 1, -1], method=method, bounds=BOX, budget=30, callback=lambda progress: True)
    assert len(f.points) == 1


@pytest.mark.parametrize("method", ONE_EACH)
def test_time_steps_and_stagnation(method):
    kwargs = {"method": method, "bounds": BOX, "options": {"restart": True}}
    assert dfo.minimize(rugged, [0.5, 1.0, -1.0], timeout=0.02, budget=10**6, **kwargs).status == "time"
    assert dfo.minimize(lambda x: 1.0, [0.5, 1.0, -1.0], stop=dfo.Stalled(20), budget=900, **kwargs).nfev == 21
    res = dfo.minimize(rugged, [0.5, 1.0, -1.0], stop=dfo.MaxSteps(2), budget=900, **kwargs)
    assert (res.status, res.nit) == ("steps", 2)


@pytest.mark.parametrize("method", ALL)
def test_ctrl_c_returns_the_result(method):
    f = Seen()
    f.f = lambda x: (signal.raise_signal(signal.SIGINT) if len(f.points) == 3 else None) or float((x**2).sum())
    res = dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=500, options={"restart": True})
    assert (res.status, res.nfev) == ("interrupted", 3)


def test_convergence_is_finished_with_the_peer_s_own_words():
    for method in SCIPY_LOCAL:
        own = scipy.optimize.minimize(parabola, [0.5, 1.0], method=method)
        res = dfo.minimize(parabola, [0.5, 1.0], method=f"scipy:{method}")
        assert (res.status, res.message, res.success) == ("finished", own.message, True)
        assert res.nfev == own.nfev
        assert res.nit == own.get("nit", res.nit)
    res = dfo.minimize(parabola, [0.5, 1.0], method="pycma")
    assert res.status == "finished"
    assert res.message.startswith("pycma: tol")
    res = dfo.minimize(parabola, [0.5, 1.0], bounds=BOX[:2], method="scipy:dual_annealing", options={"maxiter": 3})
    assert (res.status, res.message) == ("finished", "Maximum number of iteration reached")


@pytest.mark.parametrize("method", ["scipy:SLSQP", "scipy:Nelder-Mead", "scipy:COBYLA", "pycma"])
def test_restart_spends_the_budget(method):
    f = Seen(lambda x: float(np.cos(3 * x).sum() + 0.1 * (x**2).sum()))
    options = {"restart": True, **({"bipop": False} if method == "pycma" else {})}
    res = dfo.minimize(f, [0.1, 0.2], method=method, bounds=[(-9, 9)] * 2, budget=1500, options=options, seed=3)
    assert res.nfev == 1500
    assert res.status == "budget"
    once = dfo.minimize(f.f, [0.1, 0.2], method=method, bounds=[(-9, 9)] * 2, stop=dfo.MaxEvals(1500), options={
        **options, "restart": False}, seed=3)  # fmt: skip
    assert once.nfev < 1500
    assert res.fun <= once.fun
    if method == "scipy:SLSQP":
        assert res.fun < once.fun


def test_restart_without_bounds_goes_around_the_start():
    f = Seen()
    dfo.minimize(f, [100.0, -100.0], method="scipy:BFGS", budget=300, options={"restart": True})
    assert len(f.points) == 300


# ---------------------------------------------------------------------- data from before, noise


@pytest.mark.parametrize("method", ONE_EACH)
def test_known_points_count(method):
    known = ([[1.0, 1.0, 1.0], [0.25, 0.5, 0.25]], [1.0, -20.0])
    res = dfo.minimize(rugged, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=10, known=known)
    assert (res.fun, res.nfev, len(res.history)) == (-20.0, 10, 10)
    np.testing.assert_array_equal(res.x, [0.25, 0.5, 0.25])


def test_known_points_are_a_start_where_there_is_none():
    f, known = Seen(), ([[1.0, 1.0, 1.0], [0.25, 0.5, 0.25]], [1.0, 0.5])
    dfo.minimize(f, bounds=BOX, method="scipy:Nelder-Mead", budget=5, known=known)
    assert f.X[0].tolist() == [0.25, 0.5, 0.25]
    f = Seen()
    dfo.minimize(f, [0.5, 1.0, -1.0], bounds=BOX, method="scipy:Nelder-Mead", budget=5, known=known)
    assert f.X[0].tolist() == [0.5, 1.0, -1.0]
    start = {"a": dfo.Float(0, 1), "b": dfo.Choice(["x", "y", "z"])}
    seen = []
    dfo.minimize(
        lambda p: seen.append(p) or p["a"], start, method="scipy:Powell", budget=3,
        known=([{"a": 0.25, "b": "y"}], [0.5]),
    )  # fmt: skip
    assert seen[0] == {"a": 0.25, "b": "y"}


@pytest.mark.parametrize("method", [name for name in ONE_EACH if name != "scipy:SLSQP"])
def test_noise_re_evaluates_the_recommendation_within_the_budget(method):
    rng = np.random.default_rng(1)
    f = Seen(lambda x: float((x**2).sum() + 0.1 * rng.standard_normal()))
    res = dfo.minimize(
        f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=200, noise=True, options={"restart": True}
    )
    assert res.nfev == len(f.points) == 200
    assert (f.X[-10:] == f.X[-1]).all()
    np.testing.assert_array_equal(res.x, f.X[-1])
    assert 0.0 < res.fun_stderr < 0.2


def test_batch_is_the_peer_s_own():
    with pytest.raises(errors.InvalidArgument, match="batch"):
        dfo.minimize(parabola, [0.5, 1.0], method="pycma", batch=4)


# ---------------------------------------------------------------------- other points


SPACE = {"lr": dfo.Float(1e-4, 1, log=True), "layers": dfo.Int(1, 8), "opt": dfo.Choice(["sgd", "adam", "lion"])}


@pytest.mark.parametrize("method", ALL)
def test_named_parameters(method):
    seen = []

    def f(p):
        seen.append(p)
        return (np.log10(p["lr"]) + 2) ** 2 + (p["layers"] - 5) ** 2 + (p["opt"] != "adam")

    res = dfo.minimize(f, SPACE, method=method, budget=60)
    space = dfo.Named(SPACE)
    assert all(space.contains(p) for p in seen)
    assert space.contains(res.x)
    assert res.fun == f(res.x)


@pytest.mark.parametrize("method", ["scipy:Powell", "pycma", "nevergrad:DE", "scipy:differential_evolution"])
def test_integers_arrive_as_integers(method):
    f = Seen(lambda x: float(((x - [3.2, 5]) ** 2).sum()))
    res = dfo.minimize(f, dfo.Box([0, -9], [8, 9], integer=[False, True]), method=method, budget=150)
    assert (f.X[:, 1] == np.rint(f.X[:, 1])).all()
    assert res.x[1] == 5


@pytest.mark.parametrize("bounds", [None, [(-2, 3)] * 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", [*LOCAL, "scipy:basinhopping", "pycma", "nevergrad:OnePlusOne"])
def test_torch_stays_torch(method, dtype, bounds):
    kinds = set()

    def f(x):
        kinds.add((type(x), x.dtype, tuple(x.shape)))
        return ((x - 0.3) ** 2).sum()

    x0 = torch.tensor([0.5, 1.0, -1.0], dtype=dtype)
    res = dfo.minimize(f, x0, method=method, bounds=bounds, budget=150)
    assert kinds == {(torch.Tensor, dtype, (3,))}
    assert isinstance(res.x, torch.Tensor)
    assert res.x.dtype == dtype
    if method.startswith("scipy"):
        assert res.fun < 1e-2
    np.testing.assert_array_equal(x0, [0.5, 1.0, -1.0])


@pytest.mark.parametrize("method", LOCAL)
def test_single_precision_of_numpy_reaches_the_objective(method):
    kinds = set()
    res = dfo.minimize(
        lambda x: kinds.add(x.dtype) or float(((x - 0.3) ** 2).sum()),
        np.float32([0.5, 1, -1]),
        method=method,
        budget=200,
    )
    assert kinds == {np.dtype(np.float32)}
    assert res.fun < 1e-3


def test_text_and_rankings_are_refused():
    with pytest.raises(errors.IncompatibleOracle, match="text"):
        dfo.minimize(len, dfo.Text("ab", 3), method="scipy:Powell", budget=9)
    oracle = dfo.RankOracle(lambda points: list(range(len(points))))
    with pytest.raises(errors.IncompatibleOracle, match="needs values"):
        dfo.minimize(oracle, [0.5, 1.0], method="pycma", budget=9)


@pytest.mark.parametrize("method", ["pycma", *NEVERGRAD, *LOCAL])
def test_one_variable(method):
    res = dfo.minimize(lambda x: float((x[0] - 0.3) ** 2), [1.0], method=method, budget=150)
    assert res.fun < 1e-3
    assert res.x.shape == (1,)


def test_objectives_may_keep_and_overwrite_their_points():
    for method in (*LOCAL, "pycma", "nevergrad:OnePlusOne"):
        kept = []

        def f(x, kept=kept):
            value = float(((x - 0.3) ** 2).sum())
            kept.append(x)
            x[:] = np.nan
            return value

        res = dfo.minimize(f, [0.5, 1.0], method=method, budget=100)
        assert res.fun < 0.05, method
        assert np.isfinite(res.x).all()


def test_arguments_and_vectorized():
    f = dfo.minimize(lambda x, a, b: float((x[0] - a) ** 2 + b), [0.0], (2.0, 1.0), method="scipy:COBYQA")
    assert f.fun == pytest.approx(1.0)
    assert f.x[0] == pytest.approx(2.0, abs=1e-4)
    shapes = set()
    dfo.minimize(
        lambda X: shapes.add(X.shape) or (X**2).sum(axis=1),
        [0.5, 1.0],
        method="scipy:Powell",
        vectorized=True,
        budget=9,
    )
    assert shapes == {(1, 2)}


# ---------------------------------------------------------------------- seeds and guests


@pytest.mark.parametrize("method", ALL)
def test_equal_seeds_give_equal_runs(method):
    def run(seed):
        f = Seen(rugged)
        dfo.minimize(f, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=80, seed=seed)
        return f.X

    np.random.seed(1)  # which must not matter
    first = run(0)
    np.random.seed(2)
    np.testing.assert_array_equal(first, run(0))
    if method in ("pycma", *NEVERGRAD[:3], "scipy:differential_evolution", "scipy:dual_annealing"):
        assert not np.array_equal(first, run(1))


@pytest.mark.parametrize("method", ALL)
def test_nothing_of_the_process_is_touched(method, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.random.seed(3)
    np.random.standard_normal(3)  # half a pair of normals is waiting

    def state():
        numpy = np.random.get_state(legacy=False)
        bits = numpy["state"]["key"].tolist(), numpy["state"]["pos"], numpy["has_gauss"], numpy["gauss"]
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        return (
            bits, random.getstate(), torch.get_rng_state().tolist(), list(warnings.filters), str(np.get_printoptions()),
            np.geterr(), handlers, threading.active_count(), os.listdir(),
        )  # fmt: skip

    before = state()
    dfo.minimize(rugged, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=60)
    seen = []
    dfo.minimize(
        rugged, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=30, noise=True, callback=lambda p: seen.append(
            (p.recommended(), p.gauges()))
    )  # fmt: skip
    assert all(len(x) == 3 for x, _ in seen)
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_import_of_the_peers_touches_nothing():
    code = """
import random, warnings, numpy as np
def state():
    numpy = np.random.get_state()[1].tolist(), str(np.get_printoptions()), np.geterr()
    return numpy, random.getstate(), list(warnings.filters)
import dfo
before = state()
for method in ("scipy:SLSQP", "pycma", "nevergrad:OnePlusOne"):
    dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method=method, budget=20)
    assert state() == before, method
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("method", ["pycma", "nevergrad:OnePlusOne", "scipy:differential_evolution"])
def test_draws_of_the_objective_are_its_own(method):
    drawn = []

    def noisy(x):
        drawn.append(np.random.random_sample())
        return float((x**2).sum() + drawn[-1])

    np.random.seed(7)
    dfo.minimize(noisy, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=40)
    drawn.append(np.random.random_sample())
    np.random.seed(7)
    np.testing.assert_array_equal(drawn, np.random.random_sample(len(drawn)))


def test_warnings_of_the_objective_are_shown():
    def f(x):
        warnings.warn("from the objective", UserWarning, stacklevel=1)
        return float((x**2).sum())

    for method in ("scipy:SLSQP", "pycma", "nevergrad:OnePlusOne"):
        with pytest.warns(UserWarning, match="from the objective"):
            dfo.minimize(f, [0.5, 1.0], method=method, budget=9)
        with pytest.raises(UserWarning, match="from the objective"):  # warnings are errors in these tests
            dfo.minimize(f, [0.5, 1.0], method=method, budget=9)


def test_threads():
    """Runs side by side in threads are the runs one after the other, and put back what they share."""

    def run(seed):
        method = ("pycma", "nevergrad:OnePlusOne", "scipy:SLSQP", "nevergrad:CMA")[seed % 4]
        return dfo.minimize(rugged, [0.5, 1.0, -1.0], method=method, bounds=BOX, budget=150, seed=seed).history.fun

    alone = [run(seed) for seed in range(12)]
    filters, generator = list(warnings.filters), np.random.get_bit_generator()
    before, interval = np.random.get_state(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(run, range(12)))
    finally:
        sys.setswitchinterval(interval)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(warnings.filters) == filters
    assert np.random.get_bit_generator() is generator
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("outer", ["scipy:TNC", "scipy:direct", "scipy:COBYLA", "pycma", "nevergrad:CMA", "cma"])
def test_runs_nest(outer):
    """A peer inside the objective of a peer, also of the same one, changes neither."""
    answers = []

    def inner(y):
        return dfo.minimize(
            lambda z: float(((z - y) ** 2).sum() + 1), [0.0, 0.1, 0.2], method=outer, bounds=BOX, budget=20, seed=5
        ).fun

    def nested(x):
        answers.append((x, inner(x)))
        return float(((x - 0.3) ** 2).sum())

    plain = dfo.minimize(lambda x: float(((x - 0.3) ** 2).sum()), [0.5, 1, -1], method=outer, bounds=BOX, budget=15)
    deep = dfo.minimize(nested, [0.5, 1, -1], method=outer, bounds=BOX, budget=15)
    np.testing.assert_array_equal(plain.history.fun, deep.history.fun)
    assert all(inner(x) == value for x, value in answers[:2])


# ---------------------------------------------------------------------- dfo as a method of scipy


@pytest.mark.parametrize("method", ["auto", "cma", "nelder-mead", dfo.CMA(population=12), "scipy:COBYQA"])
def test_as_scipy_method(method):
    ours = dfo.as_scipy_method(method, budget=600, seed=3)
    res = scipy.optimize.minimize(rosen, [-1.0, 2.0], method=ours)
    same = dfo.minimize(rosen, [-1.0, 2.0], method=method, budget=600, seed=3)
    assert isinstance(res, scipy.optimize.OptimizeResult)
    assert res.fun == same.fun < rosen([-1.0, 2.0])
    assert res.nfev == same.nfev
    assert (res.status, res.success, res.message) == (int(not same.success), same.success, same.message)
    assert {"x", "fun", "nfev", "nit", "success", "status", "message"} <= set(res)


def test_as_scipy_method_passes_everything_on():
    seen = []
    constraint = {"type": "ineq", "fun": lambda x: x[0] - 1.5}

    def keep(xk):
        seen.append(xk)

    res = scipy.optimize.minimize(
        lambda x, a: float(((x - a) ** 2).sum()), [2.0, 2.0], (1.0,), method=dfo.as_scipy_method("cma", budget=900),
        bounds=[(0, 3), (0, 3)], constraints=[constraint], callback=keep, tol=1e-6,
        jac=lambda x, a: 2 * (x - a), options={"population": 9},
    )  # fmt: skip
    np.testing.assert_allclose(res.x, [1.5, 1.0], atol=1e-3)
    assert "population=9" in res.method
    assert "xtol=1e-06" in res.method
    assert len(seen) == res.nit
    with pytest.raises(errors.UnknownName, match="Did you mean 'population'"):
        scipy.optimize.minimize(parabola, [2.0, 2.0], method=dfo.as_scipy_method("cma"), options={"populatio": 9})
    with pytest.raises(TypeError):
        dfo.as_scipy_method("cma", sed=3)


def test_as_scipy_method_serves_scipy_s_own_drivers():
    kwargs = {"method": dfo.as_scipy_method("nelder-mead", budget=80)}
    res = scipy.optimize.basinhopping(parabola, [0.0, 0.0], niter=3, minimizer_kwargs=kwargs, rng=1)
    assert res.fun < 1e-3
