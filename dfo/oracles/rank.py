"""An oracle that only ranks: a person, a judge, a comparison that somebody wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfo.batch import Batch
from dfo.errors import BadObjective, InvalidArgument, InvalidType, short
from dfo.feedback import Ranking, average_ranks
from dfo.oracles.function import members
from dfo.random import Key

__all__ = ["RankOracle"]


class RankOracle:
    """Rankings from ``ask(points)``.

    Args:
        ask: gets a list of points and returns an order: the indices of the best, best first, all of them
            or only the first few; or None to skip the question. Ties are groups: ``[2, [0, 1]]`` says that 2 is
            best and 0 and 1 share the next place.
        max_batch: most points shown at once; eight is what a person can rank.

    Raises:
        InvalidType: ``ask`` is no function.
        InvalidArgument: ``max_batch`` below 2.

    Example:
        >>> import dfo, numpy as np
        >>> def judge(points):
        ...     return sorted(range(len(points)), key=lambda i: float(points[i] @ points[i]))
        >>> res = dfo.minimize(dfo.RankOracle(judge), [2.0, -1.0], method="cma", budget=300)
        >>> bool(np.abs(res.x).max() < 0.1)
        True
    """

    gives: frozenset[str] = frozenset({"ranking"})

    def __init__(self, ask: Callable[[list[Any]], Sequence[Any] | None], max_batch: int | None = 8) -> None:
        if not callable(ask):
            raise InvalidType(f"ask: expected a function of a list of points, got {short(ask)}.")
        if max_batch is not None and max_batch < 2:
            raise InvalidArgument(f"max_batch: expected at least 2 points to compare, got {max_batch}.")
        self.ask, self.max_batch = ask, max_batch

    def start(self, lanes: int, key: Key) -> tuple[()]:
        """Return the empty memory."""
        return ()

    def evaluate(self, batch: Batch, memory: tuple[()]) -> tuple[Ranking, tuple[()]]:
        """Ask for an order of the members.

        Raises:
            BadObjective: the answer is no order of the members shown.
        """
        n = len(batch)
        answer = self.ask(list(members(batch)))
        if answer is None:
            return Ranking(np.full(n, np.nan), skipped=True), memory
        return Ranking(_ranks(answer, n)), memory


def _ranks(answer: Sequence[Any], n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return ``(n,)`` average ranks of an order with ties; unlisted members share the last place."""
    place = np.full(n, float(n))
    try:
        groups = [[int(i) for i in (group if np.ndim(group) else [group])] for group in answer]
    except (TypeError, ValueError):
        groups = [[-1]]
    listed = [i for group in groups for i in group]
    if len(set(listed)) != len(listed) or any(not 0 <= i < n for i in listed):
        raise BadObjective(
            f"A ranking must list different indices of the {n} points shown, best first, got {short(answer)}."
        )
    for at, group in enumerate(groups):
        place[group] = at
    return average_ranks(place)
