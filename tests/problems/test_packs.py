"""Names say everything: every problem is rebuilt from its name, and a wrong name is answered with the right one."""

import doctest
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import dfo_problems
from dfo.errors import UnknownName
from dfo.protocols import Problem
from dfo.random import Key
from dfo_problems import PROBLEMS, Cell, make

ALIKE = {"noisy", "bbob-noisy", "tuning", "ranking", "deceptive", "training", "unrolled", "consensus"}
APART = {"language", "networks"}  # packs whose problems need what no other test does; tests of their own build them
ONE_OF_EACH = [
    name
    for pack in PROBLEMS.values()
    if pack.name not in APART
    for name in pack.select(pack.dims[:1], instances=pack.instances[:1])
]


def evaluated(problem: Problem, x: object) -> float:
    if hasattr(problem.fun, "gives"):  # an oracle
        return float(problem.measure(x))
    return float(problem.fun(x[None])[0] if problem.vectorized else problem.fun(x))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_name_rebuilds_its_problem(name):
    problem = make(name)
    pack = PROBLEMS[max((p for p in PROBLEMS if name.startswith(p + "-")), key=len)]
    assert problem.name == name
    assert problem.space.contains(problem.x0)
    assert problem.group in pack.groups
    assert problem.reference
    if problem.x_opt is not None:
        assert problem.space.contains(problem.x_opt)
        same = np.allclose if isinstance(problem.x_opt, np.ndarray) else str.__eq__
        assert not same(problem.x_opt, problem.x0)


def test_names_are_unique_and_lead_to_their_own_pack():
    names = [name for pack in PROBLEMS.values() for name in pack.names()]
    assert len(set(names)) == len(names) > 10_000
    for key, pack in PROBLEMS.items():
        assert key == pack.name
        if key not in APART:
            assert make(pack.names()[-1]).name == pack.names()[-1]


def test_no_two_functions_of_a_pack_are_the_same():
    for pack in PROBLEMS.values():
        if pack.name in ALIKE | APART:
            continue
        problems = [pack.make(n) for n in pack.select(pack.dims[1:2], instances=pack.instances[:1])]
        point = problems[0].space.sample(Key(3), 1)[0]
        assert len({evaluated(p, point) for p in problems}) == len(problems)


def test_numbers_in_names_need_no_padding():
    assert make("bbob-f008-i1-d5").name == "bbob-f008-i01-d05"
    assert make("classic-sphere-d7").name == "classic-sphere-d07"
    assert Cell("bbob", "f008", 1, 640).name == "bbob-f008-i01-d640"


def test_selections_come_by_dimension_then_function_then_instance():
    selected = PROBLEMS["bbob"].select(dims=[5, 2], functions=[8, "f001"], instances=[2, 71])
    assert selected[:4] == ["bbob-f008-i02-d05", "bbob-f008-i71-d05", "bbob-f001-i02-d05", "bbob-f001-i71-d05"]
    assert [name[-3:] for name in selected] == ["d05"] * 4 + ["d02"] * 4
    assert PROBLEMS["tuning"].select(dims=[2], instances=[1]) == PROBLEMS["tuning"].names()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("classic-rosenbrok-d05", "classic-rosenbrock-d05"),
        ("bbob-f025-i01-d10", "bbob-f02"),
        ("bbob-f008-i01-d11", "bbob-f008-i01-d10"),
        ("bbob-mixint-f001-i16-d05", "bbob-mixint-f001-i1"),
        ("bbob-f008-d10", "bbob-f008-i"),
        ("bbob-f008-i0-d10", "bbob-f008-i"),
        ("classic-sphere-d01", "classic-sphere-d"),
        ("tuning-svc-digit", "tuning-svc-digits"),
        ("clasic-sphere-d02", "classic-sphere-d02"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name, hint):
    with pytest.raises(UnknownName, match=f"Did you mean '{hint}"):
        make(name)


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"functions": [25]}, "function of pack 'bbob' 25"),
        ({"functions": ["rosenbrock"]}, "function of pack 'bbob' 'rosenbrock'"),
        ({"dims": [4]}, "dimension of pack 'bbob' 4"),
        ({"instances": [0]}, "instance of pack 'bbob' 0"),
    ],
)
def test_an_impossible_selection_is_refused(selection, sentence):
    with pytest.raises(UnknownName, match=sentence):
        PROBLEMS["bbob"].select(**selection)


@pytest.mark.parametrize("pack", [name for name in PROBLEMS if name not in APART])
def test_a_pickled_problem_gives_the_same_first_value(pack):
    problem = make(PROBLEMS[pack].names()[0])
    packed = pickle.dumps(problem)
    value = evaluated(make(problem.name), problem.x0)
    assert evaluated(pickle.loads(packed), problem.x0) == value
    if problem.constraint is not None:
        assert (pickle.loads(packed).constraint(problem.x0) == problem.constraint(problem.x0)).all()
    if problem.measure is not None:
        assert pickle.loads(packed).measure(problem.x0) == problem.measure(problem.x0)


def value_at_start(name: str) -> float:
    problem = make(name)
    return evaluated(problem, problem.x0)


def test_a_worker_process_rebuilds_problems_from_names():
    names = ["classic-levy-d05", "bbob-f021-i03-d05", "bbob-noisy-f128-i02-d05", "bbob-constrained-f049-i01-d03"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(value_at_start, names)) == [value_at_start(name) for name in names]


def test_importing_the_packs_loads_none_of_their_libraries():
    libraries = {"cocoex", "sklearn", "torch", "scipy", "transformers"}
    code = f"import sys, dfo_problems; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("library", "name"), [("cocoex", "bbob-f001-i01-d02"), ("cocoex", "bbob-mixint-f001-i01-d05"), ("sklearn", None)]
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, library, name):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install 'dfo-optim\[bench\]'"):
        make(name or "tuning-svc-digits")


def test_the_examples_of_the_package_hold():
    failed, tried = doctest.testmod(dfo_problems)
    assert tried >= 3
    assert failed == 0
