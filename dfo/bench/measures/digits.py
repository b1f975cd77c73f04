"""Networks trained by populations: test accuracy on the digits, with defaults chosen on other tasks.

The protocol: a multi-layer perceptron 64-32-10 with tanh (2410 weights), 100 evaluations a step, the same random
minibatch of 256 of the 1437 training images for all members of a step, and the accuracy on the other 360 images
of what the solver recommends. Every run goes through ``dfo.minimize`` with ``noise=True`` and ``batch=100`` and nothing
else: no option of any solver is set, but for the one that a row names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, interval
from dfo.bench.packs import make
from dfo.directions import LowRank
from dfo.run.minimize import minimize
from dfo.solvers import SOLVERS, solver_class

__all__ = ["METHODS", "SHAPES", "digits", "trained"]

PROBLEM = "training-digits-tanh"

RESPLIT = "training-digits-resplit-tanh"

SHAPES = ((64, 32), (32,), (32, 10), (10,))
"""Weights and biases of the network, in the order of its weights."""

METHODS = ("openai-es", "openai-es mirrored", "openai-es rank 1", "pgpe", "ars", "snes", "sep-cma", "cem")
"""Solvers that are compared, as far as they are registered."""

BUDGETS = (5_000, 20_000)
WANTED = {5_000: 0.92, 20_000: 0.965}
SOURCE = "library goal for frozen defaults (numpy prototype tuned on the task: 93.3 and 97.2 %)"


def trained(method: str, budget: int, seeds: Sequence[int], task: str = PROBLEM) -> tuple[Floats, Floats]:
    """Return ``(seeds,)`` test accuracies and ``(seeds,)`` losses on the whole training part.

    Args:
        method: a name; with ``" mirrored"`` for pairs, with ``" rank 1"`` for low-rank directions, in pairs too.
        budget: evaluations.
        seeds: of the runs; seed s starts at instance s + 1 of the problem.
        task: the problem, without its instance.
    """
    name, _, variant = method.partition(" ")
    rank_1 = LowRank(SHAPES, 1, "gaussian")
    variants: dict[str, dict[str, Any]] = {"rank 1": {"directions": rank_1}, "mirrored": {"mirrored": True}}
    solver: Any = solver_class(name)(**variants[variant]) if variant else name
    accuracies, losses = [], []
    for seed in seeds:
        problem = make(f"{task}-i{seed + 1:02d}")
        x0 = np.asarray(problem.x0, dtype=np.float32)
        x = minimize(problem.fun, x0, method=solver, budget=budget, seed=seed, batch=100, noise=True).x
        accuracies.append(problem.fun.accuracy(x))
        losses.append(problem.measure(x) if problem.measure else np.nan)
    return np.array(accuracies), np.array(losses)


def digits(seeds: int = 5) -> list[Row]:
    """Test accuracy on the digits after 5,000 and 20,000 evaluations, with the defaults of every solver."""
    rows: list[Row] = []
    reached: dict[tuple[str, int], Floats] = {}
    for method in (m for m in METHODS if m.partition(" ")[0] in SOLVERS):
        for budget in BUDGETS:
            share, loss = trained(method, budget, range(seeds))
            reached[method, budget] = share
            rows += _judged(method, budget, share, loss, reached)
    rows += [_once(budget, seeds) for budget in BUDGETS]
    return rows + [
        _gradients(task, words, seeds) for task, words in ((PROBLEM, "the split"), (RESPLIT, "the other split"))
    ]


def _gradients(task: str, words: str, seeds: int) -> Row:
    """Return the row of gradient descent on the same network: what the split allows."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    fun = make(f"{task}-i01").fun
    network, share = fun.network, []
    for seed in range(seeds):
        model = MLPClassifier((32,), activation="tanh", max_iter=60, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sixty epochs are what is asked for
            model.fit(network.data, network.labels)
        share.append(float((model.predict(fun.test[0]) == fun.test[1]).mean()))
    claim = f"for comparison: back-propagation, scikit-learn's MLPClassifier, Adam, 60 epochs, {words}"
    return Row(claim, "no claim", float(np.mean(share)), True, "same run", seeds, interval(share))


def _once(budget: int, seeds: int) -> Row:
    """Return the row of the default strategy on a split, and with seeds, that no choice was made with."""
    share, _ = trained("openai-es", budget, range(100, 100 + seeds), RESPLIT)
    claim = f"openai-es: the same on a split and with seeds that were looked at once, {budget:,} evaluations"
    wanted, mean = WANTED[budget], float(share.mean())
    return Row(claim, f">= {100 * wanted:g} %", mean, mean >= wanted, SOURCE, seeds, interval(share))


def _judged(method: str, budget: int, share: Floats, loss: Floats, reached: dict[tuple[str, int], Floats]) -> list[Row]:
    """Return the rows of one method: goals for the default strategy, a comparison for the others."""
    claim = f"{method}: test accuracy after {budget:,} evaluations, digits, 2410 weights"
    mean, n, spread = float(share.mean()), len(share), interval(share)
    if method == "openai-es":
        wanted = WANTED[budget]
        rows = [Row(claim, f">= {100 * wanted:g} %", mean, mean >= wanted, SOURCE, n, spread)]
        if budget == BUDGETS[-1]:
            low = float(loss.mean())
            claim = f"{method}: cross-entropy of the training part after {budget:,} evaluations"
            rows.append(Row(claim, "<= 0.05", low, low <= 0.05, SOURCE, n, interval(loss)))
        return rows
    if method == "openai-es rank 1":
        full = float(reached["openai-es mirrored", budget].mean())
        gap, expected = full - mean, f"at most 1 % below full rank, mirrored like it ({100 * full:.1f} %)"
        return [Row(claim, expected, mean, gap <= 0.01, "Sarkar et al. 2025; algorithms 7.7", n, spread)]
    return [Row(claim, "no claim: for comparison", mean, True, "same run", n, spread)]
