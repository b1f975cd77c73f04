"""What ``workers`` means."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.oracles.outcomes import Evaluator
from dfo.run.validate import check_count, check_positive

__all__ = ["Staff", "evaluator_of"]

_EXPECTED = "expected a number of processes, 'threads', 'threads:8', 'ray', an executor or a map-like function"


class Staff(Evaluator, Protocol):
    """An evaluator that can be asked whether it takes an objective, and closed."""

    def check(self, call: Callable[[Any], Any]) -> None:
        """Refuse an objective that it cannot evaluate, before anything starts."""
        ...

    def close(self) -> None:
        """End what it started; a second time does nothing."""
        ...


def evaluator_of(
    workers: Any, call: Callable[[Any], Any], *, eval_timeout: float | None = None, retries: int = 1,
    start: str | None = None, grace: float = 5.0,
) -> Staff | None:  # fmt: skip
    """Return who evaluates, or None for this process, one point after the other.

    Args:
        workers: None or 1; a number of processes; ``"threads"``, ``"threads:8"`` or ``("threads", 8)``; an executor of
            ``concurrent.futures``; a ``map``-like function; ``"ray"`` or ``"ray://host:port"``.
        call: the objective.
        eval_timeout: seconds for one evaluation; processes and Ray only, which can be interrupted.
        retries: how often an evaluation is made again whose process died.
        start: how processes start, ``"spawn"`` or ``"fork"``.
        grace: seconds that evaluations under way get when the run is to end.

    Raises:
        InvalidType: ``workers`` is nothing of the kind, or the objective cannot be sent.
        InvalidArgument: fewer than one worker, a time limit or a number of retries that cannot be.

    Example:
        >>> evaluator_of(None, abs) is None, evaluator_of("threads:3", abs)
        (True, Threads(3))
    """
    check_positive("eval_timeout", eval_timeout)
    retries = check_count("retries", retries, 0) or 0
    if not 0 <= grace < math.inf:
        raise InvalidArgument(f"grace: expected seconds >= 0, got {grace!r}.")
    if _is_ray(workers):
        from dfo.run.crew.ray import RayEvaluator

        found: Staff = RayEvaluator(workers, eval_timeout=eval_timeout, retries=retries, grace=grace)
    elif workers is None or not (callable(workers) or isinstance(workers, (str, tuple, Executor))):
        if not isinstance(workers, (int, float, np.number, type(None))):
            raise InvalidType(f"workers: {_EXPECTED}, got {short(workers)}.")
        size = check_count("workers", workers, 1) or 1
        if size == 1 and eval_timeout is None:
            return None
        from dfo.run.crew.crew import Crew

        found = Crew(size, eval_timeout=eval_timeout, retries=retries, start=start, grace=grace)
    else:
        found = _door(workers, eval_timeout, grace)
    found.check(call)
    return found


def _is_ray(workers: Any) -> bool:
    if isinstance(workers, str):
        return workers == "ray" or workers.startswith("ray://")
    return type(workers).__module__ == "dfo.run.crew.ray"


def _door(workers: Any, eval_timeout: float | None, grace: float) -> Staff:
    from dfo.run.crew.doors import Mapped, Submitted, Threads

    found: Staff
    if isinstance(workers, type):
        raise InvalidType(f"workers: {_EXPECTED}, got the class {workers.__name__}; pass an instance.")
    if isinstance(workers, (str, tuple)):
        found = Threads(_threads(workers), grace=grace)
    elif isinstance(workers, Executor):
        found = Submitted(workers, grace=grace)
    else:
        found = Mapped(workers)
    if eval_timeout is not None:
        raise InvalidArgument(
            f"eval_timeout={eval_timeout:g}: workers={short(workers)} cannot interrupt an evaluation;"
            " pass a number of processes (workers=1 will do), or let the objective watch its time."
        )
    return found


def _threads(workers: str | tuple[Any, ...]) -> int:
    """Return the number of threads that was asked for.

    Raises:
        InvalidType: something else was asked for.
        InvalidArgument: fewer than one.
    """
    name, *sizes = workers.split(":") if isinstance(workers, str) else workers
    if name != "threads" or len(sizes) > 1:
        raise InvalidType(f"workers: {_EXPECTED}, got {short(workers)}.")
    size = sizes[0] if sizes else min(32, (os.cpu_count() or 1) + 4)
    return check_count("workers", int(size) if isinstance(size, str) and size.isdecimal() else size, 1) or 1
