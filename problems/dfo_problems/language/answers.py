"""A task whose sentences are read once: only the token after which the answer comes is run.

Whatever is trained then acts where the answer is formed, and the sentence in front of it is what the model read before
the training began. Its keys and values are kept, so that a forward pass is one token an example instead of all of them:
for sentences of some twenty tokens, that many more examples or directions in the same time. The same keys and values
serve any number of trained answers.

What is trained so belongs to this way of asking: the sentence is read by the model as it was, the answer is formed by
the model as it is. Elsewhere (:class:`dfo_problems.language.sentiment.Sentiment`, ``generate``) the trained weights
would meet all tokens, which is another function.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dfo.errors import InvalidType, short
from dfo_problems.language.data import Sentences
from dfo_problems.language.sentiment import MEZO, Sentiment, Template

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dfo_problems.language.sentiment import Batch

__all__ = ["Answers"]

TOGETHER = 32
"""Sentences that are read in one forward pass."""


class Answers(Sentiment):
    """Batches of a sentiment task in which all but the last token have been read by the model as it is now.

    A batch has, besides ``words``, ``target`` and ``offset`` of :class:`Sentiment`, the last token ``input_ids (B, 1)``
    at its ``positions (B, 1)``, the ``keys`` and ``values (B, layers, heads, T - 1, width)`` of what stands before it,
    and ``attention_mask (B, T)``. They lie on the CPU. A sentence is read when it is first asked for, and kept: half a
    megabyte for one of twenty tokens and SmolLM2-135M in bfloat16, beside a copy of the trunk. The last bits of what is
    read may depend on the sentences that are read with it.

    To ask a trained model again later, make ``Answers`` of the model as it was, add what was added, load its
    ``state_dict``, and set ``offset`` to what :meth:`calibrate` returned.

    Args:
        module: a causal language model of Hugging Face; its trunk is copied, so that what is trained afterwards does
            not change what has been read.
        tokenizer: this and all that follows as in :class:`Sentiment`.
        sentences: those that :meth:`batch` draws from.
        template: around every sentence.
        size: examples of a batch by number.
        seed: of the sequence of batches by number.

    Raises:
        InvalidArgument: a word of the template is not one token, or there are fewer sentences than ``size``.
        InvalidType: the module has no trunk (``base_model``), or begins every sentence with a prefix.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        sentences: Sentences,
        template: Template = MEZO,
        size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(tokenizer, sentences, template, size, seed)
        trunk: Any = getattr(module, "base_model", None)
        if trunk is None or hasattr(trunk, "prefix"):
            raise InvalidType(f"module: expected a causal language model without a prefix, got {short(module)}.")
        self.reader = copy.deepcopy(trunk).eval().requires_grad_(False)
        self._read: dict[str, Tensor] = {}

    def encode(self, sentences: Sentences) -> Batch:
        """Return sentences as one batch; those that are new are read first."""
        import torch

        whole = super().encode(sentences)
        self._read_new(sentences.texts)
        kept = [self._read[text] for text in sentences.texts]  # (2, layers, heads, t - 1, width) each
        longest = max(read.shape[3] for read in kept)
        both = kept[0].new_zeros(len(kept), *kept[0].shape[:3], longest, kept[0].shape[4])
        for row, read in zip(both, kept, strict=True):
            row[:, :, :, : read.shape[3]] = read
        before = torch.tensor([[read.shape[3]] for read in kept])
        seen = (torch.arange(longest) < before).long()
        return {
            **whole,
            "input_ids": whole["input_ids"].gather(1, before),
            "attention_mask": torch.cat([seen, torch.ones_like(before)], 1),
            "positions": before,
            "keys": both[:, 0],
            "values": both[:, 1],
        }

    def _read_new(self, texts: Sequence[str]) -> None:
        """Read and keep the sentences that are not kept yet, those of like length together."""
        import torch

        new = sorted(set(texts) - self._read.keys(), key=lambda text: (len(self._tokens(text)), text))
        device = next(self.reader.parameters()).device
        for at in range(0, len(new), TOGETHER):
            some = new[at : at + TOGETHER]
            ids, mask = self._ids(some)
            with torch.no_grad():
                layers = self.reader(input_ids=ids.to(device), use_cache=True).past_key_values.layers
            both = torch.stack([torch.stack([layer.keys, layer.values]) for layer in layers], 1).cpu()
            for i, (text, length) in enumerate(zip(some, mask.sum(1).tolist(), strict=True)):
                self._read[text] = both[:, :, i, :, : length - 1].clone()
