"""What a step of forward-only training needs beside the memory of the forward passes it is for.

Memory is the largest resident memory of a fresh process: that of steps less that of plain forward passes of the same
number of tokens; the interval is from the least to the largest difference of two runs. Both processes have made steps
and a pass of a tiny network before, so that the code of either is loaded and counts in neither. The reference is the
two-point step of public codes, re-told (:mod:`dfo.bench.measures.mezo_reference`). SmolLM2 is left out, and a row says
so, where it is not installed.
"""

from __future__ import annotations

import itertools
from typing import Any

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

PEAK = "largest resident memory of fresh processes, medians"

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
"""What glibc is told: what it starts with, memory of 128 KiB and more goes back to the system when it is free. Left to
itself it moves this threshold, and what a process holds differs by a hundred MiB from one run of the same steps to the
next."""

WAYS_TOLD = {"low-rank": "low rank, activation side", "reference": "reference"}
"""Law to what it is called."""

TINY = {"d": 24, "layers": 1, "heads": 2, "vocab": 50}


def _load(law: str, precision: str) -> None:
    """Make a plain pass and steps of a law on a tiny network."""
    import torch

    module, batch = _gpt(**TINY).to(getattr(torch, precision)), _tokens(16, 50, 8)
    plain(module, _doubled(batch), 1)()
    step = stepper(module, batch, law)
    for _ in range(PERIOD + 1):
        step()


def of_language(law: str, tokens: int, loss: str, steps: bool) -> float:
    """Return the peak of this process after steps of a law on SmolLM2 in bfloat16, or after plain passes."""
    import torch

    from dfo.nn.engine import ALONE

    torch.set_num_threads(1)
    _load(law, "bfloat16")
    function = {"all logits": _loss, "few logits": _chunked}[loss]
    module, batch = _language("bfloat16"), _tokens(tokens, 49152)
    if steps:
        act = stepper(module, batch, law, loss=function)
    else:  # as many tokens in a pass as the step has: one end of a direction, or both where they share a pass
        act = plain(module, batch if law == "reference" or tokens >= ALONE else _doubled(batch), 1, function)
    forget_peak()
    for _ in range(PERIOD + 1 if law == "low-rank" else 3):
        act()
    return peak()


def of_directions(samples: int, parts: int, steps: bool) -> float:
    """Return the peak of this process after steps of several directions on a batch in parts, or after plain passes."""
    import torch

    from dfo.nn import ZOSGD

    torch.set_num_threads(1)
    _load("low-rank", "float32")
    module, batch = _gpt(), _tokens(1024, 3072)
    optimizer = ZOSGD(module, lr=LR, samples=samples, chunk=2 * parts)  # at most 2,048 tokens a pass, as in plain ones
    act = (lambda: optimizer.step(_loss, batch, parts=parts)) if steps else plain(module, _doubled(batch), 1)
    forget_peak()
    for _ in range(3):
        act()
    return peak()


def _above(call: str, claim: str, most: float | None, runs: int = 3) -> Row:
    """Return a row of what steps need beside plain passes; ``call`` lacks its last argument, ``steps``."""

    def peaks(steps: bool) -> Any:
        settings = [{**ALLOCATOR, "RUN": str(run)} for run in range(runs)]
        return np.array([float(fresh("network_memory", f"m.{call}, {steps})", given)) for given in settings])

    with_steps, without = peaks(True), peaks(False)
    extra = float(np.median(with_steps) - np.median(without))
    spread = f"{with_steps.min() - without.max():.4g}..{with_steps.max() - without.min():.4g}"
    wanted = "reported" if most is None else f"<= {most:g}"
    source = f"{PEAK}: {np.median(with_steps):.0f} less {np.median(without):.0f}"
    return Row(f"MiB above plain passes, {claim}", wanted, extra, most is None or extra <= most, source, runs, spread)


def network_memory() -> list[Row]:
    """Memory of two-point steps above that of plain forward passes, in fresh processes."""
    rows = [_above(f"of_directions({q}, 8", f"q = {q}, 1024 tokens in 8 parts, GPT 10.1 M fp32", 8.0) for q in (1, 16)]
    if why := _absent():
        return [*rows, Row("SmolLM2-135M", "reported", float("nan"), True, f"left out: {why}", 0)]
    cases = (("all logits", 128), ("few logits", 1024))
    for (loss, tokens), law in itertools.product(cases, WAYS_TOLD):
        label = f"{WAYS_TOLD[law]}, SmolLM2-135M bfloat16, {tokens} tokens, {loss} (weights: 257 MiB)"
        rows.append(_above(f"of_language({law!r}, {tokens}, {loss!r}", label, 8.0 if law == "low-rank" else None))
    return rows
