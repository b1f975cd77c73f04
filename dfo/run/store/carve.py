"""Rows of a store out of its pages, whatever became of the trees that hold them: a row whose checksum fits is true.

Source: https://www.sqlite.org/fileformat2.html (b-tree pages, cells, records)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from dfo.run.store.rows import checksum
from dfo.run.store.schema import PAGE

__all__ = ["carved"]

LEAF = 0x0D
_LOCAL = PAGE - 35  # most bytes of a record in its page
_LEAST = (PAGE - 12) * 32 // 255 - 23
_TABLES: dict[int, tuple[tuple[str, tuple[int, ...]], ...]] = {  # by number of columns: names, and which are REAL
    4: (("run", ()),),
    5: (("checkpoints", (1,)),),
    6: (("feedback", (3,)), ("events", (1,))),
    8: (("questions", (4,)), ("sessions", (1,))),
    9: (("answers", (2, 4, 5)),),
}
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)

Pages = Callable[[int], bytes]


def carved(page: bytes, first: bool, pages: Pages) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the rows of one page: table, and columns without the checksum, which fits.

    Args:
        page: its bytes.
        first: whether it is the first of the file, whose tree begins behind a header.
        pages: returns other pages, where long rows go on.
    """
    start = 100 if first else 0
    if len(page) < PAGE or page[start] != LEAF:
        return
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for i in range(min(count, PAGE // 4)):
        at = int.from_bytes(page[start + 8 + 2 * i : start + 10 + 2 * i], "big")
        try:
            key, record = _cell(page, at, pages)
            found = _row(key, record)
        except (IndexError, ValueError, struct.error, OverflowError):  # no cell of ours, or a damaged one
            continue
        if found is not None:
            yield found


def _cell(page: bytes, at: int, pages: Pages) -> tuple[int, bytes]:
    """Return key and record of a cell, which may go on in other pages."""
    size, at = _varint(page, at)
    key, at = _varint(page, at)
    if size <= _LOCAL:
        return key, page[at : at + size]
    local = _LEAST + (size - _LEAST) % (PAGE - 4)
    local = local if local <= _LOCAL else _LEAST
    parts, left = [page[at : at + local]], size - local
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while left > 0:
        more = pages(following)
        following = int.from_bytes(more[:4], "big")
        parts.append(more[4 : 4 + min(left, PAGE - 4)])
        left -= PAGE - 4
    return key, b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(9):
        byte = data[at + i]
        if i == 8:
            value = value << 8 | byte
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value - (1 << 64 if value >> 63 else 0), at + i + 1


def _row(key: int, record: bytes) -> tuple[str, tuple[Any, ...]] | None:
    """Return table and columns of a record that is a row of a store, else None."""
    end, at = _varint(record, 0)
    kinds = []
    while at < end:
        kind, at = _varint(record, at)
        kinds.append(kind)
    tables = _TABLES.get(len(kinds))
    if tables is None or kinds[0] != 0:  # the key stands for the first column
        return None
    columns: list[Any] = [key]
    for kind in kinds[1:]:
        value, end = _value(record, end, kind)
        columns.append(value)
    for name, reals in tables:
        row = tuple(float(v) if i in reals and type(v) is int else v for i, v in enumerate(columns))
        if row[-1] == checksum(name, row[:-1]):
            return name, row[:-1]
    return None


def _value(record: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind >= 12:
        size = (kind - 12) // 2
        data = record[at : at + size]
        if len(data) != size:
            raise ValueError("cut short")
        return (data.decode() if kind % 2 else data), at + size
    size = _SIZES[kind]
    data = record[at : at + size]
    if kind == 0:
        return None, at
    if kind == 7:
        return struct.unpack(">d", data)[0], at + 8
    return (kind - 8 if kind >= 8 else int.from_bytes(data, "big", signed=True)), at + size
