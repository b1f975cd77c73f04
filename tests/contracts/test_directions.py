"""Laws of directions: ``E[u u^T] = I``, and the second moments of the estimates that are made of them.

For a linear function with gradient g, |g| = 1, one step of q directions estimates
``g_hat = (1/q) sum (u_i . g) u_i``; ``E |g_hat|^2`` is known exactly for every law. Seeds are fixed; where a
tolerance is statistical its false-alarm rate is stated.
"""

import math

import numpy as np
import pytest
import torch

from dfo.directions import (
    DISTRIBUTIONS,
    Coordinate,
    Directions,
    Gaussian,
    LowRank,
    Orthogonal,
    Rademacher,
    Sparse,
    Sphere,
    Subspace,
    distribution,
)
from dfo.errors import InvalidArgument, InvalidType, UnknownName
from dfo.random import Key, normal

D, SHAPE, DRAWS = 12, (3, 4), 240_000
LIKE = np.zeros(D)
G = normal(Key(99), (D,))
G /= np.linalg.norm(G)


def low_rank(a, b, r):
    """Return E |g_hat|^2 of a rank-r direction: (a + 2)(b + 2) at rank 1, a b + 2 at rank infinity."""
    return ((a + 2) * (b + 2) + (r - 1) * (a * b + 2)) / r


ONE = {
    "gaussian": (Gaussian(), D + 2),
    "sphere": (Sphere(), D),
    "rademacher": (Rademacher(), D),
    "sparse, half": (Sparse(0.5), D - 1 + 3 / 0.5),
    "sparse, tenth": (Sparse(0.1), D - 1 + 3 / 0.1),
    "rank 1": (LowRank(SHAPE, 1, "gaussian"), low_rank(3, 4, 1)),
    "rank 2": (LowRank(SHAPE, 2, "gaussian"), low_rank(3, 4, 2)),
    "rank 1 of signs": (LowRank(SHAPE), D),
    "rank 3 of signs": (LowRank(SHAPE, 3, "rademacher"), D + 2 * 2 / 3),
}


@pytest.mark.parametrize(("law", "expected"), ONE.values(), ids=ONE)
def test_the_second_moment_of_one_direction(law, expected):
    """Within 3 %, five standard errors or more: another seed fails once in a million, with the heaviest tails."""
    drawn = (law.rows(Key(1, (i,)), DRAWS, LIKE) for i in range(4))
    squares = np.concatenate([(U @ G) ** 2 * (U * U).sum(axis=1) for U in drawn])  # |g_hat|^2
    assert squares.std() / math.sqrt(squares.size) < 0.006 * expected
    assert squares.mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("q", [2, 5, 20])
@pytest.mark.parametrize(("law", "d"), [(Gaussian(), D + 1), (Sphere(), D - 1), (Rademacher(), D - 1)])
def test_the_second_moment_of_a_mean_of_independent_directions(law, d, q):
    """``1 + (d + 1) / q`` and ``1 + (d - 1) / q`` (Rademacher as the sphere), within 3 %."""
    U = law.rows(Key(2), DRAWS // q * q, LIKE).reshape(-1, q, D)
    estimates = np.einsum("tq,tqd->td", U @ G, U) / q
    assert (estimates**2).sum(axis=1).mean() == pytest.approx(1 + d / q, rel=0.03)


@pytest.mark.parametrize("law", [Orthogonal(), Coordinate()])
@pytest.mark.parametrize("q", [1, 5])
def test_the_second_moment_of_directions_that_avoid_each_other(law, q):
    """``d / q`` for orthogonal directions and for a random block of coordinates, within 5 standard errors."""
    U = np.stack([law.rows(Key(3, (i,)), q, LIKE) for i in range(8000)])
    estimates = np.einsum("tq,tqd->td", U @ G, U) / q
    squares = (estimates**2).sum(axis=1)
    assert squares.mean() == pytest.approx(D / q, abs=5 * squares.std() / math.sqrt(len(squares)))


@pytest.mark.parametrize("law", [Orthogonal(), Coordinate()])
@pytest.mark.parametrize("rounds", [1, 3])
def test_as_many_as_there_are_dimensions_are_the_gradient_itself(law, rounds):
    U = law.rows(Key(4), rounds * D, LIKE)
    np.testing.assert_allclose((U @ G) @ U / len(U), G, atol=1e-12)


@pytest.mark.parametrize("law", [law for law, _ in ONE.values()], ids=ONE)
def test_directions_have_unit_covariance_and_no_mean(law):
    """Each of 90 entries within 5 standard errors: another seed fails once in 19,000 (more where tails are heavy)."""
    U = law.rows(Key(5), DRAWS, LIKE)
    assert np.abs(U.mean(axis=0)).max() * math.sqrt(DRAWS) < 5
    products = np.stack([U[:, i] * U[:, j] for i in range(D) for j in range(i + 1)])
    errors = products.mean(axis=1) - np.eye(D)[np.tril_indices(D)]
    assert (np.abs(errors) <= 5 * products.std(axis=1) / math.sqrt(DRAWS) + 1e-12).all()


def test_orthogonal_directions_and_random_coordinates_have_unit_covariance():
    """Over 4000 keys, with entries of order sqrt(d): 5 standard errors, as above."""
    for law in (Orthogonal(), Coordinate()):
        U = np.concatenate([law.rows(Key(6, (i,)), 5, LIKE) for i in range(4000)])
        covariance = U.T @ U / len(U)
        assert np.abs(covariance - np.eye(D)).max() < 5 * math.sqrt(D / len(U))


def test_orthogonal_directions_are_as_uniform_as_the_sphere():
    """The fourth moment of an entry is 3 d / (d + 2) on the sphere; without the sign of r it would not be Haar."""
    U = Orthogonal().rows(Key(7), 60_000, LIKE)
    assert (U**4).mean(axis=0) == pytest.approx(3 * D / (D + 2), rel=0.06)
    assert np.abs(U.mean(axis=0)).max() < 5 / math.sqrt(60_000)
    for group in U.reshape(-1, D, D)[:50]:
        np.testing.assert_allclose(group @ group.T, D * np.eye(D), atol=1e-11)


def test_lengths_and_supports():
    np.testing.assert_allclose((Sphere().rows(Key(8), 1000, LIKE) ** 2).sum(axis=1), D, rtol=1e-13)
    assert set(Rademacher().rows(Key(8), 100, LIKE).reshape(-1)) == {-1.0, 1.0}
    moved = Sparse(0.1).rows(Key(8), 20_000, LIKE) != 0
    assert moved.mean() == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / moved.size))
    block = Coordinate().rows(Key(8), 5, LIKE)
    np.testing.assert_allclose(np.sort(block.max(axis=0)), [0] * 7 + [math.sqrt(D)] * 5)
    for r in (1, 2):
        for u in LowRank(SHAPE, r, "gaussian").rows(Key(8), 20, LIKE):
            assert np.linalg.matrix_rank(u.reshape(SHAPE)) == r
    assert set(LowRank(SHAPE).rows(Key(8), 20, LIKE).reshape(-1)) == {-1.0, 1.0}


