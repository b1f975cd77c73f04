"""What a bench is made of: every problem with every method with every seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dfo.bench.budget import Budget
from dfo.bench.methods import check_method
from dfo.bench.suite import Suite
from dfo.errors import BadState, InvalidArgument, short, unknown
from dfo.random import Key

__all__ = ["Cell", "Label", "Plan"]


@dataclass(frozen=True)
class Label:
    """What the name of a problem says: ``<function>[-i<instance>][-d<dim>]`` behind the name of its pack.

    Args:
        function: everything before instance and dimension.
        instance: number of the instance, or 0.
        dim: dimension, or 0.

    Example:
        >>> Label.of("bbob-f008-i01-d10")
        Label(function='bbob-f008', instance=1, dim=10)
    """

    function: str
    instance: int = 0
    dim: int = 0

    @classmethod
    def of(cls, problem: str) -> Label:
        """Read a name; one of another form is a function without instances or dimensions."""
        found = re.fullmatch(r"(.+?)(?:-i(\d+))?(?:-d(\d+))?", problem, re.ASCII | re.DOTALL)
        return cls(found[1], int(found[2] or 0), int(found[3] or 0)) if found else cls(problem)


@dataclass(frozen=True)
class Cell:
    """One run: a problem, a method, a seed.

    Args:
        problem: name of the problem.
        method: the method, as :class:`~dfo.bench.Method` reads it.
        seed: the user's seed.
    """

    problem: str
    method: str
    seed: int

    @property
    def key(self) -> Key:
        """The stream of the cell: of seed and problem, and so equal for all methods."""
        return Key(self.seed).child("bench", self.problem)

    def run_seed(self, run: int) -> int:
        """Return the seed that the method gets at its start (0) and at restart number ``run``."""
        return self.key.child("run", run).words[0] >> 33  # 31 bits: what every peer takes


@dataclass(frozen=True)
class Plan:
    """A full grid of cells, and how each is run.

    Args:
        suite: name of the suite.
        summary: of the suite.
        problems: names.
        methods: the methods, as :class:`~dfo.bench.Method` reads them.
        seeds: the user's seeds.
        budget: of each run.
        targets: name of the targets, or None to compare best values.
        baseline: the method with which the others are compared.
    """

    suite: str
    summary: str
    problems: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: Budget
    targets: str | None
    baseline: str

    @classmethod
    def of(
        cls,
        suite: Suite,
        methods: Sequence[str],
        seeds: Sequence[int] = (0,),
        budget: Budget | str | int | None = None,
        baseline: str | None = None,
    ) -> Plan:
        """Plan a suite.

        Args:
            suite: the problems.
            methods: at least one.
            seeds: at least one integer >= 0.
            budget: another budget than the suite's.
            baseline: one of the methods; the first by default.

        Raises:
            UnknownName: a method, option, pack, function or baseline that does not exist.
            InvalidArgument: nothing to run, or something twice.

        Example:
            >>> from dfo.bench import Plan, load_suite
            >>> len(Plan.of(load_suite("quick"), ["random", "scipy:COBYQA"]).cells())
            24
        """
        problems = suite.names()
        for what, several in (("problems", problems), ("methods", list(methods)), ("seeds", list(seeds))):
            if not several:
                raise InvalidArgument(f"{what}: expected at least one, got none.")
            if len(set(several)) < len(several):
                raise InvalidArgument(f"{what}: expected each once, got {short(several)}.")
        for method in methods:
            check_method(method)
        for seed in seeds:
            Key.of(seed)
        if baseline is not None and baseline not in methods:
            raise unknown("baseline among the methods", baseline, methods)
        chosen = suite.budget if budget is None else Budget.of(budget)
        return cls(
            suite.name, suite.summary, tuple(problems), tuple(methods), tuple(seeds), chosen, suite.targets,
            baseline or methods[0],
        )  # fmt: skip

    def cells(self) -> list[Cell]:
        """Return the cells, problem by problem, so that methods on one problem run close in time."""
        return [Cell(p, m, s) for p in self.problems for s in self.seeds for m in self.methods]

    def joined(self, more: Plan) -> Plan:
        """Return the grid that holds both plans' problems, methods and seeds; the rest is that of ``more``."""
        return replace(
            more,
            problems=tuple(dict.fromkeys((*self.problems, *more.problems))),
            methods=tuple(dict.fromkeys((*self.methods, *more.methods))),
            seeds=tuple(dict.fromkeys((*self.seeds, *more.seeds))),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "budget": str(self.budget)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Plan:
        """Return the plan that :meth:`to_json` wrote.

        Raises:
            BadState: something is missing or of another kind.
        """
        try:
            several: dict[str, Any] = {name: tuple(table[name]) for name in ("problems", "methods", "seeds")}
            plain: dict[str, Any] = {name: table[name] for name in ("suite", "summary", "targets", "baseline")}
            return cls(budget=Budget.of(table["budget"]), **several, **plain)
        except (KeyError, TypeError, InvalidArgument) as error:
            raise BadState(f"not a plan: {error!r}") from None
