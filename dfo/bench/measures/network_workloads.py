"""Four populations of networks to evaluate: a perceptron, a convolutional net, a transformer, a policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WORKLOADS", "LeNet", "Step", "Transformer", "Workload", "limit", "paired"]

Step = Callable[[], object]

WORDS, WIDTH, LENGTH, HEADS, DEPTH = 256, 128, 64, 4, 4
"""Of the transformer; 867,072 weights."""


class LeNet(nn.Module):  # type: ignore[misc]
    """LeNet-5 with rectifiers and max-pooling, 61,706 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.dense = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(B, 10)`` of images ``(B, 1, 28, 28)``."""
        x = functional.max_pool2d(functional.relu(self.first(x)), 2)
        x = functional.max_pool2d(functional.relu(self.second(x)), 2)
        scores: Tensor = self.dense(x.flatten(1))
        return scores


class Block(nn.Module):  # type: ignore[misc]
    """Attention and a perceptron, each behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, T, WIDTH)``."""
        heads = self.qkv(self.before(x)).view(x.shape[0], LENGTH, 3, HEADS, WIDTH // HEADS)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        done: Tensor = x + self.down(functional.gelu(self.up(self.between(x))))
        return done


class Transformer(nn.Module):  # type: ignore[misc]
    """A causal language model of four blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores ``(B, T, WORDS)`` of the next token."""
        scores: Tensor = self.head(self.norm(self.blocks(self.token(tokens) + self.place.weight)))
        return scores


def _classes(scores: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy ``(B,)`` of every example, of sequences its mean over the tokens."""
    losses = functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1), reduction="none")
    return losses if y.dim() == 1 else losses.view(y.shape).mean(1)


def _outputs(actions: Tensor, y: Tensor) -> Tensor:
    return actions.sum(1)


@dataclass(frozen=True, eq=False)
class Workload:
    """A network, the data of a generation, and the number of members.

    Args:
        name: in one line.
        module: the network.
        x: ``(B, ...)`` examples that every member sees, or ``(n, ...)`` where each sees one of its own.
        y: what is right, ``(B, ...)``.
        members: n.
        judge: scores and what is right to losses, one an example.
        chunks: examples of a plain pass among which the limit chooses.
        own: whether every member sees an example of its own.
        repeats: calls of one measurement.
    """

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    members: int
    judge: Callable[[Tensor, Tensor], Tensor]
    chunks: tuple[int, ...]
    own: bool = False
    repeats: int = 1

    def loss(self, module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the losses of a batch, one an example."""
        return self.judge(module(batch[0]), batch[1])

    @property
    def weights(self) -> int:
        """Number of weights, d."""
        return sum(p.numel() for p in self.module.parameters())

    def points(self) -> Tensor:
        """Return explicit members ``(n, d)``, each a little off the network's own weights."""
        center = nn.utils.parameters_to_vector(self.module.parameters()).detach()
        generator = torch.Generator().manual_seed(1)
        return center + 0.01 * torch.randn(self.members, self.weights, generator=generator)


def _perceptron() -> Workload:
    torch.manual_seed(0)
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    x, y = torch.randn(64, 784), torch.randint(10, (64,))
    return Workload(
        "(a) MLP 784-256-256-10, 64 rows, P=256", nn.Sequential(*layers), x, y, 256, _classes, (256, 512, 1024)
    )


def _lenet() -> Workload:
    torch.manual_seed(0)
    x, y = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
    return Workload("(b) LeNet, 64 images, P=128", LeNet(), x, y, 128, _classes, (64, 128, 256))


def _transformer() -> Workload:
    torch.manual_seed(0)
    x, y = torch.randint(WORDS, (4, LENGTH)), torch.randint(WORDS, (4, LENGTH))
    return Workload("(c) transformer, 4 x 64 tokens, P=32", Transformer(), x, y, 32, _classes, (8, 16, 32))


def _policy() -> Workload:
    torch.manual_seed(0)
    layers = [nn.Linear(17, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6)]
    x, y = torch.randn(1000, 17), torch.zeros(1000)
    name = "(d) policy 17-64-64-6, a row each, P=1000"
    return Workload(name, nn.Sequential(*layers), x, y, 1000, _outputs, (500, 1000), own=True, repeats=20)


WORKLOADS: Mapping[str, Callable[[], Workload]] = {"a": _perceptron, "b": _lenet, "c": _transformer, "d": _policy}
"""Letter to what builds the workload; seeds are fixed."""


# ---------------------------------------------------------------------------------------------- measuring


def limit(work: Workload, channels_last: bool = False) -> Step:
    """Return plain inference with shared weights over the rows of all members, in the best of a few chunks."""
    copies = 1 if work.own else work.members
    x, y = (torch.cat([t] * copies) for t in (work.x, work.y))
    module = work.module
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)

    def passes(chunk: int) -> Step:
        def once() -> Tensor:
            return torch.cat([work.loss(module, (x[i : i + chunk], y[i : i + chunk])) for i in range(0, len(x), chunk)])

        return once

    steps = {chunk: passes(chunk) for chunk in work.chunks}
    took = {chunk: min(seconds(step, work.repeats) for _ in range(4)) for chunk, step in steps.items()}
    return steps[min(took, key=took.__getitem__)]


def seconds(step: Step, repeats: int) -> float:
    """Return the CPU seconds of a step, a mean over some calls; nothing is recorded for gradients."""
    with torch.no_grad():
        began = time.process_time()
        for _ in range(repeats):
            step()
        return (time.process_time() - began) / repeats


def paired(least: Step, steps: Mapping[str, Step], pairs: int, repeats: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return seconds over those of ``least``, timed just before each of them; ``(pairs,)`` a step."""
    for step in steps.values():
        for _ in range(2):
            seconds(step, 1)
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(pairs):
        for name, step in steps.items():
            base = seconds(least, repeats)
            ratios[name].append(seconds(step, repeats) / base)
    return {name: np.array(r) for name, r in ratios.items()}
