"""The connection of the one writer: whole transactions, and errors that say what is the matter."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dfo.errors import CannotWrite, DamagedStore
from dfo.run.store.location import uri
from dfo.run.store.schema import VERSION

__all__ = ["Connection", "cannot_write", "connect", "count_here", "damaged", "here"]

WAL_PAGES = 2000
"""Pages of the log (8 MiB) after which they are moved into the file."""

LOOK = 0.02
"""Seconds between two looks at whether the files are still there."""

_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_AUTH: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}
_WORDS = {
    errno.ENOSPC: "disk full: make room and go on",
    errno.EDQUOT: "disk full: the quota is used up",
    errno.EFBIG: "disk full: the largest size of a file is reached",
    errno.EROFS: "read-only: expected a file and a folder that can be written",
    errno.EACCES: "read-only: expected a file and a folder that can be written",
    errno.EPERM: "read-only: expected a file and a folder that can be written",
    errno.ENOENT: "gone: the file or its folder was removed or renamed",
    errno.EBUSY: "another program holds the file; end it",
}


def cannot_write(error: Exception, path: str) -> CannotWrite:
    """Return the error for a write that failed."""
    if isinstance(error, CannotWrite):
        return error
    number = error.errno if isinstance(error, OSError) else _errno(error, path)
    text = _WORDS.get(number or 0, str(error) or type(error).__name__)
    return CannotWrite(number or errno.EIO, f"store: cannot be written, {text}", path)


def _errno(error: Exception, path: str) -> int:
    """Return what the system would have said; SQLite keeps it to itself."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if not os.path.exists(path):
        return errno.ENOENT
    if code in _ERRNO:
        return _ERRNO[code]
    if code == sqlite3.SQLITE_IOERR:
        return _probe(os.path.dirname(path), path)
    return errno.EIO


def _probe(folder: str, path: str) -> int:
    """Return why a file in this folder cannot grow."""
    with suppress(OSError, AttributeError):
        room = os.statvfs(folder)
        if room.f_flag & getattr(os, "ST_RDONLY", 1):
            return errno.EROFS
        if room.f_bavail * room.f_frsize < 1 << 16:
            return errno.ENOSPC
    with suppress(ImportError, OSError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        largest = max((os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end)), default=0)
        if limit not in (-1, resource.RLIM_INFINITY) and largest + (1 << 16) > limit:
            return errno.EFBIG
    return errno.EIO


def damaged(path: str, what: object) -> DamagedStore:
    """Return the error for a file that is no whole store."""
    return DamagedStore(f"{path}: {what}. `dfo repair {path} --to NEW.db` saves what is whole before it.")


def connect(path: str, options: str) -> sqlite3.Connection:
    """Return a connection in autocommit mode; foreign schemas run no code in it.

    Raises:
        sqlite3.Error: there is none.
    """
    connection = sqlite3.connect(
        uri(path, options), uri=True, isolation_level=None, check_same_thread=False, cached_statements=64, timeout=5.0
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


_here: Counter[str] = Counter()


def count_here(path: str, change: int) -> None:
    """Count a connection to a store that is opened (+1) or closed (-1) in this process."""
    _here[path] += change


def here(path: str) -> bool:
    """Tell whether SQLite has a store open in this process: then its files may not be opened and closed by hand."""
    return _here[path] > 0


class Connection:
    """A store that is open for writing, in this process only.

    Args:
        path: of the store, which exists and is whole.
        fsync: wait for the disk with each transaction.

    Raises:
        CannotWrite: it cannot be opened for writing.
    """

    def __init__(self, path: str, fsync: bool) -> None:
        self.path, self.pid, self.guard = path, os.getpid(), threading.RLock()
        try:
            self.sql = connect(path, "mode=rw")
        except sqlite3.Error as error:
            raise cannot_write(error, path) from error
        try:
            self._set_up(fsync)
            self._files, self._seen = self._identities(), time.monotonic()
        except (sqlite3.Error, OSError) as error:
            self.sql.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK):
                raise damaged(path, "its header says that it must not be written") from error
            raise cannot_write(error, path) from error
        count_here(path, 1)
        _open.append(self)

    def _set_up(self, fsync: bool) -> None:
        self.sql.execute("PRAGMA secure_delete = OFF")
        self.sql.execute("PRAGMA mmap_size = 0")
        self.sql.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        self.sql.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        if self.sql.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise CannotWrite(errno.ENOTSUP, "store: this file system holds no write-ahead log", self.path)
        self.sql.execute("BEGIN IMMEDIATE")
        self.sql.execute(f"PRAGMA user_version = {VERSION}")  # makes the log: a full disk is noticed now
        self.sql.execute("COMMIT")

    def _identities(self) -> tuple[tuple[int, int], ...]:
        stats = (os.stat(self.path), os.stat(self.path + "-wal"))
        return tuple((s.st_dev, s.st_ino) for s in stats)

    def write(self, *statements: tuple[str, Sequence[tuple[Any, ...]]]) -> None:
        """Run statements, each over its rows, as one transaction: all of it or nothing.

        Raises:
            CannotWrite: the file is full, gone or read-only; what was stored before is as it was.
            sqlite3.IntegrityError: a row is there already.
        """
        self.mine()
        with self.guard:
            try:
                self._see_files()
                if len(statements) == 1 and len(statements[0][1]) == 1:
                    self.sql.execute(statements[0][0], statements[0][1][0])
                    return
                self.sql.execute("BEGIN IMMEDIATE")
                for text, rows in statements:
                    self.sql.executemany(text, rows)
                self.sql.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    if self.sql.in_transaction:
                        self.sql.execute("ROLLBACK")
                if isinstance(error, sqlite3.IntegrityError) or not isinstance(error, (OSError, sqlite3.Error)):
                    raise
                raise cannot_write(error, self.path) from error

    def _see_files(self) -> None:
        """See now and then that the files are there: SQLite would go on writing to some that nobody finds again."""
        if (now := time.monotonic()) > self._seen + LOOK:
            if self._identities() != self._files:
                raise FileNotFoundError(errno.ENOENT, "gone", self.path)
            self._seen = now

    def read(self, text: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            DamagedStore: they cannot be read.
        """
        self.mine()
        with self.guard:
            try:
                return self.sql.execute(text, values).fetchall()
            except sqlite3.Error as error:
                raise damaged(self.path, f"it cannot be read ({error})") from error

    def mine(self) -> None:
        """See that this process opened it.

        Raises:
            CannotWrite: it is a copy in a forked child.
        """
        if os.getpid() != self.pid:
            raise CannotWrite(errno.EPERM, f"store: it belongs to process {self.pid}, which was forked", self.path)

    def close(self) -> None:
        """Move the log into the file and leave that alone behind, where nobody else reads it."""
        if self not in _open:  # closed before, or forked
            return
        _open.remove(self)
        with self.guard, suppress(sqlite3.Error):
            self.sql.execute("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.Error):
                self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self.sql.execute("PRAGMA journal_mode = DELETE")
            self.sql.close()
        count_here(self.path, -1)


_open: list[Connection] = []
_kept: list[Connection] = []


def _after_fork() -> None:
    """Never close, in a child, what its parent has open."""
    _kept.extend(_open)
    _open.clear()
    _here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
