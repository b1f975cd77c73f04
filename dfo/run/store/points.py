"""A point as one column of a table, and back: text that SQL can read where it is small, bytes where it is not.

Two points are the same question if their digests are equal: BLAKE2b-128 over library, dtype, shape and bytes of arrays,
over canonical JSON (sorted names, exact decimals) of everything else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from dfo.arrays import Array, is_array, is_torch
from dfo.errors import BadState
from dfo.run.packing import pack

__all__ = ["Column", "decoded", "encoded", "shown"]

TEXT_LIMIT = 256
"""Most numbers of a point that is stored as text."""


class Column(NamedTuple):
    """A point as it is stored.

    Args:
        form: ``"json"``, ``"float64 (10,)"``, ``"torch float32 (2, 3)"``, or ``"blocks "`` and a table of these.
        x: the text or the bytes; None above ``KEEP_LIMIT`` coordinates.
        digest: 16 bytes.
    """

    form: str
    x: str | bytes | None
    digest: bytes


def encoded(point: object) -> Column:
    """Return the form, the text or bytes, and the digest of a point: an array, blocks, a table, a string, a list."""
    if type(point) is np.ndarray and point.dtype == np.float64 and point.ndim == 1 and len(point) <= TEXT_LIMIT:
        form, raw = f"float64 ({len(point)},)", point.tobytes()  # the common case, without detours
        text: str | bytes = repr(point.tolist())
        digest = blake2b(form.encode() + raw, digest_size=16).digest()
        return Column(form, raw if "n" in text else text, digest)  # nan, inf
    if is_array(point):
        return _of_array(point)
    if _are_blocks(point):
        return _of_blocks(point)
    return _of_json(point)


def _of_array(point: object) -> Column:
    array, form = _plain(point)
    return _column(form, array.tobytes(), array.size, lambda: _listed(point))


def _of_blocks(point: Any) -> Column:
    blocks = point if isinstance(point, Mapping) else {str(i): block for i, block in enumerate(point)}
    plain = {str(name): _plain(block) for name, block in blocks.items()}
    forms = json.dumps({name: form for name, (_, form) in plain.items()})
    form = f"{'blocks' if isinstance(point, Mapping) else 'list'} {forms}"
    raw = b"".join(array.tobytes() for array, _ in plain.values())
    size = sum(array.size for array, _ in plain.values())
    return _column(form, raw, size, lambda: {str(name): _listed(block) for name, block in blocks.items()})


def _column(form: str, raw: bytes, size: int, listed: Any) -> Column:
    from dfo.run.session import KEEP_LIMIT

    digest = blake2b(form.encode() + raw, digest_size=16).digest()
    if size > KEEP_LIMIT:
        return Column(form, None, digest)
    if size <= TEXT_LIMIT:
        try:
            return Column(form, json.dumps(listed(), allow_nan=False), digest)
        except (ValueError, TypeError):  # NaN, infinities, complex numbers: these go by their bits
            pass
    return Column(form, raw, digest)


def _of_json(point: object) -> Column:
    from dfo.run.session import KEEP_LIMIT

    try:
        text = json.dumps(point, sort_keys=True, allow_nan=False, default=_foreign)
    except (ValueError, TypeError):  # NaN or infinite parameters, names of several types
        text = json.dumps(_canonical(point), sort_keys=True, allow_nan=False)
    digest = blake2b(b"json" + text.encode(), digest_size=16).digest()
    return Column("json", text if len(text) <= 8 * KEEP_LIMIT else None, digest)


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {str(name): _canonical(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else _canonical(_foreign(value))


def _foreign(value: Any) -> Any:
    """Stand for what JSON has no word for: numbers and arrays by their values, other objects by their names."""
    if isinstance(value, np.generic):
        return value.item() if not isinstance(value.item(), np.generic) else str(value)
    if is_array(value):
        return _listed(value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if hasattr(value, "__qualname__"):
        return {"name": f"{value.__module__}:{value.__qualname__}"}
    return {"repr": re.sub(r" at 0x[0-9a-f]+", "", repr(value))}


def _are_blocks(point: object) -> bool:
    parts = point.values() if isinstance(point, Mapping) else point if isinstance(point, (list, tuple)) else ()
    return bool(parts) and all(is_array(part) for part in parts)


def _plain(point: Any) -> tuple[Array, str]:
    """Return an array in host memory and in the byte order of the file, and its form."""
    array, dtype = (pack(point.detach())[1]["a0"], str(point.dtype)) if is_torch(point) else (np.asarray(point), "")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    shape = repr(tuple(map(int, array.shape)))
    return array, f"torch {dtype.removeprefix('torch.')} {shape}" if dtype else f"{array.dtype.name} {shape}"


def _listed(point: Any) -> Any:
    return point.tolist()


# ---------------------------------------------------------------------- and back


def decoded(form: str, x: str | bytes | None) -> Any:
    """Return the point of a stored form and column; None where only its digest is stored.

    Raises:
        BadState: they do not fit together.
    """
    if x is None:
        return None
    try:
        kind, _, forms = form.partition(" ")
        if form == "json":
            return json.loads(x)
        if kind not in ("blocks", "list"):
            return _array(form, json.loads(x) if isinstance(x, str) else x)
        blocks = _blocks(json.loads(forms), json.loads(x) if isinstance(x, str) else x)
        return blocks if kind == "blocks" else list(blocks.values())
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise BadState(f"store: a point of form {form[:80]!r} makes no sense ({error}).") from None


def _blocks(forms: Mapping[str, str], content: Mapping[str, Any] | bytes) -> dict[str, Any]:
    blocks, at = {}, 0
    for name, form in forms.items():
        if isinstance(content, bytes):
            _, dtype, shape = _read_form(form)
            end = at + math.prod(shape) * dtype.itemsize
            blocks[name], at = _array(form, content[at:end]), end
        else:
            blocks[name] = _array(form, content[name])
    return blocks


def _read_form(form: str) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    match = re.fullmatch(r"(torch )?([a-z0-9_]+(?:\[\w+\])?) \(((?:\d+,? ?)*)\)", form)
    if match is None:
        raise BadState(f"store: {form[:80]!r} is no form of a point.")
    name = match[2]
    shape = tuple(map(int, match[3].replace(",", " ").split()))
    twin = {"bfloat16": "int16"}.get(name, name) if match[1] else name
    return (name if match[1] else ""), np.dtype(twin).newbyteorder("<"), shape


def _array(form: str, content: Sequence[Any] | bytes) -> Any:
    torch_name, dtype, shape = _read_form(form)
    if torch_name:
        import torch

        kind = getattr(torch, torch_name)
        if not isinstance(content, bytes):
            return torch.tensor(content, dtype=kind).reshape(shape)
        return torch.from_numpy(np.frombuffer(content, dtype).copy().reshape(shape)).view(kind)
    if isinstance(content, bytes):
        return np.frombuffer(content, dtype).copy().reshape(shape)
    return np.array(content, dtype=dtype).reshape(shape)


def shown(form: str, x: str | bytes | None, digest: bytes) -> str:
    """Return a stored point in words, for messages."""
    if isinstance(x, str):
        return x if len(x) <= 300 else x[:297] + "..."
    try:
        point = decoded(form, x)
        if point is not None:
            return " ".join(str(point).split())[:300]
    except BadState:
        pass
    return f"{form}, digest {digest.hex()}"
