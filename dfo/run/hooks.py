"""Things to do after every step: a hook is any ``hook(progress) -> None``.

Raising ``StopIteration`` ends the run; returning something true is an error, because whoever writes
``return True`` to stop would wait for ever.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import numpy as np

from dfo.arrays import Array, copy, is_array, to_numpy
from dfo.errors import InvalidType, short
from dfo.feedback import Values
from dfo.protocols import Hook, Progress

__all__ = ["Print", "Record", "as_hooks"]


class Print:
    """Prints a line now and then: evaluations, seconds, lowest value, gauges.

    Args:
        every: seconds between lines.
        file: where to; standard error by default.
    """

    def __init__(self, every: float = 1.0, file: TextIO | None = None) -> None:
        self.every, self.file, self._next = every, file, 0.0

    def __call__(self, progress: Progress) -> None:
        """Print a line if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.every
        gauges = "  ".join(f"{name} {value:.3g}" for name, value in progress.gauges().items())
        line = f"{progress.nfev:>9} evaluations  {progress.seconds:8.1f} s  best {progress.best_fun:.8g}  {gauges}"
        print(line.rstrip(), file=self.file or sys.stderr)


class Record:
    """Keeps every evaluated batch: points and values.

    Example:
        >>> import dfo
        >>> record = dfo.Record()
        >>> res = dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cma", budget=60, callback=record)
        >>> record.X.shape[1], record.X.shape[0] == record.f.shape[0]
        (2, True)
    """

    def __init__(self) -> None:
        self.points: list[Any] = []
        self._values: list[Array] = []

    def __call__(self, progress: Progress) -> None:
        """Copy the batch of this step."""
        batch = progress.points()
        if batch is not None and isinstance(progress.told, Values):
            self.points += [batch.member(i) for i in range(len(batch))]
            self._values.append(np.array(progress.told.f))

    @property
    def X(self) -> Array:  # noqa: N802
        """``(n, d)`` points; for points that are no vectors take ``points``, a list."""
        return np.array([to_numpy(x) for x in self.points]) if self.points else np.empty((0, 0))

    @property
    def f(self) -> Array:
        """``(n,)`` values."""
        return np.concatenate(self._values) if self._values else np.empty(0)


def as_hooks(callback: Any) -> tuple[Hook, ...]:
    """Return the hooks that a user's ``callback`` stands for.

    One callable or a list of them. As in scipy, a callable whose only parameter is called
    ``intermediate_result`` gets the progress by that name, and one whose parameter is called ``xk`` or
    ``x`` gets the lowest point.

    Raises:
        InvalidType: something is not callable.
    """
    if callback is None:
        return ()
    several = callback if isinstance(callback, Sequence) else (callback,)
    return tuple(_as_hook(one) for one in several)


def _as_hook(callback: Any) -> Hook:
    if not callable(callback):
        raise InvalidType(f"callback: expected a function of the progress, got {short(callback)}.")
    names = _parameters(callback)
    if names == ["intermediate_result"]:
        return _checked(lambda progress: callback(intermediate_result=progress), callback)
    if names and names[0] in ("xk", "x", "x0"):
        return _checked(lambda progress: callback(_own(progress.best_x)), callback)
    return _checked(callback, callback)


def _own(x: Any) -> Any:
    """Return a copy that the callback may keep or change."""
    if is_array(x):
        return copy(x)
    return dict(x) if isinstance(x, dict) else x


def _parameters(callback: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(callback).parameters)
    except (TypeError, ValueError):
        return []


def _checked(call: Callable[[Progress], Any], callback: object) -> Hook:
    def hook(progress: Progress) -> None:
        answer = call(progress)
        if answer is not None and not isinstance(answer, np.ndarray) and answer:
            raise InvalidType(
                f"callback {short(callback)} returned {short(answer)}: what a hook returns is not used."
                " Raise StopIteration to end the run."
            )

    return hook
