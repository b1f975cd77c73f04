"""Equality to the last bit, for states and batches, and the numbers that a state holds."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dfo.arrays import Floats, is_array, is_torch, to_numpy

__all__ = ["difference", "identical", "numbers"]


def identical(a: object, b: object) -> bool:
    """Tell whether two values are of the same types, shapes, dtypes, devices and bits."""
    return difference(a, b) == ""


def difference(a: Any, b: Any, where: str = "") -> str:
    """Return where and how two values differ, or an empty string; NaN equals NaN, 0.0 is not -0.0."""
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} is not {type(b).__name__}"
    if is_array(a):
        return _arrays(a, b, where)
    mine, yours = dict(_parts(a)), dict(_parts(b))
    if mine or yours:
        if list(mine) != list(yours):
            return f"{where}: parts {list(mine)} are not {list(yours)}"
        pairs = (difference(part, yours[name], where + name) for name, part in mine.items())
        return next((found for found in pairs if found), "")
    return "" if _bits(a) == _bits(b) else f"{where}: {a!r} is not {b!r}"


def numbers(value: Any, where: str = "") -> Iterator[tuple[str, Floats]]:
    """Yield the place and the values, flat, of every real number and array in ``value``."""
    if is_array(value):
        array = to_numpy(value)
        if array.dtype.kind in "fiu":
            yield where, array.reshape(-1).astype(float)
    elif isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool):
        yield where, np.array([float(value)])
    for name, part in _parts(value):
        yield from numbers(part, where + name)


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the named parts of a container, nothing for anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}", getattr(value, f.name, None)) for f in fields(value)]
    if isinstance(value, Mapping):
        return [(f"[{name!r}]", part) for name, part in value.items()]
    if isinstance(value, (tuple, list)):
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    return ()


def _bits(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    return struct.pack(">d", value) if isinstance(value, float) else value


def _arrays(a: Any, b: Any, where: str) -> str:
    if (a.dtype, tuple(a.shape)) != (b.dtype, tuple(b.shape)):
        return f"{where}: {a.dtype} of shape {tuple(a.shape)} is not {b.dtype} of shape {tuple(b.shape)}"
    if is_torch(a) and a.device != b.device:
        return f"{where}: on {a.device}, not on {b.device}"
    same = to_numpy(a).tobytes() == to_numpy(b).tobytes()  # bfloat16 widens to float32, one to one
    return "" if same else f"{where}: {_short(a)} is not {_short(b)}"


def _short(array: Any) -> str:
    return np.array2string(to_numpy(array).reshape(-1), precision=17, threshold=8, edgeitems=3)
