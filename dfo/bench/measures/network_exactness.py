"""What forward-only training leaves behind: bits that probing changed, updates that rounding lost, noise that repeats.

Nothing here is a time but the speed of a replay, which is CPU time of one thread beside that of the training it
repeats, in the same run. Bits are compared as integers, so that a negative zero is not a positive one.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfo.bench.measures.network_steps import _gpt, _loss, _tokens
from dfo.bench.measures.row import Row

__all__ = ["network_exactness"]

DTYPES = ("float32", "bfloat16", "float16", "float64")

MODES: Mapping[str, tuple[str, bool, dict[str, Any]]] = {
    "low rank, activation side": ("low-rank", False, {}),
    "low rank, one member a pass": ("low-rank", False, {"evaluate": "one by one"}),
    "gaussian": ("gaussian", False, {}),
    "rademacher": ("rademacher", False, {}),
    "sparse": ("sparse", False, {}),
    "low rank, in place": ("low-rank", True, {}),
    "gaussian, in place, copied": ("gaussian", True, {}),
    "gaussian, in place, nothing kept": ("gaussian", True, {"room": 0}),
    "rademacher, in place, nothing kept": ("rademacher", True, {"room": 0}),
    "low rank, momentum": ("low-rank", False, {"rule": "momentum"}),
}
"""Label to law, whether the weights themselves are moved, further options."""

SMALL = {"d": 24, "layers": 1, "heads": 2, "vocab": 50}


def _network(dtype: str) -> Any:
    """Return a small GPT, its weights by name, and tokens."""
    import torch

    module = _gpt(**SMALL).to(getattr(torch, dtype))
    return module, dict(module.named_parameters()), _tokens(32, 50, 8)


def _copy(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in weights.items()}


def _bits(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> int:
    """Return in how many bits two sets of weights differ."""
    differ = 0
    for name, p in ours.items():
        pair = [np.frombuffer(_raw(t), dtype=np.uint8) for t in (p, theirs[name])]
        differ += int(np.unpackbits(pair[0] ^ pair[1]).sum())
    return differ


def _raw(tensor: Any) -> bytes:
    import torch

    raw: bytes = tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
    return raw


def _constant(module: Any, tokens: Any) -> Any:
    """Return a loss of one for every example, by way of the whole network."""
    return _loss(module, tokens) * 0.0 + 1.0


def _optimizer(module: Any, mode: str, lr: float) -> Any:
    from dfo.nn import ZOSGD

    law, _, options = MODES[mode]
    return ZOSGD(module, lr=lr, samples=2, directions=law, **options)


def _train(optimizer: Any, module: Any, tokens: Any, mode: str, steps: int, loss: Callable[..., Any]) -> None:
    import torch

    def closure() -> float:
        with torch.inference_mode():
            return float(loss(module, tokens).float().mean())

    for _ in range(steps):
        optimizer.step(closure) if MODES[mode][1] else optimizer.step(loss, tokens)


# ---------------------------------------------------------------------------------------------- bits


def _kept(steps: int) -> Iterator[Row]:
    """Train on a constant, with a step that would move every weight."""
    from dfo.bench.measures.mezo_reference import Reference

    for mode in MODES:
        changed = 0
        for dtype in DTYPES:
            module, weights, tokens = _network(dtype)
            before = _copy(weights)
            optimizer = _optimizer(module, mode, 1e-2)
            _train(optimizer, module, tokens, mode, steps, _constant)
            optimizer.flush()
            changed += _bits(before, weights)
        claim = f"bits changed by {steps} steps on a constant, {mode}, {', '.join(DTYPES)}"
        yield Row(claim, "0", changed, changed == 0, "counted")
    for dtype in DTYPES[:3]:
        module, weights, tokens = _network(dtype)
        before, reference = _copy(weights), Reference(module, 1e-2)
        for _ in range(steps):
            reference.step(_constant, tokens)
        apart = math.sqrt(
            sum(float((weights[n].detach().double() - p.double()).square().sum()) for n, p in before.items())
        )
        length = math.sqrt(sum(float(p.double().square().sum()) for p in before.values()))
        claim = f"drift over the length of the weights, {steps} steps on a constant, reference, {dtype}"
        yield Row(claim, "reported", apart / length, True, "counted")


def _rebuilt(steps: int) -> Iterator[Row]:
    """Train on a loss, and rebuild the weights from the log alone."""
    for mode in MODES:
        differ, moved = 0, True
        for dtype in DTYPES:
            module, weights, tokens = _network(dtype)
            before, optimizer = _copy(weights), _optimizer(module, mode, 1e-3)
            log = optimizer.log_to(None)
            _train(optimizer, module, tokens, mode, steps, _loss)
            optimizer.flush()
            moved = moved and _bits(before, weights) > 0
            again, copies, _ = _network(dtype)
            _optimizer(again, mode, 1e-3).replay(log)
            differ += _bits(weights, copies)
        claim = f"bits in which live weights differ from those of the log, {steps} steps, {mode}, {', '.join(DTYPES)}"
        yield Row(claim, "0", differ, moved and differ == 0, "counted")


# ---------------------------------------------------------------------------------------------- rounding


def _survivors(entries: int, times: int) -> Iterator[Row]:
    """Add updates of root mean square 1e-6 to weights N(0, 0.02^2) in 16 bits."""
    import torch

    from dfo.nn.rounding import add_
    from dfo.random import Key

    draw = torch.Generator().manual_seed(0)
    start = torch.randn(entries, generator=draw) * 0.02
    update = torch.randn(entries, generator=draw) * 1e-6
    for dtype in ("bfloat16", "float16"):
        first = start.to(getattr(torch, dtype))
        nearest = float(((first + update.to(first.dtype)).double() - first.double()) @ update.double())
        shares, cosines = [], []
        for turned in (False, True):
            w = first.clone()
            for t in range(times):
                before = w.double()
                key, turn = (Key(1), t) if turned else (Key(1, (t,)), 0)
                add_(w, lambda a, b: update[a:b], key, turn)
                if not turned:
                    shares.append(float((w.double() - before) @ update.double() / update.double().square().sum()))
            change = w.double() - first.double()
            cosines.append(float(change @ update.double() / (change.norm() * update.double().norm())))
        at, label = float(np.mean(shares)), f"updates of rms 1e-6, {entries} weights N(0, 0.02^2), {dtype}"
        lost = nearest / float(update.double().square().sum())
        error = 1.96 * float(np.std(shares, ddof=1)) / math.sqrt(times)
        spread = f"{at - error:.4g}..{at + error:.4g}"
        yield Row(f"share of the length that survives, {label}", ">= 0.99", at, at >= 0.99, "mean", times, spread)
        yield Row(f"share that survives rounding to the nearest, {label}", "reported", lost, True, "one addition")
        for cosine, how in zip(cosines, ("independent bits", "bits spread over time"), strict=True):
            yield Row(
                f"cosine of the sum of {times} equal updates, {how}, {label}", "reported", cosine, True, "counted"
            )


# ---------------------------------------------------------------------------------------------- noise


KEYS = 9
"""Keys whose noise is looked at: the largest of some 2,000 correlations of independent numbers is above 4 for one key
of ten, so that its median is held against 4, and the largest of all against 5.5 (by chance once in a thousand)."""


def _noise(sides: Mapping[str, int]) -> Iterator[Row]:
    """Correlate what the tensors of a step draw, in pairs over the shorter of both."""
    from dfo.directions import Directions, Gaussian, LowRank, Rademacher
    from dfo.nn.members import Draws
    from dfo.random import Key

    weights = {name: p.detach() for name, p in _gpt(**sides).named_parameters()}
    for law in (Gaussian(), Rademacher(), LowRank()):
        drawn = [Draws(Directions(law, Key(seed), 1, weights), weights) for seed in range(KEYS)]
        largest = [_largest_correlation([_drawn(stream) for stream in draws.streams.values()]) for draws in drawn]
        what, middle = "factors" if isinstance(law, LowRank) else "noise", float(np.median(largest))
        claim = f"largest correlation between two of {len(weights)} tensors' {what}, times the root of n, {law!r}"
        source = f"n is the shorter of both; all pairs; median over keys, whose largest is {max(largest):.3g} (< 5.5)"
        yield Row(claim, "< 4", middle, middle < 4.0 and max(largest) < 5.5, source, KEYS)


def _largest_correlation(flat: Sequence[Any]) -> float:
    """Return the largest absolute correlation of two rows over the shorter of both, times the root of its length."""
    largest = 0.0
    for x, y in itertools.combinations(flat, 2):
        n = min(len(x), len(y))
        x, y = x[:n] / np.linalg.norm(x[:n]), y[:n] / np.linalg.norm(y[:n])
        largest = max(largest, abs(float(x @ y)) * math.sqrt(n))
    return largest


def _drawn(stream: Any) -> Any:
    """Return what is drawn for the first direction of a tensor, flat."""
    parts = stream.factors(0, 1) if hasattr(stream, "factors") else (stream.rows(0, 1),)
    return np.concatenate([part.flatten().double().numpy() for part in parts])


def _masks(sides: Mapping[str, int]) -> Row:
    """Count what moves under laws that move a share of the weights."""
    from dfo.directions import Directions, Sparse
    from dfo.nn.members import Draws
    from dfo.random import Key

    weights = {name: p.detach() for name, p in _gpt(**sides).named_parameters()}
    total, worst = sum(p.numel() for p in weights.values()), 0.0
    for i, density in enumerate((0.01, 0.1, 0.5)):
        draws = Draws(Directions(Sparse(density), Key(i), 1, weights), weights, 0)
        moved = sum(int(stream.rows(0, 1).count_nonzero()) for stream in draws.streams.values())
        worst = max(worst, abs(moved / total - density))
    return Row(f"error of a mask's density, {total} weights", "< 1e-3", worst, worst < 1e-3, "asked for .01, .1, .5", 3)


# ---------------------------------------------------------------------------------------------- MeZO


def _published(module: Any, tokens: Any, seeds: list[int], lr: float, eps: float = 1e-3) -> None:
    """The public algorithm in its own words: torch's global generator, four sweeps."""
    import torch

    named = [p for p in module.parameters() if p.requires_grad]

    def perturb(seed: int, factor: float) -> None:
        torch.manual_seed(seed)
        for p in named:
            z = torch.normal(mean=0, std=1, size=p.data.size(), dtype=p.data.dtype)
            p.data = p.data + factor * z * eps

    for seed in seeds:
        with torch.inference_mode():
            perturb(seed, 1)
            ahead = _loss(module, tokens).mean()
            perturb(seed, -2)
            behind = _loss(module, tokens).mean()
            perturb(seed, 1)
            slope = ((ahead - behind) / (2 * eps)).item()
            torch.manual_seed(seed)
            for p in named:
                p.data = p.data - lr * (slope * torch.normal(mean=0, std=1, size=p.data.size(), dtype=p.data.dtype))


