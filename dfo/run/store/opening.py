"""From a path to a store that is open for writing: created whole, or verified to the last row."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress

from dfo.errors import BadState, CannotWrite
from dfo.run.store.connection import cannot_write, connect, damaged
from dfo.run.store.location import make_private, plain_file, sync_folder
from dfo.run.store.schema import APPLICATION, PAGE, TABLES, VERSION
from dfo.run.store.verify import check_kind, check_pages, check_rows

__all__ = ["create", "verify"]


def create(path: str) -> None:
    """Write an empty store, whole or not at all.

    Raises:
        CannotWrite: the folder is not there, or full, or read-only; or a file has this name by now.
        DamagedStore: the log of a store lies there whose file is gone.
    """
    temporary = path + ".new"
    if os.path.lexists(path + "-wal"):
        raise damaged(path, "the file is gone, but its log (-wal) is here")
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # of a process that was killed; the lock is ours
        os.close(make_private(temporary))
        _fill(temporary)
        _publish(temporary, path)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise error if isinstance(error, CannotWrite) else cannot_write(error, path) from error


def _fill(path: str) -> None:
    sql = connect(path, "mode=rw")
    try:
        sql.execute("PRAGMA journal_mode = MEMORY")
        sql.execute(f"PRAGMA page_size = {PAGE}")
        sql.execute("PRAGMA auto_vacuum = NONE")
        sql.execute("BEGIN")
        sql.execute(f"PRAGMA application_id = {APPLICATION}")
        sql.execute(f"PRAGMA user_version = {VERSION}")
        for text in TABLES.values():
            sql.execute(text)
        sql.execute("COMMIT")
    finally:
        sql.close()


def _publish(temporary: str, path: str) -> None:
    """Give a finished file its name, unless another has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.rename(temporary, path)
    else:
        os.unlink(temporary)
    sync_folder(os.path.dirname(path))


def verify(path: str) -> tuple[dict[int, int], int]:
    """Check a store that exists; return how many questions it has in each group, and how many answers.

    Raises:
        DamagedStore: it is empty, foreign, of a later version, or damaged.
        CannotWrite: it cannot be opened.
    """
    plain_file(path)
    if os.stat(path).st_size == 0:
        raise damaged(path, "it is empty")
    sql = None
    try:
        sql = connect(path, "mode=rw")
        check_kind(sql)
        check_pages(sql)
        return check_rows(sql)
    except BadState as error:
        raise damaged(path, error) from None
    except sqlite3.OperationalError as error:
        raise (damaged(path, error) if "malformed" in str(error) else cannot_write(error, path)) from error
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise damaged(path, f"it is no database, or a damaged one ({error})") from error
    finally:
        if sql is not None:
            sql.close()
