"""Tensors that stand for all members at once, and the one place where torch's functions meet them.

A forward pass of ``n`` members sees ``n B`` rows, member by member. Two kinds of tensor know this:

- :class:`Tiled`: data that are equal for all members. Only the ``B`` rows exist; functions that treat every row
  alone are computed once, and the first function that must tell members apart writes the ``n B`` rows.
- :class:`Weight`: a parameter that differs by member. Functions with a handler (:mod:`dfo.nn.products`,
  :mod:`dfo.nn.entrywise`) use its structure; any other goes member by member through ``torch.vmap``, or, when there is
  one member, through an explicit copy.

What nothing can be done about raises :class:`Unhandled`; the caller then evaluates one member at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dfo.nn.members import Members
    from dfo.nn.weights import Values

__all__ = ["HANDLERS", "Tiled", "Unhandled", "Weight", "folded", "handles", "member_rows", "plain", "tile", "weight"]

Args = tuple[Any, ...]
Words = Mapping[str, Any]

HANDLERS: dict[str, Callable[..., Any]] = {}
"""Name of a torch function to what computes it for members; None from it means that it cannot."""


class Unhandled(Exception):
    """A function met a weight that differs by member, and knows no way to treat members together."""


def handles(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a handler for the torch functions of these names."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(names, function))
        return function

    return register


class Lifted(torch.Tensor):
    """Base of the tensors that stand for all members."""

    members: Members

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Args = (), kwargs: Words | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return _call(func, args, kwargs or {})


class Tiled(Lifted):
    """``(n B, ...)`` rows of which only the first member's ``(B, ...)`` exist."""

    written: Tensor | None


class Weight(Lifted):
    """A parameter that differs by member; its memory is that of the center."""

    values: Values


def tile(x: Tensor, members: Members) -> Tensor:
    """Return rows ``(B, ...)`` as the rows ``(n B, ...)`` of all members, without writing them."""
    if members.n == 1:
        return x
    lifted = x.as_subclass(Tiled)
    lifted.members, lifted.written = members, None
    return lifted


def weight(values: Values) -> Weight:
    """Return the tensor that a module is given in the place of a parameter."""
    lifted: Weight = values.base.as_subclass(Weight)
    lifted.members, lifted.values = values.members, values
    return lifted


def plain(x: Any) -> Any:
    """Return a tensor as torch knows it: the memory of a weight's center, or the rows of all members written."""
    if not isinstance(x, Lifted):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return _plain(x)


def _plain(x: Any) -> Any:
    if not isinstance(x, Tiled):
        return x.as_subclass(torch.Tensor) if isinstance(x, Lifted) else x
    if x.written is None:
        rows = x.as_subclass(torch.Tensor)
        x.written = rows.unsqueeze(0).expand(x.members.n, *rows.shape).reshape(-1, *rows.shape[1:])
    return x.written


def member_rows(x: Tensor, members: Members) -> bool:
    """Tell whether a tensor's rows are those of all members, one member after another."""
    return isinstance(x, Tiled) or (x.dim() > 0 and x.shape[0] > 0 and x.shape[0] % (members.n * members.rows) == 0)


