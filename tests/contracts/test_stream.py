"""``dfo.random``: every draw is a function of (seed, path), whoever draws it, whenever, in whatever pieces.

The statistical tests have fixed seeds; the stated false-alarm rates say how often another seed would fail
although nothing is wrong.
"""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dfo
from dfo.errors import InvalidArgument, InvalidType
from dfo.random import Key, choice, integers, normal, permutation, philox_on_device, signs, uniform, words

LIKES = {
    "double": None,
    "single": np.zeros(0, np.float32),
    "torch double": torch.zeros(0, dtype=torch.float64),
    "torch single": torch.zeros(0),
    "torch bfloat16": torch.zeros(0, dtype=torch.bfloat16),
}


# ---------------------------------------------------------------------- the words, from the paper


def philox(counter, key):
    """Return one block of Philox4x64-10, written from Salmon et al. 2011 (section 3.2) in plain integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(right >> 64) ^ c[1] ^ k0, right % 2**64, (left >> 64) ^ c[3] ^ k1, left % 2**64]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    return c


def test_the_plain_philox_is_the_published_one():
    """Known answers of the authors' Random123 library (kat_vectors, philox4x64-10)."""
    assert philox([0] * 4, [0] * 2) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    full = 2**64 - 1
    assert philox([full] * 4, [full] * 2) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("key", [Key(0), Key(2**100, ("solver", 3)), Key(7, (-1, "é", 0))])
def test_words_are_philox_of_the_hashed_path(key):
    text = ";".join(f"i{p}" if isinstance(p, int) else f"s{len(p)}:{p}" for p in (key.seed, *key.path))
    digest = blake2b(text.encode(), digest_size=16).digest()
    pair = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    for block in (0, 1, 12_345, 2**32, 2**62):
        expected = philox([block + 1, 0, 0, 0], pair)
        assert words(key, 4, 4 * block).tolist() == expected


KNOWN_WORDS = ["c0a9b410817ce298", "5edd8a0f73473661", "73900032a7608539"]
KNOWN_NORMALS = [-1.1484584044761565, 1.2142717125192821, -0.624822156308986]
KNOWN_SIGNS = "---++--+-+---+++"  # the bits of the first word, lowest first
KNOWN_PERMUTATION = [4, 1, 2, 7, 6, 3, 5, 0]


def test_known_answers():
    """These numbers are the format (rng_version 2): a change of any of them needs a new version."""
    assert dfo.random.RNG_VERSION == 2
    assert [f"{w:016x}" for w in words(Key(0), 3)] == KNOWN_WORDS
    np.testing.assert_array_equal(uniform(Key(0), (3,)), [(int(w, 16) >> 11) * 2.0**-53 for w in KNOWN_WORDS])
    np.testing.assert_allclose(normal(Key(0), (3,)), KNOWN_NORMALS, rtol=1e-14)
    assert "".join("+" if s > 0 else "-" for s in signs(Key(0), (16,))) == KNOWN_SIGNS
    assert permutation(Key(0), 8).tolist() == KNOWN_PERMUTATION


@pytest.mark.parametrize("start", [0, 1, 3, 4, 2**32 - 2, 2**33 + 1, 2**62 + 5])
def test_a_device_computes_the_same_words(start):
    like = torch.zeros(0)
    for count in (1, 4, 7, 64):
        made = philox_on_device(Key(3, ("w",)), count, start, like).numpy().view(np.uint64)
        np.testing.assert_array_equal(made, words(Key(3, ("w",)), count, start))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gpu_draws_the_same_numbers(dtype):
    there, here = torch.zeros(0, dtype=dtype, device="cuda"), torch.zeros(0, dtype=dtype)
    key, shape = Key(1), (300, 7)
    assert torch.equal(uniform(key, shape, there).cpu(), uniform(key, shape, here))
    assert torch.equal(signs(key, shape, there).cpu(), signs(key, shape, here))
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(normal(key, shape, there).cpu(), normal(key, shape, here), rtol=0, atol=6 * tolerance)
    whole = normal(key, (1000,), there)
    assert torch.equal(normal(key, (77,), there, start=333), whole[333:410])


