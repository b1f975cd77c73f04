"""Evaluate the members of a batch at the same time: processes, an executor, or any map-like function."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any, TypeAlias

from dfo.errors import InvalidType, short
from dfo.run.validate import check_count

__all__ = ["Mapper", "mapper_of"]

Mapper: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class _Pool:
    """A process pool that opens at the first batch and closes with its owner."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, call: Callable[[Any], Any], points: Iterable[Any]) -> Iterable[Any]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers)
        return self._pool.map(call, points)

    def __del__(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def mapper_of(workers: Any, fun: Any) -> Mapper | None:
    """Return how to evaluate a batch in parallel, or None for one point after the other.

    Raises:
        InvalidType: ``workers`` is nothing of the kind, or the objective cannot be sent to a process.
        InvalidArgument: fewer than one worker.
    """
    if workers is None or (isinstance(workers, int) and not isinstance(workers, bool) and workers == 1):
        return None
    if isinstance(workers, Executor):
        return workers.map
    if callable(workers):
        mapper: Mapper = workers
        return mapper
    if isinstance(workers, str):
        raise InvalidType(f"workers: expected a number, a map-like function or an executor, got {short(workers)}.")
    count = check_count("workers", workers, 1)
    try:
        pickle.dumps(fun)
    except Exception as error:
        raise InvalidType(
            f"workers={count}: the objective {short(fun)} cannot be sent to a process ({error})."
            " Define it at the top of a module, or pass workers=ThreadPoolExecutor(n)."
        ) from None
    return _Pool(count or 1)


def evaluator_of(workers: Any, call: Any, *, eval_timeout: float | None = None, retries: int = 1) -> Any:
    """Return an evaluator around a map; replaced by the crew."""
    mapper = mapper_of(workers, call)
    if mapper is None:
        return None

    def evaluate(call: Any, points: Any, halted: Any) -> Any:
        yield from zip(points, mapper(call, list(points.values())), strict=True)

    return evaluate
