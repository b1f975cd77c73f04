"""Data as one column, its large arrays in files beside the store that are named by what they hold.

A column is the length of a table, the table as JSON (the tree of :func:`dfo.run.packing.pack`, and for each array its
dtype, shape and place), and the bytes of the arrays. An array above 1 MiB stands in ``<store>.blobs/`` under its
BLAKE2b-256, as safetensors where that package is there, else as the archive of :func:`dfo.run.packing.save`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import numpy as np

from dfo.arrays import Array
from dfo.errors import BadState, CannotWrite, short
from dfo.files import strict_json
from dfo.run.packing import load, pack, save, unpack
from dfo.run.store.location import MODE_FOLDER, make_private, sync_folder

__all__ = ["Blobs", "large_in"]

LARGE = 1 << 20
"""Bytes above which an array lies beside the store."""

_KINDS = "biufcmMSU"


class Blobs:
    """The folder of large arrays of one store; made when there is one.

    Args:
        path: of the store.
    """

    def __init__(self, path: str) -> None:
        self.folder = path + ".blobs"

    def packed(self, state: object) -> bytes:
        """Return data as a column, its large arrays written.

        Raises:
            InvalidType: it is no data.
            CannotWrite: a large array cannot be written.
        """
        tree, arrays = pack(state)
        table: dict[str, list[Any]] = {}
        parts: list[bytes] = []
        at = 0
        for name, array in arrays.items():
            place: int | str = at
            if array.nbytes > LARGE:
                place = self._put(array)
            else:
                parts.append(array.tobytes("A"))
                at += len(parts[-1])
            table[name] = [array.dtype.str, list(array.shape), "F" if array.flags.fnc else "C", place]
        head = json.dumps({"tree": tree, "arrays": table}, allow_nan=False, separators=(",", ":")).encode()
        return b"".join((len(head).to_bytes(8, "little"), head, *parts))

    def unpacked(self, column: bytes) -> Any:
        """Return the data of a column.

        Raises:
            BadState: the column, or a file that it names, is damaged or missing.
        """
        head, data = _split(column)
        try:
            arrays = {name: self._array(entry, data) for name, entry in head["arrays"].items()}
            tree = head["tree"]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BadState(f"packed data makes no sense ({error!r})") from None
        return unpack(tree, arrays)

    def _array(self, entry: list[Any], data: bytes) -> Array:
        dtype, shape, order, place = entry
        kind, size = np.dtype(dtype), math.prod(shape)
        if kind.kind not in _KINDS or any(type(n) is not int or n < 0 for n in shape) or order not in ("C", "F"):
            raise BadState("packed data makes no sense")
        if isinstance(place, str):
            array = self._get(place)
            if array.dtype != kind or list(array.shape) != shape:
                raise BadState(f"{place}: the array is not what the store says")
            return np.asarray(array, order="F" if order == "F" else "C")
        raw = bytearray(data[place : place + size * kind.itemsize])
        if len(raw) != size * kind.itemsize:
            raise BadState("packed data is cut short")
        return np.ndarray(tuple(shape), kind, raw, order="F" if order == "F" else "C")

    # ------------------------------------------------------------------ files

    def _put(self, array: Array) -> str:
        """Write an array under its digest, whole or not at all."""
        name = _digest(array)
        try:
            self._make_folder()
            if any(os.path.exists(self._file(name, end)) for end in (".safetensors", ".npz")):
                return name
            self._write(name, array)
        except OSError as error:
            from dfo.run.store.connection import cannot_write

            raise cannot_write(error, self.folder) from error
        return name

    def _write(self, name: str, array: Array) -> None:
        end, write = _writer(array)
        target, temporary = self._file(name, end), self._file(name, f".{os.getpid()}.tmp")
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        os.close(make_private(temporary))
        try:
            write(temporary, array)
            handle = os.open(temporary, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(self.folder)

    def _get(self, name: str) -> Array:
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise BadState(f"{short(name)} is no name of an array")
        for end in (".safetensors", ".npz"):
            path = self._file(name, end)
            if os.path.lexists(path):
                array = _read(path, end)
                if _digest(array) != name:
                    raise BadState(f"{path}: the checksum does not fit")
                return array
        raise BadState(f"{self._file(name, '.safetensors')}: not there")

    def _file(self, name: str, end: str) -> str:
        return os.path.join(self.folder, name + end)

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self.folder, MODE_FOLDER)
            os.chmod(self.folder, MODE_FOLDER)
        if not stat.S_ISDIR(os.lstat(self.folder).st_mode):
            raise CannotWrite(errno.ENOTDIR, "store: expected a folder for large arrays", self.folder)

    def present(self) -> bool:
        """Tell whether there are large arrays."""
        return os.path.isdir(self.folder)

    def keep(self, columns: Iterable[bytes]) -> None:
        """Remove the arrays that none of these columns names; a file that cannot be removed stays."""
        named = {name for column in columns for name in large_in(column)}
        with suppress(OSError):
            self.drop({entry.partition(".")[0] for entry in os.listdir(self.folder)} - named)
            os.rmdir(self.folder)  # if it is empty

    def drop(self, names: Iterable[str]) -> None:
        """Remove arrays by name; a file that cannot be removed stays."""
        for name in names:
            for end in (".safetensors", ".npz"):
                with suppress(OSError):
                    os.unlink(self._file(name, end))


def large_in(column: bytes) -> set[str]:
    """Return the names of the large arrays of a column; none of one that is damaged."""
    try:
        entries: Mapping[str, Any] = _split(column)[0]["arrays"]
        return {entry[3] for entry in entries.values() if isinstance(entry[3], str)}
    except (BadState, TypeError, KeyError, AttributeError, IndexError):
        return set()


def _split(column: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(column[:8], "little") if len(column) >= 8 else -1
    if not 0 <= length <= len(column) - 8:
        raise BadState("packed data is cut short")
    head = strict_json(column[8 : 8 + length])
    if not isinstance(head, dict):
        raise BadState("packed data makes no sense")
    return head, column[8 + length :]


def _digest(array: Array) -> str:
    digest = blake2b(f"{array.dtype.str} {array.shape};".encode(), digest_size=32)
    digest.update(array.tobytes())
    return digest.hexdigest()


def _writer(array: Array) -> tuple[str, Any]:
    """Return the ending and the function that write this array."""
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8 and array.dtype.isnative:
        try:
            from safetensors.numpy import save_file
        except ImportError:
            pass
        else:

            def write(path: str, value: Array) -> None:
                try:
                    save_file({"array": np.ascontiguousarray(value)}, path)
                except Exception as error:  # it has errors of its own, which say the system's number
                    number = re.search(r"os error (\d+)", str(error))
                    raise OSError(int(number[1]) if number else errno.EIO, str(error), path) from error

            return ".safetensors", write
    return ".npz", save


def _read(path: str, end: str) -> Array:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise BadState(f"{path}: expected a plain file")
    if end == ".npz":
        array = load(path)
    else:
        try:
            from safetensors.numpy import load_file
        except ImportError:
            raise BadState(f"{path}: reading it needs safetensors. Run: pip install 'dfo-optim[torch]'") from None
        try:
            array = load_file(path).get("array")
        except Exception as error:  # whatever a foreign file provokes
            raise BadState(f"{path}: damaged ({short(str(error))})") from None
    if not isinstance(array, np.ndarray):
        raise BadState(f"{path}: holds no array")
    return array
