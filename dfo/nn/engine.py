"""Losses of perturbed copies of a network, by forward passes in which the copies ride together.

The module is never written to: for the time of a pass its tensors are replaced by stand-ins that know the members
(:mod:`dfo.nn.lifted`). How a tensor is treated follows from the law of the directions and from its size:

==================  ===========================================================================================
``activation``      products of two factors: one shared matrix product, each member adds its own term
``stacked``         explicit weights of all members, batched products
``streamed``        explicit weights a stretch of rows at a time, so that none of the tensor's size exists
==================  ===========================================================================================

Members ride together when the losses come example by example and the first pass has shown that riding together
changes nothing; else they go one by one, and :attr:`Engine.reason` says why. What the module or the loss draws from
torch's generators (dropout, noise) is the same for all members of an evaluation: :mod:`dfo.nn.common`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dfo.arrays import Floats, keep_freed
from dfo.batch import Ints
from dfo.components.options import check_count
from dfo.errors import BadObjective, BadState, InvalidArgument, short
from dfo.nn import convolutions, entrywise, lookups, products
from dfo.nn.batches import dealt, examples, mapped, rows_of, tensors_of, tiled
from dfo.nn.common import Drew, Seeded, Together, generators
from dfo.nn.lifted import Unhandled, plain, weight
from dfo.nn.members import Draws, Entries, Factors, Members, Shared, Stream
from dfo.nn.tensors import Choice, done_with, keep_buffers, places, trainable
from dfo.nn.weights import Explicit, Factored, Lag, Streamed, Values
from dfo.random import Key

__all__ = ["Engine", "Evaluate", "Loss", "typical_size"]

_HANDLERS = (convolutions, entrywise, lookups, products)  # imported for what they register

Loss = Callable[[nn.Module, Any], Any]
"""``loss(module, batch)``: ``(B,)`` losses, one an example, or one number."""

Evaluate = Literal["auto", "together", "one by one"]

ROWS = 2048
"""Rows of a pass (tokens, images, states) that the members of a chunk make together, if nothing else is said."""

ALONE = 1024
"""Rows of a member from which the two ends of a direction are in passes of their own."""

STACK = 1 << 22
"""Entries up to which the explicit weights of a chunk's members exist at the same time (16 MiB in single precision)."""

EXPECTED = "one number, or (B,) losses of B examples"

LOOKED = 1 << 18
"""Entries of a tensor whose size is taken at a time: what is converted for it is small."""


