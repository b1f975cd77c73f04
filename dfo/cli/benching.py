"""``dfo bench`` and ``dfo report``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from typing import Any

from dfo.bench.methods import split_methods
from dfo.bench.plan import Plan
from dfo.bench.run import bench
from dfo.bench.suite import Suite, load_suite
from dfo.bench.summary import Summary
from dfo.cli.console import Ended, note, print_json, print_table, say
from dfo.cli.progress import progress
from dfo.cli.words import counts, labels
from dfo.report.write import Written, check_packages, tables_of, write_report

__all__ = ["narrowed", "rebuild", "run_bench"]


def narrowed(suite: str, dims: str | None, functions: str | None, instances: str | None) -> Suite:
    """Return a suite with the dimensions, functions and instances asked for in place of its own."""
    return load_suite(suite).narrowed(
        counts("--dims", dims), labels("--functions", functions), counts("--instances", instances)
    )


def run_bench(
    suite: Suite,
    methods: str,
    budget: str | None,
    seeds: int,
    workers: int,
    baseline: str | None,
    out: str | None,
    json: bool,
) -> None:
    """Run a bench, or what is missing of it, and report.

    Raises:
        Ended: 1 if a run failed.
        KeyboardInterrupt: interrupted; the same command goes on.
    """
    plan = Plan.of(suite, split_methods(methods), tuple(range(seeds)), budget, baseline)
    if out is not None:
        check_packages()
    with progress() as watcher:
        try:
            records = bench(plan, out, workers, watcher, shlex.join(["dfo", *sys.argv[1:]]))
        except KeyboardInterrupt:
            watcher.close()
            kept = f" What has ended is stored in {out}; the same command goes on." if out else ""
            note(f"Interrupted after {watcher.ended} of {watcher.total} runs.{kept}")
            raise
    if out is None:
        _conclude(Summary(plan, records), None, json)
    else:
        written = write_report(out)
        _conclude(written.summary, written, json)


def rebuild(folder: str, json: bool) -> None:
    """Write the report of a stored bench.

    Raises:
        Ended: 1 if a run failed.
    """
    written = write_report(folder)
    _conclude(written.summary, written, json)


def _conclude(summary: Summary, written: Written | None, json: bool) -> None:
    if json:
        print_json(_machine(summary, written))
    else:
        say()
        for table in tables_of(summary):
            print_table(table)
        if summary.incomplete:
            note(f"Left out: {len(summary.incomplete)} problems that not every method has run with every seed.")
        if summary.failures:
            first = summary.failures[0]
            note(
                f"{len(summary.failures)} runs failed; they count with what they had reached. The first:"
                f" {first.method} on {first.problem}: {first.failure.message if first.failure else ''}"
            )
        if written is not None:
            for picture in written.pictures:
                say(f"picture  {picture}")
            say(f"report   {written.page}")
    if summary.failures:
        raise Ended(1)


def _machine(summary: Summary, written: Written | None) -> dict[str, Any]:
    """Return the outcome for machines."""
    scores = [{**asdict(score), "budget": str(score.budget)} for score in summary.scores()]
    medians = [{**asdict(m), "budget": str(m.budget)} for m in summary.medians(summary.plan.budget)]
    failures = [
        {"problem": r.problem, "method": r.method, "seed": r.seed, **asdict(r.failure)}
        for r in summary.failures
        if r.failure is not None
    ]
    return {
        "plan": summary.plan.to_json(),
        "order": summary.order(),
        "scores": scores,
        "medians": medians,
        "failures": failures,
        "incomplete": summary.incomplete,
        "report": None if written is None else str(written.page),
        "pictures": [] if written is None else [str(picture) for picture in written.pictures],
    }
