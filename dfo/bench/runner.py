"""Run cells in processes of their own.

A worker is a fresh interpreter with one thread for linear algebra, so that results and timings depend
neither on the number of workers nor on what the calling process did before. A worker that dies takes one
cell with it, which is recorded as failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from dfo.bench.cells import run_cell
from dfo.bench.plan import Cell, Label, Plan
from dfo.bench.record import Failure, Record
from dfo.errors import BadState, InvalidArgument

__all__ = ["run_cells"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

Done = Callable[[Record], None]


def run_cells(cells: Sequence[Cell], plan: Plan, workers: int, done: Done) -> None:
    """Run cells and hand over each record as soon as its run ends.

    Args:
        cells: what to run; larger problems are started first.
        plan: says the budget and the targets.
        workers: processes; 0 runs in this one (for a debugger, or for methods registered at run time).
        done: called in this thread with each record.

    Raises:
        InvalidArgument: fewer than 0 workers.
        KeyboardInterrupt: the user interrupted; the workers are dead.
    """
    if workers < 0:
        raise InvalidArgument(f"workers: expected at least 0, got {workers}.")
    if workers == 0:
        for cell in cells:
            done(run_cell(cell, plan.budget, plan.targets))
    elif cells:
        with _Crew(min(workers, len(cells)), plan) as crew:
            crew.work(sorted(cells, key=lambda cell: -Label.of(cell.problem).dim), done)


class _Worker:
    """A process, the cell it is at, and the thread that listens to it."""

    def __init__(self, answers: queue.SimpleQueue[tuple[_Worker, bytes]]) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **dict.fromkeys(_ONE_THREAD, "1")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dfo.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self.cell: Cell | None = None
        self._answers = answers
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put((self, line))
        self._answers.put((self, b""))

    def start(self, cell: Cell, plan: Plan) -> None:
        """Hand over a cell."""
        self.cell = cell
        job = {**cell.__dict__, "budget": str(plan.budget), "targets": plan.targets}
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: the end of its output says so
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """End the process and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class _Crew:
    """Workers that share a list of cells."""

    def __init__(self, size: int, plan: Plan) -> None:
        self.plan = plan
        self.answers: queue.SimpleQueue[tuple[_Worker, bytes]] = queue.SimpleQueue()
        self.workers: list[_Worker] = []
        self.size = size

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self.workers:
            worker.end()

    def work(self, cells: Sequence[Cell], done: Done) -> None:
        """Run all cells."""
        left = list(reversed(cells))
        for _ in range(self.size):
            self._hire(left)
        while any(worker.cell is not None for worker in self.workers):
            worker, line = self.answers.get()
            cell, worker.cell = worker.cell, None
            record: Record | None = None
            if line:
                record = _record(line)
                if left:
                    worker.start(left.pop(), self.plan)
            else:
                self.workers.remove(worker)
                code = worker.process.wait()
                worker.end()
                record = None if cell is None else _lost(cell, code)
                self._hire(left)
            if record is not None:
                done(record)

    def _hire(self, left: list[Cell]) -> None:
        if left:
            worker = _Worker(self.answers)
            self.workers.append(worker)
            worker.start(left.pop(), self.plan)


def _lost(cell: Cell, code: int) -> Record:
    """Return the record of a cell in which the process ended."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
    message = f"The process that ran this cell ended {how}; its last words, if any, are on standard error."
    return Record(cell.problem, cell.method, cell.seed, failure=Failure("WorkerDied", message))


def _record(line: bytes) -> Record:
    try:
        return Record.from_line(line)
    except BadState as error:  # a bug of ours: stop rather than store it
        raise RuntimeError(f"A worker answered with something else than a record: {error}") from None
