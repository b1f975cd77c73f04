"""Weights on disk: every result as in memory, to the bit, and little of them near at a time."""

import copy
import gc
import subprocess
import sys

import pytest
import torch
from torch import nn

import dfo.nn
from dfo.errors import BadState, CannotWrite, InvalidArgument, InvalidType
from dfo.nn.offload import _Slots
from dfo.nn.tensors import AWAY, done_with


class Words(nn.Module):
    """A network with a tied head, a norm, recurrent weights in one piece and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.token, self.norm = nn.Embedding(11, 16), nn.LayerNorm(16)
        self.rnn, self.frozen = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 16)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.token.weight
        self.frozen.requires_grad_(False)
        self.register_buffer("shift", torch.full((16,), 0.1))

    def forward(self, x):
        y = self.norm(self.token(x) + self.shift)
        y = y + torch.tanh(self.frozen(y))
        return self.head(y + self.rnn(y)[0])


def network(dtype=torch.float32, seed=0):
    """Return a network with weights of a seed."""
    draw, net = torch.Generator().manual_seed(seed), Words()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.5)
    return net.to(dtype)


def loss(module, tokens):
    """Return losses ``(B,)``."""
    logits = module(tokens[:, :-1]).float()
    return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)


def batch_of(step):
    """Return tokens by number."""
    return torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(step))


def trained(net, kind, law, steps=4):
    """Return the values of some steps and the weights."""
    if kind == "ES":
        opt = dfo.nn.ES(net, lr=0.02, population=6, directions=law)
    else:
        opt = dfo.nn.ZOSGD(net, lr=0.02, samples=3, directions=law, rule="momentum")
    values = [opt.step(loss, batch_of(t)) for t in range(steps)]
    return values, {name: x.clone() for name, x in net.state_dict().items()}


def same(a, b):
    """Tell whether two states are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("room", [1, 3000, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "law"), [("ZOSGD", "low-rank"), ("ES", "gaussian"), ("ZOSGD", "rademacher")])
def test_steps_equal_those_in_memory(tmp_path, kind, law, dtype, room):
    values, state = trained(network(dtype), kind, law)
    path = tmp_path / "w.safetensors"
    away = dfo.nn.offload(network(dtype), path, room=room)
    got, weights = trained(away, kind, law)
    assert got == values
    assert same(weights, state)
    with torch.device("meta"):
        later = Words().to(dtype)
    later.shift = network(dtype).shift  # no parameter
    dfo.nn.offload(later, path)  # what the file holds is where the run ended
    assert same(dict(later.state_dict()), state)
    assert [p.requires_grad for p in later.parameters()] == [p.requires_grad for p in away.parameters()]


def test_closures_and_plain_calls_work(tmp_path):
    here, away = network(), dfo.nn.offload(network(), tmp_path / "w.safetensors", room=100)
    assert torch.equal(here(batch_of(0)), away(batch_of(0)))
    for net in (here, away):
        opt = dfo.nn.ZOSGD(net, lr=0.01, samples=1)
        opt.step(lambda net=net: loss(net, batch_of(1)).mean().item())
    assert same(here.state_dict(), away.state_dict())


def test_tied_weights_are_one(tmp_path):
    away = dfo.nn.offload(network(), tmp_path / "w.safetensors")
    assert away.head.weight is away.token.weight


def test_published_files_hold_any_of_the_names(tmp_path):
    from safetensors.torch import save_file

    net = network()
    state = {name: x.detach() for name, x in net.named_parameters() if name != "token.weight"}
    save_file(state, tmp_path / "a.safetensors")
    save_file({"head.weight": net.head.weight.detach(), "shift": net.shift}, tmp_path / "b.safetensors")
    with torch.device("meta"):
        bare = Words()
    dfo.nn.offload(bare, tmp_path)
    assert same(bare.state_dict(), net.state_dict())


def test_files_written_here_are_read_by_others(tmp_path):
    from safetensors.torch import load_file

    net = network(torch.bfloat16)
    dfo.nn.offload(net, tmp_path / "w.safetensors")
    assert same(load_file(tmp_path / "w.safetensors"), {name: p.detach() for name, p in net.named_parameters()})


def test_order_of_use_is_learned_and_room_is_kept(tmp_path):
    net = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(6)))  # 256 bytes each
    dfo.nn.offload(net, tmp_path / "w.safetensors", room=256 * 4)
    home = net[0]._parameters.home
    for _ in range(2):
        net(torch.ones(1, 8))
        assert sum(home.held.values()) <= 256 * 4
        assert home.free == 256 * 4 - sum(home.held.values())
    blocks = [layer._parameters.blocks["weight"] for layer in net]
    assert [home.after[block] for block in blocks[:-1]] == blocks[1:]
    net[0](torch.ones(1, 8))
    assert blocks[1] in home.held  # fetched before it is asked for
    assert blocks[2] in home.held


