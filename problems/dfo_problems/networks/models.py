"""Networks as constructors: nothing here needs data, and equal keys give equal weights.

===================  ===========  =======================================================================
``mlp()``               269,322   784-256-256-10, ReLU
``lenet()``              61,706   LeNet-5 on 28 x 28 images; ``lenet(8)`` has 5,486 and fits 8 x 8 images
``gpt()``            10,101,888   width 384, 5 layers, 6 heads, 3072 words (embedding and head are one tensor)
``transformer()``       867,072   width 128, 4 layers, 4 heads, 512 words, 64 tokens
``policy()``              5,702   17-64-64-6, tanh
===================  ===========  =======================================================================

These are the networks whose evaluation is measured beside that of public codes: those of LeCun, Bottou, Bengio and
Haffner (1998), of Radford et al. (2019, GPT-2), and multi-layer perceptrons.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from dfo.errors import InvalidArgument
from dfo.random import Key, normal

__all__ = ["GPT", "gpt", "initialise", "lenet", "mlp", "policy", "transformer"]


def initialise(module: nn.Module, key: Key) -> nn.Module:
    """Give the matrices and kernels of a module random weights from a key, and zero to its biases; norms stay.

    Variance is one over the inputs of a unit, times two before a rectifier; embeddings have standard deviation 0.02,
    and layers that add to the residual stream of a transformer are scaled down by the root of their number
    (Radford et al. 2019).

    Args:
        module: filled in place, and returned.
        key: every tensor draws from the child of its name.
    """
    gain = math.sqrt(2.0) if any(isinstance(m, nn.ReLU) for m in module.modules()) else 1.0
    matrices = [name for name, p in module.named_parameters() if p.dim() > 1]
    residual = sum(name.endswith(("out.weight", "down.weight")) for name in matrices)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() > 1:
                own = 1.0 if name == matrices[-1] else gain
                scale = 0.02 if name.startswith(("wte", "wpe")) else own / math.sqrt(p[0].numel())
                if name.endswith(("out.weight", "down.weight")):
                    scale /= math.sqrt(residual)
                p.copy_(normal(key.child(name), tuple(p.shape), p) * scale)
            elif name.endswith("bias"):
                p.zero_()
    return module


def _sequence(layers: Sequence[nn.Module], key: Key) -> nn.Sequential:
    return initialise(nn.Sequential(*layers), key)


def mlp(sizes: Sequence[int] = (784, 256, 256, 10), key: Key = Key(0)) -> nn.Sequential:  # noqa: B008 - frozen
    """Return a perceptron with rectified units, of images or vectors.

    Args:
        sizes: inputs, units of every hidden layer, classes.
        key: of the weights.

    Example:
        >>> mlp((64, 32, 10))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    with torch.random.fork_rng(devices=[]):  # layers draw weights of their own when they are made
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return _sequence(layers[:-1], key)


def lenet(side: int = 28, classes: int = 10, key: Key = Key(0)) -> nn.Sequential:  # noqa: B008
    """Return LeNet-5 with rectified units and max-pooling, of grey images.

    Args:
        side: 28, or 8 for a small one with 3 x 3 kernels.
        classes: number of classes.
        key: of the weights.

    Raises:
        InvalidArgument: there is no form for images of that side.
    """
    if side not in (8, 28):
        raise InvalidArgument(f"lenet: expected images of side 8 or 28, got {side}.")
    kernel, after, (wide, narrow) = (5, 0, (120, 84)) if side == 28 else (3, 1, (48, 24))
    with torch.random.fork_rng(devices=[]):
        body = (
            nn.Conv2d(1, 6, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel, padding=after), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        inputs = 16 * (5 if side == 28 else 2) ** 2
        head = nn.Linear(inputs, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU(), nn.Linear(narrow, classes)
        return _sequence((*body, *head), key)


def policy(sizes: Sequence[int] = (17, 64, 64, 6), key: Key = Key(0)) -> nn.Sequential:  # noqa: B008
    """Return a policy of two tanh layers: observations ``(B, 17)`` to actions ``(B, 6)``.

    Args:
        sizes: numbers of an observation, units of every hidden layer, numbers of an action.
        key: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.Tanh()]
        return _sequence(layers[:-1], key)


class Block(nn.Module):  # type: ignore[misc]
    """A transformer block, norms first: attention to the past, then a perceptron of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, T, E)`` for ``(B, T, E)``."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, dim=-1)
        )  # (B, heads, T, E / heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class GPT(nn.Module):  # type: ignore[misc]
    """A causal language model in the form of GPT-2: learned positions, and a head that is the token embedding.

    Args:
        d: width.
        layers: number of blocks.
        heads: of the attention; they divide the width.
        vocab: number of words.
        context: most tokens of a sequence.
        tied: whether the head is the embedding; else it has a matrix of its own.
    """

    def __init__(self, d: int, layers: int, heads: int, vocab: int, context: int, tied: bool = True) -> None:
        if d % heads:
            raise InvalidArgument(f"heads: expected a divisor of the width {d}, got {heads}.")
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, d), nn.Embedding(context, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocab, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the last hidden states ``(B, T, E)`` of tokens ``(B, T)``."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits ``(B, T, V)`` of the words that follow tokens ``(B, T)``."""
        return self.head(self.hidden(tokens))


def gpt(
    d: int = 384, layers: int = 5, heads: int = 6, vocab: int = 3072, context: int = 128,
    tied: bool = True, key: Key = Key(0),  # noqa: B008
) -> GPT:  # fmt: skip
    """Return a :class:`GPT`, by default with 10.1 million weights in 64 tensors.

    Args:
        d: width.
        layers: number of blocks.
        heads: of the attention.
        vocab: number of words.
        context: most tokens of a sequence.
        tied: whether the head is the embedding.
        key: of the weights.

    Example:
        >>> model = gpt(d=24, layers=1, heads=2, vocab=50)
        >>> model(torch.zeros(2, 7, dtype=torch.long)).shape
        torch.Size([2, 7, 50])
    """
    with torch.random.fork_rng(devices=[]):
        model = GPT(d, layers, heads, vocab, context, tied)
    initialise(model, key)
    return model


def transformer(key: Key = Key(0)) -> GPT:  # noqa: B008
    """Return the transformer with 867,072 weights: 4 layers of width 128, 64 tokens of 512 words.

    Args:
        key: of the weights.
    """
    return gpt(128, 4, 4, 512, 64, key=key)
