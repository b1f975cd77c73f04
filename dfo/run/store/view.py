"""A store as its readers see it: nothing is written, nobody is made to wait."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from dfo.errors import BadState, DamagedStore, InvalidArgument, StoreWarning
from dfo.files import strict_json
from dfo.run.store.book import entry_in
from dfo.run.store.connection import connect, count_here, damaged
from dfo.run.store.images import best_image
from dfo.run.store.location import path_of
from dfo.run.store.lock import holder
from dfo.run.store.rows import Row, row_of, verified
from dfo.run.store.schema import GROUP
from dfo.run.store.verify import check_kind, stream

__all__ = ["View"]

_CHUNK = 500
_BEST = """SELECT number FROM answers WHERE status = 'ok' AND value IS NOT NULL
    ORDER BY coalesce(violation, 0) > 0, CASE WHEN violation > 0 THEN violation ELSE value END, number LIMIT 1"""
_ROWS = """SELECT * FROM questions AS q LEFT JOIN answers AS a USING (number)
    WHERE q.number >= ? ORDER BY q.number LIMIT ?"""


class View:
    """A store, open for reading; made by :meth:`open`. While it is written, every question is answered as of now.

    One that nobody writes is read once, into memory, and verified to its last row; open it again to see what came
    since.

    Example:
        >>> import tempfile, os
        >>> from dfo.run.store import Run, Store, View
        >>> path = os.path.join(tempfile.mkdtemp(), "run.db")
        >>> with Run.open(Store(path)) as run:
        ...     run.begin({"method": "cma"}, {"budget": 10})
        ...     run.finish("budget", "The budget is used up.", {"fun": 0.5})
        >>> with View.open(path) as view:
        ...     view.status, view.config, view.summary, view.count
        ('budget', {'method': 'cma'}, {'fun': 0.5}, 0)
    """

    def __init__(self, path: str, sql: sqlite3.Connection, live: bool) -> None:
        self._path, self._sql, self._live = path, sql, live
        count_here(path, live)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> View:
        """Open a store for reading, whatever state it is in. One that nobody writes is verified to the last row.

        Raises:
            InvalidArgument: there is no such file.
            DamagedStore: it is torn, flipped or foreign.
        """
        text = path_of(path)
        try:
            status = os.stat(text)
        except OSError as error:
            raise InvalidArgument(f"{text}: no store is here ({error.strerror}).") from None
        if not stat.S_ISREG(status.st_mode):
            raise damaged(text, "it is no plain file")
        if status.st_size == 0:
            raise damaged(text, "it is empty")
        return cls(text, *_opened(text))

    # ------------------------------------------------------------------ what the run is

    @property
    def config(self) -> dict[str, Any] | None:
        """What the run was begun with."""
        found: dict[str, Any] | None = self._entry("config")
        return found

    @property
    def free(self) -> dict[str, Any] | None:
        """What may change from one process to the next: budget, workers, ..."""
        found: dict[str, Any] | None = self._entry("free")
        return found

    @property
    def summary(self) -> dict[str, Any] | None:
        """The result, as it was written at the end; None while there is none."""
        found: dict[str, Any] | None = self._entry("summary")
        return found

    @property
    def status(self) -> str:
        """``"running"``, how the run ended, or ``"killed"`` where it did not and nobody writes."""
        if self.writer is not None:
            return "running"
        return str(self._entry("status") or "killed")

    @property
    def message(self) -> str:
        """How the run ended, in a sentence; empty while it did not."""
        return str(self._entry("message") or "")

    @property
    def writer(self) -> dict[str, Any] | None:
        """Who writes now: ``pid``, ``host``, ``since``; None if nobody does."""
        return holder(self._path)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The processes that wrote: ``started``, ``pid``, ``host``, ``command``, ``versions``, ``python``."""
        names = ("started", "pid", "host", "command", "versions", "python")
        found = [dict(zip(names, row[1:], strict=True)) for row in self.table("sessions")]
        return [s | {"command": strict_json(s["command"]), "versions": strict_json(s["versions"])} for s in found]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened: ``at``, ``after`` (number of the next question then), ``kind``, ``content``."""
        names = ("at", "after", "kind", "content")
        found = [dict(zip(names, row[1:], strict=True)) for row in self.table("events")]
        return [event | {"content": strict_json(event["content"])} for event in found]

    # ------------------------------------------------------------------ evaluations

    @property
    def count(self) -> int:
        """Evaluations asked for."""
        return int(self._read("SELECT count(*) FROM questions")[0][0])

    @property
    def told(self) -> int:
        """Evaluations answered, failures included."""
        return int(self._read("SELECT count(*) FROM answers")[0][0])

    @property
    def failed(self) -> int:
        """Evaluations that gave no usable value."""
        return int(self._read("SELECT count(*) FROM answers WHERE status <> 'ok'")[0][0])

    @property
    def best(self) -> Row | None:
        """The evaluation with the lowest value, feasible if any is."""
        found = self._read(_BEST)
        return self._rows(found[0][0], 1)[0] if found else None

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield the evaluations in the order of their numbers, in-flight ones too; each is verified.

        Args:
            start: so many are left out.

        Raises:
            DamagedStore: a row is damaged.
        """
        own = int(self._read("SELECT count(*) FROM questions WHERE number < ?", (GROUP,))[0][0])
        if start > own:
            later = "SELECT number FROM questions WHERE number >= ? ORDER BY number LIMIT 1 OFFSET ?"
            found = self._read(later, (GROUP, start - own))
            start = found[0][0] if found else 2**63 - 1
        while chunk := self._rows(start, _CHUNK):
            yield from chunk
            if len(chunk) < _CHUNK:  # what is asked from here on has answers that are newer than these rows
                return
            start = chunk[-1].number + 1

    def _rows(self, start: int, limit: int) -> list[Row]:
        try:
            return [
                row_of(
                    verified("questions", row[:8]),
                    None if row[8] is None else verified("answers", (row[0], *row[8:])),
                )
                for row in self._read(_ROWS, (start, limit))
            ]
        except DamagedStore:
            raise
        except BadState as error:
            raise damaged(self._path, error) from None

    # ------------------------------------------------------------------ reading

    def _entry(self, name: str) -> Any:
        try:
            return entry_in(self._read("SELECT * FROM run ORDER BY id"), name)
        except DamagedStore:
            raise
        except BadState as error:
            raise damaged(self._path, error) from None

    def table(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table in their order, each verified, without its checksum.

        Raises:
            DamagedStore: a row is damaged.
        """
        try:
            return list(stream(self._sql, table))
        except (BadState, sqlite3.Error) as error:
            raise damaged(self._path, error) from None

    def _read(self, text: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._sql.execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise damaged(self._path, f"it cannot be read ({error})") from error

    def close(self) -> None:
        """Let go of the file."""
        self._sql.close()
        count_here(self._path, -self._live)
        self._live = False

    def __enter__(self) -> View:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _opened(path: str) -> tuple[sqlite3.Connection, bool]:
    """Return a connection that writes nothing, and whether it is to the file: a snapshot in memory where nobody writes.

    A writer that begins or ends meanwhile makes one way fail; then it is the other's turn.
    """
    first: Exception | None = None
    for attempt in range(4):
        try:
            if holder(path) is not None:
                return _live(path), True
            return _snapshot(path), False
        except MemoryError:
            raise damaged(path, "it is larger than the memory of this machine") from None
        except (BadState, sqlite3.Error, OSError) as error:
            first = first or error
            if holder(path) is None and attempt:
                break
            time.sleep(0.01)
    raise damaged(path, first)


def _live(path: str) -> sqlite3.Connection:
    sql = connect(path, "mode=ro")
    try:
        check_kind(sql)
    except BaseException:
        sql.close()
        raise
    return sql


def _snapshot(path: str) -> sqlite3.Connection:
    sql, _, left_out = best_image(path)
    if left_out is not None and holder(path) is None:
        warnings.warn(
            f"{path}: of its log, {left_out} frames are torn or damaged and left out of what is shown.",
            StoreWarning,
            stacklevel=4,
        )
    return sql
