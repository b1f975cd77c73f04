"""Answers, and the weaker answers that they contain: values hold a ranking, a ranking holds no values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from dfo.components.ranking import merits, spread_over_ranks
from dfo.errors import InvalidArgument, InvalidType
from dfo.feedback import Ranking, Slopes, Values, average_ranks

SOME = st.lists(st.floats(allow_nan=False) | st.sampled_from([0.0, 1.0, np.inf]), min_size=1, max_size=12)


def flags(*indices, n):
    return np.isin(np.arange(n), indices)


# ---------------------------------------------------------------------- ranks


@settings(max_examples=200, deadline=None)
@given(SOME)
def test_ranks_are_those_of_scipy_from_zero(values):
    np.testing.assert_array_equal(average_ranks(np.array(values)), rankdata(values) - 1.0)


def test_who_is_not_shown_has_no_rank_and_takes_none():
    np.testing.assert_array_equal(
        average_ranks(np.array([3.0, np.nan, 1.0, np.nan, 3.0])), [1.5, np.nan, 0, np.nan, 1.5]
    )
    assert np.isnan(average_ranks(np.full(3, np.nan))).all()
    assert average_ranks(np.empty(0)).shape == (0,)


@settings(max_examples=100, deadline=None)
@given(SOME, st.randoms(use_true_random=False))
def test_ranks_go_with_their_members(values, shuffle):
    order = list(range(len(values)))
    shuffle.shuffle(order)
    values = np.array(values)
    np.testing.assert_array_equal(average_ranks(values[order]), average_ranks(values)[order])


def test_an_order_of_the_best_few_ties_the_rest():
    np.testing.assert_array_equal(Ranking.of_order([4, 1], 6).rank, [3.5, 1, 3.5, 3.5, 0, 3.5])
    np.testing.assert_array_equal(Ranking.of_order([], 3).rank, [1, 1, 1])
    np.testing.assert_array_equal(Ranking.of_order([2, 0, 1], 3).rank, [1, 2, 0])
    for m, k in ((8, 0), (8, 3), (8, 8)):
        assert Ranking.of_order(range(k), m).rank.sum() == m * (m - 1) / 2


@pytest.mark.parametrize("order", [[0, 0], [3], [-1]])
def test_an_order_that_cannot_be_is_refused(order):
    with pytest.raises(InvalidArgument, match="different indices below 3"):
        Ranking.of_order(order, 3)


# ---------------------------------------------------------------------- values, degraded


def test_values_degrade_to_their_order_with_ties_and_failures_last():
    told = Values(np.array([2.0, np.inf, 1.0, 2.0, np.inf]), failed=flags(1, 4, n=5))
    np.testing.assert_array_equal(told.ranking().rank, [1.5, 3.5, 0, 1.5, 3.5])
    assert not told.ranking().skipped


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=10))
def test_the_ranking_is_that_of_any_increasing_transform(values):
    f = np.array(values, dtype=float)
    for transform in (np.exp, lambda f: f**3, lambda f: 3 * f - 7):
        np.testing.assert_array_equal(Values(transform(f)).ranking().rank, Values(f).ranking().rank)


def test_merits_are_values_or_ranks_and_nothing_else_has_any():
    np.testing.assert_array_equal(merits(Values(np.array([3.0, 1.0]))), [3, 1])
    np.testing.assert_array_equal(merits(Ranking(np.array([1.0, np.nan]))), [1, np.nan])
    assert np.isnan(merits(Ranking(np.array([0.0, 1.0]), skipped=True))).all()
    with pytest.raises(InvalidType, match="got Slopes"):
        merits(Slopes(np.zeros(2), np.zeros(2)))


# ---------------------------------------------------------------------- constraints


def test_the_feasible_come_first_then_the_less_violated_then_the_failed():
    told = Values(
        f=np.array([5.0, -9.0, 1e9, np.inf, -9.0]),
        failed=flags(3, n=5),
        violation=np.array([0.0, 0.1, 0.0, 0.0, 0.2]),
    )
    np.testing.assert_array_equal(np.argsort(told.merit()), [0, 2, 1, 4, 3])
    np.testing.assert_array_equal(told.feasible, [True, False, True, False, False])
    np.testing.assert_array_equal(told.merit()[[0, 2]], [5.0, 1e9])


def test_without_failures_and_violations_merit_is_the_value():
    f = np.array([3.0, -np.inf, 0.0])
    assert Values(f).merit() is f
    np.testing.assert_array_equal(Values(f, violation=np.zeros(3)).merit(), f)


def violated(violation):
    return Values(np.zeros(len(violation)), violation=np.asarray(violation)).merit()


def test_less_violation_is_better_over_twenty_four_decades():
    """In steps of one percent, from 1e-12 to 1e12, and at the ends: 0 is feasible, infinity is not failed."""
    levels = violated(np.exp(np.arange(np.log(1e-12), np.log(1e12), 0.01)))
    assert (np.diff(levels) > 0).all()
    assert violated([0.0])[0] == 0.0 < levels[0]
    assert levels[-1] < violated([np.inf])[0] < np.inf


def test_less_violation_is_better_at_every_scale():
    levels = violated(np.exp(np.arange(np.log(1e-300), np.log(1e300), 0.01)))
    assert (np.diff(levels) > 0).all()


def test_the_feasible_come_first_however_high_their_value():
    told = Values(np.array([1.7e308, -1.7e308]), violation=np.array([0.0, 1e-300]))
    assert told.merit()[0] < told.merit()[1]


# ---------------------------------------------------------------------- parts


def test_two_halves_are_the_whole():
    whole = Values(
        f=np.arange(5.0), stderr=np.ones(5), ended=flags(1, n=5), losses=np.arange(10.0).reshape(5, 2),
        violation=np.zeros(5), cost=np.full(5, 2.0), notes=((1, "low"), (4, "late")),
    )  # fmt: skip
    first = Values(
        whole.f[:2], whole.stderr[:2], None, whole.ended[:2], whole.losses[:2], whole.violation[:2], None, None,
        whole.cost[:2], ((1, "low"),),
    )  # fmt: skip
    second = Values(
        whole.f[2:], whole.stderr[2:], flags(2, n=3), whole.ended[2:], whole.losses[2:], whole.violation[2:], None,
        None, whole.cost[2:], ((2, "late"),),
    )  # fmt: skip
    both = first.joined(second)
    for name in ("f", "stderr", "ended", "losses", "violation", "cost"):
        np.testing.assert_array_equal(getattr(both, name), getattr(whole, name))
    np.testing.assert_array_equal(both.failed, flags(4, n=5))  # None in the first half: nothing failed there
    assert both.notes == whole.notes
    assert both.moved is None


# ---------------------------------------------------------------------- weights by rank


WEIGHTS = np.array([0.5, 0.3, 0.2, 0.0, -0.4, -0.6])


def test_without_ties_each_gets_the_weight_of_its_rank():
    merit = np.array([4.0, 1.0, 9.0, 2.0, 7.0, 3.0])
    np.testing.assert_allclose(spread_over_ranks(WEIGHTS, merit), WEIGHTS[[3, 0, 5, 1, 4, 2]], atol=1e-15)


def test_ties_share_what_they_would_have_got():
    merit = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0])
    expected = [0.4, 0.4, 0.2, -1 / 3, -1 / 3, -1 / 3]
    np.testing.assert_allclose(spread_over_ranks(WEIGHTS, merit), expected, rtol=1e-12)
    np.testing.assert_allclose(spread_over_ranks(WEIGHTS, np.zeros(6)), np.full(6, WEIGHTS.mean()), atol=1e-15)


def test_who_is_not_shown_gets_nothing_and_the_best_still_counts_most():
    given = spread_over_ranks(WEIGHTS, np.array([np.nan, 5.0, 1.0, np.nan, 3.0, 8.0]))
    assert given[0] == given[3] == 0.0
    assert given[2] > given[4] > given[1] > given[5]
    assert not spread_over_ranks(WEIGHTS, np.full(6, np.nan)).any()
