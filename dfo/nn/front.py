"""What the optimizers of networks share: directions, losses of members, moves of the weights, the log of a run."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dfo.arrays import Floats
from dfo.directions import LowRank, distribution
from dfo.errors import BadState, InvalidArgument, InvalidType, short
from dfo.nn.batches import examples, split
from dfo.nn.common import Seeded
from dfo.nn.course import Course
from dfo.nn.engine import Engine, Loss
from dfo.nn.in_place import InPlace
from dfo.nn.members import Draws
from dfo.nn.options import Options, default_lr, default_radius, groups_of
from dfo.nn.replay import Record, ReplayLog
from dfo.nn.resume import begin, go_on, repeat, save
from dfo.nn.snapshots import Snapshots
from dfo.random import Key

if TYPE_CHECKING:
    from dfo.nn.distributed import Processes

__all__ = ["Front"]

Closure = Callable[[], Any]


class Front(torch.optim.Optimizer):
    """Base of the optimizers of networks; see :class:`dfo.nn.ZOSGD` and :class:`dfo.nn.ES`."""

    def __init__(
        self, module: nn.Module, lr: float | None, radius: float | None, samples: int, options: Options
    ) -> None:
        self.engine = Engine(module, _no_loss, options.params, options.evaluate, options.chunk)
        self._derived = radius is None
        self.radius = default_radius(self.engine.tensors) if radius is None else radius
        lr = default_lr(self.engine.tensors) if lr is None else lr
        self.samples, self.options = samples, options
        for name, value in (("lr", lr), ("radius", self.radius)):
            if not 0.0 < value < math.inf:
                raise InvalidArgument(f"{name}: expected a positive finite number, got {value!r}.")
        if samples < 1:
            raise InvalidArgument(f"samples: expected at least one direction a step, got {samples!r}.")
        directions = options.directions
        self.law = LowRank() if directions == "low-rank" else distribution(directions)
        self.log: ReplayLog | None = None
        self._snapshots: Snapshots | None = None
        self._every = 1
        self.processes: Processes | None = None
        group_of, groups = groups_of(module, self.engine.tensors, lr, options)
        super().__init__(groups, {"lr": lr, "weight_decay": options.weight_decay})
        self.course = Course(self.engine.tensors, self.law, options, group_of, self._decays())
        self._evaluating = False
        self._told: Tensor | None = None  # losses (n, B) of the members of the last step
        if self.course.late:
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
            BadObjective: the loss is neither a number nor one number an example.
        """
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
        if not callable(closure):
            raise InvalidType(f"step: expected a closure, or a loss and a batch, got {short(closure)}.")
        directions, f, self._told = self.course.directions(self.t, q), [], None
        with torch.no_grad(), InPlace(self.engine.tensors, directions, memory=self.options.room) as moved:
            for i, s in zip(index, scale, strict=True):
                moved.to(int(i), float(s))
                with Seeded(self.engine.generators, directions.key.child("dropout")), torch.no_grad():
                    f.append(float(closure()))  # the random numbers are those of every member
            moved.back()
        return np.asarray(f)

    def layout(self, q: int) -> tuple[Any, Floats]:
        """Return direction and signed radius of the members: the two ends of every direction."""
        each = np.arange(2 * q)
        return each // 2, np.asarray(self.radius * (1.0 - 2.0 * (each % 2)), dtype=float)

    def weights(self, f: Floats) -> Floats:
        """Return the weights ``(q,)`` of the directions, of length about 1; zeros where nothing was learned."""
        raise NotImplementedError

    # ------------------------------------------------------------------ moves

    @property
    def t(self) -> int:
        """Number of the step that comes next."""
        return self.course.t

    @property
    def key(self) -> Key:
        """The key of the run."""
        return self.course.key

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.param_groups]

    def _decays(self) -> list[float]:
        return [float(group["weight_decay"]) for group in self.param_groups]

    def _advance(self, t: int, w: Floats, rates: Sequence[float], level: float) -> None:
        """Write the step down, then move."""
        if self.log is not None:
            named = {"loss": level} | self._notes() | ({"flushed": 1.0} if self.course.flushed else {})
            self.log.append(t, w, rates, named)
        self.course.apply(Record(t, w, tuple(rates), {}), self._decays())
        if self._snapshots is not None and self.t % self._every == 0:
            save(self, self._snapshots)

    def flush(self) -> None:
        """Add to the weights what still lags behind. Calls of the module and its ``state_dict`` do so by themselves."""
        self._flush()

    def _flush(self) -> None:
        if not self._evaluating and self.course.pending.terms:
            self.course.settle()
            self.course.flushed = True

    # ------------------------------------------------------------------ the memory of a run

    def config(self) -> dict[str, Any]:
        """Return what a log has to say of this optimizer beside its steps, plain JSON."""
        rule = self.options.rule if isinstance(self.options.rule, str) else repr(self.options.rule)
        return {
            "method": type(self).__name__, "law": repr(self.law), "radius": self.radius, "samples": self.samples,
            "rule": rule, "beta": self.options.beta, "lag": self.options.lag,
            "groups": [{k: v for k, v in group.items() if k == "weight_decay"} for group in self.param_groups],
            "group_of": list(self.course.group_of.values()),
        }  # fmt: skip

    def log_to(
        self, path: str | os.PathLike[str] | None = None, *, fsync: bool = False, snapshots: Snapshots | None = None,
        every: int = 1000,
    ) -> ReplayLog:  # fmt: skip
        """Write every further step to a log, and return it; before the first step.

        Args:
            path: of a new file; None keeps the log in memory.
            fsync: see :meth:`ReplayLog.create`.
            snapshots: where the weights are saved, so that a run goes on without repeating all of its steps.
            every: steps from one snapshot to the next.

        Raises:
            InvalidArgument: steps have been made, or the file exists.
        """
        self.log = begin(self, path, fsync)
        self._keep(snapshots, every)
        return self.log

    def resume(
        self, path: str | os.PathLike[str], *, fsync: bool = False, snapshots: Snapshots | None = None,
        every: int = 1000,
    ) -> ReplayLog:  # fmt: skip
        """Go on with a run whose process has ended, bit for bit: repeat its steps, and write further ones to its log.

        The optimizer has to be made as that of the run, on the weights that the run began with; then ``opt.t`` is
        the step that comes next, so that data and schedules can be brought there. What is not on the log of a step
        is the user's to bring back: buffers that calls of the module move, and learning rates changed by hand.

        Args:
            path: of the log.
            fsync: see :meth:`ReplayLog.create`.
            snapshots: those of the run, if it had any: only the steps from the latest on are repeated.
            every: steps from one snapshot to the next, as in the run.

        Raises:
            InvalidArgument: steps have been made, there is no such file, or another process writes to it.
            BadState: the log is of another run, or damaged.

        Example:
            >>> import os, tempfile, torch, dfo.nn
            >>> folder = tempfile.TemporaryDirectory()
            >>> path = os.path.join(folder.name, "run.log")
            >>> def process(steps):
            ...     net = torch.nn.Linear(3, 1)
            ...     _ = torch.nn.init.ones_(net.weight), torch.nn.init.zeros_(net.bias)
            ...     opt = dfo.nn.ZOSGD(net, lr=0.05, samples=2)
            ...     log = opt.resume(path) if os.path.exists(path) else opt.log_to(path)
            ...     while opt.t < steps:
            ...         _ = opt.step(lambda module, x: module(x).square().mean(1), torch.eye(3))
            ...     log.close()
            ...     return net.weight.tolist()
            >>> process(5) == process(9)  # four steps further
            False
            >>> process(9) == process(9)  # nothing is left to do: all nine steps repeated from the log
            True
            >>> folder.cleanup()
        """
        log = ReplayLog.open(path, write=True, fsync=fsync)
        try:
            go_on(self, log, snapshots)
        except BaseException:
            log.close()
            raise
        self.log = log
        self._keep(snapshots, every)
        if snapshots is not None and self.t and self.t % every == 0:
            self._flush()  # as for the snapshot that was taken here
        return log

    def _keep(self, snapshots: Snapshots | None, every: int) -> None:
        if every < 1:
            raise InvalidArgument(f"every: expected at least one step, got {every!r}.")
        if snapshots is not None and self.log is not None:
            snapshots.run = snapshots.run or self.log.identity
        self._snapshots, self._every = snapshots, every

    def replay(self, log: ReplayLog, stop: int | None = None) -> None:
        """Repeat the steps of a log, up to and without step ``stop``; no loss is evaluated.

        The module has to hold the weights of the log's start, or of the step at which this optimizer is.

        Raises:
            BadState: the log is of another configuration, or misses steps.
        """
        repeat(self, log, stop)
        self._flush()

    def _notes(self) -> dict[str, float]:
        """Return what has to be in the record of a step for :meth:`_observe`."""
        return {}

    def _observe(self, record: Record) -> None:
        """Take from a record what later steps depend on."""

    def state_dict(self) -> dict[str, Any]:
        """Return what, with the module's own ``state_dict``, resumes the run bit for bit: numbers only."""
        self._flush()
        return {**super().state_dict(), "dfo": {"config": self.config(), **self.course.state(), **self._memory()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            BadState: it is of another configuration.
        """
        memory = state_dict.get("dfo")
        if memory is not None and self._derived:
            self.radius = memory["config"].get("radius", self.radius)  # that of the weights the run began with
        if memory is None or memory["config"] != self.config():
            raise BadState(
                f"load_state_dict: expected a state of {self.config()}, got {short(memory and memory['config'])}."
            )
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "dfo"})
        self.course.load(memory)
        self._remember(memory)

    def _memory(self) -> dict[str, Any]:
        return {}

    def _remember(self, memory: Mapping[str, Any]) -> None: ...


def _flush_before_use(module: nn.Module, front: Front) -> None:
    """Have updates that lag behind added before anybody else uses the module."""
    alive = weakref.ref(front)

    def flush(*_: Any) -> None:
        mine = alive()
        if mine is not None:
            mine._flush()

    module.register_forward_pre_hook(flush)
    module.register_state_dict_pre_hook(flush)
    module.register_load_state_dict_pre_hook(flush)  # what lags behind belongs to the weights that are replaced


def _no_loss(module: nn.Module, batch: Any) -> Tensor:
    raise InvalidType("step: expected step(loss, batch) or step(closure).")