def test_a_subspace_is_never_left_and_counts_for_the_whole():
    """E[u u^T] = (d / k) P: averaged over uniformly random subspaces it is the identity."""
    basis = np.linalg.qr(normal(Key(9), (D, 3)))[0].T
    U = Subspace(basis).rows(Key(10), DRAWS, LIKE)
    np.testing.assert_allclose(U @ basis.T @ basis, U, atol=1e-12)
    np.testing.assert_allclose(U.T @ U / DRAWS, D / 3 * basis.T @ basis, atol=5 * D / 3 * math.sqrt(2 / DRAWS))


# ---------------------------------------------------------------------- recipes


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Sparse()])
@pytest.mark.parametrize("like", [np.zeros(D), np.zeros(D, np.float32), torch.zeros(D)], ids=["f8", "f4", "torch f4"])
def test_any_piece_of_the_rows_can_be_drawn_alone(law, like):
    rows = law.rows(Key(11), 9, like).reshape(-1)
    for start, count in ((0, 1), (5, 50), (37, 71), (107, 1)):
        assert (law.piece(Key(11), start, count, like) == rows[start : start + count]).all()


def test_large_combinations_are_made_in_chunks_and_are_the_same():
    like = np.zeros(300_000)  # two chunks
    drawn, weights = Directions(Gaussian(), Key(12), 3, like), np.array([1.0, 0.0, -0.5])
    rows = drawn.dense()
    np.testing.assert_allclose(drawn.combine(weights), rows[0] - 0.5 * rows[2], atol=1e-14)
    np.testing.assert_array_equal(drawn.add_member(np.ones(300_000), 2, 0.25), 1.0 + 0.25 * rows[2])


def test_every_block_has_a_stream_of_its_own():
    blocks = {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}
    u = Directions(Gaussian(), Key(13), 2, blocks).combine(np.array([1.0, 0.0]))
    assert list(u) == ["a", "b"]
    assert u["a"].shape == (2, 3)
    assert not np.intersect1d(u["a"], u["b"]).size
    np.testing.assert_array_equal(u["b"].reshape(-1), Gaussian().rows(Key(13).child("b"), 2, np.zeros(6))[0])
    assert not blocks["a"].any()


def test_equal_keys_draw_equal_directions_and_other_keys_others():
    one, two, three = (Directions(Gaussian(), key, 2, LIKE).dense() for key in (Key(1), Key(1), Key(1, ("x",))))
    np.testing.assert_array_equal(one, two)
    assert not np.intersect1d(one, three).size


def test_names_stand_for_laws():
    assert all(distribution(name) is law for name, law in DISTRIBUTIONS.items())
    assert distribution(Sparse(0.3)) == Sparse(0.3)
    with pytest.raises(UnknownName, match="Did you mean 'gaussian'"):
        distribution("gausian")
    with pytest.raises(InvalidType, match="a name or a"):
        distribution(3)


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: Sparse(0.0), InvalidArgument, "a share in"),
        (lambda: Sparse(1.5), InvalidArgument, "a share in"),
        (lambda: LowRank((5, 5)).rows(Key(0), 1, LIKE), InvalidArgument, "does not fit 12"),
        (lambda: LowRank(SHAPE, 0).rows(Key(0), 1, LIKE), InvalidArgument, "of rank 0"),
        (lambda: LowRank(SHAPE, entries="sphere"), InvalidArgument, 'entries "gaussian" or "rademacher"'),
        (lambda: Sphere().piece(Key(0), 0, 1, LIKE), InvalidType, "draws whole directions"),
        (lambda: Directions(Gaussian(), Key(0), 1, {"a": LIKE}).dense(), InvalidType, "member by member"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
