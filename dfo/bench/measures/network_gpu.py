"""What steps and populations of networks cost beside plain forward passes on a GPU, in time and in memory.

Time is that of the clock on the wall with the device waited for, in turn in one process, ratios by medians. Memory is
the largest that torch has allocated on the device, less that of plain passes of the same number of tokens. Where there
is no GPU, a row says so, and nothing is measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfo.bench.measures.network_steps import (
    PERIOD,
    POPULATIONS,
    WAYS,
    _absent,
    _doubled,
    _gpt,
    _judged,
    _language,
    _tokens,
    crowd,
    paired,
    plain,
    stepper,
)
from dfo.bench.measures.row import Row

__all__ = ["network_gpu", "rows_on"]

BILLION = {"d": 2048, "layers": 18, "heads": 16, "vocab": 32768}
"""Sides of a transformer of 0.97e9 weights."""

CROWDS = ((64, 128), (512, 16), (2048, 4))
"""Members of a population of the large transformer, and tokens of each."""

SOURCE = "wall-clock time with the device waited for, paired in the same run"

PEAK = "largest memory that torch has allocated on the device, less that with plain passes"


def network_gpu() -> list[Row]:
    """Two-point steps and populations against plain forward passes on a GPU: time and memory."""
    import torch

    if not torch.cuda.is_available():
        return [Row("GPU", "reported", float("nan"), True, "left out: torch sees no GPU on this machine", 0)]
    device = torch.device("cuda")
    return rows_on(device) + ([] if _absent() else _language_rows(device))


def rows_on(
    device: Any, small: Mapping[str, int] | None = None, large: Mapping[str, int] | None = None, pairs: int = 9
) -> list[Row]:
    """Return the rows of the small and of the large transformer on a device.

    Args:
        device: of torch.
        small: sides of the small one, 10 million weights by default.
        large: sides of the large one, :data:`BILLION` by default.
        pairs: times each is timed.
    """
    import torch

    few, many, clock = dict(small or {}), dict(large or BILLION), _clock(device)
    rows, words = [], few.get("vocab", 3072)
    batch = _tokens(512, words).to(device)
    steps = {way: stepper(_gpt(**few).to(device), batch, *WAYS[way][:2]) for way in WAYS}
    for way, ratios in paired(plain(_gpt(**few).to(device), batch), steps, pairs, clock=clock).items():
        label = f"step / two passes, {way}, GPT {_millions(_gpt(**few))} fp32, 512 tokens"
        rows.append(_judged(label, ratios, WAYS[way][2], SOURCE))
    for members, tokens, most in POPULATIONS:
        rows.append(_crowd(_gpt(**few).to(device), members, tokens, words, most, pairs, clock))
    module = _gpt(**many).to(device, torch.bfloat16)
    for members, tokens in CROWDS:
        rows.append(_crowd(module, members, tokens, many["vocab"], 1 / 0.91, pairs, clock))
    return rows + _steps(module, f"GPT {_millions(module)} bf16", many["vocab"], device, pairs)


def _clock(device: Any) -> Any:
    """Return a clock that waits for a device; of the CPU it is that of the process."""
    import torch

    if device.type == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _millions(module: Any) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.3g} M"


def _crowd(module: Any, members: int, tokens: int, words: int, most: float, pairs: int, clock: Any) -> Row:
    """Time a population of rank 1, each direction with tokens of its own, against plain inference."""
    engine, inference, steps = crowd(module, members, tokens, words)
    way = "each direction its own"
    ratios = paired(inference, {way: steps[way]}, pairs, clock=clock)[way]
    if not engine.together:
        raise RuntimeError(engine.describe())
    what = f"GPT {_millions(module)}, {members} x {tokens} tokens"
    label = f"population / plain inference, rank 1, draws included, {what}, {way}"
    return _judged(label, ratios, most, f"{SOURCE}; throughput {1 / float(np.median(ratios)):.3f} of plain")


def _steps(module: Any, name: str, words: int, device: Any, pairs: int) -> list[Row]:
    """Time and weigh two-point steps of a module in 16 bits, over whole periods, the fold in them."""
    rows = []
    for tokens, most in ((128, 1.5), (1024, 1.15)):
        batch = _tokens(tokens, words).to(device)
        base, step = plain(module, batch), stepper(module, batch, "low-rank")
        ratios = paired(base, {"ours": step}, pairs, PERIOD, _clock(device))["ours"]
        label = f"low rank, activation side, {name}, {tokens} tokens"
        rows.append(_judged(f"step / two passes, {label}", ratios, most, SOURCE))
        if device.type == "cuda":
            extra = _peak(step, PERIOD + 1) - _peak(plain(module, _doubled(batch), 1), 1)
            one_percent = 0.01 * sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20
            bar = max(8.0, one_percent)
            rows.append(Row(f"MiB above plain passes, {label}", f"<= {bar:.3g}", extra, extra <= bar, PEAK))
    return rows


def _peak(act: Any, times: int) -> float:
    """Return the largest memory, in MiB, that is allocated on the device while something is done."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    for _ in range(times):
        act()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated()) / 2**20


def _language_rows(device: Any) -> list[Row]:
    module = _language("bfloat16").to(device)
    return _steps(module, "SmolLM2-135M bf16", 49152, device, 5)
