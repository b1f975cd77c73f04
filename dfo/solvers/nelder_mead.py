"""The Nelder-Mead simplex, with dimension-dependent coefficients and restarts.

References: Nelder and Mead 1965, "A simplex method for function minimization"; Gao and Han 2012,
"Implementing the Nelder-Mead simplex algorithm with adaptive parameters" (the coefficients).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, namespace, to_numpy
from dfo.batch import Batch, Points
from dfo.components.ranking import merits
from dfo.components.restarts import restart_point
from dfo.components.stages import Staged
from dfo.errors import InvalidArgument, ProblemTooLarge
from dfo.feedback import Feedback
from dfo.protocols import CONSTRAINTS, Task
from dfo.random import Key
from dfo.spaces import Box, Space

__all__ = ["NelderMead", "NelderMeadState"]


@dataclass(frozen=True, eq=False)
class NelderMeadState:
    """The memory of the simplex method; vertices are sorted, best first."""

    x0: Array  # (d,) start of the run, as given
    simplex: Array  # (d + 1, d)
    merit: Floats  # (d + 1,) infinite before the simplex is evaluated
    trial: Array  # (d,) the reflected point, while it waits for its comparison
    trial_merit: float
    stage: str
    run_start: float  # lowest merit when this simplex was built
    runs: int
    ended: str
    key: Key
    step: int


@dataclass(frozen=True)
class NelderMead(Staged):
    """The simplex method for few variables (up to about ten) and values without noise.

    A converged simplex is rebuilt around its best vertex; if that brings nothing, the next one starts at
    a random point. Bounds are kept by projecting trial points.

    Args:
        size: edge of a new simplex: a fraction of the box between two bounds (0.1 by default), in units of x
            elsewhere (0.5 by default).
        restarts: whether to go on after convergence; by default when a budget was given.
        xtol: converged when the vertices are within this of the best one ...
        ftol: ... and their values too (plus rounding).
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: size not positive and finite.
        ProblemTooLarge: the simplex would take more than 1 GiB.

    Example:
        >>> import dfo
        >>> res = dfo.minimize(lambda x: (x[0] - 1) ** 4 + x[1] ** 2, [3.0, 3.0], method="nelder-mead")
        >>> res.success, res.fun < 1e-8
        (True, True)
    """

    size: float | None = None
    restarts: bool | None = None
    xtol: float = 1e-8
    ftol: float = 1e-11
    space: Space | None = None

    stages: ClassVar[tuple[str, ...]] = ("simplex", "reflect", "expand", "contract", "shrink")
    spaces: ClassVar[frozenset[str]] = frozenset({"vector"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset({CONSTRAINTS})
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "rank-invariance", "sphere"})

    def __post_init__(self) -> None:
        if self.size is not None and not (math.isfinite(self.size) and 0 < self.size < 1e150):
            raise InvalidArgument(f"size: expected a positive finite edge below 1e150, got {self.size!r}.")

    def plan(self, task: Task) -> NelderMead:
        """Fill in size, restarts and space."""
        d = task.space.dim
        if 8 * d * (d + 1) > 1 << 30:
            raise ProblemTooLarge(
                f"nelder-mead: a simplex of {d} variables needs {8 * d * d / 2**30:.0f} GiB, more than the 1 GiB"
                " allowed, and would not converge. Use method='sep-cma', whose cost is linear in the variables."
            )
        boxed = isinstance(task.space, Box) and bool(task.space.bounded.all())
        return replace(
            self, size=self.size or (0.1 if boxed else 0.5), space=self.space or task.space,
            restarts=task.budget is not None if self.restarts is None else self.restarts,
        )  # fmt: skip

    def init(self, x0: Array, key: Key) -> NelderMeadState:
        """Return the state before the first question."""
        x0 = copy(x0)
        empty = np.full(x0.shape[0] + 1, np.inf)
        return NelderMeadState(x0, self._simplex(x0), empty, x0, np.inf, "simplex", np.inf, 0, "", key, 0)

    def _simplex(self, x: Array) -> Array:
        """Return ``(d + 1, d)`` vertices: ``x`` and a step along each axis, away from a bound that is near."""
        size = self.size or 0.5
        steps = np.full(x.shape[0], size)
        if isinstance(self.space, Box):
            upper = as_like(self.space.upper, x)
            flip: Any = (x + size > upper) & (x - size >= as_like(self.space.lower, x))
            steps = np.where(to_numpy(flip), -size, size)
        xp = namespace(x)
        edges = xp.concat([x[None] * 0, as_like(np.diag(steps), x)])
        return self._inside(x + edges)

    def _inside(self, X: Array) -> Array:
        if not isinstance(self.space, Box):
            return X
        return namespace(X).clip(X, as_like(self.space.lower, X), as_like(self.space.upper, X))  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ stages

    def ask_simplex(self, s: NelderMeadState) -> Batch:
        """Ask about every vertex of a new simplex."""
        return Points(s.simplex, step=s.step)

    def tell_simplex(self, s: NelderMeadState, batch: Batch, told: Feedback) -> NelderMeadState:
        """Sort the vertices."""
        merit = merits(told)
        order = np.argsort(merit, kind="stable")
        s = replace(s, simplex=s.simplex[order], merit=merit[order], run_start=float(merit[0]))
        return self._next(s, "reflect")

    def _centroid(self, s: NelderMeadState) -> Any:
        return s.simplex[:-1].mean(axis=0)

    def ask_reflect(self, s: NelderMeadState) -> Batch:
        """Ask about the worst vertex mirrored at the centroid of the others."""
        c = self._centroid(s)
        return self._one(s, c + (c - s.simplex[-1]))

    def tell_reflect(self, s: NelderMeadState, batch: Batch, told: Feedback) -> NelderMeadState:
        """Accept the mirrored point, or go on to expand or contract."""
        f, x = float(merits(told)[0]), batch.member(0)
        if s.merit[0] <= f < s.merit[-2] or (len(s.merit) == 2 and f < s.merit[-1] and f >= s.merit[0]):
            return self._accept(s, x, f)
        return self._next(replace(s, trial=x, trial_merit=f), "expand" if f < s.merit[0] else "contract")

    def ask_expand(self, s: NelderMeadState) -> Batch:
        """Ask about a point further out."""
        c, beta = self._centroid(s), 1.0 + 2.0 / max(s.x0.shape[0], 2)
        return self._one(s, c + beta * (s.trial - c))

    def tell_expand(self, s: NelderMeadState, batch: Batch, told: Feedback) -> NelderMeadState:
        """Accept the better of the expanded and the mirrored point."""
        f = float(merits(told)[0])
        return self._accept(s, batch.member(0), f) if f < s.trial_merit else self._accept(s, s.trial, s.trial_merit)

    def ask_contract(self, s: NelderMeadState) -> Batch:
        """Ask about a point between the centroid and the better of the worst and the mirrored point."""
        c, gamma = self._centroid(s), 0.75 - 1.0 / (2.0 * max(s.x0.shape[0], 2))
        end = s.trial if s.trial_merit < s.merit[-1] else s.simplex[-1]
        return self._one(s, c + gamma * (end - c))

    def tell_contract(self, s: NelderMeadState, batch: Batch, told: Feedback) -> NelderMeadState:
        """Accept the contracted point, or shrink."""
        f = float(merits(told)[0])
        if f < min(s.trial_merit, s.merit[-1]) or (f == s.trial_merit < s.merit[-1]):
            return self._accept(s, batch.member(0), f)
        return self._next(s, "shrink")

    def ask_shrink(self, s: NelderMeadState) -> Batch:
        """Ask about all vertices but the best, drawn towards it."""
        best, delta = s.simplex[0], 1.0 - 1.0 / max(s.x0.shape[0], 2)
        return Points(best + delta * (s.simplex[1:] - best), step=s.step)

    def tell_shrink(self, s: NelderMeadState, batch: Batch, told: Feedback) -> NelderMeadState:
        """Replace the vertices and sort them."""
        merit = np.concatenate([s.merit[:1], merits(told)])
        simplex = namespace(s.simplex).concat([s.simplex[:1], batch.X])  # type: ignore[attr-defined]
        order = np.argsort(merit, kind="stable")
        return self._next(replace(s, simplex=simplex[order], merit=merit[order]), "reflect")

    # ------------------------------------------------------------------ shared by the stages

    def _one(self, s: NelderMeadState, x: Array) -> Batch:
        return Points(self._inside(x)[None], step=s.step)

    def _accept(self, s: NelderMeadState, x: Array, f: float) -> NelderMeadState:
        at = int(np.searchsorted(s.merit[:-1], f, side="right"))
        order = np.r_[0:at, len(s.merit) - 1, at : len(s.merit) - 1]
        simplex, merit = s.simplex[order], s.merit[order]
        simplex[at], merit[at] = x, f
        return self._next(replace(s, simplex=simplex, merit=merit), "reflect")

    def _next(self, s: NelderMeadState, stage: str) -> NelderMeadState:
        s = replace(s, stage=stage, step=s.step + 1)
        if stage != "reflect":
            return s
        if not math.isfinite(s.merit[0]) and self.restarts:  # every vertex failed: somewhere else
            return self._restart(s)
        spread = abs(s.simplex[1:] - s.simplex[0])
        low, high = s.merit[0], s.merit[-1]
        flat = not math.isfinite(low) or bool(high - low <= self.ftol + 4 * np.finfo(float).eps * abs(low))
        if not (flat and float(spread.max()) <= self.xtol) and float(spread.max()) > 1e-300:
            return s
        s = replace(s, ended=f"the simplex is smaller than xtol={self.xtol:g}")
        return self._restart(s) if self.restarts else s

    def _restart(self, s: NelderMeadState) -> NelderMeadState:
        runs, x = s.runs + 1, s.simplex[0]
        if not s.merit[0] + self.ftol < s.run_start:  # the last one brought nothing: somewhere else
            x = restart_point(self.space, s.x0, self.size or 0.5, s.key.child("restart", runs))
        x = copy(x)
        return replace(
            s, simplex=self._simplex(x), merit=np.full(len(s.merit), np.inf), stage="simplex", runs=runs, trial=x,
        )  # fmt: skip

    def finished(self, s: NelderMeadState) -> str | None:
        """Return why a run without restarts has ended."""
        return f"Nelder-Mead converged: {s.ended}." if s.ended and not self.restarts else None

    def recommend(self, s: NelderMeadState) -> Array:
        """Return the best vertex of the current simplex."""
        return copy(s.simplex[0])  # type: ignore[no-any-return]

    def gauges(self, s: NelderMeadState) -> dict[str, float]:
        """Return the size of the simplex and the number of restarts."""
        return {"size": float(abs(s.simplex[1:] - s.simplex[0]).max()), "restarts": float(s.runs)}
