"""``dfo check``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dfo.bench.packs import make, packs
from dfo.cli.console import Ended, note, print_json, say
from dfo.errors import unknown

__all__ = ["check_subject"]


def check_subject(name: str, seconds: float, json: bool) -> None:
    """Check the solver or the problem of this name, and print how it stands before each law.

    Raises:
        UnknownName: neither a solver nor a problem has this name.
        Ended: 1 if a law is broken.
    """
    from dfo.solvers import SOLVERS

    report = _report(name, seconds, SOLVERS)
    if json:
        print_json({"subject": report.subject, "outcomes": [asdict(outcome) for outcome in report.outcomes]})
    else:
        say(repr(report))
    if report.failed:
        for outcome in report.outcomes:
            if outcome.status == "failed":
                note(f"Broken: {outcome.law}: {outcome.states}\n  {outcome.message}")
        raise Ended(1)


def _report(name: str, seconds: float, solvers: Any) -> Any:
    from dfo.testing import check_problem, check_solver

    if name in solvers:
        return check_solver(name, seconds=seconds)
    if any(name.startswith(f"{pack}-") for pack in packs()):
        return check_problem(make(name), seconds=seconds)
    examples = [example for pack in packs().values() for example in pack.select()[:1]]
    raise unknown("solver or problem", name, [*solvers, *examples])
