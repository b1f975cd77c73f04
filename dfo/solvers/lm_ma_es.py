"""LM-MA-ES: an evolution strategy whose covariance is a product of m rank-one factors; O(m d) for each point.

References: Loshchilov, Glasmachers and Beyer 2017, "Large scale black-box optimization by limited-memory matrix
adaptation", arXiv:1705.06693 (algorithm 1; lines by its numbers); Hansen 2016, arXiv:1604.00772 (weights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace
from dfo.components.sampling import cloud, moments
from dfo.components.shaping import shaped
from dfo.components.strategy import Run, Strategy, bounded_steps
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.random import Key

__all__ = ["LMMAES", "LMMAESState"]

PIECE = 1 << 16
"""Coordinates of a population that are transformed at once, where a library cannot do it in place."""


@dataclass(frozen=True, eq=False)
class LMMAESState:
    """The memory of :class:`LMMAES`, in free coordinates."""

    mean: Array  # (d,)
    sigma: float
    path: Array  # (d,) evolution path of the step size
    M: Array  # (m, d) direction vectors
    used: int  # of them, min(age, m)
    run: Run
    key: Key
    step: int


class _Rates(NamedTuple):
    c_sigma: float
    c_d: Floats  # (m,) how much of each vector a step takes up
    c_c: Floats  # (m,) how fast each vector forgets


@lru_cache(maxsize=256)
def _rates(d: int, n: int, m: int) -> _Rates:
    """Return the strategy parameters (Loshchilov et al. 2017, algorithm 1, line 1), bounded for small d."""
    i = np.arange(m)
    c_d, c_c = 1.0 / (1.5**i * d), n / (4.0**i * d)
    return _Rates(min(2.0 * n / d, 0.5), np.minimum(c_d, 0.5), np.minimum(c_c, 1.0))


@dataclass(frozen=True)
class LMMAES(Strategy):
    """Limited-memory matrix adaptation evolution strategy, for hundreds to millions of correlated variables.

    A normal ``z`` becomes the step ``y``: for each vector, ``y <- (1 - c_d) y + c_d M_i (M_i' y)``. The vectors are
    evolution paths of lengths that grow by four from one to the next. Nothing of the size of a population is
    kept beside it.

    Args:
        population: points per generation; ``4 + floor(3 ln d)`` by default, three times that with noise.
        sigma: initial standard deviation: a fraction of the box between two bounds (0.2 by default), in
            units of x elsewhere (0.5 by default); the defaults shrink above a hundred variables.
        restarts: as in :class:`~dfo.components.strategy.Strategy`.
        xtol: a run has converged when the step size is below this.
        ftol: a run has converged when the values of recent generations differ by less than this.
        space: where to search; filled in by the run.
        noisy: values jitter: a run is not ended because of values, and by default there are no restarts.
        max_population: bound on what restarts double.
        memory: direction vectors, m; ``4 + floor(3 ln d)`` by default.

    Raises:
        InvalidArgument: population below 2, memory below 1, a number that is not positive, unknown restarts.

    Example:
        >>> import dfo, numpy as np
        >>> cigar = lambda x: float(x[0] ** 2 + 1e4 * (x[1:] ** 2).sum())
        >>> dfo.minimize(cigar, np.ones(30), method="lm-ma-es", budget=30_000).fun < 1e-8
        True
    """

    memory: int | None = None

    title: ClassVar[str] = "LM-MA-ES"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None and (self.memory != int(self.memory) or self.memory < 1):
            raise InvalidArgument(f"memory: expected an integer >= 1, got {self.memory!r}.")

    def _begin(self, mean: Array, sigma: float, run: Run, key: Key, step: int) -> LMMAESState:
        xp, d = namespace(mean), int(mean.shape[0])
        M = xp.zeros((self.memory or 4 + int(3 * math.log(d)), d), dtype=mean.dtype, device=mean.device)
        return LMMAESState(mean, bounded_steps(sigma, mean), xp.zeros_like(mean), M, 0, run, key, step)

    def _draw(self, s: LMMAESState, n: int) -> Array:
        """Draw ``m + sigma y`` (lines 5 to 9): all factors at once, as ``a z + sum_i b_i M_i``."""
        points: Any = cloud(namespace(s.mean).zeros_like(s.mean), s.sigma, s.key.child(s.step), n)
        M: Any = s.M[: s.used]
        if s.used:
            a, b = _coefficients(points @ M.T, M @ M.T, _rates(int(s.mean.shape[0]), n, len(s.M)).c_d)
            _transform(points, a, b, M)
        points += s.mean
        return points  # type: ignore[no-any-return]

    def _learn(self, s: LMMAESState, G: Array, told: Feedback) -> LMMAESState:
        d, n = int(s.mean.shape[0]), len(G)
        r, w = _rates(d, n, len(s.M)), shaped("log", told)
        mu_eff = 1.0 / float(w @ w)  # ties share their weights, and it grows
        y, _ = moments(G, s.mean, s.sigma, w)  # (d,) sum_k w_k y_k
        z = _undone(y, s.M[: s.used], r.c_d)  # (d,) sum_k w_k z_k
        path = (1 - r.c_sigma) * s.path + math.sqrt(mu_eff * r.c_sigma * (2 - r.c_sigma)) * z  # line 11
        M: Any = s.M * as_like(1 - r.c_c, z)[:, None]  # line 13
        _transform(M, 1.0, as_like(np.sqrt(mu_eff * r.c_c * (2 - r.c_c)), z)[:, None], z[None])
        pace = 0.5 * r.c_sigma * (float(path @ path) / d - 1)  # line 14
        mean = s.mean + s.sigma * y  # line 10
        sigma = bounded_steps(s.sigma * math.exp(min(pace, 1.0)), mean)
        return replace(s, mean=mean, sigma=sigma, path=path, M=M, used=min(s.used + 1, len(M)))

    def _spread(self, s: LMMAESState) -> Any:
        return s.sigma


def _coefficients(S: Any, gram: Any, c_d: Floats) -> tuple[float, Any]:
    """Return ``a`` and ``b`` (n, m) such that the steps of ``Z`` are ``a Z + b M``, from ``S = Z M'`` and ``M M'``.

    The recursion of lines 6 to 8 in the coordinates of the vectors: ``M_i' y = a z' M_i + sum_j b_j M_j' M_i``.
    """
    a, b = 1.0, namespace(S).zeros_like(S)
    for i in range(S.shape[1]):
        along = a * S[:, i] + b @ gram[:, i]
        c = float(c_d[i])
        b *= 1 - c
        b[:, i] += c * along
        a *= 1 - c
    return a, b


def _transform(points: Any, a: float, b: Any, M: Any) -> None:
    """Turn ``points`` (n, d) into ``a points + b M`` in place, with no second array of its size."""
    if is_torch(points):
        points.addmm_(b, M, beta=a)
        return
    for at in range(0, points.shape[1], PIECE):
        part = points[:, at : at + PIECE]
        part *= a
        part += b @ M[:, at : at + PIECE]


def _undone(y: Any, M: Any, c_d: Floats) -> Any:
    """Return the ``z`` of a step ``y``: the inverse of every factor, by Sherman and Morrison."""
    z, scale = y * 1.0, 1.0
    for i in reversed(range(len(M))):
        c, v = float(c_d[i]), M[i]
        z -= (c * (v @ z) / (1 - c + c * (v @ v))) * v
        scale /= 1 - c
    z *= scale
    return z
