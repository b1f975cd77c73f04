"""The engine against networks whose weights are written out, one member at a time.

The reference knows nothing of the engine: a copy of the module is given ``center + scale_i u_i`` by
:meth:`dfo.directions.Directions.add_member` and called on the member's own examples.
"""

import copy
import dataclasses
import os
import platform
import random
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import DROPOUT, REFUSED, ZOO, Padded, classes

from dfo.directions import Coordinate, Directions, Gaussian, LowRank, Rademacher, Sparse, Sphere
from dfo.errors import BadObjective, InvalidArgument
from dfo.nn import engine as engine_module
from dfo.nn import products
from dfo.nn.batches import split
from dfo.nn.engine import ALONE, Engine
from dfo.nn.members import Draws, Members
from dfo.nn.weights import Lag
from dfo.random import Key

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Error of a loss, as a share of it."""

SINGLE = {"llama", "hf-llama"}  # their norms go through single precision whatever the weights are

PAIRS = np.array([1, 1, 2, 2]), np.array([0.05, -0.05, 0.03, -0.03])
ANY_ORDER = np.array([2, 0, 2]), np.array([0.05, -0.02, -0.04])


def made(name, dtype=torch.float32, zoo=ZOO):
    """Return a module of the zoo, its batch and its loss in a precision."""
    module, batch, loss = zoo[name]()
    return module.to(dtype), tuple(x.to(dtype) if x.is_floating_point() else x for x in batch), loss


def written_out(module, loss, batches, directions, index, scale, offset=None):
    """Return the losses ``(n, B)`` of members whose weights are written out; ``batches`` has one for each member.

    ``module`` is a copy that nobody else uses: it is moved, and set back from clones.
    """
    tensors = {name: p.detach() for name, p in module.named_parameters() if name in directions.like}
    kept, told = {name: t.clone() for name, t in tensors.items()}, []
    for i, s, batch in zip(index, scale, batches, strict=True):
        for name, shift in (offset or {}).items():
            tensors[name].add_(shift)
        directions.add_member(tensors, int(i), float(s))
        with torch.no_grad():
            told.append(loss(module, batch).double().reshape(-1))
            for name, t in tensors.items():
                t.copy_(kept[name])
    return torch.stack(told)


def agree(got, want, tolerance):
    """Assert that losses agree, as a share of the largest."""
    assert got.shape == want.shape
    error = float((got - want).abs().max() / want.abs().max().clamp(min=1e-3))
    assert error <= tolerance, error


def tolerance_of(name, dtype):
    return 1e-5 if name in SINGLE else TOLERANCE[dtype]


# ---------------------------------------------------------------------- every parameter alone


CASES = {
    "rank 1, pairs": (LowRank(), PAIRS, "auto"),
    "rank 3, any order": (LowRank(rank=3), ANY_ORDER, "auto"),
    "rank 2, gaussian, pairs": (LowRank(rank=2, entries="gaussian"), PAIRS, "auto"),
    "gaussian stacked, pairs": (Gaussian(), PAIRS, "auto"),
    "gaussian streamed, any order": (Gaussian(), ANY_ORDER, "auto"),
    "rank 3, one by one": (LowRank(rank=3), ANY_ORDER, "one by one"),
}

IDLE = ("k.bias", "key.bias")
"""A bias of attention's keys changes no loss: the softmax takes it out."""


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("case", CASES)
def test_every_parameter_alone(name, case, monkeypatch):
    law, (index, scale), evaluate = CASES[case]
    if "streamed" in case:
        monkeypatch.setattr(engine_module, "STACK", 64)
        monkeypatch.setattr(products, "STRETCH", 16)
    dtype = torch.float32 if case == "rank 1, pairs" else torch.float64
    module, batch, loss = made(name, dtype)
    explicit, batches = copy.deepcopy(module), [batch] * len(index)
    for alone in dict(module.named_parameters()):
        engine = Engine(module, loss, params=lambda n, p, alone=alone: n == alone, evaluate=evaluate)
        directions = Directions(law, Key(3, (5,)), 3, engine.tensors)
        got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
        want = written_out(explicit, loss, batches, directions, index, scale)
        agree(got, want, tolerance_of(name, dtype))
        assert alone.endswith(IDLE) or float((want[0] - want[1]).abs().max()) > 1e-7, f"{alone} does nothing"


