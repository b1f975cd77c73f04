"""The side of a process that evaluates for the :class:`~dfo.AskTell` of another one."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

from dfo import errors
from dfo.errors import BadState, DfoError, Disconnected, InvalidType, short
from dfo.files import strict_json
from dfo.oracles.outcomes import Failed
from dfo.oracles.values import number
from dfo.run.candidates import Candidate
from dfo.run.serve import REQUEST, address, same_user
from dfo.run.store.location import path_of
from dfo.run.store.points import decoded
from dfo.secrets import scrub

__all__ = ["Client", "join"]

ANSWER = 1 << 25
"""Most bytes of an answer of the server."""


def join(store: str | os.PathLike[str], *, wait: float = 0.0) -> Client:
    """Take part in a run that another process of this machine drives with :meth:`dfo.AskTell.serve`.

    Args:
        store: path of its store.
        wait: seconds to wait for a driver to appear.

    Returns:
        The client: iterate over it, or call its ``ask`` and ``tell``.

    Raises:
        Disconnected: nobody serves the store, or it belongs to another user.

    Example:
        >>> import dfo, tempfile, os
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = os.path.join(folder.name, "run.db")
        >>> with dfo.AskTell("cma", [1.0, 2.0], store=store) as opt, opt.serve(budget=40):
        ...     with dfo.join(store) as client:  # as a rule in another process
        ...         for candidate in client:
        ...             client.tell(candidate, float(candidate.x @ candidate.x))
        ...     opt.nfev
        40
        >>> folder.cleanup()
    """
    path, until = path_of(store), time.monotonic() + wait
    while True:
        try:
            return Client(path)
        except Disconnected:
            if time.monotonic() >= until:
                raise
        time.sleep(0.05)


class Client:
    """One connection to a driver; made by :func:`dfo.join`. Its methods may be called from several threads.

    What was asked here and not told is handed to others when the client closes or dies.
    """

    def __init__(self, path: str) -> None:
        self._path, self._lock, self._pid = path, threading.Lock(), os.getpid()
        self._ended = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(address(path))
            if not same_user(self._socket):
                raise PermissionError("the driver belongs to another user")
        except (OSError, BadState) as error:
            self._socket.close()
            why = getattr(error, "strerror", None) or error
            raise Disconnected(
                f"{path}: nobody serves this run ({why}). Start its driver, with AskTell(..., store=...).serve()."
            ) from None
        self._lines = self._socket.makefile("rb")

    def ask(self) -> Candidate | None:
        """Return a candidate to evaluate; waits while others have the last ones. None when the run has ended.

        Raises:
            Disconnected: the driver has ended or died.
        """
        while not self._ended and "wait" in (answer := self._say({"op": "ask"})):
            time.sleep(0.001)  # let other threads of this client have their turn
        if self._ended or "end" in answer:
            self._ended = True
            return None
        try:
            x = answer["x"] if "x" in answer else b64decode(answer["bytes"])
            return Candidate(int(answer["id"]), decoded(answer["form"], x), answer["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadState(f"{self._path}: the driver sent no candidate ({error!r}).") from None

    def tell(self, candidate: Candidate | int, value: Any) -> None:
        """Send the value of a candidate; it is in the store when this returns.

        Args:
            candidate: what :meth:`ask` returned, or its number.
            value: a real number; or what went wrong: an exception, NaN, or anything that is no number.

        Raises:
            AlreadyTold: it has its value already.
            UnknownCandidate: it was never asked.
            Disconnected: the driver has ended or died; the value may have reached it.
        """
        at = candidate.id if isinstance(candidate, Candidate) else candidate
        if isinstance(at, bool) or not isinstance(at, int):
            raise InvalidType(f"tell: expected what ask() returned, or its number, got {short(candidate)}.")
        if "ok" not in self._say({"op": "tell", "id": at, "value": _sent(value)}):
            self._ended = True
            raise Disconnected(f"{self._path}: the run has ended, and its driver with it.")

    def __iter__(self) -> Iterator[Candidate]:
        while (candidate := self.ask()) is not None:
            yield candidate

    def close(self) -> None:
        """Leave; what was asked here and not told is handed to others."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _say(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the answer.

        Raises:
            DfoError: what the driver answers with.
        """
        if os.getpid() != self._pid:
            raise Disconnected(f"{self._path}: this client is its parent's; call dfo.join in each process.")
        line = json.dumps(message).encode() + b"\n"
        if len(line) > REQUEST:
            raise InvalidType(f"tell: expected a short message, got {len(line)} bytes.")
        try:
            with self._lock:
                with suppress(BrokenPipeError):  # the driver's last words can still be read
                    self._socket.sendall(line)
                reply = self._lines.readline(ANSWER)
        except (OSError, ValueError) as error:
            raise Disconnected(f"{self._path}: the connection to the driver is lost ({error}).") from None
        if not reply.endswith(b"\n"):
            raise Disconnected(f"{self._path}: the driver of the run has ended or died. Join again when it is back.")
        answer = strict_json(reply)
        if not isinstance(answer, dict):
            raise BadState(f"{self._path}: the driver answered {short(answer)}.")
        if "error" in answer:
            raise _error(str(answer["error"]), str(answer.get("text", "")))
        return answer


def _error(name: str, text: str) -> DfoError:
    kind = getattr(errors, name) if name in errors.__all__ else DfoError
    plain = isinstance(kind, type) and issubclass(kind, DfoError)
    return kind(text) if plain else DfoError(f"{name}: {text}")


def _sent(value: Any) -> Any:
    """Return a value as JSON that keeps its bits, or why there is none."""
    if isinstance(value, Failed):
        return [value.kind, value.text[:4000]]
    if isinstance(value, Exception):
        return ["raised", f"{type(value).__name__}: {scrub(str(value))}"[:4000]]
    found = number(value)
    if isinstance(found, str):
        return ["bad_type", scrub(found)[:4000]]
    return found if math.isfinite(found) else repr(found)
