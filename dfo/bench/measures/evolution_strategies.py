"""OpenAI-ES, PGPE, ARS, guided ES and low-rank directions against their equations."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, holds_within, interval
from dfo.bench.measures.zo_sgd import second_moment
from dfo.components import descent
from dfo.components.shaping import by_rank
from dfo.directions import DISTRIBUTIONS, Directions, LowRank
from dfo.feedback import Values
from dfo.oracles.rank import RankOracle
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.run.minimize import minimize
from dfo.solvers import solver_class
from dfo.spaces import Free

__all__ = ["drift_of_moments", "evolution_strategies", "guided_scale", "path", "rate", "top_gap"]

Objective = Callable[[Floats], Floats]

SIDES = (12, 9)
"""The matrix of the table of second moments."""


def sphere(X: Floats) -> Floats:
    """Return ``|x|^2`` of ``(n, d)`` points."""
    return np.asarray((X * X).sum(axis=1))


def path(solver: Any, f: Objective, x0: Floats, steps: int, seed: int = 0) -> list[Floats]:
    """Return the ``(d,)`` centers after each of some steps of a solver that is planned here for 10,000 evaluations."""
    solver = solver.plan(Task(Free(len(x0)), 10_000))
    state, centers = solver.init(x0, Key(seed)), []
    for _ in range(steps):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(f(batch.dense())))
        centers.append(np.array(state.x))
    return centers


# ---------------------------------------------------------------------- ranks


def _shaping() -> list[Row]:
    """Sums of utilities, and paths under increasing functions of f (algorithms 7.1)."""
    largest = max(abs(float(by_rank(kind, n).sum())) for kind in ("centered", "nes") for n in range(2, 200))
    claim = "largest |sum of utilities|, centered and nes, 2 to 199 members"
    rows = [Row(claim, "0 to rounding (<= 1e-14)", largest, largest <= 1e-14, "algorithms 7.1; Salimans et al. 2017")]
    x0 = np.linspace(1.0, 2.0, 6)
    for name in ("openai-es", "pgpe", "guided-es"):
        plain = path(solver_class(name)(), sphere, x0, 60)
        other = path(solver_class(name)(), lambda X: np.exp(sphere(X) / 8.0), x0, 60)
        moved = max(float(np.abs(a - b).max()) for a, b in zip(plain, other, strict=True))
        claim = f"{name}: largest change of the center in 60 steps when f becomes exp(f / 8)"
        rows.append(Row(claim, "0, bit for bit", moved, moved == 0.0, "algorithms 7.11: monotone invariance"))
    return rows


# ---------------------------------------------------------------------- low rank


def _low_rank(draws: int) -> list[Row]:
    """Second moments of low-rank directions on a 12 x 9 matrix, and their bias (algorithms 7.7)."""
    (a, b), rows = SIDES, []
    published = {1: 151.0, 2: 133.0, 4: 120.0, 16: 112.0}
    for rank, figure in published.items():
        law, exact = LowRank(SIDES, rank, "gaussian"), a * b + 2 + 2 * (a + b + 1) / rank
        measured = second_moment(law, a * b, 1, draws, Key(0).child("rank", rank))
        claim = f"second moment of the estimate, rank {rank}, {a} x {b}"
        expected = f"{figure:g} +- 4 % (ab + 2 + 2 (a + b + 1) / r = {exact:g})"
        rows.append(Row(claim, expected, measured, holds_within(measured, figure, 0.04), "algorithms 7.7"))
    full = second_moment(DISTRIBUTIONS["gaussian"], a * b, 1, draws, Key(0).child("full"))
    rows.append(Row(f"second moment of the estimate, gaussian, {a} x {b}", "110 +- 4 %", full,
                    holds_within(full, 110, 0.04), "algorithms 7.7"))  # fmt: skip
    gap = drift_of_moments(draws)
    claim = "rank 1: largest difference of the second moments of the directions from I, in standard errors"
    expected = "< 5 among 5,886 entries (unbiased)"
    rows.append(Row(claim, expected, gap, gap < 5.0, "algorithms 7.7: E vec Z vec Z^T = I"))
    return rows


def drift_of_moments(draws: int) -> float:
    """Return the largest ``|mean(u u^T) - I|`` over its standard error, for directions of rank 1 on a 12 x 9 matrix."""
    d, total, squares, count = SIDES[0] * SIDES[1], 0.0, 0.0, 0
    for part in range(max(1, draws // 20_000)):
        U: Any = Directions(LowRank(SIDES, 1, "gaussian"), Key(1).child(part), 20_000, np.zeros(d)).dense()
        total, squares, count = total + U.T @ U, squares + (U * U).T @ (U * U), count + len(U)
    mean: Any = total / count
    error = np.sqrt((squares / count - mean * mean) / count)
    return float((np.abs(mean - np.eye(d)) / error).max())


# ---------------------------------------------------------------------- guided directions


def guided_scale(alpha: float, pairs: int, key: int = 0, d: int = 40, k: int = 4) -> tuple[float, float]:
    """Return the estimate of a linear function's gradient within the subspace, and the one of theory, per unit of it.

    Args:
        alpha: share of the variance outside the subspace.
        pairs: P of the estimate.
        key: of the directions.
        d: variables.
        k: surrogate gradients.
    """
    plain = {"shaping": "none", "rule": "sgd", "lr": 1.0, "schedule": "constant"}
    solver = solver_class("guided-es")(alpha=alpha, population=2 * pairs, subspace=k, sigma=0.1, **plain)
    state = solver.init(np.zeros(d), Key(key))
    for surrogate in normal(Key(key).child("surrogates"), (k, d)):
        state = solver.guide(state, surrogate)
    g: Any = np.array([1.0, -2.0, 0.5, 1.0]) @ state.basis  # in the subspace
    batch = solver.ask(state)
    estimate = state.x - solver.tell(state, batch, Values(batch.dense() @ g)).x
    return float(estimate @ g / (g @ g)), 2.0 * (alpha / d + (1.0 - alpha) / k)


def _guided(seeds: int) -> list[Row]:
    """The estimator of guided ES, its two ends, and what a biased surrogate is worth (algorithms 7.9)."""
    rows, x0 = [], normal(Key(3), (30,))
    # a constant large eps would tell scales apart; with the normalised rule only the direction is left
    plain = path(solver_class("openai-es")(rule="clipup", population=12), sphere, x0, 50)
    guided = path(solver_class("guided-es")(rule="clipup", population=12, alpha=1.0), sphere, x0, 50)
    gap = max(float(np.abs(a - b).max()) for a, b in zip(plain, guided, strict=True))
    rows.append(Row("guided-es, alpha = 1: distance from openai-es over 50 steps", "0 to rounding (<= 1e-9)", gap,
                    gap <= 1e-9, "algorithms 7.9: alpha = 1 is ES"))  # fmt: skip
    outside = _outside()
    rows.append(Row("guided-es, alpha = 0: way outside the subspace / way in 50 steps", "0 to rounding (<= 1e-9)",
                    outside, outside <= 1e-9, "algorithms 7.9: alpha = 0 projects"))  # fmt: skip
    for alpha in (0.5, 0.0):
        ratios = [measured / theory for measured, theory in (guided_scale(alpha, 2_000, seed) for seed in range(seeds))]
        mean = float(np.mean(ratios))
        claim = f"guided-es, alpha = {alpha:g}: estimate of a slope in the subspace / beta (alpha/d + (1 - alpha)/k)"
        rows.append(Row(claim, "1 +- 3 %", mean, holds_within(mean, 1.0, 0.03), "Maheswaranathan et al. 2019, eq. 4",
                        seeds, interval(ratios)))  # fmt: skip
    few, many = (float(np.mean([guided_scale(0.5, p, s)[0] for s in range(seeds)])) for p in (500, 2_000))
    rows.append(Row("guided-es: estimate from 2,000 pairs / estimate from 500 pairs", "1 +- 5 % (a mean over pairs)",
                    many / few, holds_within(many / few, 1.0, 0.05), "algorithms 22 no. 3", seeds))  # fmt: skip
    for d, members in ((1_000, 8), (200, None)):
        ratios = [_surrogate_gain(seed, d, members) for seed in range(seeds)]
        median = float(np.median(ratios))
        claim = f"guided-es, surrogates of cosine 0.5 / alpha = 1: value after 2,000 calls, d = {d}"
        rows.append(Row(claim, "< 1", median, median < 1.0, "Maheswaranathan et al. 2019, figure 2: the sign",
                        seeds))  # fmt: skip
    return rows


def _outside() -> float:
    solver = solver_class("guided-es")(alpha=0.0, population=12, subspace=3, own=False).plan(Task(Free(30), 10_000))
    state = solver.init(np.zeros(30), Key(0))
    for surrogate in normal(Key(4), (3, 30)):
        state = solver.guide(state, surrogate)
    solver, start = replace(solver, rule="sgd"), state.x  # Adam's steps leave every subspace
    for _ in range(50):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(sphere(batch.dense() - 1.0)))
    way: Any = state.x - start
    rest = way - (state.basis @ way) @ state.basis
    return float(np.linalg.norm(rest) / np.linalg.norm(way))


def _surrogate_gain(seed: int, d: int, members: int | None) -> float:
    """Return the final value with surrogates over the one without, on a quadratic with slopes of cosine 0.5 to it."""
    bias: Any = normal(Key(seed).child("bias"), (d,))
    found = []
    for alpha in (0.5, 1.0):
        solver = solver_class("guided-es")(alpha=alpha, own=False, subspace=1, rule="sgd", population=members)
        solver = solver.plan(Task(Free(d), 2_000))
        state = solver.init(np.ones(d), Key(seed))
        for _ in range(2_000 // solver.population):
            slope: Any = state.x
            surrogate = slope / np.linalg.norm(slope) + np.sqrt(3.0) * bias / np.linalg.norm(bias)
            state = solver.guide(state, surrogate)
            batch = solver.ask(state)
            state = solver.tell(state, batch, Values(sphere(batch.dense())))
        found.append(float(state.x @ state.x))
    return found[0] / found[1]


# ---------------------------------------------------------------------- ARS, PGPE, ClipUp


def top_gap(seeds: int) -> float:
    """Return the largest difference of ARS's step from its algorithm 1 written out with loops."""
    gaps = []
    for seed in range(seeds):
        solver = solver_class("ars")(population=20, top=4, sigma=0.3, lr=0.7, schedule="constant")
        state = solver.init(normal(Key(seed).child("x"), (7,)), Key(seed))
        batch = solver.ask(state)
        X: Any = batch.dense()
        f = np.cosh(X).sum(axis=1)
        moved = solver.tell(state, batch, Values(f)).x - state.x
        pairs = [(float(f[2 * j]), float(f[2 * j + 1]), (X[2 * j] - state.x) / 0.3) for j in range(10)]
        best = sorted(pairs, key=lambda pair: min(pair[:2]))[:4]
        spread = float(np.std([value for pair in best for value in pair[:2]]))
        step = -0.7 / (4 * spread) * sum((up - down) * u for up, down, u in best)
        gaps.append(float(np.abs(moved - step).max()))
    return max(gaps)