# ---------------------------------------------------------------------- whole networks


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("law", [LowRank(), LowRank(rank=3), Gaussian(), Rademacher()], ids=repr)
def test_whole_networks_in_padded_chunks(name, law):
    module, batch, loss = made(name)
    engine = Engine(module, loss, chunk=4)
    directions = Directions(law, Key(1, (2,)), 3, engine.tensors)
    index, scale = np.array([0, 0, 1, 1, 2, 2]), np.array([0.05, -0.05, 0.03, -0.03, 0.05, -0.05])
    got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
    agree(got, written_out(copy.deepcopy(module), loss, [batch] * 6, directions, index, scale), 1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("moves", ["head", "encoder.layers.1", "encoder.layers.0.norm", ""])
def test_torchs_encoder_keeps_members_together_where_it_would_fuse_or_nest(moves):
    _, batch, loss = made("attention-padded")
    module = Padded(nn.TransformerEncoderLayer(12, 2, 16, batch_first=True), nested=True).eval()
    engine = Engine(module, loss, params=lambda name, _: name.startswith(moves))
    directions = Directions(LowRank(), Key(1, (2,)), 1, engine.tensors)
    index, scale = np.array([0, 0]), np.array([0.1, -0.1])
    got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
    assert engine.together, engine.describe()
    assert torch.backends.mha.get_fastpath_enabled()
    agree(got, written_out(copy.deepcopy(module), loss, [batch] * 2, directions, index, scale), 1e-5)


RAISES = ("attention-time-first", "attention-cross")
"""Networks whose own checks refuse more rows: nn.MultiheadAttention with time first, and with a padding mask."""


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("law", [LowRank(), LowRank(rank=3), Gaussian()], ids=repr)
@pytest.mark.parametrize("share", [True, False])
def test_no_error_is_hidden_by_going_one_by_one(name, law, share):
    module, batch, loss = made(name)
    engine = Engine(module, loss)
    directions = Directions(law, Key(1, (2,)), 1, engine.tensors)
    for index in ([0], [0, 0], [0, 0, 0, 0]):
        scale = np.array([0.05, -0.05, 0.03, -0.03])[: len(index)]
        engine.losses(batch, Draws(directions, engine.tensors), np.array(index), scale, share=share)
    assert engine.together or "raised" not in engine.reason or name in RAISES, engine.describe()


@pytest.mark.parametrize("law", [LowRank(), Gaussian()], ids=repr)
def test_under_autocast_members_go_one_by_one_and_a_line_says_so(law):
    module = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3))
    x, target = torch.randn(8, 6), torch.randint(3, (8,))

    def loss(net, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = net(batch[0])
        assert scores.dtype == torch.bfloat16
        return F.cross_entropy(scores.float(), batch[1], reduction="none")

    engine = Engine(module, loss)
    directions = Directions(law, Key(1, (2,)), 2, engine.tensors)
    index, scale = np.array([0, 0, 1, 1]), np.array([0.3, -0.3, 0.2, -0.2])
    got = engine.losses((x, target), Draws(directions, engine.tensors), index, scale)
    assert not engine.together
    assert "autocast" in engine.describe()
    agree(got, written_out(copy.deepcopy(module), loss, [(x, target)] * 4, directions, index, scale), 1e-2)


class Reads(nn.Module):
    """Uses one layer on two tensors of the batch, on a view of one, and on what comes and goes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, a, b):
        y = self.first(a) * self.first(b) + self.first(a * 2.0).sin() + self.first(b * 3.0).cos()
        return self.last(y + self.first(a.view(-1, 2, 3).flatten(1)))


def test_passes_share_the_products_of_the_batch_and_evaluations_do_not():
    torch.manual_seed(0)
    module, index = Reads().double(), np.arange(8) // 2
    scale = 0.1 * (1.0 - 2.0 * (np.arange(8) % 2))

    def loss(m, batch):
        return m(batch["a"], batch["b"]).square().sum(1)

    for law in (LowRank(), LowRank(rank=2), Gaussian()):
        batch = {"a": torch.randn(4, 6, dtype=torch.float64), "b": torch.randn(4, 6, dtype=torch.float64)}
        engine = Engine(module, loss, chunk=2)
        for step in range(3):
            directions = Directions(law, Key(0, (step,)), 4, engine.tensors)
            got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
            agree(got, written_out(copy.deepcopy(module), loss, [batch] * 8, directions, index, scale), 1e-10)
            batch["a"].mul_(1.5)
            with torch.no_grad():
                module.first.weight.mul_(0.9)
        assert engine.together


def test_both_ends_share_a_pass_until_each_fills_one():
    module, loss = nn.Linear(3, 2), lambda net, x: net(x).square().mean(1)
    for law, rows, room, size in (
        (LowRank(), 512, 1 << 20, 2),
        (LowRank(), 1024, 0, 1),
        (Gaussian(), 1024, 1 << 20, 1),
        (Gaussian(), 1024, 0, 2),  # would be drawn twice
    ):
        x, each, scale = torch.randn(rows, 3), np.array([0, 0]), np.array([0.1, -0.1])
        engine, pair = Engine(module, loss), Engine(module, loss, chunk=2)
        draws = [Draws(Directions(law, Key(0), 1, e.tensors), e.tensors, room) for e in (engine, pair)]
        apart = engine.losses(x, draws[0], each, scale)
        assert engine.size == size
        assert torch.allclose(apart, pair.losses(x, draws[1], each, scale), rtol=1e-5, atol=1e-6)


def test_passes_are_filled_with_little_padding():
    engine = Engine(nn.Linear(3, 2), lambda net, x: net(x).square().mean(1))
    engine.together = True
    for n, rows, size in (
        (16, 129, 16),
        (32, 129, 16),
        (40, 129, 10),
        (14, 290, 8),
        (256, 64, 32),
        (7, 100, 7),
        (9, 600, 2),
    ):
        each = np.arange(n) // 2
        got = engine.size_of_chunk(torch.zeros(rows, 3), Members(each, np.ones(n), rows))
        assert got == size, (n, rows, got)
        assert got * rows <= 1.25 * engine_module.ROWS or got == 2


@pytest.mark.parametrize("name", ZOO)
def test_every_direction_sees_its_own_examples(name):
    module, batch, loss = made(name, torch.float64)
    engine = Engine(module, loss)
    q = 2 if len(batch[0]) % 2 == 0 else 3
    index, scale = np.repeat(np.arange(q), 2), np.tile([0.05, -0.05], q)
    directions = Directions(LowRank(), Key(1, (3,)), q, engine.tensors)
    got = engine.losses(batch, Draws(directions, engine.tensors), index, scale, share=False)
    parts = split(batch, q)
    want = written_out(copy.deepcopy(module), loss, [parts[j] for j in index], directions, index, scale)
    agree(got, want, tolerance_of(name, torch.float64))


def test_members_that_fill_a_pass_are_not_made_to_ride_together_for_a_comparison():
    """Two in a pass would hold twice the activations that any later pass holds."""
    module, batch, loss = made("mlp", torch.float64)
    rows, seen = len(batch[0]), set()
    many = tuple(x.repeat(-(-ALONE // rows), *[1] * (x.dim() - 1)) for x in batch)

    def counted(module, data):
        seen.add(len(data[0]))
        return loss(module, data)

    engine = Engine(module, counted)
    index, scale = np.array([0, 0]), np.array([0.05, -0.05])
    draws = Draws(Directions(LowRank(), Key(1), 1, engine.tensors), engine.tensors)
    alone = engine.losses(many, draws, index, scale)
    assert seen == {len(many[0])}
    assert "one member a pass" in engine.describe()
    agree(alone[:, :rows], engine.losses(batch, draws, index, scale), 1e-12)
    assert engine.together


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("evaluate", ["auto", "one by one"])
def test_updates_that_lag_behind_count(name, evaluate):
    module, batch, loss = made(name, torch.float64)
    engine = Engine(module, loss, evaluate=evaluate)
    index, scale = np.array([0, 0, 1, 1]), np.array([0.05, -0.05, 0.03, -0.03])
    directions = Directions(LowRank(), Key(1, (4,)), 2, engine.tensors)
    draw = torch.Generator().manual_seed(0)
    lag = {}
    for tensor_name, t in engine.tensors.items():
        if t.dim() > 1 and t[0].numel() > 1:
            sides = (t.shape[0], 2), (2, t[0].numel())
            lag[tensor_name] = tuple(0.05 * torch.randn(s, generator=draw, dtype=t.dtype) for s in sides)
    got = engine.losses(
        batch,
        Draws(directions, engine.tensors),
        index,
        scale,
        lag={n: Lag(f[0].shape[1], lambda f=f: f) for n, f in lag.items()},
    )
    offset = {n: (tall @ flat).view(engine.tensors[n].shape) for n, (tall, flat) in lag.items()}
    want = written_out(copy.deepcopy(module), loss, [batch] * 4, directions, index, scale, offset)
    agree(got, want, tolerance_of(name, torch.float64))


@pytest.mark.parametrize("law", [Sparse(0.3), Sphere(), Coordinate(), LowRank(((5, 4), (5,), (3, 5), (3,)))], ids=repr)
def test_laws_of_one_flat_vector(law):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    batch, index, scale = (torch.randn(6, 4), torch.randint(3, (6,))), *PAIRS
    engine = Engine(module, classes)
    flat = torch.cat([t.reshape(-1) for t in engine.tensors.values()])
    directions = Directions(law, Key(2), 3, flat)
    got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
    want = []
    for i, s in zip(index, scale, strict=True):
        own = copy.deepcopy(module)
        nn.utils.vector_to_parameters(directions.add_member(flat.clone(), int(i), float(s)), own.parameters())
        with torch.no_grad():
            want.append(classes(own, batch).double())
    agree(got, torch.stack(want), 1e-5)


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet", "vit", "gpt", "lstm", "bag"])
def test_explicit_points(name):
    module, batch, loss = made(name, torch.float64)
    engine = Engine(module, loss, chunk=2)
    draw = torch.Generator().manual_seed(1)
    points = {n: t + 0.05 * torch.randn(3, *t.shape, generator=draw, dtype=t.dtype) for n, t in engine.tensors.items()}
    got, want = engine.losses_of(batch, points), []
    for i in range(3):
        own = copy.deepcopy(module)
        own.load_state_dict({**own.state_dict(), **{n: X[i] for n, X in points.items()}}, strict=False)
        if name == "gpt":
            own.wte.weight.data = points["wte.weight"][i]
        with torch.no_grad():
            want.append(loss(own, batch).double())
    agree(got, torch.stack(want), 1e-10)


def test_common_members_do_not_depend_on_the_others():
    module, batch, loss = made("gpt")
    for law in (LowRank(), LowRank(rank=2), Gaussian()):
        told = []
        for q in (3, 4, 5):
            engine = Engine(module, loss, chunk=4)
            directions = Directions(law, Key(1), q, engine.tensors)
            index, scale = np.repeat(np.arange(q), 2), np.tile([1e-3, -1e-3], q)
            told.append(engine.losses(batch, Draws(directions, engine.tensors), index, scale)[:6])
        assert torch.equal(told[0], told[1])
        assert torch.equal(told[1], told[2])


class Named(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Filed:
    x: torch.Tensor
    y: torch.Tensor
    note: str = "kept"


def test_batches_of_any_nest():
    module, (x, y), _ = made("mlp")
    index, scale = PAIRS
    kinds = {
        "dict": ({"a": {"x": x}, "y": y, "t": 1.0}, lambda b: (b["a"]["x"], b["y"])),
        "list": ([x, [y, None]], lambda b: (b[0], b[1][0])),
        "named": (Named(x, y), lambda b: (b.x, b.y)),
        "filed": (Filed(x, y), lambda b: (b.x, b.y)),
    }
    engine = Engine(module, classes)
    directions = Directions(LowRank(), Key(0), 3, engine.tensors)
    want = engine.losses((x, y), Draws(directions, engine.tensors), index, scale)
    for nest, unpack in kinds.values():
        engine = Engine(module, lambda m, b, unpack=unpack: classes(m, unpack(b)))
        assert torch.equal(engine.losses(nest, Draws(directions, engine.tensors), index, scale), want)
        assert engine.together


# ---------------------------------------------------------------------- what may not ride together


class BatchNormed(nn.Module):
    """Statistics of the batch, behind a layer that moves; scale and shift are frozen or absent."""

    def __init__(self, affine):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8, affine=affine), nn.Linear(8, 3)
        self.norm.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.first(x))))


class Centred(nn.Module):
    """Subtracts the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.first(x)
        return self.head(torch.tanh(h - h.mean(0, keepdim=True)))


class Shuffled(Centred):
    """Each example is added to the one before it."""

    def forward(self, x):
        h = self.first(x)
        return self.head(torch.tanh(h + 0.3 * h.roll(1, 0)))


class Barely(Centred):
    """A leak from example to example that is a thousand times smaller than what a member's move does."""

    def forward(self, x):
        h = self.first(x)
        return self.head(torch.tanh(h + 1e-3 * h.mean(0, keepdim=True)))


class Turned(Centred):
    """Turns the batch round, and with it the members."""

    def forward(self, x):
        return self.head(torch.tanh(self.first(x).flip(0)))


class Writes(Centred):
    """Works on its input in place."""

    def forward(self, x):
        return self.head(torch.tanh(self.first(x.mul_(0.5).add_(0.1))))


def _normed(affine):
    return lambda: BatchNormed(affine).train()


@pytest.mark.parametrize(
    "make", [_normed(True), _normed(False), Centred, Shuffled, Barely, Turned],
    ids=["frozen batch norm", "plain batch norm", "centred", "shuffled", "barely", "turned"],
)  # fmt: skip
def test_modules_that_mix_examples_go_one_by_one(make):
    torch.manual_seed(0)
    module = make()
    batch, (index, scale) = (torch.randn(6, 6), torch.randint(3, (6,))), PAIRS
    engine = Engine(module, classes)
    directions = Directions(LowRank(), Key(0), 3, engine.tensors)
    got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
    assert engine.together is False, engine.reason
    assert engine.reason
    agree(got, written_out(copy.deepcopy(module), classes, [batch] * 4, directions, index, scale), 1e-5)


def test_a_change_of_mode_is_noticed():
    torch.manual_seed(0)
    module = BatchNormed(True).eval()
    batch, (index, scale) = (torch.randn(6, 6), torch.randint(3, (6,))), PAIRS
    engine = Engine(module, classes)
    directions = Directions(LowRank(), Key(0), 3, engine.tensors)
    draws = Draws(directions, engine.tensors)
    engine.losses(batch, draws, index, scale)
    assert engine.together
    module.train()
    got = engine.losses(batch, draws, index, scale)
    assert not engine.together
    agree(got, written_out(copy.deepcopy(module), classes, [batch] * 4, directions, index, scale), 1e-5)
    engine.loss = lambda m, b: classes(m.eval(), b)  # another loss: compared anew
    engine.losses(batch, draws, index, scale)


def test_losses_of_one_number_go_one_by_one():
    module, batch, loss = made("mlp")
    engine = Engine(module, lambda m, b: loss(m, b).mean())
    directions = Directions(LowRank(), Key(0), 3, engine.tensors)
    index, scale = PAIRS
    got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
    assert got.shape == (4, 1)
    assert engine.together is False
    agree(got[:, 0], written_out(module, loss, [batch] * 4, directions, index, scale).mean(1), 1e-5)


def test_a_loss_of_another_shape_is_an_error():
    module, batch, loss = made("mlp")
    for evaluate in ("auto", "one by one"):
        engine = Engine(module, lambda m, b: str(loss(m, b)), evaluate=evaluate)
        directions = Directions(LowRank(), Key(0), 3, engine.tensors)
        with pytest.raises(BadObjective, match="expected"):
            engine.losses(batch, Draws(directions, engine.tensors), *PAIRS)


# ---------------------------------------------------------------------- what is computed, and how often


class Rows(TorchDispatchMode):
    """Counts the rows of the matrix products with so many columns."""

    def __init__(self, width):
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "mm" in func.__name__ and isinstance(out, torch.Tensor) and out.shape[-1] == self.width:
            self.rows += out.numel() // out.shape[-1]
        return out


def test_a_frozen_base_is_computed_once():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(6, 37), nn.GELU(), nn.LayerNorm(37), nn.Linear(37, 41), nn.ReLU(), nn.Linear(41, 3)
    )
    engine = Engine(module, classes, params="^5")
    batch, directions = (torch.randn(8, 6), torch.randint(3, (8,))), Directions(LowRank(), Key(0), 4, engine.tensors)
    index, scale = np.repeat(np.arange(4), 2), np.tile([0.05, -0.05], 4)
    draws = Draws(directions, engine.tensors)
    want = engine.losses(batch, draws, index, scale)
    assert engine.together
    for width in (37, 41):
        with Rows(width) as counted:
            got = engine.losses(batch, draws, index, scale)
        assert counted.rows == 8
        assert torch.equal(got, want)
    agree(want, written_out(module, classes, [batch] * 8, directions, index, scale), 1e-5)


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank adapter."""

    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(6, 37), nn.Linear(6, 2, bias=False), nn.Linear(2, 37, bias=False)
        self.head = nn.Linear(37, 3)
        self.base.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.base(x) + 2.0 * self.up(self.down(x))))


def test_adapters_and_biases_alone():
    torch.manual_seed(0)
    module, batch = Adapted(), (torch.randn(8, 6), torch.randint(3, (8,)))
    index, scale = PAIRS
    for params in (None, "bias", "up|down", "base.bias"):
        for law in (LowRank(), Gaussian()):
            engine = Engine(module, classes, params=params)
            assert params is not None or "base.weight" not in engine.tensors
            directions = Directions(law, Key(0), 3, engine.tensors)
            got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
            assert engine.together
            agree(got, written_out(module, classes, [batch] * 4, directions, index, scale), 1e-5)


def test_tied_weights_are_one_tensor():
    module, batch, loss = made("gpt")
    module.head = nn.Linear(18, 29, bias=False)
    module.head.weight = module.wte.weight
    engine = Engine(module, loss)
    assert [n for n in engine.tensors if "head" in n] == []
    assert len(engine.places["wte.weight"]) == 2
    index, scale = PAIRS
    directions = Directions(LowRank(), Key(0), 3, engine.tensors)
    seen = []
    hooks = [p.register_forward_pre_hook(lambda m, x: seen.append(m.weight)) for p in (module.wte, module.head)]
    module.forward = lambda ids: module.head(module.hidden(ids))
    engine.losses(batch, Draws(directions, engine.tensors), index, scale)
    for hook in hooks:
        hook.remove()
    values = [w.values for w in seen[-2:]]
    assert torch.equal(values[0].explicit(), values[1].explicit())


def test_what_cannot_move_is_declined():
    for make in REFUSED.values():
        module, _, loss = make()
        with pytest.raises(InvalidArgument, match="integers"):
            Engine(module, loss, params=lambda n, p: True)


# ---------------------------------------------------------------------- nothing is left behind


class Stopped(BaseException):
    """Neither an error nor an interrupt."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stopped])
