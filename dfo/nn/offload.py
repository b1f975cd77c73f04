"""Weights that live on disk, or in the host's memory, and are near only while a network uses them.

A forward pass of all members of a step reads every weight once, whatever their number, so a step costs two readings:
the pass, and the update, which moves the weights where they live. Nothing of their size is loaded or written back::

    with torch.device("meta"):
        model = Model()  # no memory yet
    dfo.nn.offload(model, "weights.safetensors")
    opt = dfo.nn.ZOSGD(model)  # as ever

**On disk**, computed on the CPU: parameters become views of the mapped file, so that results equal those of weights in
memory to the bit (files written elsewhere: up to the rounding of products whose operands begin at odd addresses) and
nothing that asks for a parameter needs to know. What is managed is which of their pages are resident. When a module
asks for a parameter, the kernel is told to read those that followed it the last time in the background
(``MADV_WILLNEED``), and those used longest ago are taken out of the process (``MADV_DONTNEED``; pages that were changed
stay in the kernel's cache until they are written). At most ``room`` bytes or the tensor in use are resident. An update
changes the file: keep a copy, or the log of the run, to get back.

**On another device**: parameters stay in the host's memory (pinned, ``to="cpu"``) or on disk; a thread copies the next
ones on a stream of its own while the device computes. Directions are drawn on the host and cross as factors, updates
happen on the host. *Not tested on a device by us:* the tests of this path need CUDA and are skipped without.

References: Pudipeddi et al. 2020, arXiv:2002.05645 (layers that pass through the device); Wang et al. 2025,
arXiv:2503.12668 (ZO2: the two points of a zeroth-order step share each upload).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.nn.lifted import Weight, weight
from dfo.nn.mapped import File, mapped
from dfo.nn.tensors import AWAY
from dfo.nn.weights import Explicit, Factored, Values

__all__ = ["offload"]


def offload(
    module: nn.Module, to: str | os.PathLike[str], device: str | torch.device = "cpu", *, room: int = 1 << 28
) -> nn.Module:
    """Let a module's parameters live elsewhere, and return the module; before an optimizer is made of it.

    Args:
        module: any; it may be on the meta device when the weights are on disk already.
        to: a safetensors file, or a folder of them, that holds tensors of the parameters' names; the file is written
            when there is none. Or ``"cpu"``, the host's memory, when ``device`` is another.
        device: where the module computes; buffers are moved there.
        room: bytes of weights that may be near at a time; at least one tensor is.

    Raises:
        InvalidType: ``module`` is no torch module.
        InvalidArgument: the weights would not move at all, are not there yet, or the device cannot take them.
        BadState: the files lack a tensor, hold it in another shape or precision, or are no safetensors files.
        CannotWrite: the file could not be made.

    Example:
        >>> import tempfile, torch, dfo.nn
        >>> folder = tempfile.TemporaryDirectory()
        >>> net = dfo.nn.offload(torch.nn.Linear(3, 1), f"{folder.name}/weights.safetensors")
        >>> opt = dfo.nn.ZOSGD(net, samples=2)
        >>> value = opt.step(lambda module, x: module(x).square().mean(1), torch.ones(8, 3))
        >>> folder.cleanup()
    """
    if not isinstance(module, nn.Module):
        raise InvalidType(f"module: expected a torch.nn.Module, got {short(module)}.")
    device, on_disk = torch.device(device), os.fspath(to) != "cpu"
    if room < 1:
        raise InvalidArgument(f"room: expected a number of bytes, got {room!r}.")
    if device.type == "cpu" and not on_disk:
        raise InvalidArgument('to="cpu": expected another device that computes, or a path. Give one of them.')
    if device.type != "cpu" and any(isinstance(part, nn.RNNBase) for part in module.modules()):
        raise InvalidArgument("module: recurrent layers hold their weights in one piece. Leave them on the device.")
    home = _Home(device, room)
    parameters = dict(module.named_parameters())
    found = mapped(module, parameters, Path(to)) if on_disk else {n: _pinned(n, p) for n, p in parameters.items()}
    blocks = {name: home.block(tensor, file) for name, (tensor, file) in found.items() if name in parameters}
    _place_buffers(module, {name: tensor for name, (tensor, _) in found.items()}, device)
    _place_parameters(module, parameters, blocks, home)
    return module


def _pinned(name: str, p: Tensor) -> tuple[Tensor, None]:
    if p.is_meta:
        raise InvalidArgument(f"parameter {name!r} has no memory yet (meta device). Load the weights first.")
    return p.detach().to("cpu", copy=True).pin_memory(), None


def _place_buffers(module: nn.Module, found: Mapping[str, Tensor], device: torch.device) -> None:
    for prefix, part in module.named_modules():
        for slot, buffer in part._buffers.items():
            name = f"{prefix}.{slot}" if prefix else slot
            if buffer is not None and buffer.is_meta and name not in found:
                raise InvalidArgument(f"buffer {name!r} has no memory (meta device) and is not in the files. Make it.")
            if buffer is not None:
                part._buffers[slot] = (found[name].clone() if buffer.is_meta else buffer).to(device)


def _place_parameters(
    module: nn.Module, parameters: Mapping[str, Tensor], blocks: Mapping[str, _Block], home: _Home
) -> None:
    """Put the tensors into every slot that held a parameter, and have the slots tell when they are asked."""
    of = {id(p): blocks[name] for name, p in parameters.items()}
    for part in module.modules():
        slots = _Slots(home)
        for slot, p in part._parameters.items():
            if p is not None:
                slots.blocks[slot] = of[id(p)]
                of[id(p)].slots += 1
                of[id(p)].tensor.requires_grad_(p.requires_grad)
            dict.__setitem__(slots, slot, None if p is None else of[id(p)].tensor)
        part._parameters = slots
        if isinstance(part, nn.RNNBase):
            part._init_flat_weights()


# ---------------------------------------------------------------------------------------------- what is near


class _Slots(dict[str, Any]):
    """The parameters of a module, which are asked for when they are about to be used.

    Args:
        home: of the parameters.
    """

    def __init__(self, home: _Home) -> None:
        super().__init__()
        self.home, self.blocks = home, dict[str, _Block]()

    def __getitem__(self, slot: str) -> Any:
        value = dict.__getitem__(self, slot)
        block = self.blocks.get(slot)
        return value if block is None or value is None else self.home.lend(block, value)

    def __reduce__(self) -> tuple[Any, ...]:  # copies of the module are at home in memory
        return dict, (dict(self),)


class _Block:
    """A tensor that is brought near and taken away.

    Args:
        tensor: where it lives.
        file: mapped, that it is a view of; None in memory.
    """

    def __init__(self, tensor: Tensor, file: File | None) -> None:
        self.tensor, self.file = nn.Parameter(tensor, requires_grad=False), file
        self.slots = 0
        self.lent: Explicit | None = None  # what members see of it, which may have been written out
        if file is not None:
            AWAY[tensor.data_ptr()] = self

    def fetch(self) -> None:
        """Begin to bring it near."""
        if self.file is not None:
            self.file.advise("MADV_WILLNEED", self.tensor)

    def near(self) -> nn.Parameter:
        """Return the tensor to compute with."""
        return self.tensor

    def drop(self) -> None:
        """Give back the memory that it takes while it is near."""
        if self.lent is not None and self.slots == 1:  # others are used again, with what was written out
            self.lent.forget()
        self.lent = None
        if self.file is not None:
            self.file.advise("MADV_DONTNEED", self.tensor)


class _Copied(_Block):
    """A tensor that is copied to a device, by a thread, on a stream of its own.

    Args:
        tensor: see :class:`_Block`.
        file: see there.
        home: with device, thread and stream.
    """

    def __init__(self, tensor: Tensor, file: File | None, home: _Home) -> None:
        super().__init__(tensor, file)
        self.home, self.version = home, -1
        self.copy: Future[tuple[nn.Parameter, Any]] | None = None

    def fetch(self) -> None:
        """Begin to copy; the number of changes of the host's tensor tells later whether the copy is still right."""
        super().fetch()
        self.version, self.copy = self.tensor._version, self.home.thread.submit(self._copied)

    def _copied(self) -> tuple[nn.Parameter, Any]:
        with torch.cuda.stream(self.home.stream):
            copy = self.tensor.detach().to(self.home.device, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self.home.stream)
        return nn.Parameter(copy, requires_grad=False), done

    def near(self) -> nn.Parameter:
        """Return the copy; the device waits for it, the host does not."""
        if self.copy is None or self.version != self.tensor._version:
            self.fetch()
        assert self.copy is not None
        copy, done = self.copy.result()
        current = torch.cuda.current_stream(self.home.device)
        current.wait_event(done)
        copy.record_stream(current)
        return copy

    def drop(self) -> None:
        """Forget the copy."""
        super().drop()
        self.copy = None


