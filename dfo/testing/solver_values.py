"""Laws about the way from values to points."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dfo.arrays import Floats, to_numpy
from dfo.errors import EvaluationWarning
from dfo.run.minimize import minimize
from dfo.testing.equal import identical, numbers
from dfo.testing.laws import Law, Skipped, expect, law
from dfo.testing.solver_state import DIMS, SEEDS
from dfo.testing.trial import LANDSCAPES, STEPS, Landscape, Subject, bowl, doubles, points_of, torch_or_skip

__all__ = ["BOOK"]

BOOK: dict[str, Law] = {}


@law(BOOK, "translation", declared=True)
def translation(s: Subject) -> None:
    """Moving the objective and the start by c moves every point by c, to rounding.

    Broken by: scipy's Nelder-Mead, whose first simplex is 5 % of each coordinate of the start, and 0.00025 at zero.
    """
    if not s.free():
        raise Skipped("it does not move in a free space")

    def body(d: int, seed: int, shift: int) -> None:
        start, c = np.linspace(0.9, 0.6, d), shift * 0.5 ** np.arange(d)
        here = s.trial(d, seed, bowl, start).path(12)
        there = s.trial(d, seed, lambda X: bowl(X - c), start + c).path(12)
        _expect_close(here, [X - c for X in there], 1e-6 * (1 + abs(shift)), f"moved by {c}, the path is another")

    s.cases.each(body, d=DIMS, seed=SEEDS, shift=range(-64, 65))


def _expect_close(a: list[Floats], b: list[Floats], tolerance: float, message: str) -> None:
    expect(len(a) == len(b), f"{message}: {len(a)} steps, not {len(b)}")
    for step, (X, Y) in enumerate(zip(a, b, strict=True)):
        expect(X.shape == Y.shape, f"{message}: {X.shape} points at step {step}, not {Y.shape}")
        gap = float(np.abs(X - Y).max())
        expect(gap <= tolerance, f"{message}: {gap:.3g} away at step {step}")


TRANSFORMS: dict[str, Callable[[Floats], Floats]] = {
    "exp f": lambda f: np.exp(np.minimum(f, 600.0) / 4.0),
    "3 f + 1": lambda f: 3.0 * f + 1.0,
    "f^3": lambda f: f**3,
    "2^100 f": lambda f: f * 2.0**100,
    "2^-100 f": lambda f: f * 2.0**-100,
}
"""Increasing functions: they keep the order of values and nothing else."""


@law(BOOK, "rank-invariance", declared=True)
def rank_invariance(s: Subject) -> None:
    """Replacing f by an increasing function of f changes no point, to the last bit.

    Broken by: "rank-based" codes with absolute clamps or penalties (scipy's COBYLA clamps at 1e30, nevergrad at
    5e20), and by tolerances on f that end a run early (pycma on f * 1e-300).
    """

    def body(d: int, seed: int, landscape: str, transform: str) -> None:
        f, g = LANDSCAPES[landscape], TRANSFORMS[transform]
        plain = s.trial(d, seed, f).path(12)
        other = s.trial(d, seed, lambda X: g(f(X))).path(12)
        at = next((i for i, (a, b) in enumerate(zip(plain, other, strict=False)) if not identical(a, b)), None)
        expect(at is None and len(plain) == len(other), f"with {transform} in place of f, step {at} differs")

    every = [{"d": 2, "seed": 0, "landscape": "bowl", "transform": transform} for transform in TRANSFORMS]
    s.cases.each(body, every, d=DIMS, seed=SEEDS, landscape=list(LANDSCAPES), transform=list(TRANSFORMS))


@law(BOOK, "libraries-agree")
def libraries_agree(s: Subject) -> None:
    """A run on torch tensors visits the points of the run on numpy arrays, to rounding.

    Broken by: eigenvectors used as LAPACK returns them, whose signs no two builds agree on; and by every port of an
    algorithm to another array library that draws its own random numbers.
    """
    torch_or_skip()

    def body(d: int, seed: int, landscape: str) -> None:
        fun: Landscape = LANDSCAPES[landscape]
        numpy, torch = (Subject(s.solver, lib).trial(d, seed, fun).path(12) for lib in ("numpy", "torch"))
        _expect_close(numpy, torch, 1e-6, "numpy and torch part")

    s.cases.each(body, d=DIMS, seed=SEEDS, landscape=["bowl", "holes"])


PATTERNS = ("first", "some", "most", "all", "last")
"""Which evaluations fail: those of the first step, a share of all, all, those of the second half."""


def _failing(pattern: str, step: int, f: Floats) -> Floats:
    """Return values of which some are no numbers."""
    draw = np.random.Generator(np.random.Philox(key=step)).uniform(size=len(f))
    share = {"first": step == 0, "some": 0.4, "most": 0.9, "all": 1.0, "last": step >= STEPS // 2}[pattern]
    values: Floats = np.where(draw < share, (np.nan, np.inf, -np.inf)[step % 3], f)
    return values


@law(BOOK, "failures")
def failures(s: Subject) -> None:
    """Values that are NaN or infinite never reach the state: what was finite stays finite, and nothing is warned of.

    Broken by: cmaes (NaN sorts anywhere, the mean drifts into the hole), scipy's differential evolution (one NaN
    and the result is NaN), evotorch (AttributeError).
    """

    def body(d: int, seed: int, pattern: str) -> None:
        step = [0]

        def fun(X: Floats) -> Floats:
            step[0] += 1
            return _failing(pattern, step[0] - 1, bowl(X))

        trial = s.trial(d, seed, fun)
        open_ended = {where for where, x in numbers(trial.start()) if not np.isfinite(x).all()}
        for state, batch in trial.steps():
            expect(bool(np.isfinite(points_of(batch)).all()), f"a point of step {batch.step} is not finite")
            for where, x in numbers(state):
                expect(not np.isnan(x).any(), f"NaN in state{where} at step {batch.step}")
                expect(where in open_ended or bool(np.isfinite(x).all()), f"infinity in state{where}")
            best = to_numpy(trial.solver.recommend(state))
            expect(bool(np.isfinite(best).all()), f"the recommendation is not finite at step {batch.step}")

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        every = [{"d": 2, "seed": 0, "pattern": pattern} for pattern in PATTERNS]
        s.cases.each(body, every, d=DIMS, seed=SEEDS, pattern=PATTERNS)


@law(BOOK, "sphere", declared=True)
def sphere(s: Subject) -> None:
    """On a sphere in 5 variables, 100 evaluations per variable divide the value by ten (median of 11 seeds).

    Broken by: implementations with a wrong sign or scale somewhere, which pass every other law.
    """
    d, ratios = 5, []
    start = np.linspace(1.0, 2.0, d)
    for seed in range(11):
        with warnings.catch_warnings():
            warnings.simplefilter("error", EvaluationWarning)
            res = minimize(s.objective(_sphere), s.array(start), method=s.solver, budget=100 * d, seed=seed)
        ratios.append(_sphere(res.best_x) / _sphere(start))
    s.cases.tried = len(ratios)
    median = statistics.median(ratios)
    expect(
        median <= 0.1, f"the median of 11 seeds is f/f0 = {median:.3g}; all: {', '.join(f'{r:.2g}' for r in ratios)}"
    )


def _sphere(x: Any) -> float:
    return float((doubles(x) ** 2).sum())