def folded(x: Tensor, members: Members) -> Tensor:
    """Return rows ``(n R, ...)`` as ``(n, R, ...)``; R is B, or a multiple of it where rows have been flattened.

    Raises:
        Unhandled: the rows are not those of the members.
    """
    rows: Tensor = _plain(x)
    if not member_rows(rows, members):
        raise Unhandled(f"a tensor of shape {tuple(rows.shape)} does not begin with the examples")
    return rows.reshape(members.n, rows.shape[0] // members.n, *rows.shape[1:])


def once(x: Tensor) -> Tensor | None:
    """Return the rows that all members share, ``(B, ...)``; None when members differ."""
    return x.as_subclass(torch.Tensor) if isinstance(x, Tiled) else None


# ---------------------------------------------------------------------------------------------- dispatch

_DESCRIPTORS = frozenset({"__get__", "__set__", "__delete__"})
_ATTRIBUTES = frozenset({
    "dim", "ndimension", "is_floating_point", "is_complex", "is_contiguous", "element_size", "get_device", "data_ptr",
    "has_names", "requires_grad_", "detach", "is_signed", "storage_offset", "stride", "is_inference", "__hash__",
    "is_pinned", "_is_view", "is_shared",
})  # fmt: skip
_SHAPES = frozenset({"size", "__len__", "numel", "nelement"})


def _call(func: Callable[..., Any], args: Args, kwargs: Words) -> Any:
    name = getattr(func, "__name__", "")
    if name in _DESCRIPTORS:
        return _attribute(func, args)
    if name in _SHAPES or name in _ATTRIBUTES:
        return (
            _shape(name, args[0], args[1:], kwargs) if isinstance(args[0], Tiled) else _about(func, name, args, kwargs)
        )
    lifted = _lifted(args, kwargs)
    if any(isinstance(x, Weight) for x in lifted):
        return _with_weights(func, name, args, kwargs, lifted)
    return _shared(func, name, args, kwargs)


def _attribute(func: Any, args: Args) -> Any:
    x, name = args[0], func.__self__.__name__
    if isinstance(x, Tiled) and name == "shape":
        return _tiled_shape(x)
    if isinstance(x, Weight) and name in ("T", "mT"):
        return HANDLERS["t"](x) if x.dim() == 2 else func(_plain(x), *args[1:])
    if name in ("data", "T", "mT", "grad") and isinstance(x, Tiled):
        return func(_plain(x), *args[1:])
    if name == "data":
        return x
    return func(x, *args[1:])


def _about(func: Any, name: str, args: Args, kwargs: Words) -> Any:
    return args[0] if name in ("detach", "requires_grad_") else func(*args, **kwargs)


def _tiled_shape(x: Tiled) -> torch.Size:
    shape = x.as_subclass(torch.Tensor).shape
    return torch.Size((x.members.n * shape[0], *shape[1:]))


def _shape(name: str, x: Tiled, args: Args, kwargs: Words) -> Any:
    shape = _tiled_shape(x)
    if name == "__len__":
        return shape[0]
    if name in ("numel", "nelement"):
        return shape.numel()
    if name == "size":
        dim = args[0] if args else kwargs.get("dim")
        return shape if dim is None else shape[dim]
    if name in ("detach", "requires_grad_"):
        return x
    return getattr(x.as_subclass(torch.Tensor), name)(*args, **kwargs)


def _lifted(args: Args, kwargs: Words) -> list[Lifted]:
    """Return the lifted tensors among the arguments, one level of lists deep."""
    found: list[Lifted] = []
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Lifted):
            found.append(arg)
        elif isinstance(arg, (list, tuple)):
            found += [x for x in arg if isinstance(x, Lifted)]
    return found


def _with_weights(func: Any, name: str, args: Args, kwargs: Words, lifted: Sequence[Lifted]) -> Any:
    first = next(x for x in lifted if isinstance(x, Weight))
    members, cast = first.members, torch.is_autocast_enabled(first.values.base.device.type)
    if cast and members.n > 1:
        raise Unhandled("autocast casts every product; to have members together, cast the module: module.bfloat16()")
    handler = HANDLERS.get(name.strip("_") if name.startswith("__") else name)
    if handler is not None and not cast:
        done = handler(*args, **kwargs)
        if done is not NotImplemented:
            return done
    if members.n == 1:
        return func(*_each(_explicit, args), **{k: _each(_explicit, (v,))[0] for k, v in kwargs.items()})
    return _mapped(func, name, args, kwargs, members)


def _each(function: Callable[[Any], Any], args: Sequence[Any]) -> list[Any]:
    return [type(a)(function(x) for x in a) if type(a) in (list, tuple) else function(a) for a in args]


def _explicit(x: Any) -> Any:
    """Return the explicit weight of the one member there is."""
    return x.values.explicit()[0] if isinstance(x, Weight) else _plain(x)


def _mapped(func: Any, name: str, args: Args, kwargs: Words, members: Members) -> Any:
    """Call a function for every member by ``torch.vmap``: explicit weights, the member's own rows, and what is shared.

    The result has rows where an argument had them, else it is a weight that differs by member.
    """
    from dfo.nn.weights import Values

    flat: list[Any] = []
    with_rows = False
    for arg in _leaves((*args, *kwargs.values())):
        if isinstance(arg, Weight):
            flat.append((arg.values.explicit(), 0))
        elif isinstance(arg, Tensor) and member_rows(arg, members):
            flat.append((folded(arg, members), 0))
            with_rows = True
        else:
            flat.append((arg, None))
    mapped = [x for x, dim in flat if dim == 0]

    def one(*own: Tensor) -> Any:
        mine = iter(own)
        filled = iter([next(mine) if dim == 0 else x for x, dim in flat])
        return func(*_filled(args, filled), **{k: _filled((v,), filled)[0] for k, v in kwargs.items()})

    try:
        with warnings.catch_warnings():  # of a loop where there is no batching rule
            warnings.simplefilter("ignore")
            out = torch.vmap(one)(*mapped)
    except RuntimeError as error:
        raise Unhandled(f"{name} has no rule for weights that differ by member") from error
    if not isinstance(out, Tensor):
        raise Unhandled(f"{name} met a weight that differs by member and returned {type(out).__name__}")
    if with_rows:
        return out.reshape(-1, *out.shape[2:])
    return weight(Values(out[0], members, out))


def _leaves(args: Sequence[Any]) -> list[Any]:
    leaves: list[Any] = []
    for arg in args:
        leaves += list(arg) if type(arg) in (list, tuple) else [arg]
    return leaves


