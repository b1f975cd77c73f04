"""What members make of functions that take a parameter entry by entry: norms, products, sums, expansions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfo.nn.lifted import HANDLERS, Tiled, Weight, folded, handles, member_rows, once, plain, weight
from dfo.nn.members import Members
from dfo.nn.weights import Values

__all__ = ["affine"]

Op = Callable[[Any, Any], Tensor]


def _reversed(op: Op) -> Op:
    return lambda a, b: op(b, a)


def _entrywise(op: Op, a: Any, b: Any, **words: Any) -> Any:
    """Return ``op(a, b)`` where one of the two is a weight."""
    if words or (isinstance(a, Weight) and isinstance(b, Weight)):
        return NotImplemented
    w, x = (a, b) if isinstance(a, Weight) else (b, a)
    if not isinstance(x, Tensor) or x.dim() == 0:  # a number: the result differs by member as the weight does
        number = plain(x)
        own = w.values.explicit()
        done = op(own, number) if w is a else op(number, own)
        return weight(Values(done[0], w.members, done))
    depth, shape = x.dim(), w.as_subclass(torch.Tensor).shape
    if not member_rows(x, w.members) or not (len(shape) < depth or (len(shape) == depth and shape[0] == 1)):
        return NotImplemented
    rows = _rows(x, w.members)
    own = _aligned(w.values.explicit(), rows.dim())
    done = op(own, rows) if w is a else op(rows, own)
    return done.reshape(-1, *done.shape[2:])


def _rows(x: Tensor, members: Members) -> Tensor:
    """Return rows as ``(n, R, ...)``, or ``(1, R, ...)`` where members share them."""
    shared = once(x)
    return folded(x, members) if shared is None else shared.unsqueeze(0)


def _aligned(own: Tensor, depth: int) -> Tensor:
    """Return values ``(n, *shape)`` with dimensions of length 1 behind the first, for ``depth`` dimensions in all."""
    shape = own.shape[1:]
    if len(shape) == depth - 1:  # its first dimension has length 1 and stands for the rows
        return own
    return own.view(own.shape[0], *[1] * (depth - 1 - len(shape)), *shape)


for _names, _op in (
    (("mul", "multiply", "rmul", "imul"), torch.mul),
    (("add", "radd", "iadd"), torch.add),
    (("sub", "subtract", "isub"), torch.sub),
    (("rsub",), _reversed(torch.sub)),
    (("div", "truediv", "true_divide", "divide"), torch.div),
    (("rtruediv", "rdiv"), _reversed(torch.div)),
):
    HANDLERS.update(dict.fromkeys(_names, partial(_entrywise, _op)))


@handles("expand", "repeat")
def _expanded(w: Any, *sizes: Any) -> Any:
    """Return a weight of one row as rows of every example, such as a class token."""
    if not isinstance(w, Weight):
        return NotImplemented
    wanted = list(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else list(sizes)
    members, shape = w.members, w.as_subclass(torch.Tensor).shape
    fits = len(wanted) == len(shape) and shape[0] == 1 and wanted[0] % (members.n * members.rows) == 0
    if not fits or any(size not in (-1, 1, have) for size, have in zip(wanted[1:], shape[1:], strict=True)):
        return NotImplemented
    own = w.values.explicit()  # (n, 1, ...)
    return own.expand(members.n, wanted[0] // members.n, *shape[1:]).reshape(wanted[0], *shape[1:])


@handles("expand_as")
def _expanded_as(w: Any, other: Tensor) -> Any:
    return _expanded(w, *other.shape)


# ---------------------------------------------------------------------------------------------- norms


def affine(y: Tensor, w: Any, b: Any, members: Members, channel: bool) -> Tensor:
    """Return ``y w + b`` with a scale and a shift that may differ by member.

    Args:
        y: ``(R, ...)`` rows that members share, or ``(n R, ...)`` tiled by the caller as ``(n, R, ...)``.
        w: parameter or None.
        b: parameter or None.
        members: the members.
        channel: whether the parameters belong to dimension 1 of an example, else to its last dimensions.
    """
    scale, shift = (_broadcast(p, y.dim(), channel) for p in (w, b))
    if scale is None:
        done = y if shift is None else y + shift
    elif shift is None:
        done = y * scale
    else:
        done = torch.addcmul(shift, y, scale)
    return done.reshape(-1, *done.shape[2:])


def _broadcast(p: Any, depth: int, channel: bool) -> Tensor | None:
    if p is None:
        return None
    own = p.values.explicit() if isinstance(p, Weight) else p.unsqueeze(0)
    if channel:
        return own.view(own.shape[0], 1, -1, *[1] * (depth - 3))
    return own.view(own.shape[0], *[1] * (depth - own.dim()), *own.shape[1:])


def _normed(function: Callable[[Tensor], Tensor], x: Tensor, w: Any, b: Any, channel: bool) -> Any:
    members = next(p.members for p in (w, b) if isinstance(p, Weight))
    if isinstance(x, Weight) or not member_rows(x, members):
        return NotImplemented
    shared = once(x)
    y = function(plain(x) if shared is None else shared)
    rows = y.unsqueeze(0) if shared is not None else y.view(members.n, -1, *y.shape[1:])
    return affine(rows, w, b, members, channel)


@handles("layer_norm")
def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    return _normed(lambda rows: F.layer_norm(rows, shape, None, None, eps), x, weight, bias, False)


@handles("rms_norm")
def _rms_norm(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    return _normed(lambda rows: F.rms_norm(rows, shape, None, eps), x, weight, None, False)


@handles("group_norm")
def _group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    return _normed(lambda rows: F.group_norm(rows, groups, None, None, eps), x, weight, bias, True)


@handles("instance_norm")
def _instance_norm(
    x: Tensor, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Any:  # fmt: skip
    def normed(rows: Tensor) -> Tensor:
        return F.instance_norm(rows, mean, var, None, None, use_input_stats, momentum, eps)

    return _normed(normed, x, weight, bias, True)


@handles("batch_norm")
def _batch_norm(
    x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Any:  # fmt: skip
    members = next(p.members for p in (weight, bias) if isinstance(p, Weight))

    def normed(rows: Tensor) -> Tensor:
        if not training:
            return F.batch_norm(rows, mean, var, None, None, False, 0.0, eps)
        if isinstance(x, Tiled) or members.n == 1:
            return F.batch_norm(rows, None, None, None, None, True, 0.0, eps)
        own = folded(rows, members).transpose(0, 1).flatten(1, 2)  # (R, n C, ...): every member has its own statistics
        done = F.batch_norm(own, None, None, None, None, True, 0.0, eps)
        return done.unflatten(1, (members.n, -1)).transpose(0, 1).reshape(rows.shape)

    return _normed(normed, x, weight, bias, True)