def _ars(seeds: int) -> list[Row]:
    gap = top_gap(seeds)
    rows = [Row("ars: largest difference of a step from algorithm 1, b = 4 of N = 10", "0 to rounding (<= 1e-12)", gap,
                gap <= 1e-12, "Mania et al. 2018, algorithm 1 (V1-t)", seeds)]  # fmt: skip
    x0 = np.linspace(1.0, 2.0, 6)
    plain = path(solver_class("ars")(), sphere, x0, 60)
    other = path(solver_class("ars")(), lambda X: 1024.0 * sphere(X), x0, 60)
    moved = max(float(np.abs(a - b).max()) for a, b in zip(plain, other, strict=True))
    rows.append(Row("ars: largest change of the center in 60 steps when f becomes 1024 f", "0 to rounding (<= 1e-12)",
                    moved, moved <= 1e-12, "steps over sigma_R; Mania et al. 2018, section 3"))  # fmt: skip
    return rows


def rate(solver: Any, d: int, steps: int, seed: int) -> tuple[float, float]:
    """Return the decades of ``|x|^2`` a thousand steps in the middle and in the last third of a run on the sphere."""
    centers = path(solver, sphere, np.ones(d), steps, seed)
    logs = np.log10([float(x @ x) for x in centers])
    third = steps // 3
    return tuple(float(logs[a] - logs[b]) * 1000 / third for a, b in ((third, 2 * third), (2 * third, -1)))  # type: ignore[return-value]


