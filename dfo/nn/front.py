"""What the optimizers of networks share: directions, losses of members, moves of the weights, the log of a run."""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from dfo.arrays import Floats
from dfo.directions import Directions, Distribution, LowRank, distribution
from dfo.errors import BadState, InvalidArgument, InvalidType, short
from dfo.nn.batches import examples, split
from dfo.nn.common import Seeded
from dfo.nn.engine import Engine, Evaluate, Loss, typical_size
from dfo.nn.in_place import InPlace
from dfo.nn.laws import Laws
from dfo.nn.members import Draws, Factors
from dfo.nn.replay import Record, ReplayLog
from dfo.nn.resume import begin, go_on, repeat, save
from dfo.nn.snapshots import Snapshots
from dfo.nn.tensors import Choice
from dfo.nn.torch_rule import TorchRule
from dfo.nn.update import Term, factors_of, move
from dfo.nn.weights import Lag
from dfo.random import Key

if TYPE_CHECKING:
    from dfo.nn.distributed import Processes

__all__ = ["Front", "Options", "Rule"]

Rule: TypeAlias = "Literal['sgd', 'momentum'] | TorchRule"

Closure = Callable[[], Any]

FORGOTTEN = 0.05
"""Share below which what momentum remembers of a past step is dropped."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an optimizer of networks works, beside its own parameters.

    Args:
        directions: ``"low-rank"`` (rank 1, default: the cheapest to evaluate), a name of
            :data:`dfo.directions.DISTRIBUTIONS`, or a law that works on named blocks.
        rule: ``"sgd"``; ``"momentum"``, whose memory is redrawn from keys; or :class:`TorchRule`, any optimizer of
            torch, at the memory of its own state plus one gradient.
        beta: of momentum.
        weight_decay: share of ``lr`` by which weights shrink each step (decoupled).
        params: which parameters move; see :func:`dfo.nn.tensors.trainable`.
        groups: further settings by name, ``{"params": r"norm|bias", "lr": 1e-4, "weight_decay": 0.0}``; a tensor
            belongs to the first whose expression matches, else to the main group, the last of ``param_groups``.
        evaluate: ``"auto"``, ``"together"``, ``"one by one"``; see :class:`dfo.nn.engine.Engine`.
        chunk: members of one pass.
        lag: columns of updates that weights of 16 bits may lag behind: until there are so many, updates ride in the
            factors, where rounding loses nothing and costs nothing. 0 adds every step at once. Calls of the module
            outside, and its ``state_dict``, add what is missing first.
        room: bytes of drawn numbers that are kept from the passes for the update.
        seed: of the run.
        log: of the run, made by ``log_to`` or :meth:`ReplayLog.create`; None keeps one in memory.
    """

    directions: str | Distribution = "low-rank"
    rule: Rule = "sgd"
    beta: float = 0.9
    weight_decay: float = 0.0
    params: Choice = None
    groups: Sequence[Mapping[str, Any]] = ()
    evaluate: Evaluate = "auto"
    chunk: int | None = None
    lag: int = 16
    room: int = 1 << 26
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rule, TorchRule) and self.rule not in ("sgd", "momentum"):
            raise InvalidArgument(f'rule: expected "sgd", "momentum" or a TorchRule, got {self.rule!r}.')
        if not 0.0 < self.beta < 1.0:
            raise InvalidArgument(f"beta: expected a number between 0 and 1, got {self.beta!r}.")
        if not 0.0 <= self.weight_decay < math.inf:
            raise InvalidArgument(f"weight_decay: expected a number >= 0, got {self.weight_decay!r}.")
        if self.lag < 0:
            raise InvalidArgument(f"lag: expected a number of columns >= 0, got {self.lag!r}.")


