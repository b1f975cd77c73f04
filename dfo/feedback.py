"""One answer of an oracle, and the weaker answers that it contains.

Feedback degrades downward only: values contain a ranking, a ranking contains no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dfo.arrays import Array, Floats
from dfo.errors import InvalidArgument

__all__ = ["Feedback", "Ranking", "Residual", "Slopes", "Texts", "Values", "average_ranks"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranking:
    """An order of the members, best first.

    Args:
        rank: ``(n,)`` floats, 0 for the best; equal numbers are ties; NaN was not shown. A partial
            ranking gives the unranked one common number behind the ranked ones.
        skipped: nothing was answered at all; the solver advances without learning.

    Example:
        >>> from dfo.feedback import Ranking
        >>> Ranking.of_order([2, 0], n=4).rank
        array([1. , 2.5, 0. , 2.5])
    """

    rank: Floats
    skipped: bool = False

    @staticmethod
    def of_order(order: Sequence[int], n: int) -> Ranking:
        """Build the ranking of ``n`` members of which ``order`` lists the best, best first.

        Raises:
            InvalidArgument: an index is out of range or comes twice.
        """
        listed = [int(i) for i in order]
        if len(set(listed)) != len(listed) or any(not 0 <= i < n for i in listed):
            raise InvalidArgument(f"order: expected different indices below {n}, got {listed}.")
        rank = np.full(n, (len(listed) + n - 1) / 2.0)
        rank[listed] = np.arange(len(listed))
        return Ranking(rank)


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers to be minimised, one a member, and what else the oracle knows about them.

    Args:
        f: ``(n,)`` values; infinite where ``failed``.
        stderr: ``(n,)`` standard errors, or None.
        failed: ``(n,)`` true where an evaluation gave no usable value, or None if none did.
        ended: ``(n,)`` true where an unrolled inner problem ended in this unroll. The unroll stops there: later
            ``losses`` are NaN, ``f`` sums what was run, and the lane begins anew with the next unroll.
        losses: ``(n, k)`` per-step losses of an unroll.
        violation: ``(n,)`` total constraint violation, 0 where feasible, or None without constraints.
        behaviour: ``(n, b)`` what a member did, for novelty.
        moved: ``(n, d)`` the points actually evaluated, where a filter changed them.
        cost: ``(n,)`` cost of each evaluation in the oracle's unit; 1 each by default.
        notes: why evaluations failed: pairs of (member, text).
    """

    f: Floats
    stderr: Floats | None = None
    failed: Flags | None = None
    ended: Flags | None = None
    losses: Array | None = None
    violation: Floats | None = None
    behaviour: Array | None = None
    moved: Array | None = None
    cost: Floats | None = None
    notes: tuple[tuple[int, str], ...] = ()

    def joined(self, other: Values) -> Values:
        """Return the values of these members followed by those of ``other``."""
        n, m = len(self.f), len(other.f)
        both: dict[str, Any] = {}
        for name in (f.name for f in fields(self) if f.name != "notes"):
            a, b = getattr(self, name), getattr(other, name)
            if a is None and b is None:
                continue
            if name == "failed":  # None means that nothing failed
                a, b = (np.zeros(k, bool) if v is None else v for k, v in ((n, a), (m, b)))
            if name == "behaviour":  # what failed, or nobody, has none: it is not known how wide it would be
                a, b = _as_wide(a, b, n), _as_wide(b, a, m)
            both[name] = np.concatenate([a, b])
        return Values(**both, notes=(*self.notes, *((i + n, text) for i, text in other.notes)))

    def part(self, start: int, stop: int) -> Values:
        """Return the values of members ``start .. stop``."""
        names = [f.name for f in fields(self) if f.name != "notes" and getattr(self, f.name) is not None]
        notes = tuple((i - start, text) for i, text in self.notes if start <= i < stop)
        return Values(**{name: getattr(self, name)[start:stop] for name in names}, notes=notes)

    @property
    def valid(self) -> Flags:
        """``(n,)`` true where there is a usable value."""
        return np.ones(len(self.f), bool) if self.failed is None else ~self.failed

    @property
    def feasible(self) -> Flags:
        """``(n,)`` true where there is a usable value and no constraint is violated."""
        return self.valid if self.violation is None else self.valid & (self.violation <= 0.0)

    def merit(self) -> Floats:
        """Return ``(n,)`` numbers that order the members: feasible by value, then by violation, then failed.

        Equals ``f`` where nothing failed and nothing is violated (Deb 2000, feasibility rules).
        """
        if self.failed is None and self.violation is None:
            return self.f
        merit = np.where(self.valid, self.f, np.inf)
        if self.violation is not None:
            bad = self.valid & (self.violation > 0.0)
            # logarithms span -745 .. 710, so that levels span 2.5e306 .. 1.75e307, above every feasible value
            level = 1e304 * (1000.0 + np.minimum(np.log(np.where(bad, self.violation, 1.0)), 750.0))
            merit = np.where(bad, level, np.where(self.valid, np.minimum(merit, 1e306), merit))
        return merit

    def ranking(self) -> Ranking:
        """Return the order of the members: ties share the average rank, failed members the last."""
        return Ranking(average_ranks(self.merit()))


@dataclass(frozen=True, eq=False)
class Slopes:
    """Exact directional derivatives along the directions of a batch of perturbations.

    Args:
        slope: ``(n,)`` derivative along each member's direction.
        f: ``(n,)`` values at the centers.
    """

    slope: Floats
    f: Floats


@dataclass(frozen=True, eq=False)
class Residual:
    """The vectors that a map returns.

    Args:
        r: ``(n, m)`` one vector a member.
    """

    r: Array


@dataclass(frozen=True, eq=False)
class Texts:
    """The answers of a second oracle that proposes points.

    Args:
        texts: one answer a member.
    """

    texts: Sequence[str]


Feedback: TypeAlias = Values | Ranking | Slopes | Residual | Texts
"""What an oracle may answer."""


def _as_wide(rows: Array | None, other: Array | None, n: int) -> Array:
    """Return ``n`` rows, of NaN and as wide as ``other`` where they have no width of their own."""
    if rows is not None and (rows.shape[1] or other is None):
        return rows
    return np.full((n, 0 if other is None else other.shape[1]), np.nan)


def average_ranks(values: Floats) -> Floats:
    """Return ``(n,)`` ranks from 0; ties share their average, NaN stays NaN."""
    shown = ~np.isnan(values)
    known = values[shown]
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    first = np.searchsorted(ordered, ordered, side="left")
    last = np.searchsorted(ordered, ordered, side="right")
    rank = np.full(len(values), np.nan)
    ranks = np.empty(len(known))
    ranks[order] = (first + last - 1) / 2.0
    rank[shown] = ranks
    return rank
