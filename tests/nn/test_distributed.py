"""Steps shared by processes: equal to those of one process to the bit, whoever dies on the way.

Run as a program this file is one of the processes.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import dfo.nn
from dfo.errors import BadState, InvalidArgument, InvalidType

CASES = tuple(product(("ZOSGD", "ES"), ("low-rank", "gaussian"), (torch.float32, torch.bfloat16)))
STEPS = 6
TIMEOUT = 12.0


def network(seed=0, dtype=torch.float32):
    """Return a network with weights of a seed."""
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.4)
    return net.to(dtype)


def batch_of(step, dtype=torch.float32):
    """Return a batch by its number."""
    draw = torch.Generator().manual_seed(1000 + step)
    return torch.randn(5, 6, generator=draw).to(dtype), torch.randint(0, 3, (5,), generator=draw)


def loss(module, batch):
    """Return losses ``(B,)``."""
    return nn.functional.cross_entropy(module(batch[0]).float(), batch[1], reduction="none")


def optimizer(net, kind, law):
    """Return an optimizer with 10 members, in passes of 4: the last is filled up."""
    if kind == "ES":
        return dfo.nn.ES(net, lr=0.02, population=10, directions=law, chunk=4)
    return dfo.nn.ZOSGD(net, lr=0.02, samples=5, directions=law, rule="momentum", chunk=4)


def run(kind, law, dtype, prepare=lambda opt: opt, told=loss, parts=1):
    """Make some steps; return the optimizer, its values and the weights."""
    net = network(dtype=dtype)
    opt = prepare(optimizer(net, kind, law))
    values = [opt.step(told, batch_of(t, dtype), parts=parts) for t in range(STEPS)]
    return opt, values, net.state_dict()


# ---------------------------------------------------------------------------------------------- the processes


def equal(rank, folder):
    """Make all cases, and be refused where something differs."""
    said = []
    for net, settings in (
        (network(seed=rank), {}),
        (network(), {"lr": 1e-3 * (1 + rank)}),
        (network(), {"seed": rank}),
        (network(), {}),
    ):
        opt = dfo.nn.ZOSGD(net, samples=2, chunk=2, **settings)
        try:
            dfo.nn.distribute(opt)
            for group in opt.param_groups:
                group["lr"] = 1e-3 * (1 + rank)
            opt.step(loss, batch_of(0))
        except BadState as error:
            said.append(str(error))
    runs = []
    for kind, law, dtype in CASES:
        opt, values, weights = run(kind, law, dtype, dfo.nn.distribute, parts=5 if law == "low-rank" else 1)
        runs.append((values, weights, opt.processes.sent, opt.log))
    return said, runs


def failing(rank, folder):
    """Three processes: the last dies in step 1, the second sleeps in step 3 until the first is through."""
    passes = 0

    def told(module, batch):
        nonlocal passes
        passes += 1
        if rank == 2 and opt.t == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        while rank == 1 and opt.t == 3 and not (folder / "0.pt").exists():
            time.sleep(0.1)
        return loss(module, batch)

    net = network()
    opt = dfo.nn.distribute(optimizer(net, "ZOSGD", "low-rank"), timeout=TIMEOUT)
    try:
        values = [opt.step(told, batch_of(t)) for t in range(STEPS)]
    except BadState as error:
        return str(error), opt.t
    return values, net.state_dict(), opt.processes.alive


def uneven(rank, folder):
    """Two processes, in one of which members cannot ride together any more."""
    net = network()
    opt = dfo.nn.distribute(optimizer(net, "ES", "gaussian"))
    opt.step(loss, batch_of(0))
    opt.engine.together = rank == 0
    return [opt.step(loss, batch_of(t)) for t in (1, 2)], net.state_dict(), opt.engine.describe()


def main(what, folder):
    """Be one of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    rank = dist.get_rank()
    result, path = globals()[what](rank, Path(folder)), Path(folder) / f"{rank}.pt"
    torch.save(result, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)
    if rank == 0:  # it keeps the store: the last to leave
        deadline = time.monotonic() + 60
        while not (Path(folder) / "1.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    os._exit(0)  # without the farewells of a group in which somebody is missing


def environment():
    """Return the environment of a process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}


def started(what, folder, world):
    """Start processes, wait for them, and return what they told, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = environment() | {"MASTER_PORT": port, "WORLD_SIZE": str(world)}
    code = [sys.executable, __file__, what, str(folder)]
    running = [subprocess.Popen(code, env=own | {"RANK": str(rank)}) for rank in range(world)]
    for process in running:
        process.wait(timeout=200)
    return told_by(folder, world), [process.returncode for process in running]


def told_by(folder, world):
    """Return what the processes wrote."""
    paths = [Path(folder) / f"{rank}.pt" for rank in range(world)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths]


# ---------------------------------------------------------------------------------------------- tests


def same(a, b):
    """Tell whether two states are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_of_torchrun(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, "equal", str(tmp_path)]
    subprocess.run([sys.executable, *launch], env=environment(), check=True, timeout=240, capture_output=True)
    told = told_by(tmp_path, 2)
    for rank, (said, runs) in enumerate(told):
        assert [("equal weights" in s, "equal settings" in s, "equal rates" in s) for s in said] == [
            (True, False, False), (False, True, False), (False, True, False), (False, False, True),
        ], rank  # fmt: skip
        for (kind, law, dtype), (values, weights, sent, _) in zip(CASES, runs, strict=True):
            _, expected, state = run(kind, law, dtype, parts=5 if law == "low-rank" else 1)
            assert values == expected, (kind, law, dtype)
            assert same(weights, state), (kind, law, dtype)
            assert sent - 6 * 8 <= STEPS * (64 + 8 * 5)  # 6 * 8: what is compared at the start


def test_passes_of_processes_that_die_or_sleep_are_made_by_others(tmp_path):
    (first, second, third), codes = started("failing", tmp_path, 3)
    values, weights, alive = first
    assert alive == [0]
    assert third is None
    assert codes == [0, 0, -signal.SIGKILL]
    assert "given up" in second[0]
    assert second[1] == 3
    _, expected, state = run("ZOSGD", "low-rank", torch.float32)
    assert values == expected
    assert same(weights, state)


def test_members_ride_together_everywhere_or_nowhere(tmp_path):
    told, _ = started("uneven", tmp_path, 2)
    net = network()
    opt = optimizer(net, "ES", "gaussian")
    opt.step(loss, batch_of(0))
    opt.engine.together = False
    values = [opt.step(loss, batch_of(t)) for t in (1, 2)]
    for got, weights, how in told:
        assert got == values
        assert same(weights, net.state_dict())
        assert "one member a pass" in how


def test_refused():
    opt = dfo.nn.ZOSGD(network())
    with pytest.raises(InvalidArgument, match="init_process_group"):
        dfo.nn.distribute(opt)
    with pytest.raises(InvalidType, match="optimizer of networks"):
        dfo.nn.distribute(network())


def test_timeout_refused():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(InvalidArgument, match="timeout"):
            dfo.nn.distribute(dfo.nn.ZOSGD(network()), timeout=0.0)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
