"""CMA-ES: calls to a target, and COCO against pycma."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row
from dfo.run.minimize import minimize
from dfo.run.stopping import Target
from dfo.solvers import solver_class

__all__ = ["BBOB_FOLDER", "bbob", "cma_medians", "ellipsoid", "rosenbrock", "sphere"]


def sphere(x: Floats) -> float:
    """Return ``|x|^2``."""
    return float(x @ x)


def ellipsoid(x: Floats) -> float:
    """Return the ellipsoid of condition 1e6."""
    return float((10 ** (6 * np.arange(len(x)) / (len(x) - 1)) * x * x).sum())


def rosenbrock(x: Floats) -> float:
    """Return Rosenbrock's function."""
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


CMA_MEDIANS: tuple[tuple[Callable[[Floats], float], int, float, float, int], ...] = (
    (sphere, 10, 1.0, 0.5, 1460),
    (ellipsoid, 10, 1.0, 0.5, 4150),
    (rosenbrock, 10, 0.1, 0.3, 4980),
    (sphere, 40, 1.0, 0.5, 5310),
)
"""Function, dimension, start, sigma and pycma's median of calls to 1e-9 over 11 runs."""


def cma_medians(runs: int = 11) -> list[Row]:
    """Median calls of CMA-ES to 1e-9, to be within 15 % of pycma's."""
    rows = []
    for f, d, start, sigma, expected in CMA_MEDIANS:
        solver = solver_class("cma")(sigma=sigma)
        calls = []
        for seed in range(runs):
            result = minimize(f, np.full(d, start), method=solver, budget=40_000, seed=seed, stop=Target(1e-9))
            calls.append(result.nfev if result.status == "target" else 10**9)
        median = float(statistics.median(calls))
        rows.append(
            Row(
                f"cma: median calls to 1e-9, {f.__name__} d={d}, {runs} runs", f"{expected} +- 15 %", median,
                abs(median / expected - 1) <= 0.15, "pycma, median of 11 runs",
            )
        )  # fmt: skip
    return rows


BBOB_FOLDER = "results/bbob-cma-pycma"
"""Where the long bench of :func:`bbob` is stored and goes on from, relative to the current directory."""


def bbob(workers: int = 2) -> list[Row]:
    """CMA-ES against pycma's BIPOP-CMA-ES on the 24 COCO functions, d = 2, 5, 10, instances 1-5, three seeds each.

    Takes a quarter of an hour on two cores; interrupted, it goes on where it was.
    """
    from dfo.bench.plan import Plan
    from dfo.bench.run import bench
    from dfo.bench.suite import load_suite
    from dfo.bench.summary import Summary

    suite = load_suite("bbob").narrowed(dims=[2, 5, 10], instances=[1, 2, 3, 4, 5])
    plan = Plan.of(suite, ["pycma", "cma"], (0, 1, 2), "1000d", None)
    summary = Summary(plan, bench(plan, BBOB_FOLDER, workers, command="dfo measure bbob"))
    rows = []
    for score in summary.scores(["all", "dim"]):
        where = "all dimensions" if score.by == "all" else f"d={score.value}"
        claim = f"{score.method}: share of (function, target) pairs solved within {score.budget}, {where}"
        low, high = f"{score.difference_low:+.3f}", f"{score.difference_high:+.3f}"
        if score.method == "pycma":
            rows.append(Row(claim, "the peer", score.share, True, "same run"))
        else:  # the claim is about the whole, at the two large budgets
            judged = score.by == "all" and str(score.budget) in ("300d", "1000d")
            expected = f"difference {score.difference:+.3f}, interval {low}..{high}" + ("; lower end > -0.02" * judged)
            rows.append(Row(claim, expected, score.share, not judged or score.difference_low > -0.02, "same run"))
    return rows
