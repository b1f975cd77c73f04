"""A store as bytes in memory: the file with its log put over it, without touching either.

Where a log is damaged there are several ways to read it. The best one that is a whole store, row by row, is used:
leave out the bad frames (a page is mostly written again by a later one); stop before the first; go without the log.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from dfo.errors import BadState
from dfo.files import opened
from dfo.run.store.connection import connect, here
from dfo.run.store.verify import check_kind, check_pages, check_rows
from dfo.run.store.wal import Log, apply, read_log

__all__ = ["best_image", "images", "in_memory", "raw", "readable"]

ZEROS = 1 << 28
"""Bytes of a file above which one that begins with zeros is not read to its end: it may have holes."""


def raw(path: str) -> bytes:
    """Return the bytes of a file without its log.

    The file is not opened by hand where SQLite has it open in this process: closing it would let go of SQLite's locks.
    """
    if here(path):
        with closing(connect(path, "immutable=1")) as sql:
            data: bytes = sql.serialize()
            return data
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > ZEROS and not file.read(1 << 20).strip(b"\0"):
            raise BadState("it holds nothing but zeros")
        file.seek(0)
        return b"".join(iter(lambda: file.read(min(size, 1 << 26) + 1), b""))


def images(data: bytes, log: Log | None) -> Iterator[tuple[bytearray, int]]:
    """Yield the ways to read a file and its log, the best first, and how many frames each leaves out."""
    if log is None:
        yield readable(bytearray(data)), 0
        return
    n, after = len(log.frames), len(log.frames) - log.whole
    missing = max(log.lost - after, 0)
    ways = [(log.frames[log.good], n - int(log.good.sum()) + missing), (log.frames[: log.whole], log.lost)]
    for frames, left_out in ways if log.lost else ways[1:]:
        image = bytearray(data)
        apply(image, frames)
        yield readable(image), left_out
    if log.lost:
        yield readable(bytearray(data)), n + missing


def readable(image: bytearray) -> bytearray:
    """Say in the header of an image that it has no log: SQLite reads no others from memory."""
    if image[18:20] == b"\2\2":
        image[18:20] = b"\1\1"
    return image


def in_memory(image: bytes | bytearray) -> sqlite3.Connection:
    """Return a connection to an image.

    Raises:
        sqlite3.Error: it is no database.
    """
    sql = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        sql.execute("PRAGMA trusted_schema = OFF")
        sql.execute("PRAGMA cell_size_check = ON")
        sql.deserialize(bytes(image))
    except BaseException:
        sql.close()
        raise
    return sql


def best_image(path: str) -> tuple[sqlite3.Connection, bytearray, int | None]:
    """Return the best reading of a store that nobody writes: open in memory, and as bytes.

    With them comes how many frames of a damaged log it leaves out; None where the log is whole.

    Raises:
        BadState: none is a whole store; says why the best is not.
        OSError: the file cannot be read.
    """
    log = read_log(path, witness=not here(path))
    first: Exception | None = None
    for image, left_out in images(raw(path), log):
        sql = None
        try:
            sql = in_memory(image)
            whole(sql)
            return sql, image, left_out if log is not None and log.lost else None
        except (BadState, sqlite3.Error, OverflowError, MemoryError) as error:
            if sql is not None:
                sql.close()
            first = first or error
    assert first is not None
    raise first if isinstance(first, BadState) else BadState(f"it is no database, or a damaged one ({first})")


def whole(sql: sqlite3.Connection) -> tuple[dict[int, int], int]:
    """Verify a store to its last row; return how many questions it has in each group, and how many answers.

    Raises:
        BadState: it is not whole.
        sqlite3.Error: it is no database.
    """
    check_kind(sql)
    check_pages(sql)
    try:
        return check_rows(sql)
    except (TypeError, UnicodeDecodeError) as error:  # a column of a kind that no store has
        raise BadState(f"a row makes no sense ({error})") from None
