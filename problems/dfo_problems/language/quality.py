"""What a language model is worth on sentences: accuracy, with and without its leaning to one word, and cross-entropy.

A model may rank the sentences well and yet call nearly all of them kind. Training then wins much accuracy by undoing
this leaning alone, which setting the threshold to the median of the log-odds does too: accuracy at the median
(``calibrated``) is what tells learning from a removed bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import Floats
from dfo.errors import InvalidArgument
from dfo.random import Key, choice
from dfo_problems.language.data import Sentences
from dfo_problems.language.sentiment import REVIEW, Sentiment, Template, log_odds, loss

if TYPE_CHECKING:
    from torch import nn

    from dfo_problems.language.sentiment import Batch

__all__ = ["Quality", "backprop", "in_context", "measure", "quality", "scores"]


@dataclass(frozen=True)
class Quality:
    """Figures of one model on ``n`` sentences, each with its standard error.

    Args:
        n: sentences.
        accuracy: share of right answers, where log-odds above 0 mean kind.
        accuracy_error: its standard error.
        calibrated: share of right answers, where log-odds above ``threshold`` mean kind.
        calibrated_error: its standard error, as of a share.
        cross_entropy: mean of the losses, in nats.
        cross_entropy_error: its standard error.
        threshold: by default the median of the log-odds, which uses that half of the sentences are kind.
    """

    n: int
    accuracy: float
    accuracy_error: float
    calibrated: float
    calibrated_error: float
    cross_entropy: float
    cross_entropy_error: float
    threshold: float

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.3f} ± {self.accuracy_error:.3f}, calibrated {self.calibrated:.3f} ± "
            f"{self.calibrated_error:.3f}, cross-entropy {self.cross_entropy:.3f} ± {self.cross_entropy_error:.3f}"
        )


def quality(odds: Floats, classes: Any, threshold: float | None = None) -> Quality:
    """Return the figures of log-odds of kind against unkind.

    Args:
        odds: ``(n,)`` log-odds.
        classes: ``(n,)`` 1 for kind, 0 for unkind.
        threshold: of the calibrated accuracy; the median of ``odds`` by default.

    Raises:
        InvalidArgument: there are fewer than two, or not as many of the one as of the other.

    Example:
        >>> found = quality(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1]))
        >>> found.accuracy, found.calibrated, found.threshold
        (0.5, 1.0, 2.5)
    """
    odds, kind = np.asarray(odds, dtype=float), np.asarray(classes) == 1
    n = len(odds)
    if n < 2 or kind.shape != odds.shape:
        raise InvalidArgument(f"quality: expected (n,) log-odds and classes, n >= 2, got {odds.shape}, {kind.shape}.")
    middle = float(np.median(odds)) if threshold is None else float(threshold)
    losses = np.logaddexp(0.0, np.where(kind, -odds, odds))  # log(1 + exp(-odds of the right class))
    right, calibrated = float(((odds > 0.0) == kind).mean()), float(((odds > middle) == kind).mean())
    return Quality(
        n=n,
        accuracy=right,
        accuracy_error=math.sqrt(right * (1.0 - right) / n),
        calibrated=calibrated,
        calibrated_error=math.sqrt(calibrated * (1.0 - calibrated) / n),
        cross_entropy=float(losses.mean()),
        cross_entropy_error=float(losses.std(ddof=1)) / math.sqrt(n),
        threshold=middle,
    )


def scores(module: nn.Module, batches: Sequence[Batch], cache: Any = None) -> tuple[Floats, Floats]:
    """Return the ``(n,)`` log-odds of kind against unkind over all batches, and the ``(n,)`` classes.

    Args:
        module: a causal language model; it is put into evaluation mode, and back.
        batches: of :meth:`Sentiment.batches`.
        cache: keys and values of one row that stand in front of every sentence; it is not written to.
    """
    import torch

    odds, classes = [], []
    with _judging(module), torch.no_grad():
        for batch in batches:
            odds.append(log_odds(module, batch, _spread(cache, len(batch["target"]))).double().cpu().numpy())
            classes.append(batch["target"].cpu().numpy())
    return np.concatenate(odds), np.concatenate(classes)


def measure(module: nn.Module, task: Sentiment, sentences: Sentences, size: int = 32) -> Quality:
    """Return the figures of a model on sentences; of an untrained one they are its zero-shot figures.

    Args:
        module: a causal language model.
        task: with the tokenizer and the template.
        sentences: to be measured on.
        size: sentences of a forward pass.
    """
    return quality(*scores(module, task.batches(sentences, size)))


def in_context(
    module: nn.Module,
    tokenizer: Any,
    examples: Sentences,
    sentences: Sentences,
    template: Template = REVIEW,
    shots: int = 16,
    seed: int = 0,
) -> Quality:
    """Return the figures of an untrained model that reads a few solved examples before every sentence.

    The examples are read once: their keys and values are shared by all sentences.

    Args:
        module: a causal language model.
        tokenizer: its tokenizer.
        examples: that the shots are drawn from, half of them kind.
        sentences: to be measured on.
        template: around every sentence and shot.
        shots: solved examples, an even number.
        seed: of which, and in which order.
    """
    import torch

    key = Key.of(seed).child("language", "shots")
    chosen = [np.flatnonzero(examples.labels == c) for c in (0, 1)]
    rows = np.concatenate([own[choice(key.child(c), len(own), shots // 2)] for c, own in enumerate(chosen)])
    shown = examples.take(rows[choice(key.child("order"), len(rows), len(rows))])
    solved = "".join(
        f"{template.around(text)}{template.words[label]}\n\n"
        for text, label in zip(shown.texts, shown.labels, strict=True)
    )
    with _judging(module), torch.no_grad():
        trunk: Any = module.base_model
        read = trunk(input_ids=torch.tensor([tokenizer(solved)["input_ids"]]), use_cache=True).past_key_values
    batches = Sentiment(tokenizer, examples, template, size=1).batches(sentences)
    return quality(*scores(module, batches, read))


def backprop(module: nn.Module, task: Sentiment, steps: int, lr: float = 1e-5) -> None:
    """Train with AdamW and back-propagation on the batches 0, 1, ... of a task: what forward passes are held against.

    Args:
        module: in single precision; what requires a gradient is trained, in place.
        task: whose batches are used.
        steps: batches.
        lr: learning rate of AdamW; the rest are torch's defaults, without decay.
    """
    import torch

    rule = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    for number in range(steps):
        rule.zero_grad(set_to_none=True)
        loss(module, task.batch(number)).mean().backward()
        rule.step()
    rule.zero_grad(set_to_none=True)


def _spread(cache: Any, rows: int) -> Any:
    """Return a copy of the keys and values of one row, for several rows."""
    if cache is None:
        return None
    from copy import deepcopy

    copy = deepcopy(cache)
    copy.batch_repeat_interleave(rows)
    return copy


@contextmanager
def _judging(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
