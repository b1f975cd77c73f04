"""One step on many processes, by scalars alone.

Every process (of ``torchrun``, or however :mod:`torch.distributed` was started) holds the module. The members of a step
are cut into the passes that one process would make, padded in the same way; the processes make them in turn, tell each
other the losses, eight bytes a member, and then all do the same: weights of the directions, directions from keys, the
update. Weights and losses equal those of one process to the bit (with as many threads each)::

    dist.init_process_group("gloo")  # or "nccl": no tensor is sent, so the backend does not matter
    opt = dfo.nn.distribute(dfo.nn.ZOSGD(model, samples=32, chunk=8))
    for batch in data:
        opt.step(loss, batch)

Every process gets the same batch, by its number. (Other data on each process make a pass see its owner's examples; the
two ends of a direction share a pass, so that :class:`dfo.nn.ZOSGD` still descends, but nothing can be repeated.) There
should be at least as many passes as processes: say ``chunk``, the members of one.

A process that says nothing for ``timeout`` seconds after the others are done, dead or slow, is given up; the others
make its passes anew, so that not even a bit of the run changes. One that comes back later is told so, and ends. Who was
in time is decided in the group's store, where a message is written once or marked as lost, whichever comes first; so
all agree on it. The process that keeps the store must live (rank 0, or ``torchrun`` itself, which ends all processes
when one dies unless told otherwise); when it dies, the run ends, and goes on from its log.

What is sent a step: two numbers and the mean losses of one's own members (those of every example in the rare steps in
which :class:`dfo.nn.ZOSGD` finds out how many directions are worth it). Shared seeds and scalars: Salimans et al. 2017,
arXiv:1703.03864, section 2.1.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dfo.arrays import Floats
from dfo.errors import BadState, InvalidArgument, InvalidType, short
from dfo.nn.front import Front
from dfo.nn.snapshots import fingerprint

__all__ = ["Processes", "distribute"]

LOST = b"lost"
"""Mark of a process that was given up; no message has this length."""

_serial = itertools.count()

Optimizer = TypeVar("Optimizer", bound=Front)


def distribute(opt: Optimizer, group: dist.ProcessGroup | None = None, *, timeout: float = 120.0) -> Optimizer:
    """Share the passes of every step with the other processes, and return the optimizer, used as before.

    All processes call this, with equal weights and equal configuration; steps by ``step(loss, batch)`` are shared,
    those by ``step(closure)`` are made by everyone alone.

    Args:
        opt: of networks: :class:`dfo.nn.ZOSGD`, :class:`dfo.nn.ES`.
        group: of processes; all by default.
        timeout: seconds that others are waited for when one's own work is done.

    Returns:
        ``opt``; its ``processes`` tells who is still there.

    Raises:
        InvalidType: ``opt`` is no optimizer of networks.
        InvalidArgument: there is no process group, or the timeout is not positive.
        BadState: weights, configuration, version of torch or number of threads differ from those of another process.

    Example:
        >>> import torch, dfo.nn
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> opt = dfo.nn.distribute(dfo.nn.ZOSGD(torch.nn.Linear(3, 1), samples=4))
        >>> value = opt.step(lambda module, x: module(x).square().mean(1), torch.ones(8, 3))
        >>> opt.processes.alive
        [0]
        >>> dist.destroy_process_group()
    """
    if not isinstance(opt, Front):
        raise InvalidType(f"distribute: expected an optimizer of networks such as dfo.nn.ZOSGD, got {short(opt)}.")
    if not dist.is_available() or not dist.is_initialized():
        raise InvalidArgument("distribute: expected a process group. Call torch.distributed.init_process_group first.")
    if not timeout > 0.0:
        raise InvalidArgument(f"timeout: expected a positive number of seconds, got {timeout!r}.")
    opt.processes = Processes(opt, group or dist.group.WORLD, timedelta(seconds=timeout))
    return opt


class Processes:
    """Those that share the passes of a step, as one of them sees it.

    Args:
        opt: the optimizer.
        group: of processes.
        timeout: how long others are waited for.
    """

    def __init__(self, opt: Front, group: dist.ProcessGroup, timeout: timedelta) -> None:
        self.opt, self.timeout = opt, timeout
        self.rank = dist.get_rank(group)
        self.alive = list(range(dist.get_world_size(group)))
        """Ranks that have not been given up."""
        self.sent = 0
        """Bytes of keys and messages that this process has published."""
        self._store = dist.PrefixStore(f"dfo{next(_serial)}", group.get_group_store())
        self._published: list[str] = []
        self._check()

    def _check(self) -> None:
        """Compare what must be equal everywhere."""
        about = self._about()
        mine = [sha256(part.encode()).digest()[:16] for part in about.values()]
        told = self._exchange("start", b"".join(mine))
        for rank, message in told.items():
            if message is None:
                raise BadState(f"distribute: rank {rank} did not come within {self.timeout.total_seconds():g} seconds.")
            theirs = [message[at : at + 16] for at in range(0, len(message), 16)]
            for name, a, b in zip(about, mine, theirs, strict=True):
                if a != b:
                    raise BadState(
                        f"distribute: expected equal {name} on all processes, but those of rank {rank} are not those of"
                        f" rank {self.rank}. Start every process from the same snapshot, seed and settings."
                    )

    def _about(self) -> dict[str, str]:
        """Return what must be equal on all processes."""
        state = self.opt.engine.module.state_dict()
        settings = {
            "config": self.opt.config(), "seed": self.opt.options.seed, "step": self.opt.t, "rates": self.opt._rates(),
            "tensors": list(self.opt.engine.tensors), "chunk": self.opt.engine.chunk, "asked": self.opt.engine.asked,
        }  # fmt: skip
        return {
            "weights": fingerprint({name: x for name, x in state.items() if isinstance(x, Tensor)}),
            "settings": json.dumps(settings, sort_keys=True),
            "versions of torch": torch.__version__,
            "numbers of threads": str(torch.get_num_threads()),
        }

    # ------------------------------------------------------------------ losses

    def losses(self, evaluate: Callable[[], Tensor], every_example: bool) -> Tensor:
        """Return the losses of the members of this step, of which this process evaluates its share.

        Args:
            evaluate: returns losses ``(n, R)``, not-a-numbers for the passes that ``engine.mine`` leaves to others.
            every_example: whether to return ``(n, R)`` losses, else their means ``(n, 1)``.

        Raises:
            BadState: this process was given up by the others, or is at another step or with other rates.
        """
        self._tidy()
        engine, rows = self.opt.engine, dict[int, Floats]()  # member -> (R,) or (1,)
        todo: Sequence[int] | None = None
        for turn in itertools.count():
            part = self._share(evaluate, todo)
            part = part if every_example else part.mean(1, keepdim=True)
            n, size = len(part), engine.size
            todo = range(-(-n // size)) if todo is None else todo
            own = {rank: _members(todo[k :: len(self.alive)], size, n) for k, rank in enumerate(self.alive)}
            told = self._exchange(f"{self.opt.t}.{turn}", self._message(size, part[own[self.rank]]))
            self.alive = [rank for rank, message in told.items() if message is not None]
            if self._disagree(size, told):
                todo = None
                continue
            for rank in self.alive:
                numbers = np.frombuffer(told[rank] or b"", "<f8")[2:]
                rows.update(zip(own[rank], numbers.reshape(len(own[rank]), -1 if own[rank] else 0), strict=True))
            todo = sorted({i // size for rank, message in told.items() if message is None for i in own[rank]})
            if not todo:
                break
        return torch.from_numpy(np.stack([rows[i] for i in range(n)]))

    def _share(self, evaluate: Callable[[], Tensor], todo: Sequence[int] | None) -> Tensor:
        """Evaluate the passes of a turn that are this process's; None stands for all passes there are."""
        turn, count = self.alive.index(self.rank), len(self.alive)
        mine = None if todo is None else frozenset(todo[turn::count])
        self.opt.engine.mine = (lambda i: i % count == turn) if mine is None else mine.__contains__
        try:
            return evaluate()
        finally:
            self.opt.engine.mine = None

    def _message(self, size: int, losses: Tensor) -> bytes:
        """Return what the others are told: the state, members a pass, losses."""
        state = json.dumps([self.opt.t, self.opt._rates(), self.opt.radius])
        return sha256(state.encode()).digest()[:8] + np.asarray([size, *losses.reshape(-1).tolist()], "<f8").tobytes()

    def _disagree(self, size: int, told: dict[int, bytes | None]) -> bool:
        """Tell whether members ride together here and not there; from then on they ride together nowhere."""
        mine = told[self.rank] or b""
        for rank, message in told.items():
            if message is not None and message[:8] != mine[:8]:
                raise BadState(f"step {self.opt.t}: expected equal rates at equal steps, but rank {rank} differs.")
        sizes = {int(np.frombuffer(message, "<f8")[1]) for message in told.values() if message is not None}
        if len(sizes) == 1:
            return False
        self.opt.engine.together, self.opt.engine.reason = False, "not so in another process"
        return True

    # ------------------------------------------------------------------ the store

    def _exchange(self, what: str, message: bytes) -> dict[int, bytes | None]:
        """Publish a message and return those of all processes that are alive; None of those that are given up."""
        mine = f"{what}.{self.rank}"
        if self._write(mine, message) == LOST:
            raise BadState(
                f"rank {self.rank} was given up by the others at step {self.opt.t}: it took longer than"
                f" {self.timeout.total_seconds():g} seconds. Start it again from the log of the run, or wait longer."
            )
        self._published.append(mine)
        return {rank: message if rank == self.rank else self._read(f"{what}.{rank}") for rank in self.alive}

    def _write(self, key: str, message: bytes) -> bytes:
        """Write where nothing is written yet, and return what is there then."""
        self.sent += len(key) + len(message)
        found: bytes = self._store.compare_set(key, b"", message)
        return found

    def _read(self, key: str) -> bytes | None:
        try:
            self._store.wait([key], self.timeout)
            found: bytes = self._store.get(key)
        except dist.DistStoreError:
            found = self._write(key, LOST)
        return None if found == LOST else found

    def _tidy(self) -> None:
        """Delete one's own messages but the last: whoever wrote after them has read them."""
        for key in self._published[:-1]:
            self._store.delete_key(key)
        del self._published[:-1]


def _members(passes: Sequence[int], size: int, n: int) -> list[int]:
    """Return the members of some passes."""
    return [i for at in passes for i in range(at * size, min((at + 1) * size, n))]
