"""What solvers check of their options, in one place, so that one mistake has one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfo.errors import InvalidArgument, InvalidType, short

__all__ = [
    "HUGE",
    "check_choice",
    "check_count",
    "check_not_negative",
    "check_population",
    "check_positive",
    "check_share",
]

HUGE = 1e150
"""Options stay below this: the square of a larger number is infinite."""


def check_choice(solver: Any, **known: Sequence[str | None]) -> None:
    """Check that options are among the names that exist.

    Raises:
        InvalidArgument: one is not.
    """
    for name, names in known.items():
        if getattr(solver, name) not in names:
            words = ", ".join(word for word in names if word)
            raise InvalidArgument(f"{name}: expected one of {words}, got {getattr(solver, name)!r}.")


def check_positive(solver: Any, *names: str) -> None:
    """Check that options are None, or positive and below :data:`HUGE`.

    Raises:
        InvalidArgument: one is not.
        InvalidType: one is no number.
    """
    _check_sizes(solver, names, "a positive number below 1e150", lambda value: 0 < value < HUGE)


def check_not_negative(solver: Any, *names: str) -> None:
    """Check that options are None, or at least 0 and below :data:`HUGE`.

    Raises:
        InvalidArgument: one is not.
        InvalidType: one is no number.
    """
    _check_sizes(solver, names, "a number of at least 0", lambda value: 0 <= value < HUGE)


def check_population(solver: Any, least: int = 2) -> None:
    """Check that ``population`` is None or an integer of at least ``least``.

    Raises:
        InvalidArgument: it is not.
    """
    check_count(solver, least, "population")


def check_count(solver: Any, least: int, *names: str) -> None:
    """Check that options are None or integers of at least ``least``.

    Raises:
        InvalidArgument: one is not.
        InvalidType: one is no number.
    """
    _check_sizes(solver, names, f"an integer >= {least}", lambda value: least <= value < HUGE and value == int(value))


def check_share(solver: Any, *names: str) -> None:
    """Check that options are None, or numbers from 0 to 1.

    Raises:
        InvalidArgument: one is not.
        InvalidType: one is no number.
    """
    _check_sizes(solver, names, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def _check_sizes(solver: Any, names: Sequence[str], wanted: str, fits: Callable[[float], bool]) -> None:
    for name in names:
        value = _number(solver, name)
        if value is not None and not fits(value):
            raise InvalidArgument(f"{name}: expected {wanted}, got {value!r}.")


def _number(solver: Any, name: str) -> float | None:
    """Return an option that is None or a number.

    Raises:
        InvalidType: it is something else.
    """
    value = getattr(solver, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidType(f"{name}: expected a number, got {short(value)}.")
    return float(value)