def _filled(args: Sequence[Any], leaves: Any) -> list[Any]:
    return [type(a)(next(leaves) for _ in a) if type(a) in (list, tuple) else next(leaves) for a in args]


# ---------------------------------------------------------------------------------------------- shared rows

_ROWWISE = frozenset({
    "linear", "embedding", "conv1d", "conv2d", "layer_norm", "rms_norm", "group_norm",
    "relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "elu", "leaky_relu", "hardtanh", "relu_", "hardswish",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "max_pool1d", "avg_pool1d", "adaptive_avg_pool1d",
    "boolean_dispatch",
    "add", "sub", "mul", "div", "pow", "rsub", "neg", "exp", "log", "sqrt", "rsqrt", "cos", "sin", "abs", "square",
    "clamp", "eq", "ne", "lt", "gt", "le", "ge", "truediv", "radd", "rmul", "multiply", "true_divide",
    "float", "double", "half", "bfloat16", "to", "type", "contiguous", "clone", "long", "bool", "int",
    "type_as", "logical_not", "scaled_dot_product_attention", "matmul", "invert",
})  # fmt: skip
"""Functions that treat every row alone whatever their arguments, as long as no argument mixes rows."""


def _shared(func: Any, name: str, args: Args, kwargs: Words) -> Any:
    """Call a function whose tensors are equal for all members: once where it treats rows alone, else on all rows."""
    word = name.strip("_") if name.startswith("__") else name
    if word in _ROWWISE and _row_by_row(args, kwargs):
        tiled = next(x for x in _leaves((*args, *kwargs.values())) if isinstance(x, Tiled))
        out = func(*_each(_base, args), **{k: _base(v) for k, v in kwargs.items()})
        return _again(out, tiled)
    if word in _RESHAPES:
        done = _RESHAPES[word](func, *args, **kwargs)
        if done is not None:
            return _again(done, args[0])
    return func(*_each(_plain, args), **{k: _each(_plain, (v,))[0] for k, v in kwargs.items()})


def _base(x: Any) -> Any:
    return x.as_subclass(torch.Tensor) if isinstance(x, Lifted) else x


def _again(out: Any, tiled: Tiled) -> Any:
    if not isinstance(out, Tensor):
        return out
    return tile(out, tiled.members)


def _row_by_row(args: Args, kwargs: Words) -> bool:
    """Tell whether the tensors that are not tiled leave the first dimension alone."""
    leaves = _leaves((*args, *kwargs.values()))
    tiled = [x for x in leaves if isinstance(x, Tiled)]
    depth = min(_base(x).dim() for x in tiled)
    rows = {_base(x).shape[0] for x in tiled}
    if len(rows) != 1 or depth == 0 or len({_base(x).dim() for x in tiled}) != 1:
        return False
    others = [x for x in leaves[1:] if isinstance(x, Tensor) and not isinstance(x, Tiled)]
    if not isinstance(leaves[0], Tiled):
        return False
    return all(_is_parameter(x) or x.dim() < depth or x.shape[0] == 1 for x in others)


def _is_parameter(x: Tensor) -> bool:
    return isinstance(x, torch.nn.Parameter)


def _viewed(func: Any, x: Tiled, *shape: Any, **words: Any) -> Any:
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list, torch.Size)) else list(shape)
    if words or not sizes or not all(isinstance(s, int) for s in sizes):
        return None
    n, base = x.members.n, _base(x)
    if sizes[0] == -1:
        rest = -torch.Size(sizes).numel()
        return base.reshape(sizes) if rest > 0 and base.numel() % rest == 0 else None
    if sizes[0] % n:
        return None
    sizes[0] //= n
    known = torch.Size(s for s in sizes if s != -1).numel()
    fits = base.numel() == known if -1 not in sizes else known > 0 and base.numel() % known == 0
    return base.reshape(sizes) if fits and sizes[0] % x.members.rows == 0 else None


def _flattened(func: Any, x: Tiled, start_dim: int = 0, end_dim: int = -1) -> Any:
    return func(_base(x), start_dim, end_dim) if start_dim != 0 and _base(x).dim() > 1 else None


def _transposed(func: Any, x: Tiled, dim0: Any, dim1: Any) -> Any:
    depth = _base(x).dim()
    ints = isinstance(dim0, int) and isinstance(dim1, int)
    return func(_base(x), dim0, dim1) if ints and 0 not in (dim0 % depth, dim1 % depth) else None


def _unsqueezed(func: Any, x: Tiled, dim: int) -> Any:
    return func(_base(x), dim) if dim % (_base(x).dim() + 1) != 0 else None


_RESHAPES: dict[str, Callable[..., Any]] = {
    "view": _viewed, "reshape": _viewed, "flatten": _flattened, "transpose": _transposed, "unsqueeze": _unsqueezed,
}  # fmt: skip
"""Functions that move dimensions: done once when they leave the rows where they are."""
