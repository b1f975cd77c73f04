"""Which array library is a point made of, and the few operations that differ.

A point is a numpy array, a torch tensor on any device, or a mapping of named arrays
(*blocks*, such as the parameters of a network). Solvers take their namespace from the
point that they were given, so that a tensor on a GPU stays there. torch is never imported
here before a tensor has been seen.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Blocks",
    "Floats",
    "Point",
    "as_like",
    "copy",
    "host_view",
    "is_array",
    "is_blocks",
    "is_torch",
    "keep_freed",
    "namespace",
    "on_host",
    "put_mirrored",
    "put_scaled",
    "release",
    "scratch",
    "size",
    "to_numpy",
    "zeros",
]

Array: TypeAlias = npt.NDArray[Any]
"""A numpy array, or a torch tensor used through :func:`namespace`."""

Floats: TypeAlias = npt.NDArray[np.float64]
"""A numpy array of double precision."""

Blocks: TypeAlias = Mapping[str, Array]
"""A point in named pieces; the order of the mapping is the order of the coordinates."""

Point: TypeAlias = Array | Blocks
"""What a numeric solver moves."""


def is_torch(x: object) -> bool:
    """Tell whether ``x`` is a torch tensor, without importing torch."""
    return type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "device")


def is_array(x: object) -> TypeGuard[Array]:
    """Tell whether ``x`` is an array of a library that dfo computes with."""
    return isinstance(x, np.ndarray) or is_torch(x)


def is_blocks(x: object) -> TypeGuard[Blocks]:
    """Tell whether ``x`` is a point in named pieces."""
    return isinstance(x, Mapping)


def namespace(x: object) -> Any:
    """Return the array namespace of ``x``: numpy, or array-api-compat's torch."""
    if isinstance(x, np.ndarray):
        return np
    if is_torch(x):
        import array_api_compat.torch as xp

        return xp
    return np


def to_numpy(x: object) -> Array:
    """Return ``x`` as a numpy array on the host (no copy where none is needed)."""
    if is_torch(x):
        tensor: Any = x
        tensor = tensor.detach().cpu()
        if not str(tensor.dtype).endswith(("float16", "float32", "float64", "int32", "int64", "bool", "uint8")):
            tensor = tensor.to(dtype=namespace(x).float32)  # bfloat16 and friends have no numpy twin
        elif str(tensor.dtype).endswith("bfloat16"):
            tensor = tensor.to(dtype=namespace(x).float32)
        result: Array = tensor.numpy()
        return result
    return np.asarray(x)


def on_host(x: object) -> bool:
    """Tell whether an array lies in the memory of the host, where caches are small and calls cheap."""
    ref: Any = x
    return not is_torch(x) or ref.device.type == "cpu"


def as_like(values: object, like: object) -> Array:
    """Return ``values`` as an array of the library, dtype and device of ``like``, a floating-point array."""
    if is_torch(like):
        xp = namespace(like)
        ref: Any = like
        source: Any = values
        if not is_torch(values):
            source = xp.from_numpy(np.ascontiguousarray(np.asarray(values)))
        result: Array = source.to(dtype=ref.dtype, device=ref.device)
        return result
    return np.asarray(to_numpy(values), dtype=np.asarray(like).dtype)


def copy(x: Any) -> Any:
    """Return a copy of an array or of named blocks that shares no memory with ``x``."""
    if is_blocks(x):
        return {name: copy(block) for name, block in x.items()}
    return x.clone() if is_torch(x) else np.array(x, copy=True)


def zeros(x: Any) -> Any:
    """Return an array, or named blocks, of zeros shaped like ``x``."""
    if is_blocks(x):
        return {name: zeros(block) for name, block in x.items()}
    return namespace(x).zeros_like(x)


def size(x: Point) -> int:
    """Return the number of coordinates of a point."""
    if is_blocks(x):
        return sum(size(block) for block in x.values())
    array: Any = x
    return int(np.prod(array.shape, dtype=np.int64))


def _references(buffers: list[Any], i: int) -> int:
    return sys.getrefcount(buffers[i])


