"""A forward pass recorded once, and run again from the first layer that a perturbation touches.

One plain forward is recorded: every call of every submodule in order, what it returned, and when every parameter
was first used (a ``TorchFunctionMode`` sees each function and its tensors, so a position table added by a parent,
a weight tied to the output or a fused attention have their moment like any layer). A probe of a parameter runs the
module's own ``forward`` again, in which every call that had *returned* before that moment hands back what it
returned then: a chain restarts at its cached activation, a residual network or a list of blocks keeps its Python,
and only the glue between the skipped calls is computed again (DeepZero's feature reuse, Chen et al. 2024,
arXiv:2310.02025, for any module).

Several members ride in one such pass by ``torch.func.vmap``: what lies before the probed layer has no member axis
and is computed once, whatever the glue does with the axis of the examples.

Nothing is written into the module: for the time of a session its parameter and buffer slots hold aliases or copies,
``forward`` of its submodules a wrapper; leaving the session, by an exception too, puts the originals back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from dfo.errors import InvalidArgument, InvalidType
from dfo.nn.recorded import QUERIES, Call, Event, generators, restore, work

__all__ = ["Diverged", "Loss", "Session"]

Loss = Callable[[nn.Module, Any], Any]
"""``loss(module, batch)``: per-example losses ``(B,)``, or one number."""

LOW = (torch.float32, torch.bfloat16, torch.float16)


class Diverged(RuntimeError):
    """A pass made other calls than the recorded one: its path depends on the weights."""


class _Watch(TorchFunctionMode):
    """Notes when each watched tensor is used, and whether numbers in double precision become narrower."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        if made or getattr(func, "__name__", "") not in QUERIES:
            given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
            self.session.used(given, Event(func, args, kwargs or {}, out, 0))
            if any(t.dtype in LOW for t in made) and any(t.dtype == torch.float64 for t in given):
                self.session.narrowed = True
        return out


