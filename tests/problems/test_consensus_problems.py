"""The pack of consensus-based optimisation: its landscapes are those of the studies, its digits those of everybody."""

import numpy as np
import pytest

import dfo_problems
from dfo.batch import Points
from dfo.random import Key, normal
from dfo.testing import check_problem
from dfo_problems.consensus import canyon, half_rastrigin, softmax_loss
from dfo_problems.digits import TRAIN, load_digits


@pytest.mark.parametrize("name", dfo_problems.PROBLEMS["consensus"].names())
def test_laws(name):
    check_problem(dfo_problems.make(name), seconds=5.0, cases=5).raise_if_failed()


def test_gradient_descent_stops_where_the_study_says():
    x, e = np.array([8.0, 8.0]), 1e-5 * np.eye(2)
    for _ in range(3000):
        x = x - 1e-3 * (canyon(x + e) - canyon(x - e)) / 2e-5
    assert x == pytest.approx([6.62, 7.55], abs=0.01)
    assert canyon(x[None])[0] == pytest.approx(137.3, abs=0.1)


def test_half_strength():
    assert half_rastrigin(np.array([[0.5, 0.0], [1.0, 1.0]])) == pytest.approx([5.25, 2.0])


def test_the_digits_are_split_once_and_standardised():
    X, y, X_test, y_test = load_digits()
    assert (X.shape, X_test.shape) == ((TRAIN, 64), (360, 64))
    assert set(y) == set(y_test) == set(range(10))
    varying = X.std(axis=0) > 0
    assert X[:, varying].std(axis=0) == pytest.approx(1.0)
    assert X.mean(axis=0) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        X[0, 0] = 1.0


def test_the_softmax_loss_is_a_cross_entropy():
    assert softmax_loss(np.zeros((2, 650)), np.arange(60)) == pytest.approx(np.log(10.0))
    huge = 1e4 * normal(Key(0), (2, 650))
    assert np.isfinite(softmax_loss(huge)).all()
    torch = pytest.importorskip("torch")
    X = normal(Key(1), (3, 650))
    assert softmax_loss(torch.tensor(X)).numpy() == pytest.approx(softmax_loss(X))


def test_all_members_of_a_step_see_the_same_images():
    fun = dfo_problems.make("consensus-softmax").fun
    x = normal(Key(2), (1, 650))
    told, _ = fun.evaluate(Points(np.repeat(x, 4, axis=0), step=3), fun.start(0, Key(0)))
    assert len(set(told.f.tolist())) == 1
    assert fun.accuracy(x[0]) < 0.4
    assert fun.exact(x[0]) > 1.0
