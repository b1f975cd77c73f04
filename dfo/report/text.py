"""Words and numbers as they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "columns_of", "fitted", "inert", "number", "percent", "plain", "signed", "span", "visible"]


@dataclass(frozen=True)
class Table:
    """A table of words, for any medium; the first column is a name, the others are numbers.

    Args:
        title: what it shows.
        columns: headings.
        rows: as many words each as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def visible(text: object) -> str:
    r"""Return text in which control characters are spelled out, so that a name cannot steer a terminal.

    Example:
        >>> print(visible("a\x1b[31mb"))
        a\x1b[31mb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text))


def inert(text: str) -> str:
    """Return text for a cell of CSV that no spreadsheet takes for a formula: an apostrophe before what begins like one.

    Example:
        >>> inert("=HYPERLINK(1)"), inert("a=1")
        ("'=HYPERLINK(1)", 'a=1')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def percent(share: float) -> str:
    """Return a share in percent, such as ``"61.3"``."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def signed(difference: float) -> str:
    """Return a difference of shares in percentage points with its sign, such as ``"+4.2"``."""
    return "-" if math.isnan(difference) else f"{100 * difference:+.1f}"


def span(low: float, high: float, sign: bool = False) -> str:
    """Return an interval of shares in percent, such as ``"58.0..64.1"``; empty if it is unknown."""
    show = signed if sign else percent
    return "" if math.isnan(low) or math.isnan(high) else f"{show(low)}..{show(high)}"


def number(value: float, digits: int = 4) -> str:
    """Return a number in few digits."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"


def plain(table: Table) -> str:
    """Return a table for a log: columns aligned, no colours.

    Example:
        >>> print(plain(Table("Shares", ("method", "10d"), (("cma", "61.3"), ("random", "9.0")))))
        Shares
        method   10d
        cma     61.3
        random   9.0
    """
    lines = [tuple(map(visible, row)) for row in (table.columns, *table.rows)]
    return "\n".join([visible(table.title), *(_line(row, _widths(table)) for row in lines)])


def fitted(table: Table, width: int) -> list[Table]:
    """Cut a table into tables that are at most ``width`` wide, each with the first column.

    Example:
        >>> table = Table("Shares", ("method", "10d", "50d"), (("cma", "61.3", "70.0"),))
        >>> [part.columns for part in fitted(table, 13)]
        [('method', '10d'), ('method', '50d')]
    """
    first, *others = _widths(table)
    parts: list[list[int]] = [[]]
    used = first
    for i, wide in enumerate(others, start=1):
        if parts[-1] and used + 2 + wide > width:
            parts.append([])
            used = first
        parts[-1].append(i)
        used += 2 + wide
    return [columns_of(table, [0, *part]) for part in parts]


def columns_of(table: Table, keep: Sequence[int]) -> Table:
    """Return the table with only the columns of these numbers."""
    rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
    return Table(table.title, tuple(table.columns[i] for i in keep), rows)


def _widths(table: Table) -> list[int]:
    columns = zip(table.columns, *table.rows, strict=True)
    return [max(len(visible(word)) for word in column) for column in columns]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0].ljust(widths[0])
    return "  ".join([first, *(word.rjust(width) for word, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
