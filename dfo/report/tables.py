"""The tables of a bench: for the console, for the report, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from dfo.bench.budget import Budget
from dfo.bench.summary import Score, Summary
from dfo.report.text import Table, columns_of, inert, number, percent, signed, span

__all__ = ["by_function", "by_slice", "overview", "scores_csv", "values_csv", "values_table"]

Scores = dict[tuple[str, str, str, str], Score]


def indexed(scores: Sequence[Score]) -> Scores:
    """Return scores by (budget, by, value, method)."""
    return {(str(s.budget), s.by, s.value, s.method): s for s in scores}


def overview(summary: Summary, scores: Scores) -> Table:
    """Return shares at every budget over all problems, best method first, with the paired difference."""
    plan, budgets = summary.plan, summary.plan.budget.prefixes()
    baseline = plan.baseline
    rows = []
    for method in summary.order():
        cells = [scores[str(budget), "all", "all", method] for budget in budgets]
        last = cells[-1]
        apart = ("", "") if method == baseline else (signed(last.difference), _difference_span(last))
        cost = number(1e6 * summary.cost(method), 3)
        failed = sum(record.method == method for record in summary.failures)
        shown = (*(percent(s.share) for s in cells), span(last.low, last.high))
        rows.append((method, *shown, *apart, cost, str(failed or "")))
    seeds = f" x {len(plan.seeds)} seeds" if len(plan.seeds) > 1 else ""
    within = f"{budgets[0]} to {plan.budget}" if len(budgets) > 1 else f"{plan.budget}"
    title = f"{plan.suite}: % of targets hit on {len(summary.targeted)} problems{seeds} within {within} evaluations"
    columns = ("method", *map(str, budgets), "interval", f"vs {baseline}", "interval", "us/eval", "failed")
    return _without_empty(Table(title, columns, tuple(rows)))


def _difference_span(score: Score) -> str:
    return span(score.difference_low, score.difference_high, sign=True)


def _without_empty(table: Table) -> Table:
    """Leave out the columns in which no row says anything."""
    return columns_of(table, [i for i in range(len(table.columns)) if i == 0 or any(row[i] for row in table.rows)])


def by_slice(summary: Summary, scores: Scores, budget: Budget) -> Table:
    """Return shares within a budget by dimension and by group, best method first."""
    parts = [(s.by, s.value) for s in summary.slices(("all", "dim", "group"))]
    parts = [part for part in parts if part[0] != "dim" or len(set(summary.dims)) > 1]
    columns = tuple({"all": "all", "dim": f"d={value}", "group": value}[by] for by, value in parts)
    rows = tuple(
        (method, *(percent(scores[str(budget), by, value, method].share) for by, value in parts))
        for method in summary.order()
    )
    title = f"{summary.plan.suite}: % of targets hit within {budget} evaluations, by dimension and group"
    return Table(title, ("method", *columns), rows)


def by_function(summary: Summary, scores: Scores, budget: Budget) -> list[tuple[str, list[float]]]:
    """Return the share of each method, best method first, on each function."""
    order = summary.order()
    return [
        (part.value, [scores[str(budget), "function", part.value, method].share for method in order])
        for part in summary.slices(("function",))
    ]


def values_table(summary: Summary, budget: Budget) -> Table:
    """Return medians of best values on problems whose lowest value is unknown, and mean ranks below."""
    order, table = summary.order(), {(m.problem, m.method): m for m in summary.medians(budget)}
    rows = [(p, *(number(table[p, method].best, 5) for method in order)) for p in summary.valued]
    mean = [float(np.mean([table[p, method].rank for p in summary.valued])) for method in order]
    title = f"{summary.plan.suite}: median over seeds of the best value within {budget} evaluations"
    return Table(title, ("problem", *order), (*rows, ("mean rank", *(f"{value:.2f}" for value in mean))))


def scores_csv(scores: Sequence[Score]) -> str:
    """Return scores as CSV, a line each; shares are fractions of 1, unknown ends of intervals are empty."""
    names = [field.name for field in fields(Score)]
    return _csv(names, ([getattr(score, name) for name in names] for score in scores))


def values_csv(summary: Summary) -> str:
    """Return medians of best values at every budget as CSV, a line each."""
    found = [median for budget in summary.plan.budget.prefixes() for median in summary.medians(budget)]
    rows = ([str(m.budget), m.problem, m.method, m.best, m.rank] for m in found)
    return _csv(["budget", "problem", "method", "best", "rank"], rows)


def _csv(names: Sequence[str], rows: object) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:  # type: ignore[attr-defined]
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return inert(value) if isinstance(value, str) else str(value)
