"""MeZO as published: bits, seeds, manners."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfo.errors import BadState, InvalidArgument, InvalidType
from dfo.nn.mezo import MeZO, Step


class Tied(nn.Module):
    """An embedding tied to its head, a frozen layer, a norm, dropout."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.token, self.hidden = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.layer_norm, self.frozen = nn.LayerNorm(8), nn.Linear(8, 8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 11, bias=False)
        for p in self.parameters():
            nn.init.normal_(p, std=0.3, generator=generator)
        self.head.weight = self.token.weight
        self.frozen.requires_grad_(False)
        self.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        h = torch.tanh(self.frozen(self.hidden(self.token(tokens))))
        logits: Tensor = self.head(self.drop(self.layer_norm(h)))
        return logits


TOKENS = torch.arange(24).view(4, 6) % 11


def loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def split(model: nn.Module) -> list[dict[str, object]]:
    """Two groups that cut across the order of the model."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if "hidden" in n], "lr": 3e-3, "weight_decay": 0.1},
        {"params": [p for n, p in named if "hidden" not in n], "lr": 1e-3},
    ]


def rendering(model: nn.Module, seeds: list[int], rate, decay, eps: float = 1e-3) -> list[float]:  # type: ignore[no-untyped-def]
    """Algorithm 1 of arXiv:2305.17333 with the global generator, as its authors wrote it down."""
    model.eval()
    losses = []
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]

    def perturb(seed: int, factor: float) -> None:
        torch.manual_seed(seed)
        for _, p in trained:
            z = torch.normal(mean=0, std=1, size=p.data.size(), dtype=p.data.dtype)
            p.data = p.data + factor * z * eps

    for seed in seeds:
        with torch.inference_mode():
            perturb(seed, 1)
            first = loss(model, TOKENS)
            perturb(seed, -2)
            second = loss(model, TOKENS)
            perturb(seed, 1)
        slope = ((first - second) / (2 * eps)).item()
        torch.manual_seed(seed)
        for n, p in trained:
            z = torch.normal(mean=0, std=1, size=p.data.size(), dtype=p.data.dtype)
            decays = "bias" not in n and "layer_norm" not in n and "layernorm" not in n
            p.data = p.data - rate(n) * (slope * z + decay(n) * p.data if decays else slope * z)
        losses.append(first.item())
    return losses


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_hundred_steps_are_the_published_algorithm_to_the_bit() -> None:
    ours, theirs = Tied(), Tied()
    seeds = np.random.default_rng(0).integers(10**9, size=100).tolist()
    opt = MeZO(ours, groups=split(ours), seeds=seeds)
    losses = [opt.step(loss, TOKENS) for _ in seeds]
    expected = rendering(
        theirs, seeds, lambda n: 3e-3 if "hidden" in n else 1e-3, lambda n: 0.1 if "hidden" in n else 0.0
    )
    assert losses == expected
    assert same(ours, theirs)
    assert not same(ours, Tied())
    assert torch.equal(ours.frozen.weight, Tied().frozen.weight)
    assert ours.head.weight is ours.token.weight


@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (17,), (3, 5, 7), (400, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_private_generator_draws_what_the_global_one_draws(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    private = torch.Generator().manual_seed(77)
    ours = [torch.empty(shape, dtype=dtype).normal_(generator=private) for _ in range(3)]
    with torch.random.fork_rng():
        torch.manual_seed(77)
        theirs = [torch.normal(mean=0, std=1, size=shape, dtype=dtype) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_global_generators_are_neither_read_nor_written() -> None:
    ends = []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        random.seed(state)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        model = Tied()
        torch.set_rng_state(before[0])
        opt = MeZO(model, lr=1e-3)
        for _ in range(3):
            opt.step(loss, TOKENS)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.random.get_state()[1].tolist() == before[2]
        ends.append(model)
    assert same(*ends)


def test_seeds_come_from_the_key_from_a_list_or_from_a_function() -> None:
    def run(**options: object) -> MeZO:
        opt = MeZO(Tied(), lr=1e-3, **options)  # type: ignore[arg-type]
        for _ in range(4):
            opt.step(loss, TOKENS)
        return opt

    first = run(seed=3)
    seeds = [step.seed for step in first.log]
    assert len(set(seeds)) == 4
    assert all(0 <= s < 10**9 for s in seeds)
    for other in (run(seed=3), run(seeds=seeds), run(seeds=lambda t: seeds[t])):
        assert other.log == first.log
        assert same(other.model, first.model)
    assert run(seed=0).log != first.log
    short = MeZO(Tied(), seeds=[1])
    short.step(loss, TOKENS)
    with pytest.raises(InvalidArgument, match="Give more"):
        short.step(loss, TOKENS)


def test_a_closure_is_a_loss_without_arguments() -> None:
    a, b = MeZO(Tied(), lr=1e-3), MeZO(Tied(), lr=1e-3)
    value = a.step(loss, TOKENS)
    assert type(value) is float
    assert value == b.step(lambda: loss(b.model, TOKENS))
    assert same(a.model, b.model)
    assert a.step(lambda: 2) == 2.0  # no tensor, no change
    assert a.log[-1].slopes == (0.0,)


@pytest.mark.parametrize("seeds", [None, [5, 6, 7, 8, 9, 10]])
def test_a_run_goes_on_from_its_state(seeds: list[int] | None) -> None:
    whole, first = MeZO(Tied(), lr=1e-3, seeds=seeds), MeZO(Tied(), lr=1e-3, seeds=seeds)
    for _ in range(6):
        whole.step(loss, TOKENS)
    for _ in range(3):
        first.step(loss, TOKENS)
    model = copy.deepcopy(first.model)
    second = MeZO(model, lr=5.0, seeds=seeds)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        second.step(loss, TOKENS)
    assert same(second.model, whole.model)
    assert second.log == whole.log
    with pytest.raises(BadState):
        second.load_state_dict(torch.optim.SGD(model.parameters(), lr=0.1).state_dict())


def test_a_log_is_replayed_up_to_the_drift_of_the_probes() -> None:
    run, again = MeZO(Tied(torch.float64), lr=1e-2), MeZO(Tied(torch.float64), lr=1e-2)
    for _ in range(10):
        run.step(loss, TOKENS)
    again.replay(run.log)
    for p, q in zip(run.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-14)
    assert again.log == run.log
    assert not same(again.model, Tied(torch.float64))


def test_a_scheduler_sets_the_rate_of_every_step() -> None:
    opt = MeZO(Tied(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 0.5**t)
    for _ in range(3):
        opt.step(loss, TOKENS)
        schedule.step()
    assert [step.rates for step in opt.log] == [(1e-3,), (5e-4,), (2.5e-4,)]


def test_modes_and_weights_come_back_when_the_loss_fails() -> None:
    model = Tied(torch.float64).train()
    model.hidden.eval()
    opt, before = MeZO(model, lr=1e-3), copy.deepcopy(model)
    calls = []

    def failing() -> float:
        calls.append(model.training)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        opt.step(failing)
    assert calls == [False, False]
    assert model.training
    assert model.drop.training
    assert not model.hidden.training
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-15)
    assert opt.log == []


def test_groups_with_their_own_radius_have_their_own_slope() -> None:
    model = Tied(torch.float64)
    groups = split(model)
    groups[0]["eps"], groups[1]["eps"] = 1e-3, 2e-3
    opt = MeZO(model, groups=groups)
    opt.step(loss, TOKENS)
    (step,) = opt.log
    assert isinstance(step, Step)
    assert step.slopes[0] == pytest.approx(2 * step.slopes[1], rel=1e-12)
    assert step.rates == (3e-3, 1e-3)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InvalidType, match=r"torch\.nn\.Module"):
        MeZO([1.0])  # type: ignore[arg-type]
    for options in ({"lr": -1.0}, {"eps": 0.0}, {"weight_decay": float("nan")}):
        with pytest.raises(InvalidArgument, match="expected lr >= 0"):
            MeZO(Tied(), **options)
    with pytest.raises(InvalidArgument, match="no trainable parameter"):
        MeZO(Tied(), groups=[{"params": list(Tied().parameters())}])
    with pytest.raises(InvalidType, match="loss: expected"):
        MeZO(Tied()).step(lambda: "low")  # type: ignore[arg-type,return-value]
