"""Kind or unkind, asked of a causal language model: which of two words comes next.

A sentence is put into a template, and the model's next-token probabilities of two words, one for each class, answer.
The loss is the cross-entropy between these two alone (:func:`loss`, the objective that fine-tuning with prompts uses)
or among the whole vocabulary (:func:`full_loss`).

Only the trunk is run, and of the head the rows of the two words: their logits are products of the last hidden state
with rows that ``F.embedding`` takes from the weight of the head. The words are part of every example, ``(B, 2)``, so
that a batch repeated for several members of a population stays a batch, and a head that differs by member is looked
up for each; where the head is tied to the embedding, it is one weight in both places.

Sentences are padded on the right. A token then never sees padding, because attention is causal; no mask is needed and
every result is that of the sentence alone. (Of :class:`dfo_problems.language.answers.Answers` only the last token is
run, and there is a mask.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.errors import InvalidArgument, InvalidType, short
from dfo.random import Key, choice
from dfo_problems.language.data import Sentences

if TYPE_CHECKING:
    from torch import Tensor, nn

    Batch = dict[str, Tensor]

__all__ = [
    "INSTRUCTION",
    "MEZO",
    "REVIEW",
    "Sentiment",
    "Template",
    "full_loss",
    "log_odds",
    "loss",
]


@dataclass(frozen=True)
class Template:
    """What stands around a sentence, and the words that stand for the classes.

    Args:
        before: in front of the sentence.
        after: behind it; the word of the class comes next.
        words: for unkind and for kind, one token each.
    """

    before: str
    after: str
    words: tuple[str, str]

    def around(self, text: str) -> str:
        """Return the sentence in the template, up to where the word of the class would begin."""
        return f"{self.before}{text}{self.after}"


MEZO = Template("", " It was", (" terrible", " great"))
"""Of Gao, Fisch and Chen (2021, arXiv:2012.15723) and Malladi et al. (2023, arXiv:2305.17333)."""

REVIEW = Template("Review: ", "\nSentiment:", (" negative", " positive"))
"""Two headings and nothing else."""

INSTRUCTION = Template(
    f"Classify the sentiment of the review as positive or negative.\n{REVIEW.before}", REVIEW.after, REVIEW.words
)
"""What a person would write first."""


def loss(module: nn.Module, batch: Batch) -> Tensor:
    """Return the ``(B,)`` cross-entropies of the right word against the wrong one, in single precision or above.

    Args:
        module: a causal language model with ``base_model`` and ``get_output_embeddings()``.
        batch: of :class:`Sentiment`.
    """
    from torch.nn import functional as F  # noqa: N812 - its usual name

    return F.cross_entropy(_logits(module, batch), batch["target"], reduction="none")


def full_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Return the ``(B,)`` cross-entropies of the right word against all words; arguments as in :func:`loss`."""
    from dfo.nn.losses import cross_entropy

    target = batch["words"].gather(1, batch["target"].unsqueeze(1)).squeeze(1)
    return cross_entropy(_last(module, batch), _head(module), target)


def log_odds(module: nn.Module, batch: Batch, cache: Any = None) -> Tensor:
    """Return the ``(B,)`` log-odds of kind against unkind.

    Args:
        module: as in :func:`loss`.
        batch: as in :func:`loss`.
        cache: keys and values of what stands in front of all sentences, for ``B`` rows; it is written to.
    """
    logits = _logits(module, batch, cache)
    return logits[:, 1] - logits[:, 0]


