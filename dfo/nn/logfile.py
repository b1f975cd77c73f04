r"""What a replay log looks like on disk.

A head, then records, little-endian::

    b"dfo.log\n"  version u32  length u32  header (JSON)  check u32
    length u32  check u32  step i64  q u32  groups u16  names u16  weights f64[q]  rates f64[groups]
                           names x (length u8, UTF-8, value f64)  check u32

Each check is a CRC-32 of what stands before it, begun from the check before that: a flipped bit is found for certain,
and a record that is missing, repeated or in another place but for one in 2**32. A record is handed to the system in
one piece before ``append`` returns. What a killed process left half written is recognised by its length, and cut by the
next writer; anything else that does not fit is an error that names the place. No pickle.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from dfo.arrays import Floats
from dfo.errors import BadState, InvalidArgument, InvalidType, short
from dfo.files import strict_json
from dfo.random import RNG_VERSION

__all__ = [
    "FORMAT",
    "HEAD",
    "Record",
    "Scan",
    "check_head",
    "checked",
    "framed",
    "lock",
    "new_file",
    "read_header",
    "write_header",
]

FORMAT = 1
"""Version of the file; a reader refuses newer ones."""

_MAGIC = b"dfo.log\n"
_HEAD = struct.Struct("<8sII")
_RECORD = struct.Struct("<qIHH")
_CHECK = struct.Struct("<I")
HEAD = _HEAD.size  # bytes before the header
_EDGES = 12  # bytes of a record around its body


@dataclass(frozen=True, eq=False)
class Record:
    """One step.

    Args:
        step: its number.
        weights: ``(q,)``, of the directions in the update.
        rates: learning rate of every group of parameters.
        named: further numbers, such as losses.
    """

    step: int
    weights: Floats
    rates: tuple[float, ...]
    named: Mapping[str, float] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the body of the record in a log."""
        weights = np.ascontiguousarray(self.weights, "<f8")
        names = [(name.encode(), float(value)) for name, value in self.named.items()]
        fits = weights.ndim == 1 and len(self.rates) < 1 << 16 and all(len(name) < 256 for name, _ in names)
        if not (fits and 0 <= self.step < 1 << 63):
            raise InvalidArgument(
                "record: expected 0 <= step < 2**63, weights (q,), fewer than 65536 rates, names of at most 255 bytes;"
                f" got step {self.step}, weights of shape {weights.shape}, {len(self.rates)} rates,"
                f" {short(list(self.named))}."
            )
        parts = [
            _RECORD.pack(self.step, len(weights), len(self.rates), len(names)),
            weights.tobytes(),
            np.asarray(self.rates, "<f8").tobytes(),
        ]
        parts += [bytes([len(name)]) + name + struct.pack("<d", value) for name, value in names]
        return b"".join(parts)

    @staticmethod
    def from_bytes(body: bytes) -> Record:
        """Read the body of a record; ValueError or IndexError where it makes no sense."""
        step, q, groups, names = _RECORD.unpack_from(body)  # Scan saw that so much is there
        numbers = np.frombuffer(body, "<f8", q + groups, _RECORD.size).astype(np.float64)
        at, named = _RECORD.size + 8 * (q + groups), {}
        for _ in range(names):
            end = at + 1 + body[at]
            named[body[at + 1 : end].decode()] = float(np.frombuffer(body, "<f8", 1, end)[0])
            at = end + 8
        if at != len(body):
            raise ValueError("bytes are left over")
        return Record(step, numbers[:q], tuple(numbers[q:].tolist()), named)


# ---------------------------------------------------------------------- records


def framed(body: bytes, check: int) -> tuple[bytes, int]:
    """Return a record as it stands in the file behind one that ends with ``check``, and its own last check."""
    length = _CHECK.pack(len(body))
    first = crc32(length, check)
    last = crc32(body, first)
    return b"".join((length, _CHECK.pack(first), body, _CHECK.pack(last))), last


def checked(data: bytes, size: int) -> bytes | None:
    """Return the body of a record of ``size`` bytes, given with the four bytes before it; None if it is damaged."""
    if len(data) != size + 4:
        return None
    body = data[12:-4]
    return body if framed(body, int.from_bytes(data[:4], "little"))[0] == data[4:] else None