def _pgpe(seeds: int) -> list[Row]:
    rates = np.array([rate(solver_class("pgpe")(), 20, 3_000, seed) for seed in range(seeds)])
    ratios, mean = rates[:, 1] / rates[:, 0], float(rates.mean())
    source = "algorithms 7.11: linear convergence on the sphere"
    rows = [
        Row("pgpe: decades of |x|^2 per 1,000 steps of 12, sphere d = 20", "> 1", mean, mean > 1.0, source, seeds,
            interval(rates.mean(axis=1))),
        Row("pgpe: the same, last third / middle third of 3,000 steps", "1 +- 25 % (a straight line)",
            float(ratios.mean()), holds_within(float(ratios.mean()), 1.0, 0.25), source, seeds, interval(ratios)),
    ]  # fmt: skip
    change, speed = _limits()
    rows.append(Row("pgpe: largest change of a standard deviation in a step, lr_sigma = 10", "<= 20 %", change,
                    change <= 0.2 + 1e-12, "Toklu et al. 2020, appendix; algorithms 7.3"))  # fmt: skip
    rows.append(Row("clipup: longest step / step size, over 200 steps", f"<= {descent.MAX_SPEED:g}", speed,
                    speed <= descent.MAX_SPEED * (1 + 1e-12), "Toklu et al. 2020, algorithm 1"))  # fmt: skip
    return rows


