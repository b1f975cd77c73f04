"""The process of a worker: it gets the objective once, then point after point, and answers each.

It leads a session and process group of its own: Ctrl-C on the terminal does not reach it (its owner decides), and a
kill of the group takes along what the objective started. It holds a *lifeline*, a pipe whose other end its owner
holds: when the owner dies, the kernel itself kills the group, even while the objective is stuck in C code.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from dfo.oracles.outcomes import Failed
from dfo.run.crew.wire import ANSWER, BROKEN, HEADER, OBJECTIVE, QUICK, READY, Parcel, attempt, dumps, loads

__all__ = ["THREADS", "main", "serve"]

THREADS = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB", "NUMEXPR", "NUMBA")
"""Libraries whose variable ``..._NUM_THREADS`` is 1 in a worker: n workers use n cores."""

_QUICK = 0.001  # seconds: after an evaluation as short as that the next one may wait in the pipe already


def main(channel: int, lifeline: int) -> None:
    """Serve as a fresh process until the owner hangs up.

    Args:
        channel: file descriptor of the socket on which questions come and answers go.
        lifeline: file descriptor that ends when the owner does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hold(lifeline)
    serve(socket.socket(fileno=channel), None)


def hold(lifeline: int) -> None:
    """Die with the owner: the kernel's signal to the group where it has one, a watching thread elsewhere.

    And die instead of the owner, when the machine runs out of memory.
    """
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:  # Linux
        score = int(file.read())
        file.seek(0)
        file.write(str(min(1000, score + 300)))
    try:
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)  # Linux
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    except (AttributeError, OSError):
        threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    gone = select.poll()
    gone.register(lifeline, select.POLLIN)
    if gone.poll(0):  # the owner went before we held it
        os.killpg(0, signal.SIGKILL)


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def serve(channel: socket.socket, call: Callable[[Any], Any] | None) -> None:
    """Answer until the owner hangs up.

    Args:
        channel: where questions come and answers go.
        call: the objective, if this process has it already.
    """
    try:
        if call is not None:
            _send(channel, READY)
        while True:
            tag, number, body = _receive(channel)
            if tag == OBJECTIVE:
                call = _load(channel, body)
                _send(channel, READY)
                continue
            assert call is not None
            began = time.monotonic()
            outcome = _answer(call, body)
            tag = QUICK if time.monotonic() - began < _QUICK else ANSWER
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # the objective may have closed it
                    stream.flush()
            _send(channel, tag, number, dumps(Parcel(outcome)))
    except (EOFError, ConnectionError):
        return


def _answer(call: Callable[[Any], Any], body: bytearray) -> Any:
    try:
        point = loads(body)
    except Exception as error:
        return Failed("raised", f"the point cannot be read in a worker: {type(error).__name__}: {error}", error)
    return attempt(call, point)


def _load(channel: socket.socket, body: bytearray) -> Callable[[Any], Any]:
    try:
        call: Callable[[Any], Any] = loads(body)
        return call
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        _send(channel, BROKEN, 0, dumps((said, traceback.format_exc())))
        raise EOFError from None


def _send(channel: socket.socket, tag: int, number: int = 0, body: bytes = b"") -> None:
    channel.sendall(HEADER.pack(tag, number, len(body)) + body)


def _receive(channel: socket.socket) -> tuple[int, int, bytearray]:
    tag, number, size = HEADER.unpack(_exactly(channel, HEADER.size))
    return tag, number, _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytearray:
    body = bytearray(size)
    rest = memoryview(body)
    while rest:
        got = channel.recv_into(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return body


def become(channel: socket.socket, lifeline: int, call: Callable[[Any], Any]) -> None:
    """Serve as a fork of the owner, which has the objective: leave its terminal, its handlers and its threads' share.

    Args:
        channel: where questions come and answers go.
        lifeline: file descriptor that ends when the owner does.
        call: the objective.
    """
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    hold(lifeline)
    _one_thread()
    serve(channel, call)


def _one_thread() -> None:
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in THREADS})
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
