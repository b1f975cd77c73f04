"""Coordinate differences against autograd, against the plain loop, and what they leave behind."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import DROPOUT, ZOO

from dfo.errors import InvalidArgument, InvalidType
from dfo.nn.coordinates import coordinate_gradient
from dfo.nn.sparsity import random_mask, zo_grasp
from dfo.random import Key

COUNT = 100
"""Weights that are probed of each module of the zoo."""


def widened(made):
    module, batch, loss = made
    return module.double(), tuple(t.double() if t.is_floating_point() else t for t in batch), loss


def exact(module, batch, loss):
    """Autograd's derivatives by name, of the same dropout as a probe sees."""
    state = torch.get_rng_state()
    module = copy.deepcopy(module)
    value = torch.as_tensor(loss(module, batch)).mean()
    torch.set_rng_state(state)
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)}


def error(got, true):
    """Length of the error over the length of the true derivatives, at the probed coordinates."""
    wrong = total = 0.0
    for name, entry in got.items():
        index, values = entry if isinstance(entry, tuple) else (slice(None), entry.reshape(-1))
        t = true[name].reshape(-1)[index].double()
        wrong += float((t - values.double()).square().sum())
        total += float(t.square().sum())
    return (wrong / total) ** 0.5


def snapshot(module):
    """Everything that a probe must leave alone."""
    tensors = {
        k: (id(v), v.clone(), v._version)
        for k, v in {**dict(module.named_parameters()), **dict(module.named_buffers())}.items()
    }
    return tensors, [
        (sorted(m.__dict__), m.training, list(m._parameters), len(m._forward_hooks)) for m in module.modules()
    ]


def assert_untouched(module, before):
    tensors, shape = before
    now = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert [
        (sorted(m.__dict__), m.training, list(m._parameters), len(m._forward_hooks)) for m in module.modules()
    ] == shape
    assert list(now) == list(tensors)
    for name, (identity, value, version) in tensors.items():
        assert id(now[name]) == identity
        assert torch.equal(now[name], value)
        assert now[name]._version == version


SINGLE = ("llama", "hf-llama")  # they pass through single precision whatever they are given


