"""The log of a run on a network: with the start weights, it rebuilds the weights of any step.

An update is a sum of directions that their key names, so a step is written down as one number a direction and one rate
a group of parameters: 8 bytes each, and 28 bytes a step. :mod:`dfo.nn.logfile` says what the file looks like.
"""

from __future__ import annotations

import csv
import io
import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, overload

import numpy as np
import torch

from dfo.arrays import Floats
from dfo.errors import BadState, CannotWrite, InvalidArgument
from dfo.files import opened
from dfo.nn.logfile import (
    HEAD,
    Record,
    Scan,
    check_head,
    checked,
    framed,
    lock,
    new_file,
    read_header,
    write_header,
)
from dfo.nn.snapshots import fingerprint
from dfo.random import RNG_VERSION

__all__ = ["Record", "ReplayLog", "describe", "replay"]


class ReplayLog(Sequence[Record]):
    """An append-only log, in a file or in memory: a sequence of :class:`Record`.

    Make one with :meth:`create` or :meth:`open`. One process writes, under a lock that the system lets go when the
    process dies; any number may read, also meanwhile, and see the records that were complete when they opened it.

    Attributes:
        header: what the run was, plain JSON.
        note: what was dropped at the end of the file, or nothing.

    Example:
        >>> log = ReplayLog.create(None, {"seed": 0})
        >>> log.append(0, [0.5, -0.25], [1e-3], {"loss": 2.0})
        >>> log[0].weights.tolist(), log[0].rates, log[0].named
        ([0.5, -0.25], (0.001,), {'loss': 2.0})
    """

    def __init__(self, file: BinaryIO, name: str, writable: bool, fsync: bool, salvage: bool) -> None:
        self._file, self._name, self._writable, self._fsync = file, name, writable, fsync
        file.seek(0)
        check_head(file.read(HEAD), name)  # before the whole of what is no log is read
        file.seek(0)
        content = file.read()
        self.header, end, check = read_header(content, name)
        found = Scan(content, end, check)
        if found.damage and not salvage:
            raise BadState(
                f"{name}: damaged at byte {found.end}, behind {len(found.steps)} intact records ({found.damage})."
                " Read these with salvage=True."
            )
        self.note = found.note()
        self._steps, self._starts, self._end, self._check = found.steps, found.starts, found.end, found.check
        if writable and self.note:
            self._cut(self._end)

    # ------------------------------------------------------------------ opening

    @classmethod
    def create(
        cls, path: str | os.PathLike[str] | None, header: Mapping[str, Any], *, fsync: bool = False
    ) -> ReplayLog:
        """Begin a log.

        Args:
            path: of a file that does not exist yet; None keeps the log in memory.
            header: what the run is, plain JSON (see :func:`describe`); versions are added.
            fsync: have every record survive a loss of power too, not only the death of the process.

        Raises:
            InvalidArgument: the file exists.
            InvalidType: the header is no plain JSON.
            CannotWrite: the file cannot be written.
        """
        head = write_header(header)
        if path is None:
            return cls(io.BytesIO(head), "the log in memory", True, False, False)
        path = Path(path)
        try:
            return cls(new_file(path, head, fsync), str(path), True, fsync, False)
        except FileExistsError:
            raise InvalidArgument(f"{path}: expected no such file, got one. Open it, or choose another name.") from None
        except OSError as error:
            raise CannotWrite(f"{path}: the log cannot be written ({error.strerror or error}).") from error

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, write: bool = False, salvage: bool = False, fsync: bool = False
    ) -> ReplayLog:
        """Open a log that exists.

        Args:
            path: of the file.
            write: to append; cuts off what does not belong to a complete record.
            salvage: where something is damaged, take the intact records before it.
            fsync: as in :meth:`create`.

        Raises:
            InvalidArgument: there is no such file, or another process writes to it.
            BadState: something is damaged (says where), or the version is newer.
            CannotWrite: it cannot be written to.
        """
        try:
            file = opened(path, write)
        except FileNotFoundError:
            raise InvalidArgument(
                f"{path}: expected a log, got no such file. Make one with ReplayLog.create."
            ) from None
        except OSError as error:
            raise CannotWrite(f"{path}: the log cannot be opened ({error.strerror or error}).") from error
        try:
            if write:
                lock(file, str(path))
            return cls(file, str(path), write, fsync, salvage)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Let go of the file; a log in memory stays as it is."""
        if not isinstance(self._file, io.BytesIO):
            self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # nothing is buffered, so nothing is lost
            self.close()

    def __enter__(self) -> ReplayLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------ reading

    @property
    def records(self) -> Sequence[Record]:
        """The records, for slicing by position."""
        return self

    @property
    def identity(self) -> str:
        """SHA-256 of the header, as hex digits: names the run in its snapshots."""
        return sha256(json.dumps(self.header, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        return self._record(range(len(self))[index])

    def __iter__(self) -> Iterator[Record]:
        return (self._record(i) for i in range(len(self)))

    def position(self, step: int) -> int:
        """Return how many records are of earlier steps."""
        return bisect_left(self._steps, step)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the records as a table: step, rates, named numbers, weights; empty where a record has none.

        Raises:
            CannotWrite: the file cannot be written.
        """
        groups = max((len(r.rates) for r in self), default=0)
        q = max((len(r.weights) for r in self), default=0)
        names = list(dict.fromkeys(name for r in self for name in r.named))
        try:
            with open(path, "w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(
                    ["step", *(f"rate_{i}" for i in range(groups)), *names, *(f"weight_{i}" for i in range(q))]
                )
                for r in self:
                    rates = [*map(repr, r.rates), *[""] * (groups - len(r.rates))]
                    named = [repr(r.named[name]) if name in r.named else "" for name in names]
                    table.writerow([r.step, *rates, *named, *map(repr, r.weights.tolist())])
        except OSError as error:
            raise CannotWrite(f"{path}: the table cannot be written ({error.strerror or error}).") from error

    # ------------------------------------------------------------------ writing

    def append(
        self,
        step: int,
        weights: Floats | Sequence[float],
        rates: Sequence[float],
        named: Mapping[str, float] | None = None,
    ) -> None:
        """Write a step; it outlives this process from here on.

        Args:
            step: larger than the last.
            weights: ``(q,)``, of the directions in the update.
            rates: of the groups of parameters.
            named: further numbers.

        Raises:
            InvalidArgument: the step is not larger than the last, or the record does not fit the format.
            CannotWrite: disk full, ...; the log ends where it did.
        """
        self._check_writable()
        if self._steps and step <= self._steps[-1]:
            raise InvalidArgument(
                f"append: expected a step > {self._steps[-1]}, got {step}. To go on from an earlier one, truncate."
            )
        record = Record(int(step), np.asarray(weights, float), tuple(map(float, rates)), named or {})
        data, check = framed(record.to_bytes(), self._check)
        self._put(data)
        self._steps.append(record.step)
        self._starts.append(self._end)
        self._end, self._check = self._end + len(data), check

    def truncate(self, step: int) -> None:
        """Drop the records of this step and of later ones, to go on from here.

        Raises:
            CannotWrite: the file cannot be cut.
        """
        self._check_writable()
        kept = self.position(step)
        if kept == len(self):
            return
        start = self._starts[kept]
        self._cut(start)
        self._file.seek(start - 4)
        self._check = int.from_bytes(self._file.read(4), "little")
        self._end = start
        del self._steps[kept:], self._starts[kept:]

    def _check_writable(self) -> None:
        if not self._writable:
            raise InvalidArgument(f"{self._name}: open for reading only. Open it with write=True.")

    def _put(self, data: bytes) -> None:
        try:
            self._file.seek(self._end)
            written = self._file.write(data)
            if written != len(data):  # the disk is full or nearly so: the next attempt says why
                written += self._file.write(data[written:])
            if written != len(data):
                raise OSError("only a part was written")
            if self._fsync:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise CannotWrite(
                f"{self._name}: a record cannot be written ({error.strerror or error}). The log is whole up to it."
            ) from error

    def _cut(self, end: int) -> None:
        try:
            self._file.truncate(end)
            if self._fsync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise CannotWrite(f"{self._name}: the log cannot be cut ({error.strerror or error}).") from error

    def _record(self, i: int) -> Record:
        """Read record ``i`` and check it once more."""
        start, end = self._starts[i], self._starts[i + 1] if i + 1 < len(self) else self._end
        self._file.seek(start - 4)
        body = checked(self._file.read(end - start + 4), end - start)
        if body is None:
            raise BadState(f"{self._name}: the record at byte {start} has changed since the log was opened.")
        try:
            return Record.from_bytes(body)
        except (ValueError, IndexError) as error:
            raise BadState(f"{self._name}: the record at byte {start} makes no sense ({error}).") from error


