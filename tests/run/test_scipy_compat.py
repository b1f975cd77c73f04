"""The calls of ``minimize`` that scipy's own tests make, made through dfo's door.

Functions, starts, bounds, options and tolerances are those of scipy 1.17 (``scipy/optimize/tests``), the words
are ours. Every check runs twice: through ``scipy.optimize.minimize``, which shows that it says what scipy
promises, and through ``dfo.minimize(..., method="scipy:<method>")`` (and, for the simplex, with dfo's own
``"nelder-mead"``). A call that differs says why, and the test fails when it no longer does. The table in
``docs/reference/scipy-compat.md`` is made from this file: ``python tests/run/test_scipy_compat.py`` prints it.
"""

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint, rosen

import dfo

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "scipy-compat.md"
SIMPLEX = "Nelder-Mead"
DERIVATIVE_FREE = (SIMPLEX, "Powell", "COBYLA", "COBYQA")
DIFFERENCES = ("CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "trust-constr")
ALL = (*DERIVATIVE_FREE, *DIFFERENCES)
BOUNDED = (SIMPLEX, "L-BFGS-B", "TNC", "Powell", "COBYLA", "COBYQA", "trust-constr")


@dataclass(frozen=True)
class Door:
    """One way into a method: scipy's, dfo's, or a method of dfo's own in its place."""

    through: str  # "scipy", "dfo" or "own"
    method: str | None

    def __call__(self, fun, x0, args=(), **kwargs):
        if self.through == "scipy":
            return optimize.minimize(fun, x0, args, method=self.method, **kwargs)
        method = "nelder-mead" if self.through == "own" else f"scipy:{self.method}" if self.method else "auto"
        return dfo.minimize(fun, x0, args, method, **kwargs)

    @property
    def exact(self):
        """Whether it is scipy's own algorithm, so that counts of evaluations can be compared."""
        return self.through != "own"


@dataclass(frozen=True)
class Call:
    name: str
    source: str
    method: str | None
    check: Callable
    differs: str = ""
    raises: type[Exception] = AssertionError
    own: bool = False

    @property
    def shown(self):
        return self.method or "none"


CALLS: list[Call] = []


def call(source, methods, *, differs="", raises=AssertionError, own=True, only=None):
    """Enter a check for one method or several; ``only`` names those that differ, if not all do."""

    def enter(check):
        for method in methods if isinstance(methods, (list, tuple)) else [methods]:
            why = differs if only is None or method in only else ""
            name = check.__name__.removeprefix("_").replace("_", "-")
            CALLS.append(Call(name, source, method, check, why, raises, own and method == SIMPLEX and not why))
        return check

    return enter


def rows():
    """The lines of the table: one for each check and verdict, with the methods that it holds for."""
    lines = {}
    for c in CALLS:
        verdict = f"differs: {c.differs}" if c.differs else "passes"
        lines.setdefault((c.name, c.source, verdict), []).append(c.shown + (", nelder-mead" if c.own else ""))
    return [f"| {name} | {source} | {', '.join(methods)} | {v} |" for (name, source, v), methods in lines.items()]


def counts():
    """The sentence above the table."""
    count = Counter("differs" if c.differs else "passes" for c in CALLS)
    own = sum(c.own for c in CALLS)
    return (
        f"{len(CALLS)} calls (a check with a method): {count['passes']} pass, {count['differs']} differ. {own} of the"
        " simplex's also run with dfo's own `nelder-mead`, and pass."
    )


# ---------------------------------------------------------------------- the functions


class Entropy:
    """A maximum-entropy problem in three variables (Berger et al. 1996), with its calls counted."""

    F = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]])
    K = np.array([1.0, 0.3, 0.5])
    solution = np.array([0.0, -0.524869316, 0.487525860])

    def __init__(self):
        self.trace = []

    def __call__(self, x):
        self.trace.append(np.copy(x))
        logits = np.dot(self.F, x)
        return np.log(sum(np.exp(logits))) - np.dot(self.K, x)

    @property
    def calls(self):
        return len(self.trace)

    def assert_solved(self, x, rtol=1e-7):
        assert_allclose(self(x), self(self.solution), atol=1e-6, rtol=rtol)


def square(x):
    return np.sum(x**2)


