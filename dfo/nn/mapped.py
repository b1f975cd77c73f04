"""Safetensors files whose tensors are changed where they are.

The last bit of a product may depend on the alignment of its operands in memory. torch's own tensors begin at multiples
of 64 bytes; so do here, in files written by :func:`mapped`, all tensors but those whose size is no multiple, which come
last. In other files tensors begin anywhere.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dfo.errors import BadState, CannotWrite, InvalidArgument, short
from dfo.files import opened, strict_json
from dfo.nn.snapshots import DTYPES

__all__ = ["File", "mapped"]

ALIGNED = 64
LARGEST = 100_000_000
"""Most bytes of a header, as in the safetensors package."""


class File:
    """A safetensors file, mapped so that a change of a tensor is a change of the file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            with opened(path, write=True) as file:
                self.map = mmap.mmap(file.fileno(), 0)
            self.start = 8 + int.from_bytes(self.map[:8], "little")
            if self.start > LARGEST:
                raise ValueError("the header is too long")
            self.table = strict_json(self.map[8 : self.start])
            self.table.pop("__metadata__", None)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BadState(f"{path}: no safetensors file that can be written to ({short(str(error))}).") from error
        self.path, self.address = path, torch.frombuffer(self.map, dtype=torch.uint8).data_ptr()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and views.

        Raises:
            BadState: a tensor does not lie in the file as it should.
        """
        types = {name: dtype for dtype, name in DTYPES.items()}
        for name, entry in self.table.items():
            try:
                (at, end), dtype = entry["data_offsets"], types[entry["dtype"]]
                if not 0 <= at <= end <= len(self.map) - self.start:
                    raise ValueError("outside of the file")
                if end == at:
                    yield name, torch.empty(entry["shape"], dtype=dtype)
                else:
                    flat = torch.frombuffer(self.map, dtype=torch.uint8, count=end - at, offset=self.start + at)
                    yield name, flat.view(dtype).view(entry["shape"])
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise BadState(f"{self.path}: tensor {name!r} cannot be mapped ({short(str(error))}).") from error

    def advise(self, what: str, tensor: Tensor) -> None:
        """Tell the kernel about the pages of a tensor, where it listens."""
        option = getattr(mmap, what, None)
        if option is not None and tensor.nbytes:
            at = (tensor.data_ptr() - self.address) // mmap.PAGESIZE * mmap.PAGESIZE
            self.map.madvise(option, at, tensor.data_ptr() - self.address + tensor.nbytes - at)


def mapped(module: nn.Module, parameters: Mapping[str, Tensor], path: Path) -> dict[str, tuple[Tensor, File]]:
    """Return the tensors of a file or folder by the first names of the parameters, and buffers by theirs."""
    if not path.exists():
        _write(path, parameters)
    paths = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    stored = {name: (tensor, file) for file in map(File, paths) for name, tensor in file.tensors()}
    found = {name: stored[name] for name, _ in module.named_buffers() if name in stored}
    for name, p in module.named_parameters(remove_duplicate=False):  # tied: any of the names will do
        first = next(n for n, q in parameters.items() if q is p)
        if name in stored:
            found.setdefault(first, stored[name])
    for name, p in parameters.items():
        got = found[name][0] if name in found else None
        if got is None or (got.shape, got.dtype) != (p.shape, p.dtype):
            held = "nothing" if got is None else f"{tuple(got.shape)} {got.dtype}"
            raise BadState(f"{path}: expected {name!r} as {tuple(p.shape)} {p.dtype}, got {held}.")
    return found


def _write(path: Path, parameters: Mapping[str, Tensor]) -> None:
    """Write the parameters to a new file, one after the other."""
    table, end = dict[str, object](), 0
    for name, p in sorted(parameters.items(), key=lambda item: (item[1].nbytes % ALIGNED > 0, -item[1].itemsize)):
        if p.is_meta or p.dtype not in DTYPES:
            raise InvalidArgument(f"parameter {name!r}: expected numbers that can be stored, got {p.dtype} {p.device}.")
        table[name] = {"dtype": DTYPES[p.dtype], "shape": list(p.shape), "data_offsets": [end, end + p.nbytes]}
        end += p.nbytes
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-(len(head) + 8) % ALIGNED)
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        with fresh.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for name in table:
                flat = parameters[name].detach().cpu().contiguous().reshape(-1)
                file.write(memoryview(flat.view(torch.uint8).numpy()))
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise CannotWrite(f"{path}: expected a folder to write to, with room ({error.strerror or error}).") from error
