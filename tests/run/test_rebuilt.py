"""Arguments survive a store: every space comes back as it was; what makes no sense is a typed error."""

import inspect
import json
from functools import partial

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint

import dfo
from dfo import sets
from dfo.errors import BadState, InvalidArgument
from dfo.random import Key
from dfo.run.identity import identity
from dfo.run.rebuilt import rebuilt
from dfo.solvers import SOLVERS, solver_class

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
            "kind": dfo.Choice(["a", 1, 2.5, None, True, float("inf"), {"k": (1, -0.0)}]),
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


def through_json(value):
    text = json.dumps(identity(value), allow_nan=False)
    return rebuilt("x0", json.loads(text)), text


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_a_space_comes_back_bit_for_bit(space):
    back, text = through_json(space)
    assert type(back) is type(space)
    assert json.dumps(identity(back), allow_nan=False) == text
    assert np.array_equal(np.asarray(back.sample(Key(3), 5)), np.asarray(space.sample(Key(3), 5)))


def test_every_space_is_among_them():
    public = {name for name in sets.__all__ if inspect.isclass(getattr(sets, name))} - {"Convex", "ConvexSet"}
    assert public | {"Free", "Box", "Named", "Text"} == {type(space).__name__ for space in SPACES}


@pytest.mark.parametrize("name", [name for name in SOLVERS])
def test_every_solver_comes_back(name):
    try:
        solver = solver_class(name)()
    except TypeError:
        pytest.skip("takes arguments")
    assert through_json(solver)[0] == solver


@pytest.mark.parametrize(
    "value",
    [np.array([1.0, -0.0, np.inf, ODD]), np.float32([0.1, np.nan]), np.arange(6).reshape(2, 3), np.array([True]),
     {"lr": 0.1, "kind": [1, [2, None]]}, "ab\n", float("-inf"), 10**30, [], None, True],
    ids=repr,
)  # fmt: skip
def test_a_value_comes_back_with_its_type(value):
    back, _ = through_json(value)
    assert type(back) is type(value)
    if isinstance(value, np.ndarray):
        assert (back.dtype, back.shape, back.tobytes()) == (value.dtype, value.shape, value.tobytes())
    else:
        assert back == value


def test_a_tensor_comes_back():
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.1, float("inf")], dtype=torch.float32)
    back, _ = through_json(x)
    assert back.dtype == x.dtype
    assert torch.equal(back, x)


def test_scipy_words_come_back():
    bounds, _ = through_json(Bounds([0.0, -np.inf], [1.0, 2.0]))
    assert bounds.lb.tolist() == [0.0, -np.inf]
    assert bounds.ub.tolist() == [1.0, 2.0]
    line, _ = through_json(LinearConstraint([[1.0, 1.0]], 0.0, 1.0))
    assert line.A.tolist() == [[1.0, 1.0]]


class Mine(dfo.L1Ball):
    pass


@pytest.mark.parametrize(
    "value", [dfo.Choice([np.tanh, 1]), dfo.Choice([Mine]), Mine(3), partial(print), np.zeros(5000), Key], ids=repr
)
def test_what_is_no_data_is_named_and_not_rebuilt(value):
    with pytest.raises(InvalidArgument, match=r"x0: .*Continue in Python"):
        through_json(value)


DEEP = {"class": "dfo.spaces:Free", "fields": {"dim": 2}}
for _ in range(200):
    DEEP = {"class": "dfo.sets.combined:Scaled", "fields": {"inner": DEEP, "factor": 1.0}}


def space(name, **parts):
    return {"class": f"dfo.spaces:{name}", "fields": parts}


@pytest.mark.parametrize(
    "content",
    [{}, space("Free"), space("Free", dim="x"), space("Free", dim=0), space("Free", dim=2, more=1), DEEP,
     {"array": [1.0], "dtype": "O", "shape": [1]}, {"array": [1.0], "dtype": "<f8", "shape": [10**12]},
     {"array": [{}], "dtype": "<f8", "shape": [1]}, {"array": ["x"], "dtype": "float64", "shape": [1]},
     space("Text", alphabet="a", length=[{"float": "nope"}]), space("Named", parameters={"mapping": {"a": 2}}),
     {"mapping": []}, {"float": 3}, {"class": 3}],
    ids=lambda content: str(content)[:40],
)  # fmt: skip
def test_nonsense_is_a_typed_error(content):
    with pytest.raises(BadState, match="x0"):
        rebuilt("x0", content)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "dfo.run.result:Result", "dfo.spaces:np.load", "x"])
def test_nothing_but_spaces_and_solvers_is_built(name):
    with pytest.raises(InvalidArgument, match="by name only"):
        rebuilt("x0", {"class": name, "fields": {}})
