"""The laws of oracles and problems: what ships keeps them, and each defect breaks the law that names it."""

from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.batch import Items, Points
from dfo.encodings import encoding
from dfo.errors import InvalidType, UnknownName
from dfo.feedback import Ranking, Values
from dfo.oracles.encoded import Encoded
from dfo.oracles.function import Function
from dfo.protocols import Problem
from dfo.random import normal
from dfo.spaces import Box
from dfo.testing import ORACLE_LAWS, PROBLEM_LAWS, check_oracle, check_problem

LIMITS = {"seconds": 300.0, "cases": 10}  # few cases and no hurry: the same on a loaded machine


def points(key, n):
    return Points(normal(key, (n, 3)))


def ball(x):
    return float(x @ x)


# ---------------------------------------------------------------------- oracles


class Walks:
    """Each lane is a walk of its own: a sound oracle with memory."""

    gives = frozenset({"values", "ended"})
    max_batch = None

    def start(self, lanes, key):
        return (np.zeros((lanes, 3)), key)

    def evaluate(self, batch, memory):
        at, key = memory
        at = at.copy()
        at[batch.lane] += batch.X
        return Values((at[batch.lane] ** 2).sum(axis=1), ended=np.zeros(len(batch), bool)), (at, key)


def on_lanes(key, n):
    return Points(normal(key, (n, 3)), lane=np.arange(n))


