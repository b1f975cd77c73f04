"""Zeroth-order Frank-Wolfe: descent within a convex set by its linear minimisation oracle, without projections.

A step estimates the gradient from values, averages the estimates, asks the set for the point that is lowest in the
direction of the average, and moves a part of the way towards it::

    d_t = (1 - rho_t) d_{t-1} + rho_t g_t,   v_t = argmin_{v in C} <d_t, v>,   x_{t+1} = x_t + gamma_{t+1} (v_t - x_t)

so the iterate is a mixture of points of the set and never leaves it. Schedules by scheme (Sahu et al., section 3):

=============  ============================================  =================================  ===============
scheme         rho_t                                         c_t                                gamma_t
=============  ============================================  =================================  ===============
kwsa           4 / (t+8)^(2/3)                               2 / (d^(1/2) (t+8)^(1/3))          2 / (t+8)
rdsa           4 / (d^(1/3) (t+8)^(2/3))                     2 / (d^(3/2) (t+8)^(1/3))          2 / (t+8)
i-rdsa         4 / ((1 + d/m)^(1/3) (t+8)^(2/3))             2 sqrt(m) / (d^(3/2) (t+8)^(1/3))  2 / (t+8)
deterministic  1                                             2 / (d (t+2))                      2 / (t+1)
=============  ============================================  =================================  ===============

References: Sahu, Zaheer and Kar 2019, arXiv:1810.03233; Mokhtari, Hassani and Karbasi 2018, arXiv:1804.09554
(averaging of gradients); Jaggi 2013 (the deterministic method and its gap).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, namespace
from dfo.batch import DENSE_LIMIT, Batch, Perturbations, Points
from dfo.components import estimators
from dfo.components.options import check_choice
from dfo.directions import Directions, Gaussian
from dfo.errors import DfoWarning, InvalidArgument, ProblemTooLarge, short
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key, integers, normal
from dfo.sets.convex import Convex, is_convex
from dfo.spaces import Box

__all__ = ["FrankWolfe", "FrankWolfeState"]

Scheme = Literal["kwsa", "rdsa", "i-rdsa", "deterministic"]
SCHEMES: tuple[Scheme, ...] = ("kwsa", "rdsa", "i-rdsa", "deterministic")
Schedule = Callable[[int], float]


@dataclass(frozen=True, eq=False)
class FrankWolfeState:
    """The memory of :class:`FrankWolfe`."""

    x: Array  # (d,) a point of the set
    average: Array  # (d,) averaged estimate d_t of the gradient
    warm: Any  # what the set keeps for its next minimisation
    gap: float  # <d_t, x_t - v_t>; infinite before the first step
    warned: bool
    age: int  # updates done: t
    key: Key
    step: int


@dataclass(frozen=True)
class FrankWolfe:
    """Frank-Wolfe on gradients estimated from values.

    Queries lie around the iterate, up to ``c_t |z|`` beside the set, as in the paper; iterates and the result
    are points of the set. In a box, which nothing leaves, the queries' center moves inward instead. Where the set
    is flat (a simplex), queries stay in its plane, unless ``faithful``.

    By default differences are central and ``c_t`` has a floor: both errors of a difference are then small in
    single precision too. The paper's forward differences need its tiny ``c_t`` (their error grows as
    ``c L d^(3/2) / 2``), which drowns in rounding when ``d`` is large.

    Args:
        scheme: ``"kwsa"`` (a difference along every coordinate), ``"rdsa"`` (one gaussian direction),
            ``"i-rdsa"`` (``samples`` of them) or ``"deterministic"`` (kwsa without averaging).
        samples: directions of ``"i-rdsa"``, m; as many as ``batch`` pays for, else 10 (at most ``d``).
        difference: ``"central"``, two values a direction, or ``"forward"``, one and the center.
        faithful: the paper's differences: forward, ``c_t`` without scale and floor. Warns where rounding hides them.
        rho: weight of the new estimate at update t = 0, 1, ..., as a function or a number; the paper's by default.
        c: length of a query at update t, used as it is; by default ``scale`` times the larger of the paper's
            and ``floor``, or a tenth of ``scale`` where values are noisy without ``minibatches``.
        gamma: share of the way at t = 1, 2, ...; the paper's, or ``horizon ** -0.75``, by default.
        horizon: updates planned: a constant gamma, for functions that are not convex.
        floor: least ``c_t`` in units of ``scale``; raised to what the type of the points resolves.
        scale: a typical coordinate of the set; by default half the largest extent between two opposite points.
        minibatches: number of different data numbers; a step draws one and all its members share it.
        look: every how many updates the iterate itself is evaluated; 0 for never.
        gap_tol: finished when the gap falls to this.
        space: a convex set, or a box with finite bounds; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, a number out of range, or a space that is no compact convex set.

    Example:
        >>> import dfo
        >>> f = lambda x: float(((x - [0.2, 0.9, 0.0]) ** 2).sum())
        >>> res = dfo.minimize(f, method=dfo.FrankWolfe(scheme="deterministic"), bounds=dfo.Simplex(3), budget=3000)
        >>> bool(abs(res.x - [0.15, 0.85, 0.0]).max() < 0.01)
        True
    """

    scheme: Scheme = "i-rdsa"
    samples: int | None = None
    difference: Literal["central", "forward"] = "central"
    faithful: bool = False
    rho: Schedule | float | None = None
    c: Schedule | float | None = None
    gamma: Schedule | float | None = None
    horizon: int | None = None
    floor: float = 1e-3
    scale: float | None = None
    minibatches: int | None = None
    look: int = 10
    gap_tol: float | None = None
    space: Any = None

    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    spaces: ClassVar[frozenset[str]] = frozenset({"convex"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_choice(self, scheme=SCHEMES, difference=("central", "forward"))
        for name in ("samples", "horizon", "scale", "minibatches", "gap_tol", "rho", "c", "gamma"):
            value = getattr(self, name)
            if value is not None and not callable(value) and not 0 < value < 1e150:
                raise InvalidArgument(f"{name}: expected a positive number below 1e150, got {value!r}.")
        for name in ("rho", "gamma"):
            value = getattr(self, name)
            if value is not None and not callable(value) and value > 1:
                raise InvalidArgument(f"{name}: expected a share of at most 1, got {value!r}.")
        for name in ("floor", "look"):
            if not 0 <= getattr(self, name) < 1e150:
                raise InvalidArgument(f"{name}: expected a number >= 0, got {getattr(self, name)!r}.")

    def plan(self, task: Task) -> FrankWolfe:
        """Fill in the directions, the scale and the space; choose a constant c for noise that pairs do not share."""
        space = task.space
        boxed = isinstance(space, Box) and bool(space.bounded.all())
        if not boxed and not is_convex(space):
            raise InvalidArgument(
                f"space: Frank-Wolfe moves in compact convex sets, got {short(space)}."
                " Give two finite bounds per variable, or a set such as bounds=dfo.L1Ball(d)."
            )
        if self._axes and space.dim**2 > DENSE_LIMIT:
            raise ProblemTooLarge(f"{self.scheme} asks about all {space.dim} coordinates at once. Use scheme='i-rdsa'.")
        m = self.samples or max(1, min(space.dim, 10) if task.batch is None else task.batch // 2)
        m = {"rdsa": 1, "i-rdsa": m}.get(self.scheme, space.dim)
        scale, c = self.scale or _extent(space), self.c
        if task.noisy and self.minibatches is None and c is None:
            if self.faithful:
                raise InvalidArgument(
                    "faithful: the paper's c_t divides the noise of each value by a length that goes to 0."
                    " Give minibatches, whose values share their noise, or a constant c."
                )
            c = 0.1 * scale
        return replace(self, samples=m, scale=scale, c=c, space=space)

    # ------------------------------------------------------------------ schedules

    @property
    def _axes(self) -> bool:
        return self.scheme in ("kwsa", "deterministic")

    @property
    def _scheme(self) -> estimators.Scheme:
        return "forward" if self.faithful else self.difference

    def weight(self, t: int, d: int) -> float:
        """Return rho_t, at most 1."""
        m = self.samples or 1
        slower = {"rdsa": d, "i-rdsa": 1.0 + d / m}.get(self.scheme, 1.0) ** (1 / 3)
        default = 1.0 if self.scheme == "deterministic" else 4.0 / (slower * (t + 8) ** (2 / 3))
        return min(max(_at(self.rho, t, default), 0.0), 1.0)

    def share(self, t: int) -> float:
        """Return gamma_t, between 0 and 1."""
        default = 2.0 / (t + (1 if self.scheme == "deterministic" else 8))
        if self.horizon is not None:
            default = self.horizon**-0.75
        return min(max(_at(self.gamma, t, default), 0.0), 1.0)

    def radius(self, t: int, x: Array) -> float:
        """Return c_t for a point like ``x``; in a unit box, at most a tenth of it."""
        d, m, slow = x.shape[0], self.samples or 1, (t + 8) ** (1 / 3)
        paper = {
            "kwsa": 2.0 / (math.sqrt(d) * slow),
            "rdsa": 2.0 / (d**1.5 * slow),
            "i-rdsa": 2.0 * math.sqrt(m) / (d**1.5 * slow),
            "deterministic": 2.0 / (d * (t + 2)),
        }[self.scheme]
        least = max(self.floor, 5.0 * float(namespace(x).finfo(x.dtype).eps))
        default = paper if self.faithful else max(paper, least) * (self.scale or 1.0)
        c = _at(self.c, t, default)
        return min(c, 0.1) if isinstance(self.space, Box) else c

    # ------------------------------------------------------------------ asking

    def init(self, x0: Array, key: Key) -> FrankWolfeState:
        """Return the state before the first question."""
        x: Any = copy(x0)
        return FrankWolfeState(x, namespace(x).zeros_like(x), None, math.inf, False, 0, key, 0)

    def _drawn(self, s: FrankWolfeState) -> Directions:
        return Directions(Gaussian(), s.key.child(s.age), self.samples or 1, s.x)

    def _looks(self, s: FrankWolfeState) -> bool:
        return self.look > 0 and s.age % self.look == 0 and self._scheme == "central"

    def ask(self, s: FrankWolfeState) -> Batch:
        """Ask about the queries around the iterate, and now and then about itself (first)."""
        q, c = (s.x.shape[0] if self._axes else self.samples or 1), self.radius(s.age, s.x)
        index, scale = estimators.layout(self._scheme, q, c)
        if self._looks(s):
            index, scale = np.concatenate([[0], index]), np.concatenate([[0.0], scale])
        data: Any = None
        if self.minibatches is not None:
            data = np.full(len(index), integers(s.key.child(s.age, "data"), self.minibatches, (1,))[0])
        if not self._axes and not self._flat:
            return Perturbations((s.x,), self._drawn(s), scale, index=index, step=s.step, data=data)
        return Points(self._around(s, index, scale, c), step=s.step, data=data)

    @property
    def _flat(self) -> bool:
        """Whether queries are built as rows: within a box, or along a set that is flat."""
        if self.faithful or isinstance(self.space, Box):
            return isinstance(self.space, Box)
        return type(self.space).tangent is not Convex.tangent if isinstance(self.space, Convex) else False

    def _along(self, U: Any) -> Any:
        """Return the part of directions along which the set extends: slopes across it would only be noise."""
        return self.space.tangent(U) if self._flat and not isinstance(self.space, Box) else U

    def _around(self, s: FrankWolfeState, index: Any, scale: Floats, c: float) -> Array:
        """Return the queries as rows; in a box around the nearest point from which all of them stay inside."""
        xp, x = namespace(s.x), s.x
        if self._axes:
            rows: Any = np.zeros((len(index), x.shape[0]))
            rows[np.arange(len(index)), index] = scale
            rows, reach = self._along(as_like(rows, x)), c
        else:
            U: Any = self._along(self._drawn(s).dense())
            rows = U[index] * as_like(scale, x)[:, None]
            reach = c * xp.max(abs(U), axis=0)
        if not isinstance(self.space, Box):
            moved: Array = x + rows
            return moved
        lower, upper = as_like(self.space.lower, x), as_like(self.space.upper, x)
        middle = xp.maximum(xp.minimum(x, upper - reach), lower + reach)
        center = xp.where(upper - lower > 2.0 * reach, middle, lower / 2 + upper / 2)
        if self._looks(s):
            rows = xp.concat([(x - center)[None], rows[1:]])
        inside: Array = xp.clip(center + rows, lower, upper)
        return inside

    # ------------------------------------------------------------------ telling

    def tell(self, s: FrankWolfeState, batch: Batch, told: Feedback) -> FrankWolfeState:
        """Average the estimate and move towards the lowest point of the set; without a value, only advance."""
        f = estimators.usable(told)[1 if self._looks(s) else 0 :]
        slopes = estimators.differences(self._scheme, f, self.radius(s.age, s.x))
        drawn = batch.directions if isinstance(batch, Perturbations) else self._drawn(s)  # its rows exist already
        g = self._estimate(s, drawn, slopes)
        s = replace(s, warned=s.warned or self._drowned(s, f))
        if g is not None:
            s = self._moved(s, g)
        return replace(s, age=s.age + 1, step=s.step + 1)

    def _estimate(self, s: FrankWolfeState, drawn: Directions, slopes: Floats) -> Array | None:
        """Return ``g_t``: the mean over the directions, or every coordinate (the average's where one is missing)."""
        if not self._axes:
            mean = estimators.gradient(drawn, slopes)
            return None if mean is None else self._along(mean)
        xp, x = namespace(s.x), s.x
        with np.errstate(invalid="ignore"):
            fits = np.abs(slopes) < 1e-3 * math.sqrt(float(xp.finfo(x.dtype).max) / len(slopes))
        if not fits.any():
            return None
        known, g = as_like(fits, x), as_like(np.where(fits, slopes, 0.0), x)
        estimate: Array = g + (1.0 - known) * s.average
        return estimate

    def _moved(self, s: FrankWolfeState, g: Any) -> FrankWolfeState:
        rho, x = self.weight(s.age, s.x.shape[0]), s.x
        average: Any = (1.0 - rho) * s.average + rho * g
        known = getattr(self.space, "lmo_warm", None)
        v, warm = (self.space.lmo(average), None) if known is None else known(average, s.warm)
        gap = float((average * (x - v)).sum())
        if gap > 0.0:  # a flat average says nothing about where to go
            x = x + self.share(s.age + 1) * (v - x)
        return replace(s, x=x, average=average, warm=warm, gap=max(gap, 0.0))

    def _drowned(self, s: FrankWolfeState, f: Floats) -> bool:
        """Warn, once, where a faithful difference is smaller than ten roundings of the value."""
        known = f[np.isfinite(f)]
        if not self.faithful or s.warned or known.size < 2:
            return False
        length = 1.0 if self._axes else math.sqrt(s.x.shape[0])
        rise = length * float(np.sqrt(np.mean((known[1:] - known[0]) ** 2)))  # ~ c |z| |g|
        eps = float(namespace(s.x).finfo(s.x.dtype).eps)
        if rise >= 10.0 * eps * abs(float(known[0])):
            return False
        warnings.warn(
            f"faithful: at update {s.age} values around {known[0]:.3g} differ by rounding only (c = "
            f"{self.radius(s.age, s.x):.1e}). Use central differences (faithful=False), or subtract a constant from f.",
            DfoWarning,
            stacklevel=2,
        )
        return True

    def recommend(self, s: FrankWolfeState) -> Array:
        """Return the iterate, a point of the set."""
        x: Array = copy(s.x)
        return x

    def finished(self, s: FrankWolfeState) -> str | None:
        """Return why there is nothing left to do."""
        if self.gap_tol is None or not s.gap <= self.gap_tol:
            return None
        return f"Frank-Wolfe converged: the gap {s.gap:.3g} is at most gap_tol={self.gap_tol:g}."

    def gauges(self, s: FrankWolfeState) -> dict[str, float]:
        """Return the gap with the averaged gradient, the length of a query and the share of the way."""
        return {"gap": s.gap, "c": self.radius(s.age, s.x), "gamma": self.share(s.age + 1)}


def _at(schedule: Schedule | float | None, t: int, default: float) -> float:
    if schedule is None:
        return default
    return float(schedule(t)) if callable(schedule) else float(schedule)


def _extent(space: Any) -> float:
    """Return half the largest difference of a coordinate between two opposite extreme points of the set."""
    s = normal(Key(0, ("extent",)), (space.dim,))
    half = float(np.abs(np.asarray(space.lmo(s)) - np.asarray(space.lmo(-s))).max()) / 2.0
    return half or 1.0