class Engine:
    """A module, the tensors of it that move, and how losses of perturbed copies are computed.

    Args:
        module: any module; it keeps its mode (training or evaluation) and its buffers.
        loss: ``loss(module, batch)``, per example where members shall ride together.
        params: which parameters move; see :func:`dfo.nn.tensors.trainable`.
        evaluate: ``"together"``, ``"one by one"``, or ``"auto"``, which finds out.
        chunk: members of one pass; by default as many as make :data:`ROWS` rows.

    Raises:
        InvalidArgument: nothing is left to move; an unknown word.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        params: Choice = None,
        evaluate: Evaluate = "auto",
        chunk: int | None = None,
    ) -> None:
        if evaluate not in ("auto", "together", "one by one"):
            raise InvalidArgument(f'evaluate: expected "auto", "together" or "one by one", got {evaluate!r}.')
        self.module, self.loss, self.chunk = module, loss, chunk
        check_count(self, 1, "chunk")
        keep_freed()  # the activations of a pass are those of the next
        self.tensors = trainable(module, params)
        self.places = places(module, self.tensors)
        self.together: bool | None = None if evaluate == "auto" else evaluate == "together"
        self.reason = "" if evaluate == "auto" else "as asked"
        self.asked = evaluate
        self.generators, self.random = generators(self.tensors.values()), False
        self._parts, self._noise = list(module.modules()), Key(0)
        self._seen: Any = None  # what the comparison with single members held for
        self._writes: bool | None = None  # whether the module works on its input in place
        self.size = 1  # members of a pass of the last step
        self.mine: Callable[[int], bool] | None = None  # passes made here; no numbers for the others

    # ------------------------------------------------------------------ losses

    def losses(
        self, batch: Any, draws: Draws, index: Ints, scale: Floats,
        center: Mapping[str, Tensor] | None = None, share: bool = True,
        lag: Mapping[str, Lag] | None = None, noise: Key | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the losses ``(n, R)`` of members ``center + scale_i u_index[i]``, in double precision.

        Args:
            batch: what the loss takes, any nest of mappings and sequences of tensors whose first dimension is B.
            draws: the directions.
            index: ``(n,)`` direction of each member.
            scale: ``(n,)`` signed radius of each member.
            center: tensors by name; the module's own by default.
            share: whether all members see all B examples (R = B); else direction ``j`` of ``q`` sees examples
                ``j R .. (j + 1) R`` with ``R = B / q``, at both its ends.
            lag: by name, factors of what is still to be added to a tensor of the center.
            noise: of what module and loss draw, such as dropout masks; by default a child of the directions' key.
        """
        base = self.tensors if center is None else center
        behind = {} if lag is None else lag

        def values(members: Members) -> dict[str, Values]:
            return {
                name: self._value(base[name], members, stream, behind.get(name))
                for name, stream in draws.streams.items()
            }

        rows, q = examples(batch) or 1, draws.directions.count
        if not share and rows % q:
            raise InvalidArgument(f"share=False: expected a multiple of {q} examples, got {rows}.")
        each = rows if share else rows // q
        members = Members(np.asarray(index), np.asarray(scale, dtype=float), each, share, draws.cheap)
        self._noise = draws.directions.key.child("dropout") if noise is None else noise
        return self._settled(batch, members, values, base)

    def losses_of(self, batch: Any, points: Mapping[str, Tensor], noise: Key | None = None) -> Tensor:
        """Return the losses ``(n, B)`` of explicit points, ``(n, *shape)`` by name, in double precision."""
        self._noise = Key(0, ("dropout",)) if noise is None else noise
        n = len(next(iter(points.values())))
        all_of_them = Members(np.arange(n), np.ones(n), examples(batch) or 1)

        def values(members: Members) -> dict[str, Values]:
            own = torch.as_tensor(members.index)
            return {
                name: Values(self.tensors[name], members, X[own].to(self.tensors[name])) for name, X in points.items()
            }

        return self._settled(batch, all_of_them, values, self.tensors)

    def _settled(
        self, batch: Any, members: Members, values: Callable[[Members], dict[str, Values]], base: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the losses of members, after a comparison with single ones wherever the last holds no longer."""
        self._check_alive()
        loss = getattr(self.loss, "func", self.loss)
        seen = self.random, getattr(loss, "__code__", loss), tuple(part.training for part in self._parts)
        if seen != self._seen:
            self.together = None if self.asked == "auto" else self.together
            self._seen, self._writes = seen, None
        try:
            if self.together is None and self._fitting(batch, members) > 1:
                self._find_out(batch, members, values, base)
            return self._passes(batch, members, values, base)
        except Drew:
            self.random = True
            return self._settled(batch, members, values, base)

    def _check_alive(self) -> None:
        """Refuse a module whose weights lie elsewhere by now: what moves would no longer be what it computes with."""
        for name, (place, *_) in self.places.items():
            now, mine = place.module._parameters.get(place.slot), self.tensors[name]
            if now is None or now.data_ptr() != mine.data_ptr() or now.dtype != mine.dtype:
                raise BadState(
                    f"module: expected {name!r} where it was when this was made; it has been replaced since, as .to(),"
                    " .half() and the like do. Move or cast the module first, then make the optimizer or the oracle."
                )

    def _passes(
        self, batch: Any, members: Members, values: Callable[[Members], dict[str, Values]], base: Mapping[str, Tensor]
    ) -> Tensor:
        try:
            self.size = size = self.size_of_chunk(batch, members)
            if self._writes is False and members.share:
                members = replace(members, shared=Shared(tensors_of(batch)))
            parts = [
                self._pass(batch, part, values(part), base) if self.mine is None or self.mine(i) else None
                for i, part in enumerate(_padded(members, size))
            ]
        except Exception as error:
            if isinstance(error, Unhandled) and self.asked == "together":
                raise InvalidArgument(f"evaluate: members cannot ride together, {error}. Take 'auto'.") from error
            if not self.together or self.asked != "auto":
                raise
            self.together, self.reason = False, _why(error)  # if it is the loss that fails, it fails again
            return self._passes(batch, members, values, base)
        return torch.cat(_filled(parts, size))[: members.n]

    def _value(self, base: Tensor, members: Members, stream: Stream, lag: Lag | None) -> Values:
        if isinstance(stream, Factors):
            return Factored.of(base, members, stream, lag)
        if isinstance(stream, Entries) and base.dim() > 1 and members.n * base.numel() > STACK:
            return Streamed(base, members, stream)
        return Explicit(base, members, stream)

    def size_of_chunk(self, batch: Any, members: Members) -> int:
        """Return the number of members of a pass: about as many as fill it, and both ends of a direction or one.

        The ends part from :data:`ALONE` rows on, since larger activations only leave the cache. Where the second pass
        would draw the direction again, they stay together.
        """
        return self._fitting(batch, members) if self.together else 1

    def _fitting(self, batch: Any, members: Members) -> int:
        """Return the number of members of a pass if they may ride together."""
        n = members.n
        if self.chunk is not None:
            return min(n, int(self.chunk))
        rows = rows_of(batch) * members.rows // max(1, examples(batch) or 1)
        if rows >= ALONE and members.apart:
            return 1
        most = ROWS // max(rows, 1)
        if n <= max(2, most):
            return n
        sizes = range(max(2, (most + 3) // 4 * 2), max(2, most * 5 // 4) + 1, 2)
        return min(sizes, key=lambda size: (-n % size, -size))  # the last pass is filled up: as little as may be

    def _pass(self, batch: Any, members: Members, values: dict[str, Values], base: Mapping[str, Tensor]) -> Tensor:
        """Return the losses ``(n, B)`` of one forward pass."""
        key = self._noise if self.random else None
        data = batch if self._writes is False else mapped(batch, examples(batch), torch.clone)
        alike = Together(members, self.generators) if self.random and members.n > 1 else nullcontext()
        lent = self._lent(values, base)
        with torch.no_grad(), keep_buffers(self.module), _unfused(), lent, Seeded(self.generators, key), alike:
            raw = self.loss(self.module, (tiled if members.share else dealt)(data, members))
        told = judged(raw, members.n, None if examples(batch) is None else members.rows)
        if self._writes is None and (members.n == 1 or self.asked == "together"):
            self._writes = any(not t.is_inference() and t._version > 0 for t in tensors_of(data))
        return told

    @contextmanager
    def _lent(self, values: Mapping[str, Values], base: Mapping[str, Tensor]) -> Iterator[None]:
        """Put stand-ins into the module, and its own tensors back whatever happens."""
        own = [(place, place.module._parameters.get(place.slot)) for name in self.places for place in self.places[name]]
        try:
            for name, where in self.places.items():
                if name in values:
                    for place in where:
                        place.put(weight(values[name]))
                elif base is not self.tensors:
                    for place in where:
                        place.put(base[name])
            yield
        finally:
            for place, tensor in own:
                place.module._parameters[place.slot] = tensor

    # ------------------------------------------------------------------ may members ride together?

    def _find_out(
        self, batch: Any, members: Members, values: Callable[[Members], dict[str, Values]], base: Mapping[str, Tensor]
    ) -> None:
        """Compare two members that ride together with the same two one by one, far enough apart to be told apart.

        Besides, the losses of the first must not change by a bit when the second is elsewhere.
        """
        self.together, self.reason = False, ""
        if examples(batch) is None:
            self.reason = "the batch holds no tensors"
            return
        far = 0.05 * typical_size(base)
        ends = np.array([members.span[0], members.span[1] - 1])
        pair, other = (replace(members, index=ends, scale=np.array([far, s * far])) for s in (-0.7, 0.4))
        try:
            both, again = (self._pass(batch, two, values(two), base) for two in (pair, other))
        except Exception as error:  # whatever the module does with more rows than it knows
            self.reason = _why(error)
            return
        single = torch.cat([self._pass(batch, part, values(part), base) for part in (pair.part(0, 1), pair.part(1, 2))])
        eps = torch.finfo(next(iter(base.values())).dtype).eps
        apart, off, leak = (single[0] - single[1]).norm(), (both - single).norm(), (both[0] - again[0]).norm()
        if not bool(leak <= 2 * eps * both[0].norm()):
            self.reason = f"riding together, a member changed the losses of another by {float(leak):.2g}"
            return
        if not bool(off <= 0.25 * apart + 20 * eps * single.norm()):
            self.reason = f"riding together changed the losses by {float(off):.2g}, which differ by {float(apart):.2g}"
            return
        self.together, self.reason = True, f"checked on {pair.rows} examples"

    def describe(self) -> str:
        """Return in a sentence how members are evaluated, and why."""
        count = sum(t.numel() for t in self.tensors.values())
        alone = "one member a pass"
        unknown = "not evaluated yet" if self._writes is None else f"{alone} so far"
        how = {None: unknown, True: "members ride together", False: alone}[self.together]
        return f"{len(self.tensors)} tensors, {count} weights; {how}{f' ({self.reason})' if self.reason else ''}"


def _why(error: Exception) -> str:
    lines = str(error).splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, Unhandled) else f"riding together raised {type(error).__name__}: {short(text)}"


def typical_size(tensors: Mapping[str, Tensor]) -> float:
    """Return the median over the tensors of their root mean square."""
    sizes = sorted(_rms(t) for t in tensors.values())
    return sizes[len(sizes) // 2] or 1.0


def _rms(t: Tensor) -> float:
    wide = torch.float64 if t.itemsize == 8 else torch.float32
    parts = t.reshape(-1).split(LOOKED)  # what is converted is small
    size = math.hypot(*(float(torch.linalg.vector_norm(part, dtype=wide)) for part in parts))
    done_with(t)
    return size / math.sqrt(max(1, t.numel()))


@contextmanager
def _unfused() -> Iterator[None]:
    """Have torch's attention layers compute by functions of torch, which stand-ins meet; fused, they see memory."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _padded(members: Members, size: int) -> Iterator[Members]:
    """Yield chunks of equal size; the last is filled up with its last member, so that no sum depends on the count."""
    for at in range(0, members.n, size):
        part = members.part(at, min(at + size, members.n))
        if part.n < size:
            short_by = size - part.n
            fill = np.repeat(part.index[-1:], short_by), np.repeat(part.scale[-1:], short_by)
            part = replace(
                part, index=np.concatenate([part.index, fill[0]]), scale=np.concatenate([part.scale, fill[1]])
            )
        yield part


def _filled(parts: list[Tensor | None], size: int) -> list[Tensor]:
    """Return the losses of passes, with no numbers for those that others make."""
    made = next((part for part in parts if part is not None), torch.empty(size, 1, dtype=torch.float64))
    return [torch.full_like(made, math.nan) if part is None else part for part in parts]


def judged(raw: Any, n: int, rows: int | None) -> Tensor:
    """Return what a loss returned as ``(n, B)`` in double precision on the host; B is 1 where it is one number.

    Args:
        raw: one number, ``(n B,)`` or ``(n B, 1)``.
        n: members of the pass.
        rows: examples that a member sees, B; None where nobody knows.

    Raises:
        BadObjective: it is something else.
        Unhandled: it is something else, and members ride together.
    """
    told = plain(raw) if isinstance(raw, Tensor) else _numbers(raw)
    if told.is_complex():
        raise BadObjective(f"loss: expected {EXPECTED}, got {told.dtype}.")
    shape = tuple(told.shape)
    if not shape and n == 1:
        return told.double().reshape(1, 1).cpu()
    if not shape:
        raise Unhandled("the loss is one number, not one an example")
    fits = rows is None and shape[0] > 0 and shape[0] % n == 0
    if (fits or shape[0] == n * (rows or 0)) and shape[1:] in ((), (1,)):
        return told.double().reshape(n, -1).cpu()
    if n > 1:
        raise Unhandled(f"the loss has shape {shape}, which is not that of the examples")
    many = "" if rows is None else f" for {rows} examples"
    raise BadObjective(
        f"loss: expected {EXPECTED}, got shape {shape}{many}. Take the mean over what does not count examples."
    )


def _numbers(raw: Any) -> Tensor:
    try:
        told = np.asarray(raw)
    except ValueError:
        told = np.asarray(None)
    if told.dtype.kind not in "biuf":
        raise BadObjective(f"loss: expected {EXPECTED}, got {short(raw)}.")
    return torch.as_tensor(told.astype(float))
