"""Updates that survive in low precision."""

import gc
import math

import numpy as np
import pytest
import torch

from dfo.errors import InvalidArgument, InvalidType
from dfo.nn import rounding
from dfo.nn.rounding import CHUNK, PERIODS, add_, add_product_, rounding_bits
from dfo.random import Key, normal, words

NARROW = [torch.bfloat16, torch.float16]
WIDE = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(name, *shape, scale=1.0):
    return normal(Key(5, (name,)), shape, torch.empty(0)) * scale


def bits_of(tensor):
    return tensor.detach().contiguous().view(torch.int16).clone()


def patterns(dtype):
    """Every number of a two-byte type."""
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)


def added(target, update, key, chunk=CHUNK):
    return add_(target, lambda start, stop: update[start:stop], key, chunk=chunk)


# ---------------------------------------------------------------------- what survives


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("low_rank", [False, True])
def test_length_that_survives(dtype, low_rank):
    # Share of an update of rms 1e-6 that is realised along itself, over 16 steps of 2^20 weights. A weight with
    # spacing s goes up with probability p = |d| / s, so the variance of the sum is sum d^2 |d| s at most, whatever the
    # weights did before. Tolerance: 5 standard errors, false alarm 6e-7 a case; the error is below 0.003 (bfloat16).
    steps, weights = 16, drawn("w", 1024, 1024, scale=0.02).to(dtype)
    left, right = drawn("l", 1024, 4, scale=0.5e-6), drawn("r", 4, 1024)
    update = (left @ right) if low_rank else drawn("u", 1024, 1024, scale=1e-6)
    start, d = weights.double(), update.double()
    for step in range(steps):
        if low_rank:
            add_product_(weights, left, right, Key(0, (step,)))
        else:
            added(weights, update.reshape(-1), Key(0, (step,)))
    spacing = torch.finfo(dtype).eps * 2.0 ** torch.floor(torch.log2(start.abs().clamp(min=2.0**-14)))
    length = float((d * d).sum())
    error = math.sqrt(float((d.abs() ** 3 * spacing).sum()) / steps) / length
    survived = float(((weights.double() - start) * d).sum()) / steps / length
    assert error < 0.004
    assert abs(survived - 1) < 5 * error


def test_more_than_99_percent_where_nearest_leaves_3():
    # standard error of the mean 0.0019 (as above, 2^21 weights, 16 keys): 0.99 is 5 of them below 1, false alarm 3e-7
    weights, update = drawn("W", 1 << 21, scale=0.02).bfloat16(), drawn("U", 1 << 21, scale=1e-6)
    length, kept = float(update.double() @ update.double()), []
    for seed in range(16):
        moved = added(weights.clone(), update, Key(seed)).double() - weights.double()
        kept.append(float(moved @ update.double()) / length)
    nearest = (weights.float() + update).bfloat16().double() - weights.double()
    assert np.mean(kept) >= 0.99
    assert float(nearest @ update.double()) / length < 0.05


def cosine_after(dtype, steps, turned):
    """Return the cosine of equal updates of rms 1e-6 with what became of them, one by one and collected."""
    weights, update = drawn("w", 1 << 17, scale=0.02).to(dtype), drawn("u", 1 << 17, scale=1e-6)
    start, wanted = weights.clone(), steps * update.double()
    for step in range(steps):
        if turned:
            add_(weights, lambda start, stop: update[start:stop], Key(1), step)
        else:
            added(weights, update, Key(1, (step,)))
    at_once = added(start.clone(), wanted.float(), Key(2))
    moved = [each.double() - start.double() for each in (weights, at_once)]
    return [float(each @ wanted / each.norm() / wanted.norm()) for each in moved]