class Scan:
    """The complete records of a log.

    Args:
        content: of the file.
        end: where the header ends.
        check: with which it ends.

    Attributes:
        steps: of the records.
        starts: where they begin.
        end: where the last one ends.
        check: with which it ends.
        damage: what is wrong with what follows, or nothing; an incomplete last record is no damage.
    """

    def __init__(self, content: bytes, end: int, check: int) -> None:
        self.steps, self.starts = array("q"), array("Q")
        self.end, self.check, self.size = end, check, len(content)
        self.damage = ""
        while self.end < self.size and self._next(content):
            pass
        if self.damage and not content[self.end :].strip(b"\0"):
            self.damage = ""  # room that the file system had given, and power was lost before it was filled

    def note(self) -> str:
        """Return what is dropped behind the last record, or nothing."""
        if self.end == self.size:
            return ""
        what = f"damage ({self.damage})" if self.damage else "an incomplete record"
        return f"{self.size - self.end} bytes dropped behind record {len(self.steps)}, at byte {self.end}: {what}."

    def _next(self, content: bytes) -> bool:
        """Take one record more, or say why not."""
        start = self.end
        if self.size < start + 8:
            return False
        length, first = struct.unpack_from("<II", content, start)
        if crc32(content[start : start + 4], self.check) != first:
            self.damage = "the length of a record fails its check"
            return False
        if self.size < start + length + _EDGES:
            return False
        body = content[start + 8 : start + 8 + length]
        (last,) = _CHECK.unpack_from(content, start + 8 + length)
        if crc32(body, first) != last or length < _RECORD.size:
            self.damage = "a record fails its check"
            return False
        step = _RECORD.unpack_from(body)[0]
        if self.steps and step <= self.steps[-1]:
            self.damage = "a step is not larger than the one before"
            return False
        self.steps.append(step)
        self.starts.append(start)
        self.end, self.check = start + length + _EDGES, last
        return True


# ---------------------------------------------------------------------- head


def write_header(header: Mapping[str, Any]) -> bytes:
    """Return the head of a file; versions are added.

    Raises:
        InvalidType: the header is no plain JSON.
    """
    from dfo.version import __version__

    table = {"dfo": __version__, "rng": RNG_VERSION, **header}
    try:
        text = json.dumps(table, allow_nan=False).encode()
        same = json.loads(text) == table
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidType(f"header: expected plain JSON ({error}).") from None
    if not same:
        raise InvalidType("header: expected plain JSON: lists, dictionaries with string keys, finite numbers, strings.")
    head = _HEAD.pack(_MAGIC, FORMAT, len(text)) + text
    return head + _CHECK.pack(crc32(head))


def check_head(content: bytes, name: str) -> int:
    """Return the length of the header that the first bytes of a file announce.

    Raises:
        BadState: it is no log, or of a later version.
    """
    if len(content) < HEAD or not content.startswith(_MAGIC):
        raise BadState(f"{name}: expected a replay log, got a file that does not begin like one (byte 0).")
    _, version, length = _HEAD.unpack_from(content)
    if version != FORMAT:
        raise BadState(
            f"{name}: expected a log of format {FORMAT}, got {version} (byte 8). Read it with the version of dfo that"
            " wrote it; if it was this one, the file is damaged."
        )
    return int(length)


def read_header(content: bytes, name: str) -> tuple[dict[str, Any], int, int]:
    """Return the header of a file, where it ends, and with which check.

    Raises:
        BadState: it is no log, damaged, or of a later version.
    """
    end = HEAD + check_head(content, name)
    if len(content) < end + 4 or _CHECK.unpack_from(content, end)[0] != crc32(content[:end]):
        raise BadState(f"{name}: the header is damaged (bytes 12 to {min(end + 4, len(content))}).")
    try:
        header = strict_json(content[HEAD:end])
        if not isinstance(header, dict):
            raise ValueError("no table")
    except ValueError as error:
        raise BadState(f"{name}: the header makes no sense ({short(str(error))}; byte {_HEAD.size}).") from None
    return header, end + 4, crc32(content[:end])


# ---------------------------------------------------------------------- files


def lock(file: BinaryIO, name: str) -> None:
    """Take a file for this process alone, until it closes it or dies.

    Raises:
        InvalidArgument: another one has it.
    """
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InvalidArgument(f"{name}: another writer has this log. Wait for it, or open it for reading.") from None


def new_file(path: Path, head: bytes, fsync: bool) -> BinaryIO:
    """Return a file that is locked and has its head before anyone can see it.

    Raises:
        OSError: it exists (FileExistsError), or cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    file: Any = open(fresh, "w+b", buffering=0)  # noqa: SIM115  (the log owns it)
    try:
        lock(file, str(path))
        if file.write(head) != len(head):
            raise OSError("only a part was written")
        if fsync:
            os.fsync(file.fileno())
        _name(fresh, path)
    except BaseException:
        file.close()
        raise
    finally:
        with suppress(OSError):
            fresh.unlink()
    result: BinaryIO = file
    return result


def _name(fresh: Path, path: Path) -> None:
    """Give a file its name, unless the name is taken."""
    try:
        os.link(fresh, path)  # fails where it is taken, unlike a renaming
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        fresh.rename(path)