def ravine(x):
    return (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2


def cubic(x, c=1.0):
    return x[0] ** 2 + c * abs(x[1]) ** 3


def circle(x):
    return x[0] ** 2 + x[1] ** 2 - 25


ON_CIRCLE = [np.sqrt(25 - (2.0 / 3) ** 2), 2.0 / 3]


def violation(res):
    return res.violation if isinstance(res, dfo.Result) else res.maxcv


# ---------------------------------------------------------------------- test_optimize.py: Powell, simplex, COBYQA


@call("test_optimize.py::test_powell", "Powell")
def powell_entropy(minimize):
    f = Entropy()
    res = minimize(f, np.zeros(3), args=(), options={"maxiter": 1000, "disp": False, "return_all": False})
    assert f.calls == res["nfev"] <= 116 + 20
    f.assert_solved(res["x"])
    assert_allclose(res["x"][1:], f.solution[1:], atol=5e-6)


@call("test_optimize.py::test_powell (disp)", "Powell")
def powell_disp(minimize):
    f = Entropy()
    res = minimize(f, np.zeros(3), options={"maxiter": 1000, "disp": True})
    f.assert_solved(res.x)


@call("test_optimize.py::test_powell_bounded", "Powell")
def powell_bounded(minimize):
    f = Entropy()
    res = minimize(f, np.zeros(3), bounds=[(-np.pi, np.pi)] * 3, options={"maxiter": 1000})
    assert f.calls == res["nfev"] <= 155 + 20
    f.assert_solved(res.x, rtol=1e-5)


@call("test_optimize.py::test_neldermead", SIMPLEX)
def simplex_entropy(minimize):
    f = Entropy()
    extra = {"disp": False, "return_all": False} if minimize.exact else {}
    res = minimize(f, np.zeros(3), args=(), options={"maxiter": 1000, **extra})
    if minimize.exact:
        assert f.calls == res["nfev"] == 165  # scipy's 167 count two calls of the test's own
        expected = [[0.1928968, -0.62780447, 0.35166118], [0.19572515, -0.63648426, 0.35838135]]
        assert_allclose(f.trace[76:78], expected, atol=1e-14, rtol=1e-7)
    f.assert_solved(res.x)


@call("test_optimize.py::test_neldermead_initial_simplex", SIMPLEX, own=False)
def simplex_initial(minimize):
    f, simplex = Entropy(), np.vstack([np.zeros(3), 0.1 * np.eye(3)])
    res = minimize(f, np.zeros(3), options={"maxiter": 1000, "disp": False, "initial_simplex": simplex})
    assert f.calls == res.nfev == 98
    expected = [[0.14687474, -0.5103282, 0.48252111], [0.14474003, -0.5282084, 0.48743951]]
    assert_allclose(f.trace[50:52], expected, atol=1e-14, rtol=1e-7)
    f.assert_solved(res.x)


@call("test_optimize.py::test_neldermead_initial_simplex (return_all)", SIMPLEX, raises=KeyError,
      differs="no `allvecs`; `dfo.Record()` as callback keeps every point")  # fmt: skip
def simplex_return_all(minimize):
    simplex = np.vstack([np.zeros(3), 0.1 * np.eye(3)])
    res = minimize(Entropy(), np.zeros(3), options={"return_all": True, "initial_simplex": simplex})
    assert_allclose(res["allvecs"][0], simplex[0])


@call("test_optimize.py::test_neldermead_initial_simplex_bad", SIMPLEX, own=False)
def simplex_initial_bad(minimize):
    for simplex in (np.vstack([np.zeros(2), 0.1 * np.eye(2)]), np.zeros((3, 3))):
        with pytest.raises(ValueError):  # noqa: PT011  (as scipy's test has it)
            minimize(Entropy(), np.zeros(3), options={"maxiter": 1000, "initial_simplex": simplex})


@call("test_optimize.py::test_neldermead_x0_ub (one variable)", SIMPLEX)
def simplex_on_the_upper_bound(minimize):
    assert_allclose(minimize(square, [1], bounds=[(0, 1.0)]).x, [0], atol=0 if minimize.exact else 1e-7)


@call("test_optimize.py::test_neldermead_x0_ub (two variables)", SIMPLEX)
def simplex_on_two_upper_bounds(minimize):
    res = minimize(square, [1, 2], bounds=[(0, 1.0), (1, 3.0)])
    assert_allclose(res.x, [0, 1], atol=0 if minimize.exact else 1e-7)


@call("test_optimize.py::test_cobyqa", "COBYQA")
def cobyqa_entropy(minimize):
    f = Entropy()
    res = minimize(f, np.zeros(3), options={"maxiter": 1000, "disp": False})
    assert f.calls <= 45 + 20
    assert_allclose(res.fun, f(f.solution), atol=1e-6)


def _never_converges():
    rng = np.random.default_rng(271707100830272976862395227613146332411)
    return rng.random(10), lambda x: rng.random(1) * 1000


@call("test_optimize.py::test_maxfev_test", ["Powell", SIMPLEX])
def maxfev_is_kept(minimize):
    x0, cost = _never_converges()
    for most in (1, 10, 50):
        assert minimize(cost, x0, options={"maxfev": most})["nfev"] == most


@call("test_optimize.py::test_obj_func_returns_scalar", "BFGS", raises=TypeError,
      differs="`BadObjective`, a `TypeError`, for an objective that returns a vector")  # fmt: skip
def vector_objective(minimize):
    with pytest.raises(ValueError, match="scalar value"):
        minimize(lambda x: x, np.array([1, 1]))


@call("test_optimize.py::test_neldermead_respect_fp", SIMPLEX)
def single_precision(minimize):
    def f(x):
        assert x.dtype == np.float32
        return rosen(x)

    minimize(f, np.array([5.0, 4.0]).astype(np.float32))


@call("test_optimize.py::test_neldermead_xatol_fatol", SIMPLEX)
def simplex_tolerances(minimize):
    minimize(lambda x: x[0] ** 2 + x[1] ** 2, [1, 1], options={"maxiter": 2, "xatol": 1e-3, "fatol": 1e-3})


P0 = [0.15746215, 0.48087031, 0.44519198, 0.4223638, 0.61505159, 0.32308456, 0.9692297, 0.4471682, 0.77411992,
      0.80441652, 0.35994957, 0.75487856, 0.99973421, 0.65063887, 0.09626474]  # fmt: skip


@call("test_optimize.py::test_neldermead_adaptive (default)", SIMPLEX,
      differs="scipy gives up after 200 d evaluations, dfo after 1000 d: it converges")  # fmt: skip
def simplex_gives_up(minimize):
    assert minimize(square, P0).success is False


@call("test_optimize.py::test_neldermead_adaptive", SIMPLEX, own=False)
def simplex_adaptive(minimize):
    assert minimize(square, P0, options={"adaptive": True}).success is True


@call("test_optimize.py::test_bounded_powell_outsidebounds", "Powell", raises=pytest.fail.Exception,
      differs="a start outside its bounds is an error that says which variable, not a warning")  # fmt: skip
def powell_start_outside(minimize):
    with pytest.warns(optimize.OptimizeWarning):
        res = minimize(square, [-4, 0.5, -0.8], bounds=[(-1, 1)] * 3)
    assert_allclose(res.x, np.zeros(3), atol=1e-6)
    assert res.success


FIVE = [-2.1, -5.2, 1.9, 0, -2]
TIGHT = {"ftol": 1e-10, "xtol": 1e-10}


@call("test_optimize.py::test_bounded_powell_vs_powell (no bounds)", "Powell")
def powell_free(minimize):
    res = minimize(square, FIVE, options=TIGHT)
    assert_allclose(res.x, 0.0, atol=1e-6)
    assert_allclose(res.fun, 0.0, atol=1e-6)


@call("test_optimize.py::test_bounded_powell_vs_powell (bounds)", "Powell")
def powell_active_bounds(minimize):
    res = minimize(square, FIVE, options=TIGHT, bounds=((-5, -1), (-10, -0.1), (1, 9.2), (-4, 7.6), (-15.9, -2)))
    assert_allclose(res.x, [-1, -0.1, 1, 0, -2], atol=1e-6)
    assert_allclose(res.fun, square(np.array([-1, -0.1, 1, 0, -2])), atol=1e-6)


@call("test_optimize.py::test_bounded_powell_vs_powell (half bounds)", "Powell")
def powell_half_bounds(minimize):
    bounds = (None, -1), (-np.inf, -0.1), (1, np.inf), (-4, None), (-15.9, -2)
    res = minimize(square, FIVE, options=TIGHT, bounds=bounds)
    assert_allclose(res.x, [-1, -0.1, 1, 0, -2], atol=1e-6)


def _wavy(x):
    t = np.sin(-x[0]) * np.cos(x[1]) * np.sin(-x[0] * x[1]) * np.cos(x[1])
    return (t - np.cos(np.sin(x[1] * x[2]) * np.cos(x[2]))) ** 2


@call("test_optimize.py::test_bounded_powell_vs_powell (a local minimum)", "Powell")
def powell_local_minimum(minimize):
    assert_allclose(minimize(_wavy, [-0.5] * 3).fun, 0.007136253919761627, atol=1e-6)
    assert_allclose(minimize(_wavy, [-0.5] * 3, bounds=[(-2, 5)] * 3).fun, 0, atol=1e-6)


@call("test_optimize.py::test_bounded_powell_vs_powell (infinite bounds)", "Powell")
def powell_infinite_bounds(minimize):
    free, endless = minimize(_wavy, [-0.5] * 3), minimize(_wavy, [-0.5] * 3, bounds=[(-np.inf, np.inf)] * 3)
    assert_allclose(free.fun, endless.fun, atol=1e-6)
    assert free.nfev == endless.nfev
    assert_allclose(free.x, endless.x, atol=1e-6)


def _onesided(minimize, f, top, value, **close):
    res = minimize(f, [1, 1, 1], bounds=[(-np.inf, top)] * 3, options={"ftol": 1e-8, "xtol": 1e-8})
    assert_allclose(res.fun, value, **close)


@call("test_optimize.py::test_onesided_bounded_powell_stability (constant slope)", "Powell")
def powell_far_bound_constant(minimize):
    _onesided(minimize, lambda x: -np.sum(x), 1e6, -3e6, atol=1e-4)


@call("test_optimize.py::test_onesided_bounded_powell_stability (falling slope)", "Powell")
def powell_far_bound_falling(minimize):
    sign = lambda x: 1 if np.all(x > 0) else -1  # noqa: E731
    _onesided(minimize, lambda x: -(np.abs(np.sum(x)) ** 0.1) * sign(x), 1e6, -((3e6) ** 0.1))


@call("test_optimize.py::test_onesided_bounded_powell_stability (rising slope)", "Powell")
def powell_far_bound_rising(minimize):
    sign = lambda x: 1 if np.all(x > 0) else -1  # noqa: E731
    _onesided(minimize, lambda x: -(np.abs(np.sum(x)) ** 10) * sign(x), 1e6, -((3e6) ** 10), rtol=1e-7)


@call("test_optimize.py::test_onesided_bounded_powell_stability (mixed slopes)", "Powell")
def powell_far_bound_mixed(minimize):
    def f(x):
        t = -(np.abs(np.sum(x[:2])) ** 5) - np.abs(np.sum(x[2:])) ** 0.1
        return t * (1 if np.all(x > 0) else -1)

    _onesided(minimize, f, 1e3, -((2e3) ** 5) - (1e6) ** 0.1, rtol=1e-7)


@call("test_optimize.py::test_powell_limits (gh-15342)", "Powell")
def powell_limits(minimize):
    bounds = Bounds([0, 0], [0.6, 20])

    def f(x):
        assert (x >= bounds.lb).all()
        assert (x <= bounds.ub).all()
        return x[0] ** 2 + x[1] ** 2

    minimize(f, x0=[0.6, 20], bounds=bounds)


@call("test_optimize.py::test_powell_limits (gh-13411)", "Powell")
def powell_keep_feasible(minimize):
    def f(x):
        assert 0 <= x <= 1
        return np.exp(x)

    minimize(f, x0=[0.5], bounds=Bounds(lb=[0], ub=[1], keep_feasible=[True]))


@call("test_optimize.py::test_powell_output", "Powell")
def powell_output(minimize):
    for f in (rosen, lambda x: np.array(rosen(x)), lambda x: np.array([rosen(x)])):
        assert np.isscalar(minimize(f, x0=[0.6, 20]).fun)


@call("test_optimize.py::test_bounds_with_list", "Powell")
def bounds_of_lists(minimize):
    minimize(rosen, x0=np.array([9, 9]), bounds=Bounds(lb=[5.0, 5.0], ub=[10.0, 10.0]))


@call("test_optimize.py::test_gh12594", "Powell")
def bounds_of_lists_or_arrays(minimize):
    f = lambda x: x[0] ** 2 + (x[1] - 1) ** 2  # noqa: E731
    res = minimize(f, x0=(0, 0), bounds=Bounds(lb=[-10, -10], ub=[10, 10]))
    ref = minimize(f, x0=(0, 0), bounds=Bounds(lb=np.array([-10, -10]), ub=np.array([10, 10])))
    assert_allclose(res.fun, ref.fun)
    assert_allclose(res.x, ref.x)


# ---------------------------------------------------------------------- test_optimize.py: any method


@call("test_optimize.py::test_bfgs_nan_return", None)
def nan_at_once(minimize):
    with np.errstate(invalid="ignore"):
        res = minimize(lambda x: np.nan, 0)
    assert np.isnan(res["fun"])
    assert res["success"] is False


@call("test_optimize.py::test_finite_differences_jac", ["BFGS", "CG", "TNC"])
def differences(minimize):
    f = Entropy()
    f.assert_solved(minimize(f, np.zeros(3)).x)


@call("test_optimize.py::test_minimize_l_bfgs_b", "L-BFGS-B")
def differences_are_counted(minimize):
    f = Entropy()
    res = minimize(f, np.zeros(3), options={"maxiter": 1000})
    assert f.calls == res.nfev
    f.assert_solved(res.x)


class _Last:
    def __init__(self, fun):
        self.n, self.x, self.fun, self.f = 0, None, None, fun

    def __call__(self, x):
        self.n, self.x, self.fun = self.n + 1, np.copy(x), self.f(x)


@call("test_optimize.py::test_l_bfgs_b_maxiter", "L-BFGS-B")
def lbfgsb_maxiter(minimize):
    last = _Last(rosen)
    res = minimize(rosen, [0.0, 0.0], callback=last, options={"maxiter": 5})
    assert res.nit == 5
    np.testing.assert_almost_equal(res.x, last.x)
    np.testing.assert_almost_equal(res.fun, last.fun)
    assert res.success is False
    assert res.message == "STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT"


@call("test_optimize.py::test_l_bfgs_b_maxiter (status)", "L-BFGS-B",
      differs="`status` is a word (`\"steps\"`), not scipy's number")  # fmt: skip
def status_is_a_number(minimize):
    assert minimize(rosen, [0.0, 0.0], options={"maxiter": 5}).status == 1


@call("test_optimize.py::test_minimize_tol_parameter", [m for m in ALL if m != "trust-constr"])
def tol_does_something(minimize):
    f = lambda z: z[0] ** 2 * z[1] ** 2 + z[0] ** 4 + 1  # noqa: E731
    fine, coarse = minimize(f, [2, 2], tol=1e-10), minimize(f, [2, 2], tol=1.0)
    assert f(fine.x) < f(coarse.x)


@call("test_optimize.py::test_minimize_callback_copies_array", ALL)
def callbacks_get_copies(minimize):
    kept = []
    limit = {"TNC": {"maxfun": 100}, "COBYLA": {"maxiter": 100}}.get(minimize.method, {"maxiter": 5})

    def callback(x, *args, **kwargs):
        kept.append((x, np.copy(x)))

    minimize(rosen, np.zeros(10), callback=callback, options=limit)
    assert len(kept) > 2
    assert all(np.all(x == y) for x, y in kept)
    assert not any(np.may_share_memory(a[0], b[0]) for i, a in enumerate(kept) for b in kept[:i])


@call("test_optimize.py::test_no_increase", [m for m in ALL if m != "trust-constr"])
def no_increase(minimize):
    f = lambda x: (x - 1) ** 2  # noqa: E731
    res = minimize(f, np.array([2.0]), options={"maxfun": 20} if minimize.method == "TNC" else {"maxiter": 20})
    assert f(res.x) == res.fun
    assert f(res.x) <= f(np.array([2.0]))


@call("test_optimize.py::test_slsqp_respect_bounds", "SLSQP")
def slsqp_constraints(minimize):
    def constraint(x):
        a = np.array([[-1, -1, -1, -1], [-3, -3, -2, -1]])
        return np.concatenate([np.dot(a, x) + np.array([5, 10]), x])

    f = lambda x: sum((x - np.array([1.0, 2.0, 3.0, 4.0])) ** 2)  # noqa: E731
    res = minimize(f, np.array([0.5, 1.0, 1.5, 2.0]), constraints={"type": "ineq", "fun": constraint})
    assert_allclose(res.x, np.array([0.0, 2, 5, 8]) / 3, atol=1e-12)


@call("test_optimize.py::test_respect_maxiter", [m for m in ALL if m not in ("TNC", "COBYLA")])
def maxiter_is_kept(minimize):
    calls = []
    res = minimize(lambda x: calls.append(1) or rosen(x), np.zeros(10), options={"maxiter": 4})
    assert res.nit == 4
    assert res.nfev >= len(calls)


@call("test_optimize.py::test_runtime_warning", [SIMPLEX, "Powell"], raises=pytest.fail.Exception,
      differs="no warning: `success`, `status` and `message` say it")  # fmt: skip
def warning_at_maxiter(minimize):
    with pytest.warns(RuntimeWarning, match="Maximum number of iterations"):
        minimize(rosen, np.zeros(10), options={"maxiter": 1, "disp": True})


@call("test_optimize.py::test_minimize_warnings_gh1953", "Powell", raises=pytest.fail.Exception,
      differs="no warning: `success`, `status` and `message` say it")  # fmt: skip
def warning_with_disp(minimize):
    with pytest.warns(RuntimeWarning, match="Maximum number"):
        minimize(rosen, [0, 0], options={"disp": True, "maxiter": 10})


@call("test_optimize.py::test_minimize_warnings_gh1953 (disp off)", ["BFGS", "CG", "Powell"])
def silent_without_disp(minimize):
    minimize(rosen, [0, 0], options={"disp": False, "maxiter": 10})


@call("test_optimize.py::test_minimize_automethod (no constraints)", None)
def automatic(minimize):
    res = minimize(lambda x: x**2, np.array([10.0]))
    assert res.success
    assert_allclose(res.x, 0, atol=1e-7)


@call("test_optimize.py::test_minimize_automethod (bounds)", None)
def automatic_bounds(minimize):
    res = minimize(lambda x: x**2, np.array([10.0]), bounds=[(5, 10)])
    assert res.success
    assert_allclose(res.x, 5, atol=1e-7)


@call("test_optimize.py::test_minimize_automethod (constraints)", None)
def automatic_constraints(minimize):
    beyond_two = [{"type": "ineq", "fun": lambda x: x - 2}]
    for bounds, best in ((None, 2), ([(5, 10)], 5), ([(1, 10)], 2)):
        res = minimize(lambda x: x**2, np.array([10.0]), constraints=beyond_two, bounds=bounds)
        assert res.success
        assert_allclose(res.x, best, atol=1e-7)


@call("test_optimize.py::test_minimize_coerce_args_param", "BFGS")
def args_without_a_tuple(minimize):
    c = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
    minimize(lambda x, c: np.sum((x - c) ** 2), np.random.default_rng(1234).standard_normal(len(c)), args=(c))


@call("test_optimize.py::test_nan_values (always)", [m for m in ALL if m != "COBYLA"])
def nan_always(minimize):
    limit = {"maxfun": 20} if minimize.method == "TNC" else {"maxiter": 20}
    assert not minimize(lambda x: np.nan, np.array([1.0]), options=limit).success


@call(
    "test_optimize.py::test_nan_values (from the third call)",
    [m for m in ALL if m != "COBYLA"],
    only=("Powell", "SLSQP"),
    differs="a NaN is masked: the method sees a wall beside the best value, and converges",
)
def nan_later(minimize):
    rng, calls = np.random.default_rng(123122), []
    limit = {"maxfun": 20} if minimize.method == "TNC" else {"maxiter": 20}
    f = lambda x: np.nan if calls.append(1) or len(calls) > 2 else rng.random()  # noqa: E731
    assert not minimize(f, np.array([1.0]), options=limit).success


@call("test_optimize.py::test_duplicate_evaluations", [m for m in ALL if m != "Powell"])
def nothing_twice_in_a_row(minimize):
    f = Entropy()
    minimize(f, np.zeros(3))
    assert not any(np.array_equal(a, b) for a, b in zip(f.trace, f.trace[1:], strict=False))


@call("test_optimize.py::test_callback_stopiteration (ends)", [m for m in ALL if m != "TNC"])
def stop_iteration_ends(minimize):
    raised = []

    def f(x):
        assert not raised
        return rosen(x)

    def callback(xk, *args):
        callback.n += 1
        if callback.n == 5:
            raised.append(True)
            raise StopIteration

    callback.n = 0
    res = minimize(f, [1.3] * 5, callback=callback)
    assert callback.n == 5
    if minimize.method not in ("COBYQA", "COBYLA"):  # where scipy says True
        assert not res.success


@call("test_optimize.py::test_callback_stopiteration (as maxiter)", ["CG", "BFGS", "L-BFGS-B", "trust-constr"],
      differs="hooks are called after every evaluation, scipy's after every iteration")  # fmt: skip
def stop_iteration_is_maxiter(minimize):
    def callback(xk, *args):
        callback.n += 1
        if callback.n == 5:
            raise StopIteration

    callback.n = 0
    res, ref = minimize(rosen, [1.1] * 5, callback=callback), minimize(rosen, [1.1] * 5, options={"maxiter": 5})
    assert res.nit == ref.nit == 5
    assert res.fun == ref.fun


@call("test_optimize.py::test_ndim_error", None)
def matrix_start(minimize):
    with pytest.raises(ValueError, match="x0"):
        minimize(lambda x: x, np.ones((2, 1)))


@call("test_optimize.py::test_minimize_invalid_bounds (length)", BOUNDED)
def wrong_number_of_bounds(minimize):
    with pytest.raises(ValueError, match="bounds"):
        minimize(square, x0=[1, 2, 3], bounds=Bounds([1, 2], [3, 4]))


@call("test_optimize.py::test_minimize_invalid_bounds (order)", BOUNDED)
def reversed_bounds(minimize):
    with pytest.raises(ValueError, match="bound"):
        minimize(square, x0=[1, 2, 3], bounds=Bounds([1, 6, 1], [3, 4, 2]))


@call("test_optimize.py::test_minimize_with_scalar", ["L-BFGS-B", "TNC", "Powell", SIMPLEX, "COBYQA"])
def scalar_start(minimize):
    res = minimize(square, 17, bounds=[(-100, 100)])
    assert res.success
    assert_allclose(res.x, [0.0], atol=1e-5)


def _powers(x, p=2.0):
    return 1.0 / p * (x[0] ** p + x[1] ** p)


@call("test_optimize.py::test_minimize_l_bfgs_b_incorrect_bounds", "L-BFGS-B")
def reversed_pairs(minimize):
    for bounds in ([(10, 1), (1, 10)], [(1, 10), (10, 1)], [(10, 1), (10, 1)]):
        with pytest.raises(ValueError, match="bound"):
            minimize(_powers, [0, -1], bounds=bounds)


@call("test_optimize.py::test_minimize_l_bfgs_b_bounds_FD", "L-BFGS-B", raises=ValueError,
      differs="a start outside its bounds is an error, scipy moves it inside")  # fmt: skip
def lbfgsb_start_outside(minimize):
    res = minimize(_powers, [0, -1], args=(2.0,), bounds=((1, None), (None, None)))
    assert_allclose(res.x, (1, 0), atol=1e-6)


@call("test_optimize.py::test_minimize_l_bfgs_b_bounds_FD (start inside)", "L-BFGS-B")
def lbfgsb_half_bounds(minimize):
    for args in ((2.0,), ()):
        options = {"finite_diff_rel_step": None}
        res = minimize(_powers, [1, -1], args=args, bounds=((1, None), (None, None)), options=options)
        assert res["success"]
        assert_allclose(res.x, (1, 0), atol=1e-6)


@call("test_optimize.py::test_minimize_multiple_constraints", "SLSQP")
def several_constraints(minimize):
    parts = [lambda x: np.array([25 - 0.2 * x[0] - 0.4 * x[1] - 0.33 * x[2]]), lambda x: x[1:2], lambda x: x[2:3]]
    cons = tuple({"type": "ineq", "fun": part} for part in parts)
    assert_allclose(minimize(lambda x: -(x[0] + x[1] + x[2]), [0, 0, 0], constraints=cons).x, [125, 0, 0], atol=1e-10)


@call("test_optimize.py::test_attributes_present", ALL)
def attributes(minimize):
    res = minimize(rosen, [5, 5])
    for name in ("nit", "nfev", "x", "success", "status", "fun", "message"):
        if (minimize.method, name) != ("COBYLA", "nit"):
            assert hasattr(res, name)
            assert name in dir(res)
            assert name in [*res]
    assert isinstance(res.message, str)


def _slow(v):
    r, t = np.sqrt(v[0] ** 2 + v[1] ** 2), np.arctan2(v[0], v[1])
    return np.sin(r * 20 + t) + r * 0.5


def _limited(minimize, start, **options):
    calls = []
    res = minimize(lambda v: calls.append(1) or _slow(v), start, options=options)
    assert len(calls) == res["nfev"]
    return res


@call("test_optimize.py::TestIterationLimits (maxfev)", [SIMPLEX, "Powell"], own=False)
def limits_of_evaluations(minimize):
    for start in ([0.1, 0.1], [1, 1], [2, 2]):
        for most in (50, 500, 5000):
            res = _limited(minimize, start, maxfev=most)
            assert (res["nfev"] < most) if res["success"] else (res["nfev"] >= most)


@call(
    "test_optimize.py::TestIterationLimits (maxiter)",
    [SIMPLEX, "Powell"],
    differs="without a budget a run ends after 1000 d evaluations, however large `maxiter` is",
)
def limits_of_iterations(minimize):
    for start in ([0.1, 0.1], [1, 1], [2, 2]):
        for most in (50, 500, 5000):
            res = _limited(minimize, start, maxiter=most)
            assert (res["nit"] <= most) if res["success"] else (res["nit"] >= most)


@call("test_optimize.py::TestIterationLimits (both)", [SIMPLEX, "Powell"], own=False)
def limits_of_both(minimize):
    for start in ([0.1, 0.1], [1, 1], [2, 2]):
        for most, steps in ((50, 50), (5000, 5000), (5000, np.inf)):
            res = _limited(minimize, start, maxiter=steps, maxfev=most)
            few = res["nfev"] < most and res["nit"] <= steps
            assert few if res["success"] else (res["nfev"] >= most or res["nit"] >= steps)


@call("test_optimize.py::TestIterationLimits (infinite maxfev)", [SIMPLEX, "Powell"], raises=ValueError,
      differs="an infinite `maxfev` is an error: every run ends; leave it out for the default")  # fmt: skip
def infinite_maxfev(minimize):
    _limited(minimize, [0.1, 0.1], maxfev=np.inf, maxiter=None)


@call("test_optimize.py::TestIterationLimits (infinite maxiter)", [SIMPLEX, "Powell"], own=False)
def infinite_maxiter(minimize):
    res = _limited(minimize, [0.1, 0.1], maxfev=None, maxiter=np.inf)
    default = 200 if minimize.method == SIMPLEX else 1000
    assert (res["nfev"] < 2 * default) if res["success"] else (res["nfev"] >= 2 * default)


@call("test_optimize.py::test_result_x_shape_when_len_x_is_one", [m for m in ALL if m != "trust-constr"])
def shape_of_one_variable(minimize):
    assert minimize(lambda x: x * x, np.array([0.1])).x.shape == (1,)


LOWER, UPPER = np.array([0, 2, -1, -1.0]), np.array([3, 2, 2, -1.0])


@call("test_optimize.py::test_equal_bounds (start inside)", ["L-BFGS-B", "SLSQP", "TNC"])
def fixed_variables(minimize):
    x0 = np.clip(np.random.default_rng(12223).random(4), LOWER, UPPER)
    first, third = (NonlinearConstraint(lambda x, i=i, c=c: x[i] - c, -np.inf, 0) for i, c in ((0, 1), (2, 0.5)))
    several = [None, [], first, [third], [first, third]] if minimize.method == "SLSQP" else [None, []]

    def f(x):
        assert_allclose(x[[1, 3]], [2, -1])
        return rosen(x)

    for bounds in (list(zip(LOWER, UPPER, strict=True)), Bounds(LOWER, UPPER)):
        for constraints in several:
            res = minimize(f, x0, bounds=bounds, constraints=constraints)
            ref = optimize.minimize(
                rosen, x0, method=minimize.method, jac=optimize.rosen_der, bounds=bounds, constraints=constraints
            )
            assert res.success
            assert_allclose(res.fun, ref.fun, rtol=5.0e-6)
            assert_allclose(res.x, ref.x, rtol=5e-4)


@call("test_optimize.py::test_all_bounds_equal", ["L-BFGS-B", "SLSQP", "TNC"], raises=ValueError,
      differs="its start lies outside the bounds, which is an error")  # fmt: skip
def all_fixed_start_outside(minimize):
    res = minimize(lambda x: np.linalg.norm(x) + 1, (1.0, 3.0), bounds=[(1, 1), (2, 2)])
    assert res.nfev == 1


@call("test_optimize.py::test_all_bounds_equal (start inside)", ["L-BFGS-B", "SLSQP", "TNC"])
def all_fixed(minimize):
    f = lambda x, p1=1: np.linalg.norm(x) + p1  # noqa: E731
    for args, shift in (((), 1), ((2,), 2)):
        res = minimize(f, (1.0, 2.0), args, bounds=[(1, 1), (2, 2)])
        assert res.success
        assert_allclose(res.fun, f([1.0, 2.0], shift))
        assert res.nfev == 1
        assert res.message == "All independent variables were fixed by bounds."


@call("test_optimize.py::test_all_bounds_equal (constraint)", "SLSQP")
def all_fixed_and_constrained(minimize):
    f = lambda x: np.linalg.norm(x) + 1  # noqa: E731
    for most, kept in ((0.0, False), (4, True)):
        above = NonlinearConstraint(np.sum, -np.inf, most)
        res = minimize(f, (1.0, 2.0), bounds=[(1, 1), (2, 2)], constraints=[above])
        assert res.success is kept
        assert_allclose(res.fun, f([1.0, 2.0]))
        assert res.nfev == 1


@call("test_optimize.py::test_eb_constraints", "SLSQP")
def constraints_are_not_changed(minimize):
    def cfun(x):
        return x[0] + x[1] + x[2] + x[3] - 40

    constraints = [{"type": "ineq", "fun": cfun}]
    bounds = [(0, 20), (5, 5), (0, 20), (0, 20)]
    minimize(lambda x: x[0] ** 3 + x[1] ** 2 + x[2] * x[3], x0=[1, 5, 3, 4], bounds=bounds, constraints=constraints)
    assert constraints[0]["fun"] == cfun


@call("test_optimize.py::test_minimize_maxiter_noninteger", [m for m in ALL if m not in ("TNC", "COBYLA")], own=False)
def fractional_maxiter(minimize):
    minimize(rosen, np.array([1.3, 0.7, 0.8, 1.9, 1.2]), options={"maxiter": 100.1})


@call("test_optimize.py::test_x_overwritten_user_function", ALL)
def overwritten_points(minimize):
    def f(x):
        x -= np.arange(np.size(x))
        x *= x
        return np.sum(x)

    assert_allclose(minimize(f, np.ones(5) * 1.5).x, np.arange(5), atol=2e-4)


@call("test_optimize.py::TestWorkers", ["L-BFGS-B", "SLSQP"], raises=ValueError,
      differs="scipy's `workers` is refused: evaluations elsewhere would not be counted")  # fmt: skip
def workers_of_the_differences(minimize):
    assert_array_equal(
        minimize(rosen, np.array([1.0, 2, 3]), options={"workers": map}).x, minimize(rosen, np.array([1.0, 2, 3])).x
    )


@call("test_optimize.py::TestWorkers (equal bounds)", ["L-BFGS-B", "SLSQP", "trust-constr", "TNC"])
def one_fixed_variable(minimize):
    res = minimize(rosen, np.array([1.0, 2.0, 3.0]), bounds=Bounds([0, 2.0, 0.0], [10.0, 2.0, 10.0]))
    assert res.success
    assert_allclose(res.x[1], 2.0)


@call("test_optimize.py::test_cobyla_threadsafe", "COBYLA")
def cobyla_in_threads(minimize):
    before = threading.active_count()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda a: minimize(lambda x: (x[0] - a) ** 2, [0.0]), (0.0, 1.0)))
    assert_allclose([r.x[0] for r in results], [0, 1], atol=1e-3)
    assert threading.active_count() == before


