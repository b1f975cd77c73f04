"""What every optimizer of networks keeps of a run: its step, its log, its snapshots, its state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from dfo.directions import Distribution
from dfo.errors import BadState, InvalidArgument, short
from dfo.nn.course import Course
from dfo.nn.engine import Engine
from dfo.nn.options import Options
from dfo.nn.replay import Record, ReplayLog
from dfo.nn.resume import begin, go_on, repeat, save
from dfo.nn.snapshots import Snapshots
from dfo.random import Key

__all__ = ["Remembered"]


class Remembered(torch.optim.Optimizer):
    """An optimizer whose steps are written down and repeated; base of :class:`dfo.nn.front.Front`."""

    engine: Engine
    course: Course
    options: Options
    law: Distribution
    radius: float
    samples: int
    log: ReplayLog | None = None
    _derived: bool  # whether the radius follows from the weights
    _snapshots: Snapshots | None = None
    _every = 1
    _evaluating = False

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

    def flush(self) -> None:
        """Add to the weights what still lags behind. Calls of the module and its ``state_dict`` do so by themselves."""
        self._flush()

    def _flush(self) -> None:
        if not self._evaluating and self.course.behind.count:
            self.course.settle()
            self.course.flushed = True

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

    def _saved(self) -> None:
        """Save the weights where a snapshot is due."""
        if self._snapshots is not None and self.t % self._every == 0:
            save(self, self._snapshots)

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
