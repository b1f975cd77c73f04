"""What crosses the pipe between a run and its own workers: frames, and how objects become bytes.

This is the one module with pickle. Its bytes go through a pair of sockets that only this process and the worker it
started hold, never through a file, a network or another user's hands; and a worker runs the caller's code anyway.
(Executors and Ray, which the caller chooses, have a way of their own for these objects, and it is pickle as well.)
Objects that are found by name travel by name; functions and classes of ``__main__``, lambdas and closures travel by
value through cloudpickle where it is installed.
"""

from __future__ import annotations

import inspect
import pickle
import struct
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np

from dfo.errors import InvalidType, ObjectiveFailed, short
from dfo.oracles.outcomes import Failed

__all__ = [
    "ANSWER",
    "BROKEN",
    "HEADER",
    "OBJECTIVE",
    "POINT",
    "QUICK",
    "READY",
    "Parcel",
    "attempt",
    "dumps",
    "loads",
    "pack",
]

HEADER = struct.Struct("<BqQ")
"""A frame begins with its tag, the number of the evaluation, and the length of what follows."""

OBJECTIVE, POINT = 1, 2  # to the worker
READY, ANSWER, QUICK, BROKEN = 1, 2, 3, 4  # from the worker

_PLAIN = frozenset({float, int, bool, str, bytes, type(None), np.float64, np.float32, np.int64})


@cache
def _by_value() -> Callable[[Any], bytes] | None:
    try:
        from cloudpickle import dumps as by_value
    except ImportError:
        return None
    found: Callable[[Any], bytes] = by_value
    return found


def dumps(value: Any) -> bytes:
    """Return ``value`` as bytes; numbers and plain arrays the short way."""
    kind = type(value)
    if kind in _PLAIN or (kind is np.ndarray and not value.dtype.hasobject):
        return pickle.dumps(value, 5)
    by_value = _by_value()
    return pickle.dumps(value, 5) if by_value is None else by_value(value)


def loads(body: bytes | bytearray | memoryview) -> Any:
    """Return what :func:`dumps` made bytes of, in this process or at the other end of the pipe."""
    return pickle.loads(body)


def pack(call: Callable[[Any], Any], by_value: bool = True) -> bytes:
    """Return an objective as bytes.

    Args:
        call: the objective.
        by_value: what has no importable name may be sent through cloudpickle.

    Raises:
        InvalidType: it cannot be sent; says which part of it, and what to do.
    """
    fun = getattr(call, "fun", call)
    try:
        body = dumps(call) if by_value else pickle.dumps(call)
    except Exception as error:
        part = _culprit("the objective", fun)
        raise InvalidType(
            f"workers: the objective {short(fun)} cannot be sent to a process: {part} ({_said(error)})."
            f" {_remedy()}, or pass workers='threads'."
        ) from None
    if by_value and _by_value() is None and b"__main__" in body:
        raise InvalidType(
            f"workers: the objective {short(fun)} cannot be sent to a process: it is defined in __main__."
            f" {_remedy()}, or pass workers='threads'."
        )
    return body


def _remedy() -> str:
    if _by_value() is None:
        return "Install cloudpickle (pip install cloudpickle), or define it at the top of a module"
    return "Make that part inside the function"


def _culprit(name: str, value: Any, depth: int = 6) -> str:
    """Name the innermost part that cannot be sent."""
    for inner, part in _parts(value) if depth else ():
        try:
            dumps(part)
        except Exception:
            return _culprit(inner, part, depth - 1)
    return f"{name} is {short(value)}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, FunctionType):
        seen = inspect.getclosurevars(value)
        yield from seen.nonlocals.items()
        yield from seen.globals.items()
        yield from ((f"default {i}", part) for i, part in enumerate(value.__defaults__ or ()))
    elif inspect.ismethod(value):
        yield "self", value.__self__
    elif isinstance(value, Mapping):
        yield from ((f"item {key!r}", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"item {i}", part) for i, part in enumerate(value))
    elif not inspect.ismodule(value) and not isinstance(value, type):
        yield from ((f"attribute {key!r}", part) for key, part in getattr(value, "__dict__", {}).items())


def _said(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # a user's __str__ may do anything
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def attempt(call: Callable[[Any], Any], point: Any) -> Any:
    """Return what the objective returns, or :class:`~dfo.oracles.outcomes.Failed` for anything that it raises.

    ``SystemExit`` and its like are failures of one evaluation too: a worker does not leave because of them.
    """
    try:
        return call(point)
    except Exception as error:
        return Failed("raised", _said(error), error, _trace(error))
    except BaseException as error:
        return Failed("raised", _said(error), ObjectiveFailed(_said(error)), _trace(error))


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return ""


class Parcel:
    """An outcome that can be sent whatever it holds: what cannot cross becomes words.

    Within a process :attr:`outcome` is the object itself. Pickled, an exception goes along only if it comes back from
    pickle as it went in; else it becomes :class:`~dfo.errors.ObjectiveFailed` with its text.

    Args:
        outcome: what the objective returned, or why it did not.
    """

    __slots__ = ("outcome",)

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def __reduce__(self) -> tuple[Callable[..., Parcel], tuple[str, str, str, bytes | None]]:
        outcome = self.outcome
        if isinstance(outcome, Failed):
            trace = outcome.trace or ("" if outcome.error is None else _trace(outcome.error))
            return _open, (outcome.kind, outcome.text, trace, _survivor(outcome.error))
        try:
            return _open, ("", "", "", dumps(outcome))
        except Exception as error:
            kind = type(outcome).__name__
            return _open, (
                "bad_type",
                f"returned a {kind}, which cannot be sent from a worker ({_said(error)})",
                "",
                None,
            )


def _survivor(error: Exception | None) -> bytes | None:
    if error is None:
        return None
    try:
        body = dumps(error)
        twin = loads(body)
        same = type(twin) is type(error) and repr(twin.args) == repr(error.args)
    except Exception:
        return None
    return body if same else None


def _open(kind: str, text: str, trace: str, body: bytes | None) -> Parcel:
    if not kind:
        try:
            return Parcel(loads(body or b""))
        except Exception as error:
            return Parcel(Failed("bad_type", f"returned a value that cannot be read here ({_said(error)})"))
    if kind != "raised":
        return Parcel(Failed(kind, text, None, trace))
    cause = _error(text, body)
    if trace:
        cause.add_note(f"In the worker:\n{trace.rstrip()}")
    return Parcel(Failed(kind, text, cause, trace))


def _error(text: str, body: bytes | None) -> Exception:
    try:
        found = None if body is None else loads(body)
    except Exception:
        found = None
    return found if isinstance(found, Exception) else ObjectiveFailed(text)