# ---------------------------------------------------------------------- test_cobyla.py, test_cobyqa.py

COBYLA_OPTIONS = {"disp": 0, "rhobeg": 1, "tol": 1e-6, "maxiter": 100}
NEAR = [np.sqrt(25 - (2.0 / 3) ** 2), 2.0 / 3 + 1e-4]
BOTH_SIDES = (NonlinearConstraint(circle, 0, np.inf), {"type": "ineq", "fun": lambda x: -circle(x)})


@call("test_cobyla.py::test_minimize_simple", "COBYLA")
def cobyla_equality(minimize):
    last = _Last(cubic)
    res = minimize(cubic, NEAR, constraints=BOTH_SIDES, callback=last, options=COBYLA_OPTIONS)
    assert_allclose(res.x, ON_CIRCLE, atol=1e-4)
    assert res.success, res.message
    assert violation(res) < 1e-5
    assert res.nfev < 70
    assert res.fun < cubic(ON_CIRCLE) + 1e-3
    np.testing.assert_array_almost_equal(res.x, last.x, decimal=5)


@call("test_cobyla.py::test_minimize_simple (callback forms)", "COBYLA")
def cobyla_callback_forms(minimize):
    old, new = [], []
    kwargs = {"constraints": BOTH_SIDES, "options": COBYLA_OPTIONS}
    a = minimize(cubic, NEAR, callback=lambda x: old.append(x), **kwargs)  # noqa: PLW0108
    b = minimize(cubic, NEAR, callback=lambda intermediate_result: new.append(intermediate_result.fun), **kwargs)
    assert (a.fun, a.nfev, violation(a)) == (b.fun, b.nfev, violation(b))
    assert len(old) == len(new)