def _limits() -> tuple[float, float]:
    solver = solver_class("pgpe")(lr_sigma=10.0, lr=0.1).plan(Task(Free(20), 10_000))
    state, changes = solver.init(np.ones(20), Key(0)), [0.0]
    for _ in range(100):
        batch, before = solver.ask(state), state.stdev
        state = solver.tell(state, batch, Values(sphere(batch.dense())))
        changes.append(float(np.abs(state.stdev / before - 1.0).max()))
    memory, speeds = descent.first_moments("clipup", np.zeros(20)), []
    for i in range(200):
        g = normal(Key(i), (20,)) * 10.0**i**0.5 + 1.0
        step, memory = descent.step("clipup", g, memory, 0.1, (0.9, 0.999), 1e-8)
        speeds.append(descent.norm(step) / 0.1)
    return max(changes), max(speeds)


# ---------------------------------------------------------------------- through the front door


def _front_door(seeds: int) -> list[Row]:
    """Plain functions, and rankings of at most eight candidates with ties and skipped questions."""
    rows, d = [], 10
    for method in ("openai-es", "pgpe", "ars", "guided-es"):
        values = [float(minimize(sphere, np.ones(d), method=method, budget=10_000, seed=s, vectorized=True).fun) / d
                  for s in range(seeds)]  # fmt: skip
        claim = f"{method}: median f / f0 after 10,000 evaluations, sphere d = 10"
        median = statistics.median(values)
        rows.append(Row(claim, "<= 1e-5, without options", median, median <= 1e-5, "library goal", seeds))
    for method in ("openai-es", "pgpe", "guided-es"):
        values = []
        for seed in range(seeds):
            oracle = RankOracle.of(lambda x: round(float(x @ x), 1), skip=0.1, max_batch=8)
            x = minimize(oracle, np.ones(d), method=method, budget=1_600, seed=seed).x
            values.append(float(x @ x) / d)
        median = statistics.median(values)
        claim = f"{method}: median f / f0 after 200 rankings of 8 with ties and 10 % skipped, sphere d = 10"
        rows.append(Row(claim, "<= 0.1", median, median <= 0.1, "library goal", seeds))
    return rows


def evolution_strategies(draws: int = 200_000, seeds: int = 11) -> list[Row]:
    """OpenAI-ES, PGPE with ClipUp, ARS, guided ES and EGGROLL's directions against their equations."""
    return [*_shaping(), *_low_rank(draws), *_guided(seeds), *_ars(seeds), *_pgpe(seeds), *_front_door(seeds)]
