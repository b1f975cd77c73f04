"""Any solver state as JSON and named arrays, and back to the last bit; no pickle anywhere.

State is data: arrays, numbers, strings, None, :class:`~dfo.random.Key`, tuples, dictionaries with string
keys, and dataclasses of these. One packer therefore serves every solver. Dataclasses are stored by the
name of their type. Reading builds them without calling ``__init__`` or any other code of theirs, imports
nothing (but torch, for tensors), and finds only dataclasses of packages that have a solver in
:data:`dfo.solvers.SOLVERS`, or that were given to :func:`register`: a file may hold wrong numbers, it
cannot hold code.

A file is an uncompressed ``.npz`` archive: ``tree`` is the JSON text as bytes, ``a0, a1, ...`` are the
arrays, and ``checksum`` is the BLAKE2b-256 of all of them.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.lib import format as npy

from dfo.arrays import Array, is_torch
from dfo.errors import BadState, InvalidType, short
from dfo.files import opened, strict_json
from dfo.random import RNG_VERSION, Key
from dfo.solvers import SOLVERS

__all__ = ["SCHEMA", "load", "pack", "register", "save", "unpack"]

SCHEMA = 1
"""Version of the tree; a reader refuses newer ones."""

T = TypeVar("T")
_KINDS = "biufcmMSU"  # the dtypes whose bytes are their values
_registered: dict[str, type] = {}


def register(cls: type[T]) -> type[T]:
    """Let a dataclass of any package be a part of states; usable as a decorator.

    Raises:
        InvalidType: it is not a dataclass.
    """
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise InvalidType(f"register: expected a dataclass, got {short(cls)}.")
    _registered[_name(cls)] = cls
    return cls


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _find(name: str) -> type | None:
    """Return the dataclass that may stand in a state under this name, or None."""
    if name in _registered:
        return _registered[name]
    module, _, path = name.partition(":")
    packages = {"dfo", *(where.partition(":")[0].partition(".")[0] for where in SOLVERS.values())}
    found: Any = sys.modules.get(module) if module.partition(".")[0] in packages else None
    for part in path.split("."):
        found = None if found is None else vars(found).get(part)  # no getattr: a module's could import
    return found if isinstance(found, type) and is_dataclass(found) and _name(found) == name else None


# ---------------------------------------------------------------------- to data


def pack(state: object) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a JSON-able tree and the arrays that it names.

    The arrays are the state's own memory, not copies: write them, or copy them, before the next ``tell``.
    An array that occurs twice is stored once and comes back shared.

    Raises:
        InvalidType: a part of the state is no data; says which and where.
    """
    packer = _Packer()
    return {"schema": SCHEMA, "rng": RNG_VERSION, "state": packer.node(state, "state")}, packer.arrays


class _Packer:
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[int, str] = {}

    def node(self, value: Any, where: str) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:  # JSON has no infinities and no NaN: these go by their bits
            return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
        if kind is tuple:
            return [self.node(part, f"{where}[{i}]") for i, part in enumerate(value)]
        if kind is dict and all(type(name) is str for name in value):
            return {"dict": [[name, self.node(part, f"{where}[{name!r}]")] for name, part in value.items()]}
        if kind is Key:
            return {"key": [value.seed, *value.path]}
        if is_dataclass(value):
            return self._dataclass(value, where)
        return self._numeric(value, where)

    def _dataclass(self, value: Any, where: str) -> dict[str, Any]:
        parts, name = fields(value), _name(type(value))
        if _find(name) is not type(value):
            raise InvalidType(
                f"{where}: {name} belongs to no package with a solver in dfo.solvers.SOLVERS."
                " Decorate it with dfo.run.packing.register."
            )
        content = {f.name: self.node(getattr(value, f.name), f"{where}.{f.name}") for f in parts}
        return {"type": name, "fields": content}

    def _numeric(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, np.generic) and value.dtype.kind in _KINDS[:7]:
            return {"scalar": value.dtype.str, "bytes": value.tobytes().hex()}
        if type(value) is np.ndarray and value.dtype.kind in _KINDS:
            return {"array": self._keep(value, value)}
        if is_torch(value) and type(value).__name__ == "Tensor" and str(value.layout) == "torch.strided":
            dtype = str(value.dtype).removeprefix("torch.")
            return {"tensor": self._keep(value, _bits(value)), "dtype": dtype, "device": str(value.device)}
        raise InvalidType(
            f"{where}: expected data (array, number, string, None, Key, tuple, dictionary with string keys,"
            f" dataclass), got {short(value)} of type {_name(type(value))}."
        )

    def _keep(self, original: object, array: Array) -> str:
        name = self._names.setdefault(id(original), f"a{len(self._names)}")
        self.arrays[name] = array
        return name


def _bits(tensor: Any) -> Array:
    """Return a tensor as a numpy array; one without a numpy twin (bfloat16) as integers of its size."""
    import torch

    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    twin = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
    try:
        array: Array = tensor.numpy()
    except TypeError:
        array = tensor.view(twin[tensor.element_size()]).numpy()
    return array


# ---------------------------------------------------------------------- and back


