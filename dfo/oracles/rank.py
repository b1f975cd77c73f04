"""An oracle that only ranks: a person, a judge, a comparison that somebody wrote; or a stand-in for one.

What a question costs: the budget counts the *items* shown (``res.nfev``), ``res.nit`` counts the *rankings*; to
bound those, pass ``stop=dfo.MaxSteps(n)``. A skipped question has been shown, so it is paid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

import numpy as np

from dfo.arrays import Array, Floats
from dfo.batch import Batch
from dfo.errors import BadObjective, InvalidArgument, InvalidType, short
from dfo.feedback import Ranking, average_ranks
from dfo.oracles.function import Function, members
from dfo.random import Key, normal, uniform

__all__ = ["HUMAN_VOTES", "Comparer", "HumanNoise", "RankOracle", "RankedValues"]

HUMAN_VOTES: tuple[tuple[float, float, float, float], ...] = (
    (0.25, 0.400, 0.274, 0.326),
    (0.75, 0.558, 0.171, 0.272),
    (1.50, 0.736, 0.090, 0.175),
    (2.75, 0.958, 0.014, 0.028),
)
"""Gap between two items on a scale from -4 to 4; shares of people who order them rightly, wrongly, not at all.

Measured on 200,000 random pairs of the 10,605 film snippets, each rated by 15 to 29 people, that come with
vaderSentiment (Hutto and Gilbert 2014): the vote of one person against the mean of the others, in the classes of
gaps 0-0.5, 0.5-1, 1-2 and above 2, here at their middles.
"""


class RankOracle:
    """Rankings from ``ask(points)``.

    :meth:`of` makes one from a function of values, with the errors of a person.

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

    @staticmethod
    def of(
        fun: Callable[[Any], Any], *, noise: float | Comparer | None = None, top: int | None = None,
        skip: float = 0.0, max_batch: int | None = 8, vectorized: bool = False,
    ) -> RankedValues:  # fmt: skip
        """Return an oracle that ranks by the values of ``fun``, of which it tells nothing else.

        Args:
            fun: the objective of one point, or of ``(n, d)`` points when ``vectorized``; low is good.
            noise: standard deviation of what is added to each value before sorting, or a model of a rater such as
                :class:`HumanNoise`; None for exact rankings.
            top: how many of the best are named; the others share the last place. All by default.
            skip: probability that a question is not answered.
            max_batch: most points shown at once.
            vectorized: whether ``fun`` takes all points at once.

        Raises:
            InvalidArgument: a number out of range.

        Example:
            >>> import dfo
            >>> oracle = dfo.RankOracle.of(lambda x: float(x @ x), noise=dfo.HumanNoise(scale=0.1), skip=0.1)
            >>> dfo.minimize(oracle, [1.0, -1.0], method="zo-rank-sgd", budget=200, seed=1).nfev <= 200
            True
        """
        return RankedValues(fun, noise, top, skip, max_batch, vectorized)

    def start(self, lanes: int, key: Key) -> Any:
        """Return the empty memory."""
        return ()

    def evaluate(self, batch: Batch, memory: Any) -> tuple[Ranking, Any]:
        """Ask for an order of the members.

        Raises:
            BadObjective: the answer is no order of the members shown.
        """
        n = len(batch)
        answer = self.ask(list(members(batch)))
        if answer is None:
            return Ranking(np.full(n, np.nan), skipped=True), memory
        return Ranking(_ranks(answer, n)), memory


def _ranks(answer: Sequence[Any], n: int) -> Floats:
    """Return ``(n,)`` average ranks of an order with ties; unlisted members share the last place."""
    place = np.full(n, float(n))
    try:
        groups = [[index(i) for i in (group if np.ndim(group) else [group])] for group in answer]
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


class Comparer(Protocol):
    """A model of who ranks."""

    def rank(self, f: Floats, key: Key) -> Floats:
        """Return ``(n,)`` ranks, ties averaged, of members with the true values ``f``, ``(n,)`` and finite."""
        ...


