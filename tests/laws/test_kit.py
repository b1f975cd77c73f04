"""The kit finds what it is there to find: a good solver passes, and each defect breaks the law that names it."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import dfo
from dfo.arrays import copy, is_torch
from dfo.batch import Points
from dfo.components.ranking import merits
from dfo.errors import InvalidArgument, InvalidType, UnknownName
from dfo.feedback import Ranking, Values
from dfo.random import Key, normal
from dfo.run.packing import register
from dfo.spaces import Box, Free
from dfo.testing import SOLVER_LAWS, Outcome, Report, check_solver, takes_functions

LIMITS = {"seconds": 300.0, "cases": 4}  # few cases and no hurry: the same on a loaded machine


@register
@dataclass(frozen=True, eq=False)
class State:
    x: Any
    merit: float
    radius: float
    key: Key
    step: int
    extra: object = None


@dataclass(frozen=True)
class Good:
    """A (1, n) evolution strategy with an elitist parent and the success rule."""

    radius: float = 0.5
    n: int = 5
    space: Any = None

    needs: ClassVar[frozenset[str]] = frozenset({"ranking"})
    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def plan(self, task):
        return replace(self, space=task.space)

    def init(self, x0, key):
        return State(copy(x0), np.inf, self.radius, key, 0)

    def ask(self, s):
        X = s.x + s.radius * normal(s.key.child(s.step), (self.n, s.x.shape[0]), s.x)
        X = X if isinstance(self.space, Free) else self.space.project(X)
        return Points(X if is_torch(s.x) else X.astype(s.x.dtype), step=s.step)

    def tell(self, s, batch, told):
        merit = merits(told)
        s = replace(s, step=s.step + 1)
        if np.isnan(merit).all():
            return s
        i = int(np.nanargmin(merit))
        if merit[i] < s.merit:
            return replace(s, x=batch.member(i), merit=float(merit[i]), radius=min(s.radius * 1.5, 1e100))
        return replace(s, radius=max(s.radius * 0.85, 1e-100))

    def recommend(self, s):
        return s.x


class DrawsGlobally(Good):
    def tell(self, s, batch, told):
        np.random.random()
        return super().tell(s, batch, told)


class ReadsGlobally(Good):
    def init(self, x0, key):
        return replace(super().init(x0, key), radius=self.radius * (1 + 1e-3 * (np.random.get_state()[1][0] % 7)))


_asked: list[Any] = [None]


class ForgetsItsQuestion(Good):
    def ask(self, s):
        again = _asked[0] is s
        _asked[0] = s
        return super().ask(replace(s, step=s.step + 1000) if again else s)


class AskMovesState(Good):
    def ask(self, s):
        s.x[:] = s.x * (1 + 1e-14)
        return super().ask(s)


class LetsNaNIn(Good):
    def tell(self, s, batch, told):
        with np.errstate(invalid="ignore"):
            level = float(np.ptp(told.f)) if isinstance(told, Values) else 0.0
        return replace(super().tell(s, batch, told), extra=level)


class WarnsOfFailures(Good):
    def tell(self, s, batch, told):
        if isinstance(told, Values):
            np.ptp(told.f)
        return super().tell(s, batch, told)


class Overwrites(Good):
    def init(self, x0, key):
        return replace(super().init(x0, key), x=x0)

    def tell(self, s, batch, told):
        after = super().tell(s, batch, told)
        s.x[:] = after.x
        return replace(after, x=s.x)


class LeavesTheBox(Good):
    def ask(self, s):
        return Points(s.x + s.radius * normal(s.key.child(s.step), (self.n, s.x.shape[0]), s.x), step=s.step)


class LeavesTheSet(Good):
    def recommend(self, s):
        return s.x if isinstance(self.space, (Free, Box)) else s.x + 1e-6


class Counts(Good):
    def tell(self, s, batch, told):
        object.__setattr__(self, "count", getattr(self, "count", 0) + 1)
        return super().tell(s, batch, told)


class CountsInTheClass(Good):
    seen: ClassVar[list[int]] = []

    def tell(self, s, batch, told):
        self.seen.append(s.step)
        return super().tell(s, batch, told)


class KeepsAFunction(Good):
    def init(self, x0, key):
        return replace(super().init(x0, key), extra=lambda x: x)


@dataclass(frozen=True, eq=False)
class Unregistered(State):
    pass


class KeepsAStranger(Good):
    def init(self, x0, key):
        return Unregistered(copy(x0), np.inf, self.radius, key, 0)


class KeepsItAside(Good):
    """Part of its state is no field, and so is not saved."""

    def ask(self, s):
        return super().ask(replace(s, radius=s.radius * getattr(s, "hidden", 1.0)))

    def tell(self, s, batch, told):
        after = super().tell(s, batch, told)
        object.__setattr__(after, "hidden", getattr(s, "hidden", 1.0) * 0.97)
        return after


class CutsSeeds(Good):
    def init(self, x0, key):
        return super().init(x0, Key(key.seed % 2**32, key.path))


class IgnoresSkips(Good):
    def tell(self, s, batch, told):
        return s if isinstance(told, Ranking) and told.skipped else super().tell(s, batch, told)


class MeasuresItsStart(Good):
    def init(self, x0, key):
        return replace(super().init(x0, key), radius=0.1 * float(abs(x0).max()))


class Clamps(Good):
    def tell(self, s, batch, told):
        if isinstance(told, Values):
            told = Values(np.where(told.valid, np.minimum(told.f, 1e30), np.inf))
        gain = s.merit - float(np.nanmin(merits(told))) if not np.isnan(merits(told)).all() else 1.0
        return replace(s, step=s.step + 1) if gain < 1e-3 else super().tell(s, batch, told)


class OtherOnTorch(Good):
    def ask(self, s):
        return super().ask(replace(s, radius=s.radius * (0.9 if is_torch(s.x) else 1.0)))


class MakesDoubles(Good):
    def init(self, x0, key):
        return super().init(x0 if is_torch(x0) else x0.astype(float), key)


class NeverLearns(Good):
    def tell(self, s, batch, told):
        return replace(s, step=s.step + 1)


@dataclass(frozen=True)
class HidesAField(Good):
    radius: float = field(default=0.5, repr=False)


class MoreThanItSays(Good):
    """Its batches claim one member and hold five."""

    def ask(self, s):
        class Short(Points):
            def __len__(self):
                return 1

            def part(self, start, stop):
                return self

        return Short(super().ask(s).X, step=s.step)


class GaugesText(Good):
    def gauges(self, s):
        return {"radius": str(s.radius)}


class ObservesNaN(Good):
    def observe(self, s, points, values):
        return replace(s, x=points[0] * np.nan)


DEFECTS = {
    DrawsGlobally: {"global-rng"},
    ReadsGlobally: {"global-rng"},
    ForgetsItsQuestion: {"ask-twice", "extended-budget"},
    AskMovesState: {"ask-twice", "extended-budget"},
    LetsNaNIn: {"failures"},
    WarnsOfFailures: {"failures"},
    Overwrites: {"unchanged"},
    LeavesTheBox: {"bounds", "convex-sets"},
    LeavesTheSet: {"convex-sets"},
    Counts: {"unchanged"},
    CountsInTheClass: {"unchanged"},
    KeepsAFunction: {"state-is-data"},
    KeepsAStranger: {"state-is-data"},
    KeepsItAside: {"resume"},
    CutsSeeds: {"seeds"},
    IgnoresSkips: {"skipped-ranking"},
    MeasuresItsStart: {"translation"},
    Clamps: {"rank-invariance"},
    OtherOnTorch: {"libraries-agree"},
    MakesDoubles: {"dtype-device"},
    NeverLearns: {"sphere"},
    GaugesText: {"optional-members"},
    ObservesNaN: {"optional-members"},
}


def test_a_good_solver_keeps_all_laws():
    report = check_solver(Good(), **LIMITS)
    report.raise_if_failed()
    assert set(report.passed) == set(SOLVER_LAWS)
    on_torch = check_solver(Good, library="torch", **LIMITS)
    on_torch.raise_if_failed()


@pytest.mark.parametrize("broken", DEFECTS, ids=lambda cls: cls.__name__)
def test_a_defect_breaks_the_law_that_names_it_and_no_other(broken):
    report = check_solver(broken(), **LIMITS)
    assert set(report.failed) == DEFECTS[broken], report


def test_a_repr_that_hides_a_field_is_found():
    assert check_solver(HidesAField(radius=0.7), laws=["configuration"]).failed == ("configuration",)


def test_a_batch_that_hides_its_members_breaks_the_budget():
    assert check_solver(MoreThanItSays(), laws=["budget"]).failed == ("budget",)


def test_an_unregistered_state_is_told_how_to_register():
    report = check_solver(KeepsAStranger(), laws=["state-is-data"])
    assert "dfo.run.packing.register" in report["state-is-data"].message


def test_a_counterexample_is_small_and_named():
    report = check_solver(LeavesTheBox(), laws=["bounds"], seconds=300.0)
    assert "for d=1, seed=0" in report["bounds"].message


def test_optional_laws_apply_where_they_are_declared():
    class Modest(Good):
        laws = frozenset()

    report = check_solver(Modest(), laws=["translation", "sphere", "ask-twice"], seconds=1.0)
    assert [o.status for o in report.outcomes] == ["not declared", "not declared", "passed"]


def test_a_law_whose_time_is_over_does_not_fail():
    report = check_solver(Good(), seconds=0.0, laws=["ask-twice", "resume", "seeds"])
    assert [o.status for o in report.outcomes] == ["passed"] * 3
    assert [o.examples for o in report.outcomes] == [1, 4, 1]


def test_verdicts_are_the_same_every_time():
    first, second = (check_solver(LeavesTheBox(), laws=["bounds"], **LIMITS)["bounds"].message for _ in range(2))
    assert first == second


def test_wrong_arguments_are_refused():
    with pytest.raises(UnknownName, match="Did you mean 'bounds'"):
        check_solver(Good(), laws=["bound"])
    with pytest.raises(UnknownName, match="Did you mean 'cma'"):
        check_solver("cmaa")
    with pytest.raises(InvalidArgument, match="library"):
        check_solver(Good(), library="jax")
    with pytest.raises(InvalidType, match="needs"):
        check_solver(lambda x: x)

    class Typo(Good):
        laws = frozenset({"spere"})

    with pytest.raises(UnknownName, match="Did you mean 'sphere'"):
        check_solver(Typo())


def test_a_missing_hypothesis_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"pip install 'dfo-optim\[test\]'"):
        check_solver(Good(), laws=["ask-twice"])


def test_every_law_says_what_it_is_and_who_broke_it():
    for law in SOLVER_LAWS.values():
        assert law.states.endswith(".")
        assert "Broken by" in law.check.__doc__


def test_a_report_prints_as_a_table_and_raises_with_every_broken_law():
    report = Report(
        "Solver()",
        (
            Outcome("budget", "passed", "", 3, 0.5),
            Outcome("seeds", "failed", "seed 0\n    for d=1", states="All seeds."),
        ),
    )
    assert repr(report).splitlines()[0] == "Solver()"
    assert "budget" in repr(report)
    with pytest.raises(AssertionError, match=r"breaks 1 law\(s\)\n  seeds: All seeds.\n    seed 0"):
        report.raise_if_failed()


class SpoiledByFailures(dfo.PES):
    def tell(self, s, batch, told):
        return super().tell(s, batch, replace(told, f=np.where(told.valid, told.f, np.nan), failed=None))

    def _weights(self, delta):
        return delta


class RemembersEndings(dfo.PES):
    endings: ClassVar[list] = []

    def tell(self, s, batch, told):
        self.endings.append(told.ended)
        return super().tell(s, batch, told)


def test_a_solver_that_lives_on_lanes_is_tried_on_episodes():
    assert not check_solver(dfo.PES(population=4), **LIMITS).failed
    assert check_solver(SpoiledByFailures(population=4), laws=["failures"], **LIMITS).failed == ("failures",)
    assert check_solver(RemembersEndings(population=4), laws=["unchanged"], **LIMITS).failed == ("unchanged",)


def test_who_takes_a_plain_function():
    assert takes_functions("cma")
    assert not takes_functions("pes")
