"""Few weights that steer many: products of low rank beside linear layers, and a learned beginning of every sentence.

All change a module in place and leave only what they add to be trained (``requires_grad``). All are written with
linear layers and embeddings alone, so that whatever perturbs weights by member knows how to perturb these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.random import Key, integers, uniform

__all__ = ["LoRALinear", "Prefix", "PrincipalLinear", "add_lora", "add_prefix", "add_principal"]


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
    found = _targets(module, rank, targets)
    module.requires_grad_(False)
    for name, layer in found.items():
        _put(module, name, LoRALinear(layer, rank, alpha, Key(seed, ("lora", name))))
    return list(found)


def _targets(module: nn.Module, rank: int, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the linear layers whose names end so, by name."""
    if rank < 1:
        raise InvalidArgument(f"rank: expected 1 or more, got {rank!r}.")
    found = {name: layer for name, layer in module.named_modules() if name.rpartition(".")[2] in targets}
    if not found:
        raise InvalidArgument(f"targets: expected names of layers, none of which is {', '.join(targets)}.")
    for name, layer in found.items():
        if not isinstance(layer, nn.Linear):
            raise InvalidType(f"targets: expected linear layers, got {name}, {short(layer)}.")
    return cast("dict[str, nn.Linear]", found)


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    path, _, last = name.rpartition(".")
    setattr(module.get_submodule(path), last, layer)


class PrincipalLinear(nn.Module):  # type: ignore[misc]
    """``base(x) + up(z)``, where ``z`` are the principal components of ``x`` and ``up`` begins at zero.

    The components have mean 0 and variance 1, up to rounding in the layer's precision, and ``up`` is counted in units
    of ``scale``, the deviation of the layer's output over ``rank**0.5``: weights of size 1 change the output by as much
    as it varies. What was found, ``down`` and ``scale``, is part of ``state_dict()``.

    Args:
        base: the linear layer, which is kept as it is.
        inputs: ``(n, in_features)`` inputs of the layer that the components are those of.
        outputs: ``(n, out_features)`` its outputs.
        rank: components; those without variance are 0.
    """

    def __init__(self, base: nn.Linear, inputs: Tensor, outputs: Tensor, rank: int) -> None:
        super().__init__()
        self.base, like = base, base.weight
        wide = torch.promote_types(like.dtype, torch.float32)
        x, y = inputs.to(wide), outputs.to(wide)
        middle = x.mean(0)
        _, sizes, axes = torch.linalg.svd(x - middle, full_matrices=False)
        spread = sizes[:rank, None] / math.sqrt(len(x))
        told = spread > 1e-3 * spread[0] + 1e-6 * float(x.square().mean().sqrt())
        down = torch.where(told, axes[:rank] / spread.clamp_min(1e-30), 0.0)
        self.scale: Tensor
        self.register_buffer("scale", (y - y.mean(0)).square().mean().sqrt() / math.sqrt(rank))
        self.down = nn.Linear(base.in_features, len(down), device=like.device, dtype=like.dtype)
        self.up = nn.Linear(len(down), base.out_features, bias=False, device=like.device, dtype=like.dtype)
        with torch.no_grad():
            self.down.weight.copy_(down)
            self.down.bias.copy_(-(down @ middle))
            self.up.weight.zero_()
        self.down.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer with that of the components added."""
        out: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out


def _rows(x: Tensor) -> Tensor:
    """Return a copy of what a layer met, ``(positions, width)``; what comes after the layer may write to it."""
    return x.detach().flatten(0, -2).clone()


def add_principal(
    module: nn.Module,
    run: Callable[[], object],
    rank: int = 8,
    targets: Sequence[str] = ("o_proj", "down_proj"),
) -> list[str]:
    """Put products of low rank beside linear layers, whose one factor is read off the activations, and freeze the rest.

    What a random factor sees of an activation is mostly what all examples share, its mean and a few large coordinates:
    a random direction moves all answers alike. The leading principal components of the activations, centred and scaled
    to variance 1, are where examples differ. They are fixed; only the other factor is trained, ``rank`` weights an
    output.

    Source: the first factor from a decomposition of activations as in EVA (Paischer et al. 2024, arXiv:2410.07170);
    centred, scaled and fixed here.

    Args:
        module: changed in place; its outputs are the same until the new weights move.
        run: calls the module on examples of the kind that it is going to be trained on, a few hundred tokens in all;
            padding counts as any other input.
        rank: components of each layer.
        targets: last parts of the names of the layers; by default those whose outputs are added to the stream of a
            transformer of Hugging Face's Llama family.

    Returns:
        The names of the layers.

    Raises:
        InvalidArgument: the rank is below 1 or above the inputs of a layer, no layer is so called, or one is not run
            often enough.
        InvalidType: a layer of this name is not linear.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> net, x = torch.nn.Sequential(torch.nn.Linear(5, 3)), torch.randn(64, 5, generator=draw)
        >>> before = net(x)
        >>> add_principal(net, lambda: net(x), rank=2, targets=["0"])
        ['0']
        >>> bool((net(x) == before).all()), [tuple(p.shape) for p in net.parameters() if p.requires_grad]
        (True, [(3, 2)])
    """
    found = _targets(module, rank, targets)
    met: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in found}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, args, out: met[name].append((_rows(args[0]), _rows(out)))

    for name, layer in found.items():
        if rank > layer.in_features:
            raise InvalidArgument(f"rank: expected at most {layer.in_features}, the inputs of {name}, got {rank}.")
    hooks = [layer.register_forward_hook(listen(name)) for name, layer in found.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    for name, seen in met.items():
        count = sum(len(x) for x, _ in seen)
        if count <= rank:
            raise InvalidArgument(f"run: expected more than {rank} inputs of {name}, got {count}. Run more examples.")
    module.requires_grad_(False)
    for name, layer in found.items():
        inputs, outputs = (torch.cat(parts) for parts in zip(*met.pop(name), strict=True))
        _put(module, name, PrincipalLinear(layer, inputs, outputs, rank))
    return list(found)


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