CONFLICT = ({"type": "ineq", "fun": lambda x: 4 - x}, {"type": "ineq", "fun": lambda x: x - 5})


@call("test_cobyla.py::test_minimize_constraint_violation (catol 0.4)", "COBYLA")
def cobyla_conflict(minimize):
    res = minimize(lambda x: x, [0], constraints=CONFLICT, options={"catol": 0.4})
    assert violation(res) > 0.1
    assert not res.success


@call("test_cobyla.py::test_minimize_constraint_violation (catol 0.6)", "COBYLA",
      differs="a result that violates a constraint by more than 1e-8 is never a success")  # fmt: skip
def cobyla_tolerated_conflict(minimize):
    res = minimize(lambda x: x, [0], constraints=CONFLICT, options={"catol": 0.6})
    assert violation(res) > 0.1
    assert res.success


@call("test_cobyla.py::test_f_target", "COBYLA")
def cobyla_target(minimize):
    res = minimize(lambda x: x**2, [500], options={"f_target": 250})
    assert res.success
    assert res.fun <= 250


def _linear(minimize, x0, options):
    solution = [(4 - np.sqrt(7)) / 3, (np.sqrt(7) - 1) / 3]
    res = minimize(cubic, x0, constraints=LinearConstraint([1.0, 1.0], 1.0, 1.0), options=options)
    assert_allclose(res.x, solution, atol=1e-4)
    assert res.success, res.message
    assert violation(res) < 1e-8
    assert res.nfev <= 100
    assert res.fun < cubic(solution) + 1e-3


