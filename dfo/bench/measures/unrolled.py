"""Evolution strategies on unrolled problems: exact variances, sums over an episode, and the tasks of the papers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, holds_within, interval
from dfo.bench.packs import make
from dfo.oracles.unrolled import Unrolled
from dfo.protocols import Problem, Task
from dfo.random import Key, normal
from dfo.run.loop import lanes_of
from dfo.run.minimize import minimize
from dfo.run.stopping import MaxSteps
from dfo.solvers import solver_class
from dfo.spaces import Free

__all__ = ["along", "drive", "unrolled", "variance"]

PES_PAPER, SINGLE = "Vicol et al. 2021, arXiv:2112.13835", "Vicol et al. 2023, arXiv:2304.11153"
STILL: dict[str, Any] = {"rule": "sgd", "lr": 1e-200}
"""Options under which theta does not move."""

RUNAWAY = 1e4
"""A coordinate beyond this has left for good."""


def drive(method: str, oracle: Unrolled, x0: Any, updates: int, seed: int = 0, **options: Any) -> Iterator[Any]:
    """Yield the state of a method after every update, until theta has run away.

    Args:
        method: name of the solver.
        oracle: the inner problem.
        x0: ``(d,)`` start.
        updates: outer updates.
        seed: of the solver; data are the oracle's own.
        **options: of the solver.
    """
    solver = solver_class(method)(**options).plan(Task(Free(len(x0)), gives=oracle.gives))
    state, memory = solver.init(np.asarray(x0, dtype=float), Key(seed)), oracle.start(lanes_of(solver), Key(seed))
    while state.moments.count < updates and np.abs(state.x).max() < RUNAWAY:
        batch, count = solver.ask(state), state.moments.count
        told, memory = oracle.evaluate(batch, memory)
        state = solver.tell(state, batch, told)
        if state.moments.count > count:
            yield state


# ---------------------------------------------------------------------- theory


def variance(method: str, dim: int, unrolls: int, alike: bool, runs: int, pairs: int) -> Floats:
    """Return the squared errors of the estimates of linear losses, summed over an episode, per antithetic pair.

    Args:
        method: name of the solver, whose ``tell`` forms the estimates.
        dim: P.
        unrolls: U, each with a loss ``<p_u, theta>``.
        alike: whether all ``p_u`` are one vector, or independent ones.
        runs: episodes with slopes of their own.
        pairs: averaged over in each, and multiplied out.

    Returns:
        ``(runs,)`` squared errors over the mean squared length of the gradient.
    """
    drawn = normal(Key(7, ("slopes",)), (runs, 1 if alike else unrolls, dim))
    slopes = np.repeat(drawn, unrolls, axis=1) if alike else drawn
    errors = []
    for run, p in enumerate(slopes):

        def step(theta: Floats, s: Floats, t: Any, data: Any, p: Floats = p) -> tuple[Floats, Floats]:
            return s, (theta * p[t]).sum(axis=1)

        oracle = Unrolled(lambda data: np.zeros(len(data.number)), step, horizon=unrolls, vectorized=True)
        states = drive(method, oracle, np.zeros(dim), unrolls, run, population=2 * pairs, **STILL)
        errors.append(pairs * ((sum(s.g for s in states) - p.sum(axis=0)) ** 2).sum())
    over: Floats = np.array(errors) / (slopes.sum(axis=1) ** 2).sum(axis=1).mean()
    return over


def _variances(runs: int) -> Iterator[Row]:
    dim = 200
    cases = (
        ("es-single", False, lambda u: dim + 1.0, f"{SINGLE}, proposition 3.2: P + 1"),
        ("pes", True, lambda u: dim * (1 + 1 / u) / 2, "theory: P (1 + 1/U) / 2"),
        ("pes", False, lambda u: dim * (u + 1) / 2, "theory: P (U + 1) / 2"),
    )
    for method, alike, theory, source in cases:
        for unrolls in (1, 5, 10, 50):
            x = variance(method, dim, unrolls, alike, runs, pairs=50)
            expected, measured = theory(unrolls), float(x.mean())
            slopes = "equal gradients" if alike else "independent gradients"
            claim = f"variance over |gradient|^2 of {method}, U={unrolls} unrolls, {slopes}, P={dim}, one pair"
            holds = holds_within(measured, expected, 0.15)
            yield Row(claim, f"{expected:g} +- 15 %", measured, holds, source, runs, interval(x))


def _identity() -> Row:
    problem = make("unrolled-toy-regression")
    options: dict[str, Any] = {"population": 8, "sigma": 0.3, **STILL}
    single = sum(s.g for s in drive("es-single", problem.fun, problem.x0, 10, **options))
    *_, full = drive("full-es", problem.fun, problem.x0, 1, **options)
    gap = float(np.abs(single - full.g).max() / np.abs(full.g).max())
    claim = "sum over an episode of ES-Single less full ES with the same noise, relative (toy regression, U=10)"
    return Row(claim, "<= 1e-10", gap, gap <= 1e-10, f"{SINGLE}, section 3")


def _unbiased(runs: int) -> Iterator[Row]:
    """Two unrolls whose second loss is quadratic in the first theta, through the state."""
    A, B, C = (normal(Key(11, (name,)), (3, 3)) for name in "ABC")
    theta = np.array([0.4, -1.0, 0.2])

    def step(x: Floats, s: Floats, t: Any, data: Any) -> tuple[Floats, Floats]:
        s = np.where(t[:, None] == 0, x @ A.T, s @ B.T + x @ C.T)
        return s, 0.5 * ((s - 1.0) ** 2).sum(axis=1)

    oracle = Unrolled(lambda data: np.zeros((len(data.number), 3)), step, horizon=2, vectorized=True)
    gradient = sum(J.T @ (J @ theta - 1.0) for J in (A, B @ A + C))
    for method, fits in (("pes", True), ("es-single", True), ("truncated-es", False)):
        options = {"population": 1000, "sigma": 0.5, **STILL}
        found = np.array([sum(s.g for s in drive(method, oracle, theta, 2, seed, **options)) for seed in range(runs)])
        error = found.std(axis=0, ddof=1) / runs**0.5
        off = float((np.abs(found.mean(axis=0) - gradient) / error).max())
        claim = f"{method}, quadratic loss through the state: distance of the mean estimate from the gradient"
        expected = "<= 4 standard errors" if fits else "> 20 standard errors: biased"
        yield Row(claim, expected, off, off <= 4 if fits else off > 20, "theory (antithetic pairs are exact)", runs)


# ---------------------------------------------------------------------- the tasks of the papers


def along(method: str, problem: Problem, marks: Sequence[int], seeds: int, **options: Any) -> Floats:
    """Return measure and theta after so many updates, ``(seeds, marks, 1 + d)``; infinite once theta ran away."""
    found = np.full((seeds, len(marks), 1 + len(problem.x0)), np.inf)
    for seed in range(seeds):
        for state in drive(method, problem.fun, problem.x0, max(marks), seed, **options):
            if state.moments.count in marks:
                found[seed, marks.index(state.moments.count)] = [problem.measure(state.x), *state.x]  # type: ignore[misc]
    return found


def _below(claim: str, x: Floats, limit: float, source: str, above: bool = False) -> Row:
    """Return the row of a median over seeds that is to be below a limit, or above it."""
    measured = float(np.median(x))
    expected = f"{'>' if above else '<'} {limit:g}"
    spread = f"{x.min():.3g}..{x.max():.3g} (all)"
    return Row(claim, expected, measured, measured > limit if above else measured < limit, source, len(x), spread)


def _near(claim: str, x: Floats, expected: float, tolerance: float, source: str) -> Row:
    measured = float(np.median(x))
    holds = bool(abs(measured - expected) <= tolerance)
    return Row(
        claim, f"{expected:g} +- {tolerance:g}", measured, holds, source, len(x), f"{x.min():.3g}..{x.max():.3g} (all)"
    )


def _influence(seeds: int) -> Iterator[Row]:
    """N = 1000, sigma 0.1, SGD with step 1e-4, K = 1, no resets; then N = 4."""
    problem, marks = make("unrolled-influence-balancing"), (500, 1000, 1500, 3000)
    options: dict[str, Any] = {"rule": "sgd", "lr": 1e-4, "sigma": 0.1}
    study = "independent simulation"
    start = float(problem.measure(problem.x0)) if problem.measure else np.nan
    yield _near("influence balancing: loss at theta = 0.5", np.array([start]), 8.0, 0.01, study)
    x = along("truncated-es", problem, marks, 1, population=1000, **options)
    yield _near("influence balancing, truncated ES: theta after 500 updates", x[:, 0, 1], 0.67, 0.05, study)
    yield _below(
        "influence balancing, truncated ES: theta after 1500 updates (start 0.5)", x[:, 2, 1], 0.9, PES_PAPER, True
    )
    yield _near("influence balancing, truncated ES: theta after 3000 updates", x[:, 3, 1], 3.26, 0.1, study)
    yield _near("influence balancing, truncated ES: loss after 3000 updates", x[:, 3, 0], 211.0, 10.0, study)
    for method in ("pes", "es-single"):
        x = along(method, problem, marks, seeds, population=1000, **options)
        name = f"influence balancing, {method}"
        yield _below(f"{name}: |theta + 1/6| after 1500 updates", np.abs(x[:, 2, 1] + 1 / 6), 1e-3, PES_PAPER)
        for at, limit in ((0, 5e-2), (1, 5e-4), (3, 1e-12)):
            yield _below(f"{name}: loss after {marks[at]} updates", x[:, at, 0], limit, study)
    for method in ("es-single", "pes"):
        x = along(method, problem, (3000,), 10, population=4, **options)
        cases = {
            "below the loss of the start": x[:, 0, 0] < start,
            "within 0.1 of -1/6": np.abs(x[:, 0, 1] + 1 / 6) < 0.1,
        }
        for what, fine in cases.items():
            share, works = float(fine.mean()), method == "es-single"
            claim = f"influence balancing, {method} with N = 4: share of runs {what} after 3000 updates"
            expected, holds = ("1", share == 1.0) if works else ("< 1: unstable", share < 1.0)
            yield Row(claim, expected, share, holds, SINGLE, len(x), interval(fine, share=True))


def _toy(seeds: int) -> Iterator[Row]:
    """N = 100, sigma 0.3, Adam with step 0.01 and b1 = 0.99, T = 100, K = 10."""
    problem = make("unrolled-toy-regression")
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.99, 0.999), "sigma": 0.3, "population": 100}
    study = "independent simulation"
    axis = np.linspace(-5.0, 4.0, 91)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    oracle: Unrolled = problem.fun
    yield _near("toy regression: loss at (-4, -4)", oracle.full(problem.x0[None]), 2487.8, 0.1, study)
    yield _near(
        "toy regression: lowest loss on a grid of 91 x 91", oracle.full(grid).min(keepdims=True), 557.0, 5.0, study
    )
    for method in ("pes", "es-single"):
        x = along(method, problem, (1000, 1500, 2000), seeds, **options)
        for at, updates in ((1, 1500), (2, 2000)):
            yield _below(f"toy regression, {method}: loss after {updates} updates", x[:, at, 0], 620.0, SINGLE)
    x = along("truncated-es", problem, (2000,), 1, **options)
    yield _below("toy regression, truncated ES: loss after 2000 updates", x[:, 0, 0], 2300.0, PES_PAPER, True)
    x = along("truncated-es", problem, (1500,), 1, **{**options, "sigma": 1.0})
    yield _below("toy regression, truncated ES, sigma = 1: loss after 1500 updates", x[:, 0, 0], 1300.0, study, True)
    x = along("full-es", problem, (1000,), 1, **options)
    yield _below("toy regression, full ES: loss after 1000 updates of 10 unrolls", x[:, 0, 0], 620.0, study)
    solver = solver_class("es-single")(**options)
    res = minimize(oracle, problem.x0, method=solver, budget=10**7, stop=MaxSteps(1500), seed=1)
    final = np.array([problem.measure(res.x)]) if problem.measure else np.empty(1)
    yield _below("toy regression, ES-Single by dfo.minimize: loss after 1500 updates", final, 620.0, SINGLE)


def _halved(claim: str, problem: Problem, method: str, x: Floats, source: str, fails: bool = False) -> Row:
    """Return the row of a loss that is to be below half of that of the start, or (where it fails) above."""
    assert problem.measure is not None
    start = float(problem.measure(problem.x0))
    return _below(f"{claim}, {method} (start {start:.2f}; half of it is the limit)", x, start / 2, source, fails)


def _trainings() -> Iterator[Row]:
    """The digits in place of MNIST and Fashion-MNIST, T = 500 and 200, N = 50 and 10; a recurrent network."""
    scaled = f"{SINGLE}, scaled down"
    schedule, reached = make("unrolled-digits-schedule"), []
    options: dict[str, Any] = {"lr": 0.01, "sigma": 0.1, "population": 50}
    for method in ("es-single", "pes"):
        reached.append(along(method, schedule, (300,), 1, **options)[:, 0, 0])
        yield _halved("learning-rate schedule, K=10: loss after 300 updates", schedule, method, reached[-1], scaled)
    claim = "learning-rate schedule, K=10: loss of ES-Single over that of PES after 300 updates"
    yield _near(claim, reached[0] / reached[1], 1.0, 0.25, f"{scaled}: equally fast")
    each = replace(schedule, fun=replace(schedule.fun, steps=1))
    for method in ("es-single", "pes"):
        x = along(method, each, (2500,), 1, **options)[:, 0, 0]
        source = f"{scaled}; PES explodes at full size"
        yield _halved("learning-rate schedule, K=1: loss after 2500 updates", each, method, x, source, method == "pes")
    layers = make("unrolled-digits-layers")
    for method in ("es-single", "pes"):
        x = along(method, layers, (600,), 1, lr=0.01, sigma=0.3, population=10)[:, 0, 0]
        yield _halved("29 hyper-parameters, K=10, N=10: loss after 600 updates", layers, method, x, scaled)
    copying = make("unrolled-copy")
    for method in ("es-single", "pes", "truncated-es"):
        x = along(method, copying, (500,), 2, lr=0.01, sigma=0.1, population=100)[:, 0, 0]
        claim = "copying three bits, 193 weights, K=1: bits lost of each after 500 updates"
        yield _halved(claim, copying, method, x, scaled, method == "truncated-es")


def _lorenz(seeds: int) -> Iterator[Row]:
    """SGD with the published step 1e-5 for the mean loss of an unroll, which is 2e-4 for that of an episode.

    The trajectory is chaotic, so the loss is smoothed: its mean over 64 points, drawn as the solvers draw theirs.
    """
    problem = make("unrolled-lorenz")
    oracle: Unrolled = problem.fun
    options: dict[str, Any] = {"rule": "sgd", "lr": 2e-4, "sigma": 0.04, "population": 200}
    found: dict[str, Floats] = {}
    further: dict[str, dict[str, Any]] = {"nres": {"stagger": 20}, "pes": {}, "truncated-es": {}}
    for method, more in further.items():
        losses = []
        for seed in range(seeds):
            *_, state = drive(method, oracle, problem.x0, 400, seed, **options, **more)
            losses.append(oracle.full(state.x + 0.04 * normal(Key(9), (64, 2))).mean())
        found[method] = np.array(losses)
    for better, worse in (("nres", "pes"), ("pes", "truncated-es")):
        ratio = found[better] / found[worse]
        claim = f"Lorenz, T=2000, K=100, N=200: smoothed loss of {better} over that of {worse} after 400 updates"
        yield _below(claim, ratio, 1.0, "Li et al. 2023, arXiv:2304.12180")


def unrolled(runs: int = 30, seeds: int = 2) -> list[Row]:
    """Evolution strategies on unrolled problems: variances, sums over an episode, the tasks of the papers scaled."""
    parts = (
        _variances(runs), [_identity()], _unbiased(runs), _influence(seeds), _toy(seeds), _trainings(), _lorenz(seeds),
    )  # fmt: skip
    return [row for part in parts for row in part]
