"""What a recorded forward pass consists of: calls of submodules, torch functions, states of generators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

__all__ = ["QUERIES", "Call", "Event", "generators", "restore", "work"]


@dataclass
class Call:
    """One call of a submodule: when it began and ended, which calls it made, what went in and came out."""

    module: nn.Module
    began: int
    ended: int = 0
    stop: int = 0
    """Number of the first later call that is not inside this one."""
    given: Any = None
    output: Any = None
    versions: tuple[int, ...] = ()
    dirty: bool = False
    """Whether somebody wrote into the output afterwards."""
    rng: Any = None
    """State of the generators when it ended, where the pass drew anything."""
    work: float = 0.0
    """Multiply-adds where the call has no calls inside, else 0."""


QUERIES = frozenset(("__get__", "size", "dim", "numel", "__len__", "stride", "is_contiguous", "is_floating_point"))
"""Functions that say nothing of a tensor's values."""


@dataclass
class Event:
    """One torch function of the recorded pass, its arguments, its result and its moment."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    moment: int


def work(sub: nn.Module, out: Any) -> float:
    """Return the multiply-adds of a layer: outputs times the weights that meet in one."""
    size = sum(t.numel() for t in tree_flatten(out)[0] if isinstance(t, Tensor))
    weight: Any = getattr(sub, "weight", None)
    dense = isinstance(sub, (nn.Linear, nn.modules.conv._ConvNd)) and isinstance(weight, Tensor)
    return float(size * (weight.numel() // len(weight) if dense else 1))


def generators(module: nn.Module) -> list[tuple[Any, Tensor]]:
    """Return the state of the host's generator and of those of the devices of a module."""
    devices = sorted({p.device for p in module.parameters() if p.device.type == "cuda"}, key=str)
    return [(None, torch.get_rng_state()), *((d, torch.cuda.get_rng_state(d)) for d in devices)]


def restore(states: list[tuple[Any, Tensor]]) -> None:
    """Put states of generators back."""
    for device, state in states:
        if device is None:
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)
