"""Bad input is refused before the first evaluation, with the argument and its value; the rest behaves as documented.

=====  ===================================  ==========================================================
row    input                                what happens
=====  ===================================  ==========================================================
I1     nothing wrong                        the optimum is found
I2     bounds reversed                      refused
I3     bounds equal                         the one point
I4     one pair of bounds equal             that coordinate stays
I5     bounds NaN                           refused
I6     bounds infinite                      a free search
I7     x0 outside the bounds                refused
I8     x0 NaN                               refused
I9     x0 infinite                          refused
I10    x0 of another length than bounds     refused
I11    x0 two-dimensional                   refused
I12    no variable                          refused
I13    one variable                         works
I14    budget 0                             nothing is evaluated, x is x0
I15    budget -1                            refused
I16    budget 1                             one evaluation
I17    budget 1.5                           refused
I18    budget NaN                           refused
I19    population 1                         refused
I20    population 2                         works
I21    population -3                        refused
I22    20,000 variables                     refused where memory is quadratic, else works
I23    1,000,000 variables                  the same
I24    initial step 0                       refused
I25    initial step -1                      refused
I26    initial step NaN                     refused
I27    initial step 1e300                   refused
I28    x0 of integers                       works in double precision
I29    x0 in single precision               works
I30    x0 a list                            works
I31    x0 not contiguous                    works
I32    x0 read-only                         works, x0 is not written
I33    objective overwrites its argument    the same run
I34    objective constant                   ends, no error
I35    objective a plateau around x0        ends, no error
I36    f * 1e308                            ends, the best is finite
I37    f * 1e-300                           the same points, where only ranks count
I38    f + 1e16                             ends, no error
I39    box of width 2e308                   all points inside
I40    box of width 4e-300                  all points inside, close to the optimum
I41    an argument of a wrong type          refused (see ``REFUSED``)
I42    a name that does not exist           refused, with the nearest one
I43    a malformed pair, list or mapping    refused
I44    a vectorised objective of one point  refused at the first answer
I45    an objective that is no number       refused at the first answer
=====  ===================================  ==========================================================
"""

import re
import threading
import warnings

import numpy as np
import pytest
from ledger import METHODS, OPTIMUM, PEERS, SOLVERS, Ledger

import dfo
from dfo.errors import BadObjective, InvalidArgument, InvalidType, ProblemTooLarge, UnknownName
from dfo.solvers import solver_class

X0 = [0.5, 0.5, 0.5]
BOX = [(-2.0, 2.0)] * 3
WORDS = ("size", "sigma", "distance", "radius")
"""What the length of a first step is called, most telling word first."""


def option(method, *words):
    """Return the first of the words that is an option of the method, or None."""
    return next((w for w in words if w in solver_class(method).__dataclass_fields__), None)


STEP = {name: option(name, *WORDS) for name in SOLVERS} | {"pycma": "sigma"}
POPULATION = ("pycma", *(name for name in SOLVERS if option(name, "population")))


def run(method, fun, **changed):
    return start({"method": method, "fun": fun, **changed})


def start(changed):
    return dfo.minimize(**{"x0": X0, "bounds": BOX, "budget": 300, "seed": 1, **changed})