class Sentiment:
    """Batches of a sentiment task for one tokenizer, by number for training and in order for measuring.

    A batch is a dictionary of tensors whose first side is the example: ``input_ids (B, T)``, padded on the right,
    ``attention_mask (B, T)``, 1 where there is a token, ``words (B, 2)``, the tokens of the two classes, ``offset (B,
    2)``, what is added to their logits (0 before :meth:`calibrate`), and ``target (B,)``, the class.

    Args:
        tokenizer: of the model, as Hugging Face makes them.
        sentences: those that :meth:`batch` draws from.
        template: around every sentence.
        size: examples of a batch by number.
        seed: of the sequence of batches by number.

    Raises:
        InvalidArgument: a word of the template is not one token, or there are fewer sentences than ``size``.
    """

    loss = staticmethod(loss)
    full_loss = staticmethod(full_loss)
    log_odds = staticmethod(log_odds)

    def __init__(
        self, tokenizer: Any, sentences: Sentences, template: Template = MEZO, size: int = 16, seed: int = 0
    ) -> None:
        if not 1 <= size <= len(sentences):
            raise InvalidArgument(f"size: expected 1 to {len(sentences)} sentences, got {size!r}.")
        self.tokenizer, self.sentences, self.template, self.size = tokenizer, sentences, template, size
        self.key = Key.of(seed).child("language", "minibatches")
        self.words = [self._word(word) for word in template.words]
        self.offset = 0.0
        self._kept: dict[str, list[int]] = {}

    def batch(self, number: int) -> Batch:
        """Return minibatch ``number``: ``size`` different sentences, the same for the same number and seed."""
        rows = choice(self.key.child(int(number)), len(self.sentences), self.size)
        return self.encode(self.sentences.take(rows))

    def batches(self, sentences: Sentences, size: int = 32) -> list[Batch]:
        """Return all of some sentences in batches, the shortest first, so that little is padding.

        Args:
            sentences: to be measured on.
            size: examples of a batch; the last may be smaller.
        """
        lengths = [len(self._tokens(text)) for text in sentences.texts]
        order = np.argsort(lengths, kind="stable")
        return [self.encode(sentences.take(order[at : at + size])) for at in range(0, len(order), size)]

    def calibrate(self, module: nn.Module, sentences: Sentences | None = None) -> float:
        """Take the leaning of a module to one word out of its answers from now on, by a constant; return the constant.

        It is the median of its log-odds of kind against unkind over sentences of which about half are kind; labels are
        not looked at. From here on there is little to win by removing a leaning. :func:`full_loss` knows no offset.

        Source: Zhao et al. (2021), Calibrate Before Use (arXiv:2102.09690), with sentences instead of empty input.

        Args:
            module: a causal language model, before it is trained.
            sentences: those of the task by default.
        """
        from dfo_problems.language.quality import scores

        odds, _ = scores(module, self.batches(self.sentences if sentences is None else sentences))
        self.offset += float(np.median(odds))
        return self.offset

    def encode(self, sentences: Sentences) -> Batch:
        """Return sentences as one batch."""
        import torch

        ids, mask = self._ids(sentences.texts)
        words = torch.tensor([self.words] * len(ids))
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "words": words,
            "offset": torch.tensor([[self.offset, 0.0]] * len(ids)),
            "target": torch.tensor(sentences.labels.tolist()),
        }

    def _ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens of texts in their templates, padded on the right, and 1 where there is one."""
        import torch

        rows = [self._tokens(text) for text in texts]
        ids = torch.full((len(rows), max(map(len, rows))), int(self.tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask

    def _tokens(self, text: str) -> list[int]:
        found = self._kept.get(text)
        if found is None:
            found = self._kept[text] = list(self.tokenizer(self.template.around(text))["input_ids"])
        return found

    def _word(self, word: str) -> int:
        tokens = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1:
            raise InvalidArgument(f"words: expected one token each, got {word!r}, which is {len(tokens)}. Try another.")
        return int(tokens[0])


def _head(module: nn.Module) -> Tensor:
    get = getattr(module, "get_output_embeddings", None)
    if get is None or not hasattr(module, "base_model"):
        raise InvalidType(f"module: expected base_model and get_output_embeddings(), got {short(module)}.")
    weight: Tensor = get().weight
    return weight


def _last(module: nn.Module, batch: Batch, cache: Any = None) -> Tensor:
    """Return the hidden states of the last tokens, ``(B, E)``."""
    trunk: Any = module.base_model
    if "keys" in batch:
        if cache is not None:
            raise InvalidArgument("cache: expected none, because the batch has been read already.")
        return _answer(trunk, batch)
    if cache is None:
        hidden = trunk(input_ids=batch["input_ids"], use_cache=False).last_hidden_state  # (B, T, E)
    else:
        hidden = trunk(input_ids=batch["input_ids"], past_key_values=cache, use_cache=True).last_hidden_state
    at = (batch["attention_mask"].sum(1) - 1).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
    last: Tensor = hidden.gather(1, at).squeeze(1)
    return last


def _answer(trunk: Any, batch: Batch) -> Tensor:
    """Return the hidden states of the last tokens of a batch of :class:`dfo_problems.language.answers.Answers`."""
    from transformers import DynamicCache

    read = DynamicCache()
    for number, (keys, values) in enumerate(zip(batch["keys"].unbind(1), batch["values"].unbind(1), strict=True)):
        read.update(keys, values, number)
    out = trunk(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["positions"],
        past_key_values=read,
        use_cache=True,
    )
    last: Tensor = out.last_hidden_state[:, 0]
    return last


def _logits(module: nn.Module, batch: Batch, cache: Any = None) -> Tensor:
    """Return the logits of the two words, ``(B, 2)``, with the offset of the batch.

    Products of weights below single precision are summed in it.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812 - its usual name

    last = _last(module, batch, cache)
    rows = F.embedding(batch["words"], _head(module))  # (B, 2, E)
    wide = torch.promote_types(last.dtype, torch.float32)
    return (rows.to(wide) * last.to(wide).unsqueeze(1)).sum(-1) + batch["offset"].to(wide)
