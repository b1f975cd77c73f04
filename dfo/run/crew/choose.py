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

_KINDS = ("threads", "spawn", "fork")
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
            ``concurrent.futures``; a ``map``-like function; ``"ray"``, ``"ray://host:port"``, ``"ray:auto"`` or a
            :class:`~dfo.Ray`.
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
        from dfo.run.crew.ray import ray_evaluator

        found: Staff = ray_evaluator(workers, eval_timeout=eval_timeout, retries=retries, grace=grace)
    elif callable(workers) or isinstance(workers, Executor):
        found = _others(workers, grace)
    else:
        kind, size = _kind_and_size(workers)
        if kind == "threads":
            from dfo.run.crew.doors import Threads

            found = Threads(size, grace=grace)
        elif size == 1 and eval_timeout is None and kind == "":
            return None
        else:
            from dfo.run.crew.crew import Crew

            found = Crew(size, eval_timeout=eval_timeout, retries=retries, start=kind or start, grace=grace)
    if eval_timeout is not None and type(found).__module__ == "dfo.run.crew.doors":
        raise InvalidArgument(
            f"eval_timeout={eval_timeout:g}: workers={short(workers)} cannot interrupt an evaluation;"
            " pass a number of processes (workers=1 will do), or let the objective watch its time."
        )
    found.check(call)
    return found


def _is_ray(workers: Any) -> bool:
    if isinstance(workers, str):
        return workers.partition(":")[0] == "ray"
    return any(base.__module__ == "dfo.run.crew.ray" for base in type(workers).__mro__)


def _others(workers: Any, grace: float) -> Staff:
    from dfo.run.crew.doors import Mapped, Submitted

    if isinstance(workers, type) and issubclass(workers, Executor):
        raise InvalidType(f"workers: {_EXPECTED}, got the class {workers.__name__}; pass an instance.")
    return Submitted(workers, grace=grace) if isinstance(workers, Executor) else Mapped(workers)


def _kind_and_size(workers: Any) -> tuple[str, int]:
    """Return ``"threads"``, ``"spawn"``, ``"fork"`` or, for a number alone, ``""``; and how many.

    Raises:
        InvalidType: it is something else.
        InvalidArgument: fewer than one.
    """
    if isinstance(workers, (int, float, np.number, type(None))):
        return "", check_count("workers", workers, 1) or 1
    parts = workers.split(":") if isinstance(workers, str) else workers if isinstance(workers, tuple) else ()
    if len(parts) not in (1, 2) or parts[0] not in _KINDS:
        raise InvalidType(f"workers: {_EXPECTED}, got {short(workers)}.")
    cores = os.cpu_count() or 1
    size = parts[1] if len(parts) == 2 else min(32, cores + 4) if parts[0] == "threads" else cores
    return parts[0], check_count("workers", int(size) if isinstance(size, str) and size.isdecimal() else size, 1) or 1