@pytest.mark.parametrize("name", ZOO)
def test_every_architecture_agrees_with_autograd_in_double_precision(name):
    module, batch, loss = widened(ZOO[name]())
    before, state = snapshot(module), torch.get_rng_state()
    true = exact(module, batch, loss)
    got = coordinate_gradient(module, loss, batch, coordinates=COUNT)
    assert error(got, true) < (1e-3 if name in SINGLE else 1e-6)
    assert got.share < 1
    assert not any(way.startswith("plain") for way in got.ways.values())
    assert_untouched(module, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet", "resnet-train", "gpt", "vit", "lstm"])
def test_single_precision_modules_reach_a_thousandth(name):
    module, batch, loss = ZOO[name]()
    before = snapshot(module)
    got = coordinate_gradient(module, loss, batch, coordinates=COUNT)
    assert error(got, exact(module, batch, loss)) < 1e-3
    assert all(values.dtype == torch.float32 for _, values in got.values())
    assert_untouched(module, before)


@pytest.mark.parametrize("name", ["mlp", "resnet", "gpt", "attention-cross"])
def test_reuse_agrees_with_the_plain_loop(name):
    module, batch, loss = widened(ZOO[name]())
    quick = coordinate_gradient(module, loss, batch, coordinates=60)
    slow = coordinate_gradient(module, loss, batch, coordinates=60, reuse=False)
    assert set(slow.ways.values()) == {"plain"}
    assert slow.share == 1
    for part in quick:
        assert torch.equal(quick[part][0], slow[part][0])
        assert torch.allclose(quick[part][1], slow[part][1], rtol=1e-6, atol=1e-7)


def test_one_member_a_pass_agrees_with_many():
    module, batch, loss = widened(ZOO["resnet"]())
    many, one = (coordinate_gradient(module, loss, batch, coordinates=80, chunk=c) for c in (None, 1))
    for name in many:
        assert torch.allclose(many[name][1], one[name][1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_is_the_same_in_every_probe(name):
    module, batch, loss = widened(DROPOUT[name]())
    got = coordinate_gradient(module, loss, batch, coordinates=COUNT)
    assert error(got, exact(module, batch, loss)) < 1e-6


def cross_entropy(module, batch):
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def digits():
    from dfo_problems.digits import load_digits

    X, y, *_ = load_digits()
    return torch.tensor(X[:32]).float(), torch.tensor(y[:32])


def test_lenet_on_digits_runs_a_small_share_of_the_layers_again():
    torch.manual_seed(0)
    features = (
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 3),
    )
    module = nn.Sequential(*features, nn.ReLU(), nn.Flatten(), nn.Linear(64, 84), nn.ReLU(), nn.Linear(84, 10))
    batch = digits()
    got = coordinate_gradient(module, cross_entropy, batch)
    assert error(got, exact(module, batch, cross_entropy)) < 1e-3
    assert got["4.weight"].shape == module[4].weight.shape
    assert got.share < 0.05
    assert got.ways["4.weight"] == "carried"
    assert got.forwards <= 2 * 7250 + 9


class Residual(nn.Module):
    """In-place functions on both branches: what a layer returned does not keep."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.end = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        h = self.b(self.a(x))
        short = self.act(h)
        h = self.c(short)
        h += short
        h = self.act(h)
        return self.end(h.mean((2, 3)))


def test_functions_in_place_do_not_spoil_what_is_cached():
    torch.manual_seed(1)
    module = Residual().double().eval()
    batch = torch.randn(3, 2, 5, 6, dtype=torch.double), torch.tensor([0, 1, 2])
    got = coordinate_gradient(module, cross_entropy, batch)
    assert error(got, exact(module, batch, cross_entropy)) < 1e-6
    assert not any(way.startswith("plain") for way in got.ways.values()), got.ways


class Forked(nn.Module):
    """A unit is read twice after its layer: it must not be followed along one way only."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.b(h) + torch.sin(self.c(h))


def test_a_unit_that_is_read_twice_is_not_carried():
    torch.manual_seed(2)
    module = Forked().double()
    batch = torch.randn(7, 4, dtype=torch.double), torch.arange(7) % 6
    got = coordinate_gradient(module, cross_entropy, batch)
    assert got.ways["a.weight"] == "shifted"
    assert error(got, exact(module, batch, cross_entropy)) < 1e-6


def test_tied_weights_move_at_all_their_uses():
    torch.manual_seed(3)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x):
            return self.head(torch.tanh(self.words(x)).mean(1))

    module = Tied().double()
    batch = torch.randint(9, (5, 3)), torch.randint(9, (5,))
    got = coordinate_gradient(module, cross_entropy, batch)
    assert list(got) == ["words.weight"]
    assert got.ways["words.weight"] == "stacked"
    assert error(got, exact(module, batch, cross_entropy)) < 1e-6


def test_a_path_that_depends_on_the_weights_falls_back_and_says_why():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.passes = 0

        def forward(self, x):
            self.passes += 1
            h = self.a(x)
            return self.b(h) if self.passes == 1 else h + 0 * self.b(self.a(h))

    torch.manual_seed(4)
    module, batch = Fickle().double(), (torch.randn(6, 3, dtype=torch.double), torch.arange(6) % 3)
    got = coordinate_gradient(module, cross_entropy, batch, params="a.*")
    assert all(way.startswith("plain (one at a time: ") for way in got.ways.values())
    assert "calls than the recorded one" in got.ways["a.weight"]
    assert error(got, {n: g for n, g in exact(module, batch, cross_entropy).items() if n in got}) < 1e-6


def test_losses_that_are_plain_numbers():
    torch.manual_seed(5)
    module, batch = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double(), torch.randn(5, 4).double()
    number = coordinate_gradient(module, lambda m, x: float(m(x).square().mean()), batch)
    tensor = coordinate_gradient(module, lambda m, x: m(x).square().mean(1), batch)
    for name in tensor:
        assert torch.allclose(number[name], tensor[name], atol=1e-7)
    assert all(way.startswith("one at a time") for way in number.ways.values())


def test_what_is_frozen_or_unused_or_not_asked_for():
    torch.manual_seed(6)
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    module[0].bias.requires_grad_(False)
    module.spare = nn.Parameter(torch.ones(2))
    part, batch = nn.Sequential(module[0], module[1]), torch.randn(5, 4)

    def loss(m, x):
        return m[1](m[0](x)).square().mean(1)

    got = coordinate_gradient(module, loss, batch)
    assert set(got) == {"0.weight", "1.weight", "1.bias", "spare"}
    assert got.ways["spare"].startswith("zero")
    assert not got["spare"].any()
    assert set(coordinate_gradient(module, loss, batch, params="*.weight")) == {"0.weight", "1.weight"}
    assert set(coordinate_gradient(module, loss, batch, params=lambda n, p: p.ndim == 1)) == {"1.bias", "spare"}
    assert error(coordinate_gradient(part, loss, batch), exact(part, batch, loss)) < 1e-6
    with pytest.raises(InvalidArgument, match="select none"):
        coordinate_gradient(module, loss, batch, params="nothing")


def test_coordinates_by_mask_by_index_and_by_number():
    module, batch, loss = widened(ZOO["mlp"]())
    whole = coordinate_gradient(module, loss, batch)
    names = list(whole)
    mask = torch.zeros(whole[names[0]].shape, dtype=torch.bool)
    mask[3, 1:5] = True
    index = torch.tensor([2, 0])
    got = coordinate_gradient(module, loss, batch, coordinates={names[0]: mask, names[1]: index, names[2]: 9})
    assert torch.equal(got[names[0]][0], mask.reshape(-1).nonzero().reshape(-1))
    assert got[names[1]][0].tolist() == [0, 2]
    assert len(got[names[2]][1]) == 9
    for name, (i, values) in got.items():
        assert torch.allclose(values, whole[name].reshape(-1)[i], rtol=1e-6, atol=1e-7)
    assert torch.equal(got.dense()[names[0]] != 0, mask & (got.dense()[names[0]] != 0))
    assert sum(len(i) for i, _ in coordinate_gradient(module, loss, batch, coordinates=50).values()) == 50
    for wrong in ({"nobody": 1}, {names[0]: 10**9}, {names[0]: mask[:2]}, {names[1]: torch.tensor([99])}, 10**9):
        with pytest.raises(InvalidArgument):
            coordinate_gradient(module, loss, batch, coordinates=wrong)


def test_an_exception_puts_everything_back():
    module, batch, _ = ZOO["resnet-train"]()
    before, state, count = snapshot(module), torch.get_rng_state(), 0

    def fails(m, b):
        nonlocal count
        count += 1
        torch.rand(3)
        if count > 1:
            raise KeyboardInterrupt
        return cross_entropy(m, b)

    with pytest.raises(KeyboardInterrupt):
        coordinate_gradient(module, fails, batch)
    assert_untouched(module, before)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled()


def test_forward_differences_have_an_error_of_the_order_of_the_radius():
    module, batch, loss = widened(ZOO["gpt"]())
    true = exact(module, batch, loss)
    errors = [
        error(coordinate_gradient(module, loss, batch, coordinates=100, scheme="forward", radius=r), true)
        for r in (1e-3, 1e-4)
    ]
    assert 5 < errors[0] / errors[1] < 20
    forward = coordinate_gradient(module, loss, batch, coordinates=100, scheme="forward")
    assert error(forward, true) < 1e-5


def test_errors_of_options():
    module, batch, loss = ZOO["mlp"]()
    for wrong in ({"radius": 0.0}, {"scheme": "backward"}, {"chunk": 0}, {"precision": "half"}):
        with pytest.raises(InvalidArgument):
            coordinate_gradient(module, loss, batch, **wrong)
    with pytest.raises(InvalidType):
        coordinate_gradient(module, loss, batch, coordinates=[1, 2])


def test_grasp_keeps_the_asked_share_and_masks_have_its_density():
    module, batch, loss = ZOO["lenet"]()
    before = snapshot(module)
    ratios = zo_grasp(module, loss, batch, 0.8, samples=16)
    assert ratios == zo_grasp(module, loss, batch, 0.8, samples=16)
    assert_untouched(module, before)
    named = dict(module.named_parameters())
    matrices = {n: p.numel() for n, p in named.items() if p.ndim > 1}
    assert all(ratios[n] == 1 for n in named if n not in matrices)
    masks, others = (random_mask(ratios, module, Key(0, (i,))) for i in range(2))
    total = sum(matrices.values())
    assert abs(sum(len(masks[n]) for n in matrices) / total - 0.2) < 1e-3
    assert {n: len(i) for n, i in masks.items()} == {n: len(i) for n, i in others.items()}
    widest = max(matrices, key=matrices.get)
    assert not torch.equal(masks[widest], others[widest])
    assert all(len(i.unique()) == len(i) for i in masks.values())
    got = coordinate_gradient(module, loss, batch, coordinates=masks)
    assert all(torch.equal(got[n][0], masks[n]) for n in masks)


def test_grasp_finds_the_layer_whose_weights_matter():
    """Scores are -w (H g): where the loss is a quadratic form of one tensor only, the other's scores are zero."""
    torch.manual_seed(7)
    module = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})

    def loss(m, x):
        return m["a"](x).square().sum(1) + 0 * m["b"](x).sum(1)

    ratios = zo_grasp(module, loss, torch.eye(3), 0.5, samples=1000)
    w = module["a"].weight
    # H = 2 I / 3 there: -w (H g) < 0 for all of them, so that they are kept before those of b, whose scores are zero
    assert bool((w != 0).all())
    assert ratios["a.weight"] > 0.7
    for wrong in ({"sparsity": 1.0}, {"sparsity": 0.5, "samples": 0}, {"sparsity": 0.5, "radius": 0.0}):
        with pytest.raises(InvalidArgument):
            zo_grasp(module, loss, torch.eye(3), **wrong)
    for wrong in ({"nobody": 0.5}, {"a.weight": 1.5}):
        with pytest.raises(InvalidArgument):
            random_mask(wrong, module, Key(0))