@pytest.mark.parametrize("at", [1, 3, 6])
def test_the_module_is_whole_whatever_the_loss_raises(error, at):
    module, batch, loss = made("resnet-train")
    own = {n: id(p) for n, p in module.named_parameters()}
    state = {n: t.clone() for n, t in module.state_dict().items()}
    calls = 0

    def failing(m, b):
        nonlocal calls
        calls += 1
        out = loss(m, b)
        if calls >= at:
            raise error("within the loss")
        return out

    engine = Engine(module, failing, chunk=2)
    directions = Directions(LowRank(), Key(0), 3, engine.tensors)
    drawn = torch.get_rng_state()
    with pytest.raises(error):
        engine.losses(batch, Draws(directions, engine.tensors), np.repeat(np.arange(3), 2), np.tile([0.1, -0.1], 3))
    assert {n: id(p) for n, p in module.named_parameters()} == own
    assert all(type(p) is nn.Parameter for p in module.parameters())
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
    assert module.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("name", [*ZOO, *(f"{n}, dropout" for n in DROPOUT)])
def test_nothing_changes_but_the_losses(name):
    module, batch, loss = (DROPOUT[name[:-9]] if name.endswith(", dropout") else ZOO[name])()
    own, modes = list(module.parameters()), [m.training for m in module.modules()]
    before = {n: t.clone() for n, t in module.state_dict().items()}
    data = [x.clone() for x in batch]
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    engine = Engine(module, loss)
    index, scale = PAIRS
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            directions = Directions(LowRank(), Key(0), 3, engine.tensors)
            told = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
            assert torch.is_grad_enabled() is grad
        assert not told.requires_grad
        assert told.dtype == torch.float64
    assert all(a is b for a, b in zip(own, module.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in own)
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(data, batch, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert random.getstate() == states[2]


def test_a_module_that_writes_to_its_input_gets_a_copy():
    torch.manual_seed(0)
    module, batch, (index, scale) = Writes(), (torch.randn(6, 6), torch.randint(3, (6,))), PAIRS
    kept = batch[0].clone()
    for evaluate in ("auto", "one by one"):
        engine = Engine(module, classes, evaluate=evaluate)
        directions = Directions(LowRank(), Key(0), 3, engine.tensors)
        got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
        assert torch.equal(batch[0], kept)
        fresh = [(kept.clone(), batch[1]) for _ in index]
        agree(got, written_out(copy.deepcopy(module), classes, fresh, directions, index, scale), 1e-5)


# ---------------------------------------------------------------------- random numbers of the module and of the loss


class Noisy(nn.Module):
    """Random functions of one kind between two layers."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.first, self.head = kind, nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.kind(torch.tanh(self.first(x))))


def _attended(h):
    q = h.view(-1, 2, 2, 2)
    return F.scaled_dot_product_attention(q, q, q, dropout_p=0.4).reshape(-1, 8)


RANDOM = {
    "module": nn.Dropout(0.4),
    "functional": lambda h: F.dropout(h, 0.4),
    "in place": lambda h: F.dropout(h.clone(), 0.4, inplace=True),
    "torch": lambda h: torch.dropout(h, 0.4, True),
    "alpha": nn.AlphaDropout(0.4),
    "channels": lambda h: F.dropout1d(h.view(-1, 4, 2), 0.4).reshape(-1, 8),
    "attention": _attended,
    "noise": lambda h: h + 0.3 * torch.randn_like(h),
    "shape": lambda h: h + 0.3 * torch.randn(h.shape[0], 1),
    "size": lambda h: h * torch.rand(h.shape),
    "integers": lambda h: h + 0.1 * torch.randint(0, 5, (h.shape[0], 8)),
    "filled": lambda h: h * torch.empty_like(h).bernoulli_(0.6),
    "bernoulli": lambda h: h * torch.bernoulli(torch.sigmoid(h)),
    "normal": lambda h: torch.normal(h, 0.1 * torch.ones_like(h)),
    "gumbel": lambda h: F.gumbel_softmax(h, tau=2.0),
    "rrelu": lambda h: F.rrelu(h, training=True),
    "transposed": lambda h: F.dropout(h.view(-1, 4, 2).transpose(1, 2), 0.4).reshape(-1, 8),
    "before a layer": None,
}


def _noisy(name):
    torch.manual_seed(0)
    if name == "before a layer":  # data that members share
        return nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return Noisy(RANDOM[name])


def seeded(module, loss, batch, directions, index, scale):
    """Return the losses of members that are written out, each under the same seed, that of the key."""
    word, told = directions.key.child("dropout").words[0], []
    with torch.random.fork_rng(devices=[]):
        for i, s in zip(index, scale, strict=True):
            torch.manual_seed(word >> 1)
            told.append(written_out(module, loss, [batch], directions, [i], [s]))
    return torch.cat(told)


@pytest.mark.parametrize("name", RANDOM)
def test_all_members_draw_the_same(name):
    module = _noisy(name).train()
    batch, index, scale = (torch.randn(6, 6), torch.randint(3, (6,))), np.array([0, 0, 1, 1]), [0.05, -0.05, 0.0, 0.0]
    for law in (LowRank(), Gaussian()):
        told = {}
        for evaluate in ("auto", "one by one"):
            engine = Engine(module, classes, evaluate=evaluate)
            directions = Directions(law, Key(1, (7,)), 2, engine.tensors)
            before = torch.get_rng_state()
            told[evaluate] = engine.losses(batch, Draws(directions, engine.tensors), index, np.asarray(scale))
            assert torch.equal(torch.get_rng_state(), before)
            assert engine.random
        agree(told["auto"], told["one by one"], 1e-5)
        agree(told["auto"], seeded(copy.deepcopy(module), classes, batch, directions, index, scale), 1e-5)
        assert torch.equal(told["auto"][2], told["auto"][3])  # no move, the same mask: the same loss
    assert engine.asked == "one by one"
    engine = Engine(module, classes)
    told = []
    for step in (0, 1, 0):
        directions = Directions(LowRank(), Key(1, (step,)), 2, engine.tensors)
        told.append(engine.losses(batch, Draws(directions, engine.tensors), index, np.zeros(4)))
    assert engine.together, engine.reason
    assert torch.equal(told[0], told[2])
    assert not torch.allclose(told[0], told[1], atol=1e-4)  # another step, another mask


@pytest.mark.parametrize("name", DROPOUT)
def test_networks_with_dropout(name):
    module, batch, loss = DROPOUT[name]()
    engine, (index, scale) = Engine(module, loss, chunk=2), PAIRS
    directions = Directions(LowRank(), Key(1, (7,)), 3, engine.tensors)
    draws = Draws(directions, engine.tensors)
    got = engine.losses(batch, draws, index, scale)
    agree(got, seeded(copy.deepcopy(module), loss, batch, directions, index, scale), 1e-5)
    other = engine.losses(batch, draws, index, scale, noise=Key(5))
    assert not torch.allclose(got, other, atol=1e-3)
    module.eval()
    with torch.no_grad():
        plain = loss(module, batch).double()
    agree(engine.losses(batch, draws, index, 0.0 * scale), plain.expand(4, -1), 1e-5)


def test_noise_within_the_loss():
    """As in a diffusion model: a time and noise for every example, drawn by the loss."""
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 6)).eval(), torch.randn(6, 6)

    def loss(m, b):
        t, noise = torch.rand(len(b), 1), torch.randn_like(b)
        return (m(torch.cat([(1.0 - t) * b + t * noise, t], 1)) - noise).square().mean(1)

    engine, (index, scale) = Engine(module, loss), PAIRS
    directions = Directions(LowRank(), Key(1, (7,)), 3, engine.tensors)
    got = engine.losses(x, Draws(directions, engine.tensors), index, scale)
    agree(got, seeded(copy.deepcopy(module), loss, x, directions, index, scale), 1e-5)


def test_dropout_of_recurrent_layers_and_attention_goes_one_by_one():
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5, num_layers=2, dropout=0.4, batch_first=True)
    attend = nn.MultiheadAttention(6, 2, dropout=0.4, batch_first=True)
    for inner, take in ((lstm, lambda m, x: m(x)[0]), (attend, lambda m, x: m(x, x, x, need_weights=False)[0])):
        module = nn.ModuleDict({"inner": inner, "head": nn.LazyLinear(3)})

        def loss(m, b, take=take):
            return classes(lambda x: m["head"](take(m["inner"], x)[:, -1]), b)

        batch, (index, scale) = (torch.randn(4, 3, 6), torch.randint(3, (4,))), PAIRS
        loss(module, batch)
        for params in (None, "head"):
            engine = Engine(module, loss, params=params)
            directions = Directions(LowRank(), Key(1, (7,)), 3, engine.tensors)
            got = engine.losses(batch, Draws(directions, engine.tensors), index, scale)
            agree(got, seeded(copy.deepcopy(module), loss, batch, directions, index, scale), 1e-5)


FAULTS = """
import resource
import torch
from dfo.nn.engine import Engine

Engine(torch.nn.Linear(2, 2), lambda m, x: m(x).sum(1))
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    activations = [torch.ones(1 << 18) for _ in range(200)]
    del activations
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in ways of their own")
def test_the_activations_of_a_pass_lie_in_the_memory_of_the_last():
    """Of 200 MiB no page comes anew once there is an engine, unless the environment has its own word on it."""

    def faults(**told):
        own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | told
        done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=own)
        return int(done.stdout)

    assert faults() < 1000
    assert faults(MALLOC_TRIM_THRESHOLD_=str(1 << 20)) > 40_000