# ---------------------------------------------------------------------- slices


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 200), st.sampled_from(sorted(LIKES)), st.integers(0, 2**64))
def test_any_slice_can_be_drawn_alone(start, count, like, seed):
    key, like = Key(seed), LIKES[like]
    for draw in (uniform, normal, signs):
        whole, alone = draw(key, (1200,), like), draw(key, (count,), like, start=start)
        assert alone.shape == (count,)
        assert (alone == whole[start : start + count]).all(), draw.__name__


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**60), st.integers(1, 50), st.integers(0, 2**64))
def test_a_slice_far_out_costs_nothing_and_fits(start, count, seed):
    key = Key(seed)
    np.testing.assert_array_equal(words(key, count, start), words(key, count + 9, start)[:count])
    np.testing.assert_array_equal(words(key, count, start + 9), words(key, count + 9, start)[9:])


def test_rows_are_slices_of_the_flat_stream():
    key = Key(5)
    np.testing.assert_array_equal(normal(key, (7, 13))[3], normal(key, (13,), start=39))


# ---------------------------------------------------------------------- transforms


@pytest.mark.parametrize("like", LIKES.values(), ids=LIKES)
def test_numbers_take_the_library_and_type_that_was_asked_for(like):
    for draw in (uniform, normal, signs):
        drawn = draw(Key(0), (5, 2), like)
        assert drawn.shape == (5, 2)
        assert drawn.dtype == (np.float64 if like is None else like.dtype)
        assert isinstance(drawn, torch.Tensor) == isinstance(like, torch.Tensor)


def test_normals_agree_between_libraries_to_a_few_units_in_the_last_place():
    for one, two, eps in (("double", "torch double", 2**-52), ("single", "torch single", 2**-23)):
        a, b = (np.asarray(normal(Key(2), (100_000,), LIKES[name])) for name in (one, two))
        assert np.abs(a - b).max() <= 4 * 8 * eps  # numbers up to 8


@pytest.mark.parametrize("like", ["double", "single", "torch double", "torch single"])
def test_normals_have_the_moments_of_normals(like):
    """Mean, variance, skewness and kurtosis within 4.5 standard errors: another seed fails once in 37,000."""
    n = 1_000_000
    z = np.asarray(normal(Key(11), (n,), LIKES[like]), dtype=float)
    errors = {1: 1.0, 2: math.sqrt(2), 3: math.sqrt(15), 4: math.sqrt(96)}  # std of z^k
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert abs((z**power).mean() - expected) * math.sqrt(n) < 4.5 * errors[power]
    for lag in (1, 2, 3):  # the two of a pair, and neighbours of pairs
        assert abs((z[:-lag] * z[lag:]).mean()) * math.sqrt(n) < 4.5
    share = (np.abs(z) > 4).mean()
    assert share == pytest.approx(math.erfc(4 / math.sqrt(2)), rel=0.6)  # 63 expected


def test_uniforms_fill_the_unit_interval_evenly():
    """Chi-square over 1000 cells within 4.5 standard deviations (one seed in 150,000)."""
    u = uniform(Key(12), (1_000_000,))
    counts = np.bincount((u * 1000).astype(int), minlength=1000)
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() == pytest.approx(999, abs=4.5 * math.sqrt(2 * 999))
    assert 0.0 <= u.min() < u.max() < 1.0


def test_uniforms_stay_below_one_in_every_type():
    for like in LIKES.values():
        assert float(uniform(Key(0), (20_000,), like).max()) < 1.0


def test_signs_are_fair_and_ignore_each_other():
    s = signs(Key(13), (1_000_000,))
    assert set(s) == {-1.0, 1.0}
    for lag in (1, 2, 63, 64, 65):
        assert abs((s[:-lag] * s[lag:]).mean()) * 1000 < 4.5
    assert abs(s.mean()) * 1000 < 4.5


