"""ZO-SGD: second moments of the directions, and the contraction of single steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfo.bench.measures.row import Row
from dfo.directions import DISTRIBUTIONS, Directions, Distribution, LowRank
from dfo.feedback import Values
from dfo.random import Key, normal
from dfo.solvers import solver_class

__all__ = ["contraction", "second_moment", "zo_sgd"]


def second_moment(law: Distribution, d: int, q: int, draws: int, key: Key) -> float:
    """Return the mean of ``|g_hat|^2 / |g|^2`` of central differences of a linear function.

    Args:
        law: distribution of the directions.
        d: dimension.
        q: directions per estimate.
        draws: directions in all.
        key: the stream.
    """
    g = normal(key.child("slope"), (d,))
    joint = not law.elementwise
    if joint and q > 1:  # directions of one estimate depend on each other
        groups = [Directions(law, key.child(i), q, g).dense() for i in range(draws // q)]
        U = np.stack(groups)  # (n, q, d)
    else:
        U = Directions(law, key, draws // q * q, g).dense().reshape(-1, q, d)
    estimates = np.einsum("nq,nqd->nd", U @ g, U) / q  # a central difference of a linear function is exact
    return float((estimates**2).sum(axis=1).mean() / (g @ g))


def contraction(directions: str, lr: float, seeds: int) -> tuple[float, float]:
    """Return mean and standard deviation of ``log |x_T|^2 / |x_0|^2`` on half the sphere, d = 100, T = 2000."""
    logs = []
    solver = solver_class("zo-sgd")(lr=lr, samples=1, directions=directions, radius=1e-3)
    for seed in range(seeds):
        x0 = normal(Key(seed).child("start"), (100,))
        state = solver.init(x0, Key(seed))
        for _ in range(2000):
            batch = solver.ask(state)
            X: Any = batch.dense()
            state = solver.tell(state, batch, Values(0.5 * (X * X).sum(axis=1)))
        logs.append(float(np.log((state.x @ state.x) / (x0 @ x0))))
    return float(np.mean(logs)), float(np.std(logs))


def zo_sgd(draws: int = 200_000, seeds: int = 50) -> list[Row]:
    """Second moments of every distribution of directions, and the contraction of single-direction steps."""
    d, rows = 20, []
    laws = DISTRIBUTIONS
    cases: list[tuple[str, Distribution, int, int, float]] = [
        ("gaussian", laws["gaussian"], d, 1, d + 2),
        ("sphere", laws["sphere"], d, 1, d),
        ("rademacher", laws["rademacher"], d, 1, d),
        ("coordinate", laws["coordinate"], d, 1, d),
        ("sparse (density 0.1)", laws["sparse"], d, 1, d - 1 + 3 / 0.1),
        ("gaussian, 5 directions", laws["gaussian"], d, 5, 1 + (d + 1) / 5),
        ("sphere, 5 directions", laws["sphere"], d, 5, 1 + (d - 1) / 5),
        ("orthogonal, 5 directions", laws["orthogonal"], d, 5, d / 5),
        ("coordinate, all directions", laws["coordinate"], d, d, 1.0),
        ("low rank, 5 x 4, rank 1", LowRank((5, 4)), d, 1, 7 * 6),
    ]
    for name, law, dim, q, expected in cases:
        measured = second_moment(law, dim, q, draws, Key(0).child("moment", name))
        claim = f"second moment of the estimate, {name}, d={dim}"
        rows.append(Row(claim, f"{expected:g} +- 3 %", measured, abs(measured / expected - 1) <= 0.03, "theory"))
    for name, lr, theory in (("sphere", 1 / 100, 2000 * np.log(1 - 1 / 100)), ("gaussian", 1 / 102, -19.70)):
        mean, _ = contraction(name, lr, seeds)
        expected = -20.2 if name == "sphere" else -19.9
        claim = f"mean log contraction of |x|^2, one {name} direction, d=100, 2000 steps, {seeds} seeds"
        source = f"independent simulation; log of the mean is {theory:.2f} in theory"
        rows.append(Row(claim, f"{expected} +- 0.5", mean, abs(mean - expected) <= 0.5, source))
    return rows
