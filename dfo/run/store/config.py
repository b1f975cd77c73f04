"""What a run is begun with, as JSON, and the differences between two of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from dfo.errors import InvalidType, short
from dfo.secrets import scrubbed

__all__ = ["as_json", "differences", "plain"]

_MISSING = object()


def plain(value: object, where: str) -> Any:
    """Return data as JSON holds it: tuples as lists, secrets masked, numbers that JSON has no word for by name.

    Raises:
        InvalidType: it is no data; says where.
    """
    return scrubbed(_plain(value, where))


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Mapping):
        return {str(name): _plain(part, f"{where}.{name}") for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _plain(value.item(), where)
    raise InvalidType(f"{where}: expected data that JSON holds, got {short(value)} of type {type(value).__name__}.")


def as_json(value: object) -> str:
    """Return the text of plain data."""
    return json.dumps(value, allow_nan=False, separators=(", ", ": "))


def differences(stored: Any, now: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield what differs: a dotted name, and ``"stored a, now b"``."""
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        for part in dict.fromkeys((*stored, *now)):
            inner = f"{name}.{part}" if name else str(part)
            yield from differences(stored.get(part, _MISSING), now.get(part, _MISSING), inner)
    elif as_text(stored) != as_text(now):
        yield name, f"stored {_shown(stored)}, now {_shown(now)}"


def as_text(value: Any) -> str:
    """Return a text by which to compare: 1 and 1.0 differ, as they do in a run."""
    return "" if value is _MISSING else json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    return "nothing" if value is _MISSING else short(value, 200)
