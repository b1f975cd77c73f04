"""Reasons to end a run, combined with ``|``.

Example:
    >>> import dfo
    >>> stop = dfo.Target(1e-8) | dfo.Stalled(2_000) | dfo.MaxTime("10m")
    >>> res = dfo.minimize(lambda x: float(x @ x), [3.0, 1.0], method="cma", budget=10_000, stop=stop)
    >>> res.status
    'target'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.protocols import Progress, Stop

__all__ = ["AnyOf", "MaxEvals", "MaxSteps", "MaxTime", "Stalled", "Target", "seconds"]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any, name: str = "timeout") -> float:
    """Return a duration in seconds from a number, or a string such as ``"90s"``, ``"10m"``, ``"1.5h"``.

    Raises:
        InvalidArgument: the duration is negative, NaN or unreadable.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s|m|h|d)\s*", value)
        try:
            if match is None:
                raise ValueError
            return float(match[1]) * _UNITS[match[2]]
        except ValueError:
            raise InvalidArgument(f'{name}: expected seconds or a text such as "10m", got {short(value)}.') from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidType(f'{name}: expected seconds or a text such as "10m", got {short(value)}.')
    if not value >= 0:
        raise InvalidArgument(f"{name}: expected seconds >= 0, got {value!r}.")
    return float(value)


class _Combines:
    def __or__(self, other: Stop) -> AnyOf:
        return AnyOf((*_parts(self), *_parts(other)))


def _parts(stop: Any) -> tuple[Any, ...]:
    return stop.stops if isinstance(stop, AnyOf) else (stop,)


@dataclass(frozen=True)
class AnyOf(_Combines):
    """Ends the run when one of several stops does.

    Args:
        stops: the stops, asked in order.
    """

    stops: tuple[Any, ...]

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return the first reason."""
        for stop in self.stops:
            reason: tuple[str, str] | None = stop(progress)
            if reason is not None:
                return reason
        return None


@dataclass(frozen=True)
class MaxEvals(_Combines):
    """Grants a number of evaluations; the same hard budget as ``budget=``.

    Args:
        n: evaluations, at least 0.
    """

    n: int

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return the reason once ``n`` evaluations are spent."""
        return ("budget", f"The evaluation budget of {self.n} is spent.") if progress.nfev >= self.n else None


@dataclass(frozen=True)
class MaxSteps(_Combines):
    """Grants a number of steps (batches; scipy's ``maxiter``).

    Args:
        n: steps, at least 0.
    """

    n: int

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return the reason once ``n`` steps are done."""
        return ("steps", f"The {self.n} steps granted are done.") if progress.step >= self.n else None


@dataclass(frozen=True)
class MaxTime(_Combines):
    """Grants a wall-clock time; the evaluation in progress is finished.

    Args:
        limit: seconds, or a text such as ``"10m"``.
    """

    limit: float | str

    def __post_init__(self) -> None:
        seconds(self.limit, "MaxTime")

    @property
    def limit_seconds(self) -> float:
        """The limit in seconds."""
        return seconds(self.limit)

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return the reason once the time is over."""
        if progress.seconds >= self.limit_seconds:
            return "time", f"The time granted ({self.limit_seconds:g} s) is over."
        return None


@dataclass(frozen=True)
class Target(_Combines):
    """Ends the run at the first feasible value at or below ``value``, within a batch too.

    Args:
        value: the target.
    """

    value: float

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return the reason once the target is reached."""
        if progress.best_fun <= self.value:
            return "target", f"The target {self.value:g} was reached."
        return None


@dataclass(frozen=True)
class Stalled(_Combines):
    """Ends the run when the lowest value has not fallen for a number of evaluations.

    Args:
        n: evaluations without a new lowest value.
    """

    n: int

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return the reason once the run has stalled."""
        if progress.stalled >= self.n:
            return "stagnation", f"The lowest value has not fallen for {progress.stalled} evaluations."
        return None
