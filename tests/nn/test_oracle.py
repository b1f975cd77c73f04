"""A network as an oracle: any solver, any precision of the start, data and random numbers by number."""

import numpy as np
import pytest
import torch
from torch import nn

import dfo
import dfo.nn
from dfo.errors import InvalidArgument, InvalidType

SOLVERS = ("zo-sgd", "openai-es", "genetic", "cbo", "zo-rank-sgd", "cma")


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def data():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    return x, x.sum(1, keepdim=True)


def square(module, batch):
    return (module(batch[0]) - batch[1]).square().mean(1)


@pytest.mark.parametrize("method", SOLVERS)
def test_solvers_lower_the_loss_and_leave_the_module_alone(method):
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    oracle = dfo.nn.ModuleOracle(net, square, data())
    first = float(square(net, data()).mean().detach())
    res = dfo.minimize(oracle, method=method, budget=600)
    assert res.nfev <= 600
    assert res.fun < 0.5 * first
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    oracle.load(res.x)
    assert float(square(net, data()).mean().detach()) == pytest.approx(res.fun, rel=1e-5)


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.float64, torch.float32])
@pytest.mark.parametrize("low_rank", [False, True])
def test_solver_and_network_speak_of_the_same_directions(kind, low_rank):
    """A strategy whose network saw other directions than those it sums would learn nothing."""
    net = nn.Linear(3, 1)
    oracle = dfo.nn.ModuleOracle(net, square, data())
    x0 = torch.zeros(4, dtype=kind) if isinstance(kind, torch.dtype) else np.zeros(4, kind)
    solver = dfo.OpenAIES(directions=oracle.low_rank()) if low_rank else "openai-es"
    assert dfo.minimize(oracle, x0, method=solver, budget=600).fun < 0.01


def test_equal_numbers_are_equal_data_and_equal_masks():
    """With dropout, two members of one question see the same masks: equal points have equal values."""
    net = nn.Sequential(nn.Linear(3, 32), nn.Dropout(0.5), nn.Linear(32, 1)).train()
    seen = []

    def batch(number):
        seen.append(number)
        return data()

    oracle = dfo.nn.ModuleOracle(net, square, batch)
    state = oracle.start(0, dfo.random.Key(0))
    X = torch.stack([oracle.x0] * 4)
    from dfo.batch import Points

    told, _ = oracle.evaluate(Points(X, data=np.array([7, 7, 8, 7])), state)
    assert seen == [7, 8]
    assert told.f[0] == pytest.approx(told.f[1], rel=1e-5)
    assert told.f[0] == pytest.approx(told.f[3], rel=1e-5)
    assert abs(told.f[0] - told.f[2]) > 1e-4  # another number, other masks
    again, _ = oracle.evaluate(Points(X, data=np.array([7, 7, 8, 7])), state)
    assert (again.f == told.f).all()


def test_scores_without_a_gradient_are_minimised():
    x, _ = data()
    kind = (x[:, 0] > 0).long()
    net = nn.Linear(3, 2)
    wrong = lambda module, batch: (module(batch[0]).argmax(1) != batch[1]).double()  # noqa: E731
    res = dfo.minimize(dfo.nn.ModuleOracle(net, wrong, (x, kind)), method="openai-es", budget=2000)
    assert res.fun <= 0.1


def test_what_cannot_be_is_refused_before_anything_is_evaluated():
    net = network()
    with pytest.raises(InvalidType, match=r"list\(loader\)"):
        dfo.nn.ModuleOracle(net, square, iter([data()]))
    with pytest.raises(InvalidArgument, match="empty list"):
        dfo.nn.ModuleOracle(net, square, [])
    with pytest.raises(InvalidType, match="function of module and batch"):
        dfo.nn.ModuleOracle(net, 3.0, data())
    with pytest.raises(InvalidArgument, match="expected 26 weights, got 3"):
        dfo.nn.ModuleOracle(net, square, data()).load(np.zeros(3))


@pytest.mark.parametrize("method", ["random", "zo-sgd"])
def test_bounds_leave_the_start_where_the_weights_are(method):
    oracle = dfo.nn.ModuleOracle(network(), square, data())
    first = float(square(network(), data()).mean().detach())
    res = dfo.minimize(oracle, bounds=[(-3, 2)] * 26, method=method, budget=1)
    assert res.fun == pytest.approx(first, rel=1e-5)
    res = dfo.minimize(oracle, np.full(26, 0.5), bounds=[(-3, 2)] * 26, method=method, budget=1)
    assert res.fun != pytest.approx(first, rel=1e-3)  # another start, where one is given


def test_weights_outside_the_bounds_are_told():
    oracle = dfo.nn.ModuleOracle(network(), square, data())
    outside = int((oracle.x0.abs() > 0.3).sum())
    assert outside > 1
    with pytest.raises(InvalidArgument, match=rf"within the bounds .* \({outside} of 26 lie outside\)"):
        dfo.minimize(oracle, bounds=[(-0.3, 0.3)] * 26, budget=1)
