"""Few weights that steer many: products of low rank beside linear layers, and a learned beginning of every sentence.

Both change a module in place and leave only what they add to be trained (``requires_grad``). Both are written with
linear layers and embeddings alone, so that whatever perturbs weights by member knows how to perturb these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.random import Key, integers, uniform

__all__ = ["LoRALinear", "Prefix", "add_lora", "add_prefix"]


class LoRALinear(nn.Module):  # type: ignore[misc]
    """``base(x) + alpha / rank up(down(x))``, where ``up`` begins at zero.

    Args:
        base: the linear layer, which is kept as it is.
        rank: of the product.
        alpha: its weight, times the rank.
        key: of the random start of ``down``.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, key: Key) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        like = base.weight
        self.down = nn.Linear(base.in_features, rank, bias=False, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(rank, base.out_features, bias=False, device=like.device, dtype=like.dtype)
        side = 1.0 / math.sqrt(base.in_features)  # torch's own start of a linear layer
        start = (2.0 * uniform(key, (rank, base.in_features)) - 1.0) * side
        with torch.no_grad():
            self.down.weight.copy_(torch.as_tensor(start))
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer with the product added."""
        out: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out


def add_lora(
    module: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    seed: int = 0,
) -> list[str]:
    """Put products of low rank beside linear layers and freeze everything else.

    Source: Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models (arXiv:2106.09685).

    Args:
        module: changed in place; its outputs are the same until the new weights move.
        rank: of the products.
        alpha: weight of the products, times the rank.
        targets: last parts of the names of the layers.
        seed: of the random start of the one factor; the other begins at zero.

    Returns:
        The names of the layers.

    Raises:
        InvalidArgument: the rank is below 1, or no layer is so called.
        InvalidType: a layer of this name is not linear.
    """
    if rank < 1:
        raise InvalidArgument(f"rank: expected 1 or more, got {rank!r}.")
    found = [(name, layer) for name, layer in module.named_modules() if name.rpartition(".")[2] in targets]
    if not found:
        raise InvalidArgument(f"targets: expected names of layers, none of which is {', '.join(targets)}.")
    for name, layer in found:
        if not isinstance(layer, nn.Linear):
            raise InvalidType(f"targets: expected linear layers, got {name}, {short(layer)}.")
    module.requires_grad_(False)
    for name, layer in found:
        path, _, last = name.rpartition(".")
        beside = LoRALinear(cast(nn.Linear, layer), rank, alpha, Key(seed, ("lora", name)))
        setattr(module.get_submodule(path), last, beside)
    return [name for name, _ in found]


class Prefix(nn.Module):  # type: ignore[misc]
    """Keys and values of tokens that stand in front of every sentence, one table ``(tokens, 2 heads width)`` a layer.

    Args:
        layers: for each, the keys and the values, ``(heads, tokens, width)`` each, to begin with.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.heads, self.count, self.width = layers[0][0].shape
        self.tables = nn.ModuleList(
            nn.Embedding(self.count, 2 * self.heads * self.width, _weight=self._packed(keys, values))
            for keys, values in layers
        )

    def _packed(self, keys: Tensor, values: Tensor) -> Tensor:
        return torch.stack([keys, values]).permute(2, 0, 1, 3).reshape(self.count, -1).detach().clone()

    def pairs(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values ``(B, heads, tokens, width)`` of every layer.

        Args:
            rows: any tensor of ``B`` examples; its numbers are not used.
        """
        numbers = torch.arange(self.count, device=rows.device).expand(rows.shape[0], -1)  # (B, tokens)
        pairs = []
        for table in self.tables:
            both = table(numbers).view(rows.shape[0], self.count, 2, self.heads, self.width).permute(2, 0, 3, 1, 4)
            pairs.append((both[0], both[1]))
        return pairs


def add_prefix(module: nn.Module, tokens: int = 5, seed: int = 0) -> Prefix:
    """Let every sentence begin with a few learned keys and values in each layer, and freeze everything else.

    The start is what the model itself computes for random tokens of its vocabulary.

    Source: Li and Liang (2021), Prefix-Tuning (arXiv:2101.00190); the start from real tokens as in Malladi et al.
    (2023, arXiv:2305.17333).

    Args:
        module: a causal language model of Hugging Face, changed in place; ``module.base_model.prefix`` is what is
            trained. Other keys and values from before the sentence (``past_key_values``) can then not be given.
        tokens: keys and values of each layer.
        seed: of the random tokens.

    Raises:
        InvalidArgument: there are fewer tokens than 1, or the module has a prefix already.
    """
    if tokens < 1:
        raise InvalidArgument(f"tokens: expected 1 or more, got {tokens!r}.")
    trunk: Any = module.base_model
    if hasattr(trunk, "prefix"):
        raise InvalidArgument("module: expected one without a prefix. Load it anew.")
    words = trunk.get_input_embeddings().weight
    chosen = integers(Key(seed, ("prefix",)), words.shape[0], (1, tokens))
    with torch.no_grad():
        read = trunk(input_ids=torch.as_tensor(chosen, device=words.device), use_cache=True).past_key_values
    module.requires_grad_(False)
    trunk.prefix = prefix = Prefix([(layer.keys[0], layer.values[0]) for layer in read.layers])
    trunk.register_forward_pre_hook(_begin, with_kwargs=True)
    return prefix


def _begin(trunk: Any, args: tuple[Any, ...], words: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand the prefix of a trunk to its forward pass; of a copy of the trunk, that of the copy."""
    from transformers import DynamicCache

    if words.get("past_key_values") is not None:
        raise InvalidArgument("past_key_values: expected none, because the module has a prefix of its own.")
    cache = DynamicCache()
    for number, (keys, values) in enumerate(trunk.prefix.pairs(words["input_ids"])):
        cache.update(keys, values, number)
    return args, {**words, "past_key_values": cache, "use_cache": True}
