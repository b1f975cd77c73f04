"""How the weights of a run move: sums of directions, what momentum remembers of them, updates that lag behind."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dfo.arrays import Floats
from dfo.directions import Directions, Distribution, LowRank
from dfo.nn.behind import Behind
from dfo.nn.laws import Laws
from dfo.nn.members import Draws, Factors
from dfo.nn.options import Options
from dfo.nn.replay import Record
from dfo.nn.torch_rule import TorchRule
from dfo.nn.update import Term, move
from dfo.nn.weights import Lag
from dfo.random import Key

__all__ = ["Course"]

FORGOTTEN = 0.05
"""Share below which what momentum remembers of a past step is dropped."""


class Course:
    """Moves tensors by records of steps; equal records from equal tensors are equal to the bit.

    A step is written down as the weights of its directions, which a key names. So momentum remembers weights and draws
    old directions again, and tensors of 16 bits may lag behind: what is not added yet is known by its factors.

    Args:
        tensors: what moves, by name; in place.
        law: of the directions.
        options: of the run.
        group_of: number of the group of every tensor.
        decays: weight decay of every group.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], law: Distribution, options: Options, group_of: Mapping[str, int],
        decays: Sequence[float],
    ) -> None:  # fmt: skip
        self.tensors, self.options, self.group_of = tensors, options, group_of
        self.laws, self.key, self.t = Laws(law), Key.of(options.seed), 0
        self.past: deque[tuple[int, Floats]] = deque(maxlen=self._window)
        self.drawn = dict[int, Draws]()
        self.rule = options.rule.bind(tensors) if isinstance(options.rule, TorchRule) else None
        self.flushed = False  # whether what lagged behind has been added since the last step
        self.behind = Behind({}, {}, {}) if any(decays) else self._laggards(group_of)

    # ------------------------------------------------------------------ directions

    def directions(self, t: int, q: int) -> Directions:
        """Return the recipe of ``q`` directions of step ``t``."""
        return Directions(self.laws.at(t, self.tensors), self.key.child(t), q, self.tensors)

    def draws(self, t: int, q: int) -> Draws:
        """Return the directions of step ``t`` tensor by tensor; those that later steps need are kept."""
        if t not in self.drawn:
            room = self.options.room // self._window  # momentum keeps as many steps
            self.drawn[t] = Draws(self.directions(t, q), self.tensors, room)
        return self.drawn[t]

    @property
    def _window(self) -> int:
        momentum = self.options.rule == "momentum"
        return 1 + math.ceil(math.log(FORGOTTEN) / math.log(self.options.beta)) if momentum else 1

    # ------------------------------------------------------------------ moves

    def apply(self, record: Record, decays: Sequence[float]) -> None:
        """Move the weights by one record: by ``lr sum_j w_j u_j``, and by what momentum remembers.

        Args:
            record: the step, the weights of its directions, the learning rate of every group.
            decays: weight decay of every group.
        """
        t, rates = record.step, np.asarray(record.rates)[:, None]
        self.laws.at(t, self.tensors)  # looks before anything moves
        self.t, self.flushed = t + 1, False
        if self.rule is not None:
            self.rule.step(self.tensors, [self._term(t, record.weights)], self._rate_of(record.rates))
            self._forget()
            return
        self.past.append((t, record.weights))
        beta, momentum, now = self.options.beta, self.options.rule == "momentum", dict[int, Floats]()
        for then, w in self.past:
            share = beta ** (t - then) * math.sqrt(1.0 - beta**2) if momentum else 1.0
            if w.any():
                now[then] = share * rates * w
        late = self.behind.tensors if self._waits(len(record.weights)) else {}
        shrink = [lr * decay for lr, decay in zip(record.rates, decays, strict=True)]
        self._move([name for name in self.tensors if name not in late], now, t, shrink)
        for then, w in now.items() if late else ():
            self.behind.add(self.draws(then, w.shape[1]), w)
        if self.behind.count * self._rank >= self.options.lag:
            self.settle()
        self._forget()

    @property
    def _rank(self) -> int:
        return int(getattr(self.laws.law, "rank", 1))

    def _move(self, names: Iterable[str], now: Mapping[int, Floats], t: int, shrink: Sequence[float]) -> None:
        """Add updates, by step the weights ``(groups, q)``, to some of the tensors, and shrink those of a group."""
        by_group: dict[int, dict[str, Tensor]] = {}
        for name in names:
            by_group.setdefault(self.group_of[name], {})[name] = self.tensors[name]
        for g, tensors in by_group.items():
            terms = [self._term(then, w[g]) for then, w in now.items()]
            kept = dict.fromkeys(tensors, 1.0 - shrink[g]) if shrink[g] else None
            move(tensors, terms, self.key.child(t, "rounding"), kept)

    def _term(self, t: int, w: Floats) -> Term:
        return Term(self.draws(t, len(w)), w, [(0, len(w))])

    def _rate_of(self, rates: Sequence[float]) -> dict[str, float]:
        return {name: rates[g] for name, g in self.group_of.items()}

    def settle(self) -> None:
        """Add what lags behind to the weights."""
        self.behind.settle(self.key.child(self.t - 1, "rounding"))

    def _forget(self) -> None:
        needed = {t for t, _ in self.past} if self.options.rule == "momentum" else set()
        self.drawn = {t: draws for t, draws in self.drawn.items() if t in needed}
        self.laws.forget(min(needed | {self.t}))

    # ------------------------------------------------------------------ updates that lag behind

    def _laggards(self, group_of: Mapping[str, int]) -> Behind:
        """Return what may lag behind: the tensors of 16 bits whose updates are products of few columns."""
        laws, none = dict[str, LowRank](), self._rank >= self.options.lag or self.options.rule != "sgd"
        if not (none or self.laws.looks):
            streams = Draws(self.directions(0, 1), self.tensors).streams
            if len(streams) == len(self.tensors):  # what a step leaves alone would be seen without what it lacks
                laws = {name: stream.law for name, stream in streams.items() if isinstance(stream, Factors)}
        late = {name: t for name, t in self.tensors.items() if name in laws and t.itemsize == 2}
        return Behind(late, laws, group_of)

    def lag(self, q: int) -> dict[str, Lag] | None:
        """Return, by name, what the tensors lag behind in a step of ``q`` directions; None where they never do."""
        return self.behind.lag(q) if self._waits(q) else None

    def _waits(self, q: int) -> bool:
        """Tell whether updates of ``q`` directions are not added by themselves at once."""
        return bool(self.behind.tensors) and (self.behind.count > 0 or q * self._rank < self.options.lag)

    # ------------------------------------------------------------------ the memory of a run

    def state(self) -> dict[str, Any]:
        """Return what, with the tensors, continues the moves; nothing may lag behind."""
        inner = None if self.rule is None else self.rule.state_dict()
        past = [(t, w.tolist()) for t, w in self.past]
        return {"t": self.t, "past": past, "rule": inner, "laws": self.laws.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.t, self.drawn = int(state["t"]), {}
        self.behind.clear()
        self.past = deque(((t, np.asarray(w)) for t, w in state["past"]), maxlen=self._window)
        if self.rule is not None:
            self.rule.load_state_dict(state["rule"])
        self.laws.load(state["laws"])
