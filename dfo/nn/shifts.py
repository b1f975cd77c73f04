"""What one coordinate of a layer's weights adds to the layer's output: one unit moves by a known amount.

In ``y = W x + b`` a step ``s`` of ``W[j, k]`` moves unit j by ``s x_k`` and of ``b[j]`` by ``s``; in a convolution
channel j moves by ``s`` times a shifted image of channel c; in an embedding feature k moves by ``s`` where the word
occurs; in a norm unit j moves by ``s`` times its standardised input. The output of many members is therefore built
from the recorded output without any product, one unit each.

Where that output goes through unit-wise functions only (activations, pooling, batch norm by running statistics) and
then into one linear layer or convolution, the unit is followed to there: the next layer's output moves by the column
of its weights that belongs to the unit, times the change of the unit, and its product is not computed again either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfo.nn.recorded import Call, Event

__all__ = ["Carried", "Shift", "carried", "shift_of"]

Source = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shift:
    """How coordinates of one tensor move the output of its layer.

    Args:
        output: recorded output of the layer.
        axis: of the units in the output.
        source: of flat indices ``(m,)``: the units ``(m,)`` they move, and by how much per unit of step: ``(m, ...)``
            with the axes of the output less that of the units, or ``(m,)`` where it is the same everywhere.
        live: of flat indices: which move anything at all, ``(m,)``; the derivative of the others is zero.
    """

    output: Tensor
    axis: int
    source: Source
    live: Callable[[Tensor], Tensor]

    def members(self, index: Tensor, step: Tensor) -> Tensor:
        """Return outputs of members ``(m, ...)`` in which coordinate ``index[i]`` has moved by ``step[i]``."""
        m = len(index)
        out = self.output.unsqueeze(0).expand(m, *self.output.shape).clone()
        unit, change = self.source(index)
        change = change.reshape(*change.shape, *[1] * (self.output.ndim - change.ndim))
        moved = out.movedim(self.axis + 1, 1)  # (m, units, ...)
        moved[torch.arange(m, device=out.device), unit] += change * step.reshape(m, *[1] * (change.ndim - 1))
        return out


def shift_of(layer: nn.Module, name: str, x: Any, y: Any) -> Shift | None:
    """Return how the tensor ``name`` of a layer moves its output, or None where that is not known.

    Args:
        layer: of exactly a known class; a subclass may do anything.
        name: of the tensor within the layer.
        x: what the layer was given.
        y: what it returned.
    """
    make = LAYERS.get(type(layer))
    if make is None or not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return None
    return make(layer, name, x, y)


def _all(index: Tensor) -> Tensor:
    return torch.ones(len(index), dtype=torch.bool, device=index.device)


def _constant(y: Tensor, axis: int) -> Shift:
    return Shift(y, axis, lambda i: (i, torch.ones(len(i), dtype=y.dtype, device=y.device)), _all)


def _linear(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift:
    if name == "bias":
        return _constant(y, y.ndim - 1)
    width = x.shape[-1]
    filled = (x != 0).reshape(-1, width).any(0)
    columns = x.movedim(-1, 0)  # (in, ...)
    return Shift(y, y.ndim - 1, lambda i: (i // width, columns[i % width]), lambda i: filled[i % width])


def _embedding(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift | None:
    if layer.max_norm is not None:  # rewrites its weights
        return None
    width = layer.embedding_dim
    present = torch.zeros(layer.num_embeddings, dtype=torch.bool, device=x.device)
    present[x.reshape(-1)] = True
    if layer.padding_idx is not None:  # a constant, by torch's convention
        present[layer.padding_idx] = False

    def source(i: Tensor) -> tuple[Tensor, Tensor]:
        word = (i // width).reshape(-1, *[1] * x.ndim)
        return i % width, (x.unsqueeze(0) == word).to(y.dtype)

    return Shift(y, y.ndim - 1, source, lambda i: present[i // width])


def _convolution(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift:
    n = len(layer.kernel_size)
    axis = y.ndim - n - 1
    if name == "bias":
        return _constant(y, axis)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    batched = x if x.ndim == n + 2 else x.unsqueeze(0)
    padded = F.pad(batched, layer._reversed_padding_repeated_twice, mode=mode).contiguous()
    places = y.shape[axis + 1 :]
    steps = padded.stride()
    image = padded.as_strided(
        (*padded.shape[:2], *layer.kernel_size, *places),
        (*steps[:2], *(s * d for s, d in zip(steps[2:], layer.dilation, strict=True)),
         *(s * d for s, d in zip(steps[2:], layer.stride, strict=True))),
    )  # fmt: skip
    image = image.movedim(0, n + 1)  # (channels, *kernel, B, *places)
    inside, taps = layer.weight.shape[1], layer.weight[0, 0].numel()
    per_group = layer.out_channels // layer.groups

    def source(i: Tensor) -> tuple[Tensor, Tensor]:
        unit, rest = i // (inside * taps), i % (inside * taps)
        at = torch.unravel_index(rest % taps, tuple(layer.kernel_size))
        change = image[(unit // per_group * inside + rest // taps, *at)]  # (m, B, *places)
        return unit, change if x.ndim == n + 2 else change.squeeze(1)

    return Shift(y, axis, source, _all)


def _scaled(y: Tensor, axis: int, standard: Tensor, name: str) -> Shift:
    if name == "bias":
        return _constant(y, axis)
    units = standard.movedim(axis, 0)
    return Shift(y, axis, lambda i: (i, units[i]), _all)


def _layer_norm(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift | None:
    if len(layer.normalized_shape) != 1:
        return None
    return _scaled(y, y.ndim - 1, F.layer_norm(x, layer.normalized_shape, None, None, layer.eps), name)


def _rms_norm(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift | None:
    if len(layer.normalized_shape) != 1:
        return None
    return _scaled(y, y.ndim - 1, F.rms_norm(x, layer.normalized_shape, None, layer.eps), name)


def _group_norm(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift:
    return _scaled(y, 1, F.group_norm(x, layer.num_groups, None, None, layer.eps), name)


def _batch_norm(layer: Any, name: str, x: Tensor, y: Tensor) -> Shift:
    own = layer.training or layer.running_mean is None  # statistics of the batch
    mean, variance = (None, None) if own else (layer.running_mean, layer.running_var)
    return _scaled(y, 1, F.batch_norm(x, mean, variance, None, None, own, 0.0, layer.eps), name)


LAYERS: dict[type[nn.Module], Callable[[Any, str, Tensor, Tensor], Shift | None]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
}
"""Class of a layer to what builds its shifts."""


# ---------------------------------------------------------------------- following a unit to the next product

Step = Callable[[Tensor, Tensor], Tensor]
"""Of the values of units ``(m, ...)`` and their numbers ``(m,)``."""

UNITWISE = frozenset(
    ("relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu", "elu", "selu", "celu", "softplus", "hardtanh", "relu6",
     "hardswish", "hardsigmoid", "mish", "logsigmoid", "softsign", "max_pool1d", "max_pool2d", "avg_pool1d",
     "avg_pool2d", "boolean_dispatch", "fn")
)  # fmt: skip
"""Names of functions that treat units alike and apart, the axis of the units left out or not."""


@dataclass(frozen=True, eq=False)
class Carried:
    """How coordinates of a tensor move the output of the layer after their own; members as in :class:`Shift`.

    Args:
        shift: of the coordinates' own layer.
        steps: what the moved unit goes through.
        before: recorded values that the next layer's inputs are made of, the axis of the units as in ``shift``.
        layer: the next layer, linear or convolution.
        output: what it returned.
    """

    shift: Shift
    steps: tuple[Step, ...]
    before: Tensor
    layer: Any
    output: Tensor

    def live(self, index: Tensor) -> Tensor:
        """Tell which coordinates move anything at all, ``(m,)``."""
        return self.shift.live(index)

    def members(self, index: Tensor, step: Tensor) -> Tensor:
        """Return outputs of members ``(m, ...)`` of the next layer."""
        unit, change = self.shift.source(index)
        values = self.shift.output.movedim(self.shift.axis, 0)[unit]  # (m, ...)
        change = change.reshape(*change.shape, *[1] * (values.ndim - change.ndim))
        values = values + change * step.reshape(-1, *[1] * (values.ndim - 1))
        for one in self.steps:
            values = one(values, unit)
        values = values - self.before.movedim(self.shift.axis, 0)[unit]
        weight = self.layer.weight
        if isinstance(self.layer, nn.Conv2d):
            return self._convolved(values, unit, weight)
        if self.shift.axis == self.shift.output.ndim - 1:
            column = weight.t()[unit].reshape(len(unit), *[1] * (values.ndim - 1), -1)
            return torch.addcmul(self.output, values.unsqueeze(-1), column)
        flat = values.reshape(len(unit), values.shape[1], -1)  # (m, B, places): units were flattened into features
        block = weight.reshape(len(weight), -1, flat.shape[2]).permute(1, 2, 0)[unit]  # (m, places, out)
        return torch.baddbmm(self.output, flat, block)

    def _convolved(self, values: Tensor, unit: Tensor, weight: Tensor) -> Tensor:
        m, rows = values.shape[:2]
        out = self.output.unsqueeze(0).expand(m, *self.output.shape).clone()
        layer = self.layer
        for u in unit.unique().tolist():
            at = (unit == u).nonzero().reshape(-1)
            image = values[at].reshape(len(at) * rows, 1, *values.shape[2:])
            moved = F.conv2d(image, weight[:, u : u + 1], None, layer.stride, layer.padding, layer.dilation)
            out[at] += moved.reshape(len(at), *self.output.shape)
        return out


def carried(shift: Shift, calls: list[Call], events: Mapping[int, list[Event]]) -> tuple[int, Carried] | None:
    """Follow the units of a shift through unit-wise functions to the next product.

    Returns:
        The number of the call in which that product is, and the change of its output; None where the units meet
        before, go elsewhere too, or meet a layer of another kind.
    """
    if shift.output.ndim not in (2, 3, 4):
        return None
    steps: list[Step] = []
    value, before, flat = shift.output, shift.output, False
    while True:
        uses = events.get(id(value), [])
        if len(uses) != 1 or not uses[0].args or uses[0].args[0] is not value or value._version:
            return None
        event = uses[0]
        call = _reads(event, value, calls)
        if call is not None:
            fits = _fits(calls[call].module, shift, flat)
            return (
                (call, Carried(shift, tuple(steps), before, calls[call].module, calls[call].output)) if fits else None
            )
        if flat or not isinstance(event.out, Tensor):
            return None
        step = _step(event, shift)
        flat = step is None and _flattens(event, value, shift)
        if step is not None:
            steps.append(step)
            before = event.out
        elif not flat:
            return None
        value = event.out


def _reads(event: Event, value: Tensor, calls: list[Call]) -> int | None:
    """Return the number of the call of a linear layer or convolution in which the value is read."""
    for k, call in enumerate(calls):
        inside = call.given is value and call.stop == k + 1 and call.began < event.moment < call.ended
        if inside and type(call.module) in (nn.Linear, nn.Conv2d):
            return k
    return None


def _fits(layer: Any, shift: Shift, flat: bool) -> bool:
    """Tell whether the axis of the units is what the layer sums over."""
    ndim = shift.output.ndim
    if isinstance(layer, nn.Linear):
        return flat or shift.axis == ndim - 1
    return not flat and ndim == 4 and shift.axis == 1 and layer.groups == 1 and layer.padding_mode == "zeros"


def _flattens(event: Event, value: Tensor, shift: Shift) -> bool:
    name = getattr(event.function, "__name__", "")
    whole = event.out.shape == (value.shape[0], value[0].numel())
    return name in ("flatten", "view", "reshape") and shift.axis == 1 and value.ndim > 2 and whole


def _step(event: Event, shift: Shift) -> Step | None:
    """Return what a function does to the values of single units, or None where units meet in it."""
    name, rest, kwargs = getattr(event.function, "__name__", ""), event.args[1:], event.kwargs
    if any(isinstance(t, Tensor) for t in (*rest, *kwargs.values())):
        return _normalised(event, shift) if name == "batch_norm" else None
    if name == "dropout" and not (dict(zip(("p", "training"), rest, strict=False)) | kwargs).get("training", True):
        return lambda values, unit: values
    pools = "pool" in name or name in ("boolean_dispatch", "fn")
    if name not in UNITWISE or (pools and (shift.axis != 1 or shift.output.ndim < 3)):
        return None
    return lambda values, unit: event.function(values, *rest, **kwargs)


def _normalised(event: Event, shift: Shift) -> Step | None:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given: dict[str, Any] = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
    given |= dict(zip(names, event.args, strict=False)) | event.kwargs
    if given["training"] or shift.axis != 1:
        return None
    mean, variance, weight, bias = (given[n] for n in names[1:5])
    scale: Any = (variance + given["eps"]).rsqrt() * (1 if weight is None else weight)
    offset: Any = (0 if bias is None else bias) - mean * scale

    def step(values: Tensor, unit: Tensor) -> Tensor:
        shape = (-1, *[1] * (values.ndim - 1))
        return values * scale[unit].reshape(shape) + offset[unit].reshape(shape)

    return step