SOUND = {
    "function": (Function(ball), points, 0),
    "vectorized": (Function(lambda X: (X**2).sum(axis=1), vectorized=True), points, 0),
    "failing": (Function(lambda x: np.nan if x[0] > 0 else ball(x)), points, 0),
    "constrained": (Function(ball, violation=lambda x: max(0.0, x[0])), points, 0),
    "items": (Function(len), lambda key, n: Items(["a" * i for i in range(n)]), 0),
    "encoded": (
        Encoded(Function(ball), encoding(Box(-np.ones(3), np.ones(3)), np.zeros(3))),
        lambda key, n: Points(np.clip(normal(key, (n, 3)), 0, 1)),
        0,
    ),
    "ranking": (dfo.RankOracle(lambda P: np.argsort([ball(x) for x in P])[:3].tolist()), points, 0),
    "lanes": (Walks(), on_lanes, 8),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_oracles_keep_all_laws(kind):
    oracle, batches, lanes = SOUND[kind]
    report = check_oracle(oracle, batches, lanes=lanes, **LIMITS)
    report.raise_if_failed()
    assert set(report.passed) == set(ORACLE_LAWS) - (
        {"splittable", "lanes-independent"} if kind == "ranking" else set()
    )


class Wrong(Function):
    """A function whose answers a subclass spoils."""

    def __init__(self):
        super().__init__(ball)
        self.calls = 0

    def evaluate(self, batch, memory):
        self.calls += 1
        told, after = super().evaluate(batch, memory)
        return self.spoiled(batch, told), after

    def spoiled(self, batch, told):
        raise NotImplementedError


class Drifts(Wrong):
    def spoiled(self, batch, told):
        return replace(told, f=told.f + self.calls)


class NormalisesTheBatch(Wrong):
    def spoiled(self, batch, told):
        return replace(told, f=told.f - told.f.mean())


class LeaksAcross(Wrong):
    def spoiled(self, batch, told):
        return replace(told, f=np.cumsum(told.f))


class HidesFailures(Wrong):
    def spoiled(self, batch, told):
        return replace(told, f=np.where(np.arange(len(batch)) == 0, np.nan, told.f))


class AnswersOnce(Wrong):
    def spoiled(self, batch, told):
        return Values(told.f[:1])


class OnlyRanks(Wrong):
    def spoiled(self, batch, told):
        return Ranking(told.f)


class WritesToTheBatch(Wrong):
    def spoiled(self, batch, told):
        batch.X[:] = 0.0
        return told


GROUPING = {"splittable", "lanes-independent"}
SPOILED = {
    Drifts: {"repeatable", *GROUPING},
    NormalisesTheBatch: GROUPING,
    LeaksAcross: GROUPING,
    HidesFailures: {"gives", *GROUPING},
    AnswersOnce: {"gives", *GROUPING},
    OnlyRanks: {"gives", *GROUPING},
    WritesToTheBatch: {"leaves-batch", "repeatable", *GROUPING},
}


@pytest.mark.parametrize("oracle", SPOILED, ids=lambda cls: cls.__name__)
def test_a_defect_of_an_oracle_is_found(oracle):
    assert set(check_oracle(oracle(), points, **LIMITS).failed) == SPOILED[oracle]


def test_a_law_of_oracles_that_does_not_exist_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'gives'"):
        check_oracle(Function(ball), points, laws=["give"])


# ---------------------------------------------------------------------- problems

BALL = Problem("ball", Box(-np.ones(2), 2 * np.ones(2)), ball, np.ones(2), 0.0, np.zeros(2))
ROWS = replace(BALL, fun=lambda X: (X**2).sum(axis=1), vectorized=True)


@pytest.mark.parametrize("problem", [BALL, ROWS], ids=["scalar", "vectorized"])
def test_a_sound_problem_keeps_all_laws(problem):
    report = check_problem(problem, **LIMITS)
    report.raise_if_failed()
    assert set(report.passed) == set(PROBLEM_LAWS) - (set() if problem.vectorized else {"vectorized"})


PACKED = [
    "classic-rosenbrock-d05",
    "classic-ackley-d02",
    "bbob-f021-i03-d05",
    "bbob-constrained-f002-i01-d02",
    "bbob-mixint-f003-i01-d05",
    "bbob-noisy-f101-i01-d02",
]


@pytest.mark.parametrize("name", PACKED)
def test_packed_problems_keep_all_laws(name):
    pytest.importorskip("cocoex")
    dfo_problems = pytest.importorskip("dfo_problems")
    check_problem(dfo_problems.make(name), **LIMITS).raise_if_failed()


calls = [0]


def counts(x):
    calls[0] += 1
    return ball(x) + calls[0]


def overwrites(x):
    x -= 0.0
    x[0] += 1e-9
    return ball(x)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (replace(BALL, f_opt=1e-3), "optimum"),
        (replace(BALL, x_opt=3 * np.ones(2)), "optimum"),
        (replace(BALL, constraint=lambda x: np.array([1.0 - x[0]])), "optimum"),
        (replace(BALL, f_opt=0.5, x_opt=np.array([0.5**0.5, 0.0])), "nothing-lower"),
        (replace(ROWS, fun=lambda X: (X**2).sum(axis=0)), "vectorized"),
        (replace(BALL, x0=-2 * np.ones(2)), "start"),
        (replace(BALL, fun=lambda x: ball(x) / (1.0 if x[0] != 1.0 else np.nan)), "start"),
        (replace(BALL, fun=lambda x: float(np.sqrt(x[0])) if x[0] >= 0 else np.nan), "bounds"),
        (replace(BALL, fun=counts), "deterministic"),
        (replace(BALL, fun=overwrites), "deterministic"),
    ],
)
def test_a_defect_of_a_problem_is_found(broken, law):
    assert law in check_problem(broken, **LIMITS).failed


def test_noise_is_no_defect_when_it_is_said():
    noisy = replace(BALL, fun=counts, noisy=True, measure=ball)
    check_problem(noisy, **LIMITS).raise_if_failed()


def test_something_else_is_no_problem():
    with pytest.raises(InvalidType, match=r"expected a dfo\.Problem"):
        check_problem(ball)


def test_every_law_says_what_it_is_and_who_broke_it():
    for law in [*ORACLE_LAWS.values(), *PROBLEM_LAWS.values()]:
        assert law.states.endswith(".")
        assert "Broken by" in law.check.__doc__
