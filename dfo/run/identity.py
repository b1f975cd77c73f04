"""What a run was begun with, as data that JSON holds: to compare, to show, and (but for functions) to build again.

Numbers keep their bits. Functions and classes stand by name, with a checksum of every line of their source, so that a
changed objective is noticed and the lines that changed can be shown, without a copy of the source in the file.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from types import CodeType
from typing import Any
from zlib import crc32

import numpy as np

from dfo.arrays import is_array, is_torch, to_numpy
from dfo.errors import short
from dfo.random import Key

__all__ = ["changed_lines", "identity"]

INLINE = 4096
"""Most numbers of an array that are written out; longer ones stand by a digest."""

DEEP = 8


def identity(value: Any, depth: int = 0) -> Any:  # noqa: C901, PLR0911, PLR0912  (one case a kind, each a line or two)
    """Return data by which equal values are equal: numbers, strings, lists and dictionaries of these."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if depth > DEEP:
        return {"object": _name(type(value))}
    if is_array(value):
        return _array(value)
    if isinstance(value, Key):
        return {"key": [value.seed, *value.path]}
    if isinstance(value, Mapping):
        return {"mapping": {str(k): identity(v, depth + 1) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [identity(v, depth + 1) for v in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(short(v) for v in value)}
    if isinstance(value, type) or inspect.isroutine(value):
        return _function(value, depth)
    if is_dataclass(value):
        content = {f.name: identity(getattr(value, f.name), depth + 1) for f in fields(value)}
        return {"class": _name(type(value)), "fields": content}
    return _object(value, depth)


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '') or ''}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _array(value: Any) -> dict[str, Any]:
    host = np.ascontiguousarray(to_numpy(value))
    kind = {"dtype": str(value.dtype), "shape": list(host.shape)}
    if host.size <= INLINE and host.dtype.kind in "biufU":
        return {"array": [identity(v) for v in host.reshape(-1).tolist()], **kind}
    return {"digest": blake2b(host.tobytes(), digest_size=16).hexdigest(), **kind}


def _function(value: Any, depth: int) -> dict[str, Any]:
    wrapped = inspect.unwrap(value) if callable(value) else value
    content: dict[str, Any] = {"function": _name(wrapped), "lines": _lines(wrapped)}
    if getattr(wrapped, "__name__", "") == "<lambda>":  # several may share a line
        content["code"] = blake2b(_code(wrapped.__code__), digest_size=8).hexdigest()
    defaults = getattr(wrapped, "__defaults__", None)
    if defaults:
        content["defaults"] = identity([v if _is_data(v) else _name(type(v)) for v in defaults])
    bound = getattr(wrapped, "__self__", None)
    if bound is not None and not inspect.ismodule(bound):
        content["of"] = identity(bound, depth + 1)
    held = inspect.getclosurevars(wrapped).nonlocals if inspect.isfunction(wrapped) else {}
    plain = {k: identity(v, depth + 1) for k, v in sorted(held.items()) if _is_data(v) or inspect.isfunction(v)}
    if plain:
        content["holds"] = plain
    return content


def _object(value: Any, depth: int) -> dict[str, Any]:
    """Return the class of an object, and what of it is data or function."""
    content: dict[str, Any] = {"object": _name(type(value)), "lines": _lines(type(value))}
    if "functools" in type(value).__module__:  # a partial
        return content | {"of": identity(value.func, depth + 1), "args": identity([value.args, value.keywords], depth)}
    state = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}
    held = {k: identity(v, depth + 1) for k, v in sorted(state.items()) if _is_data(v) or inspect.isroutine(v)}
    return content | ({"holds": held} if held else {})


def _is_data(value: Any) -> bool:
    """Tell whether a value is small, plain data: what a list holds may grow while a run goes on, and is left out."""
    return value is None or isinstance(value, (bool, int, float, str)) or (is_array(value) and not is_torch(value))


def _lines(thing: Any) -> list[str]:
    """Return a checksum of each line of the source, or of the byte code where there is no source."""
    try:
        return [f"{crc32(line.strip().encode()):08x}" for line in _source(thing)]
    except (OSError, TypeError):
        code = getattr(thing, "__code__", None)
        return [] if code is None else [blake2b(_code(code), digest_size=8).hexdigest()]


def _source(thing: Any) -> Sequence[str]:
    return [line for line in inspect.getsource(thing).splitlines() if line.strip()]


def _code(code: CodeType) -> bytes:
    parts = [_code(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"|".join([code.co_code, *parts, repr(code.co_names).encode()])


def changed_lines(thing: Callable[..., Any], stored: Sequence[str]) -> list[str]:
    """Return the lines of a function's present source that its stored checksums do not know."""
    try:
        source = _source(thing)
    except (OSError, TypeError):
        return []
    return [line.strip() for line in source if f"{crc32(line.strip().encode()):08x}" not in set(stored)]
