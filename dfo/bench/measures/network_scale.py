"""Steps shared by processes, and weights that live on disk: equal to the bit, and at what cost.

Every figure is taken in fresh processes of one thread each. CPU times are paired in one process; ratios are medians.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dfo.bench.measures.row import Row

__all__ = ["distributed", "offload"]

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
CASES = tuple(product(("ZOSGD", "ES"), ("low-rank", "gaussian"), ("float32", "bfloat16")))
DIRECTIONS, PASS, STEPS = 32, 8, 8


def _python(call: str, *words: object, **more: str) -> subprocess.Popen[str]:
    """Start a function of this module in a process of its own."""
    code = f"import sys; from dfo.bench.measures import network_scale as m; m.{call}(*sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, env={**os.environ, **THREADS, **more}, stdout=subprocess.PIPE, text=True)


def _answer(process: subprocess.Popen[str]) -> Any:
    """Return what a process printed last; None of one that died."""
    lines = process.communicate()[0].splitlines()
    return json.loads(lines[-1]) if lines else None


def _hash(net: Any) -> str:
    from dfo.nn.snapshots import fingerprint

    return fingerprint(net.state_dict())


def _square(module: Any, batch: Any) -> Any:
    return module(batch).float().square().mean(1)


# ---------------------------------------------------------------------------------------------- processes


def _told(kind: str, law: str, dtype: str, world: int, dies_at: int = -1) -> dict[str, Any]:
    """Make some steps as one of the processes, and tell what came of it."""
    import torch
    from torch import nn

    import dfo.nn

    torch.manual_seed(0)
    sizes = [(96, 256), (256, 256), (256, 64)]
    net = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in sizes)).to(getattr(torch, dtype))
    make: Any = getattr(dfo.nn, kind)
    count = {"population": 2 * DIRECTIONS} if kind == "ES" else {"samples": DIRECTIONS}
    opt = make(net, lr=0.01, directions=law, chunk=PASS, **count)
    if world:
        dfo.nn.distribute(opt, timeout=5.0 if dies_at >= 0 else 120.0)
    draw, values = torch.Generator().manual_seed(1), []
    before, wire, began = (opt.processes.sent if world else 0), _sent(), time.process_time()
    for step in range(STEPS):
        if step == dies_at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        values.append(opt.step(_square, torch.randn(16, 96, generator=draw).to(getattr(torch, dtype))))
    seconds = (time.process_time() - began) / STEPS
    sent = (opt.processes.sent - before) / STEPS if world else 0.0
    result = sha256(json.dumps([values, _hash(net)]).encode()).hexdigest()
    return {"result": result, "sent": sent, "wire": (_sent() - wire) / STEPS, "seconds": seconds}


def _sent() -> int:
    """Return how many bytes this process has sent by TCP (Linux: ``tcpi_bytes_sent``), 0 where nobody counts."""
    total = 0
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            if not os.readlink(entry).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as held:
                about = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            total += struct.unpack_from("<Q", about, 200)[0] if len(about) >= 208 else 0
        except OSError:
            continue
    return total


def _process(dies_at: str) -> None:
    """Be one of the processes, or the only one."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    world = int(os.environ.get("WORLD_SIZE", "0"))
    if world:
        dist.init_process_group("gloo")
    cases = CASES if int(dies_at) < 0 else CASES[:1]
    print(json.dumps([_told(*case, world, int(dies_at)) for case in cases]), flush=True)
    if os.environ.get("RANK") == "0":
        time.sleep(2.0)  # it keeps the store: the last to leave
    os._exit(0)


