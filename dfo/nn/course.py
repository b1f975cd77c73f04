"""How the weights of a run move: sums of directions, what momentum remembers of them, updates that lag behind."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfo.arrays import Floats
from dfo.directions import Directions, Distribution
from dfo.nn.laws import Laws
from dfo.nn.members import Draws, Factors, Shelf
from dfo.nn.options import Options
from dfo.nn.replay import Record
from dfo.nn.torch_rule import TorchRule
from dfo.nn.update import Term, factors_of, move
from dfo.nn.weights import Lag
from dfo.random import Key

__all__ = ["Course"]

FORGOTTEN = 0.05
"""Share below which what momentum remembers of a past step is dropped."""

WIDTH = 8
"""Columns of products are filled up to a multiple of this: for every width torch prepares, and keeps, kernels anew."""

KEPT = 1 << 20
"""Bytes of what small tensors lag behind that are kept from one pass of a step to the next."""


@dataclass(eq=False)
class Pending:
    """Updates that have not been added to the weights yet: by step, the coefficients of its directions by group."""

    terms: dict[int, Floats] = field(default_factory=dict)  # step -> (groups, q)

    def add(self, t: int, coefficients: Floats) -> None:
        """Add coefficients ``(groups, q)`` to those of step ``t``."""
        self.terms[t] = self.terms[t] + coefficients if t in self.terms else coefficients


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
        self.pending, self.drawn = Pending(), dict[int, Draws]()
        self.rule = options.rule.bind(tensors) if isinstance(options.rule, TorchRule) else None
        self.flushed = False  # whether what lagged behind has been added since the last step
        self.late = [] if any(decays) else self._laggards()

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
        beta, momentum = self.options.beta, self.options.rule == "momentum"
        now = Pending()
        for then, w in self.past:
            share = beta ** (t - then) * math.sqrt(1.0 - beta**2) if momentum else 1.0
            if w.any():
                now.add(then, share * rates * w)
                self.pending.add(then, share * rates * w)
        shrink = [lr * decay for lr, decay in zip(record.rates, decays, strict=True)]
        self._move([name for name in self.tensors if name not in self.late], now, t, shrink)
        columns = sum(w.shape[1] for w in self.pending.terms.values()) * self._rank
        if not self.late or columns >= self.options.lag:
            self.settle()
        elif t in self.drawn:
            self.drawn[t].shelf.pack()  # kept for several steps

    @property
    def _rank(self) -> int:
        return int(getattr(self.laws.law, "rank", 1))

    def _move(self, names: Iterable[str], pending: Pending, t: int, shrink: Sequence[float] | None = None) -> None:
        """Add pending updates to some of the tensors, and shrink those of a group by a share."""
        by_group: dict[int, dict[str, Tensor]] = {}
        for name in names:
            by_group.setdefault(self.group_of[name], {})[name] = self.tensors[name]
        for g, tensors in by_group.items():
            terms = [self._term(then, w[g]) for then, w in pending.terms.items()]
            decay = 0.0 if shrink is None else shrink[g]
            move(tensors, terms, self.key.child(t, "rounding"), dict.fromkeys(tensors, 1.0 - decay) if decay else None)

    def _term(self, t: int, w: Floats) -> Term:
        return Term(self.draws(t, len(w)), w, [(0, len(w))])

    def _rate_of(self, rates: Sequence[float]) -> dict[str, float]:
        return {name: rates[g] for name, g in self.group_of.items()}

    def settle(self) -> None:
        """Add what lags behind to the weights, and forget the directions that no later step needs."""
        self._move(self.late, self.pending, self.t - 1)
        self.pending = Pending()
        self._forget()

    def _forget(self) -> None:
        needed = {t for t, _ in self.past} if self.options.rule == "momentum" else set()
        self.drawn = {t: draws for t, draws in self.drawn.items() if t in needed}
        self.laws.forget(min(needed | {self.t}))

    # ------------------------------------------------------------------ updates that lag behind

    def _laggards(self) -> list[str]:
        """Return the tensors of 16 bits whose updates are products of few columns."""
        if self._rank >= self.options.lag or self.rule is not None or self.laws.looks:
            return []
        streams = Draws(self.directions(0, 1), self.tensors).streams
        if len(streams) < len(self.tensors):  # what a step leaves alone would be seen without what it lacks
            return []
        return [name for name, t in self.tensors.items() if t.itemsize == 2 and isinstance(streams.get(name), Factors)]

    def lag(self, q: int) -> dict[str, Lag] | None:
        """Return, by name, what the tensors lag behind in a step of ``q`` directions; None where they never do."""
        rank = q * self._rank
        if not self.late or (not self.pending.terms and rank >= self.options.lag):
            return None
        count, shelf = sum(w.shape[1] for w in self.pending.terms.values()) * self._rank, Shelf(KEPT)
        count += -(count + self._rank) % WIDTH
        return {
            name: Lag(count, lambda name=name: shelf.get((name,), lambda: self._behind(name, count)))  # type: ignore[misc]
            for name in self.late
        }

    def _behind(self, name: str, count: int) -> tuple[Tensor, Tensor]:
        """Return factors ``(a, count)`` and ``(count, b)`` of what a tensor lags behind, with zeros at the end."""
        g, like = self.group_of[name], self.tensors[name]
        tall, flat = like.new_zeros(len(like), count), like.new_zeros(count, like[0].numel())
        parts = [part for t, w in self.pending.terms.items() for part in self._term(t, w[g]).parts(name)]
        if parts:
            left, right = factors_of(parts, torch.float32)
            tall[:, : len(right)], flat[: len(right)] = left, right
        return tall, flat

    # ------------------------------------------------------------------ the memory of a run

    def state(self) -> dict[str, Any]:
        """Return what, with the tensors, continues the moves; nothing may lag behind."""
        inner = None if self.rule is None else self.rule.state_dict()
        past = [(t, w.tolist()) for t, w in self.past]
        return {"t": self.t, "past": past, "rule": inner, "laws": self.laws.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.t, self.pending, self.drawn = int(state["t"]), Pending(), {}
        self.past = deque(((t, np.asarray(w)) for t, w in state["past"]), maxlen=self._window)
        if self.rule is not None:
            self.rule.load_state_dict(state["rule"])
        self.laws.load(state["laws"])
