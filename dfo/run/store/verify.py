"""Whether a file is a whole store: its kind, its tables to the letter, SQLite's own check, every row's checksum."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from dfo.errors import BadState, short
from dfo.run.store.rows import verified
from dfo.run.store.schema import APPLICATION, GROUP, VERSION, fingerprint

__all__ = ["check_kind", "check_pages", "check_rows", "stream"]

_CHUNK = 2000


def check_kind(sql: sqlite3.Connection) -> None:
    """See that a database is a store of this version, with its tables and no others.

    Raises:
        BadState: it is not; says what it is.
        sqlite3.Error: it is no database.
    """
    application = sql.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION:
        raise BadState("it is a database, but no store of dfo")
    version = sql.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise BadState(
            f"it is of version {version}, this dfo reads up to {VERSION}; read it with the dfo that wrote it"
        )
    found = set(sql.execute("SELECT name, sql FROM sqlite_schema LIMIT 100"))
    if version != VERSION or found != fingerprint():
        names = sorted(str(name) for name, _ in found ^ fingerprint())
        raise BadState(f"its tables are not those of version {VERSION} (see {short(', '.join(names))})")


def check_pages(sql: sqlite3.Connection) -> None:
    """Run SQLite's own check.

    Raises:
        BadState: it found something.
    """
    found = sql.execute("PRAGMA quick_check(1)").fetchall()
    if found != [("ok",)]:
        raise BadState(f"damaged pages ({short(str(found[0][0]) if found else 'no answer', 200)})")


def stream(sql: sqlite3.Connection, table: str, start: int = 0) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table in order, each verified, without their checksums; no transaction stays open.

    Raises:
        BadState: a row's checksum does not fit.
    """
    key = "number" if table in ("questions", "answers") else "id"
    while rows := sql.execute(
        f"SELECT * FROM {table} WHERE {key} >= ? ORDER BY {key} LIMIT {_CHUNK}",
        (start,),
    ).fetchall():
        for row in rows:
            yield verified(table, row)
        start = rows[-1][0] + 1


def check_rows(sql: sqlite3.Connection) -> tuple[dict[int, int], int]:
    """Verify every row but those of states, which are looked at when they are used.

    Returns:
        How many questions there are in each group (see :data:`GROUP`), and how many answers.

    Raises:
        BadState: a row is damaged, missing or there twice.
    """
    for table in ("run", "sessions", "feedback", "events"):
        for i, row in enumerate(stream(sql, table)):
            if table != "run" and row[0] != i:
                raise BadState(f"table {table}: row {i} is missing")
    asked: dict[int, int] = {0: 0}
    for row in stream(sql, "questions"):
        group, place = divmod(row[0], GROUP)
        if place != asked.setdefault(group, 0):
            raise BadState(f"table questions: number {group * GROUP + asked[group]} is missing")
        asked[group] += 1
    return asked, _check_answers(sql, asked)


def _check_answers(sql: sqlite3.Connection, asked: dict[int, int]) -> int:
    """Verify that every answer has its question, and that none of those given is missing; return how many."""
    total = sum(asked.values())
    told, turns, seen = 0, 0, bytearray(total // 8 + 1)
    for row in stream(sql, "answers"):
        number, turn = row[:2]
        if number % GROUP >= asked.get(number // GROUP, 0):
            raise BadState(f"table answers: number {number} was never asked")
        if not 0 <= turn < total or seen[turn >> 3] >> (turn & 7) & 1:
            raise BadState(f"table answers: number {number} has turn {turn}, which cannot be")
        seen[turn >> 3] |= 1 << (turn & 7)
        told, turns = told + 1, max(turns, turn + 1)
    if turns != told:
        raise BadState(f"table answers: {turns - told} of {turns} answers are missing")
    return told
