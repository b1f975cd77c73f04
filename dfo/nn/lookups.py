"""What members make of embeddings: shared rows, and each member's own part of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dfo.nn.lifted import Weight, handles, member_rows, once, plain
from dfo.nn.weights import Factored, Streamed

__all__ = ["embedding"]


@handles("embedding")
def embedding(
    x: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """Return rows ``w[x]`` for numbers ``(n R, ...)``; numbers without examples are those of every example."""
    w = weight
    if not isinstance(w, Weight) or max_norm is not None:
        return NotImplemented
    v, members = w.values, w.members
    n, shared = members.n, once(x)
    numbers = plain(x) if shared is None else shared
    loose = shared is None and (not member_rows(numbers, members) or _counted(numbers))  # the same for every example
    if loose and (numbers.dim() == 1 or numbers.shape[0] != 1):
        numbers = numbers.unsqueeze(0)
    common = shared is not None or loose
    base = functional.embedding(numbers, plain(w))
    flat = numbers.reshape(1 if common else n, -1)  # (1 or n, R)
    width = base.shape[-1]
    if isinstance(v, Streamed) and not v.swapped:
        own = _drawn_rows(v, flat).view(n, *(base.shape if common else (base.shape[0] // n, *base.shape[1:])))
        result = own + (base if common else base.view(n, -1, *base.shape[1:]))
    elif isinstance(v, Factored):
        result = _looked_up(v, base, flat)
    else:
        member = torch.arange(n, device=flat.device).unsqueeze(1)
        result = v.explicit()[member, flat].view(n, *(base.shape if common else (-1, *base.shape[1:])))
    result = result.view(n, -1, *base.shape[1:])
    if loose:
        result = result.expand(n, members.rows, *result.shape[2:])
    return result.reshape(-1, *result.shape[2:-1], width)


def _counted(numbers: Tensor) -> bool:
    """Tell whether numbers are positions ``(T,)``, one after another, however many rows the members have."""
    return numbers.dim() == 1 and len(numbers) > 1 and bool((numbers.diff() == 1).all())


def _looked_up(v: Factored, base: Tensor, flat: Tensor) -> Tensor:
    """Return ``(n, R, width)``: shared rows plus ``s left[x] right``."""
    n, g, (left, right) = v.members.n, v.groups, v.factors()
    per, width = n // g, base.shape[-1]
    columns = v.columns(left).unsqueeze(1)  # (n, 1, r)
    if len(flat) == 1:
        scaled = left[:, flat[0]].repeat_interleave(per, 0) * columns  # (n, R, r)
        return torch.baddbmm(base.reshape(1, -1, width).expand(n, -1, width), scaled, right.repeat_interleave(per, 0))
    group = torch.arange(n, device=flat.device).div(per, rounding_mode="floor").unsqueeze(1)
    left = (left[group, flat] * columns).view(g, -1, left.shape[2])
    return base.reshape(g, -1, width).baddbmm_(left, right)


def _drawn_rows(v: Streamed, flat: Tensor) -> Tensor:
    """Return the scaled rows ``flat`` of every member's direction, ``(n, R, width)``, drawn row by row."""
    members, rows = v.members, []
    for i in range(members.n):
        numbers, places = torch.unique(flat[i if len(flat) > 1 else 0], return_inverse=True)
        j = int(members.index[i])
        drawn = torch.cat([v.stretch(j, k, k + 1) for k in numbers.tolist()])
        rows.append(drawn[places] * float(members.scale[i]))
    return torch.stack(rows)
