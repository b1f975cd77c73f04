"""Sets at the front door: what is taken and refused, and that results are points of the set within the budget."""

import numpy as np
import pytest
import torch

import dfo
from dfo.errors import InvalidArgument
from dfo.solvers import SOLVERS, solver_class

METHODS = [name for name in SOLVERS if "convex" in getattr(solver_class(name), "spaces", ())]
OTHERS = [name for name in SOLVERS if name not in METHODS]
SIMPLEX = dfo.Simplex(3)


def bowl(x):
    return float(((x - np.array([0.2, 0.9, 0.0])) ** 2).sum())


class Ledger:
    def __init__(self, fun=bowl):
        self.fun, self.seen = fun, []

    def __call__(self, x):
        self.seen.append(np.array(x))
        return self.fun(np.array(x))


def test_there_are_methods():
    assert {"zo-fw", "zo-sgd"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [0, 1, 2, 9, 400])
def test_the_result_is_a_point_of_the_set(method, budget):
    f = Ledger()
    res = dfo.minimize(f, bounds=SIMPLEX, method=method, budget=budget)
    assert len(f.seen) == res.nfev == len(res.history) <= budget
    assert SIMPLEX.contains(res.x)
    assert res.best_x is None or SIMPLEX.contains(res.best_x)
    if budget:
        assert res.fun == pytest.approx(bowl(res.x), rel=1e-12)
        assert res.fun == res.history.best_fun[-1]
    if budget == 400:
        assert res.fun < 0.2 * bowl(SIMPLEX.center)


@pytest.mark.parametrize("method", METHODS)
def test_with_noise_the_recommendation_is_evaluated_again(method):
    draws = np.random.default_rng(0)
    res = dfo.minimize(lambda x: bowl(x) + 0.01 * draws.normal(), x0=SIMPLEX, method=method, budget=600, noise=True)
    assert SIMPLEX.contains(res.x)
    assert res.fun_stderr > 0
    assert abs(res.fun - bowl(res.x)) < 5 * res.fun_stderr
    assert res.nfev <= 600


@pytest.mark.parametrize("method", METHODS)
def test_tensors_stay_tensors(method):
    x0 = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float32)
    res = dfo.minimize(lambda x: float(((x - 0.4) ** 2).sum()), x0, bounds=SIMPLEX, method=method, budget=60)
    assert res.x.dtype == torch.float32
    assert SIMPLEX.contains(res.x)


@pytest.mark.parametrize("method", OTHERS)
def test_others_are_refused_with_the_names_of_those_that_do(method):
    f = Ledger()
    if not solver_class(method).needs <= {"values", "ranking"}:
        pytest.skip("it needs another oracle")
    with pytest.raises(InvalidArgument, match="zo-fw"):
        dfo.minimize(f, bounds=SIMPLEX, method=method)
    assert not f.seen


def test_peers_are_refused():
    with pytest.raises(InvalidArgument, match="convex"):
        dfo.minimize(bowl, bounds=SIMPLEX, method="scipy:SLSQP")


def test_auto_takes_a_method_of_sets():
    res = dfo.minimize(bowl, bounds=SIMPLEX, budget=50)
    assert "convex set" in res.reason
    assert SIMPLEX.contains(res.x)


def test_a_start_outside_is_refused_with_the_nearest():
    with pytest.raises(InvalidArgument, match=r"x0\[0\] = 1 instead of 2.*bounds.project"):
        dfo.minimize(bowl, [2.0, 0.0, 0.0], bounds=dfo.L1Ball(3), method="zo-fw")
    with pytest.raises(InvalidArgument, match="expected 3 variables"):
        dfo.minimize(bowl, [1.0, 0.0], bounds=SIMPLEX, method="zo-fw")
    with pytest.raises(InvalidArgument, match="drop one"):
        dfo.minimize(bowl, SIMPLEX, bounds=SIMPLEX, method="zo-fw")


@pytest.mark.parametrize("where", [None, [(None, 1.0)] * 3])
def test_frank_wolfe_needs_a_bounded_space(where):
    with pytest.raises(InvalidArgument, match=r"L1Ball"):
        dfo.minimize(bowl, [0.0] * 3, bounds=where, method="zo-fw")


def test_a_bounded_box_is_a_set():
    f = Ledger()
    res = dfo.minimize(f, [0.5] * 3, bounds=[(0.0, 0.6)] * 3, method="zo-fw", budget=2000)
    assert all(((x >= 0.0) & (x <= 0.6)).all() for x in f.seen)
    np.testing.assert_allclose(res.x, [0.2, 0.6, 0.0], atol=0.03)


def test_queries_beside_the_set_are_never_the_best():
    """The function falls without end outside: the lowest query lies there, the result does not."""
    ball = dfo.L1Ball(3)
    f = Ledger(lambda x: float(x.sum()))
    res = dfo.minimize(f, bounds=ball, method=dfo.FrankWolfe(c=0.3), budget=300)
    assert min(f.fun(x) for x in f.seen) < -1.05
    assert ball.contains(res.x)
    assert res.fun >= -1.0 - 1e-9
    assert res.history.best_fun[-1] == res.fun


def test_a_target_outside_does_not_end_the_run():
    f = Ledger(lambda x: float(x.sum()))
    solver = dfo.FrankWolfe(c=0.3)
    res = dfo.minimize(f, bounds=dfo.L1Ball(3), method=solver, budget=300, stop=dfo.Target(-1.02))
    assert res.status == "budget"


def test_known_points_must_lie_inside():
    with pytest.raises(InvalidArgument, match="known"):
        dfo.minimize(bowl, bounds=SIMPLEX, method="zo-sgd", known=([[1.0, 1.0, 1.0]], [0.0]))


@pytest.mark.parametrize("method", METHODS)
def test_ask_and_tell(method):
    opt = dfo.AskTell(method, bounds=SIMPLEX, seed=1)
    for _ in range(60):
        x = opt.ask()
        opt.tell(x, bowl(x))
    assert opt.best_x is None or SIMPLEX.contains(opt.best_x)
    assert SIMPLEX.contains(opt.recommended)
    with pytest.raises(InvalidArgument):
        opt.observe(np.ones(3), 0.0)


class Disc:
    """A set of somebody else's: the unit disc."""

    dim = 2
    center = np.zeros(2)

    def contains(self, x):
        return float(x @ x) <= 1.0 + 1e-9

    def project(self, x):
        x = np.asarray(x, dtype=float)
        return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), 1.0)

    def sample(self, key, n):
        return dfo.L2Ball(2).sample(key, n)

    def lmo(self, s):
        return dfo.L2Ball(2).lmo(s)


@pytest.mark.parametrize("method", ["zo-fw", "zo-sgd"])
def test_a_set_of_ones_own(method):
    res = dfo.minimize(lambda x: float(((x - [2.0, 0.0]) ** 2).sum()), bounds=Disc(), method=method, budget=400)
    np.testing.assert_allclose(res.x, [1.0, 0.0], atol=0.05)


def test_a_bench_takes_methods_of_bounded_spaces():
    from dfo.bench.methods import check_method

    assert check_method("zo-fw[scheme=kwsa]").name == "zo-fw"
    with pytest.raises(InvalidArgument, match="scheme"):
        check_method("zo-fw[scheme=none]")
