"""Update rules: from a gradient estimate to a step, as pure functions on arrays or named blocks.

References: Kingma and Ba 2015 (Adam); Reddi, Kale and Kumar 2018 (AMSGrad); Chen et al. 2019, ZO-AdaMM,
arXiv:1910.06513; Toklu, Liskowski and Srivastava 2020, arXiv:2008.02387 (ClipUp). In a box the Mahalanobis
projection that ZO-AdaMM needs equals clipping, because its metric is diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from dfo.arrays import Point, is_blocks, namespace, zeros

__all__ = ["MAX_SPEED", "RULES", "Moments", "Rule", "averaged", "each", "first_moments", "norm", "plus", "step"]

Rule = Literal["sgd", "momentum", "sign", "adam", "amsgrad", "clipup"]
RULES: tuple[Rule, ...] = ("sgd", "momentum", "sign", "adam", "amsgrad", "clipup")

MAX_SPEED = 2.0
"""ClipUp's longest step as a multiple of its step size (Toklu et al. 2020, section 3)."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What a rule remembers: running means of the gradient and of its square, and the largest mean square.

    ClipUp's ``m`` is its velocity.
    """

    m: Any
    v: Any
    peak: Any
    count: int


def first_moments(rule: Rule, x: Point) -> Moments:
    """Return the memory before the first step; only what the rule needs is allocated."""
    zero: Any = None
    if rule in ("momentum", "adam", "amsgrad", "clipup"):
        zero = zeros(x)
    second = zero if rule in ("adam", "amsgrad") else None
    return Moments(zero, second, second if rule == "amsgrad" else None, 0)


def step(
    rule: Rule, g: Point, memory: Moments, lr: float, betas: tuple[float, float], eps: float
) -> tuple[Any, Moments]:
    """Return the step to add to the point, and the memory after it.

    Args:
        rule: ``sgd``: ``-lr g``; ``momentum``: ``-lr m`` with ``m = b m + (1 - b) g``; ``sign``: ``-lr sign(g)``;
            ``adam``, ``amsgrad``: ``-lr m_hat / (sqrt(v_hat) + eps)``; ``clipup``: the velocity
            ``v = b v - lr g / |g|``, shortened to the length ``2 lr`` where it is longer.
        g: gradient estimate, an array or named blocks.
        memory: of the same rule.
        lr: step size.
        betas: decay of the first and second moment.
        eps: added to the root mean square; the square of a zeroth-order estimate is about d times that of the
            gradient, so scale it with sqrt(d).
    """
    if rule == "clipup":
        return _clipped(g, memory, lr, betas[0])
    if is_blocks(g):
        return _blockwise(rule, g, memory, lr, betas, eps)
    count, (b1, b2) = memory.count + 1, betas
    grad: Any = g
    if rule == "sgd":
        return -lr * grad, replace(memory, count=count)
    if rule == "sign":
        return -lr * namespace(g).sign(g), replace(memory, count=count)
    m = b1 * memory.m + (1 - b1) * grad
    if rule == "momentum":
        return -lr * m, replace(memory, m=m, count=count)
    xp = namespace(g)
    v = b2 * memory.v + (1 - b2) * grad * grad
    m_hat, v_hat = m / (1 - b1**count), v / (1 - b2**count)
    peak = None
    if rule == "amsgrad":
        peak = xp.maximum(memory.peak, v_hat)
        v_hat = peak
    return -lr * m_hat / (xp.sqrt(v_hat) + eps), Moments(m, v, peak, count)


def _blockwise(
    rule: Rule, g: Any, memory: Moments, lr: float, betas: tuple[float, float], eps: float
) -> tuple[Any, Moments]:
    steps: dict[str, Any] = {}
    after: dict[str, Moments] = {}
    for name, block in g.items():
        m, v, peak = (None if part is None else part[name] for part in (memory.m, memory.v, memory.peak))
        steps[name], after[name] = step(rule, block, Moments(m, v, peak, memory.count), lr, betas, eps)
    m, v, peak = (
        None if part is None else {name: getattr(moments, field) for name, moments in after.items()}
        for field, part in (("m", memory.m), ("v", memory.v), ("peak", memory.peak))
    )
    return steps, Moments(m, v, peak, memory.count + 1)


def _clipped(g: Any, memory: Moments, lr: float, b: float) -> tuple[Any, Moments]:
    """Return ClipUp's step: normalised gradients, heavy-ball momentum, a limit on the speed (their algorithm 1)."""
    length = norm(g)
    push = -lr / length if length > 0.0 else 0.0
    v = each(lambda m, part: b * m + push * part, memory.m, g)
    speed = norm(v)
    if speed > MAX_SPEED * lr:
        v = each(lambda part: part * (MAX_SPEED * lr / speed), v)
    return v, replace(memory, m=v, count=memory.count + 1)


def norm(x: Any) -> float:
    """Return the euclidean length of an array, or of named blocks taken together."""
    if is_blocks(x):
        return math.hypot(*(norm(block) for block in x.values()))
    return float(namespace(x).linalg.norm(x.reshape(-1)))


def plus(x: Any, delta: Any) -> Any:
    """Return the sum of two points; named blocks are moved in place."""
    if not is_blocks(x):
        return x + delta
    for name, block in x.items():
        block += delta[name]
    return x


def averaged(mean: Any, x: Any, t: int, eta: float = 3.0) -> Any:
    """Return the average of the points of ``t`` steps in which late ones count more; blocks are moved in place.

    Polynomial-decay averaging: the weight of ``x`` is ``(eta + 1) / (t + eta)`` (Shamir and Zhang 2013,
    arXiv:1212.1824, section 4).

    Args:
        mean: the average before; None to keep none.
        x: the point after step ``t``.
        t: steps, from 1.
        eta: 0 averages over all steps alike; 3 is what they recommend.
    """
    if mean is None:
        return None
    share = (eta + 1.0) / (t + eta)
    return plus(mean, each(lambda old, new: share * (new - old), mean, x))


def each(function: Callable[..., Any], *points: Any) -> Any:
    """Return ``function`` of the points, block by block where they are in blocks."""
    if not is_blocks(points[0]):
        return function(*points)
    return {name: function(*(point[name] for point in points)) for name in points[0]}
