"""Training by forward passes alone, as torch optimizers: :class:`ZOSGD` and :class:`ES`.

Both move the module's own weights by ``lr sum_j w_j u_j``, where ``u_j`` are the directions of the step, drawn from a
key whenever they are needed, and the weights have length 1: the learning rate is the root mean square of a step per
weight, whatever the size of the loss, the number of directions, or the rule that made the weights. They differ in the
weights: :class:`ZOSGD` takes differences of losses, :class:`ES` the ranks of all members.

References: Malladi et al. 2023, arXiv:2305.17333 (MeZO); Salimans et al. 2017, arXiv:1703.03864 (evolution strategies);
Sarkar et al. 2025, arXiv:2511.16652 (low-rank directions); Zhao et al. 2025, arXiv:2506.09034 (differences divided by
their deviation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from dfo.arrays import Floats
from dfo.components.shaping import SHAPINGS, Shaping, shaped
from dfo.directions import Distribution
from dfo.errors import InvalidArgument
from dfo.feedback import Values
from dfo.nn.batches import examples
from dfo.nn.engine import Evaluate
from dfo.nn.front import Front
from dfo.nn.options import Options, Rule, check_numbers
from dfo.nn.replay import Record
from dfo.nn.tensors import Choice

__all__ = ["ES", "ZOSGD"]

PERIOD = 64
"""Steps from one test of the signal-to-noise ratio to the next."""

TESTED = 4
"""Directions of such a test."""

WHOLE = 20.0
"""Steps after which decay begins to tell."""


def _share(t: int, decay: float) -> float:
    """Return the length of step ``t`` as a share of the first."""
    return float((1.0 + t / WHOLE) ** -decay)


class ZOSGD(Front):
    """Descent along random directions, each weighted by the difference of the losses at its two ends.

    The differences are divided by their running root mean square, which takes the size of the loss out of the step
    size and costs one number of memory.

    Args:
        module: any module; its parameters that ask for gradients move, in place.
        lr: root mean square of the first step per weight; by default ``4 d**-0.4`` times the typical size of a weight
            (the median over the tensors of their root mean square).
        radius: smoothing, the length of a direction per weight; by default 5e-3 times that size (5e-5 in double
            precision).
        samples: directions a step, q. By default as many as the examples of a batch are dealt to: every direction
            sees examples of its own, as few as the signal-to-noise ratio of a difference allows (see :meth:`plan`), so
            that a step costs two forward passes of the batch whatever q is. A number: all directions see all examples,
            and a step costs 2 q passes.
        memory: share of the past in the running mean square of the differences; 0 divides by that of the step alone.
        decay: step ``t`` is ``(1 + t / 20) ** -decay`` as long as the first; 0 leaves it to ``lr`` and its scheduler.
        directions: this and all that follows, see :class:`dfo.nn.options.Options`.

    Raises:
        InvalidArgument: a number out of its range, or nothing to move.
        InvalidType: something that is no number.

    Example:
        >>> import torch, dfo.nn
        >>> draw = torch.Generator().manual_seed(0)
        >>> net = torch.nn.Linear(5, 1)
        >>> x = torch.randn(64, 5, generator=draw)
        >>> square = lambda module, batch: (module(batch[0]) - batch[1]).square().mean(1)
        >>> opt = dfo.nn.ZOSGD(net, lr=0.03, samples=4)
        >>> losses = [opt.step(square, (x, x.sum(1, keepdim=True))) for _ in range(200)]
        >>> losses[-1] < 0.05 * losses[0]
        True
    """

    def __init__(
        self, module: nn.Module, lr: float | None = None, *, radius: float | None = None, samples: int | None = None,
        memory: float = 0.9, decay: float = 0.5,
        directions: str | Distribution = "low-rank", rule: Rule = "sgd", beta: float = 0.9, weight_decay: float = 0.0,
        params: Choice = None, groups: Sequence[Mapping[str, Any]] = (), evaluate: Evaluate = "auto",
        chunk: int | None = None, lag: int = 8, room: int = 1 << 26, seed: int = 0,
    ) -> None:  # fmt: skip
        check_numbers({"samples": samples, "memory": memory, "decay": decay})
        if memory == 1:
            raise InvalidArgument(f"memory: expected a number from 0 to below 1, got {memory!r}.")
        self.memory, self.level, self.seen, self.decay = memory, 0.0, 0, decay
        options = Options(
            directions=directions, rule=rule, beta=beta, weight_decay=weight_decay, params=params, groups=groups,
            evaluate=evaluate, chunk=chunk, lag=lag, room=room, seed=seed,
        )  # fmt: skip
        self.dealt = None if samples is not None else 1  # examples a direction sees
        super().__init__(module, lr, radius, TESTED if samples is None else int(samples), options)

    def plan(self, batch: Any) -> tuple[int, bool]:
        """Return the number of directions of this step, and whether all of them see all examples.

        With ``N`` examples dealt to ``q`` directions, ``R = N / q`` each, the variance of the estimate is proportional
        to ``(R m^2 + s^2) / N``: ``m^2`` is the mean square of a direction's difference, ``s^2`` its variance from one
        example to the next. It is least at ``R = 1``, and within a fifth of that up to ``R = (m^2 + s^2) / (5 m^2)``,
        where the directions are fewest. Every :data:`PERIOD` steps some directions see all examples, which measures
        both.
        """
        count = None if batch is ... else examples(batch)
        if not self.dealt or count is None or count == 1 or self.t % PERIOD == 0:
            return self.samples, True
        sizes = [r for r in range(1, count + 1) if count % r == 0 and r <= self.dealt]
        return count // sizes[-1], False

    def weights(self, f: Floats) -> Floats:
        """Return ``-(f+ - f-)`` over its running root mean square, times ``q**-0.5``; failed pairs weigh nothing."""
        with np.errstate(invalid="ignore", over="ignore"):
            slopes = (f[0::2] - f[1::2]) / (2.0 * self.radius)
        slopes[~(np.abs(slopes) < 1e150)] = 0.0
        q = len(slopes)
        if not slopes.any():
            return np.zeros(q)
        if self.tests():
            self._test()
        self.seen += 1
        self.level = self.memory * self.level + (1.0 - self.memory) * float(np.mean(slopes**2))
        size = math.sqrt(self.level / (1.0 - self.memory**self.seen))
        return -slopes / (size * math.sqrt(q)) * _share(self.t, self.decay)

    def tests(self) -> bool:
        """Return whether this step asks for the loss of every example, and not for means alone."""
        return self.dealt is not None and self.t % PERIOD == 0

    def _test(self) -> None:
        """Measure how many examples a direction has to see before they tell more about it than another direction.

        Where losses are not told apart by example, all directions see all of them from then on.
        """
        count = 0 if self._told is None else self._told.shape[1]
        if self._told is None or count < 2:
            self.dealt = 0
            return
        differences = (self._told[0::2] - self._told[1::2]).numpy()  # (q, B)
        noise = float(differences.var(axis=1, ddof=1).mean())
        signal = max(float((differences.mean(axis=1) ** 2).mean()) - noise / count, 0.0)
        self.dealt = max(1, int(min(count, (signal + noise) / (5.0 * signal) if signal > 0.0 else count)))

    def config(self) -> dict[str, Any]:
        """Return what a log has to say of this optimizer beside its steps, plain JSON."""
        return {**super().config(), "memory": self.memory, "decay": self.decay, "dealt": self.dealt is not None}

    def _notes(self) -> dict[str, float]:
        dealt = {"dealt": float(self.dealt)} if self.dealt is not None and self.tests() else {}
        return {"level": self.level, **dealt}

    def _observe(self, record: Record) -> None:
        if record.weights.any():
            self.seen += 1
        self.level = record.named["level"]
        self.dealt = int(record.named["dealt"]) if "dealt" in record.named else self.dealt

    def _memory(self) -> dict[str, Any]:
        return {"level": self.level, "seen": self.seen, "dealt": self.dealt}

    def _remember(self, memory: Mapping[str, Any]) -> None:
        self.level, self.seen, self.dealt = float(memory["level"]), int(memory["seen"]), memory["dealt"]


class ES(Front):
    """An evolution strategy: the members of a step, in pairs, weighted by their ranks.

    Args:
        module: any module; its parameters that ask for gradients move, in place.
        lr: as in :class:`ZOSGD`.
        population: members a step, an even number.
        sigma: standard deviation of a member's weights; ``lr`` by default.
        shaping: utilities, see :func:`dfo.components.shaping.shaped`.
        decay: as in :class:`ZOSGD`.
        directions: this and all that follows, see :class:`dfo.nn.options.Options`.

    Raises:
        InvalidArgument: a number out of its range, or nothing to move.
        InvalidType: something that is no number.

    Example:
        >>> import torch, dfo.nn
        >>> net = torch.nn.Linear(2, 2)
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> kind = (x[:, 0] > x[:, 1]).long()
        >>> wrong = lambda module, batch: (module(batch[0]).argmax(1) != batch[1]).double()  # has no gradient
        >>> opt = dfo.nn.ES(net, lr=0.05, population=32, sigma=0.1)
        >>> errors = [opt.step(wrong, (x, kind)) for _ in range(100)]
        >>> errors[-1] < 0.1
        True
    """

    def __init__(
        self, module: nn.Module, lr: float | None = None, *, population: int = 32, sigma: float | None = None,
        decay: float = 0.5, shaping: Shaping = "centered", directions: str | Distribution = "low-rank",
        rule: Rule = "sgd", beta: float = 0.9, weight_decay: float = 0.0,
        params: Choice = None, groups: Sequence[Mapping[str, Any]] = (), evaluate: Evaluate = "auto",
        chunk: int | None = None, lag: int = 8, room: int = 1 << 26, seed: int = 0,
    ) -> None:  # fmt: skip
        check_numbers({"population": population, "sigma": sigma, "decay": decay})
        if population % 2:
            raise InvalidArgument(f"population: expected an even number of members, got {population!r}.")
        if shaping not in SHAPINGS:
            raise InvalidArgument(f"shaping: expected one of {', '.join(SHAPINGS)}, got {shaping!r}.")
        self.shaping, self.decay = shaping, decay
        options = Options(
            directions=directions, rule=rule, beta=beta, weight_decay=weight_decay, params=params, groups=groups,
            evaluate=evaluate, chunk=chunk, lag=lag, room=room, seed=seed,
        )  # fmt: skip
        super().__init__(module, lr, 1.0 if sigma is None else sigma, int(population) // 2, options)
        if sigma is None:
            self.radius, self._derived = float(self.param_groups[-1]["lr"]), True

    def config(self) -> dict[str, Any]:
        """Return what a log has to say of this optimizer beside its steps, plain JSON."""
        return {**super().config(), "shaping": self.shaping, "decay": self.decay}

    def weights(self, f: Floats) -> Floats:
        """Return the differences of the utilities at the two ends, scaled to length 1."""
        u = shaped(self.shaping, Values(f))
        w = u[0::2] - u[1::2]
        length = float(np.linalg.norm(w))
        if not 0.0 < length < math.inf:
            return np.zeros(self.samples)
        return w / length * _share(self.t, self.decay)
