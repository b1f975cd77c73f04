"""Answers to whole batches, of oracles that are no functions, and the memory with which they go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dfo.errors import BadState
from dfo.feedback import Feedback
from dfo.run.store.blobs import Blobs, large_in
from dfo.run.store.book import Book, Statement, sealed
from dfo.run.store.connection import Connection, damaged
from dfo.run.store.rows import verified

__all__ = ["Together"]

_ENTER = "INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?)"
_LIGHTEN = "UPDATE feedback SET content = ?, checksum = ? WHERE id = ?"


@dataclass(frozen=True, eq=False)
class _Newest:
    """The answer whose memory is kept, because the run goes on from there."""

    place: int
    first: int
    n: int
    at: float
    told: Feedback
    large: set[str]


class Together:
    """The table of answers to whole batches of a store that is open for writing.

    A memory is kept until there is a newer one: nobody goes on from an older.

    Args:
        sql: the store.
        book: its small tables.
        blobs: its large arrays.
    """

    def __init__(self, sql: Connection, book: Book, blobs: Blobs) -> None:
        self.sql, self.book, self.blobs = sql, book, blobs
        rows = sql.read("SELECT id, first, n FROM feedback ORDER BY id")
        self._places: dict[int, tuple[int, int]] = {first: (place, n) for place, first, n in rows}
        self._count = len(rows)
        self._newest: _Newest | None = None

    def length(self, first: int) -> int:
        """Return how many questions from ``first`` on were answered together; 0 where none was."""
        return self._places.get(first, (0, 0))[1]

    def find(self, first: int, n: int) -> tuple[Feedback, Any] | None:
        """Return the feedback and the memory of questions ``first .. first + n``, or None.

        Raises:
            DamagedStore: they cannot be read.
        """
        place, held = self._places.get(first, (0, 0))
        if held != n:
            return None
        try:
            (row,) = self.sql.read("SELECT * FROM feedback WHERE id = ?", (place,))
            told, memory = self.blobs.unpacked(verified("feedback", row)[4])
        except (BadState, TypeError, ValueError) as error:
            text = f"table feedback, questions {first} to {first + n - 1}: {error}"
            raise damaged(self.sql.path, text) from None
        return told, memory

    def enter(
        self, write: Callable[..., None], first: int, n: int, told: Feedback, memory: Any, now: float, last: bool
    ) -> None:
        """Enter an answer.

        Args:
            write: takes the statements of it, and writes them with the answers to the single questions.
            first: number of the first question.
            n: questions.
            told: the answer.
            memory: what the oracle remembers after it; ``()`` where nothing.
            now: seconds since 1970.
            last: whether it is about the recommendation: the run, if it is extended, does not go on from it.

        Raises:
            InvalidType: the memory is no data.
            CannotWrite: the store is full, gone or read-only.
        """
        content, place, old = self.blobs.packed((told, memory)), self._count, self._newest
        statements: list[Statement] = [(_ENTER, [sealed("feedback", place, first, n, now, content)])]
        remembers, gone = not last and (not isinstance(memory, tuple) or len(memory) > 0), set[str]()
        if remembers and old is not None:
            light = self.blobs.packed((old.told, ()))
            row = sealed("feedback", old.place, old.first, old.n, old.at, light)
            statements.append((_LIGHTEN, [(*row[4:], old.place)]))
            gone = old.large - large_in(light) - large_in(content)
        write(*statements)
        self._places[first], self._count = (place, n), place + 1
        if remembers:
            self._newest = _Newest(place, first, n, now, told, large_in(content))
        if gone:
            self.blobs.drop(gone.difference(*map(large_in, self.book.states())))
