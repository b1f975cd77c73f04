"""``dfo run``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from dfo.bench.budget import Budget
from dfo.bench.cells import solve
from dfo.bench.methods import check_method
from dfo.bench.packs import make
from dfo.bench.recorder import Recorder
from dfo.bench.targets import TARGETS
from dfo.cli.console import Ended, note, say, signalled

__all__ = ["run_problem"]


def run_problem(name: str, method: str, budget: str, seed: int, out: str | None, as_json: bool) -> None:
    """Minimize a problem and print the result.

    Raises:
        Ended: 1 if no evaluation gave a value or the objective raised, 130 or 143 after a signal.
    """
    granted = Budget.of(budget)
    check_method(method)
    target = None if out is None else _writable(Path(out))
    problem = make(name)
    recorder = Recorder(problem, TARGETS["coco"] if problem.f_opt is not None else ())
    hooks: dict[str, Any] = {}
    if sys.stderr.isatty() and not as_json:
        from dfo.run.hooks import Print

        hooks["callback"] = Print(every=2.0)
    evaluations = granted.evaluations(problem.space.dim)
    result = solve(problem, method, evaluations, seed, fun=recorder.fun, stop=recorder.stop, **hooks)
    content = {"problem": problem.name, "budget": evaluations, **json.loads(result.to_json())}
    lines = [f"{'problem':>9}: {problem.name}\n{result!r}"]
    if problem.measure is not None and recorder.fun is not recorder:  # what an oracle answers is no merit
        content["merit"] = merit = float(problem.measure(result.x))
        lines.append(f"{'merit':>9}: {merit:.6g}  (of x; no method sees it)")
    if problem.f_opt is not None:
        content |= {"gap": recorder.best if recorder.steps else None, "targets_hit": len(recorder.hits)}
        lines.append(f"{'gap':>9}: {recorder.best:.4g}  ({len(recorder.hits)} of {len(recorder.targets)} targets hit)")
    text = json.dumps(content, indent=1)
    if target is not None:
        target.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
    else:
        say("\n".join(lines))
    if result.status == "interrupted":
        raise Ended(signalled())
    if result.status in ("error", "all_failed"):
        note(f"Error: {result.message}")
        raise Ended(1)


def _writable(path: Path) -> Path:
    """Refuse a path that cannot be written before the budget is spent."""
    from dfo.errors import InvalidArgument

    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidArgument(f"--out: {path} cannot be written; expected a file in an existing directory.")
    return path