@dataclass
class Session:
    """The time for which a module is borrowed: ``with Session(...) as s: s.record(); s.run(...)``.

    Args:
        module: evaluated as it is, in its own mode (training or evaluation).
        loss: ``loss(module, batch)``.
        batch: what the loss is given.
        double: whether copies in double precision take the place of narrower weights, buffers and inputs.
    """

    module: nn.Module
    loss: Loss
    batch: Any
    double: bool
    calls: list[Call] = field(default_factory=list)
    uses: dict[int, list[int]] = field(default_factory=dict)
    """Identity of a stand-in to the moments at which it was used."""
    events: dict[int, list[Event]] = field(default_factory=dict)
    """Identity of a tensor of the recorded pass to the functions that it was given to."""
    narrowed: bool = False
    passes: int = 0
    """Member-passes run so far, whole or partial."""

    def __post_init__(self) -> None:
        self.module = getattr(self.module, "_orig_mod", self.module)  # of torch.compile
        self._owners: dict[int, list[tuple[dict[str, Any], str]]] = {}
        self._stand_in: dict[int, Tensor] = {}
        self._originals: dict[int, Tensor] = {}  # held, so that no identity is given twice
        self._state, self._tick, self._at, self._cut, self._target = "off", 0, 0, -1, -1
        self._shift: Any = None
        self._marker: Tensor | None = None
        self._dirty: set[int] = set()
        self._random = False
        self._start: Any = None

    # ------------------------------------------------------------------ borrowing

    def __enter__(self) -> Session:
        self._undo = ExitStack()
        try:
            self._borrow()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *why: object) -> None:
        self._undo.close()
        self.calls.clear()
        self.events.clear()

    def _borrow(self) -> None:
        undo = self._undo
        undo.enter_context(torch.no_grad())
        self._start = generators(self.module)
        undo.callback(restore, self._start)
        fast = torch.backends.mha.get_fastpath_enabled()  # fused layers would not call their children
        torch.backends.mha.set_fastpath_enabled(False)
        undo.callback(torch.backends.mha.set_fastpath_enabled, fast)
        for sub in self.module.modules():
            _admit(sub, undo)
        for sub in self.module.modules():
            self._swap(sub._parameters, alias=True)
            self._swap(sub._buffers, alias=False)
            self._calm(sub)
            if sub is not self.module:
                self._wrap(sub)
        if self.double:
            self.batch = tree_map(_widened, self.batch)

    def _swap(self, slots: dict[str, Any], alias: bool) -> None:
        for name, tensor in list(slots.items()):
            if tensor is None:
                continue
            key = id(tensor)
            if key not in self._stand_in:
                self._originals[key] = tensor
                wide = _widened(tensor.detach()) if self.double else tensor.detach()
                own = alias or wide.data_ptr() != tensor.data_ptr()
                self._stand_in[key] = wide.view_as(wide) if own else wide.clone()
            self._owners.setdefault(key, []).append((slots, name))
            slots[name] = self._stand_in[key]
            self._undo.callback(slots.__setitem__, name, tensor)

    def _calm(self, sub: nn.Module) -> None:
        """Batch statistics as they are in training, running ones left alone."""
        if isinstance(sub, nn.modules.batchnorm._NormBase) and sub.training and sub.track_running_stats:
            sub.track_running_stats = False
            self._undo.callback(setattr, sub, "track_running_stats", True)

    def _wrap(self, sub: nn.Module) -> None:
        before, forward = sub.__dict__.get("forward"), sub.forward
        sub.__dict__["forward"] = lambda *args, **kwargs: self._called(sub, forward, args, kwargs)
        if before is None:
            self._undo.callback(sub.__dict__.pop, "forward")
        else:
            self._undo.callback(sub.__dict__.__setitem__, "forward", before)

    def stand_in(self, parameter: Tensor) -> Tensor:
        """Return what stands in the slots of a parameter."""
        return self._stand_in[id(parameter)]

    # ------------------------------------------------------------------ recording

    def used(self, given: list[Tensor], event: Event) -> None:
        """Note the tensors given to a function; the event keeps them alive, and so their identities."""
        self._tick += 1
        event.moment = self._tick
        for key in {id(t) for t in given}:
            self.events.setdefault(key, []).append(event)
        for t in given:
            if id(t) in self.uses:
                self.uses[id(t)].append(self._tick)
            elif id(t) in self._originals:
                raise InvalidArgument(
                    "module: expected weights that are read as attributes of their modules, got one kept in a list or "
                    "a closure as well. Read it through its module in forward and in the loss."
                )

    def record(self) -> float:
        """Record a pass and return its loss; once more, with copies, where outputs are written into afterwards."""
        value = self._record()
        dirty = {k for k, call in enumerate(self.calls) if _versions((call.given, call.output)) != call.versions}
        if dirty:
            self._dirty = dirty
            value = self._record()
        self._random = any(
            not torch.equal(a, b) for (_, a), (_, b) in zip(generators(self.module), self._start, strict=True)
        )
        if not self._random:
            for call in self.calls:
                call.rng = None
        return value

    def _record(self) -> float:
        self.calls, self.events, self._tick = [], {}, 0
        self.uses = {id(t): [] for t in self._stand_in.values()}
        restore(self._start)
        self._state = "record"
        try:
            with _Watch(self):
                value = self.loss(self.module, self.batch)
        finally:
            self._state = "off"
        self.passes += 1
        return float(_mean(value))

    def _called(self, sub: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._state == "record":
            return self._note(sub, forward, args, kwargs)
        if self._state == "off":
            return forward(*args, **kwargs)
        k = self._at
        if k >= len(self.calls) or self.calls[k].module is not sub:
            raise Diverged("the pass made other calls than the recorded one")
        call = self.calls[k]
        if k != self._target and call.ended >= self._cut:
            self._at = k + 1
            return forward(*args, **kwargs)
        self._at = call.stop
        if call.rng is not None:
            restore(call.rng)
        return self._shift if k == self._target else tree_map(self._again if call.dirty else _same, call.output)

    def _note(self, sub: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        k, self._tick = len(self.calls), self._tick + 1
        call = Call(sub, self._tick, dirty=k in self._dirty)
        self.calls.append(call)
        given = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) else None
        call.given = given.clone() if given is not None and call.dirty else given
        out = forward(*args, **kwargs)
        call.output = tree_map(_copied, out) if call.dirty else tree_map(_same, out)
        call.versions = _versions((call.given, call.output))
        self._tick += 1
        call.ended, call.stop, call.rng = self._tick, len(self.calls), generators(self.module)
        if call.stop == k + 1:
            call.work = work(sub, out)
        return out

    def _again(self, value: Any) -> Any:
        """Return a copy that may be written into, by values with a member axis too."""
        if not isinstance(value, Tensor):
            return value
        return value.clone() if self._marker is None else value + self._marker.to(value.dtype)

    # ------------------------------------------------------------------ running again

    def plain(self, values: Mapping[str, Tensor] | None = None) -> float:
        """Return the loss of a whole pass in which tensors have other values, by the name of the parameter."""
        self.passes += 1
        if self._random:
            restore(self._start)
        with _held(self, values or {}):
            return float(_mean(self.loss(self.module, self.batch)))

    def run(self, payload: Tensor, cut: int, target: int, parameter: Tensor | None, batched: bool) -> Tensor:
        """Return the losses of members, ``(m,)`` in double precision.

        Args:
            payload: ``(m, ...)``: outputs of the call ``target``, or values of ``parameter``.
            cut: calls that ended before this moment are skipped; -1 runs all and compares no order of calls.
            target: the call whose output is replaced; -1 for none.
            parameter: whose slots hold the members' values; None where outputs are replaced.
            batched: whether the members share one pass.
        """
        m = len(payload)
        self.passes += m
        self._cut, self._target = cut, target

        def member(value: Tensor, marker: Tensor | None = None) -> Any:
            with self._playing(value, marker, parameter):
                out = self.loss(self.module, self.batch)
                if cut >= 0 and self._at != len(self.calls):
                    raise Diverged("the pass made fewer calls than the recorded one")
                return out

        if not batched:
            return torch.stack([_mean(member(value)) for value in payload])
        marker = torch.zeros(m, dtype=payload.dtype, device=payload.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*")
            out = torch.func.vmap(member, randomness="same")(payload, marker)
        return out.double().reshape(m, -1).mean(1)

    @contextmanager
    def _playing(self, value: Tensor, marker: Tensor | None, parameter: Tensor | None) -> Iterator[None]:
        self._at, self._shift, self._marker = 0, value, marker
        self._state = "play" if self._cut >= 0 else "off"
        if self._random:
            restore(self._start)
        slots = self._owners[id(parameter)] if parameter is not None else []
        try:
            for where, name in slots:
                where[name] = value
            yield
        finally:
            self._state, self._shift, self._marker = "off", None, None
            for where, name in slots:
                where[name] = self._stand_in[id(parameter)]


def _admit(sub: nn.Module, undo: ExitStack) -> None:
    """Refuse what cannot be borrowed; have restored what a module keeps beside its slots."""
    if isinstance(sub, torch.jit.ScriptModule):
        raise InvalidType(
            f"module: expected modules whose forward is Python, got a TorchScript {type(sub).__name__}. "
            "Pass the module it was scripted from."
        )
    if isinstance(sub, nn.RNNBase):  # a second list of its weights
        undo.callback(sub._init_flat_weights)
    for name, value in list(sub.__dict__.items()):
        if isinstance(value, Tensor):  # what hooks compute from weights
            undo.callback(sub.__dict__.__setitem__, name, value)


@contextmanager
def _held(session: Session, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Put values into all slots of the tensors with these names, for a while."""
    named = dict(session.module.named_parameters())
    slots = {id(t): places for key, places in session._owners.items() for t in [session._stand_in[key]]}
    before = [(where, slot, where[slot]) for name in values for where, slot in slots[id(named[name])]]
    try:
        for name, value in values.items():
            for where, slot in slots[id(named[name])]:
                where[slot] = value
        yield
    finally:
        for where, slot, value in before:
            where[slot] = value


def _same(value: Any) -> Any:
    return value


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in LOW else value


def _versions(value: Any) -> tuple[int, ...]:
    return tuple(t._version for t in tree_flatten(value)[0] if isinstance(t, Tensor))


def _mean(value: Any) -> Tensor:
    exact = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    return exact.detach().double().mean().cpu()
