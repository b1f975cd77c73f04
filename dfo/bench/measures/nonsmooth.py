"""AC-SA on ball-smoothed functions against descent along single pairs: accuracy at equal calls, and depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, interval
from dfo.feedback import Values
from dfo.random import Key, normal
from dfo.run.minimize import minimize
from dfo.solvers import solver_class

__all__ = ["averaged_sgd", "kinked", "nonsmooth", "reached"]

EPS = 0.05
SOURCE = "algorithms 1.5, one seed"


def kinked(kind: str, d: int, seed: int) -> Callable[[Floats], Floats]:
    """Return a function of ``(n, d)`` points with slope at most 1 and its minimum 0 at distance 1 from the origin.

    Args:
        kind: ``"l2"``: ``|x - x*|_2``; ``"l1"``: ``|x - x*|_1 / sqrt(d)``; ``"strong"``: half the sum of ``"l1"`` and
            of ``|x - x*|_2^2``.
        d: dimension.
        seed: of the minimiser.
    """
    best: Any = normal(Key(seed).child("solution"), (d,))
    best = best / np.linalg.norm(best)
    parts: dict[str, Callable[[Floats], Floats]] = {
        "l2": lambda Z: np.sqrt((Z * Z).sum(axis=1)),
        "l1": lambda Z: np.asarray(np.abs(Z).sum(axis=1) / math.sqrt(d)),
    }
    parts["strong"] = lambda Z: np.asarray(0.5 * (parts["l1"](Z) + (Z * Z).sum(axis=1)))
    return lambda X: parts[kind](X - best)


def _driven(solver: Any, f: Callable[[Floats], Floats], d: int, seed: int, steps: int) -> tuple[Floats, Floats]:
    """Return the recommendation after some steps from the origin, and the mean of the recommendations of all steps."""
    state = solver.init(np.zeros(d), Key(seed))
    total = np.zeros(d)
    for _ in range(steps):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(f(batch.dense())))
        total += state.x
    last: Floats = solver.recommend(state)
    return last, total / steps


def reached(kind: str, d: int, pairs: int, steps: int, seeds: int, **options: Any) -> Floats:
    """Return ``(seeds,)`` values reached by AC-SA with the constants told (M2 = R = 1, eps = 0.05)."""
    told = {"eps": EPS, "lipschitz": 1.0, "distance": 1.0, **options}
    solver = solver_class("zo-acsa")(samples=pairs, steps=steps, rounds=told.pop("rounds", 1), **told)
    found = []
    for seed in range(seeds):
        f = kinked(kind, d, seed)
        found.append(float(f(_driven(solver, f, d, seed, steps)[0][None])[0]))
    return np.array(found)


def averaged_sgd(kind: str, d: int, calls: int, seeds: int) -> Floats:
    """Return ``(seeds,)`` values at the mean iterate of descent along single pairs, with the step of its theory."""
    steps = calls // 2
    lr, radius = 1.0 / math.sqrt(d * steps), EPS / 2 / math.sqrt(d)
    solver = solver_class("zo-sgd")(lr=lr, radius=radius, samples=1)
    found = []
    for seed in range(seeds):
        f = kinked(kind, d, seed)
        found.append(float(f(_driven(solver, f, d, seed, steps)[1][None])[0]))
    return np.array(found)


def nonsmooth(seeds: int = 5) -> list[Row]:
    """AC-SA on kinked convex functions: accuracy at equal calls, depth, restarts, and what needs no constants."""
    rows = [_moment(draws=100_000)]
    for kind in ("l2", "l1"):
        rows += _table(kind, seeds)
    rows += [_restarts(seeds), *_defaults(seeds)]
    return rows


def _moment(draws: int) -> Row:
    """Return the second moment of the estimate near, at and far from the kink: ``<= c d M2^2`` with c = 2."""
    d, gamma, worst = 20, EPS / 2, 0.0
    e: Any = normal(Key(0).child("moment"), (draws, d))
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    for away in (0.0, gamma / 2, gamma, 3 * gamma, 1.0):
        x = np.zeros(d)
        x[0] = away
        rise = np.linalg.norm(x + gamma * e, axis=1) - np.linalg.norm(x - gamma * e, axis=1)
        worst = max(worst, float(((d / (2 * gamma) * rise) ** 2).mean() / d))
    claim = "largest E|g_hat|^2 / (d M2^2) of the ball estimate of |x|_2, d=20, from the minimum to distance 1"
    return Row(claim, "<= 2 (linear: exactly 1)", worst, worst <= 2.0, "algorithms 1.5: c is a small constant")


_TABLE: tuple[tuple[int, int, int, dict[str, float]], ...] = (
    (20, 1, 4000, {"l2": 0.038, "l1": 0.059}),
    (20, 20, 200, {"l2": 0.029, "l1": 0.045}),
    (20, 100, 200, {"l2": 0.0043, "l1": 0.0062}),
    (100, 100, 200, {"l2": 0.030, "l1": 0.050}),
)
"""Dimension, pairs a step, steps, and what an independent implementation reached on one seed."""


def _table(kind: str, seeds: int) -> list[Row]:
    f = {"l2": "|x - x*|_2", "l1": "|x - x*|_1 / sqrt(d)"}[kind]
    rows: list[Row] = []
    all_found, means = {}, {}
    for d, pairs, steps, figure in _TABLE:
        all_found[d, pairs, steps] = found = reached(kind, d, pairs, steps, seeds)
        means[d, pairs, steps] = mean = float(found.mean())
        claim = f"AC-SA, {f}, d={d}, B={pairs}, N={steps} ({2 * pairs * steps} calls): mean value"
        expected, holds = f"{figure[kind]} within a factor 2", 0.5 <= mean / figure[kind] <= 2.0
        rows.append(Row(claim, expected, mean, holds, SOURCE, seeds, interval(found)))
    for pairs, bound in ((20, 0.06), (100, 0.015)):
        worst = float(all_found[20, pairs, 200][:3].max())
        claim = f"AC-SA, {f}, d=20, B={pairs}, N=200: largest value of 3 seeds (Z3)"
        rows.append(Row(claim, f"< {bound}", worst, worst < bound, "algorithms 20, Z3", 3))
    for d, calls, pairs in ((20, 8000, 20), (20, 40_000, 100), (100, 40_000, 100)):
        ratio = float(all_found[d, pairs, 200][:3].mean() / averaged_sgd(kind, d, calls, 3).mean())
        claim = f"AC-SA with N=200 / averaged two-point SGD, {f}, d={d}, {calls} calls"
        rows.append(Row(claim, f"< 1, in 1/{pairs} of its depth", ratio, ratio < 1.0, "same run", 3))
    shallow = reached(kind, 100, 400, 100, 3)
    ratio = float(shallow.mean()) / means[100, 100, 200]
    claim = f"AC-SA, {f}, d=100: N=100 with B=400 / N=200 with B=100, which has half the calls"
    rows.append(Row(claim, "> 1: below N ~ 4 d^(1/4) M2 R / eps steps are short", ratio, ratio > 1.0, "1.5", 3))
    return rows


def _restarts(seeds: int) -> Row:
    """Strongly convex: restarts against one round, at equal calls."""
    one = reached("strong", 20, 20, 400, seeds, lipschitz=1.5)
    four = reached("strong", 20, 20, 400, seeds, lipschitz=1.5, rounds=4, eps=EPS / 4)
    ratio = float(four.mean() / one.mean())
    claim = "AC-SA, strongly convex with kinks, d=20, 16000 calls: 4 rounds / 1 round"
    return Row(claim, "< 1", ratio, ratio < 1.0, "1.5: restarts gain on strongly convex functions", seeds)


def _defaults(seeds: int) -> list[Row]:
    """Rows through ``dfo.minimize``, where nothing is told but the budget."""
    rows = []
    for method in ("zo-acsa", "zo-mirror"):
        for kind in ("l2", "l1"):
            found = []
            for seed in range(seeds):
                f = kinked(kind, 20, seed)
                run = minimize(f, np.zeros(20), method=method, budget=8000, seed=seed, vectorized=True)
                found.append(run.fun)
            mean = float(np.mean(found))
            claim = f"dfo.minimize, {method}, no constants told, {kind}, d=20, 8000 calls: mean of the lowest value"
            rows.append(Row(claim, "< 0.06, as with constants", mean, mean < 0.06, "Z3", seeds, interval(found)))
    return rows
