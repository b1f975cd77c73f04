"""Published and derived figures, measured again by a command: ``dfo measure NAME``.

A measure returns rows of claim, expected figure, measured figure and verdict. The expected figures are
medians of other implementations, theory, or a ratio to a peer timed in the same run; where they come from
stands in each row. Times are never compared with a clock of another machine.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.directions import DISTRIBUTIONS, Directions, Distribution, LowRank
from dfo.errors import unknown
from dfo.feedback import Values
from dfo.random import Key, normal
from dfo.run.minimize import minimize
from dfo.run.result import versions
from dfo.run.stopping import Target
from dfo.solvers import solver_class

__all__ = ["BBOB_FOLDER", "MEASURES", "Row", "bbob", "cma_medians", "measure", "overhead", "zo_sgd"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        claim: what is claimed, in one line.
        expected: the figure to reach, in words.
        measured: the figure reached.
        holds: whether it is reached.
        source: where the expected figure comes from.
    """

    claim: str
    expected: str
    measured: float
    holds: bool
    source: str


# ---------------------------------------------------------------------- CMA-ES


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


# ---------------------------------------------------------------------- ZO-SGD


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


# ---------------------------------------------------------------------- overhead


def _per_evaluation(run: Callable[[Callable[[Floats], float]], object], repeats: int = 7) -> float:
    """Return microseconds per evaluation, the least of several runs, the objective included."""
    best = np.inf
    for _ in range(repeats):
        calls = 0

        def f(x: Floats) -> float:
            nonlocal calls
            calls += 1
            return float(x @ x)

        began = time.perf_counter()
        run(f)
        best = min(best, (time.perf_counter() - began) / calls)
    return 1e6 * float(best)


def _objective_alone(d: int) -> float:
    x = np.ones(d)
    return _per_evaluation(lambda f: [f(x) for _ in range(5000)])


def overhead(n: int = 5000) -> list[Row]:
    """Time per evaluation beyond the objective, as a ratio to scipy's Nelder-Mead in the same run."""
    from scipy import optimize

    rows, source = [], "timed in the same run"
    for d, methods in ((10, (("random", 0.5), ("cma", 1.0))), (100, (("sep-cma", 1.0),))):
        x0, alone = np.ones(d), _objective_alone(d)
        options = {"maxfev": n, "xatol": 0, "fatol": 0}

        def nelder_mead(f: Callable[[Floats], float], x0: Floats = x0, options: dict[str, Any] = options) -> object:
            return optimize.minimize(f, x0, method="Nelder-Mead", options=options)

        theirs = _per_evaluation(nelder_mead) - alone
        for method, most in methods:
            ours = _per_evaluation(lambda f, m=method, x0=x0: minimize(f, x0, method=m, budget=n)) - alone  # type: ignore[misc]
            claim = f"{method}: overhead per evaluation / scipy Nelder-Mead's, sphere d={d}"
            rows.append(Row(claim, f"<= {most}", ours / theirs, ours / theirs <= most, source))
    rows += [_flatness(method) for method in ("random", "cma")]
    rows.append(_call())
    rows.append(_import())
    return rows


def _flatness(method: str) -> Row:
    marks: list[float] = []

    def mark(progress: Any) -> None:
        marks.append(time.perf_counter())

    solver = solver_class(method)(restarts="none", ftol=0, xtol=0, noisy=True) if method == "cma" else method
    minimize(sphere, np.ones(10), method=solver, budget=100_000, callback=mark)
    steps = np.diff(marks)
    tenth = len(steps) // 10
    ratio = float(np.median(steps[-tenth:]) / np.median(steps[:tenth]))
    return Row(
        f"{method}: time per step, last tenth / first tenth of 1e5 evaluations", "<= 1.5", ratio, ratio <= 1.5,
        "median step times of one run",
    )  # fmt: skip


def _call() -> Row:
    x0, n = np.ones(2), 300
    best = np.inf
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(n):
            minimize(sphere, x0, method="random", budget=1)
        best = min(best, (time.perf_counter() - began) / n * 1e3)
    return Row("minimize: milliseconds for a call with one evaluation", "<= 0.3", best, best <= 0.3, "this machine")


def _import() -> Row:
    def seconds(statement: str) -> float:
        code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        out = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
               for _ in range(9)]  # fmt: skip
        return min(out)

    ratio = seconds("import dfo") / seconds("import numpy")
    return Row("import dfo / import numpy", "<= 1.3", ratio, ratio <= 1.3, "timed in the same run")


# ---------------------------------------------------------------------- COCO


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


MEASURES: Mapping[str, Callable[[], list[Row]]] = {
    "bbob": bbob,
    "cma-medians": cma_medians,
    "overhead": overhead,
    "zo-sgd": zo_sgd,
}
"""The measures by name; each takes seconds to a few minutes."""


def measure(name: str) -> dict[str, Any]:
    """Run a measure and return a record of it that JSON can hold.

    Raises:
        UnknownName: there is no such measure.
    """
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    began = time.perf_counter()
    rows: Sequence[Row] = MEASURES[name]()
    return {
        "name": name,
        "summary": (MEASURES[name].__doc__ or "").strip().splitlines()[0],
        "command": f"dfo measure {name}",
        "seconds": round(time.perf_counter() - began, 1),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {**versions(), "python": platform.python_version()},
        "rows": [asdict(row) for row in rows],
    }
