"""Equality to the last bit, for states and batches."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dfo.arrays import is_array, is_torch

__all__ = ["difference", "identical"]


def identical(a: object, b: object) -> bool:
    """Tell whether two values are of the same types, shapes, dtypes, devices and bits."""
    return difference(a, b) == ""


def difference(a: Any, b: Any, where: str = "") -> str:
    """Return where and how two values differ, or an empty string; NaN equals NaN, 0.0 is not -0.0."""
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} is not {type(b).__name__}"
    if is_array(a):
        return _arrays(a, b, where)
    if is_dataclass(a) and not isinstance(a, type):
        names = [f.name for f in fields(a)]
        return _first((getattr(a, n, None), getattr(b, n, None), f"{where}.{n}") for n in names)
    if isinstance(a, Mapping):
        if list(a) != list(b):
            return f"{where}: {list(a)} is not {list(b)}"
        return _first((a[name], b[name], f"{where}[{name!r}]") for name in a)
    if isinstance(a, (tuple, list)):
        if len(a) != len(b):
            return f"{where}: {len(a)} parts are not {len(b)}"
        return _first((x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
    same = _bits(a) == _bits(b)
    return "" if same else f"{where}: {a!r} is not {b!r}"


def _first(pairs: Any) -> str:
    return next((found for a, b, where in pairs if (found := difference(a, b, where))), "")


def _bits(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    return struct.pack(">d", value) if isinstance(value, float) else value


def _arrays(a: Any, b: Any, where: str) -> str:
    if (a.dtype, tuple(a.shape)) != (b.dtype, tuple(b.shape)):
        return f"{where}: {a.dtype} of shape {tuple(a.shape)} is not {b.dtype} of shape {tuple(b.shape)}"
    if is_torch(a):
        if a.device != b.device:
            return f"{where}: on {a.device}, not on {b.device}"
        import torch

        same = torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))
    else:
        same = a.tobytes() == b.tobytes()
    return "" if same else f"{where}: the arrays differ, {a!r} is not {b!r}"
