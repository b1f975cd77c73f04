"""What members make of convolutions: kernels of all members as channels of one, or a loop over members.

Images are handed on with the channels last: pooling and the next convolution are up to three times quicker on them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dfo.nn.lifted import Tiled, Weight, folded, handles, member_rows, once, plain
from dfo.nn.members import Members
from dfo.nn.weights import Explicit, Factored, Values

__all__ = ["conv"]


def conv(function: Any, x: Tensor, w: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
         groups: int = 1) -> Any:  # fmt: skip
    """Return a convolution of rows ``(n R, channels, ...)``, weights ``(out, in, ...)``."""
    members: Members = next(t.members for t in (w, bias) if isinstance(t, Weight))
    if isinstance(x, Weight) or not member_rows(x, members):
        return NotImplemented
    how = (stride, padding, dilation, groups)
    if not isinstance(w, Weight):
        y = function(plain(x), w, None, *how)
    elif isinstance(x, Tiled) and groups == 1:
        y = _conv_once(function, x, w.values, how)
    else:
        y = _each(function, folded(x, members), w.values, how)
    if bias is None:
        return y
    own = bias.values.explicit().unsqueeze(1) if isinstance(bias, Weight) else bias.view(1, 1, -1)
    rows = y.unflatten(0, (members.n, -1))
    rows += own.view(*own.shape, *[1] * (rows.dim() - 3))
    return y


def _images_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def _each(function: Any, rows: Tensor, v: Values, how: Any) -> Tensor:
    """One member after another, the kernel written out."""
    done = [function(_images_last(x), _images_last(v.one(i)), None, *how) for i, x in enumerate(rows)]
    return torch.cat(done)


def _conv_once(function: Any, x: Tensor, v: Values, how: Any) -> Tensor:
    """Rows that all members share: kernels of all directions are output channels of one convolution."""
    members, rows = v.members, once(x)
    assert rows is not None
    if isinstance(v, Factored):
        return _images_last(_shared_factors(function, rows, v, how))
    if isinstance(v, Explicit) and v.given is None:
        y = function(rows, v.base, None, *how)  # (R, out, ...)
        t = function(rows, v.drawn.flatten(0, 1), None, *how)  # (R, g out, ...)
        t = t.unflatten(1, (len(v.drawn), -1)).transpose(0, 1).unsqueeze(1)  # (g, 1, R, out, ...)
        scale = members.scales(y).view(len(v.drawn), -1, *[1] * y.dim())
        return _images_last(torch.addcmul(y, t, scale).flatten(0, 2))
    own = v.explicit()
    y = function(rows, own.flatten(0, 1), None, *how)  # (R, n out, ...)
    return _images_last(y.unflatten(1, (members.n, -1)).transpose(0, 1).flatten(0, 1))


def _shared_factors(function: Any, rows: Tensor, v: Factored, how: Any) -> Tensor:
    n, (left, right) = v.members.n, v.factors()
    g, out, r = left.shape
    y = function(rows, v.base, None, *how)  # (R, out, ...)
    t = function(rows, right.reshape(g * r, *v.base.shape[1:]), None, *how)  # (R, g r, ...)
    t = t.view(len(rows), g, r, *t.shape[2:]).transpose(0, 1).repeat_interleave(n // g, 0)  # (n, R, r, ...)
    left = v.scaled(left).view(n, 1, out, r, *[1] * (y.dim() - 2))
    sums = torch.addcmul(y.unsqueeze(0), left[:, :, :, 0], t[:, :, 0].unsqueeze(2))
    for k in range(1, r):
        sums.addcmul_(left[:, :, :, k], t[:, :, k].unsqueeze(2))
    return sums.flatten(0, 1)


@handles("conv1d")
def _conv1d(x: Tensor, w: Tensor, *how: Any, **words: Any) -> Any:
    return conv(functional.conv1d, x, w, *how, **words)


@handles("conv2d")
def _conv2d(x: Tensor, w: Tensor, *how: Any, **words: Any) -> Any:
    return conv(functional.conv2d, x, w, *how, **words)


@handles("conv3d")
def _conv3d(x: Tensor, w: Tensor, *how: Any, **words: Any) -> Any:
    return conv(functional.conv3d, x, w, *how, **words)
