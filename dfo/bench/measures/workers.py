"""What workers cost: time per evaluation, for a start, and for a replacement."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.cma import sphere
from dfo.bench.measures.row import Row
from dfo.run.crew.crew import Crew

__all__ = ["workers"]


def _pid_or_death(x: float) -> int:
    """Return the process that evaluates, or end it."""
    if x < 0:
        os._exit(1)
    return os.getpid()


def _going() -> bool:
    return False


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def workers(n: int = 1000, repeats: int = 15) -> list[Row]:
    """Time of two workers beside a pool of two of the standard library, in turns in the same run."""
    points: dict[int, Floats] = {i: np.full(10, i / n) for i in range(n)}
    crew = Crew(2)
    ours: list[float] = []
    theirs: list[float] = []
    try:
        start = _seconds(lambda: list(crew(sphere, {0: points[0], 1: points[1]}, _going)))
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(sphere, [points[0], points[1]]))
            for _ in range(repeats):
                ours.append(_seconds(lambda: list(crew(sphere, points, _going))) / n * 1e6)
                theirs.append(_seconds(lambda: list(pool.map(sphere, points.values()))) / n * 1e6)
    finally:
        crew.close()
    least, ratio = min(ours), statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    back = _replacement()
    source = f"in turns with the pool, {repeats} times {n} evaluations of a 10-d sphere"
    return [
        Row("microseconds per evaluation, two workers", "<= 150", least, least <= 150, "the least; this machine"),
        Row("time per evaluation / ProcessPoolExecutor(2).map's", "<= 1.2", ratio, ratio <= 1.2, f"median, {source}"),
        Row("seconds until two fresh workers answer", "<= 5", start, start <= 5, "this machine"),
        Row("seconds until a dead worker is replaced", "<= 5", back, back <= 5, "median of 5; this machine"),
    ]


def _replacement() -> float:
    """Return the time from a death to the next answer of another process in its place."""
    crew, found = Crew(1, retries=0), []
    try:
        list(crew(_pid_or_death, {0: 0.0}, _going))
        for _ in range(5):
            list(crew(_pid_or_death, {0: -1.0}, _going))
            found.append(_seconds(lambda: list(crew(_pid_or_death, {0: 0.0}, _going))))
    finally:
        crew.close()
    return statistics.median(found)
