"""Training by forward passes alone, as torch optimizers: :class:`ZOSGD` and :class:`ES`.

Both move the module's own weights by ``lr sum_j w_j u_j``, where ``u_j`` are the directions of the step, drawn from a
key whenever they are needed, and ``w`` has length 1: the learning rate is the root mean square of a step per
weight, whatever the loss, the number of directions, or the rule that made the weights. They differ in the weights:
:class:`ZOSGD` takes the differences of the losses, :class:`ES` ranks all members.

References: Malladi et al. 2023, arXiv:2305.17333 (MeZO); Salimans et al. 2017, arXiv:1703.03864 (evolution strategies);
Sarkar et al. 2025, arXiv:2511.16652 (low-rank directions); Zhao et al. 2025, arXiv:2506.09034 (differences divided by
their deviation).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dfo.arrays import Floats
from dfo.components.shaping import SHAPINGS, Shaping, shaped
from dfo.directions import Directions, Distribution, LowRank, distribution
from dfo.errors import InvalidArgument, InvalidType
from dfo.feedback import Values
from dfo.nn.engine import Engine, Evaluate, Loss, examples
from dfo.nn.members import Draws
from dfo.nn.tensors import Choice
from dfo.nn.update import Term, move
from dfo.random import Key

__all__ = ["ES", "ZOSGD", "Front"]

Rule = Literal["sgd", "momentum"]

FORGOTTEN = 0.05
"""Share below which what momentum remembers of a past step is dropped."""


class Front(torch.optim.Optimizer):
    """What the optimizers of networks share: directions, losses of members, steps, the memory of a run."""

    def __init__(
        self, module: nn.Module, *, lr: float, radius: float | None, samples: int, directions: str | Distribution,
        rule: Rule, beta: float, weight_decay: float, params: Choice, evaluate: Evaluate, chunk: int | None, seed: int,
        share: bool,
    ) -> None:  # fmt: skip
        for name, value in (("lr", lr), ("radius", radius)):
            if value is not None and not 0.0 < value < math.inf:
                raise InvalidArgument(f"{name}: expected a positive finite number, got {value!r}.")
        if samples < 1:
            raise InvalidArgument(f"samples: expected at least one direction a step, got {samples!r}.")
        if rule not in ("sgd", "momentum"):
            raise InvalidArgument(f'rule: expected "sgd" or "momentum", got {rule!r}. Other rules: dfo.nn.TorchRule.')
        self.engine = Engine(module, _no_loss, params, evaluate, chunk)
        self.radius = default_radius(self.engine.tensors) if radius is None else radius
        self.law = LowRank() if directions == "low-rank" else distribution(directions)
        self.samples, self.rule, self.beta, self.share = samples, rule, beta, share
        self.key, self.t, self.level = Key.of(seed), 0, 0.0
        self.past: deque[tuple[int, Floats]] = deque(maxlen=_window(beta) if rule == "momentum" else 1)
        parameters = dict(module.named_parameters())
        super().__init__([parameters[name] for name in self.engine.tensors], {"lr": lr, "weight_decay": weight_decay})

    # ------------------------------------------------------------------ a step

    def step(self, loss: Any, batch: Any = None) -> float:  # type: ignore[override]
        """Evaluate the members of this step, move the weights, and return the mean loss of the members.

        Args:
            loss: ``loss(module, batch)`` with losses ``(B,)`` or one number.
            batch: what the loss takes.
        """
        self.engine.loss = loss
        draws = self.draws(self.t)
        index, scale = self.layout()
        told = self.engine.losses(batch, draws, index, scale, share=self.share)
        f = told.mean(1).numpy()
        self.advance(self.weights(f), draws)
        return float(np.nanmean(f))

    def draws(self, t: int) -> Draws:
        """Return the directions of step ``t``."""
        directions = Directions(self.law, self.key.child(t), self.samples, self.engine.tensors)  # type: ignore[arg-type]
        return Draws(directions, self.engine.tensors)

    def layout(self) -> tuple[Any, Floats]:
        """Return direction and signed radius of the members: the two ends of every direction."""
        each = np.arange(2 * self.samples)
        return each // 2, self.radius * (1.0 - 2.0 * (each % 2))

    def weights(self, f: Floats) -> Floats:
        """Return the weights ``(q,)`` of the directions, of length 1, or zeros where nothing was learned."""
        raise NotImplementedError

    def advance(self, w: Floats, draws: Draws | None = None) -> None:
        """Move the weights by ``lr sum_j w_j u_j``, and remember."""
        self.past.append((self.t, w))
        lr = [float(group["lr"]) for group in self.param_groups]
        terms = []
        for t, old in self.past:
            share = self.beta ** (self.t - t) * (math.sqrt(1.0 - self.beta**2) if self.rule == "momentum" else 1.0)
            if old.any():
                there = draws if t == self.t and draws is not None else self.draws(t)
                terms.append(Term(there, lr[0] * share * old, self.spans()))
        decay = float(self.param_groups[0]["weight_decay"]) * lr[0]
        shrink = {name: 1.0 - decay for name in self.engine.tensors} if decay else None
        move(self.engine.tensors, terms, self.key.child(self.t, "rounding"), shrink)
        self.t += 1

    def spans(self) -> list[tuple[int, int]]:
        """Return the stretches of directions that passes draw together."""
        return [(0, self.samples)]


class ZOSGD(Front):
    """Descent along random directions, weighted by the differences of the loss at their two ends."""

    def __init__(
        self, module: nn.Module, lr: float = 1e-3, *, radius: float | None = None, samples: int = 2,
        directions: str | Distribution = "low-rank", rule: Rule = "sgd", beta: float = 0.9, memory: float = 0.9,
        weight_decay: float = 0.0, params: Choice = None, evaluate: Evaluate = "auto", chunk: int | None = None,
        seed: int = 0, share: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            module, lr=lr, radius=radius, samples=samples, directions=directions, rule=rule, beta=beta,
            weight_decay=weight_decay, params=params, evaluate=evaluate, chunk=chunk, seed=seed, share=share,
        )  # fmt: skip
        self.memory = memory

    def weights(self, f: Floats) -> Floats:
        """Return differences divided by their running root mean square."""
        slopes = np.nan_to_num((f[0::2] - f[1::2]) / (2 * self.radius), nan=0.0, posinf=0.0, neginf=0.0)
        self.level = self.memory * self.level + (1 - self.memory) * float(np.mean(slopes**2))
        size = math.sqrt(self.level / (1 - self.memory ** (self.t + 1)))
        return -slopes / (size * math.sqrt(self.samples)) if size > 0.0 else np.zeros(self.samples)


class ES(Front):
    """An evolution strategy: all members of a step are ranked."""

    def weights(self, f: Floats) -> Floats:
        raise NotImplementedError


def default_radius(tensors: Mapping[str, Tensor]) -> float:
    """Return the default smoothing."""
    return 1e-3


def _window(beta: float) -> int:
    return 1 + math.ceil(math.log(FORGOTTEN) / math.log(beta))


def _no_loss(module: nn.Module, batch: Any) -> Tensor:
    raise InvalidType("step: expected step(loss, batch).")
