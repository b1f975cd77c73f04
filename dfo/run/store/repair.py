"""Save what is whole in a damaged store into a new one."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from dfo.errors import BadState, CannotWrite, InvalidArgument
from dfo.run.store.blobs import large_in
from dfo.run.store.carve import carved
from dfo.run.store.config import as_json
from dfo.run.store.connection import damaged, here
from dfo.run.store.images import best_image, in_memory, raw
from dfo.run.store.location import MODE_FOLDER, path_of
from dfo.run.store.lock import Lock
from dfo.run.store.opening import empty, publish
from dfo.run.store.rows import checksum
from dfo.run.store.schema import GROUP, PAGE
from dfo.run.store.verify import stream
from dfo.run.store.wal import Log, apply, read_log

__all__ = ["Salvage", "repair"]

_COLUMNS = {"run": 4, "sessions": 8, "questions": 8, "answers": 9, "feedback": 6, "checkpoints": 5, "events": 6}


@dataclass(frozen=True)
class Salvage:
    """What a repair saved.

    Args:
        kept: questions kept, from the first on without gaps, with those of their answers that are whole.
        lost: questions and answers that are known to have been there and could not be kept.
        where: where the first damage is; empty where there is none.
    """

    kept: int
    lost: int
    where: str


Rows = dict[str, dict[int, tuple[Any, ...]]]


@dataclass(eq=False)
class _Found:
    """Rows by table and key, and what was wrong."""

    rows: Rows = field(default_factory=lambda: {table: {} for table in _COLUMNS})
    where: str = ""

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        self.rows[table][row[0]] = row


def repair(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> Salvage:
    """Save the valid prefix of a store into a new file; the old one is only read.

    Questions are kept up to the first one that is lost, with their answers: an answer that is lost is asked for again
    when the run is continued.

    Args:
        path: the damaged store.
        to: name of the new one.

    Raises:
        InvalidArgument: there is no such store, or the new name is taken.
        RunLocked: somebody writes to it.
        DamagedStore: nothing of a store can be found in it.
        CannotWrite: the new file cannot be written.
    """
    source, target = path_of(path), path_of(to)
    if not os.path.isfile(source):
        raise InvalidArgument(f"{source}: no store is here.")
    if os.path.lexists(target):
        raise InvalidArgument(f"{target}: expected a new name, this one is taken.")
    lock = _locked(source)
    try:
        try:
            found = _read(source)
        except (OSError, BadState, MemoryError) as error:
            raise damaged(source, str(error) or "it is larger than the memory of this machine") from None
    finally:
        if lock is not None:
            lock.release()
    if not found.rows["run"] and not found.rows["questions"]:
        raise damaged(source, f"nothing of a store is in it ({found.where or 'no rows'})")
    kept, lost = _pruned(found.rows)
    salvage = Salvage(kept, lost, found.where)
    _write(found.rows, target, salvage)
    _copy_blobs(found.rows, source, target)
    return salvage


def _locked(path: str) -> Lock | None:
    try:
        return Lock(path)
    except CannotWrite:  # a folder that cannot be written: nobody else does either
        return None


# ---------------------------------------------------------------------- reading


def _read(path: str) -> _Found:
    """Return every whole row, by SQL where the file is whole, else page by page."""
    found = _Found()
    try:
        sql, _, left_out = best_image(path)
    except BadState as error:
        found.where = str(error)
        _carve(path, found)
        return found
    with closing(sql):
        for table in _COLUMNS:
            for row in _tolerant(sql, table):
                found.add(table, row)
    if left_out is not None:
        found.where = f"the log (-wal): {left_out} frames"
        _carve(path, found, only_new=True)
    return found


def _tolerant(sql: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    if table != "checkpoints":
        yield from stream(sql, table)
        return
    for row in sql.execute("SELECT * FROM checkpoints ORDER BY id").fetchall():
        if row[-1] == checksum(table, row[:-1]):
            yield row[:-1]


def _carve(path: str, found: _Found, only_new: bool = False) -> None:
    """Add the rows of every page of the file, then of every page of its log."""
    data = raw(path)
    log: Log | None = read_log(path, witness=not here(path))
    image = bytearray(data)
    if log is not None and len(log.frames):
        apply(image, log.frames[log.good])

    def pages(number: int) -> bytes:
        if not 0 < number * PAGE <= len(image):
            raise ValueError("no such page")
        return bytes(image[(number - 1) * PAGE : number * PAGE])

    for at in range(0, len(data), PAGE):
        _add(found, data[at : at + PAGE], at == 0, pages, only_new)
    if log is not None:
        for frame in log.frames:
            _add(found, frame["data"].tobytes(), int(frame["page"]) == 1, pages, only_new)


def _add(found: _Found, page: bytes, first: bool, pages: Any, only_new: bool) -> None:
    for table, row in carved(page, first, pages):
        if not only_new or (table in ("questions", "answers") and row[0] not in found.rows[table]):
            found.add(table, row)


# ---------------------------------------------------------------------- what fits together


def _pruned(rows: Rows) -> tuple[int, int]:
    """Leave the rows of a whole store; return questions kept, and questions and answers lost."""
    questions, answers = rows["questions"], rows["answers"]
    turns = max((row[1] for row in answers.values()), default=-1) + 1
    groups: dict[int, int] = {}
    for number in sorted({*questions, *answers}):
        groups.setdefault(number // GROUP, 0)
    for group in groups:
        groups[group] = next(i for i in itertools.count() if group * GROUP + i not in questions)
    asked = sum(max(n for n in {*questions, *answers} if n // GROUP == g) % GROUP + 1 for g in groups)
    kept = sum(groups.values())
    rows["questions"] = {n: questions[n] for n in sorted(questions) if n % GROUP < groups[n // GROUP]}
    inside = [row for n, row in answers.items() if n % GROUP < groups.get(n // GROUP, 0)]
    ordered = sorted(inside, key=lambda row: row[1])
    rows["answers"] = {row[0]: (row[0], i, *row[2:]) for i, row in enumerate(ordered)}
    _prune_others(rows)
    return kept, asked - kept + turns - len(inside)


def _prune_others(rows: Rows) -> None:
    """Leave the answers of whole batches that are there, and states with all that was told before them."""
    answers = rows["answers"]
    told = next((i for i in range(len(answers) + 1) if i not in answers), 0)
    rows["checkpoints"] = {i: row for i, row in rows["checkpoints"].items() if row[2] <= told}
    whole = [r for r in rows["feedback"].values() if all(k in answers for k in range(r[1], r[1] + min(r[2], 1 << 20)))]
    rows["feedback"] = dict(enumerate(whole))
    for table in ("sessions", "events", "feedback"):
        ordered = sorted(rows[table].values(), key=lambda row: row[0])
        rows[table] = {i: (i, *row[1:]) for i, row in enumerate(ordered)}


# ---------------------------------------------------------------------- writing


def _write(rows: Rows, target: str, salvage: Salvage) -> None:
    content = as_json({"kept": salvage.kept, "lost": salvage.lost, "where": salvage.where})
    event = len(rows["events"])
    rows["events"][event] = (event, time.time(), salvage.kept, "repaired", content)
    with closing(in_memory(empty())) as sql:
        sql.execute("BEGIN")
        for table, n in _COLUMNS.items():
            text = f"INSERT INTO {table} VALUES ({', '.join('?' * n)})"
            sql.executemany(text, ((*row, checksum(table, row)) for row in rows[table].values()))
        sql.execute("COMMIT")
        image = sql.serialize()
    publish(target, image, replace=False)


def _copy_blobs(rows: Rows, source: str, target: str) -> None:
    """Copy the large arrays that are still named; one that cannot be copied is reported when it is used."""
    columns = [row[-1] for table in ("checkpoints", "feedback") for row in rows[table].values()]
    names = set().union(*map(large_in, columns))
    if not names:
        return
    with suppress(OSError):
        os.mkdir(target + ".blobs", MODE_FOLDER)
        os.chmod(target + ".blobs", MODE_FOLDER)
        for entry in os.listdir(source + ".blobs"):
            if entry.partition(".")[0] in names:
                with suppress(OSError):
                    copy = os.path.join(target + ".blobs", entry)
                    shutil.copyfile(os.path.join(source + ".blobs", entry), copy, follow_symlinks=False)
                    os.chmod(copy, 0o600)
