"""A judge instead of a number: the best few of at most eight, ties, candidates not shown, questions skipped.

CMA-ES uses only the order of values, so a ranking is enough for it. Everything that a ranking may lack is
lacking here in turn.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import dfo
from dfo.batch import Points
from dfo.feedback import Ranking, Values, average_ranks
from dfo.random import Key, integers
from dfo.spaces import Free


def sphere(X):
    return (X * X).sum(axis=-1)


@dataclass
class Judge:
    """Ranks by ``f``: names the ``top`` best, calls values within a share ``same`` of each other equal, and now
    and then does not look at a candidate (``hides``) or at all (``skips`` one question in that many).
    """

    f: Any = sphere
    top: int | None = None
    same: float = 0.0
    hides: int = 0
    skips: int = 0

    gives: ClassVar = frozenset({"ranking"})
    max_batch: ClassVar = 8

    def start(self, lanes, key):
        return 0  # questions so far

    def evaluate(self, batch, asked):
        n = len(batch)
        if self.skips and asked % self.skips == 0:
            return Ranking(np.full(n, np.nan), skipped=True), asked + 1
        values = self.f(batch.dense())
        if self.same:
            values = np.floor(np.log(values) / np.log1p(self.same))
        rank = average_ranks(values)
        if self.top is not None:
            rank = Ranking.of_order(np.argsort(values, kind="stable")[: self.top], n).rank
        if self.hides:
            rank[integers(Key(5, (asked,)), n, (self.hides,))] = np.nan
        return Ranking(rank), asked + 1


JUDGES = {
    "all of them": Judge(),
    "the best three": Judge(top=3),
    "the best alone": Judge(top=1),
    "ties": Judge(same=0.3),
    "one or two not shown": Judge(hides=2),
    "every third skipped": Judge(skips=3),
    "all at once": Judge(top=4, same=0.1, hides=1, skips=4),
}


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
@pytest.mark.parametrize("seed", range(3))
def test_converges_on_what_the_judge_says(judge, seed):
    res = dfo.minimize(judge, np.ones(5), method=dfo.CMA(restarts="none"), budget=1600, seed=seed)
    assert sphere(res.x) < 1e-8
    assert np.isnan(res.fun)  # nobody has seen a value
    assert res.nfev <= 1600


# ---------------------------------------------------------------------- one answer at a time


@pytest.fixture
def asked():
    """A strategy after ten generations, with its next question: state, batch, and the solver itself."""
    solver = dfo.CMA(restarts="none").plan(dfo.Task(Free(5), budget=1000, max_batch=8))
    state = solver.init(np.ones(5), Key(1))
    for _ in range(10):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(sphere(batch.X)))
    return solver, state, solver.ask(state)


def differing(one, two, tolerance=0.0):
    """Return the names of the fields in which two states differ."""
    pairs = ((f.name, getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    numeric = (np.ndarray, float)
    return [
        name
        for name, a, b in pairs
        if not (np.allclose(a, b, rtol=tolerance, atol=tolerance) if isinstance(a, numeric) else a == b)
    ]


def test_a_skipped_question_advances_the_step_and_changes_nothing_else(asked):
    solver, state, batch = asked
    after = solver.tell(state, batch, Ranking(np.full(8, np.nan), skipped=True))
    assert after.step == state.step + 1
    assert differing(state, after) == ["step"]
    assert not np.array_equal(solver.ask(after).X, batch.X)  # the next question is a new one


def test_nobody_is_preferred_among_equals(asked):
    """When all are tied the mean moves to the plain average of what was asked, wherever that is."""
    solver, state, batch = asked
    after = solver.tell(state, batch, Ranking(np.full(8, 3.5)))
    np.testing.assert_allclose(after.mean, batch.X.mean(axis=0), rtol=1e-12)


def test_who_was_not_shown_has_no_say(asked):
    solver, state, batch = asked
    rank = average_ranks(sphere(batch.X))
    rank[[2, 5]] = np.nan
    latent = batch.latent.copy()
    latent[[2, 5]] = 1e6
    after = [solver.tell(state, b, Ranking(rank)) for b in (batch, replace(batch, latent=latent))]
    np.testing.assert_array_equal(after[0].mean, after[1].mean)
    np.testing.assert_array_equal(after[0].C, after[1].C)


def test_the_unranked_count_alike(asked):
    """Of the best three of eight, it does not matter in which order the other five stand."""
    solver, state, batch = asked
    order = np.argsort(sphere(batch.X))
    told = Ranking.of_order(order[:3], 8)
    swapped = np.arange(8)
    swapped[order[3:]] = order[3:][::-1]
    other = replace(batch, X=batch.X[swapped], latent=batch.latent[swapped])
    assert not differing(solver.tell(state, batch, told), solver.tell(state, other, told), 1e-12)


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
def test_the_order_in_which_members_stand_does_not_matter(asked, judge):
    solver, state, batch = asked
    told, _ = judge.evaluate(batch, 1)
    order = np.array([3, 1, 7, 0, 6, 2, 5, 4])
    other = replace(batch, X=batch.X[order], latent=batch.latent[order])
    permuted = replace(told, rank=told.rank[order])
    assert not differing(solver.tell(state, batch, told), solver.tell(state, other, permuted), 1e-12)


def test_values_contain_their_ranking(asked):
    """The same step, whether the values are told or only their order; except what a run without values cannot know."""
    solver, state, batch = asked
    told = Values(sphere(batch.X))
    differ = differing(solver.tell(state, batch, told), solver.tell(state, batch, told.ranking()))
    assert set(differ) <= {"recent", "best", "best_age"}


# ---------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("told", ["ranks", "values"])
def test_only_the_order_counts_to_the_last_bit(told):
    def mean_after(transform):
        if told == "ranks":
            f = Judge(lambda X: transform(sphere(X)), top=3)
        else:
            f = dfo.Function(lambda X: transform(sphere(X)), vectorized=True)
        record = []
        method = dfo.CMA(restarts="none", ftol=0.0)  # the one rule that looks at the size of values
        dfo.minimize(f, np.ones(5), method=method, budget=600, callback=lambda p: record.append(p.recommended()))
        return np.array(record)

    plain = mean_after(lambda f: f)
    assert sphere(plain[-1]) < 1e-3 * sphere(plain[0])
    for transform in (lambda f: 3.0 * f + 1e-30, lambda f: f**3, np.log):
        np.testing.assert_array_equal(mean_after(transform), plain)


@dataclass(frozen=True)
class AskTwelve:
    """Asks about more than a person can rank, and does not plan."""

    needs: ClassVar = frozenset({"ranking"})

    def init(self, x0, key):
        return x0

    def ask(self, s):
        return Points(np.tile(s, (12, 1)))

    def tell(self, s, batch, told):
        return s

    def recommend(self, s):
        return s


@dataclass
class Counting(Judge):
    """Remembers how many it was shown at a time."""

    shown: Any = None

    def evaluate(self, batch, asked):
        self.shown = [*(self.shown or []), len(batch)]
        return super().evaluate(batch, asked)


def test_more_than_eight_at_once_is_refused():
    with pytest.raises(dfo.errors.IncompatibleOracle, match=r"at most 8 candidates at once.*asked about 12"):
        dfo.minimize(Judge(), np.ones(3), method=AskTwelve(), budget=100)


def test_more_than_eight_at_once_is_refused_before_anybody_is_asked():
    judge = Counting()
    with pytest.raises(dfo.errors.IncompatibleOracle):
        dfo.minimize(judge, np.ones(3), method=AskTwelve(), budget=100)
    assert judge.shown is None


def test_a_question_that_the_budget_cuts_is_not_asked():
    judge = Counting()
    dfo.minimize(judge, np.ones(5), method="cma", budget=20)
    assert judge.shown == [8, 8]
