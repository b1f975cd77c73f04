"""Several processes of one machine evaluate for one :class:`~dfo.AskTell`: its server, and their side of it.

The server listens on a Unix domain socket in a folder of its own that only its user may enter; ``<store>.door`` says
where. A message is one line of JSON in either direction, of limited length, and nothing in it is ever run: a client
says ``{"op": "ask"}`` or ``{"op": "tell", "id": 3, "value": 0.5}``, and the answer is a candidate, ``{"wait": true}``,
``{"end": why}``, ``{"ok": true}`` or ``{"error": name, "text": ...}``.

What a client was handed and had not told when its connection ended is handed out again, under the same number.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import weakref
from base64 import b64encode
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dfo.errors import BadState, CannotWrite, DfoError, InvalidArgument, short
from dfo.files import content, strict_json
from dfo.oracles.outcomes import KINDS, Failed
from dfo.run.store.location import beside, make_private
from dfo.run.store.points import encoded
from dfo.secrets import scrub

if TYPE_CHECKING:
    from dfo.run.asktell import AskTell

__all__ = ["DOOR", "REQUEST", "Server", "address", "same_user"]

DOOR = ".door"
REQUEST = 1 << 16
"""Most bytes of a client's message."""

CLIENTS = 256
"""Most connections at once."""

_PATIENCE = 0.1  # seconds that a client is kept waiting before it is told to ask again
_PREFIX = "dfo-serve-"
_open: weakref.WeakSet[Server] = weakref.WeakSet()


