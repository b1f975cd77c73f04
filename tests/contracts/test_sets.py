"""Convex sets: oracles against formulas and random points, projections against general solvers, on both libraries."""

import itertools
import math

import numpy as np
import pytest
import torch

import dfo
from dfo.errors import InvalidArgument, InvalidType
from dfo.random import Key, normal
from dfo.sets import ConvexSet, is_convex
from dfo.spaces import Space

INEQUALITIES = dfo.Polytope(
    A_ub=np.vstack([np.eye(6), -np.eye(6)]), b_ub=np.full(12, 1.0), A_eq=np.ones((1, 6)), b_eq=[0.3]
)
SETS = {
    "simplex": dfo.Simplex(6, 2.0),
    "l1": dfo.L1Ball(6, 3.0),
    "l2": dfo.L2Ball(6, 0.5),
    "linf": dfo.LInfBall(6, 2.0),
    "l1.5": dfo.LpBall(6, 1.5, 2.0),
    "l4": dfo.LpBall(6, 4.0, 0.7),
    "k-sparse": dfo.KSparse(6, 2, 1.5),
    "groups": dfo.GroupBall(6, 2, 1.3),
    "nuclear": dfo.NuclearBall((2, 3), 2.0),
    "nuclear, iterated": dfo.NuclearBall((2, 3), 2.0, exact=0),
    "operator norm": dfo.OpNormBall((3, 2), 2.0),
    "spectrahedron": dfo.Spectrahedron(3, 2.0),
    "spectrahedron, iterated": dfo.Spectrahedron(3, 2.0, exact=0),
    "vertices": dfo.Polytope(vertices=normal(Key(1), (9, 6))),
    "inequalities": INEQUALITIES,
    "birkhoff": dfo.Birkhoff(3),
    "product": dfo.Product([dfo.Simplex(3), dfo.L2Ball(2), dfo.Box([0, -1], [1, 2])]),
    "shifted": dfo.Shifted(dfo.L1Ball(4), [0.0, 1.0, 2.0, 3.0]),
    "scaled": dfo.Scaled(dfo.Simplex(4), 3.0),
}
EVERY = pytest.mark.parametrize("space", SETS.values(), ids=SETS)


def slopes(space, n=30, seed=2):
    return normal(Key(seed), (n, space.dim))


@EVERY
def test_a_set_is_a_space(space):
    assert isinstance(space, Space)
    assert isinstance(space, ConvexSet)
    assert is_convex(space)
    drawn = space.sample(Key(0), 200)
    assert drawn.shape == (200, space.dim)
    assert all(space.contains(x) for x in drawn)
    assert space.contains(space.center)
    assert not space.contains(space.center[:-1])
    assert not space.contains(np.full(space.dim, np.nan))
    assert not space.contains("text")
    far = space.center + 1e3
    assert not space.contains(far)