@dataclass(frozen=True)
class HumanNoise:
    """Rankings with the errors and ties of people, as measured (:data:`HUMAN_VOTES`).

    Every pair gets one vote: right, wrong or "the same", with shares that are interpolated in the gap between the
    values; at a gap of 0 right and wrong are equal. Votes may run in circles, so the ranking is by Copeland's
    score: pairs won less pairs lost, equal scores tied. Pairs are judged independently, which makes the ranking of many
    better than the judgement of one pair; a rater whose error stays with an item is ``noise=0.89 * scale``, the
    standard deviation of one person's rating of an item.

    Args:
        scale: difference in value that a rater feels as one point on a scale from -4 to 4.
        log: compare logarithms of values: a rater who sees ratios. Values must be positive.

    Raises:
        InvalidArgument: the scale is not positive.

    Example:
        >>> import numpy as np, dfo
        >>> noise = dfo.HumanNoise()
        >>> [round(float(share), 3) for share in noise.shares(np.array(0.25))]
        [0.4, 0.274, 0.326]
    """

    scale: float = 1.0
    log: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < np.inf:
            raise InvalidArgument(f"scale: expected a positive number, got {self.scale!r}.")

    def shares(self, gap: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the shares of right votes, wrong votes and ties at gaps on the raters' scale."""
        at, correct, _, tie = np.array(HUMAN_VOTES).T
        none = tie[0] + at[0] * (tie[0] - tie[1]) / (at[1] - at[0])  # ties at gap 0, on the line of the first two
        ties = np.interp(gap, [0.0, *at], [none, *tie])
        right = np.interp(gap, [0.0, *at], [(1.0 - none) / 2.0, *correct])
        return right, 1.0 - right - ties, ties

    def rank(self, f: Floats, key: Key) -> Floats:
        """Return ``(n,)`` ranks from one vote on every pair; vote (i, j) is number ``i n + j`` of the stream."""
        if self.log and (f <= 0.0).any():
            raise BadObjective(
                f"log=True compares logarithms: expected positive values, got {float(f.min()):g}. Shift them."
            )
        felt = (np.log(np.maximum(f, 1e-300)) if self.log else f) / self.scale
        difference = felt[:, None] - felt[None, :]  # (n, n)
        right, wrong, _ = self.shares(np.abs(difference))
        u = np.triu(np.asarray(uniform(key, difference.shape)), 1)
        vote = np.where(u < right, 1.0, np.where(u < right + wrong, -1.0, 0.0))  # right, wrong, the same
        won = np.triu(vote * np.where(difference < 0, 1.0, -1.0), 1)  # +1 where i beats j; of equal values either may
        return average_ranks(won.sum(axis=0) - won.sum(axis=1))


class RankedValues(RankOracle):
    """Rankings by values, perhaps with the errors of a rater; see :meth:`RankOracle.of`.

    The errors are a function of the run's seed and the number of the question: the same question gets the same answer.
    """

    def __init__(
        self, fun: Callable[[Any], Any], noise: float | Comparer | None = None, top: int | None = None,
        skip: float = 0.0, max_batch: int | None = 8, vectorized: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(fun, max_batch)
        if isinstance(noise, (int, float)) and not 0.0 <= noise < np.inf:
            raise InvalidArgument(f"noise: expected a standard deviation >= 0 or a model of a rater, got {noise!r}.")
        if noise is not None and not isinstance(noise, (int, float)) and not hasattr(noise, "rank"):
            raise InvalidType(f"noise: expected a number or a model such as dfo.HumanNoise(), got {short(noise)}.")
        if top is not None and top < 1:
            raise InvalidArgument(f"top: expected at least 1 point to be named, got {top!r}.")
        if not 0.0 <= skip <= 1.0:
            raise InvalidArgument(f"skip: expected a probability, got {skip!r}.")
        self.noise, self.top, self.skip = noise, top, skip
        self._values = Function(fun, vectorized=vectorized)

    def start(self, lanes: int, key: Key) -> Key:
        """Return the memory: the key of the rater's errors."""
        return key

    def evaluate(self, batch: Batch, memory: Key) -> tuple[Ranking, Key]:
        """Sort the members by value, as this rater would."""
        key, n = memory.child(batch.step), len(batch)
        if self.skip and float(uniform(key.child("skip"), (1,))[0]) < self.skip:
            return Ranking(np.full(n, np.nan), skipped=True), memory
        told, _ = self._values.evaluate(batch, ())
        rank = self._rank(told.merit(), key)
        k = min(self.top or n, batch.top or n)
        return Ranking(rank if k >= n else average_ranks(np.where(rank < k, rank, float(n)))), memory

    def _rank(self, merit: Floats, key: Key) -> Floats:
        """Return ``(n,)`` ranks; failed members share the last place whoever judges."""
        good: Array = np.isfinite(merit)
        place = np.full(len(merit), float(len(merit)))
        if isinstance(self.noise, (int, float)):
            place[good] = (merit + self.noise * normal(key.child("noise"), merit.shape))[good]
            place[~good] = np.inf
        elif self.noise is not None:
            place[good] = self.noise.rank(merit[good], key.child("votes"))
        else:
            place = np.where(good, merit, np.inf)
        return average_ranks(place)
