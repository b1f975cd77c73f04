"""Sums of directions, added to tensors in place."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import profile

from dfo.directions import Directions, Gaussian, LowRank, Rademacher, Sparse
from dfo.nn import ZOSGD, update
from dfo.nn.members import Draws
from dfo.nn.update import Term, move
from dfo.random import Key

LAWS = [LowRank(), LowRank(rank=3), LowRank(entries="gaussian"), Gaussian(), Rademacher(), Sparse(0.3)]
W = np.array([0.5, 0.0, -0.25, 0.125])


def tensors(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    shapes = {"matrix": (13, 7), "vector": (11,), "kernel": (5, 3, 2, 2), "number": (), "row": (1, 9)}
    return {n: torch.randn(s, generator=draw, dtype=torch.float64).to(dtype) for n, s in shapes.items()}


def term(law, x, w, spans=((0, 4),), step=0):
    return Term(Draws(Directions(law, Key(1, (step,)), 4, x), x), np.asarray(w), spans)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moves_add_what_the_recipe_says(law, dtype):
    x, want = tensors(dtype), tensors(dtype)
    move(x, [term(law, x, W)], Key(2))
    Directions(law, Key(1, (0,)), 4, want).add_to(want, W)
    for n in x:
        torch.testing.assert_close(x[n], want[n], rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=1e-6)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_moves_are_linear(law):
    def shift(*terms):
        x = {n: torch.zeros_like(t) for n, t in tensors().items()}
        move(x, [term(law, x, w, step=step) for w, step in terms], Key(2))
        return x

    a, b, both, twice = shift((W, 0)), shift((W[::-1].copy(), 1)), shift((W, 0), (W[::-1].copy(), 1)), shift((2 * W, 0))
    for n in a:
        torch.testing.assert_close(both[n], a[n] + b[n], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(twice[n], 2 * a[n], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_stretches_and_spans_change_rounding_at_most(law, dtype, monkeypatch):
    whole, pieces = tensors(dtype), tensors(dtype)
    move(whole, [term(law, whole, W)], Key(2))
    monkeypatch.setattr(update, "STRETCH", 14)
    move(pieces, [term(law, pieces, W, ((0, 1), (1, 3), (3, 4)))], Key(2))
    for n in whole:
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(pieces[n], whole[n], rtol=2 * eps, atol=1e-3 * eps)
        if dtype != torch.float64:  # the same random bits: nearly all entries are rounded to the same side
            assert int((pieces[n] != whole[n]).sum()) <= 1 + whole[n].numel() // 50


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_no_weight_moves_no_bit(dtype, law):
    x = tensors(dtype)
    x["vector"][0] = -0.0
    before = {n: t.clone() for n, t in x.items()}
    move(x, [term(law, x, 0 * W)], Key(2))
    move(x, [], Key(2))
    for n in x:
        assert (
            x[n].numpy(force=True).tobytes() == before[n].numpy(force=True).tobytes()
            if dtype != torch.bfloat16
            else (torch.equal(x[n].view(torch.int16), before[n].view(torch.int16)))
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decay_shrinks(dtype):
    x, before = tensors(dtype), tensors(dtype)
    total = {n: torch.zeros_like(t, dtype=torch.float64) for n, t in x.items()}
    for turn in range(200):
        x = {n: t.clone() for n, t in before.items()}
        move(x, [], Key(turn), {"matrix": 0.999})
        total = {n: total[n] + x[n] for n in x}
    assert torch.equal(x["vector"], before["vector"])
    # 91 entries rounded 200 times: the mean is off by less than 5 standard errors, of a spacing of 2**-8 each
    shrunk = float((total["matrix"] / 200 - before["matrix"].double()).div(before["matrix"].double()).mean())
    assert abs(shrunk + 1e-3) < (1e-6 if dtype == torch.float32 else 5 * 2**-8 / (91 * 200) ** 0.5)


def live(function):
    """Return the most bytes of tensors that exist at a time within a call, beside those that exist before."""
    with profile(profile_memory=True) as seen:
        function()
    changes = sorted(
        (e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"
    )
    return max(itertools.accumulate(size for _, size in changes), default=0)


@pytest.mark.filterwarnings("ignore")  # of the profiler
def test_sixteen_directions_need_little_memory():
    """18 million weights, 16 directions, a batch in 8 parts: 5 % of the weights beside a plain pass of as many rows."""
    width = 3000
    layers = [nn.Linear(64, width), *(nn.Linear(width, width) for _ in range(2)), nn.Linear(width, 8)]
    module, x = nn.Sequential(*layers), torch.randn(16, 64)
    weights = sum(p.nbytes for p in module.parameters())

    def square(m, b):
        return m(b).square().mean(1)

    opt = ZOSGD(module, lr=1e-3, samples=16, radius=1e-3, room=1 << 20, evaluate="together")
    opt.step(square, x, parts=8)
    with torch.no_grad():
        plain = live(lambda: square(module, torch.randn(64, 64)))
    extra = live(lambda: opt.step(square, x, parts=8)) - plain
    assert plain > 64 * width * 4
    assert 0 < extra < 0.05 * weights, f"{extra / weights:.1%} of the weights"
