"""``dfo run``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfo.bench.budget import Budget
from dfo.bench.cells import solve
from dfo.bench.methods import check_method
from dfo.bench.packs import make
from dfo.bench.posed import Merits, posed
from dfo.bench.recorder import Recorder
from dfo.bench.targets import TARGETS
from dfo.cli.resuming import Wishes, conclude, printing, resumable, workers_of
from dfo.errors import BadState, short
from dfo.protocols import Problem

__all__ = ["resume_problem", "run_problem"]


def run_problem(
    name: str, method: str, seed: int, out: str | None, store: str | None, wishes: Wishes, as_json: bool
) -> None:
    """Minimize a problem and print the result.

    Raises:
        Ended: 1 if no evaluation gave a value or the objective raised, 130 or 143 after a signal.
    """
    granted = Budget.of(wishes.budget or "100d")
    check_method(method)
    target = None if out is None else _writable(Path(out))
    problem = make(name)
    budget = granted.evaluations(problem.space.dim)
    if store is None and wishes.workers is None and wishes.eval_timeout is None:
        result, gap = _counted(problem, method, budget, seed, printing(as_json))
    else:
        result, gap = _kept(problem, method, budget, seed, store, wishes, printing(as_json))
    content = {"problem": problem.name, "budget": budget, **json.loads(result.to_json())}
    lines = [f"{'problem':>9}: {problem.name}\n{result!r}"]
    if problem.measure is not None and hasattr(problem.fun, "gives"):  # what an oracle answers is no merit
        content["merit"] = merit = float(problem.measure(result.x))
        lines.append(f"{'merit':>9}: {merit:.6g}  (of x; no method sees it)")
    if problem.f_opt is not None:
        targets = TARGETS["coco"]
        hits = sum(gap <= t for t in targets)
        content |= {"gap": gap if gap < float("inf") else None, "targets_hit": hits}
        lines.append(f"{'gap':>9}: {gap:.4g}  ({hits} of {len(targets)} targets hit)")
    text = json.dumps(content, indent=1)
    if target is not None:
        target.write_text(text + "\n", encoding="utf-8")
    conclude(result, "\n".join(lines), text, store, None, as_json)


def _counted(problem: Problem, method: str, budget: int, seed: int, callback: Any) -> tuple[Any, float]:
    """Run in this process, nothing kept; return the result and the lowest gap."""
    recorder = Recorder(problem, TARGETS["coco"] if problem.f_opt is not None else ())
    result = solve(problem, method, budget, seed, fun=recorder.fun, stop=recorder.stop, callback=callback)
    return result, recorder.best


def _kept(
    problem: Problem, method: str, budget: int, seed: int, store: str | None, wishes: Wishes, callback: Any
) -> tuple[Any, float]:
    """Run with a store or workers; return the result and the lowest gap."""
    from dfo.run.store import Store, View

    known = problem.f_opt is not None
    merits = Merits(problem, TARGETS["coco"][-1] if known else None)
    with resumable(store) if store is not None else _plainly():
        result = solve(
            posed(problem), method, budget, seed, stop=merits, callback=callback,
            workers=workers_of(wishes.workers), eval_timeout=wishes.eval_timeout,
            store=None if store is None else Store(store, accept=wishes.accept),
        )  # fmt: skip
    if store is not None and not hasattr(problem.fun, "gives"):
        with View.open(store) as view:
            merits.add((row.x, row.value) for row in view.rows())
    return result, merits.lowest - (problem.f_opt or 0.0)


def _plainly() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def resume_problem(
    store: str, name: str, config: Mapping[str, Any], free: Mapping[str, Any], wishes: Wishes, as_json: bool
) -> None:
    """Continue a run that was begun by :func:`run_problem`.

    Args:
        store: its path.
        name: of the problem.
        config: as stored.
        free: as stored.
        wishes: what is to change.
        as_json: print for machines.
    """
    from dataclasses import replace

    from dfo.run.rebuilt import rebuilt

    make(name)  # a store may name anything: what is no problem is refused here
    options, seed = rebuilt("options", config.get("options")) or {}, config.get("seed")
    if not isinstance(seed, int) or not isinstance(options, Mapping):
        raise BadState(f"{store}: expected a seed and options, got {short(seed)} and {short(options)}.")
    words = ", ".join(f"{option}={json.dumps(value)}" for option, value in options.items())
    method = f"{rebuilt('method', config.get('method'))}[{words}]"
    budget = wishes.budget or str(free.get("budget"))
    workers = wishes.workers or (str(free["workers"]) if isinstance(free.get("workers"), int) else None)
    limit = free.get("eval_timeout") if isinstance(free.get("eval_timeout"), (int, float)) else None
    wanted = replace(wishes, budget=budget, workers=workers, eval_timeout=wishes.eval_timeout or limit)
    run_problem(name, method, seed, None, store, wanted, as_json)


def _writable(path: Path) -> Path:
    """Refuse a path that cannot be written before the budget is spent."""
    from dfo.errors import InvalidArgument

    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidArgument(f"--out: {path} cannot be written; expected a file in an existing directory.")
    return path
