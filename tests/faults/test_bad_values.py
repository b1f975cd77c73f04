"""What an objective may return instead of a number, and when: the run ends within its budget and tells the truth.

Every row goes through every method with both policies. A value that is no number is a failed evaluation:
counted, ranked last, never the result, and announced by one warning. The first value of a run has to be a
number, or the script is wrong. An exception ends the run with what was learned so far as ``error.result``, or
is recorded.
"""

import math
import warnings
from decimal import Decimal

import numpy as np
import pytest
from ledger import METHODS, OPTIMUM, SOLVERS, Ledger

import dfo
from dfo.errors import BadObjective, EvaluationWarning

X0 = [0.5, 0.5, 0.5]
BOX = [(-2.0, 2.0)] * 3
BUDGET = 300


class Boom(Exception):
    """What the objective raises."""


def some(n):
    """True for about three calls of ten, never for the first."""
    return n > 1 and n % 10 in (2, 5, 9)


def region(x):
    return x[0] < 0.3


def instead(value, when):
    return lambda f, n, x: value if when(n, x) else f


def raising(when):
    def value(f, n, x):
        if when(n, x):
            raise Boom(f"call {n}")
        return f

    return value


ROWS = {
    "nan first": instead(math.nan, lambda n, x: n == 1),
    "nan some": instead(math.nan, lambda n, x: some(n)),
    "nan region": instead(math.nan, lambda n, x: region(x)),
    "nan all": instead(math.nan, lambda n, x: True),
    "inf some": instead(math.inf, lambda n, x: some(n)),
    "inf region": instead(math.inf, lambda n, x: region(x)),
    "inf all": instead(math.inf, lambda n, x: True),
    "-inf once": instead(-math.inf, lambda n, x: n == 7),
    "none some": instead(None, lambda n, x: some(n)),
    "text of a number some": instead("1.5", lambda n, x: some(n)),
    "text some": instead("oops", lambda n, x: some(n)),
    "complex some": instead(1j, lambda n, x: some(n)),
    "array of one": lambda f, n, x: np.array([f]),
    "matrix of one": lambda f, n, x: np.array([[f]]),
    "array of two": instead(np.ones(2), lambda n, x: some(n)),
    "array of none": instead(np.ones(0), lambda n, x: some(n)),
    "bool some": instead(True, lambda n, x: some(n)),
    "decimal": lambda f, n, x: Decimal(f),
    "huge some": instead(1e308, lambda n, x: some(n)),
    "raises once": raising(lambda n, x: n == 7),
    "raises always": raising(lambda n, x: True),
    "raises now and then": raising(lambda n, x: n % 100 == 50),
}
FINE = ("array of one", "matrix of one", "decimal", "huge some")
ALL_FAIL = ("nan all", "inf all")


def is_failure(row, value):
    return row not in FINE and not (isinstance(value, float) and math.isfinite(value))


