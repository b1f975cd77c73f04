"""Suites: which problems are compared, with which budget. A TOML file each.

::

    name = "bbob-small"
    summary = "COCO's 24 noise-free functions in 2 and 5 dimensions, one instance"
    budget = "100d"          # or a number of evaluations
    targets = "coco"         # left out where no lowest value is known

    [[problems]]             # a selection; what is left out means all that the pack lists
    pack = "bbob"
    functions = [1, 8]
    dims = [2, 5]
    instances = [1]
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dfo.bench.budget import Budget
from dfo.bench.packs import packs, suite_folders
from dfo.bench.targets import TARGETS
from dfo.errors import InvalidArgument, short, unknown
from dfo.files import content

__all__ = ["Selection", "Suite", "load_suite", "suite_files"]

LARGEST = 1 << 16
"""Most bytes of a suite."""

DOTS = 500
"""Most dots in a line of a suite."""


@dataclass(frozen=True)
class Selection:
    """Problems of one pack; None means all that the pack lists.

    Args:
        pack: name of the pack.
        functions: labels or numbers of functions.
        dims: dimensions.
        instances: instances.
    """

    pack: str
    functions: tuple[str | int, ...] | None = None
    dims: tuple[int, ...] | None = None
    instances: tuple[int, ...] | None = None

    def names(self) -> list[str]:
        """Return the names of the problems.

        Raises:
            UnknownName: the pack does not exist, or has no such function, dimension or instance.
        """
        table = packs()
        if self.pack not in table:
            raise unknown("pack of problems", self.pack, table)
        return table[self.pack].select(self.dims, self.functions, self.instances)


@dataclass(frozen=True)
class Suite:
    """A set of problems with a budget.

    Args:
        name: for listings and reports.
        summary: one sentence.
        problems: selections, in order.
        budget: evaluations of a run, unless the user says otherwise.
        targets: name of the targets that count, or None to compare best values.
    """

    name: str
    summary: str
    problems: tuple[Selection, ...]
    budget: Budget
    targets: str | None = None

    def narrowed(
        self,
        dims: Sequence[int] | None = None,
        functions: Sequence[str | int] | None = None,
        instances: Sequence[int] | None = None,
    ) -> Suite:
        """Return the suite with other dimensions, functions or instances in every selection; None keeps them."""
        changes: dict[str, Any] = {"dims": dims, "functions": functions, "instances": instances}
        given: dict[str, Any] = {name: tuple(value) for name, value in changes.items() if value is not None}
        return replace(self, problems=tuple(replace(selection, **given) for selection in self.problems))

    def names(self) -> list[str]:
        """Return the names of all problems, each once.

        Raises:
            UnknownName: a pack, function, dimension or instance does not exist.
        """
        return list(dict.fromkeys(name for selection in self.problems for name in selection.names()))


def suite_files() -> dict[str, Path]:
    """Return the files of the installed suites by name."""
    return {file.stem: file for folder in suite_folders() for file in sorted(folder.glob("*.toml"))}


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """Read a suite.

    Args:
        name: of an installed suite (``dfo list suites``), or the path of a ``.toml`` file.

    Raises:
        UnknownName: no suite has this name; the nearest one is named.
        InvalidArgument: the file cannot be read or says something else than a suite; names file and key.

    Example:
        >>> from dfo.bench import load_suite
        >>> len(load_suite("quick").names())
        12
    """
    text = os.fspath(name)
    if text.endswith(".toml") or os.sep in text:
        return _read(Path(text))
    files = suite_files()
    if text not in files:
        raise unknown("suite", text, files)
    return _read(files[text])


def _read(path: Path) -> Suite:
    try:
        text = content(path, LARGEST).decode()
        if any(line.count(".") > DOTS for line in text.splitlines()):  # a.a.a.a... takes the square of its length
            raise ValueError(f"more than {DOTS} dots in a line")
        table = tomllib.loads(text)
    except OSError as error:
        raise InvalidArgument(f"{path}: the suite cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{path}: not a TOML file ({error}).") from None
    return _suite(table, path)


def _suite(table: Mapping[str, Any], path: Path) -> Suite:
    _only(table, ("name", "summary", "budget", "targets", "problems"), str(path))
    text, entries = _is_text, table.get("problems")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidArgument(f"{path}: problems: expected at least one [[problems]] table, got {short(entries)}.")
    targets = _value(table, "targets", str(path), text, "a name", None)
    if targets is not None and targets not in TARGETS:
        raise InvalidArgument(f"{path}: targets: {unknown('targets', targets, TARGETS)}")
    try:
        budget = Budget.of(table.get("budget", "100d"))
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None
    return Suite(
        name=_value(table, "name", str(path), text, "a text", path.stem),
        summary=_value(table, "summary", str(path), text, "a text", ""),
        problems=tuple(_selection(entry, f"{path}: problems[{i}]") for i, entry in enumerate(entries)),
        budget=budget,
        targets=targets,
    )


def _selection(entry: Mapping[str, Any], where: str) -> Selection:
    _only(entry, ("pack", "functions", "dims", "instances"), where)
    pack = _value(entry, "pack", where, _is_text, "the name of a pack", None)
    if pack is None:
        raise InvalidArgument(f"{where}.pack: expected the name of a pack, got nothing.")
    return Selection(
        pack,
        _list(entry, "functions", where, lambda v: _is_text(v) or _is_count(v), "labels or numbers of functions"),
        _list(entry, "dims", where, _is_count, "integers >= 1"),
        _list(entry, "instances", where, _is_count, "integers >= 1"),
    )


def _list(
    entry: Mapping[str, Any], key: str, where: str, fits: Callable[[Any], bool], what: str
) -> tuple[Any, ...] | None:
    def fit(values: Any) -> bool:
        return isinstance(values, list) and bool(values) and all(fits(v) for v in values)

    values = _value(entry, key, where, fit, f"a list of {what}", None)
    return None if values is None else tuple(values)


def _only(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InvalidArgument(f"{where}: {unknown('key', key, keys)}")


def _value(table: Mapping[str, Any], key: str, where: str, fits: Callable[[Any], bool], what: str, default: Any) -> Any:
    if key not in table:
        return default
    if not fits(table[key]):
        separator = "." if where.endswith("]") else ": "
        raise InvalidArgument(f"{where}{separator}{key}: expected {what}, got {short(table[key])}.")
    return table[key]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
