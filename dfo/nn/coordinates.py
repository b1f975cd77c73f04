"""Partial derivatives of a network's loss by finite differences, one weight at a time, at a fraction of the forwards.

The coordinate estimator (CGE) takes ``(L(w + r e_i) - L(w - r e_i)) / 2r`` for every weight i, or for those of a
mask (DeepZero, Chen et al. 2024, arXiv:2310.02025). It has no variance, and costs two forwards a weight; here

- a probe of a layer runs only what follows the layer (:mod:`dfo.nn.reuse`), whatever the module looks like;
- many coordinates of a tensor, both signs, ride in one pass: as shifted outputs of a known layer
  (:mod:`dfo.nn.shifts`, no product at all for the layer itself), else as stacked copies of the tensor;
- a coordinate that cannot move its layer's output (an input that is zero for the whole batch, a word that does not
  occur) has derivative zero without a pass.

How each tensor was probed is told. A way that raises, or whose most telling probe disagrees with a plain forward,
gives way to the next simpler one, down to plain forwards with a copy of the tensor in its slot.

**Radius.** An error of rounding eps L / r and one of curvature r^2 L'''/6 balance at eps^(1/3): 5e-3 in single
precision. Kinks (ReLU, max pooling) add about sqrt(r) / 4 of a partial derivative, which no radius makes 1e-3 in
single precision. Hence ``precision="auto"``: probes of modules up to :data:`WIDE` numbers run in double precision,
on copies, with r = 1e-7, where all three errors are below 1e-6 but for a kink within 1e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.nn.reuse import Loss, Session
from dfo.nn.shifts import Carried, Shift, carried, shift_of
from dfo.random import Key, choice

__all__ = ["MEMBERS", "WIDE", "CoordinateGradient", "coordinate_gradient", "random_coordinates"]

WIDE = 1 << 24
"""Numbers in a module up to which ``precision="auto"`` is double precision."""

MEMBERS = 1 << 19
"""Numbers in the largest activation of a pass that carries many members: what fits the cache, about."""

RADIUS = {torch.float64: (1e-7, 1e-7), torch.float32: (5e-3, 1e-3), torch.bfloat16: (0.1, 0.1)}
"""Arithmetic to the radius of central and of forward differences."""

Params = str | Sequence[str] | Callable[[str, nn.Parameter], bool]
Coordinates = int | Mapping[str, Tensor | int]
Scheme = Literal["central", "forward"]
Precision = Literal["auto", "native", "double"]


@dataclass(frozen=True, eq=False)
class CoordinateGradient(Mapping[str, Tensor | tuple[Tensor, Tensor]]):
    """Partial derivatives by the name of a tensor.

    An entry is a tensor of the shape of the weights, or, where coordinates were chosen, a pair: flat indices ``(k,)``
    in increasing order, and derivatives ``(k,)``.

    Args:
        entries: the entries.
        loss: mean loss of the batch at the weights.
        forwards: member-passes run, partial ones and checks included.
        share: multiply-adds of layers run again, of those that the same passes would take whole.
        ways: how each tensor was probed, and why not in a quicker way.
        shapes: of the tensors.
    """

    entries: Mapping[str, Tensor | tuple[Tensor, Tensor]]
    loss: float
    forwards: int
    share: float
    ways: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    def __getitem__(self, name: str) -> Tensor | tuple[Tensor, Tensor]:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def dense(self) -> dict[str, Tensor]:
        """Return tensors of the shapes of the weights, zero where no coordinate was chosen."""
        full = {}
        for name, entry in self.entries.items():
            if isinstance(entry, tuple):
                flat = entry[1].new_zeros(math.prod(self.shapes[name]))
                flat[entry[0]] = entry[1]
                entry = flat.reshape(self.shapes[name])
            full[name] = entry
        return full


def coordinate_gradient(  # noqa: PLR0913 (the choices of an estimator)
    module: nn.Module,
    loss: Loss,
    batch: Any,
    *,
    params: Params | None = None,
    coordinates: Coordinates | None = None,
    radius: float | None = None,
    scheme: Scheme = "central",
    chunk: int | None = None,
    reuse: bool = True,
    precision: Precision = "auto",
    check: bool = True,
    seed: int | Key = 0,
) -> CoordinateGradient:
    """Return partial derivatives of the mean loss, by forward passes only; the module is not written.

    Args:
        module: any module; in training mode its batch statistics are used and its running ones left alone.
        loss: ``loss(module, batch)``: per-example losses ``(B,)``, or one number, differentiable or not.
        batch: what the loss is given. Every probe sees the same dropout.
        params: name patterns, or ``params(name, parameter)``; all that require a gradient by default.
        coordinates: how many are drawn of all, or by name of a tensor a mask, flat indices or how many are drawn of it
            (tensors not named are left out). All by default.
        radius: of the differences; by the arithmetic by default, see above.
        scheme: ``"central"``, or ``"forward"``: half the passes, and an error of the order of the radius.
        chunk: most members that share a pass; by the size of the activations by default.
        reuse: whether layers before the probed one are skipped; without it, the plain loop.
        precision: ``"double"`` to probe on copies in double precision, ``"native"`` as the module is.
        check: whether one probe of each tensor is compared with a plain forward.
        seed: of the coordinates that are drawn.

    Raises:
        InvalidArgument: no parameter is selected, or an option cannot be used.
        InvalidType: the module is TorchScript.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        >>> x = torch.ones(8, 3)
        >>> g = coordinate_gradient(net, lambda net, x: net(x).square().flatten(), x)
        >>> g["0.weight"].shape, g.ways["0.weight"]
        (torch.Size([4, 3]), 'carried')
    """
    _validate(scheme, precision, radius, chunk)
    chosen = select(module, params)
    index = _indices(chosen, coordinates, Key.of(seed))
    numbers = sum(p.numel() for p in module.parameters())
    double = precision == "double" or (precision == "auto" and numbers <= WIDE)
    with Session(module, loss, batch, double) as session:
        base = session.record()
        probe = _Probe(session, base, scheme, radius, chunk, reuse, check)
        entries: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
        for name, parameter in chosen.items():
            if name in index:
                values = probe.tensor(name, parameter, index[name]).to(parameter.dtype).to(parameter.device)
                whole = coordinates is None
                entries[name] = values.reshape(parameter.shape) if whole else (index[name], values)
        shapes = {name: tuple(chosen[name].shape) for name in entries}
        share = probe.work / max(probe.whole, 1.0)
        return CoordinateGradient(entries, base, session.passes, share, probe.ways, shapes)


def _validate(scheme: str, precision: str, radius: float | None, chunk: int | None) -> None:
    if scheme not in ("central", "forward"):
        raise InvalidArgument(f"scheme: expected 'central' or 'forward', got {short(scheme)}.")
    if precision not in ("auto", "native", "double"):
        raise InvalidArgument(f"precision: expected 'auto', 'native' or 'double', got {short(precision)}.")
    if radius is not None and not 0 < radius < math.inf:
        raise InvalidArgument(f"radius: expected a positive number, got {short(radius)}. Pass None for the default.")
    if chunk is not None and chunk < 1:
        raise InvalidArgument(f"chunk: expected a number of members >= 1, got {chunk}. Pass None for the default.")


def select(module: nn.Module, params: Params | None) -> dict[str, nn.Parameter]:
    """Return the trainable parameters that are asked for, tied ones once.

    Raises:
        InvalidArgument: there are none.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if params is None:
        chosen = trainable
    elif callable(params):
        chosen = {name: p for name, p in trainable.items() if params(name, p)}
    else:
        patterns = [params] if isinstance(params, str) else list(params)
        chosen = {name: p for name, p in trainable.items() if any(fnmatchcase(name, q) for q in patterns)}
    if not chosen:
        raise InvalidArgument(
            f"params: expected patterns of trainable parameters, got {short(params)}, which select none. "
            f"Trainable: {short(list(trainable))}."
        )
    return chosen


