"""What it costs to move the live weights of a network there and back, beside the two forward passes it is for.

CPU time of one thread, in one process, in turn: two plain forwards, then a whole two-point step (move, forward, flip,
forward, restore and update), over and over; ratios are medians over the pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dfo.bench.measures.fresh import fresh_rows
from dfo.bench.measures.row import Row

__all__ = ["two_point_in_place"]

CASES: tuple[tuple[str, str, int, dict[str, Any], float | None], ...] = (
    ("gaussian", "gaussian", 1, {}, 1.50),
    ("gaussian, nothing kept", "gaussian", 1, {"keep": 0, "backup": "sparse"}, None),
    ("rademacher", "rademacher", 1, {}, 1.20),
    ("rademacher, nothing kept", "rademacher", 1, {"keep": 0, "backup": "sparse"}, None),
    ("low rank, r=1", "low-rank", 1, {}, 1.10),
    ("low rank, r=1, nothing kept", "low-rank", 1, {"keep": 0, "backup": "sparse"}, None),
    ("low rank, r=2", "low-rank", 2, {}, 1.10),
)
"""Label, law, rank, options of the move, most times two forwards."""


def _gpt(width: int = 384, layers: int = 5, heads: int = 6, words: int = 3072, length: int = 128) -> Any:
    """Return a GPT of 10.1 million weights with a tied head, as a function of tokens ``(B, T)`` to a loss."""
    import torch
    from torch import nn

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
            self.out, self.between = nn.Linear(width, width), nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.before(x)).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(b, t, width))
            return x + self.down(nn.functional.gelu(self.up(self.between(x))))

    class GPT(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
            self.layers, self.last = nn.Sequential(*(Layer() for _ in range(layers))), nn.LayerNorm(width)
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, std=0.02)

        def forward(self, tokens: Any) -> Any:
            x = self.layers(self.token(tokens) + self.place.weight[: tokens.shape[1]])
            return nn.functional.linear(self.last(x), self.token.weight)

    torch.manual_seed(0)
    return GPT()


def _law(name: str, rank: int) -> Any:
    from dfo.directions import LowRank, distribution

    return LowRank(rank=rank) if name == "low-rank" else distribution(name)


def _steps() -> dict[str, Callable[[], object]]:
    """Return two forwards, and the two-point step of every case, as functions."""
    import torch

    from dfo.directions import Directions
    from dfo.nn.in_place import InPlace
    from dfo.random import Key

    model = _gpt()
    weights = dict(model.named_parameters())
    tokens = torch.randint(0, 3072, (4, 128))

    def loss() -> float:
        with torch.no_grad():
            logits = model(tokens)
            return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))

    def step_of(law: Any, options: dict[str, Any]) -> Callable[[], object]:
        moved = InPlace(weights, Directions(law, Key(0), 1, weights), **options)
        number = iter(range(10**9))

        def step() -> None:
            moved.take(Directions(law, Key(0).child(next(number)), 1, weights))
            with moved:
                moved.to(0, 1e-3)
                plus = loss()
                moved.flip()
                moved.back_and_add([-1e-6 * (plus - loss()) / 2e-3])

        return step

    steps: dict[str, Callable[[], object]] = {"two forwards": lambda: (loss(), loss())}
    return steps | {label: step_of(_law(name, rank), options) for label, name, rank, options, _ in CASES}


def _seconds(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def _remembered() -> list[Row]:
    """What the sparse way back takes, for weights as they are at initialisation."""
    from itertools import product

    import torch

    from dfo.directions import Directions
    from dfo.nn.in_place import InPlace
    from dfo.random import Key

    rows = []
    for dtype, law, radius in product(("float32", "bfloat16", "float16"), ("gaussian", "rademacher"), (1e-3, 1e-4)):
        drawn = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
        w: Any = {"w": drawn.to(getattr(torch, dtype))}
        with InPlace(w, Directions(_law(law, 1), Key(0), 1, w), backup="sparse", keep=0) as moved:
            moved.to(0, radius)
            share = moved.remembered
        claim = f"in place, sparse: bytes of the way back / of weights N(0, 0.02^2), {dtype}, {law}, radius {radius:g}"
        rows.append(Row(claim, "reported", share, True, "counted on a million weights"))
    return rows


def _rows(pairs: int) -> list[Row]:
    import torch

    torch.set_num_threads(1)
    steps = _steps()
    for step in steps.values():
        step()
    took = [{name: _seconds(step) for name, step in steps.items()} for _ in range(pairs)]
    rows = []
    for label, *_, most in CASES:
        ratio = float(np.median([t[label] / t["two forwards"] for t in took]))
        rows.append(
            Row(
                f"in place: two-point step / two forwards, {label}, GPT of 10.1 M in single precision, 512 tokens",
                "reported" if most is None else f"<= {most:g}", ratio, most is None or ratio <= most,
                "CPU time of one thread, paired in the same run", pairs,
            )
        )  # fmt: skip
    return rows + _remembered()


def two_point_in_place(pairs: int = 15) -> list[Row]:
    """Two-point steps on live weights against two forwards, and what the exact way back remembers."""
    return fresh_rows("in_place", f"_rows({pairs})")