_FREE = _references([object()], 0)
"""What :func:`_references` says of a buffer in which no array, and no tensor, lies."""

LARGE = 1 << 22
"""Bytes from which :func:`scratch` recycles memory: below, a fresh array costs nothing worth saving."""


class _Pool(threading.local):
    """Large buffers of one thread that outlive the arrays in them."""

    def __init__(self) -> None:
        self.buffers: list[npt.NDArray[np.uint8]] = []

    def take(self, nbytes: int) -> npt.NDArray[np.uint8]:
        for i in range(len(self.buffers)):  # an iterator would hold the buffer, and it would never seem free
            if nbytes <= self.buffers[i].nbytes <= 2 * nbytes and _references(self.buffers, i) == _FREE:
                return self.buffers[i]
        self.trim()
        self.buffers.append(np.empty(nbytes, np.uint8))
        return self.buffers[-1]

    def trim(self) -> None:
        held = [i for i in range(len(self.buffers)) if _references(self.buffers, i) > _FREE]
        self.buffers = [self.buffers[i] for i in held]


_pool = _Pool()


def scratch(shape: tuple[int, ...], like: Array) -> Array:
    """Return an uninitialised array of the library, dtype and device of ``like``.

    A large one on the host lies in memory that an earlier one has left: touching fresh memory takes three
    times as long as writing a population into it. Memory is taken only when nothing refers to it any more.
    """
    reference: Any = like
    torch = is_torch(like)
    itemsize = reference.element_size() if torch else reference.dtype.itemsize
    count = math.prod(shape)
    if count * itemsize < LARGE or (torch and reference.device.type != "cpu"):
        made: Array = namespace(like).empty(shape, dtype=reference.dtype, device=reference.device)
        return made
    raw: Any = _pool.take(count * itemsize)[: count * itemsize]
    placed: Array = (namespace(like).from_numpy(raw) if torch else raw).view(reference.dtype).reshape(shape)
    return placed


KEPT = 256 << 20
"""Bytes of free memory that glibc does not hand back to the system."""

HANDED_BACK = frozenset({"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
"""Variables by which a user says when memory goes back."""


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Have the memory of arrays up to 32 MiB kept for the next when they go; once a process, and for all of it.

    glibc by itself hands back what is free beyond two of the largest blocks that it has seen, and its pages come anew,
    one fault after another, in the next pass of a network. With other C libraries nothing changes, nor where the
    environment says when memory is handed back (:data:`HANDED_BACK`).

    Source: the GNU C Library's manual, "Malloc Tunable Parameters".
    """
    own = sys.platform == "linux" and HANDED_BACK.isdisjoint(os.environ)
    libc: Any = ctypes.CDLL(None) if own else None
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, the most there is
        libc.mallopt(-1, KEPT)  # M_TRIM_THRESHOLD


def release() -> None:
    """Give the free memory of :func:`scratch` back."""
    _pool.trim()


def host_view(x: Any) -> Any:
    """Return a numpy array in the memory of a tensor on the host where numpy has its dtype, else ``x`` itself."""
    if not is_torch(x) or x.device.type != "cpu" or x.requires_grad:
        return x
    known = x.dtype in (namespace(x).float32, namespace(x).float64)
    return x.numpy() if known else x


def put_scaled(out: Any, base: Any, u: Any, scale: float) -> None:
    """Write ``base + scale * u`` into ``out``; no temporary is made."""
    if is_torch(out):
        namespace(out).add(base, u, alpha=scale, out=out)
        return
    np.multiply(u, out.dtype.type(scale), out=out)
    out += base


def put_mirrored(plus: Any, minus: Any, base: Any, u: Any, scale: float) -> None:
    """Write ``base + scale * u`` into ``plus`` and ``base - scale * u`` into ``minus``; no temporary is made."""
    if is_torch(plus):
        namespace(plus).mul(u, scale, out=plus)
        namespace(plus).subtract(base, plus, out=minus)
    else:
        np.multiply(u, plus.dtype.type(scale), out=plus)
        np.subtract(base, plus, out=minus)
    plus += base
