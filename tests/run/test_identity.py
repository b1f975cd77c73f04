"""What a run was begun with, as data: equal for equal arguments, different for changed ones, whatever the process."""

import functools
import json
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from scipy.optimize import Bounds

import dfo
from dfo.run.identity import changed_lines, identity


def sphere(x):
    return float(x @ x)


class Model:
    def __init__(self, scale):
        self.scale = scale
        self.calls = []

    def __call__(self, x):
        self.calls.append(1)
        return self.scale * sphere(x)


def shifted(by):
    def f(x):
        return sphere(x - by)

    return f


SAME = {
    "numbers": lambda: [1, 2.5, True, None, "x"],
    "function": lambda: sphere,
    "closure": lambda: shifted(1.0),
    "callable": lambda: Model(2.0),
    "partial": lambda: functools.partial(shifted, 3.0),
    "bounds": lambda: Bounds([0, 0], [1, 2]),
    "space": lambda: {"lr": dfo.Float(1e-5, 1, log=True), "kind": dfo.Choice(["a", "b"])},
    "solver": lambda: dfo.CMA(population=20),
    "array": lambda: np.arange(3.0),
    "long array": lambda: np.arange(10_000.0),
    "lambda": lambda: lambda x: x[0],
    "set": lambda: dfo.L1Ball(5),
    "method": lambda: Model(1.0).__call__,
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_equal_arguments_are_equal_and_json(make):
    first, second = identity(make()), identity(make())
    assert first == second == json.loads(json.dumps(first, allow_nan=False))


DIFFERENT = {
    "number": (1, 2),
    "kind of number": (1, 1.5),
    "closure": (shifted(1.0), shifted(2.0)),
    "attribute": (Model(1.0), Model(2.0)),
    "function": (sphere, shifted),
    "partial": (functools.partial(shifted, 1.0), functools.partial(shifted, 2.0)),
    "dtype": (np.zeros(2, np.float32), np.zeros(2)),
    "shape": (np.zeros((1, 2)), np.zeros(2)),
    "long array": (np.zeros(10_000), np.ones(10_000)),
    "option": (dfo.CMA(population=20), dfo.CMA(population=21)),
    "bounds": (Bounds([0], [1]), Bounds([0], [2])),
    "lambda": (lambda x: x[0], lambda x: x[1]),
    "not a number": (math.nan, math.inf),
}


@pytest.mark.parametrize(("a", "b"), DIFFERENT.values(), ids=DIFFERENT)
def test_changed_arguments_differ(a, b):
    assert identity(a) != identity(b)


def test_what_an_objective_gathers_while_it_runs_is_no_part_of_it():
    model = Model(1.0)
    before = identity(model)
    model(np.ones(2))
    assert identity(model) == before


def test_the_lines_that_changed_are_shown():
    stored = identity(sphere)["lines"]
    assert changed_lines(sphere, stored) == []
    assert changed_lines(sphere, stored[:1]) == ["return float(x @ x)"]


def test_a_function_without_source_is_known_by_its_code():
    made = {}
    exec("def f(x):\n    return x + 1", made)
    other = {}
    exec("def f(x):\n    return x + 2", other)
    assert identity(made["f"])["lines"] != identity(other["f"])["lines"]


def test_other_processes_with_other_hash_seeds_agree():
    code = """
        import json, numpy as np, dfo
        from dfo.run.identity import identity
        def f(x, scale=frozenset({"a", "b", "c"})):
            return 0.0
        print(json.dumps(identity([f, dfo.CMA(), {"b": 1, "a": frozenset({"x", "y", "z"})}]), sort_keys=True))
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(said) == 1