@call("test_cobyla.py::test_minimize_linear_constraints", "COBYLA")
def cobyla_linear(minimize):
    _linear(minimize, NEAR, COBYLA_OPTIONS)


def _rows(x):
    a = np.array([[1, -2, 2], [-1, -2, 6], [-1, 2, 2]])
    return a[:, :2] @ x + a[:, 2]


@call("test_cobyla.py::test_vector_constraints", [None, "COBYLA", "SLSQP"])
def vector_constraints(minimize):
    constraints = [{"type": "ineq", "fun": fun} for fun in (ravine, _rows, lambda x: x)]
    res = minimize(ravine, np.array([2, 0]), constraints=constraints, tol=1e-5)
    assert_allclose(res.x, [1.4, 1.7], atol=1e-4)
    assert res.success, res.message
    assert_allclose(res.fun, 0.8, atol=1e-4)


@call("test_cobyla.py::test_vector_constraints (one)", [None, "COBYLA", "SLSQP"])
def one_constraint(minimize):
    beyond = {"type": "ineq", "fun": lambda x: ravine(x) - 1}
    assert_allclose(minimize(ravine, np.array([2, 0]), constraints=beyond, tol=1e-5).fun, 1, atol=1e-4)


@call("test_cobyla.py::TestBounds.test_basic", "COBYLA", raises=ValueError,
      differs="its start lies outside the bounds, which is an error")  # fmt: skip
