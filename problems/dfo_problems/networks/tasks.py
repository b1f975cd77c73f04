"""What is asked of a network: a loss per example, batches by number, and what weights are worth on each part.

A :class:`Task` has what a training loop needs, whatever the loop::

    work = task("mnist-lenet")
    module = work.make(Key(1))                       # random weights from a key
    batch = work.batch(0)                            # equal numbers are the same examples
    work.loss(module, batch)                         # (B,) cross-entropies
    work.measure(module, "validation").accuracy      # of examples that no batch holds
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from dfo.errors import unknown
from dfo.random import Key, choice
from dfo_problems.networks import data, models

__all__ = ["NAMES", "Batch", "Characters", "Pictures", "Quality", "Task", "classify", "next_token", "task"]

Batch = tuple[Tensor, ...]
Part = Literal["train", "validation", "test"]
Rows = npt.NDArray[np.int64]

NAMES = ("digits-mlp", "digits-lenet", "mnist-mlp", "mnist-lenet", "fashion-mlp", "fashion-lenet", "text-gpt")
"""Data, and the network on them."""

IMAGES, WINDOWS, TOKENS = 128, 16, 64
"""Images of a batch; pieces of text of a batch, and characters that the network reads of each."""

BATCHES = Key(0, ("networks", "batches"))
"""Of the sequence of batches of every task."""

ROWS = 500
"""Examples of a forward pass that measures."""


class Examples(Protocol):
    """A part of a data set."""

    def __len__(self) -> int: ...

    def take(self, rows: Rows) -> Batch:
        """Return the examples with these numbers, below ``len()``, as tensors ``(B, ...)``."""
        ...

    def whole(self) -> Rows:
        """Return the numbers of the examples that together are the part, each once."""
        ...


class Pictures:
    """Images ``(B, 1, side, side)`` in single precision, standardised by the training part, and classes ``(B,)``.

    Args:
        images: the set.
        start: first image of the part.
        stop: the one behind its last.
    """

    def __init__(self, images: data.Images, start: int, stop: int) -> None:
        self.pixels, self.classes = images.pixels[start:stop], images.classes[start:stop]
        train = images.pixels[: images.parts[0]]
        self.mean, self.deviation = float(train.mean()), float(train.std())

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, rows: Rows) -> Batch:
        """Return images and classes."""
        x = (self.pixels[rows, None].astype(np.float32) - self.mean) / self.deviation
        return torch.from_numpy(x), torch.from_numpy(self.classes[rows].astype(np.int64))

    def whole(self) -> Rows:
        """Return the numbers of all images."""
        return np.arange(len(self))


class Characters:
    """Pieces of a text, ``(B, length + 1)``: what is read, and one character more; any place may be a first one.

    Args:
        codes: ``(n,)`` the text.
        length: characters that are read.
    """

    def __init__(self, codes: npt.NDArray[np.uint8], length: int) -> None:
        self.codes, self.length = codes, length

    def __len__(self) -> int:
        return len(self.codes) - self.length

    def take(self, rows: Rows) -> Batch:
        """Return the pieces that begin at these places."""
        return (torch.from_numpy(self.codes[rows[:, None] + np.arange(self.length + 1)].astype(np.int64)),)

    def whole(self) -> Rows:
        """Return the beginnings of pieces that ask for every character but the first (and a rest) once."""
        return np.arange(0, len(self), self.length)


@dataclass(frozen=True)
class Quality:
    """What weights are worth on a part of the data.

    Args:
        loss: mean cross-entropy of an answer.
        accuracy: share of the answers that are right.
        answers: how many were asked for: images, or characters.
    """

    loss: float
    accuracy: float
    answers: int


def classify(module: nn.Module, batch: Batch) -> Tensor:
    """Return the ``(B,)`` cross-entropies of the classes of images."""
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def next_token(module: nn.Module, batch: Batch) -> Tensor:
    """Return the ``(B,)`` mean cross-entropies of the next token, over the tokens of ``(B, T + 1)`` sequences."""
    logits = module(batch[0][:, :-1])  # (B, T, V)
    return F.cross_entropy(logits.transpose(1, 2), batch[0][:, 1:], reduction="none").mean(1)


@dataclass(frozen=True, eq=False)
class Task:
    """A network, examples in three parts, and a loss.

    Args:
        name: data and network.
        make: builds the network with weights from a key.
        loss: ``(B,)`` losses of a network and a batch.
        parts: the examples.
        size: examples of a batch.
    """

    name: str
    make: Callable[[Key], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    parts: Mapping[Part, Examples]
    size: int

    def batch(self, number: int) -> Batch:
        """Return the batch with this number: :attr:`size` different examples of the training part."""
        train = self.parts["train"]
        return train.take(choice(BATCHES.child(int(number)), len(train), self.size))

    def __call__(self, number: int) -> Batch:
        """Return the batch with this number."""
        return self.batch(number)

    def batches(self, part: Part, size: int = ROWS) -> Iterator[Batch]:
        """Yield all examples of a part, in order, the last batch smaller where they do not divide."""
        rows = self.parts[part].whole()
        for start in range(0, len(rows), size):
            yield self.parts[part].take(rows[start : start + size])

    def measure(self, module: nn.Module, part: Part = "validation") -> Quality:
        """Return what a network is worth on a part, in evaluation mode; it gets its mode back."""
        training, answers, loss, right = module.training, 0, 0.0, 0
        module.eval()
        with torch.no_grad():
            for batch in self.batches(part):
                inputs, wanted = batch if len(batch) == 2 else (batch[0][:, :-1], batch[0][:, 1:])
                scores = module(inputs).flatten(0, -2)
                answers += wanted.numel()
                loss += float(F.cross_entropy(scores.double(), wanted.flatten(), reduction="sum"))
                right += int((scores.argmax(-1) == wanted.flatten()).sum())
        module.train(training)
        return Quality(loss / answers, right / answers, answers)


def task(name: str) -> Task:
    """Return the task with this name.

    Args:
        name: of :data:`NAMES`.

    Raises:
        UnknownName: there is no such task.
        MissingPackage: the package that carries its data is not installed.
    """
    if name not in NAMES:
        raise unknown("network task", name, NAMES)
    if name == "text-gpt":
        found = data.text()
        parts: dict[Part, Examples] = {
            "train": Characters(found.train, TOKENS),
            "validation": Characters(found.validation, TOKENS),
            "test": Characters(found.test, TOKENS),
        }
        return Task(name, characters, next_token, parts, WINDOWS)
    source, _, network = name.partition("-")
    images = data.images(source)
    ends = (0, *images.parts, len(images.classes))
    parts = {
        "train": Pictures(images, ends[0], ends[1]),
        "validation": Pictures(images, ends[1], ends[2]),
        "test": Pictures(images, ends[2], ends[3]),
    }
    side = images.pixels.shape[1]
    sizes = (64, 32, 10) if side == 8 else (784, 256, 256, 10)
    make = partial(_mlp, sizes) if network == "mlp" else partial(_lenet, side)
    return Task(name, make, classify, parts, IMAGES)


def characters(key: Key) -> nn.Module:
    """Return the network that continues a text: 2 layers of width 64, 110 thousand weights."""
    return models.gpt(64, 2, 4, len(data.ALPHABET), TOKENS, key=key)


def _mlp(sizes: tuple[int, ...], key: Key) -> nn.Module:
    return models.mlp(sizes, key)


def _lenet(side: int, key: Key) -> nn.Module:
    return models.lenet(side, key=key)