def _processes(world: int, dies_at: int = -1) -> list[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": str(world)}
    running = [_python("_process", dies_at, RANK=str(rank), **place) for rank in range(world)]
    return [_answer(process) for process in running]


def distributed() -> list[Row]:
    """Steps of two and three processes against those of one, and of three of which one is killed."""
    alone = _answer(_python("_process", -1))
    two, three = _processes(2), _processes(3)
    killed = _processes(3, dies_at=3)
    rows = []
    for told in (two, three):
        equal = [rank[k]["result"] == alone[k]["result"] for rank in told for k in range(len(CASES))]
        claim = f"share of runs whose losses and weights equal those of one process to the bit, {len(told)} processes"
        rows.append(Row(claim, "= 1", np.mean(equal), all(equal), "ZOSGD and ES, two laws, two precisions", len(equal)))
    equal = [rank[0]["result"] == alone[0]["result"] for rank in (killed[0], killed[2])]
    claim = "the same for those who live when one of three is killed"
    rows.append(Row(claim, "= 1", np.mean(equal), all(equal) and killed[1] is None, "its passes are made anew", 2))
    most = 64 + 8 * DIRECTIONS
    for told in (two, three):
        sent = max(case["sent"] for rank in told for case in rank)
        wire = max(case["wire"] for case in told[1])
        claim = (
            f"bytes that a process publishes a step, {DIRECTIONS} directions (two losses each), {len(told)} processes"
        )
        rows.append(Row(claim, f"<= {most}", sent, sent <= most, "keys and messages, counted", len(CASES)))
        claim = f"bytes that a process sends a step by TCP, waiting and reading included, {len(told)} processes"
        rows.append(Row(claim, "reported", wire, True, "tcpi_bytes_sent of a process that keeps no store", len(CASES)))
        work = [max(rank[k]["seconds"] for rank in told) / alone[k]["seconds"] for k in range(len(CASES))]
        claim = f"CPU time of a step's busiest process / of one process alone, {len(told)} processes"
        rows.append(
            Row(claim, "reported", np.median(work), True, f"{2 * DIRECTIONS // PASS} passes a step", len(CASES))
        )
    return rows


# ---------------------------------------------------------------------------------------------- disk

WIDTH, LAYERS, ROWS = 2048, {"float32": 24, "bfloat16": 48}, 64


def _stack(dtype: str, device: str = "meta") -> Any:
    """Return a network of 384 MiB of weights."""
    import torch
    from torch import nn

    kind = getattr(torch, dtype)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, False, device, kind) for _ in range(LAYERS[dtype])))


def _opt(net: Any) -> Any:
    import dfo.nn

    return dfo.nn.ZOSGD(net, lr=1e-5, samples=1)


def _memory(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def _written(path: str, dtype: str) -> None:
    import torch

    import dfo.nn

    torch.manual_seed(0)
    dfo.nn.offload(_stack(dtype, "cpu"), path)


def _peak(path: str, dtype: str, room: str) -> None:
    """Print how far the peak of resident memory rises in two-point steps, as a share of the weights."""
    import torch

    import dfo.nn

    torch.set_num_threads(1)
    net, x = _stack(dtype), torch.ones(ROWS, WIDTH, dtype=getattr(torch, dtype))
    size = sum(p.nbytes for p in net.parameters())
    torch.nn.Linear(WIDTH, WIDTH, dtype=x.dtype)(torch.cat([x, x]))  # what products themselves take
    dfo.nn.offload(net, path, room=int(float(room) * size))
    opt, before = _opt(net), _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins here
    for _ in range(4):
        opt.step(_square, x)
    print(json.dumps((_memory("VmHWM") - before) / size))


def _pairs(path: str, dtype: str, room: str) -> None:
    """Print CPU times of steps in memory and on disk, in turn, and whether losses and weights are equal."""
    import torch
    from safetensors.torch import load_file

    import dfo.nn

    torch.set_num_threads(1)
    here, away = _stack(dtype), _stack(dtype)
    here.load_state_dict({name: x.clone() for name, x in load_file(path).items()}, assign=True)
    size = sum(p.nbytes for p in here.parameters())
    dfo.nn.offload(away, path, room=int(float(room) * size))
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    opts, took, values = (_opt(here), _opt(away)), [], []
    for _ in range(17):  # bfloat16: updates of sixteen steps are added together
        times, told = [], []
        for opt in opts:
            began = time.process_time()
            told.append(opt.step(_square, x))
            times.append(time.process_time() - began)
        took.append(times)
        values.append(told)
    equal = all(a == b for a, b in values) and _hash(here) == _hash(away)
    ratios = [b / a for a, b in took[1:]]
    print(json.dumps({"equal": equal, "ratio": float(np.median(ratios)), "pairs": len(ratios)}))


def offload() -> list[Row]:
    """Two-point steps of networks whose weights are on disk against the same in memory."""
    rows = []
    for dtype in LAYERS:
        with tempfile.TemporaryDirectory() as folder:
            path, room = f"{folder}/weights.safetensors", 0.1
            _python("_written", path, dtype).communicate()
            about = f"384 MiB of {dtype} on disk, a tenth of them near"
            paired = _answer(_python("_pairs", path, dtype, room))
            peak = _answer(_python("_peak", path, dtype, room))
        claim = f"losses and weights of 17 two-point steps equal those in memory to the bit, {about}"
        rows.append(Row(claim, "= 1", paired["equal"], paired["equal"], "compared by hash", paired["pairs"]))
        claim = f"rise of the peak of resident memory in two-point steps / weights, {about}"
        rows.append(Row(claim, "<= 0.25", peak, peak <= 0.25, "VmHWM over VmRSS before the first step"))
        claim = f"CPU time of a two-point step / of one in memory, {about}, {ROWS} rows"
        source = "paired in one run; the file was in the kernel's cache"
        rows.append(Row(claim, "reported", paired["ratio"], True, source, paired["pairs"]))
    return rows