class Server:
    """Lets other processes take part in an :class:`~dfo.AskTell`; made by :meth:`~dfo.AskTell.serve`.

    Args:
        opt: what the clients ask and tell.
        store: path of its store.
        budget: candidates that are handed out in all, those of earlier sessions included; None for no limit.

    Raises:
        CannotWrite: the socket or ``<store>.door`` cannot be made.
    """

    def __init__(self, opt: AskTell, store: str, budget: int | None) -> None:
        self.opt, self.budget, self.door = opt, budget, beside(store, DOOR)
        self._closed = False
        self._connections: dict[socket.socket, threading.Lock] = {}  # held from a request to its answer
        try:
            _sweep(self.door)
            self._folder = _private_folder()
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(os.path.join(self._folder, "s"))
            os.chmod(os.path.join(self._folder, "s"), 0o600)
            self._socket.listen(CLIENTS)
            _put(self.door, json.dumps({"socket": os.path.join(self._folder, "s"), "pid": os.getpid()}).encode())
        except OSError as error:
            raise CannotWrite(
                f"serve: no socket can be made beside {self.door} ({error.strerror or error})."
            ) from error
        _open.add(self)
        threading.Thread(target=self._accept, daemon=True, name="dfo-serve").start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the budget is told, or the solver has nothing left to do; return whether it is so.

        Args:
            timeout: seconds after which to return anyway.
        """
        with self.opt.changed:
            return self.opt.changed.wait_for(lambda: self._closed or self._end() is not None, timeout)

    def close(self) -> None:
        """Stop serving: clients learn that the run or its driver has ended; what they had is handed out again."""
        if self._closed:
            return
        self._closed = True
        last = json.dumps(self._last()).encode() + b"\n"
        for connection, turn in list(self._connections.items()):
            with turn, suppress(OSError):  # an answer under way goes out before it
                connection.sendall(last)
        self._drop()
        with suppress(OSError):
            os.unlink(self.door)
        shutil.rmtree(self._folder, ignore_errors=True)
        with self.opt.changed:
            self.opt.changed.notify_all()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _drop(self) -> None:
        for held in [self._socket, *self._connections]:
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()

    def _last(self) -> dict[str, Any]:
        """Return what clients are told when nobody serves them any more."""
        why = self._end()
        return (
            {"error": "Disconnected", "text": "the driver of the run serves no more."} if why is None else {"end": why}
        )

    def _end(self) -> str | None:
        """Return why no more candidates are handed out, once all that were have their value; else None."""
        opt = self.opt
        if opt.pending:
            return None
        return "the budget is spent" if self.budget is not None and opt.asked >= self.budget else opt.finished

    # ------------------------------------------------------------------ connections

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if len(self._connections) >= CLIENTS or not same_user(connection):
                connection.close()
                continue
            self._connections[connection] = threading.Lock()
            threading.Thread(target=self._talk, args=(connection,), daemon=True, name="dfo-serve-client").start()

    def _talk(self, connection: socket.socket) -> None:
        """Answer one client until it goes, and take back what it has not told."""
        held: set[int] = set()
        turn = self._connections[connection]
        try:
            with connection, connection.makefile("rb") as lines:
                while (line := lines.readline(REQUEST)).endswith(b"\n"):
                    with turn:
                        answer = self._last() if self._closed else self._answer(line, held)
                        connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass
        finally:
            self._connections.pop(connection, None)
            self.opt.give_back(held)

    def _answer(self, line: bytes, held: set[int]) -> dict[str, Any]:
        try:
            match strict_json(line):
                case {"op": "ask"}:
                    return self._offer(held)
                case {"op": "tell", "id": int(number), "value": value}:
                    self.opt.tell(number, _value(value))
                    held.discard(number)
                    return {"ok": True}
        except Exception as error:  # of the solver or the store too: the client is to know
            return {"error": type(error).__name__, "text": scrub(str(error))}
        return {"error": "BadState", "text": f"no such request: {short(line)}"}

    def _offer(self, held: set[int]) -> dict[str, Any]:
        """Return a candidate, or why there is none now."""
        opt = self.opt
        with opt.changed:
            spent = self.budget is not None and opt.asked >= self.budget
            if not opt.returned and (spent or opt.finished is not None):
                if (why := self._end()) is None:
                    opt.changed.wait(_PATIENCE)
                    return {"wait": True}
                return {"end": why}
            candidate = opt.ask_candidate()
            held.add(candidate.id)
        form, x, _ = encoded(candidate.x)
        if x is None:
            raise InvalidArgument("serve: a candidate has too many coordinates to be sent; evaluate it in the driver.")
        point = {"x": x} if isinstance(x, str) else {"bytes": b64encode(x).decode()}
        return {"id": candidate.id, "form": form, "data": candidate.data, **point}


def _value(sent: Any) -> float | Failed:
    """Return the value of a message.

    Raises:
        BadState: it is none.
    """
    match sent:
        case bool():
            pass
        case int() | float():
            return float(sent)
        case "nan" | "inf" | "-inf":
            return float(sent)
        case [str(kind), str(text)] if kind in KINDS:
            return Failed(kind, text)
    raise BadState(f"tell: expected a number, or why there is none, got {short(sent)}.")


# ---------------------------------------------------------------------- the door


def address(store: str) -> str:
    """Return where the server of a store listens.

    Raises:
        BadState: ``<store>.door`` holds something else.
        OSError: there is none.
    """
    match strict_json(content(beside(store, DOOR), 4096)):
        case {"socket": str(path)}:
            return path
    raise BadState(f"{beside(store, DOOR)}: says no address.")


def same_user(connection: socket.socket) -> bool:
    """Tell whether the process at the other end is of the same user, where the system says."""
    if not (sys.platform.startswith("linux") and hasattr(socket, "SO_PEERCRED")):
        return True
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.geteuid())


def _private_folder() -> str:
    """Return a new folder (0700) whose name leaves room in the 104 bytes that an address may have."""
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    if len(os.fsencode(folder)) > 90:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")
    return folder


def _sweep(door: str) -> None:
    """Remove the socket of a driver that was killed: who holds the store's lock is the only one."""
    with suppress(OSError, DfoError):
        folder = os.path.dirname(address(door.removesuffix(DOOR)))
        if os.path.basename(folder).startswith(_PREFIX) and os.lstat(folder).st_uid == os.geteuid():
            with suppress(OSError):
                os.unlink(os.path.join(folder, "s"))
            os.rmdir(folder)


def _put(path: str, text: bytes) -> None:
    fresh = f"{path}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(fresh)
    with os.fdopen(make_private(fresh), "wb") as file:
        file.write(text)
    os.replace(fresh, path)


def _after_fork() -> None:
    """Let go of the sockets in a child: a copy would keep clients waiting when the driver dies."""
    for server in list(_open):
        server._closed = True
        for held in [server._socket, *server._connections]:
            held.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