def test_addresses_are_forgotten_with_the_module(tmp_path):
    net = dfo.nn.offload(nn.Linear(3, 2), tmp_path / "w.safetensors")
    address = net.weight.data_ptr()
    assert address in AWAY
    before = net.weight.clone()
    done_with(net.weight)
    assert torch.equal(net.weight, before)
    del net
    gc.collect()
    assert address not in AWAY


def test_copies_of_the_module_are_in_memory(tmp_path):
    net = dfo.nn.offload(network(), tmp_path / "w.safetensors")
    twin = copy.deepcopy(net)
    assert not any(isinstance(part._parameters, _Slots) for part in twin.modules())
    assert same(twin.state_dict(), net.state_dict())
    with torch.no_grad():
        twin.norm.weight.zero_()
    assert net.norm.weight.any()


def test_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with torch.device("meta"):
        bare = nn.Linear(3, 2)
    for error, word, module, to, words in (
        (InvalidType, "nn.Module", 3, path, {}),
        (InvalidArgument, "room", nn.Linear(3, 2), path, {"room": 0}),
        (InvalidArgument, "another device", nn.Linear(3, 2), "cpu", {}),
        (InvalidArgument, "recurrent", nn.GRU(2, 2), path, {"device": "cuda"}),
        (InvalidArgument, "meta", bare, path, {}),
        (CannotWrite, "folder", nn.Linear(3, 2), tmp_path / "none" / "w.safetensors", {}),
    ):
        with pytest.raises(error, match=word):
            dfo.nn.offload(module, to, **words)
        assert not path.exists()
    dfo.nn.offload(nn.Linear(3, 2), path)
    with pytest.raises(BadState, match=r"expected 'weight' as \(2, 4\)"):
        dfo.nn.offload(nn.Linear(4, 2), path)
    with pytest.raises(BadState, match=r"expected 'other\.weight'"):
        dfo.nn.offload(nn.ModuleDict({"other": nn.Linear(3, 2)}), path)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(BadState, match="no safetensors file"):
        dfo.nn.offload(nn.Linear(3, 2), tmp_path / "broken.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadState, match="cannot be mapped"):
        dfo.nn.offload(nn.Linear(3, 2), path)


def test_buffers_without_memory(tmp_path):
    path = tmp_path / "w.safetensors"
    dfo.nn.offload(network(), path)
    with torch.device("meta"):
        bare = Words()
    with pytest.raises(InvalidArgument, match="'shift'"):
        dfo.nn.offload(bare, path)


RESIDENT = """
import sys, torch, dfo.nn
from torch import nn
torch.set_num_threads(1)
with torch.device("meta"):
    net = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(24)))
dfo.nn.offload(net, sys.argv[1], room=8 << 20)
def told(module, x): return module(x).square().mean(1)
def high(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
x = torch.ones(16, 1024)
before_that = nn.Linear(1024, 1024, bias=False)(x)  # what products need
opt = dfo.nn.ZOSGD(net, samples=1)
before = high()
for _ in range(2): opt.step(told, x)
print(high() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells what is resident")
def test_little_is_resident(tmp_path):
    path = tmp_path / "w.safetensors"
    dfo.nn.offload(nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(24))), path)  # 96 MiB
    done = subprocess.run([sys.executable, "-c", RESIDENT, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.25 * 96 * 1024  # KiB


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("law", ["low-rank", "gaussian"])
@pytest.mark.parametrize("disk", [False, True])
def test_weights_pass_through_a_device(tmp_path, disk, law):
    """Equal to weights in the host's memory up to the rounding of another device."""
    here, away = (nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3)) for _ in range(2))
    away.load_state_dict(here.state_dict())
    dfo.nn.offload(away, tmp_path / "w.safetensors" if disk else "cpu", "cuda", room=1000)
    x = torch.ones(8, 6)
    for net, data in ((here, x), (away, x.cuda())):
        opt = dfo.nn.ZOSGD(net, lr=0.01, samples=2, directions=law)
        for _ in range(5):
            opt.step(lambda module, batch: module(batch).square().mean(1), data)
    for a, b in zip(here.parameters(), away.parameters(), strict=True):
        assert b.device.type == "cpu"
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
