"""Noise that can be had twice, and differs every time."""

import numpy as np
import pytest
import torch

from dfo_problems import make
from dfo_problems.noisy import LEVELS, NOISY_CLASSIC

NAMES = NOISY_CLASSIC.select(dims=[5], instances=[1])


@pytest.mark.parametrize("name", NAMES)
def test_equal_points_get_different_values_and_equal_runs_equal_ones(name):
    X = np.repeat(make(name).x0[None], 5, axis=0)
    first, again = make(name), make(name)
    together = first.fun(X)
    assert len(set(together.tolist())) == 5
    one_by_one = [float(again.fun(X[:1])[0]) for _ in range(5)]
    np.testing.assert_array_equal(one_by_one, together)
    assert not np.intersect1d(together, first.fun(X)).size


def test_instances_and_functions_have_their_own_noise():
    names = ["noisy-additive-sphere-i01-d02", "noisy-additive-sphere-i02-d02", "noisy-additive-ellipsoid-i01-d02"]
    drawn = [make(name) for name in names]
    noise = [float(p.fun(p.x_opt[None])[0]) for p in drawn]
    assert len(set(noise)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_noise_has_the_law_that_is_stated_and_the_measure_has_none(name):
    problem = make(name)
    exact = problem.measure(problem.x0)
    calls = problem.fun.calls
    assert exact == problem.measure(problem.x0) == make(name).measure(problem.x0)
    assert problem.fun.calls == calls == 0
    values = problem.fun(np.repeat(problem.x0[None], 4000, axis=0))
    kind = name.split("-")[1]
    assert problem.measure(problem.x_opt) == problem.f_opt == 0.0
    if kind == "heavy":  # half of the measurements within the scale, 2/pi atan(1/20) of them beyond 20 scales
        assert (abs(values - exact) < LEVELS[kind]).mean() == pytest.approx(0.5, abs=0.04)
        assert (abs(values - exact) > 2.0).mean() == pytest.approx(2 / np.pi * np.arctan(1 / 20), abs=0.011)
        return
    z = values - exact if kind == "additive" else np.log(values / exact)
    assert abs(z.mean()) < 4 * LEVELS[kind] / np.sqrt(4000)
    assert z.std() == pytest.approx(LEVELS[kind], rel=0.05)


def test_torch_points_get_the_same_noise():
    X = np.repeat(make(NAMES[0]).x0[None], 3, axis=0)
    values = make(NAMES[0]).fun(torch.from_numpy(X))
    np.testing.assert_allclose(values.numpy(), make(NAMES[0]).fun(X), rtol=1e-12)
