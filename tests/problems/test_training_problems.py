"""Small networks: the population's values are those of single networks, on either library; and they can be trained."""

import numpy as np
import pytest

import dfo
from dfo.bench.packs import make
from dfo.random import Key, normal
from dfo.testing import check_problem
from dfo_problems import PROBLEMS
from dfo_problems.training import MLP, Training, accuracy

pytest.importorskip("sklearn")
DIMS = {"digits": 64 * 32 + 32 + 330, "digits-resplit": 2410, "breast-cancer": 530, "wine": 275, "iris": 131}


def by_hand(net, x, data, labels):
    """Return the cross-entropy of one network, one row after the other."""
    a, h, c = net.sizes
    W1, b1, W2, b2 = np.split(x, np.cumsum([a * h, h, h * c]))
    total = 0.0
    for row, label in zip(data, labels, strict=True):
        hidden = row @ W1.reshape(a, h) + b1
        hidden = np.tanh(hidden) if net.activation == "tanh" else np.maximum(hidden, 0.0)
        p = np.exp(hidden @ W2.reshape(h, c) + b2)
        total -= np.log(p[label] / p.sum())
    return total / len(labels)


@pytest.mark.parametrize("function", PROBLEMS["training"].functions)
def test_values_are_those_of_single_networks(function):
    fun = Training(function)
    net = fun.network
    assert net.dim == DIMS[function.rpartition("-")[0]]
    X = net.start(Key(0)) + 0.3 * normal(Key(1), (3, net.dim))
    rows = np.array([5, 0, 17])
    wanted = [by_hand(net, x, net.data[rows], net.labels[rows]) for x in X]
    np.testing.assert_allclose(net.loss(X, rows), wanted, rtol=1e-10)
    assert fun.size == min(256, len(net.labels) // 3)


def test_torch_gives_the_same():
    torch = pytest.importorskip("torch")
    net = Training("iris-relu").network
    X = normal(Key(1), (3, net.dim))
    here, there = net.loss(X), net.loss(torch.tensor(X))
    np.testing.assert_allclose(here, there.numpy(), rtol=1e-10)


def test_weights_of_any_size_have_a_finite_loss():
    net = Training("wine-tanh").network
    assert np.isfinite(net.loss(1e6 * normal(Key(1), (2, net.dim)))).all()


def test_starts_are_scaled_by_the_inputs_and_differ_by_instance():
    net = MLP(np.zeros((5, 400)), np.arange(5), 200, "relu")
    x = net.start(Key(0))
    assert abs(x[: 400 * 200].std() * 20.0 - 2**0.5) < 0.02
    assert (x[400 * 200 : 400 * 200 + 200] == 0.0).all()
    assert not np.array_equal(make("training-wine-tanh-i01").x0, make("training-wine-tanh-i02").x0)


@pytest.mark.parametrize("function", ["wine-relu", "iris-tanh"])
def test_the_laws_of_problems(function):
    check_problem(make(f"training-{function}-i01"), seconds=300.0, cases=5).raise_if_failed()


def test_a_network_is_trained_and_tested():
    problem = make("training-wine-tanh-i01")
    res = dfo.minimize(problem.fun, problem.x0, method="openai-es", budget=3000, batch=50, noise=True)
    assert problem.measure(res.x) < 0.1 < problem.measure(problem.x0)  # a fixed seed; 0.02 is usual
    assert accuracy("wine-tanh", res.x) == problem.fun.accuracy(res.x) > 0.85


def test_the_other_split_is_another_one():
    one, two = Training("digits-tanh").test[0], Training("digits-resplit-tanh").test[0]
    assert one.shape == two.shape == (360, 64)
    shared = {row.tobytes() for row in np.round(one * 100)} & {row.tobytes() for row in np.round(two * 100)}
    assert len(shared) < 120  # 72 are expected; standardised a little differently, fewer are equal
