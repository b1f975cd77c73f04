"""From user points to solver coordinates and back: the start to the last bit, the bounds exactly, any scale."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dfo
from dfo.encodings import BoxEncoding, Identity, NamedEncoding, encoding
from dfo.spaces import Box, Choice, Float, Free, Int, Named, Text

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def boxes(draw, d=3):
    """Return a box of any scale and a start inside it, often on a bound."""
    ends = np.sort([draw(st.tuples(NUMBERS, NUMBERS)) for _ in range(d)], axis=1)
    share = np.array([draw(st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1)) for _ in range(d)])
    x0 = np.clip(ends[:, 0] * (1 - share) + ends[:, 1] * share, ends[:, 0], ends[:, 1])
    return Box(ends[:, 0], ends[:, 1]), x0


HUGE_AND_TINY = (
    Box([0.0, 0.0], [8.98846567431158e307, 1.1125369292536007e-308]),
    np.array([0.0, 5.094240736865704e-309]),
)


@settings(max_examples=300, deadline=None)
@given(boxes())
@example(HUGE_AND_TINY)
def test_the_start_comes_back_to_the_last_bit(case):
    box, x0 = case
    code = encoding(box, x0)
    np.testing.assert_array_equal(code.decode(code.start[None])[0], x0)
    assert code.inner.contains(code.start)


@pytest.mark.parametrize(
    ("lower", "upper", "x0"),
    [
        (-1e20, 1.0, np.float64(-5.0)),
        (-1e300, 7.0, np.float64(1.5)),
        (0.0, 6e-296, np.float64(5e-324)),
        (-1e20, 1.0, np.float32(-5.0)),
        (0.0, 1e30, np.float32(1e-30)),
    ],
)
def test_a_start_beside_a_bound_of_a_wide_box_is_not_moved_onto_it(lower, upper, x0):
    code = encoding(Box([lower], [upper]), np.array([x0]))
    assert code.decode(code.start[None])[0, 0] == x0


@settings(max_examples=200, deadline=None)
@given(boxes(), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_bounds_are_exact_and_nothing_is_outside(case, z):
    box, x0 = case
    code = encoding(box, x0)
    low, high, between = code.decode(np.array([[0.0] * 3, [1.0] * 3, z]))
    free = box.lower < box.upper
    np.testing.assert_array_equal(low[free], box.lower[free])
    np.testing.assert_array_equal(high[free], box.upper[free])
    assert box.contains(between)


def test_what_is_beyond_the_bounds_is_on_them():
    code = encoding(Box([-2.0, 0.0], [2.0, 9.0], integer=[False, True]), np.array([1.0, 3.0]))
    beyond = np.array([[-0.5, -9.0], [1.5, 1e9]])
    np.testing.assert_array_equal(code.decode(beyond), [[-2.0, 0.0], [2.0, 9.0]])


def test_what_is_beyond_the_bounds_of_a_huge_box_is_on_them():
    code = encoding(Box([0.0], [1.2e308]), np.array([1.2e308]))
    np.testing.assert_array_equal(code.decode(np.array([[-0.5]])), [[0.0]])


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e9, 1e300, 1.7e308])
def test_coordinates_come_back_at_every_scale(scale):
    box = Box([-scale, 0.0], [scale, scale])
    code = encoding(box, np.array([0.3 * scale, 0.9 * scale]))
    z = np.linspace(0, 1, 33)[:, None] * [1, 1]
    x = code.decode(z)
    assert np.isfinite(x).all()
    assert (np.diff(x, axis=0) > 0).all()
    np.testing.assert_allclose([code.encode(row) for row in x], z, atol=1e-15)
    np.testing.assert_allclose(x / scale, z * [2, 1] - [1, 0], atol=1e-15)


def test_around_the_start_precision_is_that_of_the_start_not_of_the_box():
    """A box of width 1e6 around a start of 1e-6: steps of 1e-13 of the box arrive with nine digits."""
    code = encoding(Box([-1e6], [1e6]), np.array([1e-6]))
    step = code.decode(code.start[None] + 2.0**-43)[0, 0] - 1e-6
    assert step == pytest.approx(2e6 * 2.0**-43, rel=1e-3)


def test_integers_own_cells_of_equal_width_up_to_the_bounds():
    code = encoding(Box([-2], [5], integer=[True]), np.array([0.0]))
    z = (np.arange(80_000)[:, None] + 0.5) / 80_000
    values, counts = np.unique(code.decode(z), return_counts=True)
    assert values.tolist() == list(range(-2, 6))
    assert counts.min() >= 9_999
    assert counts.max() <= 10_001
    assert code.inner.cells.tolist() == [1 / 8]
    for k in range(-2, 6):
        assert code.decode(code.encode(np.array([k]))[None])[0, 0] == k


def test_only_coordinates_between_two_bounds_are_scaled():
    box = Box([-np.inf, 0.0, -4.0, 7.0], [np.inf, np.inf, 4.0, 7.0])
    x0 = np.array([123.0, 5.0, -2.0, 7.0])
    code = encoding(box, x0)
    np.testing.assert_array_equal(code.start, [123.0, 5.0, 0.25, 0.5])
    x = code.decode(np.array([[-9.0, -1.0, 0.5, 0.9]]))
    np.testing.assert_array_equal(x, [[-9.0, 0.0, 0.0, 7.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_stay_tensors_of_their_type(dtype):
    x0 = torch.tensor([0.1, -3.0], dtype=dtype)
    code = encoding(Box([0, -5], [1, 5], integer=[False, True]), x0)
    assert code.start.dtype == dtype
    x = code.decode(torch.stack([code.start, 0 * code.start, 0 * code.start + 1]))
    assert torch.equal(x, torch.stack([x0, *torch.tensor([[0, -5], [1, 5]], dtype=dtype)]))


@pytest.mark.parametrize(
    ("space", "x0", "kind"),
    [
        (Free(2), np.zeros(2), Identity),
        (Text("ab", 2), "ab", Identity),
        (Box([-np.inf], [3.0]), np.zeros(1), Identity),
        (Box([0.0], [3.0]), np.ones(1), BoxEncoding),
        (Named({"n": Int(1, 4)}), {"n": 2}, NamedEncoding),
    ],
)
def test_what_needs_no_encoding_gets_none(space, x0, kind):
    assert type(encoding(space, x0)) is kind


def test_what_a_solver_does_in_a_box_does_not_depend_on_its_scale():
    def path(scale):
        record = dfo.Record()
        bounds = [(-scale, 3 * scale)] * 3
        f = lambda x: float(np.abs(x / scale - 0.25).sum())  # noqa: E731
        dfo.minimize(f, np.full(3, scale), method="cma", bounds=bounds, budget=200, callback=record)
        return record.X / scale

    for scale in (2.0**-1000, 2.0**1000):
        np.testing.assert_array_equal(path(scale), path(1.0))


# ---------------------------------------------------------------------- named parameters


def test_logarithmic_parameters_are_uniform_in_their_logarithm():
    rate = Float(1e-6, 1, log=True)
    for z, value in ((0.0, 1e-6), (0.5, 1e-3), (1 / 3, 1e-4), (1.0, 1.0), (-3.0, 1e-6), (7.0, 1.0)):
        assert rate.decode(np.array([z])) == pytest.approx(value, rel=1e-12)
    assert rate.decode(np.zeros(1)) >= 1e-6
    assert rate.decode(np.ones(1)) <= 1.0
    layers = Int(1, 1000, log=True)
    drawn = [layers.decode(np.array([z])) for z in (np.arange(10_000) + 0.5) / 10_000]
    assert min(drawn) == 1
    assert max(drawn) == 1000
    share = np.mean([n <= 31 for n in drawn])
    assert share == pytest.approx(math.log(31.5 / 0.5) / math.log(1000.5 / 0.5), abs=1e-3)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("lower", "upper"), [(1, 1), (1, 2), (3, 40), (1, 10**6)])
def test_every_integer_comes_back(lower, upper, log):
    parameter = Int(lower, upper, log=log)
    for value in {*range(lower, min(upper, lower + 50) + 1), (lower + upper) // 2, upper - 1, upper} - {0}:
        if value >= lower:
            assert parameter.decode(parameter.encode(value)) == value


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("lower", "upper"), [(1e-300, 1e-299), (1e-300, 1e308), (1.0, 1.0), (1e307, 1.7e308)])
def test_floats_of_every_scale_come_back(lower, upper, log):
    parameter = Float(lower, upper, log=log)
    for value in (lower, upper, math.sqrt(lower) * math.sqrt(upper)):
        assert parameter.contains(parameter.decode(parameter.encode(value)))
        if log or lower > 0.01 * upper:
            assert parameter.decode(parameter.encode(value)) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("options", [["only"], [False, True], ["sgd", "adam", "lion"], [None, 1, "1", (2, 3)]])
def test_every_option_comes_back_and_none_is_favoured(options):
    parameter = Choice(options)
    for option in options:
        assert parameter.decode(parameter.encode(option)) is option
    points = np.random.default_rng(0).random((6000, parameter.width))
    indices = [options.index(parameter.decode(z)) for z in points]
    counts = np.bincount(indices, minlength=len(options))
    expected = 6000 / len(options)
    assert ((counts - expected) ** 2 / expected).sum() < 25.0  # chi-square, at most 3 degrees: one in 60,000


def test_named_points_come_back_and_the_start_exactly():
    space = Named(
        {"lr": Float(1e-5, 1, log=True), "n": Int(1, 8), "rule": Choice(["a", "b", "c"]), "on": Choice([0, 1])}
    )
    start = {"lr": 0.1 + 0.2, "n": 7, "rule": "c", "on": 0}
    code = encoding(space, start)
    assert code.decode(code.start[None]) == [start]
    assert code.inner.dim == 1 + 1 + 3 + 1
    for x in space.sample(dfo.Key(4), 200):
        back = code.decode(code.encode(x)[None])[0]
        assert back["lr"] == pytest.approx(x["lr"], rel=1e-12)
        assert {**back, "lr": 0} == {**x, "lr": 0}


def test_decoding_twice_gives_dictionaries_of_their_own():
    code = encoding(Named({"n": Int(1, 8)}), {"n": 3})
    one, two = code.decode(np.stack([code.start] * 2))
    one["n"] = 99
    assert two == {"n": 3}
