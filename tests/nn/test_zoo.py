"""The networks of the other tests do what those tests rely on."""

import pytest
import torch
from zoo import DROPOUT, REFUSED, ZOO

EVERY = {**ZOO, **{f"{name}-dropout": make for name, make in DROPOUT.items()}}


def tiled(batch, n):
    return tuple(x.repeat(n, *[1] * (x.ndim - 1)) for x in batch)


@pytest.mark.parametrize("name", EVERY)
def test_losses_are_one_per_example_and_depend_on_every_weight(name):
    torch.manual_seed(0)
    module, batch, loss = EVERY[name]()
    values = loss(module, batch)
    assert values.shape == (len(batch[0]),)
    assert len({x.shape[0] for x in batch}) == 1
    assert sum(p.numel() for p in module.parameters()) <= 50_000
    values.sum().backward()
    # softmax does not see a constant that is added to all keys' scores: their bias alone may have no effect
    idle = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-7]
    assert not [n for n in idle if n.rpartition(".")[0].rpartition(".")[2] not in ("k", "key")]


@pytest.mark.parametrize("name", [name for name in ZOO if not name.endswith("-train")])
def test_examples_do_not_see_each_other(name):
    module, batch, loss = ZOO[name]()
    with torch.no_grad():
        one, three = loss(module, batch), loss(module, tiled(batch, 3))
        first = loss(module, tuple(x[:1] for x in batch))
    torch.testing.assert_close(three, one.repeat(3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first, one[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_is_at_work_and_the_generator_of_torch_is_left_alone(name):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    module, batch, loss = DROPOUT[name]()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        one, two = loss(module, batch), loss(module, batch)
        torch.set_rng_state(before)
        assert torch.equal(loss(module, batch), one)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_declined_works_in_torch_and_has_no_real_matrix(name):
    module, batch, loss = REFUSED[name]()
    assert torch.isfinite(loss(module, batch)).all()
    assert not [p for p in module.parameters() if p.is_floating_point() and p.ndim > 1]  # no matrix to move
