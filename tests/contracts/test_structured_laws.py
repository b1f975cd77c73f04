"""Laws of directions for points in named blocks: unit covariance, independence, what is held and for how long.

Seeds are fixed. Covariances are means over independent keys, of which each is one observation, so that what the
directions of a key share does not count twice; every entry is held to 5 standard errors. There are 300 entries a law,
so another seed fails once in 5,000 for normal means, somewhat more often where tails are heavy.
"""

import math

import numpy as np
import pytest
import torch

from dfo.directions import (
    LOZO,
    Block,
    Directions,
    Gaussian,
    LowRank,
    MagnitudeMask,
    Rademacher,
    RandomCoordinate,
    RandomMask,
    Sphere,
    SubZero,
)
from dfo.errors import InvalidArgument, InvalidType
from dfo.random import Key, normal
from dfo.structured import held, layer, over

SHAPES = {"0.weight": (3, 4), "0.bias": (3,), "1.weight": (2, 2, 2), "head": (1,)}
D = 24
LIKE = {name: np.zeros(shape) for name, shape in SHAPES.items()}
LAWS = {
    "sphere": Sphere(),
    "block": Block(),
    "block, random": Block(Rademacher(), order="random"),
    "block of low rank": Block(LowRank(rank=2, entries="gaussian")),
    "block of low rank of signs": Block(LowRank()),
    "block of lozo": Block(LOZO(2, 3), groups=("bias|head",)),
    "random mask": RandomMask(0.4, 3),
    "lozo": LOZO(2, 3),
    "subzero": SubZero(2, 3),
    "subzero of full rank": SubZero(24, 3),
    "coordinate": RandomCoordinate(),
}
G = normal(Key(99), (D,))
G /= np.linalg.norm(G)
GROUPS = ((0, 15), (15, 23), (23, 24))  # of the layers


def by_tensor(kappa):
    """Return ``E |g_hat|^2`` where a tensor ``(a, b)`` contributes ``kappa(a, b)``; vectors are gaussian."""
    total, at = 0.0, 0
    for shape in SHAPES.values():
        a, b = shape[0], math.prod(shape[1:])
        mine = kappa(a, b) if b > 1 else a + 2
        total += (G[at : at + a * b] ** 2).sum() * (D - a * b + mine)
        at += a * b
    return total


MOMENTS = {
    "sphere": D,
    "block": 3 * sum((G[i:j] ** 2).sum() * (j - i + 2) for i, j in GROUPS),
    "block, random": 3 * sum((G[i:j] ** 2).sum() * (j - i) for i, j in GROUPS),
    "random mask": D - 1 + 3 / 0.4,
    "block of low rank of signs": 3 * sum((G[i:j] ** 2).sum() * (j - i) for i, j in GROUPS),
    "lozo": by_tensor(lambda a, b: ((a + 2) * (b + 2) + a * b + 2) / 2),
    "subzero": by_tensor(lambda a, b: a * b * (1 + 2 / 4)),
    "subzero of full rank": by_tensor(lambda a, b: a * b + 2),
    "coordinate": D,
}
"""``E |(u . g) u|^2`` for ``|g| = 1``; in the docs, "Which directions to draw"."""

law_ = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def rows(law, key, count, like=LIKE):
    """Return ``(count, d)`` directions, blocks one behind the other, zeros where a block stays."""
    laws, drawn = over(law, key, {name: tuple(x.shape) for name, x in like.items()}), []
    for name, x in like.items():
        flat = x.reshape(-1)
        still = np.zeros((count, len(flat)))
        drawn.append(np.asarray(laws[name].rows(key.child(name), count, flat)) if name in laws else still)
    return np.concatenate(drawn, axis=1)


@law_
def test_unit_covariance_and_no_mean_and_the_second_moment(law):
    keys, q = 2400, 4
    products, means, moments = np.zeros((keys, D, D)), np.zeros((keys, D)), np.zeros(keys)
    for i in range(keys):
        U = rows(law, Key(1, (i,)).child(i % 12), q)  # steps of whole cycles, of 2, 3 and 4 groups
        products[i], means[i] = U.T @ U / q, U.mean(axis=0)
        moments[i] = ((U @ G) ** 2 * (U * U).sum(axis=1)).mean()
    for seen, expected in ((products, np.eye(D)), (means, np.zeros(D))):
        error = np.abs(seen.mean(axis=0) - expected)
        assert (error <= 5 * seen.std(axis=0) / math.sqrt(keys) + 1e-12).all()
        assert (seen.std(axis=0) / math.sqrt(keys)).max() < 0.15  # narrow enough to mean something
    expected = next((MOMENTS[name] for name, one in LAWS.items() if one is law and name in MOMENTS), None)
    if expected is not None:
        assert moments.mean() == pytest.approx(expected, abs=5 * moments.std() / math.sqrt(keys))
        assert moments.std() / math.sqrt(keys) < 0.04 * expected


