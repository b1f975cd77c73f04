"""Evaluators that others run: threads, executors of ``concurrent.futures``, map-like functions."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import Any

from dfo.errors import InvalidType, NoWorkers, short
from dfo.oracles.outcomes import Failed
from dfo.run.crew.wire import Parcel, attempt, pack

__all__ = ["Mapped", "Submitted", "Threads"]

Call = Callable[[Any], Any]

_LOOK = 0.1  # seconds between two questions whether to halt


class Threads:
    """Evaluates in threads of this process: for objectives that wait, for a server or another program.

    Nothing is sent, so any function will do; a thread cannot be interrupted.

    Args:
        size: number of threads.
        grace: seconds that evaluations under way get when the run is to end.

    Example:
        >>> dict(Threads(2)(abs, {0: -1.0}, lambda: False))
        {0: 1.0}
    """

    def __init__(self, size: int, *, grace: float = 5.0) -> None:
        self.size, self.grace = size, grace

    def __repr__(self) -> str:
        return f"Threads({self.size})"

    def check(self, call: Call) -> None:
        """Accept any objective."""

    def close(self) -> None:
        """Nothing stays open: the threads of a call end with it."""

    def __call__(self, call: Call, points: Mapping[int, Any], halted: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        """Yield ``(number, outcome)`` as evaluations end; those that outlive the grace are left to themselves."""
        waiting: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for item in points.items():
            waiting.put(item)
        stop = threading.Event()
        started: list[int] = []

        def work() -> None:
            while not stop.is_set():
                try:
                    number, point = waiting.get_nowait()
                except queue.Empty:
                    return
                started.append(number)
                done.put((number, attempt(call, point)))

        if not halted():
            for i in range(min(self.size, len(points))):
                threading.Thread(target=work, name=f"dfo-{i}", daemon=True).start()
        else:
            stop.set()
        try:
            yield from self._collect(len(points), started, done, stop, halted)
        finally:
            stop.set()

    def _collect(
        self, total: int, started: list[int], done: queue.SimpleQueue[tuple[int, Any]], stop: threading.Event,
        halted: Callable[[], bool],
    ) -> Iterator[tuple[int, Any]]:  # fmt: skip
        count, until = 0, None
        while count < (total if until is None else len(started)):
            if until is None and (stop.is_set() or halted()):
                stop.set()
                until = time.monotonic() + self.grace
                continue
            try:
                item = done.get(timeout=_LOOK)
            except queue.Empty:
                if until is not None and time.monotonic() >= until:
                    return
                continue
            count += 1
            yield item


class _Sent:
    """The objective as others call it: its outcome can be pickled, and raises nothing."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def __call__(self, point: Any) -> Parcel:
        return Parcel(attempt(self.call, point))


def _outcome(parcel: Any) -> Any:
    return parcel.outcome if isinstance(parcel, Parcel) else parcel


class Submitted:
    """Evaluates with an executor of ``concurrent.futures``; it stays the caller's, who closes it.

    Args:
        executor: threads, processes, a cluster's client.
        grace: seconds that evaluations under way get when the run is to end.
    """

    def __init__(self, executor: Executor, *, grace: float = 5.0) -> None:
        self.executor, self.grace = executor, grace

    def __repr__(self) -> str:
        return f"Submitted({short(self.executor)})"

    def check(self, call: Call) -> None:
        """Refuse an objective that a pool of processes cannot be sent.

        Raises:
            InvalidType: it cannot be pickled.
        """
        if isinstance(self.executor, ProcessPoolExecutor):
            pack(call, by_value=False)

    def close(self) -> None:
        """Leave the executor open: it is the caller's."""

    def __call__(self, call: Call, points: Mapping[int, Any], halted: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        """Yield ``(number, outcome)`` as evaluations end; when halted, those not begun are cancelled.

        Raises:
            NoWorkers: the executor is broken or shut down.
        """
        if halted():
            return
        sent, waiting = _Sent(call), {}
        try:
            for number, point in points.items():
                waiting[self._submit(sent, point)] = number
            yield from self._collect(waiting, halted)
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, sent: _Sent, point: Any) -> Future[Any]:
        try:
            return self.executor.submit(sent, point)
        except RuntimeError as error:  # broken, or shut down
            raise NoWorkers(f"workers: {short(self.executor)} takes no work: {error}") from error

    def _collect(self, waiting: dict[Future[Any], int], halted: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        until: float | None = None
        while waiting:
            if until is None and halted():
                until = time.monotonic() + self.grace
                for future in [f for f in waiting if f.cancel()]:
                    del waiting[future]
            ready = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED).done
            if not ready and until is not None and time.monotonic() >= until:
                return
            for future in sorted(ready, key=waiting.__getitem__):
                yield waiting.pop(future), self._result(future)

    def _result(self, future: Future[Any]) -> Any:
        try:
            return _outcome(future.result())
        except CancelledError as error:
            raise NoWorkers(f"workers: {short(self.executor)} cancelled an evaluation.") from error
        except BrokenExecutor as error:
            raise NoWorkers(f"workers: {short(self.executor)} broke down: {error}") from error
        except Exception as error:  # the point or the answer could not be sent
            return Failed("raised", f"{type(error).__name__}: {error}", error)


class Mapped:
    """Evaluates with a function that works as ``map`` does: results in order, one for each point.

    Args:
        mapper: the function.
    """

    def __init__(self, mapper: Callable[[Call, Iterable[Any]], Iterable[Any]]) -> None:
        self.mapper = mapper

    def __repr__(self) -> str:
        return f"Mapped({short(self.mapper)})"

    def check(self, call: Call) -> None:
        """Accept any objective: only the function knows what it can send."""

    def close(self) -> None:
        """Nothing is ours to close."""

    def __call__(self, call: Call, points: Mapping[int, Any], halted: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        """Yield ``(number, outcome)`` in the order of the points.

        Raises:
            InvalidType: what came back is no sequence of one result for each point.
        """
        if halted():
            return
        results = self.mapper(_Sent(call), list(points.values()))
        try:
            answers = iter(results)
        except TypeError:
            raise InvalidType(
                f"workers: {short(self.mapper)} is no map: it returned {short(results)}, expected one result a point."
            ) from None
        for count, number in enumerate(points):
            try:
                answer = next(answers)
            except StopIteration:
                raise InvalidType(
                    f"workers: {short(self.mapper)} returned {count} results for {len(points)} points."
                ) from None
            yield number, _outcome(answer)
            if halted():
                return
