"""COCO's suites against COCO itself: its own minimisers, its own opinion of when a target is hit."""

import gc
import sys

import cocoex
import numpy as np
import pytest

from dfo.random import Key, normal, uniform
from dfo_problems import make
from dfo_problems.coco import BBOB, CONSTRAINED, LARGESCALE, MIXINT, NOISY, NoiseFree, Single

FINAL = 1e-8  # the last of COCO's 51 targets


def minimiser_by_coco(suite, function, instance, dim, folder, monkeypatch):
    """The minimiser that COCO writes to a file; the file is why the packs do not ask this way."""
    monkeypatch.chdir(folder)
    Single(suite, function, instance, dim).evaluate._best_parameter("print")
    return np.loadtxt(folder / "._bbob_problem_best_parameter.txt", ndmin=1)


def around(problem, scales=(1e-1, 1e-3, 1e-5), n=30):
    """Points of the whole box and points near the minimiser."""
    d = problem.space.dim
    near = [problem.space.project(problem.x_opt + s * normal(Key(1, (d,)), (n, d))) for s in scales]
    return np.vstack([problem.space.sample(Key(2), n), *near])


@pytest.mark.parametrize("dim", [2, 10, 40])
def test_bbob_reaches_its_lowest_value_at_its_minimiser_and_nowhere_else(dim):
    for name in BBOB.select(dims=[dim], instances=[1, 73]):
        p = make(name)
        assert float(p.fun(p.x_opt[None])[0]) == pytest.approx(p.f_opt, abs=1e-9)
        assert p.fun(around(p)).min() >= p.f_opt - 1e-9
        assert float(p.fun(p.x0[None])[0]) > p.f_opt + FINAL


def test_bbob_is_the_suite_of_coco():
    for name in BBOB.select(dims=[3], instances=[2]):
        p = make(name)
        coco = Single("bbob", int(name[6:9]), 2, 3)
        X = p.space.sample(Key(3), 10)
        np.testing.assert_array_equal(p.fun(X), [coco(x) for x in X])
        np.testing.assert_array_equal(p.x0, coco.start)
        assert not coco.evaluate.final_target_hit
        coco(p.x_opt)
        assert coco.evaluate.final_target_hit


def test_one_point_many_points_and_any_layout_have_equal_values():
    p = make("bbob-f015-i01-d05")
    X = p.space.sample(Key(4), 6)
    together = p.fun(X)
    assert together.shape == (6,)
    np.testing.assert_array_equal([float(p.fun(x)) for x in X], together)
    frozen = np.asfortranarray(X)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(p.fun(frozen), together)


@pytest.mark.parametrize(("pack", "dim"), [(MIXINT, 5), (MIXINT, 160), (LARGESCALE, 20), (LARGESCALE, 320)])
def test_lowest_values_of_the_other_suites_are_those_of_coco(pack, dim, tmp_path, monkeypatch):
    for function in range(1, 25) if dim < 100 else (1, 4, 7, 12, 18, 24):
        instance = 1 + function % 5
        p = make(pack.select([dim], [function], [instance])[0])
        x_opt = minimiser_by_coco(pack.name, function, instance, dim, tmp_path, monkeypatch)
        assert p.fun(x_opt) == pytest.approx(p.f_opt, abs=1e-9)
        assert p.fun.evaluate.final_target_hit
        assert p.fun(p.x0) > p.f_opt + FINAL
        assert min(p.fun(x) for x in p.space.sample(Key(5), 20)) > p.f_opt


@pytest.mark.parametrize("dim", [2, 5, 20])
def test_constrained_minimisers_are_those_of_coco(dim, tmp_path, monkeypatch):
    for function in range(1, 55):
        instance = 1 + function % 4
        p = make(CONSTRAINED.select([dim], [function], [instance])[0])
        x_opt = minimiser_by_coco("bbob-constrained", function, instance, dim, tmp_path, monkeypatch)
        np.testing.assert_allclose(p.x_opt, x_opt, atol=1e-12)
        assert p.fun(p.x_opt) == p.f_opt
        assert p.fun.evaluate.final_target_hit
        g = p.constraint(p.x_opt)
        assert g.shape == (p.fun.evaluate.number_of_constraints,)
        assert g.max() == pytest.approx(0.0, abs=1e-9)  # feasible, and a constraint is active
        assert (p.constraint(p.x0) <= 0.0).all()
        assert p.fun(p.x0) > p.f_opt + FINAL


