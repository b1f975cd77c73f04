"""What a step of forward-only training needs beside the memory of the forward passes it is for.

Memory is the largest resident memory of a fresh process: that of steps less that of plain forward passes of the same
number of tokens. Both processes have made a step and a pass of a tiny network before, so that the code of either is
loaded and counts in neither. The reference is the two-point step of public codes, re-told
(:mod:`dfo.bench.measures.mezo_reference`). SmolLM2 is left out, and a row says so, where it is not installed.
"""

from __future__ import annotations

import itertools

import numpy as np

from dfo.bench.measures.fresh import forget_peak, fresh, peak
from dfo.bench.measures.network_steps import (
    LR,
    PERIOD,
    _absent,
    _chunked,
    _doubled,
    _gpt,
    _language,
    _loss,
    _tokens,
    plain,
    stepper,
)
from dfo.bench.measures.row import Row

__all__ = ["network_memory"]

PEAK = "largest resident memory of a fresh process, less that with plain passes; median of its runs"

TINY = {"d": 24, "layers": 1, "heads": 2, "vocab": 50}


def _load(what: str) -> None:
    """Run what is about to be measured once on a tiny network in 16 bits."""
    import torch

    module, batch = _gpt(**TINY).to(torch.bfloat16), _tokens(16, 50, 8)
    plain(module, _doubled(batch), 1)()
    step = stepper(module, batch, what if what == "reference" else "low-rank")
    for _ in range(PERIOD + 1):
        step()


def mebibytes(what: str, precision: str, tokens: int, loss: str) -> float:
    """Return the peak of this process after plain passes of ``2 tokens`` tokens, or after steps on ``tokens``."""
    import torch

    torch.set_num_threads(1)
    _load(what)
    function = {"all logits": _loss, "few logits": _chunked}[loss]
    module = _language(precision)
    batch = _tokens(tokens, 49152)
    if what == "plain":
        act = plain(module, _doubled(batch), 1, function)
    elif what == "plain, one by one":
        act = plain(module, batch, 1, function)
    else:
        act = stepper(module, batch, what, loss=function)
    forget_peak()
    for _ in range(PERIOD + 1 if what == "low-rank" else 3):
        act()
    return peak()


def many(samples: int, parts: int) -> float:
    """Return the peak of this process after steps of several directions on a batch in parts; 0 parts: plain passes."""
    import torch

    from dfo.nn import ZOSGD

    torch.set_num_threads(1)
    _load("low-rank")
    module, batch = _gpt(), _tokens(1024, 3072)
    optimizer = ZOSGD(module, lr=LR, samples=samples)
    act = (lambda: optimizer.step(_loss, batch, parts=parts)) if parts else plain(module, _tokens(2048, 3072), 1)
    forget_peak()
    for _ in range(3):
        act()
    return peak()


def _median(call: str, runs: int) -> tuple[float, str]:
    """Return the median over fresh processes, and their spread."""
    found = [float(fresh("network_memory", call, {"RUN": str(run)})) for run in range(runs)]
    return float(np.median(found)), f"{min(found):.4g}..{max(found):.4g}"


def _memory(runs: int = 3) -> list[Row]:
    """Measure what steps of SmolLM2 in bfloat16 need beside plain passes."""
    rows, weights = [], 134515008 * 2 / 2**20
    cases = (("all logits", 128), ("few logits", 1024))
    for (loss, tokens), what in itertools.product(cases, ("low-rank", "reference")):
        beside = "plain" if what == "low-rank" else "plain, one by one"
        base, _ = _median(f"m.mebibytes({beside!r}, 'bfloat16', {tokens}, {loss!r})", runs)
        peak, spread = _median(f"m.mebibytes({what!r}, 'bfloat16', {tokens}, {loss!r})", runs)
        extra, label = peak - base, "low rank, activation side" if what == "low-rank" else what
        claim = f"MiB above plain passes, {label}, SmolLM2-135M bfloat16, {tokens} tokens, {loss} ({weights:.0f} MiB)"
        most = max(8.0, 0.01 * weights)
        ours = what == "low-rank"
        rows.append(
            Row(claim, f"<= {most:g}" if ours else "reported", extra, not ours or extra <= most, PEAK, runs,
                f"peaks {spread}, plain {base:.4g}")
        )  # fmt: skip
    return rows


def _directions(runs: int = 3) -> list[Row]:
    """Measure what many directions and a batch in parts add."""
    base, _ = _median("m.many(1, 0)", runs)
    rows = []
    for samples, parts in ((1, 8), (16, 8)):
        peak, spread = _median(f"m.many({samples}, {parts})", runs)
        claim = f"MiB above a plain pass of 2048 tokens, q = {samples}, 1024 tokens in {parts} parts, GPT 10.1 M fp32"
        most = 8.0
        rows.append(Row(claim, f"<= {most:g}", peak - base, peak - base <= most, PEAK, runs, f"peaks {spread}"))
    return rows


def network_memory() -> list[Row]:
    """Memory of two-point steps above that of plain forward passes, in fresh processes."""
    rows = _directions()
    if why := _absent():
        return [*rows, Row("SmolLM2-135M", "reported", float("nan"), True, f"left out: {why}", 0)]
    return rows + _memory()