def cobyla_bounds_start_outside(minimize):
    bounds = list(zip([-1, None, 1, None, -0.5], [-0.5, -0.5, None, None, -0.5], strict=True))
    assert_allclose(minimize(square, x0=[1, 2, 3, 4, 5], bounds=bounds).x, [-0.5, -0.5, 1, 0, -0.5], atol=1e-3)


@call("test_cobyla.py::TestBounds.test_basic (start inside)", "COBYLA")
def cobyla_bounds(minimize):
    bounds = list(zip([-1, None, 1, None, -0.5], [-0.5, -0.5, None, None, -0.5], strict=True))
    res = minimize(square, x0=[-0.5, -0.5, 3, 4, -0.5], bounds=bounds)
    assert res.success
    assert_allclose(res.x, [-0.5, -0.5, 1, 0, -0.5], atol=1e-3)


@call("test_cobyla.py::TestBounds.test_unbounded", "COBYLA")
def cobyla_infinite_bounds(minimize):
    for lower, best in (([-np.inf, -np.inf], [0, 0]), ([1, -np.inf], [1, 0])):
        res = minimize(square, x0=[1, 2], bounds=Bounds(lower, [np.inf, np.inf]))
        assert res.success
        assert_allclose(res.x, best, atol=1e-3)


START = [4.95, 0.66]
HUNDRED = {"maxfev": 100}
CIRCLE = NonlinearConstraint(circle, 0.0, 0.0)


@call("test_cobyqa.py::test_minimize_simple", "COBYQA")
def cobyqa_equality(minimize):
    old, new = [], []
    res = minimize(cubic, START, constraints=CIRCLE, callback=lambda x: old.append(type(x)), options=HUNDRED)
    again = minimize(
        cubic, START, constraints=CIRCLE, options=HUNDRED, callback=lambda intermediate_result: new.append(1)
    )
    assert_allclose(res.x, ON_CIRCLE, atol=1e-4)
    assert res.success, res.message
    assert violation(res) < 1e-8
    assert res.nfev <= 100
    assert res.fun < cubic(ON_CIRCLE) + 1e-3
    assert res.nfev == len(old) == len(new) == again.nfev
    assert set(old) == {np.ndarray}
    assert (res.fun, res.nit) == (again.fun, again.nit)


@call("test_cobyqa.py::test_minimize_bounds (not active)", "COBYQA")
def cobyqa_bounds(minimize):
    bounds = Bounds([4.5, 0.6], [5.0, 0.7])

    def f(x):
        assert np.all(bounds.lb <= x)
        assert np.all(x <= bounds.ub)
        return cubic(x)

    res = minimize(f, START, bounds=bounds, constraints=CIRCLE, options=HUNDRED)
    assert_allclose(res.x, ON_CIRCLE, atol=1e-4)
    assert res.success, res.message
    assert violation(res) < 1e-8
    assert res.nfev <= 100


@call("test_cobyqa.py::test_minimize_bounds (active)", "COBYQA", raises=ValueError,
      differs="its start lies outside the bounds, which is an error")  # fmt: skip
def cobyqa_infeasible_start_outside(minimize):
    res = minimize(cubic, START, bounds=Bounds([5.0, 0.6], [5.5, 0.65]), constraints=CIRCLE, options=HUNDRED)
    assert not res.success


@call("test_cobyqa.py::test_minimize_bounds (active, start inside)", "COBYQA")
def cobyqa_infeasible(minimize):
    bounds = Bounds([5.0, 0.6], [5.5, 0.65])
    res = minimize(cubic, [5.0, 0.65], bounds=bounds, constraints=CIRCLE, options=HUNDRED)
    assert not res.success
    assert violation(res) > 0.35
    assert np.all(bounds.lb <= res.x)
    assert np.all(res.x <= bounds.ub)
    assert res.nfev <= 100


@call("test_cobyqa.py::test_minimize_linear_constraints", "COBYQA")
def cobyqa_linear(minimize):
    _linear(minimize, START, HUNDRED)


@call("test_cobyqa.py::test_minimize_args", "COBYQA")
def cobyqa_args(minimize):
    res = minimize(cubic, START, args=(2.0,), constraints=CIRCLE, options=HUNDRED)
    solution = [np.sqrt(25.0 - 4.0 / 36.0), 2.0 / 6.0]
    assert_allclose(res.x, solution, atol=1e-4)
    assert res.success, res.message
    assert violation(res) < 1e-8
    assert res.fun < cubic(solution, 2.0) + 1e-3


@call("test_cobyqa.py::test_minimize_array", "COBYQA")
def cobyqa_one_element_arrays(minimize):
    kwargs = {"bounds": Bounds([4.5, 0.6], [5.0, 0.7]), "constraints": CIRCLE, "options": HUNDRED}
    res = minimize(cubic, START, **kwargs)
    for dim in (0, 1, 2):
        same = minimize(lambda x, dim: np.reshape(np.array(cubic(x)), (1,) * dim), START, args=(dim,), **kwargs)
        assert_array_equal(res.x, same.x)
        assert same.success, same.message
        assert (res.fun, res.nfev, res.nit) == (same.fun, same.nfev, same.nit)
    with pytest.raises(TypeError):
        minimize(lambda x: np.array([cubic(x), cubic(x)]), START, **kwargs)


@call("test_cobyqa.py::test_minimize_maxfev", "COBYQA")
def cobyqa_maxfev(minimize):
    res = minimize(cubic, START, constraints=CIRCLE, options={"maxfev": 2})
    assert not res.success
    assert res.nfev <= 2


@call("test_cobyqa.py::test_minimize_maxiter", "COBYQA")
def cobyqa_maxiter(minimize):
    res = minimize(cubic, START, constraints=CIRCLE, options={"maxiter": 2})
    assert not res.success
    assert res.nit <= 2


@call("test_cobyqa.py::test_minimize_f_target", "COBYQA")
def cobyqa_target(minimize):
    ref = minimize(cubic, START, constraints=CIRCLE, options=HUNDRED)
    res = minimize(cubic, START, constraints=CIRCLE, options={**HUNDRED, "f_target": ref.fun})
    assert res.success, res.message
    assert violation(res) < 1e-8
    assert res.nfev <= ref.nfev
    assert res.fun <= ref.fun


# ---------------------------------------------------------------------- test_slsqp.py


def _hill(d, sign=1.0):
    return sign * (2 * d[0] * d[1] + 2 * d[0] - d[0] ** 2 - 2 * d[1] ** 2)


def _climb(minimize, best, x0=(-1.0, 1.0), **kwargs):
    res = minimize(_hill, list(x0), args=(-1.0,), options={"disp": False}, **kwargs)
    assert res["success"], res["message"]
    assert_allclose(res.x, best, rtol=1e-7, atol=0)
    return res


@call("test_slsqp.py::test_minimize_unbounded_approximated", "SLSQP")
def slsqp_free(minimize):
    _climb(minimize, [2, 1])


