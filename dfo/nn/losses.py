"""Losses of language models that never hold all logits at once.

The logits of 1024 tokens over 49,152 words are 192 MiB in float32, and the usual cross-entropy makes two or three
such tensors: more than the weights of the model. Here the vocabulary is gone through in stretches. Of each only the
log-sum-exp of every token, and the logit of the tokens whose target lies in it, are kept; the log-sum-exps of the
stretches are then added up in the same stable way. All tokens stay together, so that rows of several members keep
their order, and the weight is only cut into rows (``weight[a:b]``), which tensors that differ by member know how to do.

Logits are computed in the dtype of the model and everything behind them in float32 (float64 for float64 models), as
``F.cross_entropy(F.linear(hidden, weight).float(), ...)`` does. The functions can be differentiated, but then autograd
keeps what it needs of every stretch and nothing is saved.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfo.errors import InvalidArgument, InvalidType, short

__all__ = ["LOGITS", "causal_loss", "cross_entropy", "per_example", "sequence_loss"]

LOGITS = 1 << 19
"""Logits that exist at a time, unless asked otherwise: 2 MiB in float32, which the caches of a core hold."""


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    chunk: int = LOGITS,
    ignore_index: int = -100,
) -> Tensor:
    """Return the cross-entropy of every token, without the logits of all words existing together.

    Args:
        hidden: ``(..., E)`` last hidden states.
        weight: ``(V, E)`` of the head, a parameter that differs by member included.
        targets: ``(...)`` right words, from 0 to V - 1, or ``ignore_index``.
        bias: ``(V,)`` of the head.
        chunk: logits that may exist at a time. Beside the result about three times as many numbers of four bytes are
            held: 6 MiB by default, a few more inside of matrix products.
        ignore_index: target of tokens that do not count; their loss is 0.

    Returns:
        ``(...)`` losses, float64 where the hidden states are, else float32. Off the CPU, where targets are not
        checked, a target outside of the vocabulary gives NaN.

    Raises:
        InvalidArgument: shapes do not fit, or a target is no word of the vocabulary.

    Example:
        >>> hidden, weight = torch.randn(2, 5, 8), torch.randn(300, 8)
        >>> targets = torch.randint(300, (2, 5))
        >>> full = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="none")
        >>> bool(torch.allclose(cross_entropy(hidden, weight, targets).flatten(), full, atol=1e-5))
        True
    """
    _check(hidden, weight, targets, ignore_index)
    words, tokens = weight.shape[0], max(1, targets.numel())
    width = min(words, max(64, chunk // tokens))
    right = torch.full(targets.shape, torch.nan, dtype=_dtype(hidden), device=hidden.device)
    # what outlives a stretch is allocated before the first: between stretches the heap is as it was, and cannot grow
    sums = right.new_empty(-(-words // width), *targets.shape)
    for k, start in enumerate(range(0, words, width)):
        stop = min(start + width, words)
        logits = F.linear(hidden, weight[start:stop], None if bias is None else bias[start:stop]).to(right.dtype)
        sums[k] = torch.logsumexp(logits, -1)
        local = (targets - start).clamp(0, stop - start - 1).unsqueeze(-1)
        here = (targets >= start) & (targets < stop)
        right.copy_(torch.where(here, logits.gather(-1, local).squeeze(-1), right))
    losses = torch.logsumexp(sums, 0) - right
    return losses.masked_fill(targets == ignore_index, 0.0)


def per_example(losses: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean loss of every example over its tokens.

    Args:
        losses: ``(B, ...)`` of the tokens.
        mask: ``(B, ...)``, other than 0 where a token counts; all count by default.

    Returns:
        ``(B,)``, float64 where the losses are, else float32; 0 for an example of which no token counts.
    """
    flat = losses.to(_dtype(losses)).flatten(1)
    if mask is None:
        return flat.mean(1)
    counts = mask.ne(0).flatten(1)
    return flat.masked_fill(~counts, 0.0).sum(1) / counts.sum(1).clamp(min=1)


