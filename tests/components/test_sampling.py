"""A gaussian population is the same whether it is built at once or written piece by piece, and so are its sums."""

import numpy as np
import pytest
import torch

from dfo.arrays import to_numpy
from dfo.components import sampling
from dfo.components.sampling import cloud, moments
from dfo.random import Key, normal

KINDS = {"numpy": np.float32, "double": np.float64, "torch": torch.float32}


def made(kind, values):
    return torch.tensor(values, dtype=torch.float32) if kind == "torch" else np.asarray(values, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_written_in_pieces_it_is_what_it_is_at_once(kind, mirrored, monkeypatch):
    d, n, key = 1001, 6, Key(3)
    center, stdev = made(kind, np.linspace(-1, 1, d)), made(kind, np.linspace(0.5, 2, d))
    whole = to_numpy(cloud(center, stdev, key, n, mirrored))
    monkeypatch.setattr(sampling, "CHUNK", 128)
    np.testing.assert_allclose(to_numpy(cloud(center, stdev, key, n, mirrored)), whole, rtol=1e-6, atol=1e-6)
    z = to_numpy(normal(key, (n // 2 if mirrored else n, d), center)).astype(float)
    expected = to_numpy(center) + to_numpy(stdev) * (
        np.repeat(z, 2, 0) * np.tile([[1], [-1]], (n // 2, 1)) if mirrored else z
    )
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [6, 7])
def test_sums_over_a_population(kind, n, monkeypatch):
    d, key = 1001, Key(5)
    center, stdev = made(kind, np.linspace(-1, 1, d)), made(kind, np.linspace(0.5, 2, d))
    X = cloud(center, stdev, key, n + n % 2, mirrored=True)[:n]
    z = ((to_numpy(X) - to_numpy(center)) / to_numpy(stdev)).astype(float)
    w, v = np.linspace(-1, 2, n), np.linspace(3, -1, n)
    monkeypatch.setattr(sampling, "CHUNK", 700)
    for mirrored in (False, True):
        one, two = moments(X, center, stdev, w, v, mirrored)
        np.testing.assert_allclose(to_numpy(one), w @ z, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(to_numpy(two), v @ z**2, rtol=1e-4, atol=1e-4)
    assert moments(X, center, stdev, w)[1] is None
    assert moments(X, center, stdev, second=v)[0] is None
