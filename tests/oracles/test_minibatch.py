"""The minibatch oracle: equal numbers are equal rows, members of a step share them, and laws of oracles hold."""

from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.batch import Items, Points
from dfo.errors import InvalidArgument, InvalidType
from dfo.oracles.function import Halted
from dfo.random import Key, normal
from dfo.testing import check_oracle

Y = np.linspace(0.0, 2.0, 50)


def squares(X, rows):
    if not isinstance(X, np.ndarray):
        return ((X - X.new_tensor(Y)[rows]) ** 2).mean(1)
    return ((X - Y[rows]) ** 2).mean(axis=1)


def points(key, n):
    return Points(normal(key, (n, 1)), step=3)


def numbered(key, n):
    return Points(normal(key, (n, 1)), data=np.arange(n) % 3)


@pytest.mark.parametrize("factory", [points, numbered])
def test_the_laws_of_oracles(factory):
    check_oracle(dfo.Minibatch(squares, 50, 10), factory, seconds=300.0, cases=10).raise_if_failed()


def test_members_of_a_step_share_rows_and_the_next_step_sees_others():
    seen = []
    oracle = dfo.Minibatch(lambda X, rows: seen.append(rows) or np.zeros(len(X)), 50, 10)
    memory = oracle.start(0, Key(1))
    for step in (0, 1, 0):
        oracle.evaluate(Points(np.zeros((4, 1)), step=step), memory)
    assert len(seen) == 3
    assert len(set(seen[0].tolist())) == 10
    assert np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])


def test_equal_numbers_are_equal_rows_whatever_the_step():
    oracle = dfo.Minibatch(squares, 50, 10)
    memory = oracle.start(0, Key(1))
    batch = Points(np.ones((4, 1)), data=np.array([7, 8, 7, 9]), step=0)
    f = oracle.evaluate(batch, memory)[0].f
    assert f[0] == f[2] != f[1]
    assert np.array_equal(f, oracle.evaluate(replace(batch, step=5), memory)[0].f)
    assert np.array_equal(f[:1], oracle.evaluate(Points(np.ones((1, 1)), step=7), memory)[0].f)


def test_all_rows_are_the_exact_loss():
    oracle = dfo.Minibatch(squares, 50, 50)
    X = normal(Key(0), (3, 1))
    told, _ = oracle.evaluate(Points(X), oracle.start(0, Key(0)))
    np.testing.assert_allclose(told.f, squares(X, np.arange(50)), rtol=1e-15)


def test_a_key_of_its_own_makes_runs_see_the_same_minibatches():
    oracle = dfo.Minibatch(squares, 50, 10, key=Key(4))
    batch = Points(np.ones((2, 1)))
    values = [oracle.evaluate(batch, oracle.start(0, Key(seed)))[0].f for seed in (0, 1)]
    assert np.array_equal(*values)


def test_torch_populations_stay_tensors():
    torch = pytest.importorskip("torch")
    kinds = []

    def loss(X, rows):
        kinds.append((type(X), type(rows)))
        return squares(X, rows)

    oracle = dfo.Minibatch(loss, 50, 10)
    X = normal(Key(0), (3, 1))
    told = [oracle.evaluate(Points(x), Key(0))[0].f for x in (X, torch.tensor(X))]
    assert kinds[1] == (torch.Tensor, torch.Tensor)
    np.testing.assert_allclose(*told, rtol=1e-12)


def test_failures_are_masked_and_exceptions_end_the_batch():
    oracle = dfo.Minibatch(lambda X, rows: np.where(X[:, 0] > 0, np.nan, 1.0), 50, 10)
    told, _ = oracle.evaluate(Points(np.array([[-1.0], [1.0], [-1.0]]), data=np.array([0, 1, 1])), Key(0))
    assert told.failed.tolist() == [False, True, False]
    assert told.notes == ((1, "returned nan"),)
    with pytest.raises(Halted):
        dfo.Minibatch(lambda X, rows: 1 / 0, 50, 10).evaluate(Points(np.zeros((2, 1))), Key(0))
    with pytest.raises(ZeroDivisionError) as caught:
        dfo.minimize(dfo.Minibatch(lambda X, rows: 1 / 0, 50, 10), [0.0], method="openai-es", budget=50)
    assert caught.value.result.status == "error"


def test_bad_arguments_are_refused():
    with pytest.raises(InvalidArgument, match="size: expected 1 to 50"):
        dfo.Minibatch(squares, 50, 51)
    with pytest.raises(InvalidType, match="loss: expected"):
        dfo.Minibatch(3.0, 50, 5)
    with pytest.raises(InvalidType, match="vectors"):
        dfo.Minibatch(squares, 50, 5).evaluate(Items(["a"]), Key(0))
