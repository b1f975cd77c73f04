"""Time beyond the objective."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.cma import sphere
from dfo.bench.measures.row import Row
from dfo.run.minimize import minimize
from dfo.solvers import solver_class

__all__ = ["overhead"]


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
