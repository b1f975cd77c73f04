"""What a step of forward-only training costs beside the forward passes it is for.

Time is CPU time of one thread, in turn in one process: two plain forward passes, then a step, over and over; each
step is divided by the two passes just before it, and reported is the median over the pairs (the least stands in the
interval). Where updates lag behind the weights, as they do in 16 bits, a pair is a whole period of steps, so that the
fold is in it. The reference is the two-point step of public codes, re-told
(:mod:`dfo.bench.measures.mezo_reference`). SmolLM2 is left out, and a row says so, where it is not installed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from dfo.bench.measures.fresh import fresh_rows
from dfo.bench.measures.row import Row

__all__ = ["crowd", "network_language_steps", "network_steps", "paired", "plain", "stepper"]

Step = Callable[[], object]

SOURCE = "CPU time of one thread, paired in the same run"

WAYS: Mapping[str, tuple[str, bool, float | None]] = {
    "gaussian": ("gaussian", False, 1.50),
    "gaussian, in place": ("gaussian", True, 1.50),
    "rademacher": ("rademacher", False, 1.20),
    "rademacher, in place": ("rademacher", True, 1.20),
    "low rank, in place": ("low-rank", True, 1.10),
    "low rank, activation side": ("low-rank", False, 1.10),
    "reference": ("reference", True, None),
}
"""Label to law, whether the weights themselves are moved, most times two plain passes of 512 tokens."""

POPULATIONS = ((16, 128, 1.15), (256, 8, 1.20), (256, 1, 1.60))
"""Members, tokens of each, most times plain inference on as many tokens."""

LANGUAGE = (("bfloat16", 128, 1.5), ("bfloat16", 1024, 1.15), ("float32", 128, None))
"""Precision, tokens, most times two plain passes."""

PERIOD = 8
"""Steps after which updates of rank 1 are added to weights of 16 bits."""

PAIRS = {512: 15, 2048: 5}
"""Pairs of timings by tokens where they are not as many as usual: more for what is judged, fewer for what is long."""

LR = 1e-6


# ---------------------------------------------------------------------------------------------- models


def _gpt(**sides: int) -> Any:
    return import_module("dfo_problems.networks.models").gpt(**{"context": 129, **sides})


def _language(precision: str) -> Any:
    return import_module("dfo_problems.language").smollm2(precision)[0]


def _tokens(count: int, words: int, length: int = 128) -> Any:
    """Return ``count`` tokens to read in sequences of at most ``length``, and one more of each to be asked for."""
    import torch

    length = min(count, length)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(words, (count // length, length + 1), generator=generator)


def _loss(module: Any, tokens: Any) -> Any:
    """Return the ``(B,)`` mean cross-entropies of the next token, from all logits."""
    from torch.nn import functional as F  # noqa: N812 - its usual name

    logits = module(tokens[:, :-1])
    logits = getattr(logits, "logits", logits)
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return losses.view(len(tokens), -1).mean(1)


def _chunked(module: Any, tokens: Any) -> Any:
    """Return the same losses, from a few logits at a time."""
    from dfo.nn import causal_loss

    return causal_loss(module, {"input_ids": tokens})


def plain(module: Any, tokens: Any, times: int = 2, loss: Any = None) -> Step:
    """Return a function that makes plain forward passes, each with its loss."""
    import torch

    def passes() -> None:
        with torch.inference_mode():
            for _ in range(times):
                (loss or _loss)(module, tokens)

    return passes


def stepper(module: Any, tokens: Any, law: str, in_place: bool = False, loss: Any = None) -> Step:
    """Return a function that makes one two-point step.

    Args:
        module: whose weights move.
        tokens: ``(B, T + 1)``.
        law: of the directions, or ``reference`` for the step of public codes.
        in_place: move the weights themselves, and bring them back to the bit.
        loss: of the module and the tokens.
    """
    import torch

    from dfo.bench.measures.mezo_reference import Reference
    from dfo.nn import ZOSGD

    function = loss or _loss
    if law == "reference":
        reference = Reference(module, LR)
        return lambda: reference.step(function, tokens)
    optimizer = ZOSGD(module, lr=LR, samples=1, directions=law)
    if not in_place:
        return lambda: optimizer.step(function, tokens)

    def closure() -> float:
        with torch.inference_mode():
            return float(function(module, tokens).mean())

    return lambda: optimizer.step(closure)


# ---------------------------------------------------------------------------------------------- time


Clock = Callable[[], float]


def _seconds(step: Step, times: int, clock: Clock) -> float:
    began = clock()
    for _ in range(times):
        step()
    return (clock() - began) / times


def paired(
    least: Step, steps: Mapping[str, Step], pairs: int, period: int = 1, clock: Clock = time.process_time
) -> dict[str, Any]:
    """Return seconds over those of ``least``, timed just before each; ``(pairs,)`` a step.

    Args:
        least: what is divided by.
        steps: what is timed, after a call to warm up.
        pairs: times each is timed.
        period: calls of one timing, in whose middle ``least`` is timed again.
        clock: returns seconds; those of the CPU by default.
    """
    for step in (least, *steps.values()):
        for _ in range(2):
            step()
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for _, (name, step) in itertools.product(range(pairs), steps.items()):
        took = [
            (_seconds(least, 1, clock), _seconds(step, period // 2 or 1, clock)) for _ in range(2 if period > 1 else 1)
        ]
        base, mine = np.mean(took, axis=0)
        ratios[name].append(mine / base)
    return {name: np.array(r) for name, r in ratios.items()}


def _judged(claim: str, ratios: Any, most: float | None, source: str = SOURCE) -> Row:
    at = float(np.median(ratios))
    spread = f"pairs {float(np.min(ratios)):.3g}..{float(np.max(ratios)):.3g}"
    wanted = "reported" if most is None else f"<= {most:g}"
    return Row(claim, wanted, at, most is None or at <= most, source, len(ratios), spread)


def _small(tokens: int, pairs: int, ways: Sequence[str] = tuple(WAYS), **sides: int) -> list[Row]:
    """Time two-point steps of a GPT in single precision."""
    batch = _tokens(tokens, sides.get("vocab", 3072))
    steps = {way: stepper(_gpt(**sides), batch, *WAYS[way][:2]) for way in ways}
    module = _gpt(**sides)
    steps["both ends in one plain pass"] = plain(module, _doubled(batch), 1)
    ratios = paired(plain(module, batch), steps, pairs)
    millions = sum(p.numel() for p in module.parameters()) / 1e6
    return [
        _judged(
            f"step / two passes, {way}, GPT {millions:.3g} M fp32, {tokens} tokens",
            r, WAYS[way][2] if tokens == 512 and way in WAYS else None,
        )
        for way, r in ratios.items()
    ]  # fmt: skip


def _doubled(tokens: Any) -> Any:
    import torch

    return torch.cat([tokens, tokens])


def _large(precision: str, tokens: int, most: float | None, pairs: int) -> list[Row]:
    """Time two-point steps of SmolLM2: ours over whole periods, those of public codes one by one."""
    module = _language(precision)
    batch, name = _tokens(tokens, 49152), f"SmolLM2-135M {precision}, {tokens} tokens"
    base = plain(module, batch)
    period = PERIOD if precision == "bfloat16" else 1
    ours = paired(base, {"ours": stepper(module, batch, "low-rank")}, pairs, period)["ours"]
    theirs = paired(base, {"reference": stepper(module, batch, "reference")}, max(3, pairs // 2))["reference"]
    fold = ", the fold in it" if period > 1 else ""
    return [
        _judged(f"step / two passes, low rank, activation side{fold}, {name}", ours, most),
        _judged(f"step / two passes, reference, {name}", theirs, None),
    ]


def crowd(module: Any, members: int, tokens: int, words: int) -> tuple[Any, Step, dict[str, Step]]:
    """Return the engine of a population of rank 1 with its draws, plain inference on as many tokens, and what is timed.

    Args:
        module: whose weights differ by member.
        members: of the population, in pairs.
        tokens: of each member.
        words: of the vocabulary.
    """
    import torch

    from dfo.directions import Directions, LowRank
    from dfo.nn import Engine
    from dfo.nn.members import Draws
    from dfo.random import Key

    device = next(module.parameters()).device
    one, each, number = _tokens(tokens, words).to(device), np.arange(members), itertools.count()
    many = torch.randint(words, (members, tokens + 1), generator=torch.Generator().manual_seed(1)).to(device)
    engine, scale = Engine(module, _loss), np.where(each % 2, -1e-3, 1e-3)
    own = _tokens(members * tokens // 2, words, tokens).to(device)  # each direction reads tokens of its own

    def forward(batch: Any, share: bool, law: LowRank) -> Step:
        def once() -> None:
            recipe = Directions(law, Key(0, (next(number),)), members // 2, engine.tensors)
            engine.losses(batch, Draws(recipe, engine.tensors), each // 2, scale, share=share)

        return once

    gaussian = LowRank(entries="gaussian")
    steps = {
        "all members alike": forward(one, True, LowRank()),
        "each direction its own": forward(own, False, LowRank()),
        "each direction its own, gaussian factors": forward(own, False, gaussian),
    }
    return engine, plain(module, many, 1), steps


def _crowd(members: int, tokens: int, most: float | None, pairs: int, **sides: int) -> list[Row]:
    """Time a population of rank 1 with its draws against plain inference on as many tokens."""
    engine, inference, steps = crowd(_gpt(**sides), members, tokens, sides.get("vocab", 3072))
    ratios = paired(inference, steps, pairs)
    if not engine.together:
        raise RuntimeError(engine.describe())
    label = f"population / plain inference, rank 1, draws included, {members} x {tokens} tokens"
    bars = {"each direction its own": most}
    return [_judged(f"{label}, {way}", r, bars.get(way)) for way, r in ratios.items()]


# ---------------------------------------------------------------------------------------------- the measure


def _absent() -> str:
    """Return why the language model cannot be had, or nothing."""
    from dfo.errors import MissingPackage

    try:
        _language("bfloat16")
    except (ImportError, MissingPackage) as error:
        return str(error).splitlines()[0]
    return ""


def network_steps(pairs: int = 7) -> list[Row]:
    """Two-point steps and populations of networks against plain forward passes."""
    rows: list[Row] = []
    for tokens in (32, 128, 512, 2048):
        rows += fresh_rows("network_steps", f"_small({tokens}, {PAIRS.get(tokens, pairs)})")
    for members, tokens, most in POPULATIONS:
        rows += fresh_rows("network_steps", f"_crowd({members}, {tokens}, {most}, {pairs})")
    return rows


def network_language_steps() -> list[Row]:
    """Two-point steps of SmolLM2-135M against plain forward passes."""
    if why := _absent():
        return [Row("SmolLM2-135M", "reported", float("nan"), True, f"left out: {why}", 0)]
    rows: list[Row] = []
    for precision, tokens, target in LANGUAGE:
        rows += fresh_rows("network_steps", f"_large({precision!r}, {tokens}, {target}, {5 if tokens < 1024 else 3})")
    return rows
