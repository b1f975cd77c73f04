"""Read the words of options."""

from __future__ import annotations

import re

from dfo.errors import InvalidArgument, short

__all__ = ["counts", "labels"]


def counts(option: str, text: str | None) -> list[int] | None:
    """Read ``"2,5"`` or ``"1-5,9"`` as numbers, or None as None.

    Raises:
        InvalidArgument: something else.

    Example:
        >>> counts("--instances", "1-3,9")
        [1, 2, 3, 9]
    """
    if text is None:
        return None
    numbers: list[int] = []
    for word in text.split(","):
        span = _span(word)
        if span is None:
            raise InvalidArgument(f"{option}: expected numbers such as 2,5 or 1-5, got {short(text)}.")
        numbers += span
    return numbers


def labels(option: str, text: str | None) -> list[str | int] | None:
    """Read ``"1,8-10,rosenbrock"`` as numbers and names, or None as None.

    Raises:
        InvalidArgument: a name is empty.
    """
    if text is None:
        return None
    found: list[str | int] = []
    for word in text.split(","):
        if not word.strip():
            raise InvalidArgument(f"{option}: expected functions such as 1,8 or sphere, got {short(text)}.")
        found += _span(word) or [word.strip()]
    return found


def _span(word: str) -> list[int] | None:
    found = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", word, re.ASCII)
    if found is None:
        return None
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    return list(range(first, last + 1)) or None
