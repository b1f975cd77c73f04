"""What an evaluation costs on a Ray cluster of this machine, beside a bare task of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from dfo.bench.measures.row import Row
from dfo.run.crew import ray_head
from dfo.run.crew.ray import RayEvaluator

__all__ = ["ray_tasks"]

_SOURCE = "ray.get([f.remote(x) for x in xs]) in the same run"


def _nothing(x: float) -> float:
    return x


def _never() -> bool:
    return False


def _seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the least time of several runs, after one that starts the processes."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def ray_tasks(evaluations: int = 500, repeats: int = 7) -> list[Row]:
    """Time of an evaluation over Ray that does nothing, as a ratio to a bare task of Ray in the same run."""
    took = ray_head.join("local")
    try:
        ray = ray_head.load()
        bare, numbers = ray.remote(_nothing), range(evaluations)
        points = dict.fromkeys(numbers, 1.0)

        def over(staff: RayEvaluator) -> Callable[[], object]:
            return lambda: list(staff(_nothing, points, _never))

        plain = _seconds(lambda: ray.get([bare.remote(1.0) for _ in numbers]), repeats)
        ours = _seconds(over(RayEvaluator()), repeats)
        timed = _seconds(over(RayEvaluator(eval_timeout=60.0)), repeats)
    finally:
        if took != "there":
            ray_head.end()
    return [
        Row("time of an empty evaluation / a bare task of Ray", "<= 2", ours / plain, ours <= 2 * plain, _SOURCE),
        Row("the same with eval_timeout", "<= 4", timed / plain, timed <= 4 * plain, _SOURCE),
        Row(
            "milliseconds for an empty evaluation", "<= 5", 1e3 * ours / evaluations, ours <= 5e-3 * evaluations,
            "this machine",
        ),
    ]  # fmt: skip
