"""Rows of questions and answers: what the columns hold, and the checksum over all of them.

SQLite turns NaN into NULL and -0.0 into 0. Where that would happen the two numbers stand in ``bits`` as well.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite, isnan
from typing import Any

from dfo.errors import BadState
from dfo.feedback import Feedback, Values
from dfo.oracles.outcomes import KINDS, Answer, Failed
from dfo.run.store.points import decoded

__all__ = [
    "OK",
    "STATUSES",
    "Row",
    "answer_columns",
    "answer_of",
    "checksum",
    "member_of",
    "numbers_of",
    "row_of",
    "verified",
]

OK = "ok"
STATUSES = (OK, *KINDS)
NOTE_LIMIT = 4000
_LARGE = {"questions": 2, "feedback": 4, "checkpoints": 3}


def checksum(table: str, row: tuple[Any, ...]) -> bytes:
    """Return BLAKE2b-64 over a table's name and the columns of a row, as Python's ``ascii`` writes them.

    Points, answers and states that are bytes stand in it by their BLAKE2b-128.
    """
    large = _LARGE.get(table)
    if large is not None and type(row[large]) is bytes:
        row = (*row[:large], blake2b(row[large], digest_size=16).digest(), *row[large + 1 :])
    return blake2b(ascii((table, *row)).encode(), digest_size=8).digest()


def verified(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row, whose last column is its checksum, without it.

    Raises:
        BadState: the checksum does not fit.
    """
    content = row[:-1]
    if row[-1] != checksum(table, content):
        raise BadState(f"table {table}, row {content[0]}: the checksum does not fit")
    return content


def answer_columns(number: int, turn: int, told: float, answer: Answer) -> tuple[Any, ...]:
    """Return the columns of an answer: number, turn, told, status, value, violation, note, bits, checksum."""
    value, violation = answer.value, answer.violation
    if isinstance(value, Failed):
        return sealed_answer(number, turn, told, value.kind, (None, violation), _text(value.text))
    value = float(value)
    return sealed_answer(number, turn, told, OK if isfinite(value) else "nonfinite", (value, violation), None)


def sealed_answer(
    number: int, turn: int, told: float, status: str, numbers: tuple[float | None, float | None], note: str | None
) -> tuple[Any, ...]:
    """Return the columns of an answer with its checksum, its numbers made exact."""
    value, violation = numbers
    violation = None if violation is None else float(violation)
    bits = None
    if (not value or isnan(value) or violation is not None) and (_bent(value) or _bent(violation)):
        bits = struct.pack("<dd", *(0.0 if v is None else v for v in (value, violation))) + bytes(
            (value is not None, violation is not None)
        )
        value, violation = _as_sql(value), _as_sql(violation)
    row = (number, turn, told, status, value, violation, note, bits)
    return (*row, checksum("answers", row))


def _bent(v: float | None) -> bool:
    return v is not None and (isnan(v) or (v == 0.0 and str(v)[0] == "-"))


def _as_sql(v: float | None) -> float | None:
    return None if v is None or isnan(v) else v + 0.0


def _text(text: str) -> str:
    """Return a note that every SQLite can hold, of a size that every terminal can."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= NOTE_LIMIT else text[: NOTE_LIMIT - 3] + "..."


def numbers_of(value: float | None, violation: float | None, bits: bytes | None) -> tuple[float | None, float | None]:
    """Return value and violation to the last bit."""
    if bits is None:
        return value, violation
    if len(bits) != 18:
        raise BadState("answers: a row holds bits of a wrong length")
    both = struct.unpack("<dd", bits[:16])
    return (both[0] if bits[16] else None), (both[1] if bits[17] else None)


def answer_of(
    status: str, value: float | None, violation: float | None, note: str | None, bits: bytes | None
) -> Answer:
    """Return the answer of an answer's columns.

    Raises:
        BadState: they make no sense.
    """
    value, violation = numbers_of(value, violation, bits)
    if note is not None:
        return Answer(Failed(status, note), violation)
    if value is None or status not in STATUSES:
        raise BadState(f"answers: a row says {status!r} without a value or a note")
    return Answer(value, violation)


@dataclass(frozen=True, eq=False)
class Row:
    """One evaluation.

    Args:
        number: its number within the run, from 0.
        step: the batch that it belongs to.
        x: the point: an array, a table, a string, ...; None where only its digest is stored.
        data: number of the data that it sees, or None.
        asked: when, in seconds since 1970.
        told: when, or None while no answer is known.
        status: ``"asked"``, ``"ok"``, or why there is no usable value (see :data:`dfo.oracles.outcomes.KINDS`).
        value: the number returned, NaN and infinities as they came; None where there is none.
        violation: total constraint violation, or None.
        note: what went wrong, or None.
        digest: identifies the point.
    """

    number: int
    step: int
    x: Any
    data: int | None
    asked: float
    told: float | None
    status: str
    value: float | None
    violation: float | None
    note: str | None
    digest: bytes


def row_of(question: tuple[Any, ...], answer: tuple[Any, ...] | None) -> Row:
    """Return one evaluation of its columns, checksums taken off."""
    number, step, x, data, asked, form, digest = question
    if answer is None:
        return Row(number, step, decoded(form, x), data, asked, None, "asked", None, None, None, digest)
    _, _, told, status, value, violation, note, bits = answer
    value, violation = numbers_of(value, violation, bits)
    return Row(number, step, decoded(form, x), data, asked, told, status, value, violation, note, digest)


def member_of(told: Feedback, i: int) -> tuple[str, tuple[float | None, float | None], str | None]:
    """Return status, numbers and note of one member of an answer."""
    if not isinstance(told, Values):
        f = getattr(told, "f", None)
        return OK, (float("nan") if f is None else float(f[i]), None), None
    violation = None if told.violation is None else float(told.violation[i])
    if told.failed is not None and told.failed[i]:
        note = next((text for k, text in told.notes if k == i), "no usable value")
        return "nonfinite", (None, violation), Failed("nonfinite", note).text
    return OK, (float(told.f[i]), violation), None
