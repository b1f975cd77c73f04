"""Ctrl-C and SIGTERM: the first ends the run after the evaluation in progress, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interruptible"]

_Handler = Callable[[int, FrameType | None], Any]


class Interruptible:
    """Context in which the first SIGINT or SIGTERM sets ``requested`` instead of raising.

    Runs nest: an interrupt during an inner run ends the outer one too. Outside the main thread, or where
    a signal is ignored or handled by somebody else's code than Python's default, nothing is changed.
    """

    _stack: list[Interruptible] = []  # noqa: RUF012  (the one process-wide list of open runs in the main thread)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is not threading.main_thread():
            return self
        if not Interruptible._stack:
            for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) is default:
                    self._before[number] = signal.signal(number, _handle)
        Interruptible._stack.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self in Interruptible._stack:
            Interruptible._stack.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    runs = Interruptible._stack
    if not runs or any(run.requested for run in runs):
        raise KeyboardInterrupt
    for run in runs:
        run.requested = True
