"""Spaces and points as JSON to the last bit, and back: a stored run knows where it searched.

A space is ``{"space": name, its fields}``. Numbers are JSON's, written so that they come back bit for bit;
what JSON lacks is an object of one key: ``{"float": "inf"}``, ``{"tuple": [...]}``, ``{"dict": [[key, value], ...]}``,
``{"scalar": "<f8", "value": 1.0}``, ``{"array": "<f8", "shape": [2], "values": [1.0, "inf"]}``. A value of any other
kind is ``{"object": its name}``: it can be compared and shown, but not rebuilt, since a store holds data and no code.
Reading builds the classes named here and nothing else, and judges their fields as a caller's are judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from dfo import sets
from dfo.arrays import is_torch, to_numpy
from dfo.errors import BadState, DfoError, InvalidArgument, short
from dfo.spaces import Box, Choice, Float, Free, Int, Named, Text

__all__ = ["JSON", "space_of", "space_to_json", "value_of", "value_to_json"]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""What a JSON text can hold."""

DEPTH = 32
"""Most levels of sets within sets, or of lists within lists."""

_CLASSES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (
        Free, Box, Named, Text, Float, Int, Choice, sets.Birkhoff, sets.GroupBall, sets.KSparse, sets.L1Ball,
        sets.L2Ball, sets.LInfBall, sets.LpBall, sets.NuclearBall, sets.OpNormBall, sets.Polytope, sets.Product,
        sets.Scaled, sets.Shifted, sets.Simplex, sets.Spectrahedron,
    )
}  # fmt: skip
_SCALARS = "biuf"


def space_to_json(space: object) -> dict[str, JSON]:
    """Return a space as JSON.

    Args:
        space: a space of dfo. One of your own classes becomes ``{"object": its name}``.

    Example:
        >>> import dfo
        >>> space_to_json(dfo.L1Ball(3, radius=0.1))
        {'space': 'L1Ball', 'dim': 3, 'radius': 0.1}
    """
    name = type(space).__name__
    if _CLASSES.get(name) is not type(space):
        return {"object": _opaque(space)}
    parts: Any = [f for f in fields(space) if f.init]  # type: ignore[arg-type]
    return {"space": name, **{f.name: value_to_json(getattr(space, f.name)) for f in parts}}


