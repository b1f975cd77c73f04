"""Zeroth-order gradient descent: direction distribution x difference scheme x scalar filter x update rule.

The published variants are combinations of four choices, each written once: the law of the directions
(:mod:`dfo.directions`), the scheme and the filter (:mod:`dfo.components.estimators`), and the rule
(:mod:`dfo.components.descent`, with the two rules that need phases here: ``conservative`` and ``svrg``).

References: Nesterov and Spokoiny 2017, "Random gradient-free minimization of convex functions"; Ghadimi and
Lan 2013, arXiv:1309.5549; Liu et al. 2018, arXiv:1805.10367 (ZO-SVRG); Liu et al. 2019 (ZO-signSGD); Chen et
al. 2019, arXiv:1910.06513 (ZO-AdaMM); Zhang et al. 2024, arXiv:2402.11592 (conservative step).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from dfo.arrays import Floats, Point, copy, is_blocks, namespace, size
from dfo.batch import Batch, Perturbations, Points
from dfo.components import descent, estimators
from dfo.components.borders import nearest, within_box
from dfo.components.curvature import first_step
from dfo.components.descent import Moments
from dfo.components.options import check_positive
from dfo.components.stages import Staged
from dfo.directions import Coordinate, Directions, Distribution, distribution
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key, integers
from dfo.spaces import Box, Free, Space

__all__ = ["ZOSGD", "ZOSGDState"]

Rule = Literal["sgd", "momentum", "sign", "adam", "amsgrad", "conservative", "svrg"]


@dataclass(frozen=True, eq=False)
class ZOSGDState:
    """The memory of :class:`ZOSGD`."""

    x: Any  # (d,) or named blocks; moved in place when in blocks
    lr: float
    moments: Moments
    slopes: Floats  # (q,) weights of the directions, while a conservative step waits for its comparison
    anchor: Any  # SVRG: the anchor point ...
    anchor_g: Any  # ... and the gradient estimate there
    previous: float  # last value queried (residual scheme)
    level: float  # mean value of the last step
    best_x: Any  # where the lowest level was, while the step size is being fitted
    best_level: float
    worse: int  # steps in a row above the lowest level
    stage: str
    age: int  # updates done
    key: Key
    step: int


@dataclass(frozen=True)
class ZOSGD(Staged):
    """Gradient descent on gradients estimated from values.

    Without ``lr`` the step size is fitted: a first batch measures the curvature and gives the first step size
    (:func:`dfo.components.curvature.first_step`), which then grows by 5 % while the values fall and is halved, from
    the best point on, after three steps above it. A given ``lr`` is used as it is.

    In a convex set the iterate is projected, and queries around it may lie outside; in a box they are projected too.

    Args:
        lr: step size, or None to fit it.
        radius: smoothing mu, the length of a direction's unit; 1e-4 in double, 1e-2 in single precision, 0.05
            with noise by default.
        samples: directions per step, q; as many as ``batch`` pays for, else ``max(1, d // 2)`` up to 8.
        directions: ``"sphere"``, ``"gaussian"``, ``"rademacher"``, ``"orthogonal"``, ``"coordinate"``,
            ``"sparse"`` or a law of :mod:`dfo.directions`.
        scheme: ``"central"`` (2q values a step), ``"forward"`` (q + 1), ``"one-point"`` (q) or ``"residual"``
            (q). The one-point schemes trade calls for variance: give them a large radius and a small lr.
        filter: ``"none"``, ``"sign"``, ``"clip"`` or ``"standardized"`` on the q directional derivatives.
        limit: for ``"clip"``.
        rule: ``"sgd"``, ``"momentum"``, ``"sign"``, ``"adam"``, ``"amsgrad"``, ``"conservative"`` (of ``x``,
            ``x - step``, ``x + step`` keep the lowest on the same data: three more values) or ``"svrg"``.
        betas: decay of the first and second moment.
        eps: of Adam; times ``sqrt(d)``.
        decay: the step size at update t is ``lr / (1 + t) ** decay``.
        minibatches: number of different data numbers; a step draws one and all its members share it.
        period: updates between SVRG anchors.
        space: where to search; filled in by the run.

    Raises:
        InvalidArgument: a name that does not exist, or a number that is not positive; when planned, a rule whose
            steps need another projection than the nearest point (sign, adam, amsgrad in a set that is no box).

    Example:
        >>> import dfo
        >>> solver = dfo.ZOSGD(rule="adam", lr=0.1)
        >>> dfo.minimize(lambda x: float(x @ x), [1.0, -2.0, 1.0], method=solver, budget=2000).fun < 1e-4
        True
    """

    lr: float | None = None
    radius: float | None = None
    samples: int | None = None
    directions: str | Distribution = "sphere"
    scheme: estimators.Scheme = "central"
    filter: estimators.Filter = "none"
    limit: float = 1.0
    rule: Rule = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 0.0
    minibatches: int | None = None
    period: int = 20
    space: Space | None = None

    stages: ClassVar[tuple[str, ...]] = ("probe", "query", "compare", "anchor")
    spaces: ClassVar[frozenset[str]] = frozenset({"vector", "convex"})
    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    handles: ClassVar[frozenset[str]] = frozenset()
    laws: ClassVar[frozenset[str]] = frozenset({"translation", "sphere"})

    def __post_init__(self) -> None:
        for name, known in (
            ("scheme", estimators.SCHEMES),
            ("filter", estimators.FILTERS),
            ("rule", (*descent.RULES, "conservative", "svrg")),
        ):
            if getattr(self, name) not in known:
                raise InvalidArgument(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}.")
        distribution(self.directions)
        check_positive(self, "lr", "radius", "samples", "limit", "eps", "period", "minibatches")

    def plan(self, task: Task) -> ZOSGD:
        """Fill in the number of directions, the smoothing (with noise) and the space."""
        d = task.space.dim
        if self.rule in ("sign", "adam", "amsgrad") and not isinstance(task.space, (Free, Box)):
            raise InvalidArgument(
                f"rule: {self.rule!r} rescales coordinates, so the nearest point of {type(task.space).__name__}"
                ' is not the projection that it needs. Use rule="sgd" or "momentum", or method="zo-mirror".'
            )
        q = self.samples or max(1, min(d // 2, 8))
        if self.samples is None and task.batch is not None:
            q = max(1, task.batch // 2 if self.scheme == "central" else task.batch - (self.scheme == "forward"))
        return replace(self, samples=q, radius=self.radius or (0.05 if task.noisy else None), space=task.space)

    # ------------------------------------------------------------------ state

    def init(self, x0: Point, key: Key) -> ZOSGDState:
        """Return the state before the first question."""
        x = copy(x0)
        fit = self.lr is None and not is_blocks(x)
        return ZOSGDState(
            x, self.lr or 1e-3, descent.first_moments(self._plain_rule, x), np.empty(0), None, None, 0.0,
            np.inf, None, np.inf, 0, "probe" if fit else self._first_stage, 0, key, 0,
        )  # fmt: skip

    @property
    def _plain_rule(self) -> descent.Rule:
        return "sgd" if self.rule == "conservative" or self.rule == "svrg" else self.rule  # noqa: PLR1714

    @property
    def _first_stage(self) -> str:
        return "anchor" if self.rule == "svrg" else "query"

    def _radius(self, x: Point) -> float:
        return self.radius or estimators.default_radius(x)

    def _drawn(self, s: ZOSGDState, count: int | None = None) -> Directions:
        law = Coordinate() if s.stage == "anchor" else distribution(self.directions)
        return Directions(law, s.key.child(s.age, s.stage), count or self.samples or 1, s.x)

    def _data(self, s: ZOSGDState, n: int) -> Any:
        if self.minibatches is None:
            return None
        return np.full(n, integers(s.key.child(s.age, "data"), self.minibatches, (1,))[0])

    def _batch(self, s: ZOSGDState, drawn: Directions, centers: tuple[Any, ...], **layout: Any) -> Batch:
        return within_box(self.space, Perturbations(centers, drawn, step=s.step, **layout))

    # ------------------------------------------------------------------ fitting the step size

    def ask_probe(self, s: ZOSGDState) -> Batch:
        """Ask about the start and pairs around it."""
        q = max(4, min(self.samples or 1, 16))
        index, scale = estimators.layout("central", q, 10 * self._radius(s.x))
        index, scale = np.concatenate([[0], index]), np.concatenate([[0.0], scale])
        drawn = self._drawn(s, q)
        return self._batch(s, drawn, (s.x,), index=index, scale=scale, data=self._data(s, len(index)))

    def tell_probe(self, s: ZOSGDState, batch: Batch, told: Feedback) -> ZOSGDState:
        """Choose the step from curvature, and from a bound on its length where there is none."""
        f = estimators.usable(told)
        fitted = first_step(f, 10 * self._radius(s.x), size(s.x), self.samples or 1)
        if fitted is None:  # once more, along other directions
            return replace(s, age=s.age + 1, step=s.step + 1)
        lr = self.lr or (fitted if self._plain_rule in ("sgd", "momentum") else 0.02)
        level = float(f[0])
        return replace(
            s, lr=lr, best_x=copy(s.x), best_level=level, previous=level, stage=self._first_stage, step=s.step + 1
        )

    def _refit(self, s: ZOSGDState) -> ZOSGDState:
        """Grow the fitted step while levels fall; halve it, from the best point on, when they do not."""
        if self.lr is not None or s.best_x is None:
            return s
        if s.level < s.best_level:
            return replace(s, best_level=s.level, best_x=copy(s.x), worse=0, lr=1.05 * s.lr)
        if s.worse < 3:
            return replace(s, worse=s.worse + 1)
        memory = descent.first_moments(self._plain_rule, s.x)
        back = replace(s, x=copy(s.best_x), lr=0.5 * s.lr, moments=memory)
        return replace(back, worse=0, best_level=np.inf)  # measured again there: a lucky value is no level

    # ------------------------------------------------------------------ estimate and move

    def ask_query(self, s: ZOSGDState) -> Batch:
        """Ask about the perturbed points (SVRG: also around the anchor, same data, same directions)."""
        q, mu = self.samples or 1, self._radius(s.x)
        index, scale = estimators.layout(self.scheme, q, mu)
        origin: Any = None
        centers: tuple[Any, ...] = (s.x,)
        if self.rule == "svrg":
            origin = np.repeat([0, 1], len(index))
            index, scale, centers = np.tile(index, 2), np.tile(scale, 2), (s.x, s.anchor)
        layout = {"index": index, "scale": scale, "origin": origin, "data": self._data(s, len(index))}
        return self._batch(s, self._drawn(s), centers, **layout)

    def tell_query(self, s: ZOSGDState, batch: Batch, told: Feedback) -> ZOSGDState:
        """Form the weights of the directions and move, or first compare."""
        f, mu = estimators.usable(told), self._radius(s.x)
        here = f[: len(f) // 2] if self.rule == "svrg" else f
        raw = estimators.differences(self.scheme, here, mu, s.previous)
        if self.rule == "svrg":
            raw = raw - estimators.differences(self.scheme, f[len(f) // 2 :], mu)
        w = estimators.weights(estimators.filtered(self.filter, raw, self.limit), raw)
        known = here[np.isfinite(here)]
        s = replace(
            s, slopes=w, level=float(known.mean()) if known.size else np.inf,
            previous=float(here[-1]) if math.isfinite(here[-1]) else s.previous, step=s.step + 1,
        )  # fmt: skip
        if self.rule == "conservative":
            return replace(s, stage="compare")
        fitted = self._refit(s)
        went_back = fitted.lr < s.lr  # the estimate belongs to the point that was left
        return self._after(fitted if went_back else self._move(fitted, w))

    def _rate(self, s: ZOSGDState) -> float:
        return float(s.lr / (1.0 + s.age) ** self.decay)

    def _move(self, s: ZOSGDState, w: Floats) -> ZOSGDState:
        """Return the state after one step of the rule along ``-sum_j w_j u_j``."""
        drawn, lr = self._drawn(s), self._rate(s)
        if self._plain_rule == "sgd" and is_blocks(s.x) and self.rule != "svrg":
            return replace(s, x=drawn.add_to(s.x, -lr * w))  # in place, nothing of the size of x is built
        g: Any = drawn.combine(w)
        if self.rule == "svrg":
            g = descent.plus(g, s.anchor_g)
        eps = self.eps * math.sqrt(size(s.x))
        delta, moments = descent.step(self._plain_rule, g, s.moments, lr, self.betas, eps)
        return replace(s, x=nearest(self.space, descent.plus(s.x, delta)), moments=moments)

    def _after(self, s: ZOSGDState) -> ZOSGDState:
        age = s.age + 1
        renew = self.rule == "svrg" and age % self.period == 0
        return replace(s, age=age, stage="anchor" if renew else "query")

    # ------------------------------------------------------------------ conservative steps

    def ask_compare(self, s: ZOSGDState) -> Batch:
        """Ask about the point and the two ends of the step, on the data of the estimate."""
        move: Any = self._rate(s) * self._drawn(replace(s, stage="query")).combine(s.slopes)  # type: ignore[operator]
        X = namespace(s.x).stack([s.x, s.x - move, s.x + move])
        return Points(nearest(self.space, X), step=s.step, data=self._data(s, 3))

    def tell_compare(self, s: ZOSGDState, batch: Batch, told: Feedback) -> ZOSGDState:
        """Keep the lowest of the three; ties keep the point."""
        f = np.nan_to_num(estimators.usable(told), nan=np.inf)
        best = int(np.argmin(f))
        x = batch.member(best) if best else s.x
        lr = s.lr if self.lr is not None else s.lr * (1.2 if best else 0.7)
        return self._after(replace(s, x=x, lr=lr, level=float(f[best]), step=s.step + 1, stage="query"))

    # ------------------------------------------------------------------ SVRG anchors

    def ask_anchor(self, s: ZOSGDState) -> Batch:
        """Ask for the full coordinate-wise gradient at the point, on every minibatch."""
        d, parts = size(s.x), self.minibatches or 1
        index, scale = estimators.layout("central", d, self._radius(s.x))
        data = None if self.minibatches is None else np.repeat(np.arange(parts), len(index))
        index, scale = np.tile(index, parts), np.tile(scale, parts)
        return self._batch(s, self._drawn(s, d), (s.x,), index=index, scale=scale, data=data)

    def tell_anchor(self, s: ZOSGDState, batch: Batch, told: Feedback) -> ZOSGDState:
        """Remember the point and its gradient."""
        d, parts = size(s.x), self.minibatches or 1
        slopes = estimators.differences("central", estimators.usable(told), self._radius(s.x)).reshape(parts, d)
        mean = np.nan_to_num(slopes).sum(axis=0) / np.maximum(np.isfinite(slopes).sum(axis=0), 1)
        g = self._drawn(s, d).combine(mean / d)
        return replace(s, anchor=copy(s.x), anchor_g=g, stage="query", step=s.step + 1)

    # ------------------------------------------------------------------ reports

    def recommend(self, s: ZOSGDState) -> Any:
        """Return the current point (the best one, while the step size is being fitted)."""
        return copy(s.x if s.best_x is None or self.rule == "conservative" else s.best_x)

    def gauges(self, s: ZOSGDState) -> dict[str, float]:
        """Return the step size and the mean value of the last step."""
        return {"lr": self._rate(s), "level": s.level}