def sequence_loss(
    hidden: Tensor,
    head: Tensor | nn.Module,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    chunk: int = LOGITS,
    ignore_index: int = -100,
) -> Tensor:
    """Return the mean cross-entropy of the next token, sequence by sequence.

    Args:
        hidden: ``(B, T, E)`` last hidden states.
        head: ``(V, E)`` weight (that of the embedding, where they are tied), or a linear layer.
        tokens: ``(B, T)`` words that were read; those that shall not be asked for may be ``ignore_index``.
        mask: ``(B, T)``, other than 0 where a token counts as a target; all but the first count by default.
        chunk: logits that may exist at a time.
        ignore_index: word that does not count as a target.

    Returns:
        ``(B,)`` means over the tokens that count.

    Raises:
        InvalidArgument: shapes do not fit, or a token is no word of the vocabulary.
        InvalidType: the head is neither a tensor nor a linear layer.

    Example:
        >>> model = nn.ModuleDict({"embed": nn.Embedding(50, 8), "body": nn.Linear(8, 8)})
        >>> tokens = torch.randint(50, (3, 7))
        >>> sequence_loss(model["body"](model["embed"](tokens)), model["embed"].weight, tokens).shape
        torch.Size([3])
    """
    weight, bias = _head(head)
    if tokens.dim() != 2 or tokens.shape[1] < 2:
        raise InvalidArgument(f"tokens: expected (B, T) with at least two tokens, got {tuple(tokens.shape)}.")
    targets = tokens[:, 1:]
    losses = cross_entropy(hidden[:, :-1], weight, targets, bias=bias, chunk=chunk, ignore_index=ignore_index)
    counts = targets != ignore_index
    return per_example(losses, counts if mask is None else counts & mask[:, 1:].ne(0))


def causal_loss(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the loss of every sequence under a causal language model with the interface of Hugging Face.

    What ``module(**batch).loss`` would be for each sequence alone, except that the logits never exist together.

    Args:
        module: with ``base_model`` and ``get_output_embeddings()``.
        batch: ``input_ids (B, T)``, and if wanted ``attention_mask (B, T)`` and ``labels (B, T)`` with -100 for words
            that do not count; without labels all that attention reaches count.

    Returns:
        ``(B,)`` means over the tokens that count.

    Raises:
        InvalidType: the module has no such interface.
        InvalidArgument: the model does something to its logits behind the head, which would be lost here.
    """
    if not hasattr(module, "get_output_embeddings") or (head := module.get_output_embeddings()) is None:
        raise InvalidType(f"module: expected base_model and get_output_embeddings(), got {type(module).__name__}.")
    _check_logits(getattr(module, "config", None))
    tokens, mask = batch["input_ids"], batch.get("attention_mask")
    hidden = module.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
    labels = batch.get("labels")
    return sequence_loss(hidden, head, tokens, mask=mask) if labels is None else sequence_loss(hidden, head, labels)


def _dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int) -> None:
    if weight.dim() != 2 or hidden.shape[-1] != weight.shape[1] or hidden.shape[:-1] != targets.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (hidden, weight, targets))
        raise InvalidArgument(f"expected hidden (..., E), weight (V, E), targets (...), got {shapes}.")
    if targets.device.type == "cpu":
        wrong = ((targets < 0) | (targets >= weight.shape[0])) & (targets != ignore_index)
        if bool(wrong.any()):
            raise InvalidArgument(
                f"targets: expected 0 to {weight.shape[0] - 1}, or {ignore_index} for tokens that do not count, "
                f"got {int(targets[wrong][0])}."
            )


def _head(head: Tensor | nn.Module) -> tuple[Tensor, Tensor | None]:
    if isinstance(head, Tensor):
        return head, None
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor):
        raise InvalidType(f"head: expected a (V, E) tensor or a linear layer, got {short(head)}.")
    return weight, getattr(head, "bias", None)


def _check_logits(config: object) -> None:
    for name, idle in (("final_logit_softcapping", None), ("logit_scale", 1), ("logits_scaling", 1)):
        value = getattr(config, name, None)
        if value not in (None, idle):
            raise InvalidArgument(
                f"module: its configuration changes the logits ({name}={value!r}). Write loss(module, batch) from "
                f"module(**batch).logits instead."
            )
