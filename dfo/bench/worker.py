"""A process that runs one cell after another: ``python -m dfo.bench.worker``, started by the runner.

A line of JSON comes in, a record goes out. The process ends when its input does, in the middle of a cell if
need be, so that it cannot outlive the process that asked.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import BinaryIO

from dfo.bench.budget import Budget
from dfo.bench.cells import run_cell
from dfo.bench.plan import Cell

__all__ = ["main"]


def _read(source: BinaryIO, lines: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        lines.put(line)
    os._exit(0)


def main() -> None:
    """Run cells until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what methods print must not get between the records
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
    while True:
        job = json.loads(lines.get())
        cell = Cell(job["problem"], job["method"], job["seed"])
        record = run_cell(cell, Budget.of(job["budget"]), job["targets"])
        print(record.to_line(), file=answers, flush=True)


if __name__ == "__main__":
    main()
