"""The coordinate estimator against autograd and against a plain loop over the weights.

The plain loop writes a weight, runs two forwards and puts the weight back; its time for all weights is that of a random
subset times their ratio. Ours is timed whole, but for ResNet-20, of which a 128th of each tensor's coordinates, in a
row as they come in a whole gradient, stands for it. CPU time of one thread, in turn in one process, ratios by medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from dfo.bench.measures.row import Row
from dfo.random import Key, choice

__all__ = ["coordinates"]

Case = tuple[str, Any, Any, int, float]
"""Label, module, batch, weights that the plain loop is timed on, times faster to reach (0: reported)."""


def _loss(module: Any, batch: Any) -> Any:
    import torch.nn.functional as F  # noqa: N812

    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def _mlp() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def _lenet() -> Any:
    """LeCun et al. (1998) for 8 x 8 images, with ReLU and max pooling."""
    from torch import nn

    images = (nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    features = (nn.Conv2d(6, 16, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*images, *features, nn.Linear(64, 84), nn.ReLU(), nn.Linear(84, 10))


def _resnet() -> Any:
    """ResNet-20 for 32 x 32 images, shortcuts without weights; He et al. (2015), arXiv:1512.03385, section 4.2."""
    import torch.nn.functional as F  # noqa: N812
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.stride, self.more = (1, 0) if a == b else (2, (b - a) // 2)
            self.conv1, self.bn1 = nn.Conv2d(a, b, 3, self.stride, 1, bias=False), nn.BatchNorm2d(b)
            self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)

        def forward(self, x: Any) -> Any:
            h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
            return F.relu(h + (short if self.more else x))

    widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
    blocks = [Block(a, b) for a, b in pairwise(widths)]
    stem = (nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def _digits() -> tuple[Any, Any, Any, Any]:
    from importlib import import_module

    import torch

    X, y, X_test, y_test = import_module("dfo_problems.digits").load_digits()
    return torch.tensor(X).float(), torch.tensor(y), torch.tensor(X_test).float(), torch.tensor(y_test)


def _cases() -> list[Case]:
    import torch

    X, y, *_ = _digits()
    image = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    return [
        ("MLP 64-32-10, digits, batch 64", _mlp(), (X[:64], y[:64]), 400, 5.0),
        ("MLP 64-32-10, digits, batch 256", _mlp(), (X[:256], y[:256]), 400, 0.0),
        ("LeNet, digits, batch 64", _lenet(), (X[:64], y[:64]), 300, 5.0),
        ("ResNet-20, random 32 x 32 images, batch 8", _resnet(), image, 60, 5.0),
    ]


def _plain(module: Any, batch: Any, count: int) -> Callable[[], float]:
    """Return a function that probes random weights one after another and returns its seconds for all weights."""
    import torch

    weights = [(p.view(-1), k) for p in module.parameters() for k in range(p.numel())]
    some = [weights[i] for i in choice(Key(1), len(weights), count)]

    def run() -> float:
        began = time.process_time()
        with torch.no_grad():
            for w, k in some:
                kept = w[k].clone()
                w[k] = kept + 5e-3
                ahead = _loss(module, batch).double().mean()
                w[k] = kept - 5e-3
                float(ahead - _loss(module, batch).double().mean())
                w[k] = kept
        return (time.process_time() - began) * len(weights) / count

    return run


def _ours(module: Any, batch: Any, precision: Any) -> tuple[Callable[[], float], list[Any]]:
    """Return a function that returns our seconds for all weights, and a list that holds the last gradient."""
    import torch

    from dfo.nn.coordinates import coordinate_gradient

    sizes = {name: p.numel() for name, p in module.named_parameters()}
    part: Any = None
    if sum(sizes.values()) > 100_000:
        part = {name: torch.arange((n + 127) // 128) + n // 2 for name, n in sizes.items()}
    scale = 1.0 if part is None else sum(sizes.values()) / sum(len(i) for i in part.values())
    held: list[Any] = [None]

    def run() -> float:
        began = time.process_time()
        held[0] = coordinate_gradient(module, _loss, batch, coordinates=part, precision=precision)
        return (time.process_time() - began) * scale

    return run, held


def _error(module: Any, batch: Any, gradient: Any) -> float:
    """Return the length of the error over that of autograd's gradient at the same weights, at the probed coordinates.

    Autograd works in double precision: in single precision rounding puts some units of a ReLU on the other side.
    """
    import copy

    import torch

    module, batch = copy.deepcopy(module).double(), (batch[0].double(), batch[1])
    exact = torch.autograd.grad(_loss(module, batch).mean(), list(module.parameters()))
    error, length = 0.0, 0.0
    for (name, _), g in zip(module.named_parameters(), exact, strict=True):
        entry = gradient[name]
        index, values = entry if isinstance(entry, tuple) else (slice(None), entry.reshape(-1))
        true = g.reshape(-1)[index].double()
        error += float((true - values.double()).square().sum())
        length += float(true.square().sum())
    return float(np.sqrt(error / length))


def _case(case: Case, rounds: int) -> list[Row]:
    label, module, batch, count, least = case
    plain = _plain(module, batch, count)
    rows: list[Row] = []
    runs = {precision: _ours(module, batch, precision) for precision in ("double", "native")}
    for run, _ in runs.values():
        if count >= 300:  # to warm up
            run()
    took = [[plain(), *(run() for run, _ in runs.values())] for _ in range(rounds)]
    seconds = np.array(took)  # (rounds, 3)
    for i, (precision, (_, held)) in enumerate(runs.items(), 1):
        gain = float(np.median(seconds[:, 0] / seconds[:, i]))
        error = _error(module, batch, held[0])
        asked = least if precision == "native" or label.startswith(("MLP", "LeNet")) else 0.0
        rows += [
            Row(
                f"{label}, {precision} probes: times faster than the plain loop in single precision",
                f">= {asked:g}" if asked else "reported", gain, gain >= asked,
                f"CPU time, paired; plain loop: {count} random weights, scaled", rounds,
            ),
            Row(
                f"{label}, {precision} probes: error of the gradient over its length, against autograd",
                "<= 1e-3" if precision == "double" else "reported", error, precision == "native" or error <= 1e-3,
                "autograd in double precision",
            ),
        ]  # fmt: skip
    share = float(next(iter(runs.values()))[1][0].share)
    return [*rows, Row(f"{label}: share of the layers' multiply-adds run again", "reported", share, True, "counted")]


def _trained(steps: int = 300) -> list[Row]:
    """Train LeNet on digits by a tenth of its matrices' coordinates, redrawn each step."""
    import torch

    from dfo.nn.coordinates import coordinate_gradient
    from dfo.nn.sparsity import random_mask, zo_grasp

    X, y, X_test, y_test = _digits()
    torch.manual_seed(0)
    module = _lenet()
    ratios = zo_grasp(module, _loss, (X[:256], y[:256]), 0.9)
    speed = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    forwards = 0
    for step in range(steps):
        rows = torch.from_numpy(choice(Key(0, ("rows", step)), len(X), 64))
        mask = random_mask(ratios, module, Key(0, ("mask", step)))
        g = coordinate_gradient(module, _loss, (X[rows], y[rows]), coordinates=mask, check=step == 0)
        forwards += g.forwards
        with torch.no_grad():
            for name, slope in g.dense().items():
                speed[name].mul_(0.9).add_(slope)
                module.get_parameter(name).sub_(0.2 * (1 - step / steps) * speed[name])
    with torch.no_grad():
        accuracy = float((module(X_test).argmax(1) == y_test).double().mean())
    source = f"{steps} steps, batch 64, momentum 0.9, zo-GraSP at sparsity 0.9, {forwards} forwards, one seed"
    return [Row("LeNet, digits: test accuracy by sparse coordinates", ">= 0.9", accuracy, accuracy >= 0.9, source)]


def _density() -> Row:
    """Hold the density of drawn masks against what was asked for."""
    from dfo.nn.sparsity import random_mask

    module = _resnet()
    sizes = {name: p.numel() for name, p in module.named_parameters() if p.numel() > 1000}
    worst = 0.0
    for i, ratio in enumerate((0.1, 0.5, 0.9)):
        drawn = random_mask(dict.fromkeys(sizes, ratio), module, Key(i))
        worst = max(worst, abs(sum(map(len, drawn.values())) / sum(sizes.values()) - ratio))
    return Row("ResNet-20: error of a mask's density", "< 1e-3", worst, worst < 1e-3, "asked for .1, .5, .9", 3)


def coordinates(rounds: int = 3) -> list[Row]:
    """Partial derivatives of networks one weight at a time: error against autograd, speed against the plain loop."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            rows = [row for case in _cases() for row in _case(case, rounds)]
            return [*rows, _density(), *_trained()]
    finally:
        torch.set_num_threads(threads)