@law_
@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.float32, torch.bfloat16], ids=str)
def test_a_direction_alone_is_its_row(law, kind):
    torchy = isinstance(kind, torch.dtype)
    like = {n: torch.zeros(s, dtype=kind) if torchy else np.zeros(s, kind) for n, s in SHAPES.items()}
    key, count = Key(2).child(7), 5
    for name, mine in over(law, key, SHAPES).items():
        flat, own = like[name].reshape(-1), key.child(name)
        whole = mine.rows(own, count, flat)
        assert whole.dtype == flat.dtype
        assert tuple(whole.shape) == (count, len(flat))
        if mine.elementwise:
            for start, n in ((0, 1), (2, len(flat)), (len(flat) - 1, 3 * len(flat) + 1)):
                assert (mine.piece(own, start, n, flat) == whole.reshape(-1)[start : start + n]).all()
            continue
        a, b = SHAPES[name][0], math.prod(SHAPES[name][1:])
        left, right = mine.factors(own.child(0), a, b, count, flat)
        for i in range(count):
            one, other = mine.factors(own.child(0), a, b, 1, flat, i)
            assert (one[0] == left[i]).all()
            assert (other[0] == right[i]).all()
            assert (mine.row(own, i, flat) == (one @ other).reshape(-1)).all()


@law_
def test_recipes_move_points_in_blocks(law):
    directions, w = Directions(law, Key(3).child(4), 3, LIKE), np.array([0.5, 0.0, -2.0])
    U = rows(law, Key(3).child(4), 3)
    flat = lambda x: np.concatenate([block.reshape(-1) for block in x.values()])  # noqa: E731
    np.testing.assert_allclose(flat(directions.combine(w)), w @ U, atol=1e-12)
    x = {name: np.ones(shape) for name, shape in SHAPES.items()}
    np.testing.assert_allclose(flat(directions.add_member(x, 2, 0.1)), 1 + 0.1 * U[2], atol=1e-12)


@pytest.mark.parametrize("law", [Sphere(), Block(groups=("w",)), LOZO(), SubZero(2), RandomMask(0.9)], ids=repr)
def test_blocks_of_one_shape_share_no_number(law):
    like = {name: np.zeros((5, 6)) for name in ("w.a", "w.b")}
    one, other = rows(law, Key(4).child(0), 3, like).reshape(3, 2, 30).transpose(1, 0, 2)
    assert np.unique(one[one != 0]).size > 10
    assert not np.intersect1d(one[one != 0], other).size


