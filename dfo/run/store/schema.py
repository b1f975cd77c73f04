"""The tables of a store. Their text is compared to the letter when a file is opened."""

from __future__ import annotations

__all__ = ["APPLICATION", "GROUP", "PAGE", "TABLES", "VERSION", "fingerprint"]

APPLICATION = int.from_bytes(b"dfo.", "big")
"""``PRAGMA application_id``: "dfo."."""

VERSION = 1
"""``PRAGMA user_version``: version of the tables."""

PAGE = 4096

GROUP = 10**9
"""Questions 0, 1, 2, ... are a run's own; from ``(budget + 1) * GROUP`` those about its recommendation, asked when that
budget was used up: a run that is extended does not ask them again, and goes on with the numbers where it stood."""

TABLES = {
    "run": """CREATE TABLE run (
    id INTEGER PRIMARY KEY,   -- 0 config, 1 free, 2 status, 3 message, 4 summary
    name TEXT NOT NULL,
    content TEXT,             -- JSON
    checksum BLOB NOT NULL)""",
    "sessions": """CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,   -- 0, 1, 2, ...
    started REAL NOT NULL,    -- seconds since 1970, as every time here
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    command TEXT NOT NULL,    -- JSON list, without secrets
    versions TEXT NOT NULL,   -- JSON
    python TEXT NOT NULL,
    checksum BLOB NOT NULL)""",
    "questions": """CREATE TABLE questions (
    number INTEGER PRIMARY KEY,   -- 0, 1, 2, ... without gaps; last words of a budget from (budget + 1) * 10^9
    step INTEGER NOT NULL,        -- the batch it belongs to
    x,                            -- JSON text; above 256 numbers the bytes; NULL above 2^20 coordinates
    data INTEGER,                 -- number of the data that it sees
    asked REAL NOT NULL,
    form TEXT NOT NULL,           -- library, dtype and shape, or "json"
    digest BLOB NOT NULL,         -- BLAKE2b-128 of form and bytes
    checksum BLOB NOT NULL)""",
    "answers": """CREATE TABLE answers (
    number INTEGER PRIMARY KEY,   -- of the question
    turn INTEGER NOT NULL,        -- 0, 1, 2, ...: the order in which answers came
    told REAL NOT NULL,
    status TEXT NOT NULL,         -- ok, raised, timeout, died, nonfinite, bad_type
    value REAL,                   -- NULL where there is none, and for NaN
    violation REAL,
    note TEXT,                    -- what happened
    bits BLOB,                    -- value and violation as two doubles, where SQL would bend them: NaN, -0.0
    checksum BLOB NOT NULL)""",
    "feedback": """CREATE TABLE feedback (
    id INTEGER PRIMARY KEY,   -- 0, 1, 2, ...
    first INTEGER NOT NULL,   -- the questions answered together
    n INTEGER NOT NULL,
    told REAL NOT NULL,
    content BLOB NOT NULL,    -- the answer and the memory of the oracle, packed
    checksum BLOB NOT NULL)""",
    "checkpoints": """CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    position INTEGER NOT NULL,   -- number of the next question
    content BLOB NOT NULL,       -- state of solver and session, packed
    checksum BLOB NOT NULL)""",
    "events": """CREATE TABLE events (
    id INTEGER PRIMARY KEY,   -- 0, 1, 2, ...
    at REAL NOT NULL,
    after INTEGER NOT NULL,   -- number of the next question then
    kind TEXT NOT NULL,
    content TEXT NOT NULL,    -- JSON
    checksum BLOB NOT NULL)""",
    "evaluations": """CREATE VIEW evaluations AS
    SELECT q.number, q.step, q.x, q.data, q.asked, a.told, coalesce(a.status, 'asked') AS status,
           a.value, a.violation, a.note, nullif(q.number / 1000000000, 0) - 1 AS final,
           q.form, q.digest, a.turn, a.bits,
           q.checksum AS question_checksum, a.checksum AS answer_checksum
    FROM questions AS q LEFT JOIN answers AS a ON a.number = q.number""",
}


def fingerprint() -> set[tuple[str, str]]:
    """Return what ``sqlite_schema`` holds in a store: pairs of name and text."""
    return set(TABLES.items())