def test_beyond_the_minimiser_seen_from_the_start_is_infeasible_and_the_merit_says_so():
    for name in CONSTRAINED.select(dims=[5], instances=[1]):
        p = make(name)
        beyond = p.x_opt - 0.05 * (p.x0 - p.x_opt)
        assert p.constraint(beyond).max() > 0.0
        assert p.measure(p.x_opt) - p.f_opt < FINAL
        for x in (beyond, *around(p, scales=(1e-1, 1e-2), n=10)):
            violation = np.maximum(p.constraint(x), 0.0).sum()
            assert p.measure(x) == pytest.approx(p.f_opt + max(p.fun(x) - p.f_opt, 0.0) + violation, rel=1e-12)
            assert p.measure(x) > p.f_opt


def test_measures_of_noisy_functions_are_free_of_noise_and_exact():
    # After `make` the stream of noise is at its start, so that the functions under the strong Gaussian model,
    # y = f_opt + (f - f_opt) exp(z) + 1.01e-8, share their first exp(z): each measure must tell the same.
    for dim in (2, 5, 20):
        factors = []
        for function in range(107, 131, 3):
            p = make(NOISY.select([dim], [function], [4])[0])
            x = p.space.sample(Key(6, (function,)), 1)[0]
            factors.append((p.fun(x) - 1.01e-8 - p.f_opt) / (p.measure(x) - p.f_opt))
        np.testing.assert_allclose(factors, factors[0], rtol=1e-9)
        assert abs(np.log(factors[0])) > 0.01


def test_families_of_noisy_functions_share_their_measure():
    for first in range(101, 131, 3):
        measures = [NoiseFree(first + i, 3, 5) for i in range(3)]
        x = 8.0 * uniform(Key(7), (5,)) - 4.0
        assert len({m(x) for m in measures}) == 1
        assert measures[0](x) == measures[0](x) > measures[0].f_opt
        assert measures[0](measures[0].x_opt) == pytest.approx(measures[0].f_opt, abs=1e-9)


def test_ellipsoids_without_noise_are_the_bbob_ellipsoid_with_another_condition_number():
    measure, twin = NoiseFree(116, 2, 10), make("bbob-f010-i02-d10")
    measure._weights = 1e6 ** np.linspace(0.0, 1.0, 10)
    X = twin.space.sample(Key(8), 20)
    np.testing.assert_allclose([measure(x) for x in X], twin.fun(X), rtol=1e-12)


@pytest.mark.parametrize("function", [101, 108, 115, 118, 127])
def test_noise_is_new_at_every_call_and_the_same_after_every_make(function):
    name = NOISY.select([5], [function], [1])[0]

    def values():
        p = make(name)
        return [p.fun(p.x0 + 1.0) for _ in range(30)]

    first = values()
    assert len(set(first)) >= (4 if function in (115, 118, 127) else 30)  # Cauchy noise: in a fifth of the calls
    assert values() == first


def test_mixed_integers_come_first_and_own_their_cells():
    for name in MIXINT.select(dims=[10], instances=[1]):
        p = make(name)
        assert p.space.integer.tolist() == [True] * 8 + [False] * 2
        assert p.space.lower.tolist() == [0.0] * 8 + [-5.0] * 2
        assert p.space.upper.tolist() == [1, 1, 3, 3, 7, 7, 15, 15, 5, 5]
        x = p.space.sample(Key(9), 1)[0]
        inside = x + np.where(p.space.integer, 0.4, 0.0)
        assert p.fun(inside) == p.fun(x)
        assert p.space.contains(p.x0)
    p = make("bbob-mixint-f001-i01-d10")
    x = p.space.sample(Key(9), 1)[0]
    assert p.fun(x + 0.01 * (np.arange(10) == 9)) != p.fun(x)
    assert p.fun(x + np.where(np.arange(10) == 6, 1.0 if x[6] < 7 else -1.0, 0.0)) != p.fun(x)


@pytest.mark.parametrize("pack", [BBOB, NOISY, CONSTRAINED, MIXINT, LARGESCALE], ids=lambda pack: pack.name)
def test_nothing_is_written_or_printed(pack, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    level = cocoex.log_level("info")
    for name in pack.select(pack.dims[:1], instances=[1]):
        p = make(name)
        p.fun(p.x0)
        if p.measure is not None:
            p.measure(p.x0)
    assert cocoex.log_level(level) == "info"  # COCO's own default is left to its other users
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_problems_outlive_one_another():
    names = [pack.names()[17] for pack in (BBOB, NOISY, CONSTRAINED, MIXINT, LARGESCALE) if pack is not NOISY]
    kept = [make(name) for name in names]
    values = [float(p.fun(p.x0)) for p in kept]
    for name in names * 20:  # the same suites, opened and dropped
        make(name).fun(kept[0].x0 if name == names[0] else make(name).x0)
    gc.collect()
    assert [float(p.fun(p.x0)) for p in kept] == values


def test_cocoex_is_real():
    assert sys.modules["cocoex"].__version__ >= "2.8"