def value_to_json(value: object) -> JSON:
    """Return a point, a parameter or an option as JSON.

    Example:
        >>> import numpy as np
        >>> value_to_json({"rate": 0.1, "kernel": (3, float("inf"))})
        {'dict': [['rate', 0.1], ['kernel', {'tuple': [3, {'float': 'inf'}]}]]}
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value  # type: ignore[return-value]
    if isinstance(value, float) and kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [value_to_json(part) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [value_to_json(part) for part in value]}
    if isinstance(value, Mapping):
        return {"dict": [[value_to_json(name), value_to_json(part)] for name, part in value.items()]}
    if isinstance(value, (np.ndarray, np.generic)) or is_torch(value):
        return _numeric(value)
    return space_to_json(value)


def _numeric(value: Any) -> JSON:
    array = np.asarray(to_numpy(value) if is_torch(value) else value)
    if array.dtype.kind not in _SCALARS or array.dtype.itemsize > 8:
        return {"object": _opaque(value)}
    values: Any = [v if not isinstance(v, float) or math.isfinite(v) else str(v) for v in array.reshape(-1).tolist()]
    if isinstance(value, np.generic):
        return {"scalar": array.dtype.str, "value": values[0]}
    content: dict[str, JSON] = {"array": array.dtype.str, "shape": list(array.shape), "values": values}
    return content | {"torch": str(value.device)} if is_torch(value) else content


def _opaque(value: object) -> str:
    """Return text that names a value and is the same in another process."""
    named = getattr(value, "__qualname__", None)
    if isinstance(named, str):
        return f"{getattr(value, '__module__', '?')}:{named}"
    return f"{type(value).__module__}:{type(value).__qualname__}"


# ---------------------------------------------------------------------- and back


def space_of(content: object) -> Any:
    """Return the space that :func:`space_to_json` wrote.

    Raises:
        InvalidArgument: the space is one of the user's own classes, or has an option that is no data.
        BadState: the content makes no sense.

    Example:
        >>> space_of({"space": "Free", "dim": 2})
        Free(dim=2)
    """
    if not (isinstance(content, Mapping) and ("space" in content or "object" in content)):
        raise BadState(f"space: expected {{'space': name, ...}}, got {short(content)}.")
    return value_of(content)


def value_of(content: object) -> Any:
    """Return what :func:`value_to_json` was given.

    Raises:
        InvalidArgument: it was no data.
        BadState: the content makes no sense.
    """
    try:
        return _value(content, DEPTH)
    except DfoError as error:
        if isinstance(error, (BadState, _NoData)):
            raise
        raise BadState(f"stored space: {error}") from None
    except Exception as error:  # whatever a foreign file provokes in numpy and in the spaces
        raise BadState(f"stored space: it makes no sense ({type(error).__name__}: {short(str(error))}).") from None


class _NoData(InvalidArgument):
    pass


def _value(content: Any, depth: int) -> Any:
    if depth == 0:
        raise BadState(f"stored space: more than {DEPTH} levels deep.")
    if isinstance(content, list):
        return [_value(part, depth - 1) for part in content]
    if not isinstance(content, Mapping):
        return content
    return _compound(dict(content), depth - 1)


def _compound(content: dict[str, Any], depth: int) -> Any:
    match content:
        case {"space": str(name), **rest}:
            return _build(name, rest, depth)
        case {"float": str(text), **rest} if not rest:
            return float(text)
        case {"tuple": list(parts), **rest} if not rest:
            return tuple(_value(part, depth) for part in parts)
        case {"dict": list(pairs), **rest} if not rest:
            return {_value(name, depth): _value(part, depth) for name, part in pairs}
        case {"scalar": str(dtype), "value": value, **rest} if not rest:
            return _array(dtype, [value], [1])[0]
        case {"array": str(dtype), "shape": list(shape), "values": list(values), **rest}:
            return _placed(_array(dtype, values, shape), rest)
        case {"object": str(named), **rest} if not rest:
            raise _NoData(
                f"{short(named)} is not data, so that the store cannot rebuild it. Continue in Python, with the same"
                " call of dfo.minimize(..., store=...)."
            )
    raise BadState(f"stored space: {short(content)} stands for nothing.")


def _build(name: str, content: dict[str, Any], depth: int) -> Any:
    cls: Any = _CLASSES.get(name)
    wanted = {f.name for f in fields(cls) if f.init} if cls is not None else set()
    if wanted != content.keys():
        raise BadState(
            f"stored space: {short(name)} with the fields {short(sorted(content))} is no space of this version."
        )
    return cls(**{field: _value(part, depth) for field, part in content.items()})


def _array(dtype: str, values: list[Any], shape: list[Any]) -> Any:
    kind = np.dtype(dtype)
    if kind.kind not in _SCALARS or kind.itemsize > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise BadState(f"stored space: {short(dtype)} of shape {short(shape)} is no array of numbers.")
    allowed = (int, float, str) if kind.kind == "f" else (bool,) if kind.kind == "b" else (int,)
    if not all(type(v) in allowed for v in values):
        raise BadState(f"stored space: an array of {short(dtype)} holds what is no such number.")
    return np.array(values, kind).reshape(shape)


def _placed(array: Any, rest: dict[str, Any]) -> Any:
    match rest:
        case {"torch": str(device), **more} if not more:
            import torch

            return torch.from_numpy(array).to(device)
    if rest:
        raise BadState(f"stored space: an array with {short(sorted(rest))} stands for nothing.")
    return array