# ---------------------------------------------------------------------- coordinates


def _indices(chosen: Mapping[str, Tensor], coordinates: Coordinates | None, key: Key) -> dict[str, Tensor]:
    """Return flat indices in increasing order, by name."""
    if coordinates is None:
        return {name: torch.arange(p.numel()) for name, p in chosen.items()}
    if isinstance(coordinates, int):
        return random_coordinates(chosen, coordinates, key)
    if not isinstance(coordinates, Mapping):
        raise InvalidType(f"coordinates: expected a number or a mapping, got {short(coordinates)}.")
    strange = sorted(set(coordinates) - set(chosen))
    if strange:
        raise InvalidArgument(f"coordinates: expected names of selected parameters, got {short(strange)}.")
    return {name: _chosen(name, coordinates[name], p, key) for name, p in chosen.items() if name in coordinates}


def _chosen(name: str, entry: Tensor | int, parameter: Tensor, key: Key) -> Tensor:
    size = parameter.numel()
    if isinstance(entry, int):
        if not 0 <= entry <= size:
            raise InvalidArgument(f"coordinates: {name} has {size} weights, got {entry} to draw. Ask for fewer.")
        return torch.from_numpy(choice(key.child(name), size, entry)).sort().values
    mask: Tensor = torch.as_tensor(entry).cpu()
    if mask.dtype == torch.bool:
        if mask.shape != parameter.shape:
            raise InvalidArgument(
                f"coordinates: expected a mask of shape {tuple(parameter.shape)} for {name}, got {tuple(mask.shape)}."
            )
        return mask.reshape(-1).nonzero().reshape(-1)
    index = mask.long().reshape(-1).unique()
    if len(index) and not 0 <= int(index[0]) <= int(index[-1]) < size:
        raise InvalidArgument(f"coordinates: expected flat indices of {name} in 0 .. {size - 1}, got others.")
    return index


