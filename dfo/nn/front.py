"""What the optimizers of networks share: directions, losses of members, moves of the weights, the log of a run."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfo.arrays import Floats
from dfo.directions import LowRank, distribution
from dfo.errors import BadObjective, InvalidType, short
from dfo.nn.batches import examples, split
from dfo.nn.common import Seeded
from dfo.nn.course import Course
from dfo.nn.engine import Engine, Loss, judged
from dfo.nn.in_place import InPlace
from dfo.nn.members import Draws
from dfo.nn.options import Options, check_numbers, default_lr, default_radius, groups_of
from dfo.nn.remembered import Remembered
from dfo.nn.replay import Record

if TYPE_CHECKING:
    from dfo.nn.distributed import Processes

__all__ = ["Front"]

Closure = Callable[[], Any]


class Front(Remembered):
    """Base of the optimizers of networks; see :class:`dfo.nn.ZOSGD` and :class:`dfo.nn.ES`."""

    def __init__(
        self, module: nn.Module, lr: float | None, radius: float | None, samples: int, options: Options
    ) -> None:
        self.engine = Engine(module, _no_loss, options.params, options.evaluate, options.chunk)
        self._derived = radius is None
        self.radius = default_radius(self.engine.tensors) if radius is None else radius
        lr = default_lr(self.engine.tensors) if lr is None else lr
        self.samples, self.options = samples, options
        check_numbers({"lr": lr, "radius": self.radius})
        directions = options.directions
        self.law = LowRank() if directions == "low-rank" else distribution(directions)
        self.processes: Processes | None = None
        group_of, groups = groups_of(module, self.engine.tensors, lr, options)
        super().__init__(groups, {"lr": lr, "weight_decay": options.weight_decay})
        self.course = Course(self.engine.tensors, self.law, options, group_of, self._decays())
        self._told: Tensor | None = None  # losses (n, B) of the members of the last step
        if self.course.behind.tensors:
            _flush_before_use(module, self)

    # ------------------------------------------------------------------ a step

    def step(self, loss: Loss | Closure, batch: Any = ..., *, parts: int = 1) -> float:
        """Evaluate the members of this step, move the weights, and return the mean of their losses that are finite.

        Args:
            loss: ``loss(module, batch)`` that returns ``(B,)`` losses, so that members ride together, or one number;
                without ``batch``, a closure that returns a number: it is called once a member, with the module's own
                weights moved in place and brought back to the bit.
            batch: what the loss takes: any nest of mappings and sequences of tensors whose first dimension is B.
            parts: stretches of the batch that are evaluated one after another, for less memory; nothing of the size
                of the weights is kept between them. Where directions see examples of their own, each sees them in
                as many parts as divide both.

        Raises:
            InvalidArgument: the batch cannot be cut into so many parts.
            InvalidType: a closure that needs arguments, or a loss that cannot be called.
            BadObjective: the loss is neither a number nor one number an example.
        """
        _check_form(loss, batch)
        q, share = self.plan(batch)
        if not share:
            parts = math.gcd(parts, (examples(batch) or 1) // q)
        draws = self.course.draws(self.t, q)
        index, scale = self.layout(q)
        if batch is ...:
            self._flush()  # a closure sees the module's own weights
        self._evaluating = True
        try:
            if batch is ...:
                f = self._closures(loss, q, index, scale)  # type: ignore[arg-type]
            else:
                self.engine.loss = loss  # type: ignore[assignment]
                f = self.losses(batch, draws, index, scale, parts, share)
        finally:
            self._evaluating = False
        known = f[np.isfinite(f)]
        level = float(known.mean()) if known.size else math.nan
        self._advance(self.t, self.weights(f), self._rates(), level)
        return level

    def plan(self, batch: Any) -> tuple[int, bool]:
        """Return the number of directions of this step, and whether all of them see all examples."""
        return self.samples, True

    def losses(self, batch: Any, draws: Draws, index: Any, scale: Floats, parts: int = 1, share: bool = True) -> Floats:
        """Return the mean losses ``(n,)`` of the members."""
        lag = self.course.lag(draws.directions.count)

        def evaluate() -> Tensor:
            key = draws.directions.key.child("dropout")
            told = [
                self.engine.losses(part, draws, index, scale, share=share, lag=lag, noise=key.child(i) if i else key)
                for i, part in enumerate(split(batch, parts))
            ]
            return torch.cat(told, 1)

        self._told = evaluate() if self.processes is None else self.processes.losses(evaluate, self.tests())
        return self._told.mean(1).numpy()

    def tests(self) -> bool:
        """Return whether this step asks for the loss of every example, and not for means alone."""
        return False

    def _closures(self, closure: Closure, q: int, index: Any, scale: Floats) -> Floats:
        directions, f, self._told = self.course.directions(self.t, q), [], None
        with torch.no_grad(), InPlace(self.engine.tensors, directions, memory=self.options.room) as moved:
            for i, s in zip(index, scale, strict=True):
                moved.to(int(i), float(s))
                with Seeded(self.engine.generators, directions.key.child("dropout")), torch.no_grad():
                    f.append(_number(closure()))  # the random numbers are those of every member
            moved.back()
            moved.lend(self.course.draws(self.t, q))
        return np.asarray(f)

    def layout(self, q: int) -> tuple[Any, Floats]:
        """Return direction and signed radius of the members: the two ends of every direction."""
        each = np.arange(2 * q)
        return each // 2, np.asarray(self.radius * (1.0 - 2.0 * (each % 2)), dtype=float)

    def weights(self, f: Floats) -> Floats:
        """Return the weights ``(q,)`` of the directions, of length about 1; zeros where nothing was learned."""
        raise NotImplementedError

    # ------------------------------------------------------------------ moves

    def _advance(self, t: int, w: Floats, rates: Sequence[float], level: float) -> None:
        """Write the step down, then move."""
        if self.log is not None:
            named = {"loss": level} | self._notes() | ({"flushed": 1.0} if self.course.flushed else {})
            self.log.append(t, w, rates, named)
        self.course.apply(Record(t, w, tuple(rates), {}), self._decays())
        self._saved()


def _check_form(loss: Any, batch: Any) -> None:
    """Check that a step was asked for as ``step(loss, batch)`` or as ``step(closure)``."""
    if not callable(loss):
        raise InvalidType(f"step: expected step(loss, batch) or step(closure), functions both, got {short(loss)}.")
    try:
        inspect.signature(loss).bind(*(() if batch is ... else (None, None)))
    except TypeError as error:
        wanted = "no argument, or step(loss, batch)" if batch is ... else "module and batch, or step(closure)"
        raise InvalidType(f"step: expected a function of {wanted}; {short(loss)}: {error}.") from None
    except ValueError:  # of some functions nobody knows
        pass


def _number(value: Any) -> float:
    """Return what a closure returned as a number."""
    told = judged(value, 1, None)
    if told.numel() != 1:
        raise BadObjective(f"step: expected a closure that returns one number, got {told.numel()}. Take their mean.")
    return float(told[0, 0])


def _flush_before_use(module: nn.Module, front: Front) -> None:
    """Have updates that lag behind added before others use the module or a part of it, and when the front ends."""
    alive = weakref.ref(front)

    def flush(*_: Any) -> None:
        mine = alive()
        if mine is not None:
            mine._flush()

    handles = []
    for part in module.modules():
        handles.append(part.register_forward_pre_hook(flush))
        handles.append(part.register_state_dict_pre_hook(flush))
        handles.append(part.register_load_state_dict_pre_hook(flush))  # what lags belongs to the weights it replaces
    weakref.finalize(front, _leave, front.course, handles).atexit = False


def _leave(course: Course, handles: Sequence[RemovableHandle]) -> None:
    """Leave a module whose optimizer is gone: with all of its updates, and without hooks."""
    for handle in handles:
        handle.remove()
    if course.behind.count:
        course.settle()


def _no_loss(module: nn.Module, batch: Any) -> Tensor:
    raise InvalidType("step: expected step(loss, batch) or step(closure).")
