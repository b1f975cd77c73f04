"""Where points may live: what is inside, what is nearest, what is drawn, and what is refused at the door."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dfo
from dfo.errors import InvalidArgument, InvalidType
from dfo.random import Key
from dfo.spaces import Box, Choice, Float, Free, Int, Named, Space, Text

NAMED = Named(
    {
        "lr": Float(1e-5, 1, log=True),
        "layers": Int(1, 8),
        "wide": Choice([False, True]),
        "rule": Choice(["sgd", "adam", "lion"]),
    }
)
SPACES = {
    "free": Free(3),
    "box": Box([-5, 0, 2], [5, 1e-3, 2]),
    "half bounded": Box([-np.inf, 0, -np.inf], [np.inf, np.inf, -3]),
    "integers": Box([0, -3, 0.5], [1, 3, 7.5], integer=[True, True, True]),
    "huge": Box([-1.7e308, 1e-300], [1.7e308, 2e-300]),
    "named": NAMED,
    "text": Text("abc", 4),
    "texts of several lengths": Text("abc", (0, 4)),
}
EVERY = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@EVERY
def test_what_is_drawn_is_inside(space):
    assert isinstance(space, Space)
    drawn = space.sample(Key(0), 500)
    assert len(drawn) == 500
    assert all(space.contains(x) for x in drawn)
    again = space.sample(Key(0), 500)
    assert all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(drawn, again, strict=True))


@EVERY
def test_the_nearest_point_is_inside_and_a_point_inside_is_its_own_nearest(space):
    for x in space.sample(Key(1), 50):
        nearest = space.project(x)
        assert space.contains(nearest)
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(nearest, x)
        elif isinstance(x, str):
            assert nearest == x


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_every_vector_has_a_nearest_point_in_every_box(x):
    for space in SPACES.values():
        if isinstance(space, Box) and space.dim == 3:
            nearest = space.project(x)
            assert space.contains(nearest)
            np.testing.assert_array_equal(space.project(nearest), nearest)


def test_nearest_points_of_tensors_are_tensors():
    box = Box([-1, 0], [1, 9], integer=[False, True])
    points = torch.tensor([[3.0, 4.4], [-0.25, 20.0]])
    assert torch.equal(box.project(points), torch.tensor([[1.0, 4.0], [-0.25, 9.0]]))


def test_integers_of_a_box_are_drawn_equally_often():
    """Chi-square with 7 degrees below 37: one seed in 200,000 fails."""
    drawn = Box([0], [7], integer=[True]).sample(Key(2), 80_000)[:, 0]
    counts = np.bincount(drawn.astype(int), minlength=8)
    assert ((counts - 10_000.0) ** 2 / 10_000.0).sum() < 37.0


def test_bounds_of_integers_are_moved_to_integers():
    box = Box([0.5, -1.5], [7.5, 1.5], integer=[True, False])
    assert repr(box) == "Box([1.0, -1.5], [7.0, 1.5], integer=[True, False])"
    assert box.cells.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Free(0), "at least one variable"),
        (lambda: Box([], []), "at least one variable"),
        (lambda: Box([0, 0], [1]), "got 2 and 1"),
        (lambda: Box([0, 3], [1, 2]), r"bounds\[1\]: expected lower <= upper, got \(3, 2\)"),
        (lambda: Box([math.nan], [1]), r"bounds\[0\]: the lower bound is NaN"),
        (lambda: Box([math.inf], [math.inf]), r"bounds\[0\]: expected lower <= upper"),
        (lambda: Box([0.2], [0.8], integer=[True]), "no integer lies between"),
        (lambda: Named({}), "at least one variable"),
        (lambda: Float(2, 1), "finite lower <= upper"),
        (lambda: Float(0, 1, log=True), "must lie above 0"),
        (lambda: Float(0, math.inf), "finite lower <= upper"),
        (lambda: Float(0, 1, init=2), "init=2 lies outside"),
        (lambda: Int(0.5, 3), "integer ends"),
        (lambda: Choice([]), "at least one option"),
        (lambda: Choice(["a"], init="b"), "not one of"),
        (lambda: Text("", 3), "different symbols"),
        (lambda: Text("aa", 3), "different symbols"),
        (lambda: Text("ab", (3, 2)), "fewest <= most"),
    ],
)
def test_a_space_that_cannot_be_is_refused(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: Float("0", 1), lambda: Int(True, 3), lambda: Named({"x": (0, 1)})])
def test_a_space_of_the_wrong_type_is_refused(make):
    with pytest.raises(InvalidType):
        make()


@pytest.mark.parametrize(
    ("space", "inside", "outside"),
    [
        (Free(2), [[0.0, 1e308]], [[0.0], [0.0, math.nan], [0.0, math.inf]]),
        (Box([0, 0], [1, 1]), [[0, 1]], [[0, 1.1], [0, math.nan], [0, 0, 0]]),
        (Box([0], [3], integer=[True]), [[2.0]], [[2.5], [4.0]]),
        (Float(0, 1), [0, 1, 0.5, np.float32(0.5)], [2, "a", None, True, math.nan]),
        (Int(1, 8), [1, 8.0, np.int64(3)], [0, 2.5, "3", None, True]),
        (Choice(["a", None, 3]), ["a", None, 3], ["b", 4]),
        (Text("ab", (1, 2)), ["a", "bb"], ["", "aaa", "c", 1, None]),
        (Named({"n": Int(1, 2)}), [{"n": 1}], [{"n": 3}, {}, {"n": 1, "m": 1}, 1]),
    ],
)
def test_membership(space, inside, outside):
    assert [space.contains(x) for x in inside] == [True] * len(inside)
    assert [space.contains(x) for x in outside] == [False] * len(outside)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_integer(value):
    assert not Int(1, 8).contains(value)


def test_texts_are_mended_by_dropping_cutting_and_padding():
    space = Text("abc", (2, 4))
    assert [space.project(text) for text in ("", "xaxb", "abcabc")] == ["aa", "ab", "abca"]


def test_points_of_a_named_space_are_dictionaries_of_plain_values():
    for x in NAMED.sample(Key(3), 20):
        assert [type(value) for value in x.values()] == [float, int, bool, str]
    assert dfo.minimize(lambda x: x["lr"], NAMED, budget=5, method="random").x.keys() == NAMED.parameters.keys()
