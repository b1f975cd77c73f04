"""A language model that is small and real, sentences to judge, and what it is worth before and after it is tuned.

``smollm2`` loads the model, ``reviews`` the sentences, ``Sentiment`` makes of them batches with a loss, and
``measure`` tells accuracy and cross-entropy. Nothing is vendored: model and sentences come from packages that pip
installs, and what is missing is named with its command.

Example::

    module, tokenizer = smollm2("bfloat16")
    data = reviews()
    task = Sentiment(tokenizer, data.train)
    task.loss(module, task.batch(0))                  # (16,) cross-entropies
    print(measure(module, task, data.validation))     # accuracy 0.5.. ± 0.035, calibrated ..., cross-entropy ...
"""

from __future__ import annotations

from dfo_problems.language.answers import Answers
from dfo_problems.language.data import Reviews, Sentences, reviews
from dfo_problems.language.model import cache_folder, smollm2
from dfo_problems.language.pack import LANGUAGE
from dfo_problems.language.quality import Quality, backprop, in_context, measure, quality, scores
from dfo_problems.language.sentiment import INSTRUCTION, MEZO, REVIEW, Sentiment, Template, full_loss, log_odds, loss

__all__ = [
    "INSTRUCTION",
    "LANGUAGE",
    "MEZO",
    "REVIEW",
    "Answers",
    "Quality",
    "Reviews",
    "Sentences",
    "Sentiment",
    "Template",
    "backprop",
    "cache_folder",
    "full_loss",
    "in_context",
    "log_odds",
    "loss",
    "measure",
    "quality",
    "reviews",
    "scores",
    "smollm2",
]
