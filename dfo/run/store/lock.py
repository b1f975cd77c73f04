"""One writer a store: a lock that the system lets go of when its process dies.

``<path>.lock`` is held with ``flock`` and says as JSON who holds it. Where the file system knows no locks, the file
itself is the lock (created only if it is not there), and it is stale when its process is gone from this machine.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from dfo.errors import RunLocked
from dfo.run.store.connection import cannot_write

__all__ = ["Lock", "holder"]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_TRIES, _PAUSE = 6, 0.05  # a reader that looks whether the lock is held holds it for an instant
_held: dict[str, Lock] = {}


class Lock:
    """The right to write to one store, held from here on.

    Args:
        path: of the store.

    Raises:
        RunLocked: another process, or another part of this one, writes to it.
        CannotWrite: the lock cannot be created.
    """

    def __init__(self, path: str) -> None:
        self.path, self.pid = path + ".lock", os.getpid()
        self._handle = -1
        if (here := _held.get(self.path)) is not None and here.pid == self.pid:
            raise _locked(path, _read(self.path))
        try:
            if not self._flocked():
                raise _locked(path, _read(self.path, patient=True))
            self._say()
        except OSError as error:
            self.release()
            raise cannot_write(error, self.path) from error
        except BaseException:
            self._drop()
            raise
        _held[self.path] = self

    def _flocked(self) -> bool:
        """Take the lock; False where somebody has it."""
        for attempt in range(_TRIES):
            self._drop()
            self._handle = _opened(self.path)
            try:
                if _flock(self._handle):
                    if _same(self._handle, self.path):
                        return True
                    continue  # its last holder has removed the file in between
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._drop()
                with suppress(OSError):
                    os.unlink(self.path)
                return self._claimed()
            time.sleep(_PAUSE if attempt + 1 < _TRIES else 0.0)
        return False

    def _claimed(self) -> bool:
        """Take the lock where there is no ``flock``: who creates the file has it."""
        self.path += ".owner"
        for _ in range(_TRIES):
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
                self._handle = os.open(self.path, flags, 0o600)
                return True
            except FileExistsError:
                found = _read(self.path, patient=True)
                if not _stale(found):
                    return False
                aside = f"{self.path}.stale-{self.pid}-{time.monotonic_ns()}"
                with suppress(OSError):
                    os.rename(self.path, aside)
                    if _read(aside) != found:  # somebody was faster: it is not the stale one
                        os.link(aside, self.path)
                    os.unlink(aside)
        return False

    def _say(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"pid": self.pid, "host": socket.gethostname(), "since": now, "start": _start(self.pid)}
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(content).encode(), 0)

    def release(self) -> None:
        """Let go; in a forked child only the copy of the handle is closed."""
        if self.pid != os.getpid():
            self._drop()
            return
        if self._handle >= 0:
            with suppress(OSError):
                if _same(self._handle, self.path):
                    os.unlink(self.path)
        self._drop()
        if _held.get(self.path) is self:
            del _held[self.path]

    def _drop(self) -> None:
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = -1


def _after_fork() -> None:
    """Forget, in a child, the locks of its parent: a copied handle would keep them when the parent dies."""
    for lock in _held.values():
        lock._drop()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def holder(path: str) -> dict[str, Any] | None:
    """Return who writes to a store now: ``pid``, ``host``, ``since``; None if nobody does. Nothing is written."""
    lock = path + ".lock"
    if any(held.path in (lock, lock + ".owner") for held in _held.values()):
        return _read(lock) or _read(lock + ".owner")
    owner = _read(lock + ".owner")
    if owner and not _stale(owner):
        return owner
    try:
        handle = os.open(lock, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        return None if _flock(handle, shared=True) else _read(lock) or {}
    except OSError:
        return None
    finally:
        os.close(handle)


def _opened(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(path, flags, 0o600)
    if hasattr(os, "fchmod"):
        with suppress(OSError):
            os.fchmod(handle, 0o600)
    return handle


def _flock(handle: int, shared: bool = False) -> bool:
    """Take a lock without waiting; False where somebody has it.

    Raises:
        OSError: the file system knows no locks.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "no flock")
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _read(path: str, patient: bool = False) -> dict[str, Any]:
    """Return what a lock file says; its writer may be about to write it."""
    for _ in range(5 if patient else 1):
        with suppress(OSError, ValueError), open(path, "rb") as file:
            content = json.loads(file.read(4096))
            if isinstance(content, dict):
                return content
        time.sleep(0.02 if patient else 0.0)
    return {}


def _stale(content: dict[str, Any]) -> bool:
    """Tell whether the process of a lock file is gone from this machine."""
    pid = content.get("pid")
    if not isinstance(pid, int) or pid <= 0 or content.get("host") != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return content.get("start") != _start(pid)  # the number belongs to another process by now


def _start(pid: int) -> str:
    """Return when a process began, in the system's own count; empty where it does not say."""
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]
    return ""


def _locked(path: str, content: dict[str, Any]) -> RunLocked:
    pid = content.get("pid") if isinstance(content.get("pid"), int) else 0
    host, since = str(content.get("host", "")), str(content.get("since", ""))
    who = f"process {pid} on {host} since {since}" if pid else "another process"
    return RunLocked(
        f"{path}: {who} writes to this store. Wait for it or end it; `dfo show` reads while it runs.",
        int(pid or 0), host, since,
    )  # fmt: skip