def unpack(tree: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """Return the state that :func:`pack` was given; arrays and CPU tensors share memory with ``arrays``.

    Raises:
        BadState: the tree is of another version, names what is not there, or makes no sense.
    """
    try:
        schema, rng = tree["schema"], tree["rng"]
        if not 1 <= schema <= SCHEMA or rng != RNG_VERSION:
            raise BadState(
                f"state: expected schema <= {SCHEMA} and rng {RNG_VERSION}, got schema {short(schema)} and rng"
                f" {short(rng)}. Read it with the version of dfo that wrote it."
            )
        return _Reader(arrays).value(tree["state"])
    except BadState:
        raise
    except Exception as error:  # whatever a foreign tree provokes
        raise BadState(f"state: it makes no sense ({type(error).__name__}: {short(str(error))}).") from error


class _Reader:
    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self._tensors: dict[str, Any] = {}

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return tuple(self.value(part) for part in node)
        return self._compound(node) if isinstance(node, dict) else node

    def _compound(self, node: dict[str, Any]) -> Any:  # noqa: C901  (one case a form, each one line)
        match node:
            case {"float": str(bits)}:
                return struct.unpack(">d", bytes.fromhex(bits))[0]
            case {"dict": list(pairs)}:
                return {name: self.value(part) for name, part in pairs}
            case {"key": [int(seed), *path]} if all(type(part) in (int, str) for part in path):
                return Key(seed, tuple(path))
            case {"array": str(name)}:
                return self.arrays[name]
            case {"scalar": str(dtype), "bytes": str(data)}:
                (scalar,) = np.frombuffer(bytes.fromhex(data), dtype)
                return scalar
            case {"tensor": str(name), "dtype": str(dtype), "device": str(device)}:
                if name not in self._tensors:
                    self._tensors[name] = _tensor(self.arrays[name], dtype, device)
                return self._tensors[name]
            case {"type": str(name), "fields": dict(content)}:
                return self._build(name, content)
        raise BadState(f"state: {short(node)} stands for nothing.")

    def _build(self, name: str, content: dict[str, Any]) -> Any:
        cls: Any = _find(name)
        if cls is None:
            raise BadState(
                f"state: {short(name)} is no dataclass of an imported package with a solver. Import its module"
                " first, or decorate it with dfo.run.packing.register."
            )
        wanted = {f.name for f in fields(cls)}
        if wanted != content.keys():
            raise BadState(
                f"state: {name} has the fields {', '.join(sorted(wanted))}; stored were"
                f" {', '.join(sorted(map(str, content)))}. Read it with the version of dfo that wrote it."
            )
        built = object.__new__(cls)
        for field, part in content.items():
            object.__setattr__(built, field, self.value(part))
        return built


def _tensor(array: Array, dtype: str, device: str) -> Any:
    import torch

    kind = vars(torch).get(dtype)
    if not isinstance(kind, torch.dtype):
        raise BadState(f"state: {short(dtype)} is no dtype of torch.")
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    try:
        return (tensor if tensor.dtype == kind else tensor.view(kind)).to(device)
    except (RuntimeError, AssertionError) as error:
        raise BadState(f"state: a tensor of {dtype} cannot be put on {short(device)} here: {error}") from error


# ---------------------------------------------------------------------- files


def save(path: str | os.PathLike[str], state: object) -> None:
    """Write a state to one file, whole or not at all: an older file stays until the new one is complete.

    Raises:
        InvalidType: a part of the state is no data.
        OSError: the file cannot be written.
    """
    tree, arrays = pack(state)
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    entries: dict[str, Any] = {"tree": np.frombuffer(text, np.uint8), **arrays}
    target = os.path.abspath(path)
    handle, temporary = tempfile.mkstemp(".tmp", os.path.basename(target) + ".", os.path.dirname(target))
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, checksum=_checksum(entries), **entries)  # no entry has a dtype that would be pickled
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> Any:
    """Return the state in a file that :func:`save` wrote.

    Raises:
        BadState: the file is damaged, of another kind or of another version.
        OSError: the file cannot be read.
    """
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = _entries(archive, os.fstat(file.fileno()).st_size)
            if entries.pop("checksum").tobytes() != _checksum(entries).tobytes():
                raise BadState(f"{short(str(path))}: the checksum does not fit; the file is damaged.")
            tree = strict_json(entries["tree"].tobytes())
        except BadState:
            raise
        except Exception as error:  # whatever a foreign file provokes in the readers of zip, npy and JSON
            raise BadState(
                f"{short(str(path))}: no state of dfo, or a damaged one ({type(error).__name__}: {short(str(error))})."
            ) from error
    return unpack(tree, entries)


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, Array]:
    """Return the arrays of an archive; nothing is allocated that the file does not hold."""
    infos = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(info.file_size for info in infos) > size:
        raise BadState("state: the archive is compressed or claims more than it holds; dfo wrote no such file.")
    return {info.filename.removesuffix(".npy"): _entry(archive, info) for info in infos}


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as file:
        if npy.read_magic(file) != (1, 0):
            raise BadState(f"state: entry {short(info.filename)} is of an unknown format.")
        shape, columns_first, dtype = npy.read_array_header_1_0(file)
        data = bytearray(file.read())
    if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != len(data):
        raise BadState(f"state: entry {short(info.filename)} is not what its header says.")
    return np.ndarray(shape, dtype, data, order="F" if columns_first else "C")


def _checksum(entries: Mapping[str, Array]) -> Array:
    digest = blake2b(digest_size=32)
    for name, array in sorted(entries.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} {array.flags.fnc};".encode())
        digest.update(array.tobytes("A"))
    return np.frombuffer(digest.digest(), np.uint8)