@EVERY
def test_the_oracle_is_in_the_set_and_nothing_drawn_lies_lower(space):
    S = slopes(space)
    V = space.lmo(S)
    assert V.shape == S.shape
    assert all(space.contains(v, 1e-10) for v in V)
    values = (S * V).sum(axis=1)
    np.testing.assert_allclose(space.support(S), values, rtol=1e-10)
    lowest = (S @ space.sample(Key(3), 10_000 // len(S)).T).min(axis=1)
    assert (lowest >= values - 1e-10).all()


@EVERY
def test_rows_are_points_and_scale_does_not_matter(space):
    S = slopes(space, 5)
    V = space.lmo(S)
    for s, v in zip(S, V, strict=True):
        np.testing.assert_allclose(space.lmo(s), v, atol=1e-9)
        np.testing.assert_allclose(space.lmo(1e6 * s), v, atol=1e-9)
        np.testing.assert_allclose(space.lmo(1e-6 * s), v, atol=1e-9)


@EVERY
def test_warm_starts_give_the_same_points(space):
    warm = None
    for s in slopes(space, 4):
        v, warm = space.lmo_warm(s, warm)
        np.testing.assert_allclose(v, space.lmo(s), atol=1e-8)


@EVERY
def test_a_projection_is_the_nearest_point(space):
    """x - y is in the normal cone of y: no point of the set lies further along it."""
    X = 3.0 * slopes(space)
    Y = space.project(X)
    assert (np.asarray(space.excess(Y)) <= 1e-9).all()
    R = X - Y
    ahead = -np.asarray(space.support(-R)) - (R * Y).sum(axis=1)
    assert np.abs(ahead).max() <= 1e-7
    inside = space.sample(Key(4), 10)
    np.testing.assert_allclose(space.project(inside), inside, atol=1e-8)


@EVERY
def test_torch_and_single_precision_keep_their_type(space):
    S = slopes(space, 5)
    for function in (space.lmo, space.project, space.tangent):
        for dtype in (torch.float32, torch.float64):
            got = function(torch.tensor(S, dtype=dtype))
            assert got.dtype == dtype
            np.testing.assert_allclose(got.numpy(), function(S), atol=1e-9 if dtype == torch.float64 else 2e-4)
        assert function(S.astype(np.float32)).dtype == np.float32
    x = space.project(torch.tensor(S[0], dtype=torch.float32))
    assert space.contains(x)


@EVERY
def test_tangents_stay_in_the_plane_of_the_set(space):
    Z = space.tangent(slopes(space))
    np.testing.assert_allclose(space.tangent(Z), Z, atol=1e-12)
    ends = space.lmo(slopes(space, 10, 5))
    np.testing.assert_allclose(space.tangent(ends - ends[0]), ends - ends[0], atol=1e-9)


def general(space, x):
    """Project by scipy's SLSQP onto a set given by smooth inequalities and equations."""
    from scipy.optimize import minimize

    d, r = len(x), getattr(space, "radius", 1.0)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=d)))
    ineq, eq = {
        "Simplex": (lambda y: y, lambda y: [y.sum() - r]),
        "L1Ball": (lambda y: r - signs @ y, None),
        "L2Ball": (lambda y: r**2 - y @ y, None),
        "LpBall": (lambda y: r - (np.abs(y) ** space.p).sum() ** (1 / space.p), None),
        "KSparse": (lambda y: np.concatenate([r - y, r + y, space.k * r - signs @ y]), None),
        "Polytope": (lambda y: np.concatenate([1.0 - y, 1.0 + y]), lambda y: [y.sum() - 0.3]),
        "Birkhoff": (
            lambda y: y,
            lambda y: np.concatenate([y.reshape(3, 3).sum(0), y.reshape(3, 3).sum(1)[:2]]) - 1.0,
        ),
    }[type(space).__name__]
    constraints = [{"type": "ineq", "fun": ineq}] + ([{"type": "eq", "fun": eq}] if eq else [])
    start = space.center + 0.01
    return minimize(
        lambda y: 0.5 * ((y - x) ** 2).sum(), start, jac=lambda y: y - x, constraints=constraints, method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    ).x  # fmt: skip


@pytest.mark.parametrize("name", ["simplex", "l1", "l2", "l1.5", "l4", "k-sparse", "inequalities", "birkhoff"])
def test_projections_agree_with_a_general_solver(name):
    space = SETS[name]
    for x in 2.0 * slopes(space, 4, 7):
        np.testing.assert_allclose(space.project(x), general(space, x), atol=2e-5)


def test_vertices_and_inequalities_describe_the_same_polytope():
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    hull, cube = dfo.Polytope(vertices=corners), dfo.Polytope(A_ub=np.vstack([np.eye(3), -np.eye(3)]), b_ub=np.ones(6))
    X = 3.0 * normal(Key(0), (20, 3))
    np.testing.assert_allclose(hull.project(X), np.clip(X, -1.0, 1.0), atol=1e-9)
    np.testing.assert_allclose(cube.project(X), np.clip(X, -1.0, 1.0), atol=1e-9)
    np.testing.assert_allclose(hull.lmo(X), cube.lmo(X), atol=1e-9)