def random_coordinates(chosen: Mapping[str, Tensor], count: int, key: Key) -> dict[str, Tensor]:
    """Return ``count`` different coordinates drawn uniformly out of all tensors, as flat indices by name.

    Raises:
        InvalidArgument: there are fewer.
    """
    sizes = [p.numel() for p in chosen.values()]
    if not 0 <= count <= sum(sizes):
        raise InvalidArgument(f"coordinates: the tensors have {sum(sizes)} weights, got {count} to draw.")
    drawn = torch.from_numpy(choice(key, sum(sizes), count)).sort().values
    parts, begin = {}, 0
    for name, size in zip(chosen, sizes, strict=True):
        part = drawn[(drawn >= begin) & (drawn < begin + size)] - begin
        begin += size
        if len(part):
            parts[name] = part
    return parts


# ---------------------------------------------------------------------- probing


@dataclass(frozen=True, eq=False)
class _Way:
    """One way to evaluate members that differ in coordinates of one tensor."""

    name: str
    stand_in: Tensor
    cut: int
    target: int
    batched: bool
    limit: int
    parameter: Tensor | None = None
    shift: Shift | Carried | None = None

    def run(self, session: Session, index: Tensor, step: Tensor) -> Tensor:
        """Return losses ``(m,)`` of members whose coordinate ``index[i]`` has moved by ``step[i]``."""
        if self.shift is not None:
            payload = self.shift.members(index, step)
        else:
            payload = self.stand_in.unsqueeze(0).expand(len(index), *self.stand_in.shape).clone()
            payload.reshape(len(index), -1)[torch.arange(len(index), device=index.device), index] += step
        return session.run(payload, self.cut, self.target, self.parameter, self.batched)


