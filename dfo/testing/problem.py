"""Laws of problems."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Floats, is_array, to_numpy
from dfo.protocols import Problem
from dfo.random import Key, normal
from dfo.sets.convex import is_convex
from dfo.spaces import Box, Free, Named
from dfo.testing.equal import difference, identical
from dfo.testing.laws import Cases, Law, Skipped, expect, law

__all__ = ["BOOK", "ProblemSubject"]

BOOK: dict[str, Law] = {}
SEEDS = range(100)


@dataclass(frozen=True, eq=False)
class ProblemSubject:
    """A problem as its laws see it.

    Args:
        problem: the problem.
        tolerance: relative rounding allowed in values.
        cases: draws the cases of the law at hand.
    """

    problem: Problem
    tolerance: float
    cases: Cases

    def value(self, x: Any) -> float:
        """Return the objective at one point.

        Raises:
            Skipped: the problem is an oracle.
        """
        fun = self.problem.fun
        if hasattr(fun, "evaluate") and hasattr(fun, "gives"):
            raise Skipped("its objective is an oracle")
        return float(np.asarray(to_numpy(fun(x[None]))).reshape(-1)[0]) if self.problem.vectorized else float(fun(x))

    def merit(self, x: Any) -> float:
        """Return the noise-free value at one point.

        Raises:
            Skipped: the problem is an oracle without a measure.
        """
        measure = self.problem.measure
        return self.value(x) if measure is None else float(measure(x))

    def slack(self, value: float) -> float:
        """Return by how much a value may be off."""
        return self.tolerance * max(1.0, abs(value))

    def sample(self, seed: int, n: int = 4) -> Any:
        """Return ``n`` random points of the space."""
        return self.problem.space.sample(Key(seed, ("sample",)), n)

    def feasible(self, x: Any) -> bool:
        """Tell whether a point violates no constraint."""
        constraint = self.problem.constraint
        return constraint is None or bool((np.asarray(constraint(x)) <= 1e-9).all())


@law(BOOK, "optimum")
def optimum(s: ProblemSubject) -> None:
    """The optimum lies in the space, is feasible, and has the value that is claimed for it.

    Broken by: many hand-copied test functions (Schwefel's constant to four digits, shifts with a wrong sign).
    """
    p = s.problem
    if p.f_opt is None or p.x_opt is None:
        raise Skipped("no optimum is known")
    expect(p.space.contains(p.x_opt), f"x_opt={p.x_opt} is not in {p.space!r}")
    expect(s.feasible(p.x_opt), f"x_opt={p.x_opt} violates a constraint")
    value = s.merit(p.x_opt)
    expect(abs(value - p.f_opt) <= s.slack(p.f_opt), f"f(x_opt) = {value!r}, not f_opt = {p.f_opt!r}")


@law(BOOK, "nothing-lower")
def nothing_lower(s: ProblemSubject) -> None:
    """No feasible point has a value below f_opt, anywhere in the space or near the optimum.

    Broken by: "optima" that are only the best that somebody found.
    """
    p = s.problem
    if p.f_opt is None:
        raise Skipped("no optimum is known")
    f_opt = p.f_opt

    def body(seed: int, decade: int) -> None:
        points = list(s.sample(seed))
        if is_array(p.x_opt) and (isinstance(p.space, (Box, Free)) or is_convex(p.space)):
            step = 10.0**-decade * normal(Key(seed, ("near",)), (4, p.space.dim))
            points += [p.space.project(row) for row in p.x_opt + step]
        for x in points:
            value = s.merit(x)
            low = s.feasible(x) and value < f_opt - s.slack(f_opt)
            expect(not low, f"f({x}) = {value!r} is below f_opt = {f_opt!r}")

    s.cases.each(body, seed=SEEDS, decade=range(9))


@law(BOOK, "vectorized")
def vectorized(s: ProblemSubject) -> None:
    """A vectorised objective gives each row the value that the row has alone.

    Broken by: objectives that sum over the wrong axis, which works for one point and for square batches.
    """
    p = s.problem
    if not p.vectorized or p.noisy:
        raise Skipped("it takes one point at a time" if not p.vectorized else "it is noisy")

    def body(seed: int, n: int) -> None:
        X = s.sample(seed, n)
        together = np.asarray(to_numpy(p.fun(X)), dtype=float)
        expect(together.shape == (n,), f"values of shape {together.shape} for {n} points")
        alone = np.array([s.value(x) for x in X])
        gap = np.abs(together - alone) / np.maximum(1.0, np.abs(alone))
        expect(bool((gap <= s.tolerance).all()), f"together {together.tolist()}, alone {alone.tolist()}")

    s.cases.each(body, seed=SEEDS, n=range(1, 8))


@law(BOOK, "start")
def start(s: ProblemSubject) -> None:
    """The start lies in the space and has a finite value.

    Broken by: suites whose default start is outside the box, or at a pole of the function.
    """
    p = s.problem
    expect(p.space.contains(p.x0), f"x0={p.x0} is not in {p.space!r}")
    value = s.value(p.x0)
    expect(bool(np.isfinite(value)), f"f(x0) = {value}")


@law(BOOK, "bounds")
def bounds(s: ProblemSubject) -> None:
    """Every point of the space has a finite value: random ones, projected ones, corners.

    Broken by: functions with logarithms or roots of coordinates, in a box that reaches below zero.
    """
    p = s.problem

    def body(seed: int) -> None:
        points = list(s.sample(seed))
        if isinstance(p.space, Box) or is_convex(p.space):
            drawn: Floats = normal(Key(seed, ("corner",)), (p.space.dim,))
            points += [p.space.project(1e3 * drawn), p.space.project(p.space.sample(Key(seed), 1)[0] + drawn)]
        if isinstance(p.space, Named):
            points.append(p.space.decode(np.round(normal(Key(seed), (p.space.dim,)) + 0.5)))
        for x in points:
            expect(p.space.contains(x), f"{x} is not in {p.space!r}")
            value = s.value(x)
            expect(bool(np.isfinite(value)), f"f({x}) = {value}")
            if p.constraint is not None:
                g = np.asarray(p.constraint(x), dtype=float)
                expect(g.ndim == 1 and bool(np.isfinite(g).all()), f"constraint({x}) = {g}")

    s.cases.each(body, seed=SEEDS)


@law(BOOK, "deterministic")
def deterministic(s: ProblemSubject) -> None:
    """Equal points get equal values, unless the problem says that it is noisy; and no point is written to.

    Broken by: objectives with a counter, and by those that normalise their argument in place.
    """
    p = s.problem

    def body(seed: int) -> None:
        for x in s.sample(seed, 2):
            before = copy.deepcopy(x)
            first = s.value(x)
            found = difference(before, x)
            expect(not found, f"the objective wrote to its argument: x{found}")
            s.value(p.x0)
            again = s.value(x)
            expect(p.noisy or identical(first, again), f"f({x}) = {first!r}, and then {again!r}")
            merits = s.merit(x), s.merit(x)
            expect(identical(*merits), f"the noise-free value is {merits[0]!r}, and then {merits[1]!r}")

    s.cases.each(body, seed=SEEDS)
