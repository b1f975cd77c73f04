"""Shares, intervals and ranks against numbers worked out by hand."""

import math

import numpy as np
import pytest

from dfo.bench.statistics import interval, mean_ranks, ranks, resamples, shares, weighted_means
from dfo.random import Key

INF = np.inf


def test_shares_count_targets_hit_within_the_budget():
    # one method, two problems, two seeds, two targets
    runtimes = np.array([[[[1.0, 5.0], [2.0, INF]], [[INF, INF], [3.0, 4.0]]]])
    found = shares(runtimes, np.array([0.5, 2.0, 5.0]))
    assert found.tolist() == [[[0.0, 0.5, 0.75], [0.0, 0.0, 0.5]]]


def test_a_budget_equal_to_the_runtime_suffices():
    assert shares(np.array([[[[3.0]]]]), np.array([3.0])).item() == 1.0


def test_shares_with_a_budget_of_its_own_for_each_problem():
    runtimes = np.array([[[[4.0]], [[4.0]]]])
    assert shares(runtimes, np.array([[3.0], [5.0]]))[:, :, 0].tolist() == [[0.0, 1.0]]


def test_resamples_draw_whole_clusters():
    weights = resamples(np.array([7, 7, 3, 9]), 500, Key(0))
    assert weights.shape == (500, 4)
    assert (weights[:, 0] == weights[:, 1]).all()  # one cluster: drawn together
    drawn = weights[:, 0] + weights[:, 2] + weights[:, 3]
    assert (drawn == 3).all()  # as many clusters as there are
    assert weights.mean(axis=0) == pytest.approx([1.0] * 4, abs=0.1)


def test_resamples_are_a_function_of_their_key():
    clusters = np.arange(6)
    assert (resamples(clusters, 9, Key(0)) == resamples(clusters, 9, Key(0))).all()
    assert (resamples(clusters, 9, Key(0)) != resamples(clusters, 9, Key(1))).any()


def test_weighted_means_of_unequal_clusters_are_ratios():
    values, weights = np.array([1.0, 1.0, 4.0]), np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    assert weighted_means(values, weights).tolist() == [2.0, 1.0, 4.0]


def test_interval_is_the_percentiles_of_the_resampled_means():
    # means of the resamples are 0.0, 0.01, ..., 1.0
    weights = np.stack([np.arange(101.0), 100 - np.arange(101.0)], axis=1)
    assert interval(np.array([1.0, 0.0]), weights) == pytest.approx((0.025, 0.975))


def test_a_constant_difference_has_no_spread():
    weights = resamples(np.arange(5), 100, Key(0))
    hard = np.array([0.1, 0.9, 0.5, 0.3, 0.7])
    low, high = interval((hard + 0.05) - hard, weights)
    assert low == pytest.approx(0.05)
    assert high == pytest.approx(0.05)
    spread = interval(hard, weights)
    assert spread[1] - spread[0] > 0.3  # while the shares themselves are uncertain


def test_one_cluster_has_no_interval():
    assert all(map(math.isnan, interval(np.array([0.2, 0.4]), resamples(np.array([1, 1]), 50, Key(0)))))


def test_ranks_share_ties_and_put_infinity_last():
    values = np.array([[1.0, 5.0], [1.0, INF], [0.5, INF]])
    assert ranks(values).tolist() == [[2.5, 1.0], [2.5, 2.5], [1.0, 2.5]]
    assert mean_ranks(values).tolist() == [1.75, 2.5, 1.75]