@dataclass(eq=False)
class Pending:
    """Updates that have not been added to the weights yet: by step, the coefficients of its directions by group."""

    terms: dict[int, Floats] = field(default_factory=dict)  # step -> (groups, q)

    def add(self, t: int, coefficients: Floats) -> None:
        """Add coefficients ``(groups, q)`` to those of step ``t``."""
        self.terms[t] = self.terms[t] + coefficients if t in self.terms else coefficients


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
        self.laws = Laws(self.law)
        self.key, self.t = Key.of(options.seed), 0
        self.log: ReplayLog | None = None
        self._snapshots: Snapshots | None = None
        self._every = 1
        self.processes: Processes | None = None
        self._group_of, groups = _groups(module, self.engine.tensors, lr, options)
        super().__init__(groups, {"lr": lr, "weight_decay": options.weight_decay})
        self._past: deque[tuple[int, Floats]] = deque(maxlen=self._window)
        self._pending, self._drawn = Pending(), dict[int, Draws]()
        self._torch = options.rule.bind(self.engine.tensors) if isinstance(options.rule, TorchRule) else None
        self._evaluating = self._flushed = False
        self._late = self._laggards()
        if self._late:
            _flush_before_use(module, self)

    # ------------------------------------------------------------------ a step

    def step(self, loss: Loss | Closure, batch: Any = ..., *, parts: int = 1) -> float:
        """Evaluate the members of this step, move the weights, and return the mean loss of the members.

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
        draws = self._draws(self.t, q)
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
        self._advance(
            self.t, self.weights(f), self._rates(), float(np.nanmean(f)) if np.isfinite(f).any() else math.nan
        )
        return float(np.nanmean(f)) if np.isfinite(f).any() else math.nan

    def plan(self, batch: Any) -> tuple[int, bool]:
        """Return the number of directions of this step, and whether all of them see all examples."""
        return self.samples, True

    def losses(self, batch: Any, draws: Draws, index: Any, scale: Floats, parts: int = 1, share: bool = True) -> Floats:
        """Return the mean losses ``(n,)`` of the members."""
        lag = self._lag()

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
        directions, f = self._directions(self.t, q), []
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

    # ------------------------------------------------------------------ directions

    def _directions(self, t: int, q: int) -> Directions:
        law = self.laws.at(t, self.engine.tensors)
        return Directions(law, self.key.child(t), q, self.engine.tensors)

    def _draws(self, t: int, q: int) -> Draws:
        """Return the directions of step ``t``; those of steps that lag behind are kept."""
        if t not in self._drawn:
            room = self.options.room // self._window  # momentum keeps as many steps
            self._drawn[t] = Draws(self._directions(t, q), self.engine.tensors, room)
        return self._drawn[t]

    @property
    def _window(self) -> int:
        momentum = self.options.rule == "momentum"
        return 1 + math.ceil(math.log(FORGOTTEN) / math.log(self.options.beta)) if momentum else 1

    # ------------------------------------------------------------------ moves

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.param_groups]

    def _advance(self, t: int, w: Floats, rates: Sequence[float], level: float) -> None:
        """Write the step down, then move."""
        if self.log is not None:
            named = {"loss": level} | self._notes() | ({"flushed": 1.0} if self._flushed else {})
            self.log.append(t, w, rates, named)
        self._apply(Record(t, w, tuple(rates), {}))
        if self._snapshots is not None and self.t % self._every == 0:
            save(self, self._snapshots)

    def _apply(self, record: Record) -> None:
        """Move the weights by one record: by ``lr sum_j w_j u_j``, and by what momentum remembers."""
        t, rates = record.step, np.asarray(record.rates)[:, None]
        self.laws.at(t, self.engine.tensors)  # looks before anything moves
        self.t, self._flushed = t + 1, False
        if self._torch is not None:
            self._torch.step(self.engine.tensors, [self._term(t, record.weights)], self._rate_of(record.rates))
            self._forget()
            return
        self._past.append((t, record.weights))
        beta, momentum = self.options.beta, self.options.rule == "momentum"
        now = Pending()
        for then, w in self._past:
            share = beta ** (t - then) * math.sqrt(1.0 - beta**2) if momentum else 1.0
            if w.any():
                now.add(then, share * rates * w)
                self._pending.add(then, share * rates * w)
        self._move([name for name in self.engine.tensors if name not in self._late], now, t, record.rates)
        columns = sum(w.shape[1] for w in self._pending.terms.values()) * self._rank
        if not self._late or columns >= self.options.lag:
            self._settle()

    @property
    def _rank(self) -> int:
        return int(getattr(self.law, "rank", 1))

    def _move(self, names: Iterable[str], pending: Pending, t: int, rates: Sequence[float] | None = None) -> None:
        """Add pending updates to some of the tensors."""
        by_group: dict[int, dict[str, Tensor]] = {}
        for name in names:
            by_group.setdefault(self._group_of[name], {})[name] = self.engine.tensors[name]
        for g, tensors in by_group.items():
            terms = [self._term(then, w[g]) for then, w in pending.terms.items()]
            decay = 0.0 if rates is None else rates[g] * float(self.param_groups[g]["weight_decay"])
            shrink = dict.fromkeys(tensors, 1.0 - decay) if decay else None
            move(tensors, terms, self.key.child(t, "rounding"), shrink)

    def _term(self, t: int, w: Floats) -> Term:
        return Term(self._draws(t, len(w)), w, [(0, len(w))])

    def _rate_of(self, rates: Sequence[float]) -> dict[str, float]:
        return {name: rates[g] for name, g in self._group_of.items()}

    def _settle(self) -> None:
        """Add what lags behind to the weights, and forget the directions that no later step needs."""
        self._move(self._late, self._pending, self.t - 1)
        self._pending = Pending()
        self._forget()

    def _forget(self) -> None:
        needed = {t for t, _ in self._past} if self.options.rule == "momentum" else set()
        self._drawn = {t: draws for t, draws in self._drawn.items() if t in needed}
        self.laws.forget(min(needed | {self.t}))

    # ------------------------------------------------------------------ updates that lag behind

    def _laggards(self) -> list[str]:
        """Return the tensors of 16 bits whose updates are products of few columns."""
        decays = any(group["weight_decay"] for group in self.param_groups)
        if decays or self._rank >= self.options.lag or self._torch is not None or self.laws.looks:
            return []
        streams = Draws(self._directions(0, 1), self.engine.tensors).streams
        if len(streams) < len(self.engine.tensors):  # what a step leaves alone would be seen without what it lacks
            return []
        return [
            name
            for name, t in self.engine.tensors.items()
            if t.itemsize == 2 and isinstance(streams.get(name), Factors)
        ]

    def _lag(self) -> dict[str, Lag] | None:
        if not self._late or not self._pending.terms:
            return None
        lag = {}
        for name in self._late:
            g, like = self._group_of[name], self.engine.tensors[name]
            parts = [part for t, w in self._pending.terms.items() for part in self._term(t, w[g]).parts(name)]
            if parts:
                tall, flat = factors_of(parts, torch.float32)
                lag[name] = (tall.to(like.dtype), flat.to(like.dtype))
        return lag

    def flush(self) -> None:
        """Add to the weights what still lags behind. Calls of the module and its ``state_dict`` do so by themselves."""
        self._flush()

    def _flush(self) -> None:
        if not self._evaluating and self._pending.terms:
            self._settle()
            self._flushed = True

    # ------------------------------------------------------------------ the memory of a run

    def config(self) -> dict[str, Any]:
        """Return what a log has to say of this optimizer beside its steps, plain JSON."""
        rule = self.options.rule if isinstance(self.options.rule, str) else repr(self.options.rule)
        return {
            "method": type(self).__name__, "law": repr(self.law), "radius": self.radius, "samples": self.samples,
            "rule": rule, "beta": self.options.beta, "lag": self.options.lag,
            "groups": [{k: v for k, v in group.items() if k == "weight_decay"} for group in self.param_groups],
            "group_of": list(self._group_of.values()),
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
        inner = None if self._torch is None else self._torch.state_dict()
        memory = {"t": self.t, "past": [(t, w.tolist()) for t, w in self._past], "config": self.config(), "rule": inner}
        return {**super().state_dict(), "dfo": memory | {"laws": self.laws.state()} | self._memory()}

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
        self.t, self._pending, self._drawn = int(memory["t"]), Pending(), {}
        self._past = deque(((t, np.asarray(w)) for t, w in memory["past"]), maxlen=self._window)
        if self._torch is not None:
            self._torch.load_state_dict(memory["rule"])
        self.laws.load(memory["laws"])
        self._remember(memory)

    def _memory(self) -> dict[str, Any]:
        return {}

    def _remember(self, memory: Mapping[str, Any]) -> None: ...


def default_radius(tensors: Mapping[str, Tensor]) -> float:
    """Return the smoothing: half a hundredth of the typical size of a weight.

    In 16 bits a difference must stand out of the rounding of the forward pass, and in 32 bits curvature is still small
    there; in double precision a hundredth of that, where rounding errors are smaller and curvature counts.
    """
    double = all(t.dtype == torch.float64 for t in tensors.values())
    return (5e-5 if double else 5e-3) * typical_size(tensors)


def default_lr(tensors: Mapping[str, Tensor]) -> float:
    """Return the root mean square of a first step per weight, ``4 d**-0.4`` of the typical size of a weight.

    Found by hand on digits (2,410 weights) and on a language model (1.3e8) with other sentences than those measured;
    it makes the length of a step nearly independent of the number of weights.
    """
    return 4.0 * sum(t.numel() for t in tensors.values()) ** -0.4 * typical_size(tensors)


def _groups(
    module: nn.Module, tensors: Mapping[str, Tensor], lr: float, options: Options
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Return the group of every tensor, and the groups with the module's parameters; the last takes the rest."""
    import re

    parameters = dict(module.named_parameters())
    groups: list[dict[str, Any]] = []
    group_of: dict[str, int] = {}
    for given in options.groups:
        pattern = given.get("params")
        unknown = set(given) - {"params", "lr", "weight_decay"}
        if not isinstance(pattern, str) or unknown:
            raise InvalidArgument(f"groups: expected params (an expression), lr and weight_decay, got {short(given)}.")
        mine = [name for name in tensors if name not in group_of and re.search(pattern, name)]
        if not mine:
            raise InvalidArgument(f"groups: no name of a parameter that moves matches {pattern!r}.")
        group_of.update(dict.fromkeys(mine, len(groups)))
        groups.append({**given, "params": [parameters[name] for name in mine]})
    rest = [name for name in tensors if name not in group_of]
    if rest:
        group_of.update(dict.fromkeys(rest, len(groups)))
        groups.append({"params": [parameters[name] for name in rest], "lr": lr})
    return {name: group_of[name] for name in tensors}, groups


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