def good(method, ledger, **changed):
    """Run, and check what is true of every run."""
    before = len(ledger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", dfo.errors.EvaluationWarning)
        res = run(method, ledger, **changed)
    budget, bounds = changed.get("budget", 300), changed.get("bounds", BOX)
    assert len(ledger) - before == res.nfev == len(res.history) <= budget
    assert np.isfinite(res.x).all()
    if bounds is not None:
        lower, upper = np.array(bounds, dtype=float).T
        assert all(((x >= lower) & (x <= upper)).all() for x in [*ledger.points[before:], res.x])
    return res


def refused(method, ledger, kind, words, changed):
    """Check that an argument is refused before the first evaluation, and that the message has the words."""
    with pytest.raises(kind) as caught:
        start({"method": method, "fun": ledger, **changed})
    assert len(ledger) == 0
    for word in words if isinstance(words, tuple) else (words,):
        assert re.search(word, str(caught.value)), str(caught.value)


every = pytest.mark.parametrize("method", METHODS)
ours = pytest.mark.parametrize("method", SOLVERS)


@every
def test_i1_clean(method, ledger):
    res = good(method, ledger)
    assert ledger.true(res.x) < (0.5 if method == "random" else 0.05)


SAME_FOR_ALL = {
    "I2": ({"bounds": [(-2, 2), (2, -2), (-2, 2)]}, InvalidArgument, (r"bounds\[1\]", r"\(2, -2\)")),
    "I5 nan": ({"bounds": [(-2, np.nan), (-2, 2), (-2, 2)]}, InvalidArgument, (r"bounds\[0\]", "NaN")),
    "I5 both": ({"bounds": [(np.nan, np.nan)] * 3}, InvalidArgument, (r"bounds\[0\]", "NaN")),
    "I5 inverted inf": ({"bounds": [(np.inf, np.inf)] * 3}, InvalidArgument, (r"bounds\[0\]", "inf")),
    "I7": ({"x0": [3.0, 0.5, 0.5]}, InvalidArgument, (r"x0\[0\]", "3", r"-2, 2")),
    "I8": ({"x0": [0.5, np.nan, 0.5]}, InvalidArgument, (r"x0\[1\]", "nan")),
    "I9": ({"x0": [0.5, 0.5, np.inf]}, InvalidArgument, (r"x0\[2\]", "inf")),
    "I10 short": ({"x0": [0.5, 0.5]}, InvalidArgument, ("bounds", "2", "3")),
    "I10 long": ({"x0": [0.5] * 4}, InvalidArgument, ("bounds", "4", "3")),
    "I11": ({"x0": [[0.5, 0.5, 0.5]]}, InvalidArgument, ("x0", r"\(1, 3\)")),
    "I12": ({"x0": [], "bounds": None}, InvalidArgument, ("x0", "at least one variable")),
    "I12 empty box": ({"x0": None, "bounds": []}, InvalidArgument, ("bounds", "at least one variable")),
    "I15": ({"budget": -1}, InvalidArgument, ("budget", "-1")),
    "I17": ({"budget": 1.5}, InvalidArgument, ("budget", r"1\.5")),
    "I18": ({"budget": np.nan}, InvalidArgument, ("budget", "nan")),
    "I18 inf": ({"budget": np.inf}, InvalidArgument, ("budget", "inf")),
}


@every
@pytest.mark.parametrize("row", SAME_FOR_ALL)
def test_refused_for_all(method, row, ledger):
    changed, kind, words = SAME_FOR_ALL[row]
    refused(method, ledger, kind, words, changed)


@every
def test_i3_bounds_equal(method, ledger):
    res = good(method, ledger, bounds=[(0.5, 0.5)] * 3, budget=40)
    assert res.x.tolist() == X0


@every
def test_i4_one_pair_equal(method, ledger):
    res = good(method, ledger, bounds=[(0.5, 0.5), (-2, 2), (-2, 2)])
    assert res.x[0] == 0.5
    assert ledger.true(res.x) < 0.04 + (0.5 if method == "random" else 0.05)


@every
def test_i6_bounds_infinite(method, ledger):
    res = good(method, ledger, bounds=[(-np.inf, np.inf)] * 3)
    assert ledger.true(res.x) < 0.5


@every
def test_i6_one_side(method, ledger):
    good(method, ledger, bounds=[(-np.inf, 0.6), (0.4, np.inf), (-2, 2)])


@every
def test_i13_one_variable(method, ledger):
    res = good(method, ledger, x0=[0.5], bounds=[(-2, 2)])
    assert abs(res.x[0] - OPTIMUM[0]) < 0.05


@every
@pytest.mark.parametrize("budget", [0, 1])
def test_i14_i16_tiny_budgets(method, budget, ledger):
    res = good(method, ledger, budget=budget)
    assert (res.nfev, res.success, res.status) == (budget, False, "budget")
    if budget == 0 or method in SOLVERS:  # what a method asks first is its own affair
        assert res.x.tolist() == X0 or budget == 1
    assert np.isnan(res.fun) == (budget == 0)


@every
@pytest.mark.parametrize(("row", "population"), [("I19", 1), ("I20", 2), ("I21", -3)])
def test_population(method, row, population, ledger):
    if method not in POPULATION:
        if method in SOLVERS:
            refused(method, ledger, UnknownName, ("option", "population"), {"options": {"population": population}})
        return
    if population == 2:
        good(method, ledger, options={"population": 2})
        return
    words = ("population", str(population)) if method in SOLVERS else str(population)  # a peer says it in its own words
    refused(method, ledger, ValueError, words, {"options": {"population": population}})


@ours
@pytest.mark.parametrize("d", [20_000, 1_000_000])
def test_i22_i23_huge(method, d, ledger):
    if method in ("cma", "nelder-mead", "xnes"):
        refused(method, ledger, ProblemTooLarge, ("GiB", "sep-cma"), {"x0": np.ones(d), "bounds": None, "budget": 10})
        return
    res = good(method, ledger, x0=np.ones(d), bounds=None, budget=5, batch=4)
    assert res.nfev == 5


@ours
@pytest.mark.parametrize(("row", "step"), [("I24", 0), ("I25", -1), ("I26", np.nan)])
def test_initial_step(method, row, step, ledger):
    name = STEP[method]
    refused(method, ledger, InvalidArgument, (name, str(step)), {"options": {name: step}})


@ours
def test_i27_huge_step(method, ledger):
    refused(method, ledger, InvalidArgument, (STEP[method], r"1e\+300"), {"options": {STEP[method]: 1e300}})


STARTS = {
    "I28": np.array([1, 0, 0]),
    "I29": np.array(X0, dtype=np.float32),
    "I30": X0,
    "I30 tuple": tuple(X0),
    "I31": np.array([X0, X0]).T[:, 0],
    "I31 reversed": np.array(X0)[::-1],
    "I32": np.array(X0),
}


@every
@pytest.mark.parametrize("row", STARTS)
def test_starts(method, row, ledger):
    x0 = STARTS[row]
    if row == "I32":
        x0.setflags(write=False)
    before = np.array(x0)
    res = good(method, ledger, x0=x0, budget=100)
    assert np.array_equal(before, np.array(x0))
    assert not np.shares_memory(res.x, x0)
    if method in SOLVERS:
        assert res.x.dtype == (np.float32 if row == "I29" else np.float64)


@every
def test_i33_objective_overwrites_its_argument(method, ledger):
    def vandal(x):
        f = ledger(x)
        x[:] = 1e6
        return f

    clean = Ledger()
    before, after = run(method, clean), run(method, vandal)
    assert np.array_equal(before.x, after.x)
    assert np.array_equal(clean.points, ledger.points)
    assert np.array_equal(before.history.fun, after.history.fun)


SHAPES = {
    "I34": lambda f, n, x: 1.0,
    "I35": lambda f, n, x: max(f, 0.75),
    "I36": lambda f, n, x: f * 1e308,
    "I37": lambda f, n, x: f * 1e-300,
    "I37 denormal": lambda f, n, x: f * 1e-308,
    "I38": lambda f, n, x: f + 1e16,
    "int": lambda f, n, x: int(f * 1000),
    "long int": lambda f, n, x: int(f * 1000) + 10**400,
    "numpy float": lambda f, n, x: np.float32(f),
}


@pytest.mark.parametrize(("method", "row"), [(method, row) for method in METHODS for row in SHAPES])
def test_shapes_of_objectives(method, row):
    ledger = Ledger(SHAPES[row])
    res = good(method, ledger)
    if row == "long int":  # beyond the largest float: every evaluation failed
        assert (res.status, res.x.tolist()) == ("all_failed", X0)
        return
    assert np.isfinite(res.fun)
    assert row == "I34" or ledger.true(res.x) <= 1.0
    if row == "I37" and method in SOLVERS and "rank-invariance" in solver_class(method).laws:
        clean = Ledger()
        run(method, clean)
        assert np.array_equal(clean.points[:60], ledger.points[:60])


@every
@pytest.mark.parametrize(("row", "scale"), [("I39", 1e308), ("I40", 1e-300)])
def test_scales_of_x(method, row, scale):
    ledger = Ledger(scale=scale)
    wide = [(-scale * 1.5, scale * 1.5)] * 3 if row == "I39" else [(-2 * scale, 2 * scale)] * 3
    res = good(method, ledger, x0=np.array(X0) * scale, bounds=wide)
    if method in SOLVERS:
        assert ledger.true(res.x) < (0.5 if method == "random" else 0.05)


# ---------------------------------------------------------------------- I41 to I45


class NotCallable:
    pass


class Locked:
    """An objective that cannot be sent to a process: it holds a lock."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, x):
        return 0.0


REFUSED = {
    "I41 fun": ({"fun": NotCallable()}, InvalidType, ("fun", "NotCallable")),
    "I41 fun none": ({"fun": None}, InvalidType, ("fun", "None")),
    "I41 x0 text": ({"x0": "abc"}, InvalidType, ("x0", "'abc'")),
    "I41 x0 texts": ({"x0": ["a", "b", "c"]}, InvalidType, ("x0", "'a'")),
    "I41 x0 complex": ({"x0": [1j, 0, 0]}, InvalidType, ("x0", "1j")),
    "I41 x0 ragged": ({"x0": [[1.0], [1.0, 2.0]]}, InvalidType, "x0"),
    "I41 x0 none": ({"x0": None, "bounds": None}, InvalidArgument, ("x0", "None")),
    "I41 x0 object": ({"x0": object()}, InvalidType, ("x0", "object")),
    "I41 method": ({"method": 3}, InvalidType, ("method", "3")),
    "I41 method class": ({"method": dfo.CMA}, InvalidType, ("method", "CMA")),
    "I41 bounds number": ({"bounds": 3.0}, InvalidType, ("bounds", r"3\.0")),
    "I41 bounds texts": ({"bounds": ["ab"] * 3}, InvalidType, ("bounds", "'ab'")),
    "I41 budget text": ({"budget": "300"}, InvalidType, ("budget", "'300'")),
    "I41 budget bool": ({"budget": True}, InvalidType, ("budget", "True")),
    "I41 seed text": ({"seed": "0"}, InvalidType, ("seed", "'0'")),
    "I41 seed float": ({"seed": 0.0}, InvalidType, ("seed", r"0\.0")),
    "I41 seed none": ({"seed": None}, InvalidType, ("seed", "None")),
    "I41 seed generator": ({"seed": np.random.default_rng(0)}, InvalidType, ("seed", "Generator")),
    "I41 seed negative": ({"seed": -1}, InvalidArgument, ("seed", "-1")),
    "I41 batch zero": ({"batch": 0}, InvalidArgument, ("batch", "0")),
    "I41 batch half": ({"batch": 1.5}, InvalidArgument, ("batch", r"1\.5")),
    "I41 batch text": ({"batch": "4"}, InvalidType, ("batch", "'4'")),
    "I41 callback": ({"callback": 5}, InvalidType, ("callback", "5")),
    "I41 callbacks": ({"callback": [print, 5]}, InvalidType, ("callback", "5")),
    "I41 stop": ({"stop": 1e-8}, InvalidType, ("stop", "1e-08")),
    "I41 timeout text": ({"timeout": "soon"}, InvalidArgument, ("timeout", "'soon'")),
    "I41 timeout negative": ({"timeout": -1.0}, InvalidArgument, ("timeout", r"-1\.0")),
    "I41 timeout nan": ({"timeout": np.nan}, InvalidArgument, ("timeout", "nan")),
    "I41 timeout list": ({"timeout": [1]}, InvalidType, ("timeout", r"\[1\]")),
    "I41 workers zero": ({"workers": 0}, InvalidArgument, ("workers", "0")),
    "I41 workers negative": ({"workers": -2}, InvalidArgument, ("workers", "-2")),
    "I41 workers text": ({"workers": "two"}, InvalidType, ("workers", "'two'")),
    "I41 workers lock": ({"workers": 2, "fun": Locked()}, InvalidType, ("workers", "Locked")),
    "I41 on_error": ({"on_error": "ignore"}, InvalidArgument, ("on_error", "'ignore'")),
    "I41 on_error type": ({"on_error": None}, InvalidArgument, ("on_error", "None")),
    "I41 options": ({"options": [("sigma", 1)]}, InvalidType, ("options", "sigma")),
    "I41 tol text": ({"tol": "small"}, (InvalidType, InvalidArgument), "tol"),
    "I41 tol nan": ({"tol": np.nan}, (InvalidType, InvalidArgument), "tol"),
    "I41 tol negative": ({"tol": -1.0}, (InvalidType, InvalidArgument), "tol"),
    "I41 noise text": ({"noise": "yes"}, (InvalidType, InvalidArgument), ("noise", "'yes'")),
    "I41 noise negative": ({"noise": -0.1}, (InvalidType, InvalidArgument), ("noise", r"-0\.1")),
    "I41 constraints function": ({"constraints": lambda x: x[0]}, InvalidType, ("constraints", "ineq")),
    "I41 constraints number": ({"constraints": 5}, InvalidType, ("constraints", "5")),
    "I42 method": ({"method": "cmaes2"}, UnknownName, ("method", "'cmaes2'", "Did you mean 'cma'")),
    "I42 scipy": ({"method": "scipy:Nelder-Med"}, UnknownName, ("Nelder-Med", "Did you mean 'Nelder-Mead'")),
    "I42 empty": ({"method": ""}, UnknownName, ("method", "''")),
    "I42 timeout unit": ({"timeout": "3 weeks"}, InvalidArgument, ("timeout", "'3 weeks'")),
    "I43 bounds triple": ({"bounds": [(1, 2, 3)] * 3}, InvalidType, ("bounds", r"\(1, 2, 3\)")),
    "I43 bounds missing": ({"bounds": [(-2, 2)] * 2}, InvalidArgument, ("bounds", "3", "2")),
    "I43 constraint type": ({"constraints": {"type": "le", "fun": len}}, InvalidArgument, ("constraints", "'le'")),
    "I43 constraint fun": ({"constraints": {"type": "eq"}}, InvalidArgument, ("constraints", "eq")),
    "I43 known number": ({"known": 3}, InvalidArgument, ("known", "3")),
    "I43 known lengths": ({"known": ([X0, X0], [1.0])}, InvalidArgument, ("known", "2", "1")),
    "I43 known shape": ({"known": (np.ones((2, 4)), [1.0, 2.0])}, InvalidArgument, ("known", r"1\., 1\., 1\., 1\.")),
    "I43 known texts": ({"known": ([X0], ["low"])}, InvalidArgument, ("known", "low")),
    "I43 known points": ({"known": (["abc"], [1.0])}, (InvalidType, InvalidArgument), ("known", "abc")),
    "I43 known outside": ({"known": ([[9.0, 0, 0]], [1.0])}, (InvalidType, InvalidArgument), ("known", "9")),
}


@every
@pytest.mark.parametrize("row", REFUSED)
def test_refused(method, row, ledger):
    changed, kind, words = REFUSED[row]
    refused(method, ledger, kind, words, changed)


@ours
def test_i42_option(method, ledger):
    name = STEP[method]
    refused(method, ledger, UnknownName, ("option", f"Did you mean '{name}'"), {"options": {f"{name}z": 1.0}})


@every
def test_i44_vectorized_objective_of_one_point(method, ledger):
    with pytest.raises(BadObjective, match="vectorized"):
        run(method, lambda X: [ledger(x) for x in X][:1] * (len(X) + 1), vectorized=True)
    assert len(ledger) <= 300


NO_NUMBERS = {"none": None, "text": "1.5", "complex": 1j, "bool": True, "list": [1.0, 2.0], "array": np.ones(2)}


@every
@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_i45_objective_that_is_no_number(method, kind):
    ledger = Ledger(lambda f, n, x: NO_NUMBERS[kind])
    with pytest.raises(BadObjective, match="must return a real number"):
        run(method, ledger)
    assert len(ledger) <= 100


def test_the_table_is_whole():
    rows = {int(number) for number in re.findall(r"^I(\d+) ", __doc__, re.M)}
    assert rows == set(range(1, 46))
    assert all(STEP.values())
    assert set(PEERS) < set(METHODS)