@call("test_slsqp.py::test_minimize_bounded_approximated (start inside)", "SLSQP")
def slsqp_half_bounds(minimize):
    res = _climb(minimize, [2.5, 0.5], x0=(2.5, 0.5), bounds=((2.5, None), (None, 0.5)))
    assert res.x[0] >= 2.5
    assert res.x[1] <= 0.5


def _same(x, *args):
    return np.array([x[0] - x[1]])


@call("test_slsqp.py::test_minimize_equality_approximated", "SLSQP")
def slsqp_equality(minimize):
    _climb(minimize, [1, 1], constraints={"type": "eq", "fun": _same, "args": (-1.0,)})


@call("test_slsqp.py::test_minimize_inequality_given (by differences)", "SLSQP")
def slsqp_inequality(minimize):
    apart = {"type": "ineq", "fun": lambda x, *a: np.array([x[0] - x[1] - 1.0]), "args": (-1.0,)}
    res = minimize(_hill, [-1.0, 1.0], args=(-1.0,), constraints=apart)
    assert res["success"], res["message"]
    assert_allclose(res.x, [2, 1], rtol=1e-3)


@call("test_slsqp.py::test_minimize_bound_equality_given2 (by differences)", "SLSQP")
def slsqp_bound_equality(minimize):
    kwargs = {"bounds": [(-0.8, 1.0), (-1, 0.8)], "constraints": {"type": "eq", "fun": _same, "args": (-1.0,)}}
    res = minimize(_hill, [-0.8, 0.8], args=(-1.0,), **kwargs)
    assert res["success"], res["message"]
    assert_allclose(res.x, [0.8, 0.8], rtol=1e-3)
    assert -0.8 <= res.x[0] <= 1
    assert -1 <= res.x[1] <= 0.8


@call("test_slsqp.py::test_callback", "SLSQP",
      differs="hooks are called after every evaluation, scipy's after every iteration")  # fmt: skip
def callback_once_an_iteration(minimize):
    calls = []
    res = minimize(_hill, [-1.0, 1.0], args=(-1.0,), callback=lambda x: calls.append(1))
    assert len(calls) == res["nit"]


@call("test_slsqp.py::test_inconsistent_linearization", "SLSQP")
def slsqp_inconsistent_linearization(minimize):
    f1, f2 = (lambda x: x[0] + x[1] - 2), (lambda x: x[0] ** 2 - 1)
    cons = ({"type": "eq", "fun": f1}, {"type": "ineq", "fun": f2})
    res = minimize(lambda x: x[0] ** 2 + x[1] ** 2, [0, 1], constraints=cons, bounds=((0, None), (0, None)))
    assert_allclose(f1(res.x), 0, atol=1e-8)
    assert f2(res.x) >= -1e-8
    assert res.success


@call("test_slsqp.py::test_regression_5743", "SLSQP")
def slsqp_infeasible(minimize):
    cons = ({"type": "eq", "fun": lambda x: x[0] + x[1] - 1}, {"type": "ineq", "fun": lambda x: x[0] - 2})
    bounds = ((0, None), (0, None))
    assert not minimize(lambda x: x[0] ** 2 + x[1] ** 2, [1, 2], constraints=cons, bounds=bounds).success


@call("test_slsqp.py::test_gh_6676", "SLSQP", raises=AttributeError,
      differs="no `jac`: dfo's methods have no gradient to report")  # fmt: skip
def gradient_in_the_result(minimize):
    res = minimize(lambda x: (x[0] - 1) ** 2 + 2 * (x[1] - 1) ** 2 + 0.5 * (x[2] - 1) ** 2, [0, 0, 0])
    assert res.jac.shape == (3,)


@call("test_slsqp.py::test_invalid_bounds", "SLSQP")
def slsqp_invalid_bounds(minimize):
    pairs = [((1, 2), (2, 1)), ((2, 1), (1, 2)), ((2, 1), (2, 1)), ((np.inf, 0), (np.inf, 0)), ((1, -np.inf), (0, 1))]
    for bounds in pairs:
        with pytest.raises(ValueError, match="bound"):
            minimize(_hill, [-1.0, 1.0], bounds=bounds)


@call("test_slsqp.py::test_bounds_clipping", "SLSQP", raises=ValueError,
      differs="a start outside its bounds is an error, scipy moves it inside")  # fmt: skip
def slsqp_start_outside(minimize):
    assert_allclose(minimize(lambda x: (x[0] - 1) ** 2, [10], bounds=[(None, 0)]).x, 0, atol=1e-10)


@call("test_slsqp.py::test_bounds_clipping (start inside)", "SLSQP")
def slsqp_one_bounded_variable(minimize):
    for x0, bounds, best in ((-0.5, (-1, 0), 0), (2, (2, None), 2), (-10, (None, 0), 0), (10, (2, None), 2)):
        res = minimize(lambda x: (x[0] - 1) ** 2, [x0], bounds=[bounds])
        assert res.success
        assert_allclose(res.x, best, atol=1e-10)


@call("test_slsqp.py::test_infeasible_initial", "SLSQP")
def slsqp_infeasible_start(minimize):
    below = [{"type": "ineq", "fun": lambda x: 0 - x}]
    above = [{"type": "ineq", "fun": lambda x: x - 2}]
    between = [*below, {"type": "ineq", "fun": lambda x: x + 1}]
    cases = ((10, below, 0), (-10, above, 2), (-10, below, 0), (10, above, 2), (-0.5, between, 0), (10, between, 0))
    for x0, constraints, best in cases:
        res = minimize(lambda x: x[0] * x[0] - 2 * x[0] + 1, [x0], constraints=constraints)
        assert res.success
        assert_allclose(res.x, best, atol=1e-10)


@call("test_slsqp.py::test_inconsistent_inequalities", "SLSQP")
def slsqp_inconsistent(minimize):
    cons = ({"type": "ineq", "fun": lambda x: x[1] - x[0] - 1}, {"type": "ineq", "fun": lambda x: x[0] - x[1]})
    assert not minimize(lambda x: -x[0] + 4 * x[1], (1, 5), bounds=((-5, 5), (-5, 5)), constraints=cons).success


@call("test_slsqp.py::test_new_bounds_type (start inside)", "SLSQP")
def slsqp_bounds_object(minimize):
    res = minimize(lambda x: x[0] ** 2 + x[1] ** 2, [1, 0], bounds=Bounds([1, 0], [np.inf, np.inf]))
    assert res.success
    assert_allclose(res.x, [1, 0])


@call("test_slsqp.py::test_nested_minimization", "SLSQP")
def nested(minimize):
    def outer(x):
        inner = minimize(lambda y: (y[0] - 1) ** 2 + (y[1] - 1) ** 2, (3, 4))
        assert inner.success
        assert_allclose(inner.x, [1, 1])
        return x[0] ** 2 + x[1] ** 2 + x[2] ** 2

    res = minimize(outer, (5, 5, 5))
    assert res.success
    assert_allclose(res.x, [0, 0, 0])


@call("test_slsqp.py::test_gh1758 (start inside)", "SLSQP")
def slsqp_two_equalities(minimize):
    cons = [
        {"type": "eq", "fun": lambda x: x[1] - (2 * x[0]) ** 3},
        {"type": "eq", "fun": lambda x: x[1] - (1 - x[0]) ** 3},
    ]
    res = minimize(lambda x: np.sqrt(x[1]), [1, 0.25], constraints=cons, bounds=[(-0.5, 1), (0, 8)])
    assert_allclose(res.fun, 0.5443310539518)
    assert_allclose(res.x, [0.33333333, 0.2962963])
    assert res.success


@call("test_slsqp.py::test_gh9640", "SLSQP")
def slsqp_constant_objective(minimize):
    cons = ({"type": "ineq", "fun": lambda x: -x[0] - x[1] - 3}, {"type": "ineq", "fun": lambda x: x[1] + x[2] - 2})
    x0 = [-1.8869783504471584, -0.640096352696244, -0.8174212253407696]
    res = minimize(lambda x: 1, x0, bounds=((-2, 2),) * 3, constraints=cons, options={"disp": False, "maxiter": 10000})
    assert not res.success


@call("test_slsqp.py::test_parameters_stay_within_bounds", "SLSQP")
def slsqp_stays_inside(minimize):
    def f(x):
        assert (x >= 0.1).all()
        return np.linalg.norm(x)

    assert minimize(
        f, np.array([0.1 + 0.9 * 0.417022004702574]), bounds=Bounds(np.array([0.1]), np.array([1.0]))
    ).success


