"""The one-file page of a bench."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dfo.bench.store import Config
from dfo.bench.summary import Summary
from dfo.report.figures import BANDS, ecdf_figure, look_of, svg, values_figure
from dfo.report.tables import Scores, by_function, by_slice, values_table
from dfo.report.text import number, percent, signed, span, visible

__all__ = ["page"]

FAILURES = 50
"""Most failures that are shown with their traceback."""


@dataclass(frozen=True)
class Row:
    """A method in the ranking; ends of intervals are in percent, for the bar."""

    method: str
    color: str
    dashed: bool
    low: float
    high: float
    at: float
    steps: tuple[str, ...]
    interval: str
    difference: str
    difference_interval: str
    clear: bool
    cost: str
    failed: int


def page(summary: Summary, scores: Scores, config: Config) -> str:
    """Return the page: the ranking first, then pictures, tables, failures and the configuration.

    Everything that comes from names is escaped, and nothing is loaded from elsewhere.

    Args:
        summary: the numbers.
        scores: shares by budget, slice and method.
        config: of the stored bench.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("dfo.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"visible": visible, "percent": percent}
    plan, budgets = summary.plan, summary.plan.budget.prefixes()
    pictures = []
    if summary.targeted:
        label = "Share of targets hit against evaluations per variable, one line a method"
        pictures.append(Markup(svg(ecdf_figure(summary), label)))  # ours, and escaped by matplotlib
    if summary.valued:
        label = "Median of the best value so far against evaluations, one line a method"
        pictures.append(Markup(svg(values_figure(summary), label)))
    content: dict[str, Any] = {
        "plan": plan,
        "summary": summary,
        "budgets": budgets,
        "facts": facts(summary),
        "rows": list(ranking(summary, scores)) if summary.targeted else [],
        "pictures": pictures,
        "slices": [by_slice(summary, scores, budget) for budget in reversed(budgets)] if summary.targeted else [],
        "functions": by_function(summary, scores, plan.budget) if summary.targeted else [],
        "values": [values_table(summary, budget) for budget in reversed(budgets)] if summary.valued else [],
        "order": summary.order(),
        "failures": summary.failures[:FAILURES],
        "sessions": config.sessions,
        "mixed": len({str(session["versions"]) for session in config.sessions}) > 1,
        "bands": len(plan.methods) <= BANDS,
    }
    return environment.get_template("report.html").render(content)


def facts(summary: Summary) -> str:
    """Return in a sentence or two who is ahead, and of whom that cannot be said."""
    plan, order = summary.plan, summary.order()
    if summary.targeted:
        share = summary.solved(plan.budget).mean(axis=1)[plan.methods.index(order[0])]
        lead = f"{order[0]} hit the most targets: {percent(float(share))} % within {plan.budget} evaluations per run."
        tied = summary.tied(order[0])
        return f"{lead} These problems do not tell it apart from {', '.join(tied)}." if tied else lead
    if summary.valued:
        return f"{order[0]} has the best mean rank within {plan.budget} evaluations per run."
    return "No problem has been run by every method yet."


def ranking(summary: Summary, scores: Scores) -> Iterator[Row]:
    """Yield the methods with targets, best first."""
    plan, budgets, look = summary.plan, summary.plan.budget.prefixes(), look_of(summary.plan.methods)
    for method in summary.order():
        cells = [scores[str(budget), "all", "all", method] for budget in budgets]
        last, base = cells[-1], method == plan.baseline
        low, high = (last.share if math.isnan(end) else end for end in (last.low, last.high))
        yield Row(
            method=method,
            color=look[method][0],
            dashed=look[method][1] != "solid",
            low=100 * low,
            high=100 * high,
            at=100 * last.share,
            steps=tuple(percent(cell.share) for cell in cells),
            interval=span(last.low, last.high),
            difference="baseline" if base else signed(last.difference),
            difference_interval="" if base else span(last.difference_low, last.difference_high, sign=True),
            clear=last.difference_low > 0 or last.difference_high < 0,
            cost=number(1e6 * summary.cost(method), 3),
            failed=sum(record.method == method for record in summary.failures),
        )
