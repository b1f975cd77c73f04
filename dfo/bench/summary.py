"""From records to the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dfo.arrays import Floats
from dfo.bench.budget import Budget
from dfo.bench.plan import Label, Plan
from dfo.bench.record import Record
from dfo.bench.statistics import Integers, interval, ranks, resamples, shares
from dfo.bench.targets import TARGETS
from dfo.random import Key

__all__ = ["Median", "Score", "Slice", "Summary"]

RESAMPLES = 2000
KEY = Key(0, ("bootstrap",))


@dataclass(frozen=True)
class Score:
    """Share of the (problem, seed, target) triples that a method has solved, with 95 % intervals.

    Args:
        budget: within this budget.
        by: what the problems have in common: ``"all"``, ``"dim"``, ``"group"`` or ``"function"``.
        value: which of these.
        method: the method.
        problems: number of problems.
        share: the share, between 0 and 1.
        low: lower end of its interval.
        high: upper end.
        difference: share minus the share of the baseline.
        difference_low: lower end of its paired interval.
        difference_high: upper end.
    """

    budget: Budget
    by: str
    value: str
    method: str
    problems: int
    share: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


@dataclass(frozen=True)
class Median:
    """Median over seeds of the best value on a problem whose lowest value is not known.

    Args:
        budget: within this budget.
        problem: the problem.
        method: the method.
        best: the median; infinite where at least half of the seeds found nothing.
        rank: among the methods on this problem, from 1; equal medians share their mean rank.
    """

    budget: Budget
    problem: str
    method: str
    best: float
    rank: float


@dataclass(frozen=True, eq=False)
class Slice:
    """Problems that have something in common.

    Args:
        by: what: ``"all"``, ``"dim"``, ``"group"`` or ``"function"``.
        value: which.
        members: ``(q,)`` indices of the problems.
    """

    by: str
    value: str
    members: Integers


class Summary:
    """The numbers of a bench.

    Only problems that every method has run with every seed are compared; the others are in ``incomplete``.
    A run that failed counts with what it had reached.

    Args:
        plan: the grid.
        records: of the runs that ended.

    Example:
        >>> from dfo.bench import Plan, bench, load_suite
        >>> plan = Plan.of(load_suite("quick").narrowed(dims=[2], functions=["sphere"]), ["random"], budget="10d")
        >>> summary = Summary(plan, bench(plan, workers=0))
        >>> [(score.value, score.problems) for score in summary.scores(["all"])]
        [('all', 1)]
    """

    def __init__(self, plan: Plan, records: Sequence[Record]) -> None:
        self.plan, self.records = plan, list(records)
        self.failures = [record for record in records if record.failure is not None]
        table = {(r.method, r.problem, r.seed): r for r in records}
        self._grid: dict[str, list[list[Record]]] = {}  # problem -> [method][seed]
        for problem in plan.problems:
            rows = [[table.get((method, problem, seed)) for seed in plan.seeds] for method in plan.methods]
            full = [[record for record in row if record is not None] for row in rows]
            if all(len(row) == len(plan.seeds) for row in full) and any(
                r.dim and r.budget for row in full for r in row
            ):
                self._grid[problem] = full
        self.incomplete = [problem for problem in plan.problems if problem not in self._grid]
        self.targeted = [p for p in self._grid if self._one(p).targets]
        self.valued = [p for p in self._grid if not self._one(p).targets]

    def _one(self, problem: str) -> Record:
        """Return a record of the problem that was not cut off before the problem was built."""
        return next(record for row in self._grid[problem] for record in row if record.budget)

    # ------------------------------------------------------------------ problems with targets

    @cached_property
    def dims(self) -> Floats:
        """``(p,)`` numbers of variables."""
        return np.array([self._one(problem).dim for problem in self.targeted], dtype=float)

    @cached_property
    def runtimes(self) -> Floats:
        """``(m, p, s, t)`` evaluations per variable at the first hit of each target, infinite without one."""
        plan, count = self.plan, len(TARGETS.get(self.plan.targets or "", ()))
        out = np.full((len(plan.methods), len(self.targeted), len(plan.seeds), count), np.inf)
        for j, problem in enumerate(self.targeted):
            for i, row in enumerate(self._grid[problem]):
                for k, record in enumerate(row):
                    out[i, j, k, : len(record.hits)] = record.hits
        return out / self.dims[:, None, None]

    def weights(self, members: Integers) -> Floats:
        """Return ``(b, q)`` bootstrap weights: a function and instance is drawn with all of its dimensions."""
        labels = [Label.of(self.targeted[i]) for i in members]
        names = [(label.function, label.instance) for label in labels]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
        return resamples(np.array([numbers[name] for name in names], dtype=np.int64), RESAMPLES, KEY)

    def limits(self, budget: Budget) -> Floats:
        """Return ``(p, 1)`` evaluations per variable that a budget grants."""
        return np.array([[budget.evaluations(int(d)) / d] for d in self.dims]).reshape(-1, 1)

    def solved(self, budget: Budget) -> Floats:
        """Return ``(m, p)`` shares of the targets hit within a budget."""
        return shares(self.runtimes, self.limits(budget))[:, :, 0]

    def slices(self, by: Sequence[str] = ("all", "dim", "group", "function")) -> Iterator[Slice]:
        """Yield the sets of problems over which shares are averaged, in the order of the plan."""
        labels = {
            "all": ["all"] * len(self.targeted),
            "dim": [str(int(d)) for d in self.dims],
            "group": [self._one(problem).group for problem in self.targeted],
            "function": [Label.of(problem).function for problem in self.targeted],
        }
        for kind in by:
            values = np.array(labels[kind])
            order = dict.fromkeys(labels[kind])
            for value in sorted(order, key=int) if kind == "dim" else order:
                if value:
                    yield Slice(kind, value, np.flatnonzero(values == value))

    def scores(self, by: Sequence[str] = ("all", "dim", "group", "function")) -> list[Score]:
        """Return every share at every prefix of the budget."""
        return [score for budget in self.plan.budget.prefixes() for score in self._scores(budget, by)]

    def _scores(self, budget: Budget, by: Sequence[str]) -> Iterator[Score]:
        if not self.targeted:
            return
        solved, base = self.solved(budget), self.plan.methods.index(self.plan.baseline)
        for part in self.slices(by):
            values, weights = solved[:, part.members], self.weights(part.members)
            for i, method in enumerate(self.plan.methods):
                beyond = values[i] - values[base]
                paired = (0.0, 0.0) if i == base else interval(beyond, weights)
                yield Score(
                    budget, part.by, part.value, method, len(part.members), float(values[i].mean()),
                    *interval(values[i], weights), float(beyond.mean()), *paired,
                )  # fmt: skip

    def curves(self, members: Integers, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Return ``(m, x)`` shares solved within ``x`` evaluations per variable, and a 95 % band around them."""
        each = shares(self.runtimes[:, members], x)  # (m, q, x)
        weights = self.weights(members)
        means = np.einsum("mqx,bq->mbx", each, weights) / weights.sum(axis=1)[:, None]
        low, high = np.quantile(means, [0.025, 0.975], axis=1)
        return each.mean(axis=1), low, high

    # ------------------------------------------------------------------ problems without

    def medians(self, budget: Budget) -> list[Median]:
        """Return the medians of best values, problem by problem."""
        methods, found = self.plan.methods, []
        for problem in self.valued:
            limit = budget.evaluations(self._one(problem).dim)
            best = np.array([_median([r.best_at(limit) for r in row]) for row in self._grid[problem]])
            for method, value, rank in zip(methods, best, ranks(best[:, None])[:, 0], strict=True):
                found.append(Median(budget, problem, method, float(value), float(rank)))
        return found

    def trajectories(self, problem: str) -> tuple[Floats, Floats]:
        """Return ``(x,)`` evaluations and ``(m, x)`` medians over seeds of the best value after them."""
        rows = self._grid[problem]
        most = self.plan.budget.evaluations(self._one(problem).dim)
        x = np.unique(np.geomspace(1, max(most, 2), 80).round())
        medians = [[_median([record.best_at(int(n)) for record in row]) for n in x] for row in rows]
        curves = np.array(medians)
        return x, np.where(np.isfinite(curves), curves, np.nan)

    # ------------------------------------------------------------------ all runs

    def cost(self, method: str) -> float:
        """Return the median over runs of the processor time per evaluation, in seconds; NaN without runs."""
        costs = [r.cpu_seconds / r.evaluations for r in self.records if r.method == method and r.evaluations]
        return float(np.median(costs)) if costs else math.nan

    def order(self) -> list[str]:
        """Return the methods, best first: by share at the full budget, else by mean rank."""
        methods = self.plan.methods
        if self.targeted:
            key = -self.solved(self.plan.budget).mean(axis=1)
        else:
            table = self.medians(self.plan.budget)
            key = np.array([np.mean([m.rank for m in table if m.method == name] or [0.0]) for name in methods])
        return [methods[i] for i in np.argsort(key, kind="stable")]

    def tied(self, method: str) -> list[str]:
        """Return the other methods whose paired 95 % interval of the difference to this one holds 0."""
        solved, i = self.solved(self.plan.budget), self.plan.methods.index(method)
        weights = self.weights(np.arange(len(self.targeted)))
        spans = {other: interval(solved[i] - solved[j], weights) for j, other in enumerate(self.plan.methods) if j != i}
        return [other for other in self.order() if other in spans and not (spans[other][0] > 0 or spans[other][1] < 0)]


def _median(values: Sequence[float]) -> float:
    """Return the median; the worse of the two in the middle where one of them is infinite."""
    ordered = sorted(values)
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return (middle[0] + middle[1]) / 2
