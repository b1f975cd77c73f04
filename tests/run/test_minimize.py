"""The front door: every argument, what it means, and how it is refused before an evaluation is spent."""

import inspect
import math
import random
import re
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import optimize
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint

import dfo
from dfo import errors
from dfo.solvers import SOLVERS, solver_class
from dfo.testing import takes_functions


def _label(value: object) -> str:
    """Name a case without the addresses that differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


VECTORS = [name for name in SOLVERS if takes_functions(name)]
X0 = [1.0, 2.0, -1.0]


def sphere(x):
    return float(((x - 0.3) ** 2).sum())


def wild(x):
    return float(np.sin(1e3 * x).sum())


def slow_sphere(x, shift=0.0):
    """At the top of a module, so that a process finds it."""
    return float(((x - 0.3) ** 2).sum()) + shift


def broken_far_out(x):
    if x[0] < 0.8:
        raise ArithmeticError("too low")
    return slow_sphere(x)


class Counted:
    def __init__(self, f=sphere):
        self.f, self.points = f, []

    def __call__(self, x, *args):
        self.points.append(np.array(x))
        return self.f(x, *args)


# ---------------------------------------------------------------------- the signature


def test_scipy_s_names_and_order_come_first():
    gradients = {"jac", "hess", "hessp"}
    theirs = [name for name in inspect.signature(optimize.minimize).parameters if name not in gradients]
    for function in (dfo.minimize, dfo.maximize):
        parameters = inspect.signature(function).parameters
        assert list(parameters)[: len(theirs)] == theirs
        assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[len(theirs) :])
    ours, same = (inspect.signature(f).parameters.values() for f in (dfo.minimize, dfo.maximize))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in same]


@pytest.mark.parametrize("method", VECTORS)
def test_every_method_gets_lower(method):
    res = dfo.minimize(sphere, X0, method=method, budget=600)
    assert res.fun == sphere(res.x) < 0.2 * sphere(np.array(X0))
    assert isinstance(res, dfo.Result)


# ---------------------------------------------------------------------- fun, args


def test_arguments_of_the_objective():
    def f(x, a, b):
        return float(((x - a) ** 2).sum() + b)

    for args in ((0.3, 2.0), [0.3, 2.0]):
        assert dfo.minimize(f, X0, args, "nelder-mead").fun == pytest.approx(2.0)
    c = np.arange(3.0)
    res = dfo.minimize(lambda x, c: float(((x - c) ** 2).sum()), X0, c, "nelder-mead")
    np.testing.assert_allclose(res.x, c, atol=1e-6)


@pytest.mark.parametrize("method", VECTORS)
def test_points_are_private(method):
    """The objective may keep its point and overwrite it; x0 is never written to."""
    kept, x0 = [], np.array(X0)

    def f(x):
        value = sphere(x)
        kept.append((x, x.copy()))
        x += 100.0
        return value

    res = dfo.minimize(f, x0, method=method, budget=80)
    for x, before in kept:
        np.testing.assert_array_equal(x, before + 100.0)
    assert res.fun == sphere(res.x)
    np.testing.assert_array_equal(x0, X0)


@pytest.mark.parametrize("fun", [None, 3, "sphere", [sphere]])
def test_objectives_that_are_none(fun):
    with pytest.raises(errors.InvalidType, match="fun: expected a function"):
        dfo.minimize(fun, X0)


@pytest.mark.parametrize(
    "kind",
    [float, np.float64, np.float32, np.array, lambda v: np.array([v]), torch.tensor, lambda v: torch.tensor([v]),
     Decimal, lambda v: Fraction(round(v * 1024), 1024), round],
)  # fmt: skip
def test_values_of_every_number_type(kind):
    res = dfo.minimize(lambda x: kind(sphere(x)), X0, method="nelder-mead", budget=60)
    assert isinstance(res.fun, float)
    assert res.nfail == 0
    assert res.fun < sphere(np.array(X0))


# ---------------------------------------------------------------------- x0


@pytest.mark.parametrize(
    "x0",
    [[1, 2], (1.0, 2.0), np.array([1, 2]), np.array([1.0, 2.0]), np.float32([1, 2]), torch.tensor([1.0, 2.0]),
     torch.tensor([1, 2]), [np.float64(1), 2], np.array([True, True])],
    ids=lambda x0: f"{type(x0).__name__}-{getattr(x0, 'dtype', '')}",
)  # fmt: skip
def test_starts_of_every_kind(x0):
    seen = []

    def f(x):
        seen.append(x)
        return float(((x - 0.3) ** 2).sum())

    res = dfo.minimize(f, x0, method="nelder-mead", budget=30)
    assert len(res.x) == 2
    assert type(res.x) is type(seen[0])
    assert res.x.dtype == seen[0].dtype
    if hasattr(x0, "dtype") and "float" in str(x0.dtype):
        assert res.x.dtype == x0.dtype


@pytest.mark.parametrize("method", VECTORS)
def test_single_precision_stays(method):
    kinds = set()
    res = dfo.minimize(
        lambda x: kinds.add(x.dtype) or float(((x - 0.3) ** 2).sum()), np.float32(X0), method=method, budget=200
    )
    assert kinds == {np.dtype(np.float32)}
    assert res.x.dtype == np.float32
    assert res.fun < sphere(np.array(X0))


def test_scalar_start_and_no_start():
    res = dfo.minimize(lambda x: float((x[0] - 2) ** 2), 5.0, method="nelder-mead")
    assert res.x.shape == (1,)
    assert res.fun < 1e-8
    f = Counted()
    res = dfo.minimize(f, bounds=[(-5, 4), (0, 1), (0.3, 0.3)], method="cma", budget=200)
    np.testing.assert_array_equal(f.points[0].shape, (3,))
    assert res.fun < 0.5


@pytest.mark.parametrize(
    ("x0", "error"),
    [
        ([], "at least one variable"), ([[1.0, 2.0]], r"expected shape \(d,\)"), ([1.0, math.nan], r"x0\[1\]"),
        ([math.inf, 1.0], r"x0\[0\]"), (["a", "b"], "real numbers"), ("start", "real numbers"), ([1j], "real numbers"),
        ([[1.0], [1.0, 2.0]], "vector"), (None, "x0: expected a start"), ([None, 1.0], "real numbers"),
        (object(), "real numbers"), ({}, "at least one variable"), ({"a": 3}, "dfo.Float"), (dfo.Float(0, 1), "name"),
        (np.zeros((2, 2)), "Flatten"), (torch.zeros(2, 2), "shape"), (lambda: [1.0], "real numbers"),
    ],
    ids=_label,
)  # fmt: skip
def test_starts_that_are_none(x0, error):
    f = Counted()
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=error):
        dfo.minimize(f, x0, budget=20)
    assert not f.points


# ---------------------------------------------------------------------- bounds


@pytest.mark.parametrize("method", VECTORS)
@pytest.mark.parametrize(
    "bounds",
    [[(-2, 3), (-1, 2), (-4, 0.1)], Bounds([-2, -1, -4], [3, 2, 0.1]), dfo.Box([-2, -1, -4], [3, 2, 0.1]),
     [(-2, None), (None, 2), (-4, 0.1)], [(-2, math.inf), (-math.inf, 2), (-4, 0.1)], ((1, 1), (-1, 2), (-4, 0.1))],
    ids=["pairs", "Bounds", "Box", "None", "inf", "fixed"],
)  # fmt: skip
def test_no_point_leaves_the_bounds(method, bounds):
    f = Counted(lambda x: float(((x - [-9.0, 9.0, 9.0]) ** 2).sum()))
    res = dfo.minimize(f, X0, method=method, bounds=bounds, budget=150)
    pairs = list(zip(bounds.lb, bounds.ub, strict=True)) if isinstance(bounds, Bounds) else bounds
    pairs = list(zip(bounds.lower, bounds.upper, strict=True)) if isinstance(bounds, dfo.Box) else pairs
    lower = np.array([-math.inf if a is None else a for a, _ in pairs], dtype=float)
    upper = np.array([math.inf if b is None else b for _, b in pairs], dtype=float)
    assert (np.clip(f.points, lower, upper) == f.points).all()
    assert f.f(res.x) == res.fun


def test_one_pair_for_all_and_keep_feasible():
    res = dfo.minimize(sphere, X0, bounds=Bounds(-3, 3, keep_feasible=True), method="nelder-mead")
    assert res.fun < 1e-8


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ([(0, 1)], "expected 3 pairs"), ([(3, 0), (0, 3), (-3, 3)], r"bounds\[0\]: expected lower <= upper"),
        ([(0, math.nan), (0, 3), (-3, 3)], r"bounds\[0\].*NaN"), ("abc", "expected one"), (3, "expected one"),
        ([0, 1, 2], "expected one"), ([(0, 1, 2)] * 3, "expected one"), ([("a", "b")] * 3, "expected one"),
        ([(0, 0.5), (0, 3), (-3, 3)], r"x0\[0\]: expected a start within"), (Bounds([0, 0], [3, 3]), "3 pairs"),
        ([(math.inf, math.inf), (0, 3), (-3, 3)], r"bounds\[0\]"),
    ],
    ids=_label,
)  # fmt: skip
def test_bounds_that_are_none(bounds, error):
    f = Counted()
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=error):
        dfo.minimize(f, X0, bounds=bounds, budget=20)
    assert not f.points


def test_a_space_has_its_own_bounds():
    with pytest.raises(errors.InvalidArgument, match="drop one of the two"):
        dfo.minimize(sphere, dfo.Box([0], [1]), bounds=[(0, 1)])


# ---------------------------------------------------------------------- constraints

ABOVE = {"type": "ineq", "fun": lambda x: x[0] - 1.0}


@pytest.mark.parametrize(
    "constraints",
    [ABOVE, [ABOVE], {"type": "ineq", "fun": lambda x, a: x[0] - a, "args": (1.0,)},
     NonlinearConstraint(lambda x: x[0], 1.0, math.inf), LinearConstraint([[1.0, 0, 0]], 1.0, math.inf),
     (ABOVE, NonlinearConstraint(lambda x: x, -9, 9)), {"type": "ineq", "fun": lambda x: torch.tensor(x[0] - 1.0)}],
    ids=["dict", "list", "args", "nonlinear", "linear", "two", "torch"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["cma", "nelder-mead", "random"])
def test_constraints(method, constraints):
    f = Counted()
    res = dfo.minimize(f, [2.0, 2.0, -1.0], method=method, constraints=constraints, budget=800)
    assert res.violation == 0.0
    feasible = res.history.violation == 0
    assert all(
        abs(x[0] - 1) < 2e-8 or (x[0] > 1) == ok for x, ok in zip(f.points, feasible, strict=True)
    )  # or rounding
    assert res.fun == res.history.best_fun[-1] == res.history.fun[feasible].min() == sphere(res.x)


def test_equality_constraint_and_nothing_feasible():
    res = dfo.minimize(
        sphere, [0.0, 0.0, 0.0], constraints={"type": "eq", "fun": lambda x: x[0] - x[1] - 1}, method="cma", budget=3000
    )
    assert res.violation < 1e-3
    impossible = [ABOVE, {"type": "ineq", "fun": lambda x: -x[0] - 1.0}]
    res = dfo.minimize(sphere, X0, constraints=impossible, method="cma", budget=300)
    assert res.violation >= 2.0 - 1e-9
    assert not res.success


@pytest.mark.parametrize(
    ("constraints", "error"),
    [
        ({"type": "ineq"}, "expected"), ({"type": "le", "fun": sphere}, "ineq"), (lambda x: x[0], "no sign convention"),
        ([ABOVE, 3], "scipy's forms"), ("x > 0", "scipy's forms"), ({"fun": sphere}, "expected"),
    ],
    ids=_label,
)  # fmt: skip
def test_constraints_that_are_none(constraints, error):
    f = Counted()
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=error):
        dfo.minimize(f, X0, constraints=constraints, budget=20)
    assert not f.points


def test_constraints_are_refused_where_they_would_be_ignored():
    with pytest.raises(errors.IncompatibleOracle, match=r"cannot handle constraints.*would do: .*cma"):
        dfo.minimize(sphere, X0, constraints=ABOVE, method="zo-sgd", budget=20)


# ---------------------------------------------------------------------- method, options, tol


def test_methods_by_name_by_value_and_by_themselves():
    named = dfo.minimize(sphere, X0, method="cma", options={"population": 9}, budget=90)
    built = dfo.minimize(sphere, X0, method=dfo.CMA(population=9), budget=90)
    mixed = dfo.minimize(sphere, X0, method=dfo.CMA(sigma=0.5), options={"population": 9}, budget=90)
    np.testing.assert_array_equal(named.history.fun, built.history.fun)
    assert "population=9" in mixed.method
    assert dfo.minimize(sphere, X0, method=None, budget=90).reason
    assert dfo.minimize(sphere, X0, budget=90).reason


@pytest.mark.parametrize(
    ("method", "error"),
    [("cmaa", "Did you mean 'cma'"), ("Nelder-Mead", "Did you mean 'nelder-mead'"),
     ("scipy:Powel", "Did you mean 'Powell'"), ("", "Unknown method"), (3, "expected a name"),
     (dfo.CMA, "expected a name"), (sphere, "expected a name")],
    ids=_label,
)  # fmt: skip
def test_methods_that_are_none(method, error):
    f = Counted()
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=error):
        dfo.minimize(f, X0, method=method, budget=20)
    assert not f.points


@pytest.mark.parametrize(
    ("options", "error"),
    [({"populatio": 9}, "Did you mean 'population'"), ({"space": 3}, "Unknown option"), ("population", "mapping"),
     ([("population", 9)], "mapping"), ({"population": 1}, "population"), ({"sigma": -1.0}, "sigma"),
     ({3: 4}, "Unknown")],
    ids=_label,
)  # fmt: skip
def test_options_that_are_none(options, error):
    f = Counted()
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=error):
        dfo.minimize(f, X0, method="cma", options=options, budget=20)
    assert not f.points


def test_words_of_others_are_understood():
    res = dfo.minimize(sphere, X0, method="cma", options={"popsize": 9, "sigma0": 0.4, "maxfev": 90, "maxiter": 5})
    assert "population=9" in res.method
    assert "sigma=0.4" in res.method
    assert (res.nit, res.nfev, res.status) == (5, 45, "steps")
    res = dfo.minimize(sphere, X0, method="nelder-mead", options={"xatol": 1e-2, "fatol": 1e-2, "maxfev": None})
    assert "xtol=0.01" in res.method
    assert dfo.minimize(sphere, X0, method="nelder-mead", options=None).success


@pytest.mark.parametrize("method", ["cma", "sep-cma", "nelder-mead"])
def test_tolerance(method):
    loose, tight = (dfo.minimize(sphere, X0, method=method, tol=tol) for tol in (1e-2, 1e-10))
    assert loose.success
    assert tight.success
    assert loose.nfev < tight.nfev
    assert tight.fun < loose.fun
    with pytest.raises(errors.InvalidArgument, match="has no tolerance"):
        dfo.minimize(sphere, X0, method="random", tol=1e-3, budget=5)


@pytest.mark.parametrize("method", VECTORS)
def test_batch_changes_the_algorithm(method):
    sizes = []
    f = Counted()
    try:
        dfo.minimize(f, X0, method=method, batch=6, budget=60, callback=lambda p: sizes.append(len(p.batch)))
    except errors.InvalidArgument:
        pytest.skip(f"{method} has a batch of its own")
    if method in ("cma", "sep-cma", "random"):
        assert set(sizes) == {6}


@pytest.mark.parametrize("batch", [0, -1, 2.5, math.nan, "4", True])
def test_batches_that_are_none(batch):
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match="batch: expected"):
        dfo.minimize(sphere, X0, method="cma", batch=batch, budget=20)


# ---------------------------------------------------------------------- the automatic choice


@pytest.mark.parametrize(
    ("kwargs", "method"),
    [({"budget": 200}, "NelderMead("), ({"budget": 2000}, "CMA("), ({"noise": False, "budget": 200}, "scipy:SLSQP"),
     ({"noise": True, "budget": 200}, "CMA("), ({"noise": False, "constraints": ABOVE}, "scipy:COBYLA"),
     ({"constraints": ABOVE}, "CMA("), ({}, "CMA("), ({"noise": False, "budget": 2000}, "CMA(")],
    ids=_label,
)  # fmt: skip
def test_automatic(kwargs, method):
    """The rule of ``dfo.run.auto``, with its reason in the result."""
    res = dfo.minimize(sphere, [2.0, 2.0, -1.0], **kwargs)
    assert res.method.startswith(method)
    assert res.reason in repr(res)
    assert res.reason


def test_automatic_by_size_and_kind():
    assert dfo.minimize(lambda x: float(x @ x), np.ones(200), budget=40).method.startswith("SepCMA(")
    assert dfo.minimize(len, dfo.Text("ab", 3), budget=40).method.startswith("RandomSearch(")
    ranked = dfo.minimize(dfo.RankOracle(lambda points: [0]), X0, budget=40)
    assert ranked.method.startswith("CMA(")


def test_automatic_quasi_newton_restarts_while_budget_is_left():
    f = Counted(lambda x: float(np.cos(3 * x).sum() + 0.1 * (x**2).sum()))
    res = dfo.minimize(f, X0, bounds=[(-9, 9)] * 3, noise=False, budget=300)
    assert res.method == "scipy:SLSQP"
    assert (res.nfev, len(f.points), res.status) == (300, 300, "budget")


# ---------------------------------------------------------------------- seed


@pytest.mark.parametrize("method", VECTORS)
def test_equal_seeds_give_equal_runs(method):
    def run(**kwargs):
        f = Counted(wild)
        dfo.minimize(f, X0, method=method, budget=120, **kwargs)
        return np.array(f.points)

    np.random.seed(1)
    random.seed(1)
    first = run()
    np.random.seed(2)
    np.testing.assert_array_equal(first, run(seed=0))
    np.testing.assert_array_equal(run(seed=7), run(seed=np.int64(7)))
    others = [run(seed=seed) for seed in (1, 2**32 - 1, 2**64)]
    if method != "nelder-mead":  # which draws only to restart
        assert not any(np.array_equal(first, other) for other in others)
        assert not np.array_equal(others[0], others[1])


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None, np.random.default_rng(1), [1]])
def test_seeds_that_are_none(seed):
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match="seed: expected an integer"):
        dfo.minimize(sphere, X0, seed=seed, budget=20)


@pytest.mark.parametrize("method", VECTORS)
def test_nothing_of_the_process_is_touched(method):
    def state():
        return (
            np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist(), [*warnings.filters],
            str(np.get_printoptions()), np.geterr(), torch.get_default_dtype(), torch.get_num_threads(),
        )  # fmt: skip

    before = state()
    dfo.minimize(sphere, X0, method=method, budget=60)
    dfo.minimize(lambda x: (x**2).sum(), torch.ones(3), method=method, budget=30)
    assert state() == before


# ---------------------------------------------------------------------- workers


def test_workers_never_change_the_result():
    kwargs = {"method": dfo.CMA(population=7), "budget": 60, "args": (0.5,)}
    alone = dfo.minimize(slow_sphere, X0, **kwargs)
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        for workers in (1, 2, map, threads, threads.map, processes, lambda call, xs: [call(x) for x in xs]):
            res = dfo.minimize(slow_sphere, X0, workers=workers, **kwargs)
            np.testing.assert_array_equal(res.history.fun, alone.history.fun)
            np.testing.assert_array_equal(res.x, alone.x)


@pytest.mark.parametrize("workers", [2, "threads"])
def test_exceptions_of_workers(workers):
    pool = ThreadPoolExecutor(2) if workers == "threads" else workers
    with pytest.raises(ArithmeticError, match="too low") as caught:
        dfo.minimize(broken_far_out, [1.5, 2.0, -1.0], method=dfo.CMA(population=8), workers=pool, budget=90)
    assert caught.value.result.status == "error"
    assert caught.value.result.nfev % 8 == 0
    with pytest.warns(errors.EvaluationWarning, match="ArithmeticError"):
        res = dfo.minimize(
            broken_far_out, [1.5, 2.0, -1.0], method=dfo.CMA(population=8), workers=pool, budget=90, on_error="record"
        )
    assert res.nfev == 90
    assert res.nfail > 0
    assert res.x[0] >= 0.8


@pytest.mark.parametrize(
    ("workers", "error"),
    [(0, "workers"), (-1, "workers"), (1.5, "workers"), ("two", "workers"), ([1], "workers"), (True, "workers")],
)
def test_workers_that_are_none(workers, error):
    f = Counted()
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=error):
        dfo.minimize(f, X0, workers=workers, budget=20)
    assert not f.points


def test_workers_that_cannot_work():
    lock = threading.Lock()
    with pytest.raises(errors.InvalidType, match="cannot be sent to a process"):
        dfo.minimize(lambda x: float(lock.locked()), X0, workers=2, budget=20)
    with pytest.raises(errors.InvalidArgument, match="vectorized"):
        dfo.minimize(sphere, X0, workers=map, vectorized=True, budget=20)


# ---------------------------------------------------------------------- known


@pytest.mark.parametrize("method", VECTORS)
def test_known_points_are_not_evaluated_again(method):
    f, known = Counted(), ([[0.3, 0.3, 0.3], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]], [0.0, 1.47, math.nan])
    res = dfo.minimize(f, X0, method=method, budget=40, known=known)
    assert (res.fun, res.nfev, len(f.points), len(res.history)) == (0.0, 40, 40, 40)
    np.testing.assert_array_equal(res.x, [0.3, 0.3, 0.3])
    assert not any(np.array_equal(x, [0.3, 0.3, 0.3]) for x in f.points[:1])


def test_known_points_of_every_kind():
    X = np.array([[0.5, 0.5, 0.5], [0.3, 0.3, 0.3]])
    for known in ((X, [1.0, -1.0]), (X.tolist(), np.array([1.0, -1.0])), (torch.tensor(X), torch.tensor([1.0, -1.0])),
                  [X, (1.0, -1.0)]):  # fmt: skip
        assert dfo.minimize(sphere, X0, method="cma", budget=9, known=known).fun == -1.0
    assert dfo.minimize(sphere, X0, method="cma", budget=9, known=([], [])).fun > 0
    space = {"a": dfo.Float(0, 1), "b": dfo.Choice(["x", "y"])}
    res = dfo.minimize(lambda p: p["a"], space, method="cma", budget=9, known=([{"a": 0.5, "b": "y"}], [-1.0]))
    assert res.x == {"a": 0.5, "b": "y"}
    word = dfo.Text("ab", 3)
    assert dfo.minimize(len, word, method="random", budget=9, known=(["aba"], [-1.0])).x == "aba"


@pytest.mark.parametrize(
    "known", [3, ([[1.0, 2.0, 3.0]],), ([[1.0, 2.0, 3.0]], [1.0, 2.0]), (np.zeros((2, 2)), [1.0, 2.0]), ([1, 2], "ab")]
)
def test_known_points_that_are_none(known):
    f = Counted()
    with pytest.raises(errors.InvalidArgument, match="known: "):
        dfo.minimize(f, X0, method="cma", known=known, budget=20)
    assert not f.points


@pytest.mark.parametrize("point", [[1.0, 2.0], [9.0, 0.0, 0.0], ["a", "b", "c"]])
def test_known_points_must_be_in_the_space(point):
    f = Counted()
    with pytest.raises(errors.InvalidArgument, match="known"):
        dfo.minimize(f, X0, bounds=[(-3, 3)] * 3, method="nelder-mead", known=([point], [1.0]), budget=20)
    assert not f.points


# ---------------------------------------------------------------------- noise


def test_noise_returns_the_recommendation_with_its_uncertainty():
    rng = np.random.default_rng(3)
    f = Counted(lambda x: sphere(x) + 0.1 * rng.standard_normal())
    res = dfo.minimize(f, X0, method="cma", noise=True, budget=1000)
    assert res.nfev == len(f.points) == 1000
    again = [x for x in f.points if np.array_equal(x, res.x)]
    assert len(again) == 30
    assert res.fun == pytest.approx(np.mean(res.history.fun[-30:]))
    assert res.fun_stderr == pytest.approx(0.1 / np.sqrt(30), rel=0.5)
    assert sphere(res.x) < 0.1
    assert res.best_fun < res.fun
    assert res.best_fun == res.history.fun.min()
    same = dfo.minimize(Counted(f.f), X0, method="cma", noise=0.1, budget=100)
    assert same.nfev == 100


def test_without_noise_the_best_evaluated_point_is_returned():
    for noise in (None, False):
        f = Counted()
        res = dfo.minimize(f, X0, method="cma", noise=noise, budget=100)
        assert res.fun == res.best_fun == min(map(sphere, f.points))
        assert res.fun_stderr == 0.0


# ---------------------------------------------------------------------- vectorized, torch


@pytest.mark.parametrize("method", VECTORS)
@pytest.mark.parametrize("make", [np.float32, np.float64, torch.FloatTensor, torch.DoubleTensor])
def test_vectorized(method, make):
    seen = []

    def f(X):
        seen.append(X)
        return ((X - 0.3) ** 2).sum(1)

    x0 = make([1.0, 2.0, -1.0])
    res = dfo.minimize(f, x0, method=method, vectorized=True, budget=100)
    one = dfo.minimize(lambda x: ((x - 0.3) ** 2).sum(), x0, method=method, budget=100)
    assert sum(len(X) for X in seen) == 100
    assert all(type(X) is type(x0) and X.dtype == x0.dtype and X.shape[1:] == (3,) for X in seen)
    assert type(res.x) is type(x0)
    assert res.x.dtype == x0.dtype
    np.testing.assert_allclose(res.history.fun[:4], one.history.fun[:4], rtol=1e-5)


@pytest.mark.parametrize("bounds", [None, [(-2, 3)] * 3, [(-2, None)] * 3])
@pytest.mark.parametrize("method", VECTORS)
def test_torch_keeps_type_and_device(method, bounds):
    kinds = set()

    def f(x):
        kinds.add((type(x), x.dtype, str(x.device), tuple(x.shape)))
        return ((x - 0.3) ** 2).sum()

    x0 = torch.tensor(X0, dtype=torch.float32, requires_grad=True)
    res = dfo.minimize(f, x0, method=method, bounds=bounds, budget=200)
    assert kinds == {(torch.Tensor, torch.float32, "cpu", (3,))}
    assert (res.x.dtype, str(res.x.device)) == (torch.float32, "cpu")
    assert not res.x.requires_grad
    assert res.fun < sphere(np.array(X0))
    assert x0.tolist() == X0


@pytest.mark.parametrize(
    "answer",
    [lambda X: 1.0, lambda X: np.zeros(len(X) + 1), lambda X: np.zeros((len(X), 2)), lambda X: [0.0], lambda X: None,
     lambda X: np.array(["a"] * len(X)), lambda X: np.zeros(len(X), complex), lambda X: np.zeros((1, len(X)))],
)  # fmt: skip
def test_vectorized_answers_that_are_none(answer):
    with pytest.raises(errors.BadObjective, match="vectorized"):
        dfo.minimize(answer, X0, method=dfo.CMA(population=6), vectorized=True, budget=20)


def test_vectorized_answers_of_every_kind():
    for answer in (lambda v: v, lambda v: v[:, None], list, torch.tensor, lambda v: v.astype(np.float32)):
        res = dfo.minimize(
            lambda X, answer=answer: answer(((X - 0.3) ** 2).sum(axis=1)), X0, method="cma", vectorized=True, budget=50
        )
        assert res.nfev == 50
        assert np.isfinite(res.fun)


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "low", 1j, True, [1.0, 2.0], np.zeros(2)])
@pytest.mark.parametrize("method", VECTORS)
def test_failures_are_masked_counted_and_announced_once(method, bad):
    f = Counted()
    f.f = lambda x: bad if len(f.points) % 5 == 0 else sphere(x)
    with pytest.warns(errors.EvaluationWarning, match="12 of 60 evaluations gave no usable value") as caught:
        res = dfo.minimize(f, X0, method=method, budget=60)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (res.nfev, res.nfail) == (60, 12)
    assert res.fun == min(sphere(x) for i, x in enumerate(f.points, 1) if i % 5)
    assert np.isinf(res.history.fun[4::5]).all()
    assert np.isfinite(res.history.best_fun).all()


@pytest.mark.parametrize("method", VECTORS)
@pytest.mark.filterwarnings("ignore::dfo.errors.EvaluationWarning")
def test_everything_failed(method):
    res = dfo.minimize(lambda x: math.nan, X0, method=method, budget=40)
    assert (res.status, res.success, res.nfev, res.nfail) == ("all_failed", False, 40, 40)
    assert math.isnan(res.fun)
    assert "returned nan" in res.message
    assert np.isfinite(res.x).all()


@pytest.mark.parametrize("first", [None, "low", 1j, True, [1.0], np.zeros(2), {}, sphere])
def test_first_value_that_is_no_number(first):
    with pytest.raises(errors.BadObjective, match="must return a real number"):
        dfo.minimize(lambda x: first, X0, method="cma", budget=20)
    with pytest.raises(TypeError):
        dfo.minimize(lambda x: first, X0, budget=20)


@pytest.mark.parametrize("error", [ValueError, KeyError, StopIteration, MemoryError, errors.InvalidArgument])
@pytest.mark.parametrize("method", VECTORS)
def test_exceptions_carry_the_result(method, error):
    f = Counted()

    def broken(x):
        if len(f.points) == 9:
            raise error("mine")
        return f(x)

    with pytest.raises(error, match="mine") as caught:
        dfo.minimize(broken, X0, method=method, budget=50)
    res = caught.value.result
    assert (res.status, res.success, res.nfev, res.nfail) == ("error", False, 10, 1)
    assert res.fun == min(map(sphere, f.points)) == sphere(res.x)
    assert error.__name__ in res.message


def test_exceptions_keep_their_traceback():
    def deep(x):
        return 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        dfo.minimize(lambda x: deep(x), X0, method="cma", budget=9)  # noqa: PLW0108
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "deep"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_keyboard_interrupt_of_the_objective_is_not_swallowed():
    def f(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dfo.minimize(f, X0, method="cma", budget=20, on_error="record")


@pytest.mark.parametrize("on_error", ["nan", "ignore", None, True])
def test_policies_that_are_none(on_error):
    with pytest.raises(errors.InvalidArgument, match="on_error: expected"):
        dfo.minimize(sphere, X0, on_error=on_error, budget=20)


# ---------------------------------------------------------------------- maximize


def test_maximize_negates_once_at_the_edge():
    high = dfo.maximize(lambda x: 3.0 - sphere(x), X0, method="cma", budget=90)
    low = dfo.minimize(lambda x: sphere(x) - 3.0, X0, method="cma", budget=90)
    np.testing.assert_array_equal(high.x, low.x)
    assert high.fun == -low.fun
    assert high.best_fun == high.fun == high.history.fun.max() == high.history.best_fun[-1]
    assert (np.diff(high.history.best_fun) >= 0).all()
    np.testing.assert_array_equal(high.history.fun, -low.history.fun)
    np.testing.assert_array_equal(high.history.best_fun, -low.history.best_fun)


def test_maximize_passes_everything_on():
    def f(x, shift):
        return shift - sphere(x)

    res = dfo.maximize(f, [2.0, 2.0, -1.0], (5.0,), "cma", [(-3, 3)] * 3, ABOVE, budget=900, seed=2)
    assert res.violation == 0.0
    assert res.fun == pytest.approx(5.0 - 0.49, abs=0.05)
    assert res.history.best_fun[-1] == res.fun
    known = ([[0.3, 0.3, 0.3]], [100.0])
    assert dfo.maximize(sphere, X0, method="cma", budget=9, known=known).fun == 100.0
    res = dfo.maximize(lambda X: -((X - 0.3) ** 2).sum(axis=1), X0, method="cma", vectorized=True, budget=60)
    assert res.fun == -sphere(res.x)
    res = dfo.maximize(lambda X: [-sphere(x) for x in X], X0, method="cma", vectorized=True, budget=60)
    assert res.fun == -sphere(res.x)
    res = dfo.maximize(lambda x: 1.0 - sphere(x), X0, method="cma", budget=900, stop=dfo.Target(-0.9))
    assert res.status == "target"  # in the minimised sign
    assert res.fun >= 0.9
    res = dfo.maximize(
        lambda x: np.random.default_rng(0).normal() - sphere(x), X0, method="cma", noise=True, budget=100
    )
    assert res.nfev == 100
    with ThreadPoolExecutor(2) as pool:
        assert dfo.maximize(f, X0, (5.0,), "cma", workers=pool, budget=30).nfev == 30
    assert dfo.maximize(slow_sphere, X0, method="cma", workers=2, budget=20).nfev == 20


@pytest.mark.filterwarnings("ignore::dfo.errors.EvaluationWarning")
def test_maximize_and_failures():
    res = dfo.maximize(lambda x: math.inf if x[0] > 1 else -sphere(x), X0, method="cma", budget=60)
    assert res.nfail > 0
    assert res.fun == res.history.best_fun[-1] <= 0
    with pytest.raises(errors.BadObjective):
        dfo.maximize(lambda x: "high", X0, budget=20)
    with pytest.raises(errors.BadObjective):
        dfo.maximize(lambda x: None, X0, budget=20)
    with pytest.raises(errors.BadObjective):
        dfo.maximize(lambda x: True, X0, budget=20)
    with pytest.raises(ZeroDivisionError) as caught:
        dfo.maximize(lambda x: 1 / 0, X0, method="cma", budget=20)
    assert caught.value.result.nfev == 1


@pytest.mark.parametrize("fun", [None, 3, dfo.RankOracle(lambda points: [0])])
def test_maximize_takes_functions(fun):
    with pytest.raises(errors.InvalidType, match="fun"):
        dfo.maximize(fun, X0)


def test_result_of_an_exception_of_maximize_has_the_user_s_sign():
    calls = []

    def f(x):
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("mine")
        return 7.0

    with pytest.raises(ValueError, match="mine") as caught:
        dfo.maximize(f, X0, method="cma", budget=20)
    assert caught.value.result.fun == 7.0


# ---------------------------------------------------------------------- other spaces

SPACE = {
    "lr": dfo.Float(1e-4, 1, log=True),
    "layers": dfo.Int(1, 8, init=3),
    "opt": dfo.Choice(["sgd", "adam", "lion"]),
}


def tuning(p):
    return (math.log10(p["lr"]) + 2) ** 2 + abs(p["layers"] - 5) + (p["opt"] != "adam")


@pytest.mark.parametrize("method", ["auto", *VECTORS])
def test_named_parameters(method):
    seen = []

    def f(p):
        seen.append(dict(p))
        value = tuning(p)
        p.clear()
        return value

    res = dfo.minimize(f, SPACE, method=method, budget=120)
    space = dfo.Named(SPACE)
    assert all(space.contains(p) and type(p["layers"]) is int and type(p["lr"]) is float for p in seen)
    if method in ("nelder-mead", "random"):  # the others begin around the start
        assert seen[0] == {"lr": pytest.approx(1e-2), "layers": 3, "opt": "sgd"}
    assert space.contains(res.x)
    assert res.fun == tuning(res.x) == min(map(tuning, seen))


@pytest.mark.parametrize("method", ["cma", "random", "nelder-mead"])
def test_integer_boxes(method):
    f = Counted(lambda x: float(((x - [3.2, 5]) ** 2).sum()))
    res = dfo.minimize(f, dfo.Box([0, -9], [8, 9], integer=[False, True]), method=method, budget=300)
    assert all(x[1] == round(x[1]) for x in f.points)
    assert res.x[1] == round(res.x[1])
    assert res.fun < 3


def test_text():
    res = dfo.minimize(lambda s: -s.count("b"), dfo.Text("ab", (2, 4)), budget=300)
    assert res.x == "bbbb"
    assert res.reason
    with pytest.raises((errors.IncompatibleOracle, errors.InvalidArgument, errors.InvalidType)):
        dfo.minimize(len, dfo.Text("ab", 3), method="cma", budget=20)


def test_vectorized_objects():
    sizes = []

    def f(points):
        sizes.append(len(points))
        return [tuning(p) for p in points]

    res = dfo.minimize(f, SPACE, method="cma", vectorized=True, budget=40)
    assert sum(sizes) == 40
    assert res.fun == tuning(res.x)


# ---------------------------------------------------------------------- oracles


def test_rankings():
    shown = []

    def order(points):
        shown.append(len(points))
        return sorted(range(len(points)), key=lambda i: sphere(points[i]))

    res = dfo.minimize(dfo.RankOracle(order, max_batch=6), X0, method="cma", budget=600)
    assert max(shown) <= 6
    assert sum(shown) == res.nfev <= 600
    assert sphere(res.x) < 0.05
    assert math.isnan(res.fun)
    assert np.isnan(res.history.fun).all()


@pytest.mark.parametrize("method", [name for name in VECTORS if "values" in solver_class(name).needs])
def test_solvers_that_need_values_refuse_rankings(method):
    asked = []
    with pytest.raises(errors.IncompatibleOracle, match=r"needs values.*gives ranking.*would do"):
        dfo.minimize(dfo.RankOracle(asked.append), X0, method=method, budget=20)
    assert not asked


@pytest.mark.parametrize(
    "extra", [{"args": (1,)}, {"vectorized": True}, {"constraints": ABOVE}, {"workers": 2}], ids=lambda e: next(iter(e))
)
def test_what_belongs_to_functions(extra):
    with pytest.raises(errors.InvalidArgument, match="belong to functions"):
        dfo.minimize(dfo.RankOracle(lambda points: [0]), X0, budget=20, **extra)


def test_runs_nest_and_run_side_by_side():
    def inner(y):
        return dfo.minimize(lambda z: sphere(z) + float(y.sum()) ** 2, X0, method="cma", budget=20, seed=1).fun

    a, b = (dfo.minimize(inner, X0, method="nelder-mead", budget=20).history.fun for _ in range(2))
    np.testing.assert_array_equal(a, b)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda seed: dfo.minimize(wild, X0, method="cma", budget=60, seed=seed), [0, 1, 0, 1] * 3))
    for seed in (0, 1):
        for run in runs[seed::2]:
            np.testing.assert_array_equal(run.history.fun, runs[seed].history.fun)
