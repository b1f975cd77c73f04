"""The textbook functions against the textbook, one number at a time."""

import math
from itertools import pairwise
from math import cos, e, exp, pi, prod, sin, sqrt

import numpy as np
import pytest
import torch

from dfo.random import Key, normal
from dfo_problems.classic import CLASSIC, FUNCTIONS, SCHWEFEL_X, STYBLINSKI_X, cosine_basis

LABELS = CLASSIC.functions
DIMS = (2, 3, 10)


def levy(x):
    w = [1 + (v - 1) / 4 for v in x]
    middle = sum((v - 1) ** 2 * (1 + 10 * sin(pi * v + 1) ** 2) for v in w[:-1])
    return sin(pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + sin(2 * pi * w[-1]) ** 2)


def rotated(x):
    d = len(x)
    z = []
    for i in range(d):
        scale = sqrt((1 if i == 0 else 2) / d)
        z.append(sum(scale * cos(pi * (2 * j + 1) * i / (2 * d)) * x[j] for j in range(d)))
    return TEXTBOOK["ellipsoid"](z)


TEXTBOOK = {
    "sphere": lambda x: sum(v * v for v in x),
    "ellipsoid": lambda x: sum(10 ** (6 * i / (len(x) - 1)) * v * v for i, v in enumerate(x)),
    "cigar": lambda x: x[0] ** 2 + 1e6 * sum(v * v for v in x[1:]),
    "discus": lambda x: 1e6 * x[0] ** 2 + sum(v * v for v in x[1:]),
    "different-powers": lambda x: sum(abs(v) ** (i + 1) for i, v in enumerate(x, 1)),
    "rotated-ellipsoid": rotated,
    "sharp-ridge": lambda x: x[0] ** 2 + 100 * sqrt(sum(v * v for v in x[1:])),
    "rosenbrock": lambda x: sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(x)),
    "dixon-price": lambda x: (
        (x[0] - 1) ** 2 + sum(i * (2 * x[i - 1] ** 2 - x[i - 2]) ** 2 for i in range(2, len(x) + 1))
    ),
    "zakharov": lambda x: sum(v * v for v in x) + (t := sum(0.5 * i * v for i, v in enumerate(x, 1))) ** 2 + t**4,
    "rastrigin": lambda x: 10 * len(x) + sum(v * v - 10 * cos(2 * pi * v) for v in x),
    "ackley": lambda x: (
        -20 * exp(-0.2 * sqrt(sum(v * v for v in x) / len(x))) - exp(sum(cos(2 * pi * v) for v in x) / len(x)) + 20 + e
    ),
    "griewank": lambda x: 1 + sum(v * v for v in x) / 4000 - prod(cos(v / sqrt(i)) for i, v in enumerate(x, 1)),
    "levy": levy,
    "schwefel": lambda x: 418.9828872724337 * len(x) - sum(v * sin(sqrt(abs(v))) for v in x),
    "styblinski-tang": lambda x: sum(v**4 - 16 * v**2 + 5 * v for v in x) / 2,
}


def problem(label, dim):
    return CLASSIC.make(f"classic-{label}-d{dim}")


@pytest.mark.parametrize("label", LABELS)
def test_values_are_those_of_the_textbook(label):
    for dim in DIMS:
        p = problem(label, dim)
        X = p.space.sample(Key(1), 20)
        np.testing.assert_allclose(p.fun(X), [TEXTBOOK[label](x.tolist()) for x in X], rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("label", LABELS)
def test_the_minimum_is_where_it_is_said_to_be(label):
    for dim in (*DIMS, 40):
        p = problem(label, dim)
        assert abs(float(p.fun(p.x_opt[None])[0]) - p.f_opt) <= 1e-12 * dim
        assert float(p.fun(p.x0[None])[0]) > p.f_opt + 0.1


@pytest.mark.parametrize("label", LABELS)
def test_no_point_lies_below_the_minimum(label):
    for dim in DIMS:
        p = problem(label, dim)
        width = p.space.upper - p.space.lower
        points = [p.space.sample(Key(2), 4000)]
        for scale in (1e-1, 1e-2, 1e-3, 1e-4, 1e-6):  # and around the minimiser, at every scale
            points.append(p.space.project(p.x_opt + scale * width * normal(Key(2, (dim,)), (500, dim))))
        values = p.fun(np.vstack(points))
        assert values.min() >= p.f_opt - 1e-12 * dim
        assert (p.fun(points[1]) > p.f_opt + 1e-9).all()


@pytest.mark.parametrize("label", LABELS)
def test_points_one_by_one_have_the_values_of_all_at_once(label):
    p = problem(label, 5)
    X = p.space.sample(Key(4), 7)
    together = p.fun(X)
    assert together.shape == (7,)
    np.testing.assert_allclose([float(p.fun(x)) for x in X], together, rtol=1e-13)
    np.testing.assert_allclose([p.fun(x[None])[0] for x in X], together, rtol=1e-13)


@pytest.mark.parametrize("label", LABELS)
def test_numpy_and_torch_agree(label):
    p = problem(label, 6)
    X = p.space.sample(Key(5), 8)
    values = p.fun(torch.from_numpy(X))
    assert isinstance(values, torch.Tensor)
    assert values.dtype == torch.float64
    np.testing.assert_allclose(values.numpy(), p.fun(X), rtol=1e-12)
    for single in (p.fun(torch.from_numpy(X).float()), p.fun(X.astype(np.float32))):
        assert str(single.dtype).endswith("float32")
        np.testing.assert_allclose(np.asarray(single), p.fun(X), rtol=1e-3)


@pytest.mark.parametrize("label", LABELS)
def test_integers_are_numbers_too(label):
    p = problem(label, 3)
    np.testing.assert_array_equal(p.fun(np.array([[1, 0, -1]])), p.fun(np.array([[1.0, 0.0, -1.0]])))


def test_starts_and_boxes_favour_nobody():
    for label in LABELS:
        p = problem(label, 10)
        assert len(np.unique(p.x0)) == 10
        middle = (p.space.lower + p.space.upper) / 2
        assert (np.abs(p.x_opt - middle) > 0.01 * (p.space.upper - p.space.lower)).any()
        assert FUNCTIONS[label].source


def test_constants_are_roots():
    assert math.isclose(2 * math.tan(sqrt(SCHWEFEL_X)) + sqrt(SCHWEFEL_X), 0.0, abs_tol=1e-11)
    assert math.isclose(4 * STYBLINSKI_X**3 - 32 * STYBLINSKI_X + 5, 0.0, abs_tol=1e-12)


@pytest.mark.parametrize("dim", [2, 5, 33])
def test_the_rotation_is_orthogonal_and_dense(dim):
    Q = cosine_basis(dim)
    np.testing.assert_allclose(Q @ Q.T, np.eye(dim), atol=1e-13)
    p = problem("rotated-ellipsoid", dim)
    axes = p.fun(np.vstack([Q.T[:, 0], Q.T[:, -1]]))  # the axes of the ellipsoid are the rows of Q
    np.testing.assert_allclose(axes, [1.0, 1e6], rtol=1e-9)
