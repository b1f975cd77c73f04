"""A worker as its owner holds it: how it is started, talked to, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from dfo.errors import InvalidArgument
from dfo.run.crew.wire import HEADER
from dfo.run.crew.worker import THREADS, become

__all__ = ["STARTS", "Process", "check_start", "fork", "spawn"]

STARTS = ("spawn", "fork")
"""How a worker begins: as a fresh interpreter, or as a copy of this process."""

_PIECE = 1 << 18


class Process:
    """One worker process.

    Args:
        pid: of the process; it leads a process group of its own.
        channel: our end of its socket.
        lifeline: our end of the pipe that it dies with.
        version: number of the objective that it has.
    """

    def __init__(self, pid: int, channel: socket.socket, lifeline: int, version: int = 0) -> None:
        channel.setblocking(False)
        self.pid, self.channel, self.lifeline, self.version = pid, channel, lifeline, version
        self.ready = False  # has the objective and waits for points, or works on one
        self.jobs: deque[tuple[int, Any]] = deque()  # the first is under way; a second waits in the pipe
        self.quick = False  # its last evaluation took less than a round trip is worth
        self.since = time.monotonic()  # when the evaluation under way, or the start of the process, began
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._status: str | None = None
        _HELD.add(self)

    def send(self, tag: int, number: int, body: bytes) -> None:
        """Send a frame as far as the pipe takes it; :meth:`flush` sends the rest."""
        header = HEADER.pack(tag, number, len(body))
        if len(body) < _PIECE:
            self._out.append(memoryview(header + body))
        else:
            self._out += (memoryview(header), memoryview(body))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the pipe takes it."""
        try:
            while self._out:
                sent = self.channel.send(self._out[0])
                if sent == len(self._out[0]):
                    self._out.popleft()
                else:
                    self._out[0] = self._out[0][sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # it died; reading will tell
            self._out.clear()

    @property
    def waits(self) -> bool:
        """Part of a frame waits to be sent."""
        return bool(self._out)

    def receive(self) -> tuple[list[tuple[int, int, bytes]], bool]:
        """Return the frames that have come, and whether more can."""
        open_ = True
        try:
            while piece := self.channel.recv(_PIECE):
                self._in += piece
                if len(piece) < _PIECE:
                    break
            else:
                open_ = False
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            open_ = False
        return self._frames(), open_

    def _frames(self) -> list[tuple[int, int, bytes]]:
        frames, begin = [], 0
        while len(self._in) - begin >= HEADER.size:
            tag, number, size = HEADER.unpack_from(self._in, begin)
            end = begin + HEADER.size + size
            if len(self._in) < end:
                break
            frames.append((tag, number, bytes(memoryview(self._in)[begin + HEADER.size : end])))
            begin = end
        if begin:
            self._in = self._in[begin:]
        return frames

    def ended(self) -> bool:
        """Tell whether the process is gone. It is not reaped: until then nobody else can get its number."""
        if self._status is not None:
            return True
        try:
            if hasattr(os, "waitid"):
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            self._reap()
        except ChildProcessError:  # somebody else reaped it
            self._status = "exit status unknown"
        return self._status is not None

    def end(self, patience: float = 0.0) -> str:
        """End the process and all of its group; return how it ended: ``"exit status 3"``, ``"killed by SIGKILL"``.

        Args:
            patience: seconds to wait for it to leave by itself.
        """
        self.channel.close()
        _until(self.ended, patience)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:  # it has no group any more, or not yet
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        _until(self.ended, 5.0)
        if self._status is None:
            try:
                self._reap()
            except ChildProcessError:
                self._status = "exit status unknown"
        self.release()
        return self._status or "cannot be killed"

    def _reap(self) -> None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self._status = f"exit status {code}" if code >= 0 else f"killed by {_signal(-code)}"

    def release(self) -> None:
        """Close our ends of its pipes, as this process or as a fork of it."""
        self.channel.close()
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1
        _HELD.discard(self)


_HELD: weakref.WeakSet[Process] = weakref.WeakSet()


def _release_all() -> None:
    for process in list(_HELD):
        process.release()


if hasattr(os, "register_at_fork"):  # a fork of this process must not keep the workers' pipes open
    os.register_at_fork(after_in_child=_release_all)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _until(condition: Callable[[], bool], patience: float) -> None:
    """Wait until ``condition`` holds, at most ``patience`` seconds."""
    end, pause = time.monotonic() + patience, 0.0005
    while not condition() and time.monotonic() < end:
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def check_start(start: str) -> None:
    """Refuse a way to start workers that is not safe here.

    Raises:
        InvalidArgument: no such way; or ``"fork"`` while other threads run or CUDA is in use.
    """
    if os.name != "posix":
        raise InvalidArgument(
            "workers: processes of our own need a POSIX system; pass an executor or workers='threads'."
        )
    if start not in STARTS:
        raise InvalidArgument(f"start: expected one of {', '.join(map(repr, STARTS))}, got {start!r}.")
    if start != "fork":
        return
    why = None
    if (others := threading.active_count() - 1) > 0:
        why = f"{others} other threads run, and a lock that one of them holds would stay locked for ever"
    elif "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        why = "CUDA is in use, and does not survive a fork"
    if why:
        raise InvalidArgument(f"start: 'fork' is not safe in this process ({why}); use 'spawn'.")


def _pipes() -> tuple[socket.socket, socket.socket, int, int]:
    """Return both ends of a socket, and both ends of a pipe; none takes the place of a closed standard stream."""
    with contextlib.ExitStack() as taken, contextlib.ExitStack() as made:
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:
            taken.callback(os.close, number)
        os.close(number)
        ours, theirs = map(made.enter_context, socket.socketpair())
        ends, held = os.pipe()
        made.pop_all()
    return ours, theirs, ends, held


def spawn() -> Process:
    """Start a worker as a fresh interpreter, with our path, words and folder, and one thread for each library."""
    ours, theirs, ends, held = _pipes()
    path = [str(folder) for folder in sys.path]
    code = (
        f"import sys; sys.path[:] = {path!r}; sys.argv[:] = {sys.argv!r};"
        f" from dfo.run.crew.worker import main; main({theirs.fileno()}, {ends})"
    )
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    try:
        child = subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), ends), start_new_session=True,
            env={**os.environ, **{f"{name}_NUM_THREADS": "1" for name in THREADS}},
        )  # fmt: skip
    except BaseException:
        ours.close()
        os.close(held)
        raise
    finally:
        theirs.close()
        os.close(ends)
    child.returncode = 0  # we wait for it ourselves
    return Process(child.pid, ours, held)


def fork(call: Callable[[Any], Any], version: int) -> Process:
    """Start a worker as a copy of this process, which has the objective.

    Raises:
        InvalidArgument: a fork is not safe here.
    """
    check_start("fork")
    ours, theirs, ends, held = _pipes()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # what is in the buffers would be written twice
            stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; only libraries' own are left, at rest
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            os.close(held)
            become(theirs, ends, call)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    os.close(ends)
    return Process(pid, ours, held, version)
