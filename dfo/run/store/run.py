"""The one writer of a store: it keeps a run's questions and answers, and gives back those of earlier processes."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.batch import Batch
from dfo.errors import AlreadyTold, BadState, InvalidArgument, RunMismatch, StoreWarning, UnknownCandidate
from dfo.feedback import Feedback
from dfo.oracles.outcomes import Answer
from dfo.run.store.blobs import Blobs
from dfo.run.store.book import Book, Statement
from dfo.run.store.config import differences, plain
from dfo.run.store.connection import Connection, damaged
from dfo.run.store.location import Store, path_of, plain_file
from dfo.run.store.lock import Lock
from dfo.run.store.opening import create, verify
from dfo.run.store.points import Column, encoded, shown
from dfo.run.store.rows import OK, answer_columns, answer_of, checksum, member_of, numbers_of, sealed_answer, verified
from dfo.run.store.schema import GROUP
from dfo.run.store.together import Together
from dfo.secrets import scrub

__all__ = ["Run"]

_ASK = "INSERT INTO questions VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_TELL = "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KNOWN = "SELECT * FROM questions AS q LEFT JOIN answers AS a USING (number) WHERE q.number BETWEEN ? AND ? ORDER BY 1"
CHECKPOINTS = 2


class Run:
    """A run's store, open for writing; made by :meth:`open`. A :class:`~dfo.oracles.outcomes.Ledger`.

    Attributes:
        store: where and how.
        fresh: whether nothing was begun yet.
        config: what the run was begun with, as stored; None while fresh.
        free: what may change from one process to the next; None while fresh.
        position: number of the next question of the run itself.

    Example:
        >>> import tempfile, os, numpy as np
        >>> from dfo.batch import Points
        >>> from dfo.oracles.outcomes import Answer
        >>> from dfo.run.store import Run, Store
        >>> path = os.path.join(tempfile.mkdtemp(), "run.db")
        >>> X = np.array([[1.0, 2.0]])
        >>> with Run.open(Store(path)) as run:
        ...     run.begin({"method": "cma"}, {"budget": 10})
        ...     number, known = run.ask(Points(X), list(X))
        ...     run.tell({number: Answer(5.0)})
        >>> with Run.open(Store(path)) as run:
        ...     run.begin({"method": "cma"}, {"budget": 20})
        ...     run.ask(Points(X), list(X))
        (0, {0: Answer(value=5.0, violation=None)})
    """

    def __init__(self, store: Store, lock: Lock, sql: Connection, asked: dict[int, int], told: int) -> None:
        self.store, self._lock, self._sql = store, lock, sql
        self._path = sql.path
        self._asked, self._turn = asked, told
        self._book, self._blobs = Book(sql), Blobs(sql.path)
        self._together = Together(sql, self._book, self._blobs)
        self.position, self.final, self._place = 0, 0, 0
        self.config: dict[str, Any] | None = self._book.entry("config")
        self.free: dict[str, Any] | None = self._book.entry("free")
        self.fresh = self.config is None
        self._known = self._told_before()

    @classmethod
    def open(cls, store: Store) -> Run:
        """Create a store, or open it where it is whole.

        Raises:
            RunLocked: another process writes to it.
            DamagedStore: it is torn, flipped or foreign.
            CannotWrite: it cannot be created or written.
        """
        path = path_of(store.path)
        plain_file(path)
        lock = Lock(path)
        try:
            if not plain_file(path):
                create(path)
            asked, told = verify(path)
            sql = Connection(path, store.fsync)
            try:
                return cls(store, lock, sql, asked, told)
            except BaseException:
                sql.close()
                raise
        except BaseException:
            lock.release()
            raise

    # ------------------------------------------------------------------ what the run is

    def begin(self, config: Mapping[str, Any], free: Mapping[str, Any]) -> None:
        """Write what a run is begun with, or compare it with what was stored.

        Args:
            config: JSON data that makes the run what it is; names in ``Store.accept`` may differ.
            free: JSON data that may change; a change is an event.

        Raises:
            RunMismatch: naming every difference.
        """
        now, loose = plain(config, "config"), plain(free, "free")
        events: list[tuple[str, Mapping[str, Any]]] = []
        if self.config is not None:
            found = dict(differences(self.config, now))
            if lines := [f"  {name}: {text}" for name, text in found.items() if not self._accepted(name)]:
                raise RunMismatch(
                    f"{self._path}: the stored run was begun otherwise.\n" + "\n".join(lines) + "\n"
                    "Begin as stored, use another file, or list the names in dfo.Store(path, accept=(...))."
                )
            events = [("accepted", found)] if found else []
            changes = dict(differences(self.free or {}, loose))
            events += [("changed", changes)] if changes else []
        self._book.begin(now, loose, events, self.position)
        self.config, self.free, self.fresh = now, loose, False

    def _accepted(self, name: str) -> bool:
        return any(name == one or name.startswith(one + ".") for one in self.store.accept)

    def note(self, event: str, content: Mapping[str, Any]) -> None:
        """Write down that something happened.

        Args:
            event: what, in one word.
            content: JSON data; secrets are masked.
        """
        self._book.note(event, plain(content, event), self.position)

    def retry(self, number: int, text: str) -> None:
        """Write down that an attempt failed and is made again."""
        self.note("retry", {"number": number, "text": text})

    def finish(self, status: str, message: str, summary: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        self._book.finish(status, scrub(message), plain(summary, "summary"), self.position)

    # ------------------------------------------------------------------ questions and answers

    @property
    def replaying(self) -> bool:
        """Whether everything asked so far was answered when the store was opened."""
        return 0 < self.position <= self._known

    def _told_before(self) -> int:
        """Return how many questions, from the first, have an answer."""
        gap = "SELECT min(number) FROM questions WHERE number < ? AND number NOT IN (SELECT number FROM answers)"
        first = self._sql.read(gap, (GROUP,))[0][0]
        return self._asked[0] if first is None else int(first)

    def seek(self, n: int) -> None:
        """Let question ``n`` be the next.

        Raises:
            InvalidArgument: there are fewer questions before it.
        """
        if n >= GROUP and self.final:
            self._place = n % GROUP
        elif 0 <= n <= self._asked[0]:
            self.position = n
        else:
            raise InvalidArgument(f"seek: expected 0 <= n <= {self._asked[0]}, the questions stored, got {n}.")

    def finals(self, budget: int) -> int:
        """Return how many evaluations went into recommendations when smaller budgets were used up."""
        return sum(n for group, n in self._asked.items() if 0 < group < self._group(budget))

    @staticmethod
    def _group(budget: int) -> int:
        return min(budget, 9 * GROUP - 2) + 1

    @property
    def final(self) -> int:
        """The budget that is used up while the recommendation is evaluated, else 0.

        Questions asked then get numbers of their own, so that a run that is extended goes on where it stood.
        """
        return self._final

    @final.setter
    def final(self, budget: int) -> None:
        if budget != getattr(self, "_last_final", None) and budget:
            self._place, self._last_final = 0, budget
        self._final = budget

    def ask(self, batch: Batch, points: Sequence[Any]) -> tuple[int, dict[int, Answer]]:
        """Enter questions; return the number of the first, and by number the answers known from before.

        Args:
            batch: that the points belong to.
            points: its members: arrays, blocks, tables, strings, lists.

        Raises:
            RunMismatch: other points were asked under these numbers.
            CannotWrite: the store is full, gone or read-only.
            DamagedStore: a stored row is damaged.
        """
        group = self._group(self.final) if self.final else 0
        place = self._place if group else self.position
        first, stored = group * GROUP + place, self._asked.get(group, 0) - place
        columns = [encoded(point) for point in points]
        data: list[int | None] = [None] * len(columns)
        if batch.data is not None:
            data = [int(d) for d in batch.data[: len(columns)]]
        known = self._compared(first, columns[:stored], data) if stored > 0 else {}
        if len(columns) > max(stored, 0):
            self._enter(first, columns, data, batch.step, max(stored, 0))
            self._asked[group] = place + len(columns)
        if group:
            self._place = place + len(columns)
        else:
            self.position = place + len(columns)
        return first, known

    def _enter(self, first: int, columns: list[Column], data: list[int | None], step: int, start: int) -> None:
        now, rows = time.time(), []
        for i in range(start, len(columns)):
            form, x, digest = columns[i]
            row = (first + i, step, x, data[i], now, form, digest)
            rows.append((*row, checksum("questions", row)))
        self._sql.write((_ASK, rows))

    def _compared(self, first: int, columns: list[Column], data: list[int | None]) -> dict[int, Answer]:
        """Return the known answers of questions that were asked before."""
        known = {}
        rows = self._sql.read(_KNOWN, (first, first + len(columns) - 1))
        if len(rows) != len(columns):
            raise damaged(self._path, f"table questions: rows after {first} are missing")
        try:
            for row, column, d in zip(rows, columns, data, strict=False):
                question = verified("questions", row[:8])
                if question[6] != column.digest or question[3] != d:
                    raise self._other(question, column, d)
                if row[8] is not None:
                    answer = verified("answers", (row[0], *row[8:]))
                    known[row[0]] = answer_of(*answer[3:])
        except RunMismatch:
            raise
        except BadState as error:
            raise damaged(self._path, error) from None
        return known

    def _other(self, question: tuple[Any, ...], column: Column, data: int | None) -> RunMismatch:
        number, _, x, before, _, form, digest = question
        old, new = (shown(*parts) for parts in ((form, x, digest), column))
        which = f" with data {before}" if before != data else "", f" with data {data}" if before != data else ""
        return RunMismatch(
            f"{self._path}: question {number} was another one. Stored: {old}{which[0]}. Now: {new}{which[1]}."
            " The run has to be begun as it was (same versions, same machine); or use another file."
        )

    def tell(self, answers: Mapping[int, Answer]) -> None:
        """Enter answers by number; when this returns, they outlive the process.

        Raises:
            UnknownCandidate: a number was never asked.
            AlreadyTold: a number has its answer.
            CannotWrite: the store is full, gone or read-only; the answers may be told again.
        """
        now = time.time()
        for number in answers:
            self._must_be_asked(number)
        rows = [answer_columns(k, self._turn + i, now, answer) for i, (k, answer) in enumerate(answers.items())]
        self._tell(rows)

    def _must_be_asked(self, number: int) -> None:
        group, place = divmod(number, GROUP)
        if not 0 <= place < self._asked.get(group, 0):
            raise UnknownCandidate(f"tell: expected a number that was asked, got {number}.")

    def _tell(self, rows: list[tuple[Any, ...]], *more: Statement) -> None:
        if not rows and not more:
            return
        try:
            self._sql.write((_TELL, rows), *more)
        except sqlite3.IntegrityError:
            numbers = ", ".join(str(row[0]) for row in rows[:10])
            raise AlreadyTold(f"tell: of the numbers {numbers}, one has its answer already.") from None
        self._turn += len(rows)

    # ------------------------------------------------------------------ answers of whole batches

    def answered_from(self, first: int) -> int:
        """Return how many questions from ``first`` on were answered together; 0 where none was."""
        return self._together.length(first)

    def answered(self, first: int, n: int) -> tuple[Feedback, Any] | None:
        """Return the feedback and the memory kept for questions ``first .. first + n``, or None.

        Raises:
            DamagedStore: they cannot be read.
        """
        return self._together.find(first, n)

    def answer(self, first: int, n: int, told: Feedback, memory: Any) -> None:
        """Enter the answer to a whole batch, with what the oracle remembers after it; an older memory goes.

        Raises:
            InvalidType: the memory is no data.
            CannotWrite: the store is full, gone or read-only.
        """
        for number in (first, first + n - 1)[: 2 * n]:
            self._must_be_asked(number)
        now, rows = time.time(), []
        for i in range(n):
            status, numbers, note = member_of(told, i)
            rows.append(sealed_answer(first + i, self._turn + i, now, status, numbers, note))
        self._together.enter(partial(self._tell, rows), first, n, told, memory, now, bool(self.final))

    # ------------------------------------------------------------------ what shortens a replay

    def values(self, stop: int) -> tuple[Floats, Floats | None]:
        """Return the first answers.

        Args:
            stop: how many.

        Returns:
            ``(stop,)`` values, infinite where there is none, NaN where the answer was a ranking; and ``(stop,)``
            violations, or None where none was told.

        Raises:
            DamagedStore: they cannot be read.
        """
        f, violation, constrained = np.full(stop, np.inf), np.full(stop, np.inf), False
        for row in self._sql.read("SELECT * FROM answers WHERE number < ? ORDER BY number", (min(stop, GROUP),)):
            try:
                number, _, _, status, value, total, _, bits = verified("answers", row)
                value, total = numbers_of(value, total, bits)
            except BadState as error:
                raise damaged(self._path, error) from None
            if status == OK and value is not None:
                f[number] = value
            if total is not None:
                violation[number], constrained = total, True
        return f, violation if constrained else None

    def checkpoint(self, position: int, state: object) -> None:
        """Keep the state of solver and session before question ``position``; the two newest stay.

        Raises:
            InvalidType: it is no data.
            CannotWrite: the store is full, gone or read-only; older states are as they were.
        """
        self._book.checkpoint(position, self._blobs.packed(state), CHECKPOINTS)
        if self._blobs.present():
            self._blobs.keep(self._book.columns())

    def checkpoints(self) -> Iterator[tuple[int, Any]]:
        """Yield position and state, the newest first; a damaged one is skipped with a warning."""
        for position, content, error in self._book.checkpoints():
            try:
                if error is not None:
                    raise error
                state = self._blobs.unpacked(content)
            except (BadState, OSError) as found:
                warnings.warn(
                    f"{self._path}: a state kept at evaluation {position} is damaged and not used ({found});"
                    " the run goes on from an older one, or from its answers.", StoreWarning, stacklevel=2,
                )  # fmt: skip
                continue
            yield position, state

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Let go of the store; it is one plain file again where nobody else reads it."""
        if self._lock.pid:
            self._sql.close()
            self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
