"""What members make of linear maps: one product that all share, and each member's own part of it.

Activation-side (Sarkar et al. 2025, arXiv:2511.16652, section 3): ``x (W + s A B)^T = x W^T + s (x B^T) A^T``, so the
large product is one matrix multiplication for the rows of all members, and a member adds a product of rank r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfo.nn.lifted import Tiled, Weight, folded, handles, member_rows, once, plain
from dfo.nn.lifted import weight as lifted
from dfo.nn.members import Members
from dfo.nn.weights import Explicit, Factored, Streamed, Values

__all__ = ["STRETCH", "linear"]

STRETCH = 1 << 18
"""Entries of a streamed tensor that are written out at a time: half a mebibyte to two, which stay in the cache."""

BESIDE = 128
"""Rows a member up to which a second product is quicker than weights of its own."""

FEW, FEW_NARROW = 1, 4
"""Rows a group up to which dot products are quicker one by one than batched, in 32 bits and more, and in 16."""


def _members(*tensors: Any) -> Members:
    return next(x.members for x in tensors if isinstance(x, Weight))


def _bias_base(bias: Any) -> Tensor | None:
    return None if bias is None else plain(bias)


@handles("linear")
def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Any:
    """Return ``x w^T + bias`` for rows ``(n R, ..., in)``, weights ``(out, in)``."""
    if isinstance(x, Weight):
        return NotImplemented
    members = _members(w, bias)
    if not isinstance(w, Weight):
        return _shifted(F.linear(plain(x), w), bias, members)
    values: Values = w.values
    if not member_rows(x, members):
        return NotImplemented
    if isinstance(values, Factored):
        return (_factored_once if isinstance(x, Tiled) else _factored)(x, values, bias)
    if isinstance(values, Streamed):
        return _streamed(x, values, bias)
    if isinstance(values, Explicit) and values.given is None and _few_rows(x, members):
        return _beside(x, values, bias)
    return _stacked(x, values, bias)


def _few_rows(x: Tensor, members: Members) -> bool:
    """Tell whether a second product costs less than weights written out: rows that are shared, or not many."""
    return isinstance(x, Tiled) or x.numel() <= BESIDE * x.shape[-1] * members.n


def _shifted(y: Tensor, bias: Any, members: Members) -> Tensor:
    """Return rows plus a bias that differs by member."""
    if bias is None:
        return y
    if not isinstance(bias, Weight):
        return y + bias
    own = bias.values.explicit()
    rows = folded(y, members)
    return (rows + own.view(members.n, *[1] * (rows.dim() - 2), -1)).view(y.shape)


def _factored(x: Tensor, v: Factored, bias: Any) -> Tensor:
    """Rows that differ by member: what each adds is written first, and the product that all share is summed onto it.

    Nothing passes over the outputs a second time, and they are rounded once.
    """
    left, right = v.factors()
    g, out, k = left.shape
    flat = x.reshape(-1, x.shape[-1])
    rows = flat.view(g, -1, x.shape[-1])  # (g, R, in)
    t = _met(rows, right).unflatten(1, (v.members.n // g, -1)) * v.columns(rows).view(g, -1, 1, k)  # (g, n / g, R', k)
    start = _start(bias, t)
    if k == 1:
        wide = left.view(g, 1, 1, out)
        y = t * wide if start is None else torch.addcmul(start, t, wide)
    else:
        y = torch.bmm(t.flatten(1, 2), left.transpose(1, 2)).view(*t.shape[:3], out)
        if start is not None:
            y += start
    y = y.flatten(0, 2).addmm_(flat, v.base.t())
    return y.view(*x.shape[:-1], out)


def _met(rows: Tensor, right: Tensor) -> Tensor:
    """Return the products ``(g, R, k)`` of rows ``(g, R, in)`` with the right factors ``(g, k, in)`` of their group."""
    if rows.shape[1] <= (FEW_NARROW if rows.itemsize == 2 else FEW):
        return torch.linalg.vecdot(rows.unsqueeze(2), right.unsqueeze(1))
    return torch.bmm(right, rows.transpose(1, 2)).transpose(1, 2)  # the quicker order


def _start(bias: Any, t: Tensor) -> Tensor | None:
    """Return what the outputs start from: the bias, ``(out,)``, or that of every member, ``(g, n / g, 1, out)``."""
    if isinstance(bias, Weight):
        own: Tensor = bias.values.explicit()
        return own.view(*t.shape[:2], 1, -1)
    return None if bias is None else plain(bias)


def _factored_once(x: Tensor, v: Factored, bias: Any) -> Tensor:
    """Rows that all members share: the large product once, and the small ones of all members in one."""
    members, rows = v.members, once(x)
    assert rows is not None
    left, right = v.factors()
    n, (g, out, r) = members.n, left.shape
    y = members.shared.linear(rows, v.base, _bias_base(bias)).view(-1, out)  # (R, out)
    flat = rows.reshape(-1, rows.shape[-1])
    t = F.linear(flat, right.reshape(g * r, -1)).view(-1, g, r).transpose(0, 1)  # (g, R, r)
    t = (t.unsqueeze(1) * v.columns(t).view(g, n // g, 1, r)).reshape(n, -1, r).contiguous()  # as the sums shall be
    wide = left.repeat_interleave(n // g, 0).transpose(1, 2)  # (n, r, out)
    sums = torch.addcmul(y, t, wide) if r == 1 else torch.baddbmm(y.expand(n, *y.shape), t, wide)
    if isinstance(bias, Weight):
        sums += bias.values.shift().unsqueeze(1)
    return sums.view(n * rows.shape[0], *rows.shape[1:-1], out)


def _beside(x: Tensor, v: Explicit, bias: Any) -> Tensor:
    """The shared product, and beside it that of each direction, scaled; no member's weight is written."""
    members, drawn, rows = v.members, v.drawn, once(x)
    n, (g, out, wide) = members.n, drawn.shape
    given = plain(x) if rows is None else rows
    lead = (n * rows.shape[0], *rows.shape[1:-1]) if rows is not None else given.shape[:-1]
    y = F.linear(given, v.base, _bias_base(bias))
    scale = members.scales(y).view(g, -1, 1, 1)
    if rows is None:
        scaled = given.reshape(g, n // g, -1, wide) * scale
        y = y.view(g, -1, out).baddbmm_(scaled.view(g, -1, wide), drawn.transpose(1, 2))
    else:
        t = F.linear(rows.reshape(-1, wide), drawn.reshape(g * out, wide)).view(-1, g, out).transpose(0, 1)
        room = y.new_empty(g, n // g, *t.shape[1:])
        y = torch.addcmul(y.view(-1, out), t.unsqueeze(1), scale, out=room)
    y = y.view(n, -1, out)
    if isinstance(bias, Weight):
        y += bias.values.shift().unsqueeze(1)
    return y.view(*lead, out)


def _stacked(x: Tensor, v: Values, bias: Any) -> Tensor:
    """One explicit matrix a member."""
    n, own, shared = v.members.n, v.explicit(), once(x)
    out = own.shape[1]
    rows = plain(x) if shared is None else shared
    lead = rows.shape[:-1]
    if shared is None:
        x3 = rows.reshape(n, -1, rows.shape[-1])
        y = torch.bmm(x3, own.transpose(1, 2))
    else:
        flat = shared.reshape(-1, shared.shape[-1])
        y = F.linear(flat, own.reshape(n * out, -1)).view(-1, n, out).transpose(0, 1).contiguous()
        lead = torch.Size((n * lead[0], *lead[1:]))
    if isinstance(bias, Weight):
        y += bias.values.explicit().unsqueeze(1)
    elif bias is not None:
        y += bias
    return y.view(*lead, out)


def _streamed(x: Tensor, v: Streamed, bias: Any) -> Tensor:
    """One matrix a member, of which a stretch of rows exists at a time."""
    members, beside = v.members, _few_rows(x, v.members)
    shared = once(x)
    given = plain(x) if shared is None else shared
    rows = given.reshape(members.n if shared is None else 1, -1, x.shape[-1])
    base = F.linear(rows, v.base.t() if v.swapped else v.base) if beside else None
    y = _room(rows, members.n, v) if base is None else base.expand(members.n, -1, -1).contiguous()
    for j in dict.fromkeys(members.index.tolist()):
        mine = [int(i) for i in (members.index == j).nonzero()[0]]
        if base is None:
            _explicitly(rows, y, v, j, mine)
        else:
            _added(rows, y, v, j, mine)
    lead = (members.n * shared.shape[0], *shared.shape[1:-1]) if shared is not None else x.shape[:-1]
    return _shifted(y.view(*lead, y.shape[-1]), bias, members)


def _room(rows: Tensor, n: int, v: Streamed) -> Tensor:
    tall, wide = v.base.shape
    return rows.new_zeros(n, rows.shape[1], wide if v.swapped else tall)


def _stretches(v: Streamed, j: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield stretches of rows of direction ``j``."""
    tall, wide = v.base.shape
    step = max(1, STRETCH // wide)
    for at in range(0, tall, step):
        stop = min(at + step, tall)
        yield slice(at, stop), v.stretch(j, at, stop)


def _added(rows: Tensor, y: Tensor, v: Streamed, j: int, mine: Sequence[int]) -> None:
    """Add to the shared product what direction ``j`` adds for its members."""
    scale = v.members.scale
    for part, drawn in _stretches(v, j):
        if len(rows) > 1:
            for i in mine:
                x, out = (rows[i][:, part], y[i]) if v.swapped else (rows[i], y[i][:, part])
                out.addmm_(x, drawn if v.swapped else drawn.t(), alpha=float(scale[i]))
            continue
        t = rows[0][:, part] @ drawn if v.swapped else rows[0] @ drawn.t()  # once for all members of the direction
        for i in mine:
            (y[i] if v.swapped else y[i][:, part]).add_(t, alpha=float(scale[i]))


def _explicitly(rows: Tensor, y: Tensor, v: Streamed, j: int, mine: Sequence[int]) -> None:
    """Write what the members of direction ``j`` make of their rows, one stretch of weights after another."""
    scratch: Tensor | None = None
    for part, drawn in _stretches(v, j):
        scratch = torch.empty_like(drawn) if scratch is None else scratch
        weights = scratch[: len(drawn)]
        for i in mine:
            torch.add(v.base[part], drawn, alpha=float(v.members.scale[i]), out=weights)
            if v.swapped:
                y[i].addmm_(rows[i][:, part], weights)
            else:
                torch.mm(rows[i], weights.t(), out=y[i][:, part])


@handles("matmul", "mm", "rmatmul")
def _matmul(x: Tensor, w: Tensor) -> Any:
    """Return ``x w`` for weights ``(in, out)``."""
    if isinstance(x, Weight) or not isinstance(w, Weight) or w.dim() != 2:
        return NotImplemented
    return linear(x, lifted(w.values.moved()))


@handles("addmm")
def _addmm(bias: Tensor, x: Tensor, w: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    if isinstance(x, Weight) or (beta, alpha) != (1, 1):
        return NotImplemented
    return linear(x, lifted(w.values.moved()) if isinstance(w, Weight) else w.t(), bias)


@handles("t", "transpose", "swapaxes")
def _turned(w: Tensor, dim0: int = 0, dim1: int = 1) -> Any:
    if not isinstance(w, Weight) or w.dim() != 2 or {dim0 % 2, dim1 % 2} != {0, 1}:
        return NotImplemented
    return lifted(w.values.moved())


@handles("chunk")
def _chunks(w: Tensor, chunks: int, dim: int = 0) -> Any:
    size = -(-w.shape[0] // chunks) if isinstance(w, Weight) else 0
    return _split(w, size, dim)


@handles("split")
def _split(w: Tensor, size: int | Sequence[int], dim: int = 0) -> Any:
    if not isinstance(w, Weight) or dim != 0:
        return NotImplemented
    length = w.as_subclass(torch.Tensor).shape[0]
    sizes = [min(size, length - at) for at in range(0, length, size)] if isinstance(size, int) else list(size)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(lifted(w.values.cut(end - size, end)) for size, end in zip(sizes, ends, strict=True))


@handles("getitem")
def _cut(w: Tensor, where: Any) -> Any:
    if not isinstance(w, Weight) or not isinstance(where, slice):
        return NotImplemented
    start, stop, step = where.indices(w.as_subclass(torch.Tensor).shape[0])
    return lifted(w.values.cut(start, stop)) if step == 1 else NotImplemented


# ---------------------------------------------------------------------------------------------- attention


@handles("multi_head_attention_forward")
def _attention(  # noqa: PLR0913, PLR0917 - torch's own signature
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
    in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any,
    out_proj_bias: Any, training: bool = True, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, use_separate_proj_weight: bool = False, q_proj_weight: Any = None,
    k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """Return what ``nn.MultiheadAttention`` returns, ``(T, n R, E)``, with every projection of members' weights."""
    odd = (bias_k, bias_v, static_k, static_v)
    if query.dim() != 3 or any(x is not None for x in odd) or add_zero_attn or (dropout_p and training):
        return NotImplemented
    mask = plain(attn_mask)
    if mask is not None and mask.dim() != 2:
        return NotImplemented
    members = _members(in_proj_weight, in_proj_bias, out_proj_weight, out_proj_bias, q_proj_weight, k_proj_weight,
                       v_proj_weight)  # fmt: skip
    inputs = [plain(x).transpose(0, 1) for x in (query, key, value)]  # (n R, T, E)
    padded = plain(key_padding_mask)
    if not all(member_rows(x, members) for x in (*inputs, *(() if padded is None else (padded,)))):
        return NotImplemented
    mask = _additive(mask, inputs[0])
    if padded is not None:
        hidden = _additive(padded, inputs[0])[:, None, None]  # (n R, 1, 1, S)
        mask = hidden if mask is None else mask + hidden
    kinds = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else _thirds(in_proj_weight)
    biases = (None, None, None) if in_proj_bias is None else _thirds(in_proj_bias)
    heads = []
    for x, w, b in zip(inputs, kinds, biases, strict=True):
        y = F.linear(x, w, b) if not isinstance(w, Weight) and not isinstance(b, Weight) else linear(x, w, b)
        heads.append(y.view(*y.shape[:2], num_heads, -1).transpose(1, 2))  # (n R, h, T, E / h)
    if need_weights:
        return _weighed(heads, mask, out_proj_weight, out_proj_bias, average_attn_weights)
    query, key, value = heads
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return _projected(mixed, out_proj_weight, out_proj_bias), None


def _thirds(w: Any) -> Any:
    if isinstance(w, Weight):
        size = w.as_subclass(torch.Tensor).shape[0] // 3
        if isinstance(w.values, Streamed):
            own = lifted(Values(w.values.base, w.members, w.values.explicit()))
            return _split(own, size)
        return _split(w, size)
    return w.chunk(3)


def _additive(mask: Any, like: Tensor) -> Any:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -math.inf)  # True hides, unlike elsewhere


def _projected(y: Tensor, w: Any, b: Any) -> Tensor:
    rows = y.transpose(1, 2).flatten(2)
    out = linear(rows, w, b) if isinstance(w, Weight) or isinstance(b, Weight) else F.linear(rows, w, b)
    return out.transpose(0, 1)


def _weighed(heads: list[Tensor], mask: Tensor | None, w: Any, b: Any, average: bool) -> tuple[Tensor, Tensor]:
    q, k, v = heads
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    if mask is not None:
        scores = scores + mask
    shares = scores.softmax(-1)
    return _projected(shares @ v, w, b), shares.mean(1) if average else shares
