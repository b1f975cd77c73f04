"""The small tables of a store: what the run is, its sessions, events, whole answers and kept states."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dfo.errors import BadState
from dfo.files import strict_json
from dfo.run.store.config import as_json
from dfo.run.store.connection import Connection, damaged
from dfo.run.store.rows import checksum, verified
from dfo.run.store.session import session

__all__ = ["ENTRIES", "Book", "Statement", "entry_in", "sealed"]

ENTRIES = ("config", "free", "status", "message", "summary")
_PUT = "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?)"
_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)"

Statement = tuple[str, Sequence[tuple[Any, ...]]]


def sealed(table: str, *columns: Any) -> tuple[Any, ...]:
    """Return columns with their checksum behind them."""
    return (*columns, checksum(table, columns))


def entry_in(rows: Sequence[tuple[Any, ...]], name: str) -> Any:
    """Return what the table ``run`` says under a name, or None.

    Raises:
        BadState: the row is damaged.
    """
    for row in rows:
        _, found, content = verified("run", row)
        if found == name and content is not None:
            return strict_json(content)
    return None


class Book:
    """The small tables of a store that is open for writing.

    Args:
        sql: the store.
    """

    def __init__(self, sql: Connection) -> None:
        self.sql = sql
        self._events = self._count("events")
        self._sessions = self._count("sessions")

    def _count(self, table: str) -> int:
        return int(self.sql.read(f"SELECT count(*) FROM {table}")[0][0])

    def entry(self, name: str) -> Any:
        """Return what the run was begun with, or how it ended; None where nothing is said.

        Raises:
            DamagedStore: it cannot be read.
        """
        try:
            return entry_in(self.sql.read("SELECT * FROM run ORDER BY id"), name)
        except BadState as error:
            raise damaged(self.sql.path, error) from None

    def begin(self, config: Any, free: Any, events: list[tuple[str, Mapping[str, Any]]], after: int) -> None:
        """Write what this process begins with, and itself."""
        ended = self.entry("status")
        if ended is not None:
            events = [*events, ("continued", {"status": ended})]
        rows = [self._event(i, kind, content, after) for i, (kind, content) in enumerate(events)]
        here = session()
        self.sql.write(
            (_PUT, [_entry("config", config), _entry("free", free)]),
            (_PUT, [_entry(name, None) for name in ENTRIES[2:]] if ended is not None else []),
            (_EVENT, rows),
            ("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [sealed("sessions", self._sessions, *here)]),
        )
        self._events += len(rows)
        self._sessions += 1

    def _event(self, i: int, kind: str, content: Mapping[str, Any], after: int) -> tuple[Any, ...]:
        return sealed("events", self._events + i, time.time(), after, kind, as_json(content))

    def note(self, kind: str, content: Mapping[str, Any], after: int) -> None:
        """Write an event."""
        self.sql.write((_EVENT, [self._event(0, kind, content, after)]))
        self._events += 1

    def finish(self, status: str, message: str, summary: Any, after: int) -> None:
        """Write how the run ended."""
        end = {"status": status, "message": message, "summary": summary}
        self.sql.write(
            (_PUT, [_entry(name, content) for name, content in end.items()]),
            (_EVENT, [self._event(0, "finished", {"status": status, "message": message}, after)]),
        )
        self._events += 1

    # ------------------------------------------------------------------ states

    def checkpoint(self, position: int, content: bytes, keep: int) -> None:
        """Write a state, and remove all but the newest."""
        newest = self.sql.read("SELECT coalesce(max(id), -1) FROM checkpoints")[0][0]
        row = sealed("checkpoints", newest + 1, time.time(), position, content)
        self.sql.write(
            ("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", [row]),
            ("DELETE FROM checkpoints WHERE id <= ?", [(newest + 1 - keep,)]),
        )

    def checkpoints(self) -> Iterator[tuple[int, bytes, BadState | None]]:
        """Yield position, column and what is wrong with it, the newest first."""
        for row in self.sql.read("SELECT * FROM checkpoints ORDER BY id DESC"):
            try:
                _, _, position, content = verified("checkpoints", row)
                yield position, content, None
            except BadState as error:
                yield row[2], b"", error

    def states(self) -> list[bytes]:
        """Return the packed columns of the states that are kept."""
        return [row[0] for row in self.sql.read("SELECT content FROM checkpoints")]

    def columns(self) -> list[bytes]:
        """Return the packed columns that may name large arrays."""
        return [
            row[0] for row in self.sql.read("SELECT content FROM checkpoints UNION ALL SELECT content FROM feedback")
        ]


def _entry(name: str, content: Any) -> tuple[Any, ...]:
    return sealed("run", ENTRIES.index(name), name, None if content is None else as_json(content))
