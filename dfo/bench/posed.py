"""A problem as the objective of a stored run: known by its name, so that another process can take the run up.

A :class:`~dfo.bench.Recorder` counts what it is called for; in a stored run what is known is not asked again, and
workers are other processes. Here the books are kept from what the run reports, or from what it has stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dfo.oracles.function import members
from dfo.protocols import Problem, Progress

__all__ = ["Merits", "PosedFunction", "PosedOracle", "merit", "posed", "problem_of"]


class PosedFunction:
    """The function of a problem, for one point at a time."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem.name
        self._fun, self._vectorized = problem.fun, problem.vectorized

    def __call__(self, x: Any) -> Any:
        """Return the value of one point."""
        return self._fun(x[None])[0] if self._vectorized else self._fun(x)


class PosedOracle:
    """The oracle of a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem.name
        self._oracle = problem.fun
        self.gives, self.max_batch = problem.fun.gives, problem.fun.max_batch
        self.price = float(getattr(problem.fun, "price", 1.0))
        self.start, self.evaluate = problem.fun.start, problem.fun.evaluate


def posed(problem: Problem) -> Problem:
    """Return a problem whose objective carries the problem's name into a store."""
    oracle = hasattr(problem.fun, "evaluate") and hasattr(problem.fun, "gives")
    return replace(problem, fun=PosedOracle(problem) if oracle else PosedFunction(problem), vectorized=False)


def problem_of(config: Mapping[str, Any]) -> str | None:
    """Return the name of the problem that a stored run is about, or None where it is about a function of the user's.

    Args:
        config: of the run, as it is stored.
    """
    match config.get("objective"):
        case {"object": str(kind), "holds": {"problem": str(name)}} if kind in _KINDS:
            return name
    return None


_KINDS = {f"{cls.__module__}:{cls.__qualname__}" for cls in (PosedFunction, PosedOracle)}


def merit(problem: Problem, x: Any, f: float | None) -> float:
    """Return by what a point is judged (see :class:`~dfo.bench.Recorder`); infinite where it has no value.

    Args:
        problem: a function, or an oracle with a ``measure``.
        x: the point.
        f: its value; None or infinite if it failed.
    """
    if f is None or not math.isfinite(f):
        return math.inf
    if problem.measure is not None:
        return float(problem.measure(x))
    if problem.constraint is None:
        return float(f)
    violation = float(np.maximum(problem.constraint(x), 0.0).sum())
    if problem.f_opt is None:
        return float(f) if violation <= 0.0 else math.inf
    return problem.f_opt + max(float(f) - problem.f_opt, 0.0) + violation


class Merits:
    """The lowest merit of a run, and a stop once it lies within ``gap`` of the optimum.

    Args:
        problem: of the run.
        gap: to ``f_opt``; None to go on.
    """

    def __init__(self, problem: Problem, gap: float | None) -> None:
        self.problem, self.gap = problem, gap
        self.lowest = math.inf
        self._oracle = hasattr(problem.fun, "evaluate") and hasattr(problem.fun, "gives")
        self._plain = problem.measure is None and problem.constraint is None

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Look at a step, as the ``stop`` of a run."""
        if self._oracle:
            assert self.problem.measure is not None
            if progress.nfev:
                self.lowest = min(self.lowest, float(self.problem.measure(progress.recommended())))
        elif self._plain:
            self.lowest = min(self.lowest, progress.best_fun)
        else:
            points, told = progress.points(), progress.told
            if points is not None and told is not None:
                self.add(zip(members(points), getattr(told, "f", ()), strict=False))
        if self.gap is not None and self.problem.f_opt is not None and self.lowest - self.problem.f_opt <= self.gap:
            return "target", "The last target was hit."
        return None

    def add(self, evaluations: Iterable[tuple[Any, float | None]]) -> None:
        """Take in points with their values."""
        for x, f in evaluations:
            self.lowest = min(self.lowest, merit(self.problem, x, f))