@call("test_slsqp.py::test_slsqp_segfault_wrong_workspace_computation", "SLSQP")
def slsqp_many_equalities(minimize):
    target = np.linspace(0.9, 4.0, 50)
    cons = ({"type": "eq", "fun": lambda x: 1 - target}, {"type": "eq", "fun": lambda x: np.sum(x) - 1})
    minimize(lambda w, v: 0, np.full(22, 1 / 22), args=(np.zeros((22, 365)),), constraints=cons)


# ---------------------------------------------------------------------- test_constraint_conversion.py, test_tnc.py


def _distance(x):
    return (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2 + (x[2] - 0.75) ** 2


MIXED = [
    [{"type": "ineq", "fun": lambda x: x[0] - 2 * x[1] + 2}, NonlinearConstraint(lambda x: x[0] - x[1], -1, 1)],
    [LinearConstraint([1, -2, 0], -2, np.inf), NonlinearConstraint(lambda x: x[0] - x[1], -1, 1)],
    [NonlinearConstraint(lambda x: x[0] - 2 * x[1] + 2, 0, np.inf), NonlinearConstraint(lambda x: x[0] - x[1], -1, 1)],
]


@call("test_constraint_conversion.py::test_multiple_constraint_objects", ["SLSQP", "COBYLA", "COBYQA", "trust-constr"])
def mixed_constraint_forms(minimize):
    for constraints in MIXED:
        assert_allclose(minimize(_distance, [2, 0, 1], constraints=constraints).fun, 0.8, rtol=1e-4)


TWO = lambda x: [x[0] - x[1], x[1] - x[2]]  # noqa: E731
ONE = lambda x: x[0] - x[1]  # noqa: E731
INEQUALITIES = [(ONE, 1.21, np.inf), (ONE, [1.21], np.inf), (ONE, 1.21, np.array([np.inf])), (ONE, -np.inf, -3),
                (ONE, np.array(-np.inf), -3), (TWO, 1.21, np.inf), (TWO, [1.1, 0.8], [1.2, 1.4]),
                (TWO, [-1.2, -1.4], [-1.1, -0.8])]  # fmt: skip
EQUALITIES = [(ONE, 1, 1), (ONE, [1.21], [1.21]), (ONE, 1.21, np.array([1.21])), (TWO, 1.21, 1.21),
              (TWO, [1.21, 1.4], [1.21, 1.4]), (TWO, [1.21, 1.21], 1.21), (TWO, [1.21, -np.inf], [1.21, np.inf]),
              (TWO, [1.21, -np.inf], [1.21, 1.4])]  # fmt: skip


def _same_values(minimize, cases):
    for case in cases:
        constraint = NonlinearConstraint(*case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            best = optimize.minimize(_distance, [2, 0, 1], method="SLSQP", constraints=constraint).fun
        assert_allclose(minimize(_distance, [2, 0, 1], constraints=constraint).fun, best, rtol=1e-3)


@call("test_constraint_conversion.py::test_individual_constraint_objects (inequalities)", ["SLSQP", "COBYLA", "COBYQA"])
def forms_of_inequalities(minimize):
    _same_values(minimize, INEQUALITIES)


@call("test_constraint_conversion.py::test_individual_constraint_objects (equalities)", ["SLSQP", "COBYQA"])
def forms_of_equalities(minimize):
    _same_values(minimize, EQUALITIES)


@call("test_constraint_conversion.py::test_constraint_dictionary_1", "trust-constr")
def three_dictionaries(minimize):
    cons = tuple({"type": "ineq", "fun": lambda x, i=i: _rows(x)[i]} for i in range(3))
    res = minimize(ravine, (2, 0), bounds=((0, None), (0, None)), constraints=cons)
    assert_allclose(res.x, [1.4, 1.7], rtol=1e-4)
    assert_allclose(res.fun, 0.8, rtol=1e-4)


@call("test_constraint_conversion.py::test_constraint_dictionary_2", "trust-constr")
def dictionary_with_a_gradient(minimize):
    cons = {"type": "eq", "fun": lambda x, p, q: p * x[0] - q * x[1], "args": (1, 1.1),
            "jac": lambda x, p, q: np.array([[p, -q]])}  # fmt: skip
    res = minimize(ravine, (2, 0), bounds=((0, None), (0, None)), constraints=cons)
    assert_allclose(res.x, [1.7918552, 1.62895927])
    assert_allclose(res.fun, 1.3857466063348418)


@call("test_constraint_conversion.py::test_constraint_dictionary_3", "trust-constr")
def dictionary_and_object(minimize):
    cons = [{"type": "ineq", "fun": lambda x: x[0] - 2 * x[1] + 2}, NonlinearConstraint(lambda x: x[0] - x[1], 0, 0)]
    res = minimize(ravine, (2, 0), bounds=((0, None), (0, None)), constraints=cons)
    assert_allclose(res.x, [1.75, 1.75], rtol=1e-4)
    assert_allclose(res.fun, 1.125, rtol=1e-4)


@call("test_constraint_conversion.py::test_warn_mixed_constraints", "SLSQP", raises=pytest.fail.Exception,
      differs="scipy's advice about efficiency is not shown")  # fmt: skip
def advice_on_mixed_constraints(minimize):
    mixed = NonlinearConstraint(lambda x: [x[0] ** 2 - x[1], x[1] - x[2]], [1.1, 0.8], [1.1, 1.4])
    with pytest.warns(optimize.OptimizeWarning):
        minimize(_distance, (2, 0, 1), bounds=((0, None),) * 3, constraints=mixed)


@call("test_constraint_conversion.py::test_warn_ignored_options", "SLSQP")
def constraints_without_options(minimize):
    for constraint in (NonlinearConstraint(lambda x: x[0], 2, np.inf), LinearConstraint([1, 0, 0], 2, np.inf)):
        assert_allclose(minimize(_distance, (2, 0, 1), bounds=((0, None),) * 3, constraints=constraint).fun, 1)


@call("test_tnc.py::test_minimize_tnc1b", "TNC")
def tnc_banana(minimize):
    f = lambda x, a=100.0: a * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2  # noqa: E731
    res = minimize(f, [-2, 1], bounds=([-np.inf, None], [-1.5, None]), options={"maxfun": 200})
    assert_allclose(f(res.x), 0.0, atol=1e-4)


@call("test_tnc.py::test_minimize_tnc5 (by differences)", "TNC")
def tnc_sine(minimize):
    f = lambda x: np.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1.0  # noqa: E731
    res = minimize(f, [0, 0], bounds=[(-1.5, 4), (-3, 3)], options={"maxfun": 200})
    assert_allclose(f(res.x), f([-0.54719755119659763, -1.5471975511965976]), atol=1e-8)


@call("test_tnc.py::test_minimize_tnc4 (by differences)", "TNC")
def tnc_cubic(minimize):
    f = lambda x: (x[0] + 1.0) ** 3 / 3.0 + x[1]  # noqa: E731
    res = minimize(f, [1.125, 0.125], bounds=[(1, None), (0, None)], options={"maxfun": 200})
    assert_allclose(f(res.x), f([1, 0]), atol=1e-8)


# ---------------------------------------------------------------------- the tests


def _ids(calls):
    return [f"{c.name}-{c.shown}" for c in calls]


def _run(c, through):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dfo.errors.EvaluationWarning)
        if through == "scipy":
            warnings.simplefilter("ignore")
        c.check(Door(through, c.method))


@pytest.mark.parametrize("c", CALLS, ids=_ids(CALLS))
def test_scipy_passes(c):
    _run(c, "scipy")


@pytest.mark.parametrize("c", CALLS, ids=_ids(CALLS))
def test_dfo(c):
    if not c.differs:
        _run(c, "dfo")
        return
    with pytest.raises(c.raises):
        _run(c, "dfo")


OWN = [c for c in CALLS if c.own]


@pytest.mark.parametrize("c", OWN, ids=_ids(OWN))
def test_own_simplex(c):
    _run(c, "own")


def test_the_page_has_every_call():
    page = PAGE.read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| ") and "::" in line] == rows()
    assert counts() in page


if __name__ == "__main__":
    print(counts(), *rows(), sep="\n")
