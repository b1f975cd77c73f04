"""Arguments from a store: what :func:`dfo.run.identity.identity` wrote, built again where it was data.

Building calls the classes of :mod:`dfo.spaces`, :mod:`dfo.sets` and the solvers' modules, with fields that they judge
as they judge a caller's; nothing is imported that a file names. Functions, classes of the user's and long arrays stand
in a store by name or digest only: they have to come from a program.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dfo.errors import BadState, DfoError, InvalidArgument, short
from dfo.random import Key

__all__ = ["rebuilt"]

DEPTH = 64
"""Most levels of a stored argument."""

_ROOMS = (
    "dfo.spaces", "dfo.sets", "dfo.solvers", "dfo.components", "dfo.distributions", "dfo.directions",
    "dfo.run.stopping",
)  # fmt: skip
_SCIPY = {"Bounds": ("lb", "ub", "keep_feasible"), "LinearConstraint": ("A", "lb", "ub", "keep_feasible")}


def rebuilt(name: str, content: Any) -> Any:
    """Return an argument that a store holds.

    Args:
        name: of the argument, for messages.
        content: what is stored.

    Raises:
        InvalidArgument: it was no data, so that a program has to give it.
        BadState: the content makes no sense.

    Example:
        >>> from dfo.run.identity import identity
        >>> import dfo
        >>> rebuilt("x0", identity({"rate": dfo.Float(0.1, 1.0, log=True)}))
        {'rate': Float(lower=0.1, upper=1.0, log=True, init=None)}
    """
    try:
        return _value(content, DEPTH)
    except _NoData as error:
        raise InvalidArgument(
            f"{name}: the store knows it by name only ({error}). Continue in Python, with the same call of"
            " dfo.minimize(..., store=...)."
        ) from None
    except DfoError as error:
        raise BadState(f"{name}, as stored: {error}") from None
    except Exception as error:  # whatever a foreign file provokes in numpy and in the spaces
        text = f"{type(error).__name__}: {short(str(error))}"
        raise BadState(f"{name}, as stored: it makes no sense ({text}).") from None


class _NoData(Exception):
    pass


def _value(content: Any, depth: int) -> Any:
    if depth == 0:
        raise BadState(f"more than {DEPTH} levels deep.")
    if isinstance(content, list):
        return [_value(part, depth - 1) for part in content]
    return _compound(dict(content), depth - 1) if isinstance(content, Mapping) else content


def _compound(content: dict[str, Any], depth: int) -> Any:  # noqa: C901  (one case a form)
    match content:
        case {"float": str(text)}:
            return float(text)
        case {"mapping": dict(parts)}:
            return {name: _value(part, depth) for name, part in parts.items()}
        case {"array": list(values), "dtype": str(dtype), "shape": list(shape)}:
            return _array([_value(v, depth) for v in values], dtype, shape)
        case {"key": [int(seed), *path]} if all(type(part) in (int, str) for part in path):
            return Key(seed, tuple(path))
        case {"class": str(name), "fields": dict(parts)}:
            return _build(name, {field: _value(part, depth) for field, part in _own(name, parts).items()})
        case {"object": str(name), "holds": dict(parts)} if name.startswith("scipy.optimize."):
            return _scipy(name, {field: _value(part, depth) for field, part in parts.items()})
        case {"function": str(name)} | {"object": str(name)} | {"class": str(name)}:
            raise _NoData(short(name))
        case {"digest": str(), "shape": list(shape)}:
            raise _NoData(f"an array of shape {short(tuple(shape))}")
    raise BadState(f"{short(content)} stands for nothing.")


def _array(values: list[Any], dtype: str, shape: list[Any]) -> Any:
    library, _, kind = dtype.rpartition(".")
    wanted = np.dtype(kind or library)
    if wanted.kind not in "biufU" or not all(type(n) is int and n >= 0 for n in shape):
        raise BadState(f"an array of {short(dtype)} and shape {short(shape)} is none of numbers.")
    if math.prod(shape) != len(values):
        raise BadState(f"an array of shape {short(shape)} with {len(values)} numbers.")
    array = np.array(values, wanted).reshape(shape)
    if library != "torch":
        return array
    import torch

    return torch.from_numpy(array)


def _class(name: str) -> Any:
    """Return the dataclass of the rooms above that has this name, or None; imports nothing but listed solvers."""
    from dfo import sets, spaces  # noqa: F401  (to be found below)
    from dfo.solvers import SOLVERS, solver_class

    for method, where in SOLVERS.items():
        if where == name:
            return solver_class(method)
    module, _, path = name.partition(":")
    known = any(module == room or module.startswith(f"{room}.") for room in _ROOMS)
    found = vars(sys.modules[module]).get(path) if known and module in sys.modules else None
    return found if isinstance(found, type) and is_dataclass(found) and found.__module__ == module else None


def _own(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that a class is built with, of those stored."""
    cls = _class(name)
    if cls is None:
        raise _NoData(short(name))
    wanted = {f.name for f in fields(cls)}
    if wanted != parts.keys():
        raise BadState(f"{short(name)} with the fields {short(sorted(parts))} is none of this version.")
    return {f.name: parts[f.name] for f in fields(cls) if f.init}


def _build(name: str, parts: dict[str, Any]) -> Any:
    return _class(name)(**{field: _tupled(part) for field, part in parts.items()})


def _tupled(value: Any) -> Any:
    """Return lists as tuples, as the fields of frozen dataclasses hold them (an option that was a list is one too)."""
    if isinstance(value, dict):
        return {name: _tupled(part) for name, part in value.items()}
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _scipy(name: str, parts: dict[str, Any]) -> Any:
    import scipy.optimize

    kind = name.rpartition(":")[2]
    if parts.keys() != set(_SCIPY.get(kind, ())):
        raise _NoData(short(name))
    return getattr(scipy.optimize, kind)(**parts)
