"""The evaluations of a stored run as a table for other programs: CSV, JSON lines, Parquet.

The columns are ``number, step, status, value, violation, note, asked, told`` and the coordinates: ``x0, x1, ...``, the
names of the parameters, or ``x`` for text. What was evaluated while the export ran is left for the next one.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dfo.errors import CannotWrite, InvalidArgument, MissingPackage, short
from dfo.files import replacing
from dfo.report.text import inert

if TYPE_CHECKING:
    from dfo.run.store import Row, View

__all__ = ["COLUMNS", "FORMATS", "cell", "export", "finite", "format_of"]

COLUMNS = ("number", "step", "status", "value", "violation", "note", "asked", "told")
"""The columns before the coordinates."""

_CHUNK = 4096  # rows in memory at a time

Cells: TypeAlias = dict[str, Any]


def format_of(path: str | os.PathLike[str], wanted: str | None = None) -> str:
    """Return the format of an export: the one asked for, or the one that the suffix names.

    Raises:
        InvalidArgument: neither names a format.

    Example:
        >>> format_of("run.csv"), format_of("run.txt", "jsonl")
        ('csv', 'jsonl')
    """
    name = (wanted or Path(path).suffix.removeprefix(".")).lower()
    if name not in FORMATS:
        raise InvalidArgument(
            f"--format: expected {', '.join(FORMATS)}, got {short(name)}. Name one, or end --to in one such as .csv."
        )
    return name


def export(view: View, to: str | os.PathLike[str], form: str) -> int:
    """Write the evaluations of a run; an older file stays until the new one is whole. Return how many.

    Raises:
        MissingPackage: Parquet without pyarrow.
        CannotWrite: the file cannot be written.
    """
    try:
        return FORMATS[form](_Source(view, view.count, _order(view.config or {})), Path(to))
    except OSError as error:
        raise CannotWrite(f"--to: {short(str(to))} cannot be written: {error.strerror or error}.") from error


def cell(value: object) -> object:
    """Return a cell for a spreadsheet: text that it would take for a formula gets an apostrophe; numbers stay exact.

    Example:
        >>> cell("=HYPERLINK(1)"), cell(-1.5)
        ("'=HYPERLINK(1)", '-1.5')
    """
    if isinstance(value, float):
        return repr(value)
    return inert(value) if isinstance(value, str) else value


# ---------------------------------------------------------------------- rows as cells


@dataclass(frozen=True)
class _Source:
    """The evaluations that an export writes, as often as it needs to go through them."""

    view: View
    count: int
    order: Mapping[str, int]

    def rows(self) -> Iterator[Row]:
        return islice(self.view.rows(), self.count)

    def cells(self) -> Iterator[Cells]:
        return (_cells(row, self.order) for row in self.rows())

    def kinds(self) -> dict[str, set[type]]:
        """Return every column that occurs with the types of its values."""
        kinds: dict[str, set[type]] = {name: set() for name in COLUMNS}
        for cells in self.cells():
            for name, value in cells.items():
                found = kinds.setdefault(name, set())
                if value is not None:
                    found.add(str if type(value) is int and value.bit_length() > 63 else type(value))
        return kinds


def _order(config: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the place of each parameter, as the run was begun; a stored point has them sorted."""
    match config.get("x0"):
        case {"mapping": dict(names)} | {"class": str(), "fields": {"parameters": {"mapping": dict(names)}}}:
            return {name: i for i, name in enumerate(names)}
    return {}


def _cells(row: Row, order: Mapping[str, int]) -> Cells:
    """Return a row by column, coordinates spread."""
    cells: Cells = {name: getattr(row, name) for name in COLUMNS}
    for name, value in sorted(_coordinates(row.x), key=lambda pair: order.get(pair[0], 0)):
        while name in cells:
            name = f"{name}_"
        cells[name] = value
    return cells


def _coordinates(x: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(x, Mapping):
        return ((str(name), _simple(value)) for name, value in x.items())
    values = _listed(x)
    if not isinstance(values, list):
        return (("x", values),)
    return ((f"x{i}", _simple(value)) for i, value in enumerate(values))


def _listed(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _simple(value: Any) -> Any:
    value = _listed(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(finite(value))


# ---------------------------------------------------------------------- formats


def _csv(source: _Source, path: Path) -> int:
    names = list(source.kinds())
    with replacing(path) as file:
        writer = csv.writer(file)  # RFC 4180: commas, CRLF, quotes doubled
        writer.writerow([cell(name) for name in names])
        done = 0
        for cells in source.cells():
            writer.writerow([cell(cells.get(name)) for name in names])
            done += 1
    return done


def _jsonl(source: _Source, path: Path) -> int:
    with replacing(path) as file:
        done = 0
        for row in source.rows():
            content = {name: finite(getattr(row, name)) for name in COLUMNS}
            file.write(json.dumps({**content, "x": finite(row.x)}, allow_nan=False) + "\n")
            done += 1
    return done


def finite(value: Any) -> Any:
    """Return data, points included, as strict JSON has it; numbers that it lacks become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(part) for name, part in value.items()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return [finite(part) for part in value] if isinstance(value, (list, tuple)) else finite(_listed(value))


def _parquet(source: _Source, path: Path) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingPackage(
            "Parquet needs the package pyarrow. Run: pip install 'dfo-optim[parquet]', or export to CSV."
        ) from None
    types = {name: _type(name, found, pa) for name, found in source.kinds().items()}
    schema = pa.schema(list(types.items()))
    done = 0
    with replacing(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        left = source.cells()
        while chunk := list(islice(left, _CHUNK)):
            content = {name: [_as(row.get(name), types[name], pa) for row in chunk] for name in types}
            writer.write_table(pa.table(content, schema))
            done += len(chunk)
    return done


_FIXED = {"number": "int64", "step": "int64", "value": "float64", "violation": "float64"}


def _type(name: str, found: set[type], pa: Any) -> Any:
    """Return the narrowest type that holds a column; mixed values become text."""
    if name in _FIXED:
        return getattr(pa, _FIXED[name])()
    if found == {bool}:
        return pa.bool_()
    if found and found <= {int, float}:
        return pa.int64() if found == {int} else pa.float64()
    return pa.string()


def _as(value: Any, kind: Any, pa: Any) -> Any:
    if kind == pa.string() and value is not None and not isinstance(value, str):
        return json.dumps(value)
    return value


FORMATS: Mapping[str, Callable[[_Source, Path], int]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
"""How each format is written."""
