"""A bench on disk: what was asked for, and one line for every run that ended.

::

    DIR/config.json      the plan, and for every session its versions and machine
    DIR/results.jsonl    a record (:class:`~dfo.bench.Record`) a line, in the order in which runs ended

A line is written at once, after its run. A process that is killed leaves at most a torn last line, which
the next session removes; the runs that were under way are run again. A directory always holds a full grid:
methods, problems or seeds that are added later are run with everything that is there.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dfo.bench.plan import Cell, Plan
from dfo.bench.record import Record
from dfo.errors import BadState, InvalidArgument, short
from dfo.files import content, opened, replacing, strict_json

__all__ = ["Config", "Store", "read_config", "read_records"]

SCHEMA = 1
LARGEST = 1 << 28
"""Most bytes of a file that are read."""

_FIXED = ("suite", "budget", "targets")
_VERSIONS = ("numpy", "scipy", "cma", "nevergrad", "coco-experiment", "scikit-learn", "torch")


@dataclass(frozen=True)
class Config:
    """What ``config.json`` holds.

    Args:
        plan: the grid.
        sessions: for every time the bench was run otherwise than before: ``started``, ``command``,
            ``versions``, ``machine``.
    """

    plan: Plan
    sessions: tuple[Mapping[str, Any], ...]


def read_config(folder: str | os.PathLike[str]) -> Config:
    """Read the configuration of a bench.

    Raises:
        InvalidArgument: there is no bench in the folder.
        BadState: the file is damaged, or of a later schema.
    """
    path = Path(folder, "config.json")
    try:
        table = strict_json(content(path, LARGEST))
        if table["schema"] != SCHEMA:
            raise BadState(f"{path}: expected schema {SCHEMA}, got {short(table['schema'])}.")
        return Config(Plan.from_json(table["plan"]), tuple(dict(s) for s in table["sessions"]))
    except FileNotFoundError:
        raise InvalidArgument(f"{path.parent}: no bench is stored here (no config.json).") from None
    except OSError as error:
        raise BadState(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise error if isinstance(error, BadState) else BadState(f"{path}: damaged ({error!r}).") from None


def read_records(folder: str | os.PathLike[str]) -> dict[Cell, Record]:
    """Read the runs that ended; of a cell that was run again, the last.

    Raises:
        BadState: a line other than a torn last one is damaged; names file and line.
    """
    path = Path(folder, "results.jsonl")
    try:
        lines = content(path, LARGEST).split(b"\n")[:-1]  # what follows the last newline is torn
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadState(f"{path}: cannot be read ({error.strerror or error}).") from None
    records: dict[Cell, Record] = {}
    for i, line in enumerate(lines):
        try:
            record = Record.from_line(line)
        except BadState as error:
            raise BadState(f"{path}, line {i + 1}: {error}. Remove the line to have its run repeated.") from None
        records.pop(record.cell, None)
        records[record.cell] = record
    return records


def difference(stored: Plan, asked: Plan) -> list[str]:
    """Return what keeps two plans from sharing a directory, a line each."""
    old, new = stored.to_json(), asked.to_json()
    return [f"{name}: stored {old[name]!r}, asked for {new[name]!r}" for name in _FIXED if old[name] != new[name]]


class Store:
    """The directory of a bench, open for writing by one process.

    Args:
        folder: created if need be.
        plan: joined with what is stored already.
        command: what the user typed, to be stored with the versions.

    Raises:
        InvalidArgument: another bench is stored here, or another process writes to it.
        BadState: a file is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Plan, command: str = "") -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = _locked(self.folder / "results.jsonl")
        except OSError as error:
            raise InvalidArgument(f"{folder}: expected a directory to write to ({error.strerror or error}).") from None
        try:
            self.config = self._joined(plan, session(command))
            self.records = read_records(self.folder)
            self._mend()
        except BaseException:
            self._file.close()
            raise

    @property
    def plan(self) -> Plan:
        """The grid that the directory holds."""
        return self.config.plan

    def missing(self) -> list[Cell]:
        """Return the cells without a record, and those that failed: they are tried again."""
        failed = {cell for cell, record in self.records.items() if record.failure is not None}
        return [cell for cell in self.plan.cells() if cell not in self.records or cell in failed]

    def append(self, record: Record) -> None:
        """Write a record; it outlives this process from here on."""
        self._file.write(record.to_line().encode() + b"\n")
        self._file.flush()
        self.records.pop(record.cell, None)
        self.records[record.cell] = record

    def close(self) -> None:
        """Let go of the directory."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _joined(self, plan: Plan, here: Mapping[str, Any]) -> Config:
        sessions: tuple[Mapping[str, Any], ...] = ()
        if (self.folder / "config.json").exists():
            stored = read_config(self.folder)
            if lines := difference(stored.plan, plan):
                raise InvalidArgument(
                    f"{self.folder}: another bench is stored here.\n  " + "\n  ".join(lines) + "\n"
                    "Use another --out, or ask for what is stored; methods, problems and seeds may be added."
                )
            plan, sessions = stored.plan.joined(plan), stored.sessions
        elif os.fstat(self._file.fileno()).st_size:
            raise BadState(f"{self.folder}: results.jsonl is not of a bench (no config.json). Use another --out.")
        if not sessions or {**sessions[-1], "started": ""} != {**here, "started": ""}:
            sessions = (*sessions, here)
        config = Config(plan, sessions)
        table = {"schema": SCHEMA, "plan": plan.to_json(), "sessions": sessions}
        with replacing(self.folder / "config.json") as file:
            file.write(json.dumps(table, indent=1) + "\n")
        return config

    def _mend(self) -> None:
        """Cut a torn last line off, so that the next record does not grow onto it."""
        held = content(self.folder / "results.jsonl", LARGEST)
        self._file.truncate(held.rfind(b"\n") + 1)


def session(command: str) -> dict[str, Any]:
    """Return when, by what command, with what and on what a bench runs."""
    from dfo import __version__
    from dfo.random import RNG_VERSION

    versions = {"dfo": __version__, "rng": str(RNG_VERSION), "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": versions,
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count() or 0},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _locked(path: Path) -> BinaryIO:
    """Open a file to append to, or say that another process has it."""
    with suppress(FileNotFoundError):
        opened(path).close()  # a pipe would be waited for
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "ab")
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system when the process dies
        except OSError:
            file.close()
            raise InvalidArgument(f"{path.parent}: another process is running a bench here. Wait for it.") from None
    return file
