"""The one rule that turns what an objective returns into a number, or into a failure with a reason."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from dfo.arrays import Floats, is_array, to_numpy
from dfo.errors import BadObjective, short
from dfo.feedback import Values
from dfo.oracles.outcomes import Failed
from dfo.secrets import scrub

__all__ = ["number", "values_of", "values_of_array"]


def number(value: Any) -> float | str:
    """Return the number that ``value`` is, or why it is none.

    A real scalar or a real array of size one is a number (it may be NaN or infinite). Booleans,
    strings, None, complex numbers and larger arrays are not: each would hide a mistake.
    """
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (bool, np.bool_)):
        return f"a bool ({value}); return a real number, such as the share of errors"
    if isinstance(value, (numbers.Real, Decimal)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if is_array(value):
        array = to_numpy(value)
        if array.size == 1 and array.dtype.kind in "fiu":
            return float(array.reshape(-1)[0])
        return f"an array of shape {array.shape} and dtype {array.dtype}; return one real number"
    return f"{short(value)} of type {type(value).__name__}; return one real number"


def values_of(raw: Sequence[Any], first: bool = False) -> Values:
    """Return the values of a list of returned objects, failures masked.

    Args:
        raw: what the objective returned, one object a member; an ``Exception`` or a :class:`Failed` is a recorded
            failure.
        first: whether these are the first evaluations of a run.

    Raises:
        BadObjective: the very first value is not a number: that is a mistake in the script.
    """
    if all(isinstance(v, float) for v in raw):
        f = np.array(raw)
        if np.isfinite(f).all():
            return Values(f)
    f = np.empty(len(raw))
    notes: list[tuple[int, str]] = []
    for i, value in enumerate(raw):
        if isinstance(value, (Exception, Failed)):
            f[i] = np.inf
            raised = isinstance(value, Exception)
            notes.append((i, f"raised {type(value).__name__}: {short(scrub(str(value)))}" if raised else str(value)))
            continue
        result = number(value)
        if isinstance(result, str):
            if first and i == 0:
                raise BadObjective(f"The objective must return a real number, got {result}.")
            f[i] = np.inf
            notes.append((i, f"returned {scrub(result)}"))
        else:
            f[i] = result
            if not math.isfinite(result):
                notes.append((i, f"returned {result}"))
    return _masked(f, tuple(notes))


def values_of_array(raw: Any, n: int, first: bool = False) -> Values:
    """Return the values of a vectorised objective's answer to ``n`` members, failures masked.

    Raises:
        BadObjective: the answer is not ``n`` real numbers.
    """
    if isinstance(raw, (list, tuple)):
        if len(raw) == n:
            return values_of(raw, first)
        raise BadObjective(f"A vectorized objective must return {n} values for {n} points, got {len(raw)}.")
    array = to_numpy(raw)
    if array.dtype.kind not in "fiu" or array.size != n or array.shape not in ((n,), (n, 1)):
        raise BadObjective(
            f"A vectorized objective must return {n} real numbers for {n} points, as an array of shape ({n},);"
            f" got shape {array.shape} and dtype {array.dtype}. Drop vectorized=True if it takes one point."
        )
    f = np.array(array, dtype=float).reshape(n)
    bad = ~np.isfinite(f)
    return _masked(f, tuple((int(i), f"returned {f[i]}") for i in np.flatnonzero(bad))) if bad.any() else Values(f)


def _masked(f: Floats, notes: tuple[tuple[int, str], ...]) -> Values:
    bad = ~np.isfinite(f)
    if not bad.any():
        return Values(f)
    return Values(np.where(bad, np.inf, f), failed=bad, notes=notes)