def test_direction_that_survives():
    # Means over 2^17 weights: standard errors below 0.003. A hundred updates collected and then added are one rounding;
    # turned bits come close to that without collecting anything.
    assert cosine_after(torch.float16, 100, False)[0] > 0.95
    assert cosine_after(torch.float16, 100, True)[0] > 0.99
    independent, collected = cosine_after(torch.bfloat16, 100, False)
    assert independent > 0.74
    assert collected >= 0.9
    assert cosine_after(torch.bfloat16, 100, True)[0] > 0.88
    assert cosine_after(torch.bfloat16, 200, True)[0] > 0.95


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("size", [1.0, 3e-5, 2e-7])  # normal, and below the normal range of float16
def test_unbiased_by_the_exact_probability(dtype, size):
    # a share f of the spacing goes up with probability f: binomial, 5 standard errors, 12 shares: false alarm 7e-6
    n = 1 << 17
    for share in (0.0, 1 / 64, 0.25, 0.5, 0.9, 1.0):
        for sign in (1.0, -1.0):
            below = torch.full((n,), sign * size).to(dtype)
            above = torch.nextafter(below[:1], torch.full((1,), sign * math.inf, dtype=dtype))
            gap = float(above) - float(below[0])
            weights = added(below.clone(), torch.full((n,), share * gap), Key(3))
            up = float((weights == above).double().mean())
            assert bool(((weights == above) | (weights == below)).all())
            assert abs(up - share) <= 5 * math.sqrt(share * (1 - share) / n)


# ---------------------------------------------------------------------- bits


@pytest.mark.parametrize("dtype", NARROW)
def test_zero_changes_no_bit_of_any_number(dtype):
    everything = patterns(dtype)
    for zero in (0.0, -0.0):
        moved = added(everything.clone(), torch.full((1 << 16,), zero), Key(0))
        assert torch.equal(bits_of(moved), bits_of(everything))
    finite = everything[everything.isfinite()]
    size = len(finite) // 2
    product = add_product_(finite[: 2 * size].clone().view(2, size), torch.zeros(2, 3), torch.zeros(3, size), Key(0))
    assert torch.equal(bits_of(product).view(-1), bits_of(finite[: 2 * size]))


@pytest.mark.parametrize("dtype", NARROW)
def test_every_number_goes_to_a_neighbour(dtype):
    everything, update = patterns(dtype), drawn("all", 1 << 16, scale=1e-3)
    moved = added(everything.clone(), update * everything.float().abs().clamp(1e-7, 1e30).nan_to_num(1), Key(8))
    total = everything.float() + update * everything.float().abs().clamp(1e-7, 1e30).nan_to_num(1)
    finite, top = total.isfinite(), torch.finfo(dtype).max
    assert torch.equal(moved.isfinite(), finite)
    assert torch.equal(moved.isnan(), total.isnan())
    nearest = total.clamp(-top, top).to(dtype)
    inner = finite & (nearest.abs() < top)
    lower, upper = (torch.nextafter(nearest, torch.tensor(x, dtype=dtype)) for x in (-math.inf, math.inf))
    assert bool(((moved >= lower) & (moved <= upper))[inner].all())


@pytest.mark.parametrize("dtype", NARROW)
def test_extremes(dtype):
    top = torch.finfo(dtype).max
    weights = torch.tensor([top, -top, top, math.inf, -math.inf, math.nan, 1.0, 1.0, 1.0, 0.0], dtype=dtype)
    update = torch.tensor([top / 300, -top / 300, 3e38, 1.0, 1.0, 1.0, math.nan, math.inf, -math.inf, -0.0])
    for seed in range(20):
        moved = added(weights.clone(), update, Key(seed)).float()
        third = math.inf if dtype == torch.bfloat16 else top  # the sum itself is infinite in single precision, or not
        assert moved[:5].tolist() == [top, -top, third, math.inf, -math.inf]
        assert bool(moved[5:7].isnan().all())
        assert moved[7:].tolist() == [math.inf, -math.inf, 0.0]


