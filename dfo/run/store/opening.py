"""From a path to a store that is open for writing: created whole, or verified to the last row."""

from __future__ import annotations

import os
import shutil
import sqlite3
import warnings
from contextlib import closing, suppress

from dfo.errors import BadState, CannotWrite, StoreWarning
from dfo.run.store.connection import cannot_write, connect, damaged, here
from dfo.run.store.images import best_image, whole
from dfo.run.store.location import make_private, plain_file, sync_folder
from dfo.run.store.schema import APPLICATION, PAGE, TABLES, VERSION
from dfo.run.store.wal import read_log

__all__ = ["create", "empty", "publish", "verify"]

_BROKEN = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB}


def create(path: str) -> None:
    """Write an empty store, whole or not at all.

    Raises:
        CannotWrite: the folder is not there, or full, or read-only; or a file has this name by now.
        DamagedStore: the log of a store lies there whose file is gone.
    """
    if os.path.lexists(path + "-wal"):
        raise damaged(path, "the file is gone, but its log (-wal) is here")
    publish(path, empty(), replace=False)


def publish(path: str, image: bytes | bytearray, replace: bool) -> None:
    """Write a file whole, or not at all.

    Args:
        path: of the file.
        image: what it holds.
        replace: whether a file that is there makes room.

    Raises:
        CannotWrite: it cannot be written, or another has this name.
    """
    temporary = path + ".new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # of a process that was killed; the lock is ours
        with os.fdopen(make_private(temporary), "wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        _name(temporary, path, replace)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise cannot_write(error, path) from error


def empty() -> bytes:
    """Return the bytes of a store without a row."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.execute(f"PRAGMA page_size = {PAGE}")
        sql.execute("PRAGMA auto_vacuum = NONE")
        sql.execute("PRAGMA encoding = 'UTF-8'")
        sql.execute("BEGIN")
        sql.execute(f"PRAGMA application_id = {APPLICATION}")
        sql.execute(f"PRAGMA user_version = {VERSION}")
        for text in TABLES.values():
            sql.execute(text)
        sql.execute("COMMIT")
        data: bytes = sql.serialize()
        return data


def _name(temporary: str, path: str, replace: bool) -> None:
    """Give a finished file its name."""
    if not replace:
        try:
            os.link(temporary, path)
            os.unlink(temporary)
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(path):
                raise
    os.replace(temporary, path)


def verify(path: str) -> tuple[dict[int, int], int]:
    """Check a store that exists; return how many questions it has in each group, and how many answers.

    A damaged log is put aside, and what can be read of it goes into the file, with a warning.

    Raises:
        DamagedStore: it is empty, foreign, of a later version, or damaged.
        CannotWrite: it cannot be opened, or the log not be put aside.
    """
    plain_file(path)
    if os.stat(path).st_size == 0:
        raise damaged(path, "it is empty")
    log = read_log(path, witness=not here(path))
    if log is not None and log.lost:
        _mend(path)
    try:
        with closing(connect(path, "mode=rw")) as sql:
            return whole(sql)
    except BadState as error:
        raise damaged(path, error) from None
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # none: text that is no UTF-8
        broken = code & 0xFF in _BROKEN
        raise (damaged(path, error) if broken else cannot_write(error, path)) from error
    except (sqlite3.Error, OverflowError) as error:
        raise damaged(path, f"it is no database, or a damaged one ({error})") from error


def _mend(path: str) -> None:
    """Put a damaged log aside and what it is good for into the file."""
    try:
        sql, image, left_out = best_image(path)
    except BadState as error:
        raise damaged(path, f"its log (-wal) is damaged, and {error}") from None
    asked, told = (sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("questions", "answers"))
    sql.close()
    aside = _aside(path)
    publish(path, image, replace=True)
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + end)
    warnings.warn(
        f"{path}: of its log, {left_out} frames are torn or damaged and left out; {asked} questions and {told} answers"
        f" are whole. The run goes on from there; the log lies in {aside}.",
        StoreWarning,
        stacklevel=4,
    )


def _aside(path: str) -> str:
    """Copy the log of a store to a new name, and return that."""
    source = path + "-wal"
    for number in range(1, 10_000):
        aside = f"{path}.torn-{number}"
        try:
            with os.fdopen(make_private(aside), "wb") as target:
                if os.path.exists(source):
                    with open(source, "rb") as file:
                        shutil.copyfileobj(file, target)
            return aside
        except FileExistsError:
            continue
        except OSError as error:
            raise cannot_write(error, aside) from error
    raise CannotWrite(17, "store: no free name to put a damaged log aside", path)
