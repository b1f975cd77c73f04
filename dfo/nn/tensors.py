"""The tensors of a module that move, and where the module keeps them.

A tensor that a module holds under several names (tied weights) is one tensor, moved once. Only floating-point
tensors that are dense and ask for it (``requires_grad``, or a choice of names) move; buffers never do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, InvalidType, short

__all__ = ["AWAY", "Choice", "Place", "done_with", "keep_buffers", "places", "trainable"]

Choice: TypeAlias = "str | Callable[[str, Tensor], bool] | None"
"""Which parameters move: None, a regular expression that their names match, or a function of name and tensor."""

AWAY: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""By their address, tensors that live elsewhere (:mod:`dfo.nn.offload`) and can be given back."""


def done_with(tensor: Tensor) -> None:
    """Say that a tensor will not be used for a while; where it lives elsewhere, the memory it takes is given back."""
    away = AWAY.get(tensor.data_ptr()) if AWAY else None
    if away is not None:
        away.drop()


@dataclass(frozen=True, eq=False)
class Place:
    """A slot of a module in which a tensor is kept.

    Args:
        module: the module or submodule.
        slot: name of the parameter in it.
    """

    module: nn.Module
    slot: str

    def put(self, tensor: Tensor) -> None:
        """Keep another tensor in the slot, without the checks that belong to the user's own assignments."""
        self.module._parameters[self.slot] = tensor


def trainable(module: nn.Module, params: Choice = None) -> dict[str, Tensor]:
    """Return the tensors that move, by their first name in ``module.named_parameters()``.

    Args:
        module: any module.
        params: None for all that ask for gradients (so that LoRA, prefixes and frozen layers need no word), a
            regular expression searched in the names, or ``function(name, tensor) -> bool``.

    Raises:
        InvalidType: ``module`` is no torch module.
        InvalidArgument: nothing is left to move, or a chosen tensor cannot be moved: integers (quantised layers),
            sparse or meta tensors.
    """
    if not isinstance(module, nn.Module):
        raise InvalidType(f"module: expected a torch.nn.Module, got {short(module)}.")
    chosen = {name: p for name, p in module.named_parameters() if _wanted(name, p, params)}
    for name, p in chosen.items():
        _check(name, p)
    if not chosen:
        raise InvalidArgument(f"module: {_nothing(module, params)}")
    return {name: p.detach() for name, p in chosen.items()}


def _wanted(name: str, p: Tensor, params: Choice) -> bool:
    if params is None:
        return p.requires_grad
    if isinstance(params, str):
        return re.search(params, name) is not None
    if not callable(params):
        raise InvalidType(f"params: expected a regular expression or a function of name and tensor, got {params!r}.")
    return bool(params(name, p))


def _check(name: str, p: Tensor) -> None:
    if p.is_meta:
        raise InvalidArgument(f"parameter {name!r} has no memory yet (meta device). Load the weights first.")
    if not p.is_floating_point():
        raise InvalidArgument(f"parameter {name!r} holds {p.dtype}: integers are not moved. Leave it out by params=.")
    if p.layout != torch.strided or p.itemsize < 2:
        raise InvalidArgument(
            f"parameter {name!r}: expected a dense tensor of 16 bits or more, got {p.layout} {p.dtype}."
        )
    if not p.is_contiguous():
        raise InvalidArgument(f"parameter {name!r} is not contiguous. Assign {name}.data = {name}.data.contiguous().")


def _nothing(module: nn.Module, params: Choice) -> str:
    quantised = [type(m).__module__ for m in module.modules() if "quantized" in type(m).__module__]
    if quantised:
        return f"its layers are packed integers ({quantised[0]}), which are not moved. Take the float model."
    if params is not None:
        return f"no parameter matches params={params!r}. See [name for name, _ in module.named_parameters()]."
    return "no parameter asks for gradients. Call requires_grad_(True) on those that shall move, or choose by params=."


def places(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, list[Place]]:
    """Return every slot in which each of the tensors is kept (several for tied weights)."""
    held: dict[int, str] = {}
    parameters = dict(module.named_parameters())
    for name in tensors:
        held[id(parameters[name])] = name
    found: dict[str, list[Place]] = {name: [] for name in tensors}
    for part in module.modules():
        for slot, p in part._parameters.items():
            if p is not None and id(p) in held:
                found[held[id(p)]].append(Place(part, slot))
    return found


class keep_buffers:  # noqa: N801 - reads as a word at its `with`
    """Give a module its buffers back (running statistics, counters) as they were.

    Args:
        module: whose buffers a forward pass in training mode may move.
    """

    def __init__(self, module: nn.Module) -> None:
        self.kept = [(b, b.clone()) for b in _moving(module)]

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for buffer, value in self.kept:
                buffer.copy_(value)


def _moving(module: nn.Module) -> Iterator[Tensor]:
    """Yield the buffers that a forward pass moves: those of normalisations that are training."""
    for part in module.modules():
        if part.training and getattr(part, "track_running_stats", False):
            yield from (b for b in part._buffers.values() if b is not None)
