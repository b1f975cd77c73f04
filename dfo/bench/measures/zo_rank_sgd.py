"""ZO-RankSGD: edges, signal and noise of its direction, published runs, and what solvers lose on a ranking oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import permutations
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, holds_within, interval
from dfo.components.ranking import edge_weights
from dfo.feedback import Values
from dfo.oracles.function import Function
from dfo.oracles.rank import HumanNoise, RankOracle
from dfo.random import Key, normal
from dfo.run.minimize import minimize
from dfo.run.stopping import MaxSteps
from dfo.solvers import SOLVERS, solver_class

__all__ = ["rank_sgd"]

Landscape = Callable[[Any], Any]
PUBLISHED = "Tang, Rybin and Chang 2024, arXiv:2303.03751"
SIMULATED = "independent simulation in the settings of arXiv:2303.03751"
PAPER: dict[str, Any] = {
    "population": 15, "radius": 0.01, "lr": 50.0, "shrink": 0.1, "search": 5, "accumulate": False
}  # fmt: skip
"""Settings of the synthetic experiments (Tang, Rybin and Chang 2024; the rule of averaging is the notebook's)."""


def quadratic(X: Any) -> Any:
    """Return ``(n,)`` values of ``|x|^2``."""
    return (X * X).sum(axis=1)


def rosenbrock(X: Any) -> Any:
    """Return ``(n,)`` values of Rosenbrock's function."""
    return (100.0 * (X[:, 1:] - X[:, :-1] ** 2) ** 2 + (1.0 - X[:, :-1]) ** 2).sum(axis=1)


# ---------------------------------------------------------------------- the graph, and the direction of it


def _edges(m: int, k: int) -> list[tuple[int, int]]:
    """Return the pairs (better, worse) that an order of the best ``k`` of ``m`` certifies."""
    return [(i, j) for i in range(k) for j in range(m) if j > i]


def _graph() -> list[Row]:
    """Return the rows on numbers of edges, counted one by one."""
    cases = [(m, k) for m in range(2, 9) for k in range(1, m + 1)]
    edges, shared, weights = 0.0, 0.0, 0.0
    for m, k in cases:
        counted = _edges(m, k)
        pairs = sum(bool({*a} & {*b}) for a, b in permutations(counted, 2))
        formula = m * m * k + m * k * k - k**3 + k * k - 4 * m * k + 2 * k
        shared = max(shared, abs(pairs - formula))
        edges = max(edges, abs(len(counted) - (k * m - (k * k + k) / 2)))
        w, count = edge_weights(np.minimum(np.arange(float(m)), k))
        by_hand = np.zeros(m)
        for i, j in counted:
            by_hand[i] += 1
            by_hand[j] -= 1
        formula_w = np.where(np.arange(m) < k, m - 1 - 2 * np.arange(m), -k)
        gap = max(abs(w.sum()), abs(count - len(counted)), np.abs(w - by_hand).max(), np.abs(w - formula_w).max())
        weights = max(weights, float(gap))
    source = f"{PUBLISHED}; counted for every k <= m <= 8"
    return [
        Row("|E| = k m - (k^2 + k)/2: largest difference", "0", edges, edges == 0, source),
        Row("|N(E)| = m^2 k + m k^2 - k^3 + k^2 - 4 m k + 2 k: largest difference", "0", shared, shared == 0, source),
        Row("weights m-1-2r and -k, sum 0, as edges counted: largest difference", "0", weights, weights == 0, source),
    ]


SIGNAL: tuple[tuple[int, int, float, float, float], ...] = (
    (2, 1, 1.129, 2.000, 0.64),
    (3, 3, 1.129, 0.889, 1.43),
    (5, 5, 1.128, 0.400, 3.18),
    (15, 1, 1.860, 1.071, 3.23),
    (15, 5, 1.389, 0.2194, 8.79),
    (15, 15, 2 / np.pi**0.5, 4 * 16 / (3 * 15 * 14), 12.53),
)
"""m, k, signal, noise and their ratio s^2 / n: order statistics; in closed form for k = m."""


def _signal(rankings: int) -> list[Row]:
    """Return the rows on signal and noise, from rankings of a linear function in two variables."""
    rows = []
    for m, k, s, n, ratio in SIGNAL:
        z = normal(Key(0, ("signal", m, k)), (rankings, m, 2))  # slope along the first coordinate
        w, edges = edge_weights(np.minimum(np.arange(float(m)), k))
        best_first = np.argsort(z[:, :, 0], axis=1)
        p = np.einsum("m,rmd->rd", w / edges, np.take_along_axis(z, best_first[:, :, None], axis=1))
        got_s, got_n = float(-p[:, 0].mean()), float(p[:, 1].var())
        where, source = f"of ({m}, {k})-rankings", "theory: order statistics of a linear function"
        claims = (("signal s", s, got_s, 0.01), ("noise n", n, got_n, 0.02), ("s^2/n", ratio, got_s**2 / got_n, 0.03))
        for name, expected, got, tolerance in claims:
            text, seen = f"{expected:.4g} +- {tolerance:.0%}", interval(-p[:, 0]) if name[0:2] == "si" else ""
            holds = holds_within(got, expected, tolerance)
            rows.append(Row(f"{name} {where}", text, got, holds, source, rankings, seen))
    return rows


# ---------------------------------------------------------------------- runs


def drive(solver: Any, f: Landscape, x0: Floats, seed: int, marks: Iterable[int]) -> tuple[list[float], int]:
    """Return ``f`` of the point after so many rankings of perturbed points, and the items shown in all.

    Args:
        solver: a ZO-RankSGD, planned or not.
        f: vectorised.
        x0: start.
        seed: of the run.
        marks: rankings after which to look, ascending.
    """
    state, values, items = solver.init(x0, Key(seed)), [], 0
    for mark in marks:
        while state.age < mark or state.stage != "query":
            batch = solver.ask(state)
            items += len(batch)
            state = solver.tell(state, batch, Values(f(batch.dense())).ranking())
        values.append(float(f(state.x[None])[0]))
    return values, items


def _start(seed: int, d: int = 100) -> Floats:
    return normal(Key(seed, ("start",)), (d,))


def _runs(f: Landscape, marks: tuple[int, ...], seeds: int, **options: Any) -> Floats:
    """Return ``(seeds, marks)`` values."""
    solver = solver_class("zo-rank-sgd")(**options)
    return np.array([drive(solver, f, _start(seed), seed, marks)[0] for seed in range(seeds)])


def _within(claim: str, expected: float, values: Floats, factor: float, source: str) -> Row:
    got, (low, high) = float(np.median(values)), np.quantile(values, [0.25, 0.75])
    text, seen = f"{expected:g}, within a factor {factor:g}", f"quartiles {low:.2g}..{high:.2g}"
    return Row(claim, text, got, expected / factor <= got <= expected * factor, source, len(values), seen)


SEARCHED = {15: (3.1e-2, 1.0e-3, 5.8e-4), 1: (8.1, 0.77, 9.8e-3)}
FIXED = {(5, 5): 0.91, (5, 1): 4.6, (15, 15): 6.9e-2, (15, 5): 0.18, (15, 1): 2.3, (50, 50): 1.0e-2}


def _published(seeds: int) -> list[Row]:
    """Return the rows on runs in the settings of the paper."""
    rows, source, marks = [], SIMULATED, (100, 200, 500)
    for k, expected in SEARCHED.items():
        values = _runs(quadratic, marks, seeds, top=k, **PAPER)
        for i, mark in enumerate(marks):
            claim = f"|x|^2, d=100, m=15, k={k}, line search: median f after {mark} steps"
            rows.append(_within(claim, expected[i], values[:, i], 2.0, source))
    for (m, k), figure in FIXED.items():
        values = _runs(quadratic, (600,), seeds, population=m, top=k, lr=0.05, search=0)[:, 0]
        rows.append(
            _within(f"|x|^2, d=100, ({m}, {k}), eta=0.05: median f after 600 steps", figure, values, 1.5, source)
        )
    for k in (15, 1):
        got = float(np.median(_runs(rosenbrock, (1000,), max(3, seeds // 2), top=k, **PAPER)))
        claim, low, high = f"Rosenbrock, d=100, m=15, k={k}: median f after 1000 steps", 96.3 * 0.99, 97.0 * 1.01
        text = "96.3 to 97 (floor of the valley), within 1 %"
        rows.append(Row(claim, text, got, low <= got <= high, source, max(3, seeds // 2)))
    return rows


def _floors(seeds: int) -> list[Row]:
    """Return the rows on the noise floor: proportional to the square of the steps, lower when lengths decay."""
    solver, rows = solver_class("zo-rank-sgd"), []
    marks = tuple(range(200, 500, 10))

    def floor(**options: Any) -> float:
        made = solver(population=15, **options)
        return float(np.mean([drive(made, quadratic, np.zeros(100), seed, marks)[0] for seed in range(seeds)]))

    steps = floor(lr=0.1, search=0, radius=1e-3) / floor(lr=0.05, search=0, radius=1e-3)
    claim, text = "|x|^2, d=100: mean f on the floor, eta=0.1 over eta=0.05", "4 +- 15 %"
    rows.append(Row(claim, text, steps, holds_within(steps, 4.0, 0.15), "theory", seeds))
    fixed = np.median(_runs(quadratic, (500,), seeds, **PAPER))
    decayed = np.median(_runs(quadratic, (500,), seeds, **PAPER | {"radius_decay": 0.5}))
    fitted = np.median(_runs(quadratic, (500,), seeds))
    claim = "|x|^2, d=100, line search, 500 steps: f with mu/sqrt(1+t), over f with constant mu"
    rows.append(Row(claim, "< 1", float(decayed / fixed), bool(decayed < fixed), "theory", seeds))
    claim = "|x|^2, d=100, 500 steps: f with fitted lengths (the default), over f with the paper's"
    rows.append(Row(claim, "< 1", float(fitted / fixed), bool(fitted < fixed), "ours", seeds))
    return rows


def _baseline(seeds: int) -> list[Row]:
    """Return the rows against GLD-Fast, which is given the right scale, at equal queries."""
    rows = []
    for name, f, marks in (("|x|^2", quadratic, 200), ("Rosenbrock", rosenbrock, 200)):
        solver, ratios = solver_class("zo-rank-sgd")(**PAPER), []
        for seed in range(seeds):
            x0 = _start(seed)
            values, items = drive(solver, f, x0, seed, (marks,))
            theirs = minimize(f, x0, method="gld", options={"radius": 1.0}, budget=items, seed=seed, vectorized=True)
            ratios.append(values[-1] / theirs.fun)
        got = float(np.median(ratios))
        claim = f"{name}, d=100, {marks} steps: f over that of GLD-Fast at as many queries, median"
        rows.append(Row(claim, "< 1", got, got < 1.0, PUBLISHED, seeds))
    return rows


# ---------------------------------------------------------------------- every solver that only needs rankings

RANKINGS, SHOWN, DIM, SKIP = 300, 8, 10, 0.1


def rankers() -> list[str]:
    """Return the names of the registered solvers that move vectors and need no more than rankings."""
    known = [(name, solver_class(name)) for name in sorted(SOLVERS)]
    return [name for name, c in known if c.needs <= {"ranking"} and "vector" in getattr(c, "spaces", {"vector"})]


def ratios(name: str, seed: int) -> tuple[float, float, float]:
    """Return f/f0 on ``|x|^2`` in ten variables: with values, with rankings, with rankings by people.

    At most 300 rankings of at most 8 points; as many evaluations with values as points were shown.
    """
    x0 = _start(seed, DIM)
    f0 = float(quadratic(x0[None])[0])
    exact = RankOracle.of(quadratic, vectorized=True)
    human = RankOracle.of(quadratic, noise=HumanNoise(f0 / 8.0), skip=SKIP, vectorized=True)
    limits: dict[str, Any] = {"budget": RANKINGS * SHOWN, "stop": MaxSteps(RANKINGS), "seed": seed}
    ranked = minimize(exact, x0, method=name, **limits)
    judged = minimize(human, x0, method=name, noise=True, **limits)
    valued = minimize(Function(quadratic, vectorized=True), x0, method=name, budget=ranked.nfev, seed=seed)
    by_value, by_rank, by_people = (float(quadratic(r.x[None])[0]) / f0 for r in (valued, ranked, judged))
    return by_value, by_rank, by_people


def _losses(seeds: int) -> list[Row]:
    """Return two rows a solver: its f/f0 on a ranking oracle, and on one that errs, ties and skips as people do."""
    rows, medians = [], {}
    what = f"|x|^2, d={DIM}, {RANKINGS} rankings of at most {SHOWN}"
    for name in rankers():
        values, ranks, people = np.median([ratios(name, seed) for seed in range(seeds)], axis=0)
        medians[name] = float(people)
        reference = f"< 1; with values of as many points {values:.2g}"
        rows.append(Row(f"{name}: {what}, exact: f/f0", reference, float(ranks), bool(ranks < 1), "ours", seeds))
        claim = f"{name}: {what}, errors and ties of people, 10 % skipped: f/f0"
        rows.append(Row(claim, reference + f", exact {ranks:.2g}", float(people), bool(people < 1), "ours", seeds))
    got = medians["zo-rank-sgd"] / medians["gld"]
    claim = f"{what}, of people: f of zo-rank-sgd over that of gld"
    rows.append(Row(claim, "< 1 (robust to label noise)", got, got < 1.0, PUBLISHED, seeds))
    return rows


def rank_sgd(seeds: int = 10, rankings: int = 100_000) -> list[Row]:
    """ZO-RankSGD: its graph, its direction, the runs of the paper, and every solver on a ranking oracle."""
    return [
        *_graph(), *_signal(rankings), *_published(seeds), *_floors(5), *_baseline(5), *_losses(7)
    ]  # fmt: skip