def _mezo(steps: int) -> Row:
    import torch

    from dfo.nn import MeZO
    from dfo.random import Key, integers

    seeds = [int(s) for s in integers(Key(7), 10**9, (steps,))]
    ours, weights, tokens = _network("float32")
    before = _copy(weights)
    optimizer = MeZO(ours, lr=1e-3, seeds=seeds)
    for _ in range(steps):
        optimizer.step(_loss, tokens)
    theirs, _, _ = _network("float32")
    with torch.random.fork_rng(devices=[]):
        _published(theirs, tokens, seeds, 1e-3)
    differ = _bits(weights, dict(theirs.named_parameters()))
    moved = _bits(before, weights) > 0
    claim = f"bits in which {steps} steps of the MeZO-compatible mode differ from the published algorithm, float32"
    return Row(claim, "0", differ, moved and differ == 0, "counted, against a rendering of its own")


# ---------------------------------------------------------------------------------------------- the log


def _repeated(law: str, steps: int, count: int, sides: Mapping[str, int]) -> list[Row]:
    """Train with a log in a file, rebuild from it, and weigh it."""
    from dfo.nn import ZOSGD, ReplayLog

    tokens = _tokens(count, sides.get("vocab", 3072))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "run.log")
        module, again = _gpt(**sides), _gpt(**sides)
        optimizer = ZOSGD(module, lr=1e-5, samples=1, directions=law)
        log = optimizer.log_to(path)
        optimizer.step(_loss, tokens)
        size, began = Path(path).stat().st_size, time.process_time()
        for _ in range(steps):
            optimizer.step(_loss, tokens)
        trained = time.process_time() - began
        optimizer.flush()
        weight = (Path(path).stat().st_size - size) / steps
        log.close()
        other = ZOSGD(again, lr=1e-5, samples=1, directions=law)
        with ReplayLog.open(path) as told:
            began = time.process_time()
            other.replay(told)
            gain = trained / (time.process_time() - began) * (steps + 1) / steps
        differ = _bits(dict(module.named_parameters()), dict(again.named_parameters()))
    million = sum(p.numel() for p in module.parameters()) / 1e6
    claim = f"times faster than training, replay, {law}, GPT {million:.3g} M fp32, {count} tokens, {steps} steps"
    source = f"CPU time of one thread, the same run; {differ} bits differ"
    return [
        Row(claim, ">= 3", gain, gain >= 3 and differ == 0, source),
        Row(
            f"bytes of a step in the log, one direction, one group, {law}", "reported", weight, True, "size of the file"
        ),
    ]


def network_exactness(
    steps: int = 1000,
    few: int = 100,
    entries: int = 1 << 20,
    replayed: int = 10,
    sides: Mapping[str, int] | None = None,
) -> list[Row]:
    """Weights that probing leaves as they were, updates that survive, noise that is independent, logs that rebuild.

    Args:
        steps: on a constant objective.
        few: on a loss, of the log and of the MeZO-compatible mode; and updates that are added up.
        entries: weights of a rounded tensor.
        replayed: steps of the timed replay.
        sides: of the network that is correlated, masked and replayed; by default it has 10.1 million weights.
    """
    import torch

    given, threads = sides or {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [*_kept(steps), *_rebuilt(few), *_survivors(entries, few), *_noise(given), _masks(given), _mezo(few)]
        for law in ("low-rank", "rademacher", "gaussian"):
            rows += _repeated(law, replayed, 512, given)
        return rows
    finally:
        torch.set_num_threads(threads)