def test_nan_of_any_pattern_stays():
    update = torch.tensor([0x7FFFFFFF, -1, 0x7F800001, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    for dtype in NARROW:
        for seed in range(20):
            assert bool(added(torch.ones(4, dtype=dtype), update, Key(seed)).isnan().all())


@pytest.mark.parametrize("dtype", NARROW + WIDE)
@pytest.mark.parametrize("chunk", [7, 1000, 4096, 1 << 20])
def test_chunks_do_not_matter(dtype, chunk):
    n = 20 * max(PERIODS) + 5 if chunk >= 1000 else 5000
    weights, update = drawn("w", n, scale=0.02).to(dtype), drawn("u", n, scale=1e-5)
    whole = added(weights.clone(), update, Key(4), chunk=n)
    assert torch.equal(added(weights.clone(), update, Key(4), chunk=chunk), whole)
    assert torch.equal(added(weights.clone(), update, Key(4)), whole)  # a replay
    if dtype in NARROW:
        assert not torch.equal(added(weights.clone(), update, Key(5)), whole)


@pytest.mark.parametrize("dtype", NARROW + WIDE)
def test_products_in_every_layout(dtype):
    # factors of few bits, so that every sum is exact and only the random bits could differ
    weights = drawn("w", 24, 5, 30, scale=0.02).bfloat16().to(dtype)
    left = torch.round(drawn("l", 24, 3) * 4) * 2.0**-20
    right = torch.round(drawn("r", 3, 150) * 4)
    wanted = add_product_(weights.clone(), left, right, Key(6))
    flat = (left @ right).reshape(-1)
    assert torch.equal(added(weights.clone(), flat, Key(6)), wanted)
    for chunk in (13, 150, 151, 1000, CHUNK):
        for strided in (weights.clone(), other_layout(weights, (2, 0, 1)), other_layout(weights, (1, 2, 0))):
            before = strided.stride()
            assert torch.equal(add_product_(strided, left, right, Key(6), chunk=chunk), wanted)
            assert torch.equal(added(other_layout(weights, (2, 1, 0)), flat, Key(6), chunk=chunk), wanted)
            assert strided.stride() == before
    tall_left, tall_right = torch.ones(120, 1) * 2.0**-12, torch.round(drawn("t", 1, 30) * 4)
    tall = add_product_(weights.clone(), tall_left, tall_right, Key(7))
    assert torch.equal(add_product_(other_layout(weights, (1, 2, 0)), tall_left, tall_right, Key(7), chunk=70), tall)


def other_layout(tensor, order):
    """Return a copy of the same numbers whose memory runs in another order."""
    back = [order.index(i) for i in range(len(order))]
    return tensor.permute(order).contiguous().permute(back)


def test_wide_types_are_plain_sums():
    weights, update = drawn("w", 40, 30), drawn("u", 40, 30)
    assert torch.equal(added(weights.clone(), update.view(-1), Key(0)), weights + update)
    left, right = drawn("l", 40, 2), drawn("r", 2, 30)
    assert torch.equal(add_product_(weights.clone(), left, right, Key(0)), torch.addmm(weights, left, right))
    double = add_product_(weights.double(), left, right, Key(0))
    assert torch.equal(double, torch.addmm(weights.double(), left.double(), right.double()))


def test_parameters_and_empty_tensors():
    layer = torch.nn.Linear(8, 8, dtype=torch.bfloat16)
    add_product_(layer.weight, torch.ones(8, 1), torch.ones(1, 8), Key(0))
    added(layer.bias, torch.ones(8), Key(1))
    assert layer.weight.requires_grad
    assert layer.weight.grad_fn is None
    assert bool((layer.bias > 0.5).all())
    empty = torch.empty(0, 4, dtype=torch.bfloat16)
    assert add_product_(empty, torch.ones(0, 2), torch.ones(2, 4), Key(0)) is empty
    assert float(added(torch.tensor(1.0, dtype=torch.float16), torch.ones(1), Key(0))) == 2.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nothing_outlives_an_update(dtype):
    """What waits for a collection of cycles adds up to many times the largest update."""
    gc.collect()
    gc.disable()
    try:
        add_product_(torch.ones(8, 8, dtype=dtype), torch.ones(8, 1), torch.ones(1, 8), Key(0))
        assert not [x for x in gc.get_objects() if type(x) in (rounding._Rounder, rounding._Bits)]
    finally:
        gc.enable()


def test_refusals():
    weights = torch.ones(4, 4, dtype=torch.bfloat16)
    with pytest.raises(InvalidType, match="int8"):
        added(weights.to(torch.int8), torch.ones(16), Key(0))
    with pytest.raises(InvalidType, match="expected a tensor"):
        added([1.0], torch.ones(1), Key(0))
    with pytest.raises(InvalidArgument, match="expected 16 numbers"):
        add_(weights, lambda start, stop: torch.ones(1), Key(0))
    with pytest.raises(InvalidArgument, match="does not fit"):
        add_product_(weights, torch.ones(4, 1), torch.ones(1, 5), Key(0))
    with pytest.raises(InvalidArgument, match="factors"):
        add_product_(weights, torch.ones(4, 1), torch.ones(2, 4), Key(0))


# ---------------------------------------------------------------------- random bits


def test_bits_are_uniform_and_uncorrelated():
    n = 1 << 20
    bits = rounding_bits(Key(2), 0, n).numpy()
    assert bits.min() >= 0
    assert bits.max() < 1 << 16
    # chi-square of 256 classes, 16 bits in two halves: 255 degrees, 6 standard deviations of the normal limit: < 1e-6
    for half in (bits >> 8, bits & 255):
        counts = np.bincount(half, minlength=256)
        # a table entry is used n / period times, so counts vary as those of the tables' XOR: pairwise independent,
        # variance of a count as for independent bits, but heavier tails; hence 6
        assert abs(((counts - n / 256) ** 2 / (n / 256)).sum() - 255) < 6 * math.sqrt(2 * 255) * 4
    centred = bits / 65536 - 0.5
    for lag in (1, 2, 64, 576, 4096, *PERIODS, PERIODS[0] - PERIODS[1]):
        r = float(np.mean(centred[lag:] * centred[:-lag]) * 12)
        assert abs(r) < 6 / math.sqrt(n - lag)  # pairwise independent, so the variance is that of independent bits
    other = rounding_bits(Key(3), 0, n).numpy() / 65536 - 0.5
    assert abs(float(np.mean(centred * other) * 12)) < 6 / math.sqrt(n)


def test_noise_of_a_matrix_has_no_structure():
    # updates of half a spacing: signs of the errors are one bit each. The largest singular value of 512 x 512
    # independent signs is 2 sqrt(512) = 45.3, Tracy-Widom fluctuations of about 1; a rank-one pattern would give 512
    for width in (512, 1024):
        signs = (rounding_bits(Key(9), 0, 512 * width).view(512, width) >> 15).double() * 2 - 1
        largest = float(torch.linalg.matrix_norm(signs, 2))
        assert largest < 1.15 * (math.sqrt(512) + math.sqrt(width))


def test_device_path_draws_the_same_bits():
    bits = rounding._Bits(Key(1), 3, 100_000, 5000, torch.device("cpu"))
    host = bits.draw(90_000, 95_000).clone()
    bits.host, bits.on_device = (
        False,
        [torch.from_numpy(t[:p].astype(np.int32)) for t, p in zip(bits.tables, PERIODS, strict=True)],
    )
    assert torch.equal(bits.draw(90_000, 95_000), host)


def test_bits_are_part_of_the_format():
    assert rounding_bits(Key(0), 0, 6).tolist() == rounding_bits(Key(0), 0, 10_000)[:6].tolist()
    assert rounding_bits(Key(0), 9_990, 10_000).tolist() == rounding_bits(Key(0), 0, 10_000)[9_990:].tolist()
    tables = [words(Key(0, ("rounding", i)), p).astype("<u8").view("<u2")[:p] for i, p in enumerate(PERIODS)]
    a, b, c = (int(t[12_345 % p]) for t, p in zip(tables, PERIODS, strict=True))
    assert rounding_bits(Key(0), 12_345, 12_346).tolist() == [a ^ b ^ c]
    assert rounding_bits(Key(0), 12_345, 12_346, 5).tolist() == [((a ^ b ^ c) + 5 * 40503) % 65536]
