"""Questions: built or only described, whole or in parts, a batch says the same."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfo.batch import DENSE_LIMIT, Batch, Items, Linear, Perturbations, Points
from dfo.directions import DISTRIBUTIONS, Coordinate, Directions, Gaussian, LowRank, Orthogonal, Sphere, Subspace
from dfo.errors import ProblemTooLarge
from dfo.random import Key, normal

N, D = 7, 6
SHARED = {
    "data": np.arange(10, 17),
    "lane": np.arange(N)[::-1],
    "step": 5,
    "commit": False,
    "top": 3,
    "port": "propose",
}


def perturbations(law, like=None, **changes):
    """Return seven members around two centers along four directions, some of them shared."""
    like = np.zeros(D) if like is None else like
    centers = tuple(normal(Key(1, (i,)), (D,), like) for i in range(2))
    fields = {
        "scale": np.array([0.1, -0.1, 2.0, 0.0, 1.0, -1.0, 0.5]),
        "origin": np.array([0, 0, 1, 1, 0, 1, 0]),
        "index": np.array([2, 2, 0, 1, 3, 0, 1]),
    }
    return Perturbations(centers, Directions(law, Key(2), 4, like), **{**fields, **SHARED, **changes})


def points(like=None):
    like = np.zeros(D) if like is None else like
    return Points(normal(Key(3), (N, D), like), latent=normal(Key(4), (N, 2), like), **SHARED)


LAWS = {**DISTRIBUTIONS, "low rank": LowRank((2, 3), 2, "gaussian"), "subspace": Subspace(np.eye(D)[[1, 4]])}
LAWS["low rank of signs"] = LowRank((2, 3), 2)
BATCHES = {"points": points, "items": lambda: Items(list("abcdefg"), **SHARED)}
BATCHES |= {f"perturbations, {name}": (lambda law=law: perturbations(law)) for name, law in LAWS.items()}
EVERY = pytest.mark.parametrize("make", BATCHES.values(), ids=BATCHES)
DESCRIBED = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def content(batch):
    """Return the members as a list of comparable things."""
    return [x.tolist() if hasattr(x, "tolist") else x for x in (batch.member(i) for i in range(len(batch)))]


# ---------------------------------------------------------------------- parts


@EVERY
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, N), max_size=4).map(sorted))
def test_the_parts_of_a_batch_are_the_batch(make, cuts):
    whole, edges = make(), [0, *cuts, N]
    parts = [whole.part(a, b) for a, b in pairwise(edges)]
    assert [member for part in parts for member in content(part)] == content(whole)
    for name in ("data", "lane"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    for part in parts:
        assert type(part) is type(whole)
        assert (part.step, part.commit, part.top, part.port) == (5, False, 3, "propose")


@EVERY
def test_a_part_of_a_part_is_a_part(make):
    whole = make()
    assert content(whole.part(1, 6).part(2, 4)) == content(whole.part(3, 5))


def test_what_the_solver_drew_goes_with_its_points():
    np.testing.assert_array_equal(points().part(2, 5).latent, points().latent[2:5])


@EVERY
def test_members_are_copies(make):
    batch = make()
    if isinstance(batch, Linear):
        before = content(batch)
        batch.member(3)[:] = 99.0
        assert content(batch) == before


def test_what_is_not_said_is_nothing_in_particular():
    batch = Points(np.zeros((2, 3)))
    assert batch.step == 0
    assert batch.data is batch.lane is batch.top is None
    assert batch.commit
    assert batch.port == "value"
    assert isinstance(batch, Batch)


# ---------------------------------------------------------------------- built and described


@DESCRIBED
def test_a_member_built_alone_is_the_row_built_among_all(law):
    batch = perturbations(law)
    np.testing.assert_array_equal(np.array(content(batch)), batch.dense())


@DESCRIBED
def test_members_are_centers_plus_scaled_directions(law):
    batch, U = perturbations(law), perturbations(law).directions.dense()
    for i in range(N):
        expected = batch.centers[batch.origin[i]] + batch.scale[i] * U[batch.index[i]]
        np.testing.assert_allclose(batch.member(i), expected, rtol=1e-14, atol=1e-15)
    plain = perturbations(law, index=None, origin=None, scale=np.full(4, 0.5), data=None, lane=None)
    np.testing.assert_allclose(plain.dense(), batch.centers[0] + 0.5 * U, rtol=1e-14)


@DESCRIBED
def test_combinations_weigh_the_directions_of_the_members(law):
    batch, weights = perturbations(law), np.array([1.0, 2.0, -3.0, 0.5, 0.0, 4.0, -1.0])
    expected = weights @ batch.directions.dense()[batch.index]
    np.testing.assert_allclose(batch.combine(weights), expected, rtol=1e-12, atol=1e-13)
    x = np.ones(D)
    assert batch.add_to(x, weights) is x
    np.testing.assert_allclose(x, 1.0 + expected, rtol=1e-12, atol=1e-13)
    part = batch.part(2, 6)
    np.testing.assert_allclose(part.combine(weights[2:6]), weights[2:6] @ batch.directions.dense()[batch.index[2:6]])


def test_points_combine_themselves():
    batch, weights = points(), np.arange(7.0)
    np.testing.assert_array_equal(batch.combine(weights), weights @ batch.X)
    x = np.ones(D)
    np.testing.assert_array_equal(batch.add_to(x, weights), 1.0 + weights @ batch.X)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@DESCRIBED
def test_tensors_ask_what_arrays_ask(law, dtype):
    here, there = perturbations(law), perturbations(law, torch.zeros(D, dtype=dtype))
    if dtype == torch.float32:
        here = perturbations(law, np.zeros(D, np.float32))
    assert there.dense().dtype == there.member(0).dtype == dtype
    tolerance = 64 * torch.finfo(dtype).eps
    np.testing.assert_allclose(there.dense().numpy(), here.dense(), rtol=tolerance, atol=tolerance)
    weights = np.linspace(-1, 1, N)
    np.testing.assert_allclose(
        there.combine(weights).numpy(), here.combine(weights), rtol=tolerance, atol=8 * tolerance
    )


def test_a_recipe_that_would_be_too_large_is_refused_and_its_members_are_not():
    center = np.zeros(1 << 20)
    n = DENSE_LIMIT // center.size + 1
    batch = Perturbations((center,), Directions(Gaussian(), Key(0), n, center), np.ones(n))
    with pytest.raises(ProblemTooLarge, match=rf"{n} members of {center.size} coordinates.*Use member"):
        batch.dense()
    assert batch.member(n - 1).std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("law", [Sphere(), Orthogonal(), Coordinate()])
def test_a_law_of_whole_directions_moves_one_array_in_place(law):
    x = np.ones(5)
    place = x.ctypes.data
    drawn = Directions(law, Key(0), 3, x)
    drawn.add_to(x, np.array([1.0, 0.0, -2.0]))
    assert x.ctypes.data == place
    np.testing.assert_allclose(x, 1.0 + np.array([1.0, 0.0, -2.0]) @ drawn.dense(), rtol=1e-14)
