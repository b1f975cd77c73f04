"""Large arrays lie in recycled memory, and never in memory that something still refers to."""

import numpy as np
import pytest
import torch

from dfo.arrays import LARGE, release, scratch

LIKES = [np.empty(0, np.float32), torch.empty(0), torch.empty(0, dtype=torch.float64)]


def place(x):
    return x.data_ptr() if isinstance(x, torch.Tensor) else x.__array_interface__["data"][0]


@pytest.mark.parametrize("like", LIKES, ids=["numpy", "torch", "torch double"])
def test_memory_is_reused_when_nothing_refers_to_it(like):
    release()
    shape = (4, LARGE)
    first = scratch(shape, like)
    row, at = first[3], place(first)
    del first
    assert place(scratch(shape, like)) != at  # a view is a reference
    row[:] = 7.0
    other = scratch(shape, like)
    other[:] = 1.0
    assert (row == 7.0).all()
    del row
    assert at in {place(scratch(shape, like)) for _ in range(2)}
    release()


def test_small_arrays_are_ordinary_ones():
    x = scratch((3, 2), np.empty(0))
    assert x.shape == (3, 2)
    assert x.base is None