def describe(
    tensors: Mapping[str, torch.Tensor], seed: int, config: Mapping[str, Any], start: str | None = None
) -> dict[str, Any]:
    """Return a header: what must be known beside the records to rebuild the weights.

    Args:
        tensors: the weights at the start.
        seed: of the run.
        config: the method with its options resolved, plain JSON.
        start: name of a snapshot that the run begins from; without it, the hash of the weights is taken.
    """
    first = next(iter(tensors.values()), torch.empty(0))
    return {
        "seed": int(seed),
        "config": dict(config),
        "tensors": [
            {"name": name, "shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
            for name, t in tensors.items()
        ],
        "start": {"sha256": fingerprint(tensors)} if start is None else {"snapshot": start},
        "device": first.device.type,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }


def replay(
    log: ReplayLog,
    tensors: Mapping[str, torch.Tensor],
    apply: Callable[[Record, Mapping[str, torch.Tensor]], None],
    start: int | None = None,
    stop: int | None = None,
) -> int:
    """Repeat the updates of the steps ``start <= step < stop`` on tensors that have seen the steps before ``start``.

    Args:
        log: of the run.
        tensors: by name; changed in place. From a snapshot of step ``s``, replay from ``start=s``.
        apply: makes the update of one record.
        start: the first step, None for the first of the log.
        stop: the first step that is left out, None for none.

    Returns:
        How many records were applied.

    Raises:
        BadState: the tensors are not those of the run, its random numbers are of another version, or, from the
            first record on, the weights are not those that it began with.
    """
    if log.header.get("rng") != RNG_VERSION:
        raise BadState(
            f"replay: expected random numbers of version {RNG_VERSION}, the log has {log.header.get('rng')}."
            f" Replay it with dfo {log.header.get('dfo')}, which wrote it."
        )
    first = 0 if start is None else log.position(start)
    last = len(log) if stop is None else log.position(stop)
    _same(log.header, tensors, first == 0)
    for i in range(first, last):
        apply(log[i], tensors)
    return max(0, last - first)


def _same(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], from_start: bool) -> None:
    """Compare tensors with what a header says of them, where it says something."""
    if "tensors" in header:
        wanted = {t["name"]: (tuple(t["shape"]), t["dtype"]) for t in header["tensors"]}
        got = {n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in tensors.items()}
        if wanted != got:
            name = next(n for n in sorted({*wanted, *got}) if wanted.get(n) != got.get(n))
            raise BadState(
                f"replay: expected {name!r} as {wanted.get(name, 'absent')}, got {got.get(name, 'nothing')}."
                " Pass the tensors that the run moved."
            )
    stored = header.get("start", {}).get("sha256")
    if from_start and stored is not None and fingerprint(tensors) != stored:
        raise BadState("replay: these are not the weights that the run began with. Load those, or start at a snapshot.")
