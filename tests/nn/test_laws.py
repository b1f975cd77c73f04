"""Laws of directions on networks: losses of members, updates, replays, resumed runs."""

import io

import numpy as np
import pytest
import torch
from torch import nn

import dfo.nn
from dfo.directions import (
    LOZO,
    Block,
    Directions,
    LowRank,
    MagnitudeMask,
    Rademacher,
    RandomCoordinate,
    RandomMask,
    Sphere,
    SubZero,
)
from dfo.nn.engine import Engine
from dfo.nn.members import Draws, Entries, Factors
from dfo.nn.update import Term, move
from dfo.random import Key

LAWS = {
    "sphere": Sphere(),
    "block": Block(),
    "block of signs": Block(Rademacher(), groups=("weight",), order="random"),
    "block of low rank": Block(LowRank()),
    "gaussian low rank": LowRank(entries="gaussian"),
    "random mask": RandomMask(0.5, 3),
    "magnitude": MagnitudeMask(0.5, 3),
    "lozo": LOZO(2, 3),
    "subzero": SubZero(2, 3),
    "coordinate": RandomCoordinate(),
}
law_ = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
dtype_ = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(dtype=torch.float32):
    """A convolution, a norm and two linear layers."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten())
    return nn.Sequential(first, nn.LayerNorm(12), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batch(dtype=torch.float32):
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(8, 16, generator=drawn).to(dtype), torch.randint(3, (8,), generator=drawn)


def loss(module, given):
    return nn.functional.cross_entropy(module(given[0]).float(), given[1], reduction="none")


def looked(law, tensors):
    return law.of(tensors) if hasattr(law, "of") else law


def same(a, b):
    own, other = a.state_dict(), b.state_dict()
    return all(torch.equal(own[n].view(torch.uint8), other[n].view(torch.uint8)) for n in own)


# ---------------------------------------------------------------------- one step


@law_
@pytest.mark.parametrize("t", [0, 4])
def test_members_are_where_the_directions_lead(law, t):
    engine = Engine(network(torch.float64), loss, evaluate="together")
    tensors, index, scale = engine.tensors, np.array([0, 0, 1, 1, 2, 2]), np.tile([0.1, -0.1], 3)
    directions = Directions(looked(law, tensors), Key(2).child(t), 3, tensors)
    got = engine.losses(batch(torch.float64), Draws(directions, tensors), index, scale)
    members = [
        directions.add_member({n: x.detach().clone() for n, x in tensors.items()}, int(i), float(s))
        for i, s in zip(index, scale, strict=True)
    ]
    points = {name: torch.stack([m[name] for m in members]) for name in tensors}
    torch.testing.assert_close(got, engine.losses_of(batch(torch.float64), points), rtol=1e-10, atol=1e-12)
    assert len(set(got.mean(1).tolist())) == 6


@law_
@dtype_
def test_an_update_is_the_sum_of_the_directions(law, dtype):
    tensors = {n: p.data for n, p in network(dtype).named_parameters()}
    w = np.array([0.3, 0.0, -0.2])
    directions = Directions(looked(law, tensors), Key(3).child(5), 3, tensors)
    sums = {name: torch.zeros_like(x) for name, x in tensors.items()}
    move(sums, [Term(Draws(directions, tensors), w, [(0, 2), (2, 3)])], Key(4))
    wanted = directions.add_to({name: torch.zeros_like(x) for name, x in tensors.items()}, w)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(sums, wanted, **close)


def test_tensors_that_a_step_leaves_alone_have_no_stream():
    tensors = Engine(network(), loss).tensors
    groups = [set(Draws(Directions(Block(), Key(0).child(t), 2, tensors), tensors).streams) for t in range(4)]
    assert groups == [{f"{g}.weight", f"{g}.bias"} for g in ("0.1", "1", "2", "4")]


def test_matrices_are_products_where_the_law_says_so():
    tensors = Engine(network(), loss).tensors
    for law in (LOZO(), SubZero(2), RandomCoordinate(), LowRank()):
        streams = Draws(Directions(law, Key(0).child(0), 2, tensors), tensors).streams
        assert {n for n, s in streams.items() if isinstance(s, Factors)} == {"0.1.weight", "2.weight", "4.weight"}
        assert all(isinstance(s, (Factors, Entries)) for s in streams.values())


@law_
def test_a_closure_sees_the_members_too(law):
    """Live weights moved in place and members that ride together: the same losses, hence the same step."""
    one, other = network(torch.float64), network(torch.float64)
    given = batch(torch.float64)
    together = dfo.nn.ZOSGD(one, lr=0.1, samples=3, directions=law)
    alone = dfo.nn.ZOSGD(other, lr=0.1, samples=3, directions=law)
    for _ in range(4):
        f = together.step(lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1], reduction="none"), given)
        assert alone.step(lambda: nn.functional.cross_entropy(other(given[0]), given[1])) == pytest.approx(f, rel=1e-9)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------------- runs


def front(module, law, rule="sgd"):
    return dfo.nn.ZOSGD(module, lr=0.02, samples=2, directions=law, rule=rule, weight_decay=0.0)


@law_
@dtype_
@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_live_weights_are_those_of_the_log(law, dtype, rule):
    live, rebuilt = network(dtype), network(dtype)
    opt = front(live, law, rule)
    log = opt.log_to()
    for _ in range(11):
        opt.step(loss, batch(dtype))
    opt.flush()
    front(rebuilt, law, rule).replay(log)
    assert not same(live, network(dtype))
    assert same(live, rebuilt)


@law_
@dtype_
@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_a_run_goes_on_within_a_period(law, dtype, rule):
    """Saved after 5 steps, in the middle of the second period, through a file."""
    whole = network(dtype)
    opt, file = front(whole, law, rule), io.BytesIO()
    for t in range(11):
        if t == 5:
            torch.save({"module": whole.state_dict(), "opt": opt.state_dict()}, file)
            file.seek(0)
        opt.step(loss, batch(dtype))
    opt.flush()
    kept, resumed = torch.load(file), network(dtype)
    resumed.load_state_dict(kept["module"])
    again = front(resumed, law, rule)
    again.load_state_dict(kept["opt"])
    for _ in range(6):
        again.step(loss, batch(dtype))
    again.flush()
    assert same(whole, resumed)


def test_small_weights_are_those_at_the_start_of_the_period():
    """What does not move within a period is above the quantile at its start."""
    module = network()
    opt = dfo.nn.ZOSGD(module, lr=0.3, samples=2, directions=MagnitudeMask(0.5, 3))
    for t in range(8):
        if t % 3 == 0:
            before = {n: p.detach().clone() for n, p in module.named_parameters()}
            large = {n: x.abs() > x.abs().flatten().kthvalue(-(-x.numel() // 2)).values for n, x in before.items()}
        opt.step(loss, batch())
        for name, p in module.named_parameters():
            assert torch.equal(p[large[name]], before[name][large[name]])
            assert not (p == before[name])[~large[name]].any()
    assert list(opt.course.laws.seen) == [2]  # masks of past periods are forgotten


def test_a_resumed_run_finds_its_masks_in_the_snapshot(tmp_path):
    law, whole, again = MagnitudeMask(0.5, 5), network(), network()
    opt = front(whole, law)
    log = opt.log_to(tmp_path / "log", snapshots=dfo.nn.Snapshots(tmp_path / "snapshots"), every=4)
    for _ in range(9):
        opt.step(loss, batch())
    log.close()
    resumed = front(again, law)
    resumed.resume(tmp_path / "log", snapshots=dfo.nn.Snapshots(tmp_path / "snapshots"), every=4).close()
    assert resumed.t == 9
    assert same(whole, again)


@law_
def test_training_lowers_the_loss(law):
    module = network()
    opt = dfo.nn.ES(module, lr=0.02, population=8, sigma=0.01, directions=law)
    losses = [opt.step(loss, batch()) for _ in range(120)]
    assert np.mean(losses[-12:]) < 0.6 * losses[0]
