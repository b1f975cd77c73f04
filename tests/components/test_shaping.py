"""Fitness shaping: members that are equal weigh nothing, whatever rounding makes of it."""

import numpy as np
import pytest

from dfo.components.shaping import shaped
from dfo.feedback import Ranking, Values


@pytest.mark.parametrize("kind", ["centered", "nes", "standardized"])
@pytest.mark.parametrize("n", [2, 3, 7, 12, 29, 100])
def test_equal_members_weigh_nothing(kind, n):
    assert not shaped(kind, Values(np.full(n, 0.1))).any()
    if kind != "standardized":
        shown = np.r_[np.zeros(n - 1), np.nan]
        assert not shaped(kind, Ranking(shown)).any()


@pytest.mark.parametrize("kind", ["centered", "nes", "log", "standardized"])
def test_better_members_weigh_more(kind):
    w = shaped(kind, Values(np.array([3.0, 1.0, 2.0, np.inf]), failed=np.array([False, False, False, True])))
    assert w[1] == w.max()
    assert w[3] == w.min()
    assert w[1] > w[2] >= w[0]