def test_spheres_of_their_own():
    """Norm sqrt(m) a tensor, drawn whole or in pieces, also where a norm is taken in several."""
    for m in (1, 7, 600_000):
        law, like = Sphere().within((m,)), np.zeros(m, np.float32)
        U = law.rows(Key(5), 2, like).astype(float)
        np.testing.assert_allclose((U * U).sum(axis=1), m, rtol=1e-5)
        again = Sphere().within((m,)).piece(Key(5), m + m // 2, m - m // 2, like)
        np.testing.assert_array_equal(again, law.rows(Key(5), 2, like)[1, m // 2 :])


# ---------------------------------------------------------------------- what is held


def test_the_key_of_a_period_forgets_the_step_alone():
    assert held(Key(0, ("a", 3, 11)), 4) == held(Key(0, ("a", 3, 8)), 4) != held(Key(0, ("a", 3, 12)), 4)
    assert held(Key(0, ("a", 3, 11)), 4) != held(Key(0, ("a", 4, 11)), 4)
    assert held(Key(0, (11, "query")), 4) == held(Key(0, (8, "query")), 4) != held(Key(0, (8, "anchor")), 4)
    assert held(Key(0), 4) == held(Key(0), 5) != Key(0)


def matrices(law, step, count=4, shape=(30, 20)):
    return rows(law, Key(6).child(step), count, {"w": np.zeros(shape)}).reshape(count, *shape)


@pytest.mark.parametrize(("law", "sides"), [(LOZO(3, 5), 1), (SubZero(3, 5), 2)])
def test_subspaces_are_held_for_a_period(law, sides):
    """The steps of a period span 3 rows (and 3 columns, where these are held too), those of two periods 6."""
    rank = np.linalg.matrix_rank
    for first, last, expected in ((0, 4, 3), (5, 9, 3), (4, 5, 6)):
        both = np.concatenate([matrices(law, first), matrices(law, last)])
        assert not np.intersect1d(both[:4], both[4:]).size
        assert rank(both.reshape(-1, 20)) == expected
        columns = rank(both.transpose(0, 2, 1).reshape(-1, 30))
        assert columns == (expected if sides == 2 else 8 * 3)


def test_subzero_is_a_projected_core():
    """All singular values come from the core: a direction has norm sqrt(a b) |Z| / r."""
    law = SubZero(4, 10)
    (mine,) = over(law, Key(7).child(0), {"w": (30, 20)}).values()
    left, right = mine.factors(Key(7), 30, 20, 3, np.zeros(600))
    np.testing.assert_allclose(right[0] @ right[0].T, np.eye(4), atol=1e-12)
    basis = np.linalg.svd(left.transpose(1, 0, 2).reshape(30, -1))[0][:, :4]
    np.testing.assert_allclose(basis @ (basis.T @ left[2]), left[2], atol=1e-10)


def test_random_masks_are_held_for_a_period_and_have_their_density():
    law, like = RandomMask(0.1, 10), {"w": np.zeros((1000, 1000))}
    first, last, beyond = (rows(law, Key(8).child(t), 1, like)[0] != 0 for t in (0, 9, 10))
    assert (first == last).all()
    assert abs(first.mean() - 0.1) < 0.001  # 3.3 standard errors: another seed fails once in a thousand
    assert abs((first & beyond).mean() - 0.01) < 0.0005
    one, other = rows(law, Key(8).child(0), 2, {"w": np.zeros(50)}) != 0
    assert (one == other).all()


def test_blocks_take_turns():
    def moved(law, t):
        return list(over(law, Key(9).child(t), SHAPES))

    layers = [["0.weight", "0.bias"], ["1.weight"], ["head"]]
    assert [moved(Block(), t) for t in range(6)] == 2 * layers
    assert [moved(Block(groups=("weight",)), t) for t in range(2)] == [["0.weight", "1.weight"], ["0.bias", "head"]]
    turns = [len(moved(Block(order="random"), t)) for t in range(3000)]
    assert turns.count(2) == pytest.approx(1000, abs=5 * math.sqrt(3000 * 2 / 9))
    assert [layer(n) for n in ("a.b.2.c.3.weight", "a.weight", "weight")] == ["a.b.2", "a", "weight"]


# ---------------------------------------------------------------------- small weights


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_only_small_weights_move(make):
    weights = np.random.default_rng(0).normal(size=(13, 11)).astype(np.float32)
    law = MagnitudeMask(0.3).of({"w": make(weights), "zeros": make(np.zeros(9, np.float32))})
    small = np.abs(weights) <= np.quantile(np.abs(weights), 0.3, method="inverted_cdf")
    like = {"w": make(weights), "zeros": make(np.zeros(9, np.float32))}
    U = rows(law, Key(10).child(0), 20_000, like)
    mine, ties = U[:, :143], U[:, 143:]
    np.testing.assert_array_equal((mine != 0).all(axis=0), small.reshape(-1))
    np.testing.assert_array_equal((mine != 0).any(axis=0), small.reshape(-1))
    assert (ties != 0).all()  # equal magnitudes all count as small
    assert (mine**2).sum(axis=1).mean() == pytest.approx(143, rel=0.01)  # 6 standard errors
    assert (ties**2).mean() == pytest.approx(1, rel=0.02)  # 6 standard errors


def test_masks_of_half_precision_and_of_nothing():
    w = torch.randn(300, generator=torch.Generator().manual_seed(0)).bfloat16()
    law = MagnitudeMask(0.25).of({"w": w, "none": torch.empty(0)})
    (mine, none) = over(law, Key(0).child(0), {"w": (300,), "none": (0,)}).values()
    kept = mine.rows(Key(1), 1, w)[0] != 0
    assert kept.dtype == torch.bool
    assert w[kept].abs().max() < w[~kept].abs().min()
    assert 75 <= int(kept.sum()) < 80
    assert none.piece(Key(1), 0, 0, torch.empty(0)).numel() == 0


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: LOZO(rank=0), InvalidArgument, "rank >= 1"),
        (lambda: SubZero(period=0), InvalidArgument, "at least one step"),
        (lambda: RandomMask(0.0), InvalidArgument, "density in"),
        (lambda: MagnitudeMask(1.5), InvalidArgument, "density in"),
        (lambda: Block(order="any"), InvalidArgument, '"cyclic" or "random"'),
        (lambda: Block(MagnitudeMask()), InvalidArgument, "does not look at the weights"),
        (lambda: Directions(LOZO(), Key(0), 1, np.zeros(3)).dense(), InvalidType, "point in named blocks"),
        (lambda: LOZO().piece(Key(0), 0, 1, np.zeros(3)), InvalidType, "point in named blocks"),
        (lambda: Directions(MagnitudeMask(), Key(0), 1, LIKE).combine(np.ones(1)), InvalidType, "law.of"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


def test_a_law_without_structure_is_that_of_every_block():
    assert over(Gaussian(), Key(0), SHAPES) == dict.fromkeys(SHAPES, Gaussian())