def test_of_several_minimisers_the_first_is_taken():
    for like in (np.zeros, lambda d: torch.zeros(d, dtype=torch.float64)):
        assert dfo.Simplex(4).lmo(like(4)).tolist() == [1.0, 0.0, 0.0, 0.0]
        assert np.flatnonzero(dfo.L1Ball(4).lmo(like(4) + 1.0)).tolist() == [0]
        assert np.flatnonzero(dfo.KSparse(4, 2).lmo(like(4) - 1.0)).tolist() == [0, 1]
        assert np.flatnonzero(dfo.GroupBall(4, 2).lmo(like(4) + 1.0)).tolist() == [0, 1]
    assert dfo.L2Ball(3).lmo(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_large_matrices_need_few_products_from_a_warm_start():
    """A slope that hardly changed: the pair is found again in one Krylov space (8 products)."""
    from dfo.sets.matrices import lowest_pair

    M = normal(Key(0), (300, 300))
    M = M @ M.T / 300 - 3.0 * np.outer(M[0], M[0]) / (M[0] @ M[0])
    counts, w = [], normal(Key(1), (300,))
    for _ in range(2):
        calls = [0]

        def apply(v, calls=calls):
            calls[0] += 1
            return M @ v + 1e-4 * v

        w, value = lowest_pair(apply, w + 1e-6)
        counts.append(calls[0])
        assert value == pytest.approx(np.linalg.eigvalsh(M + 1e-4 * np.eye(300))[0], rel=1e-10)
    assert counts[1] < counts[0]


def test_a_nuclear_ball_finds_its_pair_with_and_without_a_decomposition():
    S = normal(Key(0), (70 * 90,))
    exact, found = dfo.NuclearBall((70, 90), exact=100), dfo.NuclearBall((70, 90))
    assert float(S @ found.lmo(S)) == pytest.approx(float(exact.support(S)), rel=1e-12)
    v, warm = found.lmo_warm(S)
    assert warm.shape == (90,)
    assert np.linalg.matrix_rank(v.reshape(70, 90), 1e-8) == 1


def test_huge_and_tiny_numbers_do_not_break_lengths():
    for scale in (1e-200, 1e200):
        s = scale * np.array([3.0, 4.0])
        np.testing.assert_allclose(dfo.L2Ball(2).lmo(s), [-0.6, -0.8])
        np.testing.assert_allclose(dfo.L2Ball(2).project(s), s if scale < 1 else [0.6, 0.8])
        np.testing.assert_allclose(dfo.LpBall(2, 3.0).lmo(s), dfo.LpBall(2, 3.0).lmo(s / scale))


def test_projections_of_huge_points_are_points_of_the_set():
    for space in (dfo.Simplex(3), dfo.L1Ball(3), dfo.KSparse(3, 2)):
        for x in ([1e17, 0.0, -1e17], [1e17, 1e17, 1.0]):
            assert space.contains(space.project(x)), (space, x, space.project(x))
            assert space.contains(space.project(torch.tensor(x, dtype=torch.float64)))
    assert dfo.Simplex(2).project([5.0, 5.0]).tolist() == [0.5, 0.5]


def test_a_product_of_products_is_worked_block_by_block():
    inner = dfo.Product([dfo.Simplex(2), dfo.NuclearBall((2, 2), exact=0)])
    both = dfo.Product([inner, dfo.L1Ball(2)])
    s = slopes(both, 1)[0]
    v, warm = both.lmo_warm(s)
    np.testing.assert_allclose(v, np.concatenate([inner.lmo(s[:6]), dfo.L1Ball(2).lmo(s[6:])]))
    again, _ = both.lmo_warm(s, warm)
    np.testing.assert_allclose(again, v, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: dfo.L1Ball(0), "dim"),
        (lambda: dfo.L1Ball(3, 0.0), "radius"),
        (lambda: dfo.L1Ball(3, math.inf), "radius"),
        (lambda: dfo.LpBall(3, 1.0), "L1Ball"),
        (lambda: dfo.KSparse(3, 4), "k: expected 1 to 3"),
        (lambda: dfo.GroupBall(5, 2), "divisor"),
        (lambda: dfo.NuclearBall((2, 0)), "two sides"),
        (lambda: dfo.Birkhoff(0), "side"),
        (dfo.Polytope, "either vertices"),
        (lambda: dfo.Polytope(vertices=[[0.0, 1.0]], A_ub=[[1.0, 0.0]], b_ub=[1.0]), "either vertices"),
        (lambda: dfo.Polytope(A_ub=[[1.0, 0.0]], b_ub=[1.0]), "not empty and bounded"),
        (lambda: dfo.Polytope(A_ub=[[1.0], [-1.0]], b_ub=[-1.0, -1.0]), "not empty and bounded"),
        (lambda: dfo.Polytope(A_ub=[[1.0], [-1.0]], b_ub=[1.0]), "2|rows"),
        (lambda: dfo.Product([]), "at least one set"),
        (lambda: dfo.Scaled(dfo.Simplex(2), -1.0), "factor"),
        (lambda: dfo.Shifted(dfo.Simplex(2), [1.0]), "2 finite numbers"),
        (lambda: dfo.Box([0.0], [np.inf]).lmo([1.0]), "two finite bounds"),
    ],
)
def test_nonsense_is_refused(build, says):
    with pytest.raises(InvalidArgument, match=says):
        build()


def test_parts_must_be_sets():
    with pytest.raises(InvalidType, match="L1Ball"):
        dfo.Product([dfo.Free(2)])
