"""Every space survives JSON to the last bit; what makes no sense is a typed error."""

import inspect
import json

import numpy as np
import pytest

import dfo
from dfo import sets
from dfo.errors import BadState, InvalidArgument
from dfo.run.spaces import space_of, space_to_json, value_of, value_to_json

ODD = 0.1 + 2.0**-53
triangle = dfo.Polytope(A_ub=[[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], b_ub=[ODD, 0.0, 0.0])
SPACES = [
    dfo.Free(3),
    dfo.Box([-np.inf, -5, 5e-324], [np.inf, ODD, 1e308], integer=[False, True, False]),
    dfo.Box([0, 0], [1, 1], cells=[0.5, 0.0]),
    dfo.Named(
        {
            "rate": dfo.Float(1e-5, 1, log=True, init=ODD),
            "layers \x1b[2J": dfo.Int(1, 8),
            "kind": dfo.Choice(["a", 1, 2.5, None, True, (1, float("inf")), {"k": [1, -0.0]}, np.float32(0.1)]),
        }
    ),
    dfo.Text("ab\u202e\u00e9", (0, 7)),
    dfo.Text("ACGT", 4),
    dfo.Simplex(4, ODD),
    dfo.L1Ball(3),
    dfo.L2Ball(3, 2.0),
    dfo.LInfBall(3, 2.0),
    dfo.KSparse(4, k=2, radius=ODD),
    dfo.LpBall(3, p=1.5),
    dfo.GroupBall(6, group=2),
    dfo.NuclearBall((2, 3), radius=ODD, exact=5),
    dfo.OpNormBall((2, 3)),
    dfo.Spectrahedron(3),
    dfo.Birkhoff(3),
    triangle,
    dfo.Polytope(vertices=[[0.0, ODD], [1.0, 0.0], [0.0, 0.0]]),
    dfo.Product([dfo.Simplex(2), dfo.Box([0], [1]), dfo.L1Ball(2)]),
    dfo.Shifted(dfo.L2Ball(2), [ODD, -1.0]),
    dfo.Scaled(dfo.Shifted(dfo.Simplex(2), [1.0, 2.0]), ODD),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_a_space_comes_back_bit_for_bit(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    back = space_of(json.loads(text))
    assert type(back) is type(space)
    assert json.dumps(space_to_json(back), allow_nan=False) == text
    key = dfo.random.Key.of(3)
    assert np.array_equal(np.asarray(back.sample(key, 5)), np.asarray(space.sample(key, 5)))


def test_every_space_is_among_them():
    public = {name for name in sets.__all__ if inspect.isclass(getattr(sets, name))} - {"Convex", "ConvexSet"}
    assert public | {"Free", "Box", "Named", "Text"} == {type(space).__name__ for space in SPACES}


@pytest.mark.parametrize(
    "value",
    [np.array([1.0, -0.0, np.inf, ODD]), np.float32([0.1, np.nan]), np.arange(6).reshape(2, 3), np.array([True]),
     np.float64(0.1), np.int32(7), {"lr": 0.1, "kind": (1, [2, None])}, "ab\n", float("-inf"), 10**30, [], ()],
    ids=repr,
)  # fmt: skip
def test_a_value_comes_back_with_its_type(value):
    back = value_of(json.loads(json.dumps(value_to_json(value), allow_nan=False)))
    assert type(back) is type(value)
    if isinstance(value, (np.ndarray, np.generic)):
        assert back.dtype == value.dtype
        assert back.tobytes() == value.tobytes()
        assert np.shape(back) == np.shape(value)
    else:
        assert back == value


def test_a_tensor_comes_back():
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.1, float("inf")], dtype=torch.float32)
    back = value_of(json.loads(json.dumps(value_to_json(x), allow_nan=False)))
    assert back.dtype == x.dtype
    assert torch.equal(back, x)


class Mine(dfo.L1Ball):
    pass


def test_what_is_no_data_is_named_and_not_rebuilt():
    stored = space_to_json(dfo.Named({"norm": dfo.Choice([np.tanh, len])}))
    with pytest.raises(InvalidArgument, match=r"builtins:len|tanh.*Continue in Python"):
        space_of(stored)

    with pytest.raises(InvalidArgument, match="Mine"):
        space_of(space_to_json(Mine(3)))


DEEP = {"space": "Free", "dim": 2}
for _ in range(200):
    DEEP = {"space": "Scaled", "inner": DEEP, "factor": 1.0}


@pytest.mark.parametrize(
    "content",
    [None, 3, [], {}, {"space": "os"}, {"space": "Free"}, {"space": "Free", "dim": "x"}, {"space": "Free", "dim": 0},
     {"space": "Free", "dim": 2, "more": 1}, {"space": ["Free"]}, {"space": "Convex"}, {"space": "Mapping"}, DEEP,
     {"space": "Box", "lower": {"array": "O", "shape": [1], "values": [1]}, "upper": 1, "integer": [], "cells": []},
     {"space": "Box", "lower": {"array": "<f8", "shape": [10**12], "values": [1.0]}, "upper": 1, "integer": 0,
      "cells": 0},
     {"space": "Text", "alphabet": "a", "length": {"tuple": [{"float": "nope"}]}},
     {"space": "Named", "parameters": {"dict": [["a"]]}}, {"space": "Named", "parameters": {"dict": [[[1], 2]]}}],
    ids=lambda content: str(content)[:40],
)  # fmt: skip
def test_nonsense_is_a_typed_error(content):
    with pytest.raises(BadState):
        space_of(content)