@dataclass
class _Probe:
    """The differences of all tensors of one call."""

    session: Session
    base: float
    scheme: str
    radius: float | None
    chunk: int | None
    reuse: bool
    check: bool
    ways: dict[str, str] = field(default_factory=dict)
    work: float = 0.0
    whole: float = 0.0

    def tensor(self, name: str, parameter: Tensor, index: Tensor) -> Tensor:
        """Return derivatives ``(k,)`` in double precision of the coordinates ``index`` of a tensor."""
        stand_in = self.session.stand_in(parameter)
        if not self.session.uses[id(stand_in)]:
            self.ways[name] = "zero: the loss does not use it"
            return torch.zeros(len(index), dtype=torch.float64)
        reason = ""
        for way in self._ladder(parameter, stand_in):
            try:
                values = self._along(way, parameter, index.to(stand_in.device))
            except Exception as error:
                if way.name == "plain":
                    raise
                reason = f" ({way.name}: {short(str(error).partition(chr(10))[0], 100)})"
                continue
            self.ways[name] = way.name + reason
            return values
        raise AssertionError("the plain way returns or raises")

    def _ladder(self, parameter: Tensor, stand_in: Tensor) -> Iterator[_Way]:
        """Yield ways from the quickest to the plain one."""
        calls, moments = self.session.calls, self.session.uses[id(stand_in)]
        if self.reuse:
            inside = [k for k, c in enumerate(calls) if c.began < moments[0] < c.ended and c.stop == k + 1]
            if inside and len(moments) == 1:
                call, target = calls[inside[0]], inside[0]
                local = next((n for n, t in call.module.named_parameters() if t is stand_in), "")
                shift = shift_of(call.module, local, call.given, call.output)
                if shift is not None:
                    further = carried(shift, calls, self.session.events)
                    if further is not None:
                        at, on = further
                        limit = self._limit(calls[at].began, call.output[0].numel())
                        cut = calls[at].began
                        yield _Way("carried", stand_in, cut, at, limit >= 4, max(limit, 2), None, on)
                    limit = self._limit(call.began, 0)
                    yield _Way("shifted", stand_in, call.began, target, limit >= 4, max(limit, 2), None, shift)
            limit = self._limit(moments[0], stand_in.numel())
            if limit >= 4:
                yield _Way("stacked", stand_in, moments[0], -1, True, limit, parameter)
            yield _Way("one at a time", stand_in, moments[0], -1, False, 2, parameter)
        yield _Way("plain", stand_in, -1, -1, False, 2, parameter)

    def _limit(self, moment: int, weights: int) -> int:
        """Return how many members fit a pass that begins at a moment."""
        if self.chunk is not None:
            return self.chunk
        outputs = (c.output for c in self.session.calls if c.ended >= moment)
        sizes = [t.numel() for out in outputs for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
        return max(1, MEMBERS // int(max(weights, *sizes, 1)))

    def _along(self, way: _Way, parameter: Tensor, index: Tensor) -> Tensor:
        live = way.shift.live(index) if way.shift is not None else torch.ones_like(index, dtype=torch.bool)
        values = torch.zeros(len(index), dtype=torch.float64)
        todo, radius = live.nonzero().reshape(-1), self._radius(way.stand_in)
        central = self.scheme == "central"
        count = max(1, way.limit // 2) if central else way.limit
        zero = torch.zeros(1, dtype=way.stand_in.dtype, device=index.device)
        base = None if central or not len(todo) else way.run(self.session, index[todo[:1]], zero).cpu()
        for begin in range(0, len(todo), count):
            part = todo[begin : begin + count]
            which = index[part]
            step = torch.full((len(part),), radius, dtype=way.stand_in.dtype, device=index.device)
            if central:
                which, step = torch.cat([which, which]), torch.cat([step, -step])
            losses = way.run(self.session, which, step).cpu()
            if self.check and begin == 0 and way.name != "plain":
                self._compare(parameter, way.stand_in, which, step, losses)
            ahead, behind = losses[: len(part)], losses[len(part) :] if central else base
            values[part.cpu()] = (ahead - behind) / (2 * radius if central else radius)
        self._count(way, (2 if central else 1) * len(todo))
        return values

    def _radius(self, stand_in: Tensor) -> float:
        if self.radius is not None:
            return self.radius
        return RADIUS.get(self._arithmetic(stand_in), RADIUS[torch.bfloat16])[self.scheme != "central"]

    def _arithmetic(self, stand_in: Tensor) -> torch.dtype:
        """The narrowest precision that numbers pass through."""
        narrow = self.session.narrowed and stand_in.dtype == torch.float64
        return torch.float32 if narrow else stand_in.dtype

    def _compare(self, parameter: Tensor, stand_in: Tensor, index: Tensor, step: Tensor, losses: Tensor) -> None:
        """Hold the probe that moved the loss most against a plain forward."""
        at = int((losses - self.base).abs().nan_to_num().argmax())
        plain = _Way("plain", stand_in, -1, -1, False, 1, parameter)
        expected = float(plain.run(self.session, index[at : at + 1], step[at : at + 1]))
        rounding = 200 * torch.finfo(self._arithmetic(stand_in)).eps * max(1.0, abs(self.base))
        if not abs(float(losses[at]) - expected) <= rounding + 1e-3 * abs(expected - self.base):
            raise ArithmeticError(f"expected a loss of {expected:.9g} by a plain forward, got {float(losses[at]):.9g}")

    def _count(self, way: _Way, members: int) -> None:
        """Add what the members of a tensor ran of the layers, and what whole passes would have run."""
        calls = self.session.calls
        self.whole += members * sum(c.work for c in calls)
        again = (c.work for k, c in enumerate(calls) if c.ended >= way.cut and k != way.target)
        self.work += members * sum(again)