def test_integers_permutations_and_choices():
    drawn = integers(Key(1), 7, (70_000,))
    counts = np.bincount(drawn, minlength=7)
    assert ((counts - 10_000.0) ** 2 / 10_000.0).sum() < 35.0  # chi-square with 6 degrees: one seed in 200,000
    orders = [tuple(permutation(Key(2, (i,)), 3).tolist()) for i in range(6000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 32.0  # 5 degrees: one in 170,000
    assert len(set(choice(Key(3), 20, 12).tolist())) == 12


# ---------------------------------------------------------------------- keys


PATHS = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=5), max_size=4).map(tuple)


@given(PATHS, PATHS, st.integers(0, 2**100), st.integers(0, 2**100))
def test_different_paths_and_seeds_name_different_streams(one, two, seed, other):
    assert (Key(seed, one).words == Key(seed, two).words) == (one == two)
    assert (Key(seed, one).words == Key(other, one).words) == (seed == other)


def test_numbers_and_their_names_are_different_parts():
    assert Key(0).child(1, 2).words != Key(0).child(12).words != Key(0).child("12").words
    assert Key(0).child("a", "b") == Key(0).child("a").child("b")


def test_equal_keys_name_equal_streams():
    plain, foreign = Key(0).child(3), Key(0).child(np.int64(3))
    assert plain == foreign
    assert plain.words == foreign.words


def test_what_names_nothing_is_refused():
    with pytest.raises(TypeError):
        Key(0).child(1.7)


def test_children_are_independent():
    """The largest of 2016 correlations of 64 streams: above 5 standard errors once in 900 seeds."""
    n = 16_384
    for keys in ([Key(0).child(i) for i in range(64)], [Key(i) for i in range(64)]):
        z = np.stack([normal(key, (n,)) for key in keys])
        correlations = (z @ z.T / math.sqrt(n))[np.triu_indices(64, 1)]
        assert np.abs(correlations).max() < 5.0
        assert correlations.std() == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**100, np.int64(5), np.uint8(0)])
def test_every_integer_from_zero_is_a_seed(seed):
    assert Key.of(seed) == Key(int(seed))
    res = dfo.minimize(lambda x: float(x @ x), [1.0, 1.0], method="cma", budget=20, seed=seed)
    again = dfo.minimize(lambda x: float(x @ x), [1.0, 1.0], method="cma", budget=20, seed=int(seed))
    np.testing.assert_array_equal(res.x, again.x)


def test_different_seeds_are_different_runs():
    seeds = [0, 1, 2**32 - 1, 2**32, 2**100]
    runs = [dfo.minimize(lambda x: float(x @ x), [1.0], method="random", budget=5, seed=seed) for seed in seeds]
    assert len({run.fun for run in runs}) == len(seeds)


@pytest.mark.parametrize("seed", [-1, np.int64(-5)])
def test_negative_seeds_are_refused(seed):
    with pytest.raises(InvalidArgument, match=r"seed: expected an integer >= 0, got -\d"):
        dfo.minimize(lambda x: 1 / 0, [1.0], seed=seed)


@pytest.mark.parametrize("seed", [1.0, np.float64(2.0), True, np.True_, "0", None, (1,)])
def test_what_is_no_integer_is_refused(seed):
    with pytest.raises(InvalidType, match="seed: expected an integer >= 0"):
        dfo.minimize(lambda x: 1 / 0, [1.0], seed=seed)


# ---------------------------------------------------------------------- the world outside


def test_no_global_generator_is_read_or_moved():
    def states():
        return repr(np.random.get_state()), random.getstate(), torch.random.get_rng_state().tolist()

    def run():
        normal(Key(0), (10,), torch.zeros(0))
        x = torch.ones(3, dtype=torch.float64)
        return dfo.minimize(lambda x: float(x @ x), x, method="cma", budget=100).x

    before, first = states(), run()
    assert states() == before
    np.random.seed(99)
    random.seed(99)
    torch.manual_seed(99)
    assert torch.equal(run(), first)


def test_threads_draw_what_one_thread_draws():
    tasks = [(Key(seed), 1 + seed * 37 % 500, seed * 11 % 97) for seed in range(400)]

    def draw(task):
        key, count, start = task
        return np.concatenate([normal(key, (count,), start=start), uniform(key.child("u"), (3,))])

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, tasks))
    for task, drawn in zip(tasks, together, strict=True):
        np.testing.assert_array_equal(drawn, draw(task))