def minimize(method, fun, on_error="raise", **changed):
    """Run with every warning of the library recorded, and every other one an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            res = dfo.minimize(fun, X0, method=method, bounds=BOX, budget=BUDGET, seed=2, on_error=on_error, **changed)
        finally:
            foreign = [w for w in caught if not issubclass(w.category, EvaluationWarning)]
            assert not foreign, foreign[0]
    return res, [w for w in caught if issubclass(w.category, EvaluationWarning)]


def consistent(row, res, ledger, failures):
    """Check what is true of every result."""
    assert res.nfev == len(ledger) == len(res.history) <= BUDGET
    assert res.nfail == failures
    assert np.isfinite(res.x).all()
    assert all(((x >= -2) & (x <= 2)).all() for x in [*ledger.points, res.x])
    if failures == res.nfev:
        assert (res.status, res.success) == ("all_failed", False) or res.status == "error"
        assert math.isnan(res.fun)
        assert res.x.tolist() == X0
    else:
        assert math.isfinite(res.fun)
        assert res.fun == min(f for f in res.history.fun if math.isfinite(f))
        assert res.fun == 1e308 or res.fun == pytest.approx(ledger.true(res.x), rel=1e-6)


@pytest.mark.parametrize("on_error", ["raise", "record"])
@pytest.mark.parametrize(("row", "method"), [(row, method) for row in ROWS for method in METHODS])
def test_bad_values(row, method, on_error):
    returned = []

    def value(f, n, x):
        try:
            result = ROWS[row](f, n, x)
        except Boom as error:
            returned.append(error)
            raise
        returned.append(result)
        return result

    ledger = Ledger(value)
    if row.startswith("raises") and on_error == "raise":
        with pytest.raises(Boom, match="call") as caught:
            minimize(method, ledger, on_error)
        res, told = caught.value.result, []
        assert res.status == "error"
        assert res.nfev == {"once": 7, "always": 1}.get(row.split()[1], 50)
    else:
        res, told = minimize(method, ledger, on_error)
        assert len(told) == (1 if res.nfail else 0)
        assert not told or f"{res.nfail} of {res.nfev}" in str(told[0].message)
    consistent(row, res, ledger, sum(is_failure(row, v) for v in returned))
    if row not in (*ALL_FAIL, "raises always") and res.status != "error" and method in SOLVERS:
        assert ledger.true(res.x) < (0.6 if method == "random" else 0.1)


@pytest.mark.parametrize("kind", ["none", "text", "complex", "array of two", "bool"])
@pytest.mark.parametrize("on_error", ["raise", "record"])
@pytest.mark.parametrize("method", METHODS)
def test_a_first_value_that_is_no_number_is_a_mistake_in_the_script(method, on_error, kind):
    wrong = {"none": None, "text": "1.5", "complex": 1j, "array of two": np.ones(2), "bool": True}[kind]
    with pytest.raises(BadObjective, match="must return a real number"):
        minimize(method, Ledger(lambda f, n, x: wrong), on_error)


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_inside_a_prefix_is_the_users_own(method):
    """The budget ends within the batch in which the objective raises."""
    ledger = Ledger(raising(lambda n, x: n == 2))
    with pytest.raises(Boom) as caught:
        dfo.minimize(ledger, X0, method=method, bounds=BOX, budget=3, seed=0)
    assert caught.value.result.nfev == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [SystemExit(5), KeyboardInterrupt(), GeneratorExit()], ids=lambda e: type(e).__name__)
def test_what_is_no_error_passes_through(method, error):
    def leaves(f, n, x):
        if n == 3:
            raise error
        return f

    with pytest.raises(type(error)):
        dfo.minimize(Ledger(leaves), X0, method=method, bounds=BOX, budget=20, on_error="record")


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_that_cannot_carry_a_result_is_raised_all_the_same(method):
    class Closed(Exception):
        __slots__ = ()

        def __setattr__(self, name, value):
            if name == "result":
                raise AttributeError(name)
            super().__setattr__(name, value)

    def raises(x):
        raise Closed

    with pytest.raises(Closed):
        dfo.minimize(raises, X0, method=method, budget=20)


@pytest.mark.parametrize("method", SOLVERS)
def test_a_vectorized_objective_masks_rows(method):
    def fun(X):
        f = ((X - OPTIMUM) ** 2).sum(axis=1)
        return np.where(np.arange(len(X)) % 3 == 1, np.nan, f)

    res, told = minimize(method, fun, vectorized=True)
    assert res.nfail > 0
    assert len(told) == 1
    assert math.isfinite(res.fun)


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("shape", ["(n, 1)", "list", "wrong", "scalar", "complex"])
def test_answers_of_vectorized_objectives(method, shape):
    def fun(X):
        f = ((X - OPTIMUM) ** 2).sum(axis=1)
        return {
            "(n, 1)": f[:, None], "list": f.tolist(), "wrong": f[:-1], "scalar": float(f.sum()), "complex": f + 0j
        }[shape]  # fmt: skip

    if shape in ("(n, 1)", "list"):
        res, _ = minimize(method, fun, vectorized=True)
        assert res.nfev == BUDGET or res.success
    else:
        with pytest.raises(BadObjective, match="vectorized objective must return"):
            minimize(method, fun, vectorized=True)


HIDDEN = {name: 20 if name in ("cma", "nelder-mead") else 5 for name in SOLVERS}


@pytest.mark.parametrize("method", HIDDEN)
def test_a_hidden_constraint_costs_no_more_than_a_wall(method):
    """With NaN in a half space, the true value reached is within ten times that of the run with +inf there."""

    def reached(value, seed):
        ledger = Ledger(lambda f, n, x: value if x[0] < 0.65 else f)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EvaluationWarning)
            res = dfo.minimize(ledger, [1.5, 0.5, 0.5], method=method, bounds=BOX, budget=400, seed=seed)
        return ledger.true(res.x), res.nfev

    for seed in range(HIDDEN[method]):
        (nan, nfev), (inf, wall) = reached(math.nan, seed), reached(math.inf, seed)
        assert nan <= 10 * inf + 1e-12
        assert nfev == wall
        assert nan < 1.0


def test_all_rows_are_there():
    assert len(ROWS) == 22
