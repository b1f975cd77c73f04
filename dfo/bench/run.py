"""Run a plan, or go on with one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from dfo.bench.plan import Cell, Plan
from dfo.bench.record import Record
from dfo.bench.runner import run_cells
from dfo.bench.store import Store, read_config, read_records

__all__ = ["Watcher", "bench", "load_records"]


class Watcher(Protocol):
    """Somebody to tell how far a bench is."""

    def start(self, cells: list[Cell], stored: int) -> None:
        """Hear what will be run, and how many runs are stored already."""
        ...

    def done(self, record: Record) -> None:
        """Hear of a run that ended."""
        ...


def bench(
    plan: Plan,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    watcher: Watcher | None = None,
    command: str = "",
) -> list[Record]:
    """Run every cell of a plan that is not stored yet.

    Args:
        plan: what to run.
        out: a directory to store the runs in, and to go on from; None keeps them in memory.
        workers: processes, of which each computes on one thread, so that their number changes no result; 0
            runs in this process, whose threads may change the last digit of a method's linear algebra.
        watcher: hears of every run that ends.
        command: what the user typed, for the report.

    Returns:
        The records of the whole grid (with ``out``: of all that is stored), in the order of the plan.

    Raises:
        InvalidArgument: another bench is stored in ``out``, or another process is writing there.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    if out is None:
        records: dict[Cell, Record] = {}
        _run(plan, plan.cells(), 0, workers, watcher, lambda record: records.update({record.cell: record}))
        return [records[cell] for cell in plan.cells()]
    with Store(out, plan, command) as store:
        todo, session = store.missing(), len(store.config.sessions) - 1
        stored = len(store.plan.cells()) - len(todo)
        _run(store.plan, todo, stored, workers, watcher, lambda record: store.append(replace(record, session=session)))
        return [store.records[cell] for cell in store.plan.cells()]


def _run(
    plan: Plan, todo: list[Cell], stored: int, workers: int, watcher: Watcher | None, keep: Callable[[Record], None]
) -> None:
    def done(record: Record) -> None:
        keep(record)
        if watcher is not None:
            watcher.done(record)

    if watcher is not None:
        watcher.start(todo, stored)
    run_cells(todo, plan, workers, done)


def load_records(out: str | os.PathLike[str]) -> tuple[Plan, list[Record]]:
    """Read a stored bench: its plan, and the records of the runs that ended, in the order of the plan."""
    plan, records = read_config(out).plan, read_records(out)
    return plan, [records[cell] for cell in plan.cells() if cell in records]
