"""How far a bench is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from dfo.bench.plan import Cell, Label
from dfo.bench.record import Record
from dfo.cli.console import note
from dfo.report.text import visible

__all__ = ["Bar", "Lines", "progress"]


def progress() -> Lines:
    """Return what fits standard error."""
    return Bar() if sys.stderr.isatty() else Lines()


def _weight(problem: str) -> float:
    """Return how long a run takes, roughly and relatively: its budget grows with the dimension."""
    return float(Label.of(problem).dim or 1)


class Lines:
    """Prints a line every few seconds, and one for every failure."""

    every = 5.0

    def __init__(self) -> None:
        self.total = self.ended = self.failed = 0
        self.weight = self.passed = 0.0
        self._began = self._next = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def start(self, cells: Sequence[Cell], stored: int) -> None:
        """Hear what will be run, and how many runs are stored already."""
        self.total, self.weight = len(cells), sum(_weight(cell.problem) for cell in cells)
        self._began = time.monotonic()
        self._next = self._began + self.every
        already = f", {stored} are stored already" if stored else ""
        self.tell(f"{len(cells)} runs to do{already}.")

    def done(self, record: Record) -> None:
        """Hear of a run that ended."""
        self.ended += 1
        self.passed += _weight(record.problem)
        if record.failure is not None:
            self.failed += 1
            first = (record.failure.message or record.failure.kind).splitlines()[0]
            self.tell(f"Failed: {record.method} on {record.problem}, seed {record.seed}: {first}")
        self.show(record)

    def show(self, record: Record) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if now >= self._next or self.ended == self.total:
            self._next = now + self.every
            spent = now - self._began
            left = spent * (self.weight / self.passed - 1.0)
            rest = f", about {left:.0f} s left" if self.ended < self.total else ""
            self.tell(f"{self.ended}/{self.total} runs, {self.failed} failed, {spent:.0f} s{rest}")

    def tell(self, text: str) -> None:
        """Print a line."""
        note(text)

    def close(self) -> None:
        """Leave the terminal as it was."""


class Bar(Lines):
    """A live bar with the time left."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        now = TextColumn("{task.fields[now]}", markup=False)
        columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn(), now)
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=None, now="")

    def start(self, cells: Sequence[Cell], stored: int) -> None:
        """Open the bar."""
        super().start(cells, stored)
        self._bar.update(self._task, total=len(cells))
        self._bar.start()

    def show(self, record: Record) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=self.ended, now=visible(f"{record.method} on {record.problem}"))

    def tell(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