class _Home:
    """What is near, in the order of use.

    Args:
        device: that computes.
        room: bytes that may be near.
    """

    def __init__(self, device: torch.device, room: int) -> None:
        self.device, self.room, self.held = device, room, OrderedDict[_Block, int]()
        self.after, self.free = dict[_Block, _Block](), room
        self.last: _Block | None = None
        if device.type != "cpu":
            self.thread = ThreadPoolExecutor(1, "dfo-offload")
            self.stream = torch.cuda.Stream(device)

    def block(self, tensor: Tensor, file: File | None) -> _Block:
        """Return a tensor as one that lives here."""
        return _Block(tensor, file) if self.device.type == "cpu" else _Copied(tensor, file, self)

    def lend(self, block: _Block, value: Tensor) -> Tensor:
        """Return what a slot holds, its parameter or a stand-in, near."""
        if block is not self.last:
            self._use(block)
        if self.device.type == "cpu":
            if isinstance(value, Weight) and isinstance(value.values, Explicit):
                block.lent = value.values
            return value
        if isinstance(value, Weight):
            return weight(self._moved(value.values, block))
        return block.near() if value is block.tensor else value.to(self.device)

    def _use(self, block: _Block) -> None:
        """Note a use, and begin to fetch those that came after this one the last time, up to half of the room."""
        if self.last is not None:
            self.after[self.last] = block
        self.last = block
        self._hold(block)
        following, size = self.after.get(block), 0
        while following is not None and following is not block:
            size += following.tensor.nbytes
            if size > self.room // 2:
                break
            if following not in self.held:
                self._hold(following)
            following = self.after.get(following)

    def _hold(self, block: _Block) -> None:
        if block in self.held:
            self.held.move_to_end(block)
            return
        block.fetch()
        self.held[block] = block.tensor.nbytes
        self.free -= block.tensor.nbytes
        while self.free < 0 and len(self.held) > 1:
            oldest = next(held for held in self.held if held is not self.last)
            self.free += self.held.pop(oldest)
            oldest.drop()

    def _moved(self, values: Values, block: _Block) -> Values:
        """Return a member's parameter on the device."""
        own = values.base.data_ptr() == block.tensor.data_ptr()
        base = block.near() if own else values.base.to(self.device)
        if isinstance(values, Factored):
            left, right = (part.to(self.device) for part in values.factors())
            return Factored(base, values.members, left, right, values.rank)
        if isinstance(values, Explicit):
            return type(values)(base, values.members, _Drawn(values.stream, self.device))  # type: ignore[arg-type]
        return Values(base, values.members, values.explicit().to(self.device))


class _Drawn:
    """Directions that are drawn on the host and used on a device.

    Args:
        stream: of a tensor on the host.
        device: where they are used.
    """

    def __init__(self, stream: Any, device: torch.device) -> None:
        self.stream, self.device = stream, device

    def rows(self, start: int, stop: int) -> Tensor:
        """Return directions ``start .. stop`` as ``(k, *shape)``."""
        drawn: Tensor = self.stream.rows(start, stop)
        return drawn.to(self.device)

    def piece(self, i: int, start: int, count: int) -> Tensor:
        """Return ``count`` entries of direction ``i`` from ``start`` on, flat."""
        drawn: Tensor = self.stream.piece(i, start, count)
        return drawn.to(self.device)
