"""Laws of directions on a network: what each reaches with the same number of forward passes.

The task is ``digits-mlp`` (64-32-10, 2,410 weights, scikit-learn's digits) with :class:`dfo.nn.ZOSGD`, 8 directions a
step, so 16 passes of a batch of 128 images. Every law has the same steps and the same three rates; the best by the
mean validation loss is reported on the test. With so few weights the held and the structured laws have no advantage of
cost to show: the figures say what their structure costs in progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from dfo.bench.measures.row import Row, interval
from dfo.directions import (
    LOZO,
    Block,
    Distribution,
    Gaussian,
    LowRank,
    MagnitudeMask,
    Rademacher,
    RandomCoordinate,
    RandomMask,
    Sparse,
    Sphere,
    SubZero,
)
from dfo.random import Key

__all__ = ["LAWS", "network_laws"]

LAWS: Mapping[str, Distribution] = {
    "gaussian": Gaussian(),
    "rademacher": Rademacher(),
    "sphere": Sphere(),
    "low rank, rank 1": LowRank(),
    "low rank, rank 1, gaussian factors": LowRank(entries="gaussian"),
    "block (a layer a step)": Block(),
    "sparse (density 0.1, a mask a direction)": Sparse(0.1),
    "random mask (density 0.1, held 100 steps)": RandomMask(0.1, 100),
    "magnitude mask (density 0.25, held 100 steps)": MagnitudeMask(0.25, 100),
    "LOZO (rank 2, held 50 steps)": LOZO(2, 50),
    "SubZero (rank 8, held 100 steps)": SubZero(8, 100),
    "random coordinate": RandomCoordinate(),
}
"""Laws by what they are called in the rows; those of large periods in proportion to a short run."""

RATES = (0.003, 0.01, 0.03)
"""Root mean square of a step per weight."""

GUESS = float(np.log(10.0))
"""Cross-entropy of equal probabilities."""


def network_laws(steps: int = 400, samples: int = 8, seeds: int = 3) -> list[Row]:
    """Laws of directions on a network: what each reaches with the same number of forward passes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small products: more threads cost more than they bring
    try:
        return [row for name, law in LAWS.items() for row in _rows(name, law, steps, samples, seeds)]
    finally:
        torch.set_num_threads(before)


def _rows(name: str, law: Distribution, steps: int, samples: int, seeds: int) -> list[Row]:
    runs = {lr: [_trained(law, lr, steps, samples, seed) for seed in range(1, seeds + 1)] for lr in RATES}
    lr = min(runs, key=lambda rate: float(np.mean([valid for valid, _, _ in runs[rate]])))
    losses, right = [loss for _, loss, _ in runs[lr]], [share for _, _, share in runs[lr]]
    what = f"{name}, {2 * samples * steps} passes, rate {lr:g}"
    source = "the logarithm of the number of classes; laws compared within this run"
    return [
        Row(f"test cross-entropy: {what}", f"below {GUESS:.2f}, that of guessing", float(np.mean(losses)),
            float(np.mean(losses)) < GUESS, source, seeds, interval(losses)),
        Row(f"test accuracy: {what}", "above 0.1, that of guessing", float(np.mean(right)),
            float(np.mean(right)) > 0.1, source, seeds, interval(right)),
    ]  # fmt: skip


def _trained(law: Distribution, lr: float, steps: int, samples: int, seed: int) -> tuple[float, float, float]:
    """Return validation loss, test loss and test accuracy of a run."""
    from dfo.nn import ZOSGD

    work: Any = import_module("dfo_problems.networks.tasks").task("digits-mlp")
    module = work.make(Key(seed))
    opt = ZOSGD(module, lr=lr, samples=samples, directions=law, seed=seed)
    for t in range(steps):
        opt.step(work.loss, work.batch(seed * steps + t))
    opt.flush()
    test = work.measure(module, "test")
    return work.measure(module, "validation").loss, test.loss, test.accuracy
