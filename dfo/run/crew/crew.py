"""A crew: worker processes that we own, watch and replace."""

from __future__ import annotations

import os
import selectors
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dfo.errors import InvalidType, NoWorkers
from dfo.oracles.outcomes import Failed
from dfo.run.crew.process import Process, check_start, fork, spawn
from dfo.run.crew.wire import ANSWER, BROKEN, OBJECTIVE, POINT, QUICK, READY, dumps, loads, pack

__all__ = ["Crew"]

Call = Callable[[Any], Any]

_LOOK = 0.1  # seconds between looks at what no pipe tells: a halt, a process that left its pipe to a child
_PATIENCE = 1.0  # seconds that an idle worker gets to leave by itself
_BEGIN = 120.0  # seconds for a worker to start and to load the objective
_STILLBORN = 3  # workers that may die in a row before one is ready; then those there are do the work


class Crew:
    """Evaluates in processes of its own; they start with the first points and stay until :meth:`close`.

    A worker that dies is replaced, and its evaluation made again ``retries`` times on a fresh one; what kills every
    time is a failed evaluation. An evaluation past ``eval_timeout`` is killed, whatever it does, with what it started.

    Args:
        size: number of processes.
        eval_timeout: seconds for one evaluation, or None.
        retries: how often an evaluation is made again whose process died.
        start: ``"spawn"`` (a fresh interpreter, the default) or ``"fork"`` (a copy of this process: starts faster and
            sends nothing, but is refused where threads run or CUDA is in use).
        grace: seconds that evaluations under way get when the run is to end.

    Raises:
        InvalidArgument: processes cannot be started that way here.

    Example:
        >>> crew = Crew(2)
        >>> sorted(crew(abs, {0: -1.0, 1: 2.0}, lambda: False))  # they come as they end
        [(0, 1.0), (1, 2.0)]
        >>> crew.close()
    """

    def __init__(
        self, size: int, *, eval_timeout: float | None = None, retries: int = 1, start: str | None = None,
        grace: float = 5.0,
    ) -> None:  # fmt: skip
        self.size, self.eval_timeout, self.retries, self.grace = size, eval_timeout, retries, grace
        self.start = start or "spawn"
        check_start(self.start)
        self.retried: Callable[[int, str], None] = _nobody
        """Called with (number, how its worker ended) when an evaluation is made again."""
        self._team: list[Process] = []
        self._call: Call | None = None
        self._body = b""
        self._version = 0
        self._stillborn = 0
        self._serving = False
        self._selector = selectors.PollSelector()
        self._close = weakref.finalize(self, _disband, self._team, os.getpid())

    def __repr__(self) -> str:
        limit = "" if self.eval_timeout is None else f", eval_timeout={self.eval_timeout:g}"
        return f"Crew({self.size}, start={self.start!r}{limit}, retries={self.retries})"

    def check(self, call: Call) -> None:
        """Refuse an objective that cannot be sent, before any worker starts.

        Raises:
            InvalidType: it cannot be sent; says why and what to do.
        """
        if call is self._call:
            return
        self._body = b"" if self.start == "fork" else pack(call)
        self._call = call
        self._version += 1

    def close(self) -> None:
        """End every worker. Done by itself when the crew is forgotten or the interpreter exits."""
        self._close()
        self._selector.close()

    def __call__(self, call: Call, points: Mapping[int, Any], halted: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        """Yield ``(number, outcome)`` as evaluations end.

        Args:
            call: the objective; sent to each worker once.
            points: by number.
            halted: asked ten times a second; when true, what is under way gets the grace and no more.

        Raises:
            NoWorkers: processes die before they are ready, or the crew is closed.
            InvalidType: the objective cannot be sent, or cannot be loaded at the other end.
        """
        if not self._close.alive:
            raise NoWorkers("workers: this crew is closed; make another.")
        if self._serving:
            raise NoWorkers("workers: this crew serves another call; exhaust or close its iterator first.")
        self.check(call)
        self._serving = True
        batch = _Batch(self, points)
        try:
            yield from batch.run(halted)
        finally:
            self._serving = False
            for process in [p for p in self._team if p.jobs]:
                self.drop(process)

    # ------------------------------------------------------------------ the team, as a batch uses it

    @property
    def team(self) -> list[Process]:
        """The processes there are."""
        return self._team

    def fill(self, wanted: int) -> None:
        """Start processes until there are ``wanted``, at most ``size``; bring the objective to those without it."""
        for process in [p for p in self._team if p.version != self._version and not p.jobs]:
            if self.start == "fork":
                self.drop(process)
            else:
                self._brief(process)
        while len(self._team) < min(wanted, self.size):
            if self._stillborn >= _STILLBORN and self._team:  # fewer will do
                return
            try:
                self._add()
            except OSError as error:
                if self._team:
                    return
                raise NoWorkers(f"workers: the system starts no process ({error}); are there too many?") from error

    def _add(self) -> None:
        if self.start == "fork":
            assert self._call is not None
            process = fork(self._call, self._version)
        else:
            process = spawn()
            self._brief(process)
        self._team.append(process)
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        self.watch(process)

    def _brief(self, process: Process) -> None:
        process.version, process.ready, process.since = self._version, False, time.monotonic()
        process.send(OBJECTIVE, 0, self._body)

    def watch(self, process: Process) -> None:
        """Wait for what ``process`` says, and for room in its pipe while something is to be sent."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.waits else 0)
        if self._selector.get_key(process.channel).events != events:
            self._selector.modify(process.channel, events, process)

    def heard(self, timeout: float) -> list[Process]:
        """Wait until processes say something, at most ``timeout`` seconds; send what waits."""
        heard: list[Process] = []
        for key, events in self._selector.select(timeout):
            process: Process = key.data
            if events & selectors.EVENT_WRITE:
                process.flush()
                self.watch(process)
            if events & selectors.EVENT_READ:
                heard.append(process)
        return heard

    def drop(self, process: Process, patience: float = 0.0) -> str:
        """End a process and forget it; return how it ended."""
        self._selector.unregister(process.channel)
        self._team.remove(process)
        return process.end(patience)

    def born(self, process: Process) -> None:
        """A process has its objective."""
        process.ready = True
        self._stillborn = 0

    def stillborn(self, how: str) -> None:
        """A process died before it was ready.

        Raises:
            NoWorkers: several in a row did, and none is left.
        """
        self._stillborn += 1
        if self._stillborn >= _STILLBORN and not any(p.ready for p in self._team):
            raise NoWorkers(
                f"workers: {self._stillborn} processes in a row ended before they could take work ({how});"
                " what they said is on stderr. Is there memory for them, and can the objective's module be imported"
                " twice? workers='threads' needs no processes."
            )


class _Batch:
    """The points of one call on their way through a crew."""

    def __init__(self, crew: Crew, points: Mapping[int, Any]) -> None:
        self.crew = crew
        self.waiting: deque[tuple[int, Any]] = deque(points.items())
        self.deaths: Counter[int] = Counter()
        self.until: float | None = None  # when the grace ends
        self._looked = time.monotonic()

    def run(self, halted: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        done: list[tuple[int, Any]] = []
        while True:
            if self.until is None and halted():
                self.until = time.monotonic() + self.crew.grace
                self.waiting.clear()
            yield from done  # kept by the ledger before their processes get more: no more is in flight than there are
            self._hand_out()
            busy = sum(bool(p.jobs) for p in self.crew.team)
            if not (self.waiting or busy) or (self.until is not None and time.monotonic() >= self.until):
                return
            done = self._gather()

    def _hand_out(self) -> None:
        if not self.waiting:
            return
        crew = self.crew
        crew.fill(len(self.waiting) + sum(bool(p.jobs) for p in crew.team))
        for process in [p for p in crew.team if p.ready and not p.jobs]:
            if not self.waiting:
                return
            if process.ended():  # between two evaluations, by nobody's fault
                crew.drop(process)
                continue
            process.since = time.monotonic()
            self._give(process)
        for process in crew.team:  # all have one; the quick get the next before they ask
            if process.quick and len(process.jobs) == 1 and len(self.waiting) > crew.size:
                self._give(process)

    def _give(self, process: Process) -> None:
        number, point = job = self.waiting.popleft()
        process.jobs.append(job)
        process.send(POINT, number, dumps(point))
        self.crew.watch(process)

    def _gather(self) -> list[tuple[int, Any]]:
        done: list[tuple[int, Any]] = []
        for process in self.crew.heard(self._patience()):
            frames, more = process.receive()
            for frame in frames:
                done += self._hear(process, *frame)
            if not more:
                done += self._lost(process)
        done += self._late()
        if time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            for process in [p for p in self.crew.team if p.ended()]:
                done += self._lost(process)
        return done

    def _patience(self) -> float:
        limit = self.crew.eval_timeout
        if limit is None:
            return _LOOK
        first = min((p.since for p in self.crew.team if p.jobs), default=time.monotonic())
        return min(_LOOK, max(0.0, first + limit - time.monotonic()))

    def _hear(self, process: Process, tag: int, number: int, body: bytes) -> list[tuple[int, Any]]:
        if tag == READY:
            self.crew.born(process)
        elif tag in (ANSWER, QUICK):
            process.quick, process.since = tag == QUICK, time.monotonic()
            process.jobs.popleft()
            return [(number, loads(body).outcome)]
        elif tag == BROKEN:
            said, trace = loads(body)
            error = InvalidType(
                f"workers: the objective cannot be sent to a process: it cannot be loaded there ({said})."
                " Define it in a module that can be imported, or pass workers='threads'."
            )
            error.add_note(f"In the worker:\n{trace.rstrip()}")
            raise error
        return []

    def _late(self) -> list[tuple[int, Any]]:
        crew, done = self.crew, []
        limit, now = crew.eval_timeout, time.monotonic()
        for process in list(crew.team):
            if not process.jobs:
                if not process.ready and now - process.since > _BEGIN:
                    crew.stillborn(f"not ready after {_BEGIN:g} s, {crew.drop(process)}")
            elif limit is not None and now - process.since >= limit:
                crew.drop(process)
                done.append((self._first(process)[0], Failed("timeout", f"no value within {limit:g} s")))
        return done

    def _lost(self, process: Process) -> list[tuple[int, Any]]:
        """A process is gone: make its evaluation again, or give it up."""
        how = self.crew.drop(process, patience=_PATIENCE)
        if not process.jobs:
            if not process.ready:
                self.crew.stillborn(how)
            return []
        number, point = self._first(process)
        self.deaths[number] += 1
        if self.deaths[number] > self.crew.retries:
            return [(number, Failed("died", how))]
        if self.until is None:
            self.waiting.appendleft((number, point))
            self.crew.retried(number, how)
        return []

    def _first(self, process: Process) -> tuple[int, Any]:
        """Return what a lost process worked on; what it had not begun waits again."""
        first = process.jobs.popleft()
        if self.until is None:
            self.waiting.extendleft(reversed(process.jobs))
        return first


def _nobody(number: int, how: str) -> None:
    """Take no note."""


def _disband(team: list[Process], owner: int) -> None:
    """End all processes of a team, unless this is a fork of their owner."""
    if os.getpid() != owner:
        return
    for process in team:
        process.channel.close()  # all leave at the same time
    end = time.monotonic() + _PATIENCE
    while team:
        process = team.pop()
        process.end(0.0 if process.jobs or not process.ready else max(0.0, end - time.monotonic()))
