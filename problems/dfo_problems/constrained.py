"""Problems over convex sets, whose spaces know a linear minimisation oracle.

====================  =======================================================  ====================
function              objective                                                set
====================  =======================================================  ====================
``lasso``             mean square error of a sparse linear model               l1 ball
``stochastic-lasso``  another one, seen on 16 rows of the data at a time       l1 ball
``cox``               negative partial log-likelihood of survival times        l1 ball
``completion``        square error at the known entries of a low-rank matrix   nuclear-norm ball
``perturbation``      log-probability of the true digit, over 100 images that  linf ball
                      one perturbation is added to
``simplex``           convex quadratic, sparse minimiser                       simplex
``birkhoff``          convex quadratic, minimiser a mixture of 3 orderings     doubly stochastic
``spectrahedron``     convex quadratic, minimiser of rank 2                    spectrahedron
====================  =======================================================  ====================

Minimisers are built in: the data of the lasso and the slopes of the quadratics are made so that the optimality
conditions hold at a chosen point. That of the Cox model is computed when the problem is built, to a certified
gap of 3e-10; that of the perturbation is not known. ``measure`` is infinite beside the set.

References: Sahu, Zaheer and Kar 2019, arXiv:1810.03233 (lasso, Cox regression, universal perturbations); Cox 1972,
"Regression models and life-tables"; Moosavi-Dezfooli et al. 2017, arXiv:1610.08401 (universal perturbations).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, to_numpy
from dfo.oracles.minibatch import Minibatch
from dfo.protocols import Problem
from dfo.random import Key, choice, normal, permutation, uniform
from dfo.sets import Birkhoff, ConvexSet, L1Ball, LInfBall, NuclearBall, Simplex, Spectrahedron
from dfo_problems.digits import load_digits
from dfo_problems.pack import Cell, Pack

__all__ = ["CONVEX_SETS"]


@dataclass(frozen=True, eq=False)
class Inside:
    """The value of a point of a set; infinite beside it."""

    space: Any
    fun: Callable[[Any], Any]

    def __call__(self, x: Any) -> float:
        """Return the merit of one ``(d,)`` point."""
        return float(self.fun(x[None])[0]) if self.space.contains(x) else math.inf


# ---------------------------------------------------------------------- sparse regression


@dataclass(frozen=True, eq=False)
class Lasso:
    """``sum_i (a_i x - b_i)^2 / 2n`` over the rows of some data."""

    A: Floats  # (n, d)
    b: Floats  # (n,)

    def on(self, X: Any, rows: Any) -> Floats:
        """Return ``(p,)`` values of ``(p, d)`` points on some rows."""
        points, rows = np.asarray(to_numpy(X), dtype=float), np.asarray(to_numpy(rows))
        return np.asarray(0.5 * ((points @ self.A[rows].T - self.b[rows]) ** 2).mean(axis=1))

    def __call__(self, X: Any) -> Floats:
        """Return ``(p,)`` values on all rows."""
        return self.on(X, np.arange(len(self.b)))


def _sparse(key: Key, d: int, count: int) -> Floats:
    """Return a vector with ``count`` entries between 1/2 and 1 in size, scaled to an l1 length of 1."""
    x = np.zeros(d)
    x[choice(key.child("where"), d, count)] = 0.5 + 0.5 * uniform(key.child("size"), (count,))
    return np.asarray(np.where(uniform(key.child("sign"), (d,)) < 0.5, -1.0, 1.0) * x / x.sum())


def _lasso(d: int, key: Key) -> tuple[ConvexSet, Any, Floats, float]:
    """Return set, objective, minimiser and minimum: the residual's slope is -0.1 times a subgradient of |x|_1."""
    n, x = 2 * d, _sparse(key, d, max(2, d // 10))
    A = normal(key.child("data"), (n, d))
    slope = np.where(x != 0.0, np.sign(x), 1.8 * uniform(key.child("slope"), (d,)) - 0.9)
    rest = normal(key.child("noise"), (n,))
    rest -= A @ np.linalg.lstsq(A, rest, rcond=None)[0]  # noise that no x explains
    error = A @ np.linalg.solve(A.T @ A, 0.1 * n * slope) + 0.1 * rest
    f = Lasso(A, A @ x + error)
    return L1Ball(d), f, x, 0.5 * float((error**2).mean())


@dataclass(frozen=True, eq=False)
class Cox:
    """Negative partial log-likelihood per subject; subjects come in falling order of their times."""

    Z: Floats  # (n, d) covariates
    died: Floats  # (n,) 1 where the end was seen, 0 where it was censored

    def __call__(self, X: Any) -> Floats:
        """Return ``(p,)`` values."""
        score = np.asarray(to_numpy(X), dtype=float) @ self.Z.T  # (p, n)
        at_risk = np.logaddexp.accumulate(score, axis=1)
        return np.asarray(((at_risk - score) * self.died).mean(axis=1))

    def gradient(self, x: Floats) -> Floats:
        """Return the ``(d,)`` slope at one point."""
        score = self.Z @ x
        at_risk = np.logaddexp.accumulate(score)
        later = np.logaddexp.accumulate(np.where(self.died > 0, -at_risk, -np.inf)[::-1])[::-1]
        return np.asarray((np.exp(score + later) - self.died) @ self.Z / len(score))


def _cox(d: int, key: Key) -> tuple[ConvexSet, Any, Floats, float]:
    """Return set, objective, minimiser and minimum; the ball is half as wide as the true coefficients."""
    n, true = 2 * d, 4.0 * _sparse(key, d, max(2, d // 10))
    Z = normal(key.child("covariates"), (n, d))
    death = -np.log1p(-uniform(key.child("death"), (n,))) * np.exp(-Z @ true)
    leaves = -np.log1p(-uniform(key.child("censored"), (n,))) * 2.0 * np.median(death)
    order = np.argsort(-np.minimum(death, leaves), kind="stable")
    f, space = Cox(Z[order], (death <= leaves)[order].astype(float)), L1Ball(d, 2.0)
    x = _minimised(f, f.gradient, space, 3e-10)
    return space, f, x, float(f(x[None])[0])


def _minimised(f: Any, gradient: Any, space: Any, gap: float, most: int = 20_000) -> Floats:
    """Return a minimiser by accelerated projected gradients, to a Frank-Wolfe gap, with restarts."""
    x = y = space.center
    momentum, rate = 1.0, 1.0
    for _ in range(most):
        g, here = gradient(y), float(f(y[None])[0])
        while True:
            new = space.project(y - rate * g)
            step = new - y
            if float(f(new[None])[0]) <= here + g @ step + step @ step / (2 * rate) + 1e-13 * (1.0 + abs(here)):
                break
            rate /= 2.0
        after = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        if (y - new) @ (new - x) > 0.0:  # against the movement: forget the momentum
            after = momentum = 1.0
        y, x, momentum = new + (momentum - 1.0) / after * (new - x), new, after
        slope = gradient(x)
        if slope @ x - float(space.support(slope)) <= gap:
            break
    return np.asarray(x)


# ---------------------------------------------------------------------- matrices


@dataclass(frozen=True, eq=False)
class Known:
    """Half the mean square error at the known entries of a matrix."""

    known: Any  # (k,) indices
    entries: Floats  # (k,)

    def __call__(self, X: Any) -> Floats:
        """Return ``(p,)`` values."""
        points = np.asarray(to_numpy(X), dtype=float)
        return np.asarray(0.5 * ((points[:, self.known] - self.entries) ** 2).mean(axis=1))


def _completion(d: int, key: Key) -> tuple[ConvexSet, Any, Floats, float]:
    """Return set, objective, minimiser and minimum: a matrix of rank 2 of which 60 % is known."""
    side = math.isqrt(d)
    M = normal(key.child("left"), (side, 2)) @ normal(key.child("right"), (2, side)) / math.sqrt(2.0)
    radius = float(np.linalg.svd(M, compute_uv=False).sum())
    known = np.sort(choice(key.child("known"), d, round(0.6 * d)))
    return NuclearBall((side, side), radius), Known(known, M.reshape(-1)[known]), M.reshape(-1), 0.0


@dataclass(frozen=True, eq=False)
class Tilted:
    """``sum_i h_i (x_i - x*_i)^2 / 2 + <g, x - x*>``, lowest at ``x*`` over a set where ``<g, .>`` is."""

    x_opt: Floats
    h: Floats
    g: Floats

    def __call__(self, X: Any) -> Floats:
        """Return ``(p,)`` values."""
        Z = np.asarray(to_numpy(X), dtype=float) - self.x_opt
        return np.asarray(0.5 * (Z * Z) @ self.h + Z @ self.g)


def _widths(key: Key, d: int) -> Floats:
    return 10.0 ** uniform(key.child("curvature"), (d,))  # conditions of 10


def _simplex(d: int, key: Key) -> tuple[ConvexSet, Any, Floats, float]:
    x = np.abs(_sparse(key, d, max(2, d // 8)))
    g = 1.0 + 0.2 * np.where(x > 0.0, 0.0, uniform(key.child("slope"), (d,)))
    return Simplex(d), Tilted(x, _widths(key, d), g), x, 0.0


def _birkhoff(d: int, key: Key) -> tuple[ConvexSet, Any, Floats, float]:
    side = math.isqrt(d)
    X = np.zeros((side, side))
    for i, share in enumerate((0.5, 0.3, 0.2)):
        X[np.arange(side), permutation(key.child(i), side)] += share
    potential = normal(key.child("potential"), (2, side))
    away = 0.2 * np.where(X > 0.0, 0.0, uniform(key.child("slope"), (side, side)))
    g = potential[0][:, None] + potential[1][None, :] + away
    return Birkhoff(side), Tilted(X.reshape(-1), _widths(key, d), g.reshape(-1)), X.reshape(-1), 0.0


def _spectrahedron(d: int, key: Key) -> tuple[ConvexSet, Any, Floats, float]:
    side = math.isqrt(d)
    Q = np.linalg.qr(normal(key.child("basis"), (side, side)))[0]
    values = np.zeros(side)
    values[:2] = 0.7, 0.3
    slopes = np.concatenate([np.zeros(2), 0.2 * uniform(key.child("slope"), (side - 2,))])
    X, G = (Q * values) @ Q.T, (Q * slopes) @ Q.T
    return Spectrahedron(side), Tilted(X.reshape(-1), _widths(key, d), G.reshape(-1)), X.reshape(-1), 0.0


# ---------------------------------------------------------------------- universal perturbation


@lru_cache(maxsize=1)
def _classifier(hidden: int = 32, steps: int = 200) -> tuple[Floats, Floats]:
    """Return the weights of a 64-32-10 network of the digits, trained by Adam on all training images at once."""
    P, y, _, _ = load_digits()
    key = Key(0, ("classifier",))
    W = [normal(key.child(0), (65, hidden)) / 8.0, normal(key.child(1), (hidden + 1, 10)) / math.sqrt(hidden)]
    first, second = [np.zeros_like(w) for w in W], [np.zeros_like(w) for w in W]
    inputs, target = np.c_[P, np.ones(len(P))], np.eye(10)[y]
    for t in range(1, steps + 1):
        h = np.c_[np.tanh(inputs @ W[0]), np.ones(len(P))]
        error = (np.exp(_log_softmax(h @ W[1])) - target) / len(P)
        back = (error @ W[1][:-1].T) * (1.0 - h[:, :-1] ** 2)
        for i, g in enumerate((inputs.T @ back, h.T @ error)):
            first[i] += 0.1 * (g - first[i])
            second[i] += 0.01 * (g * g - second[i])
            scale = np.sqrt(second[i] / (1.0 - 0.99**t)) + 1e-8
            W[i] = W[i] - 0.02 * first[i] / (1.0 - 0.9**t) / scale
    return W[0], W[1]


def _log_softmax(z: Floats) -> Floats:
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Mean log-probability of the true digit of 100 test images to which one pattern is added.

    The pattern is ``side x side``, repeated or averaged to the 8 x 8 pixels; its unit is the standard deviation of
    a pixel.
    """

    side: int
    images: Floats  # (100, 64)
    labels: Any

    def __call__(self, X: Any) -> Floats:
        """Return ``(p,)`` values; 0 is certainty, ``log 0.1`` guessing."""
        return np.array([self._one(x) for x in np.asarray(to_numpy(X), dtype=float)])

    def scores(self, x: Floats) -> Floats:
        """Return ``(100, 10)`` log-probabilities under one pattern."""
        pattern, k = x.reshape(self.side, self.side), max(1, self.side // 8)
        pattern = pattern.reshape(self.side // k, k, self.side // k, k).mean(axis=(1, 3))
        pattern = np.kron(pattern, np.ones((8 // len(pattern), 8 // len(pattern))))
        W, V = _classifier()
        h = np.tanh((self.images + pattern.reshape(-1)) @ W[:-1] + W[-1])
        return _log_softmax(h @ V[:-1] + V[-1])

    def _one(self, x: Floats) -> float:
        return float(self.scores(x)[np.arange(len(self.labels)), self.labels].mean())


def _perturbation(d: int, key: Key) -> tuple[ConvexSet, Any, None, None]:
    _, _, images, labels = load_digits()
    rows = np.sort(choice(key.child("images"), len(labels), 100))
    return LInfBall(d, 0.5), Perturbed(math.isqrt(d), images[rows], labels[rows]), None, None


# ---------------------------------------------------------------------- the pack

MAKERS: dict[str, Callable[[int, Key], Any]] = {
    "lasso": _lasso,
    "stochastic-lasso": _lasso,
    "cox": _cox,
    "completion": _completion,
    "perturbation": _perturbation,
    "simplex": _simplex,
    "birkhoff": _birkhoff,
    "spectrahedron": _spectrahedron,
}


@lru_cache(maxsize=64)
def _made(function: str, d: int, instance: int) -> Any:
    return MAKERS[function](d, Key(instance, ("convex", function)))


def _build(cell: Cell) -> Problem:
    space, f, x_opt, f_opt = _made(cell.function, cell.dim or 0, cell.instance or 0)
    noisy = cell.function.startswith("stochastic")
    fun: Any = Minibatch(partial(_on, f), len(f.b), 16) if noisy else f
    start: Array = space.center
    return Problem(
        name=cell.name,
        space=space,
        fun=fun,
        x0=start,
        f_opt=f_opt,
        x_opt=x_opt,
        vectorized=not noisy,
        measure=Inside(space, f),
        noisy=noisy,
        group=CONVEX_SETS.group(cell.function),
        tags=frozenset({"convex-set"} | ({"nonconvex"} if cell.function == "perturbation" else {"convex"})),
        reference="Sahu, Zaheer and Kar 2019, arXiv:1810.03233",
    )


def _on(f: Lasso, X: Any, rows: Any) -> Floats:
    return f.on(X, rows)


CONVEX_SETS = Pack(
    name="constrained",
    summary="objectives over convex sets: sparse regression, low-rank matrices, orderings, a universal perturbation",
    groups={
        "sparse": ("lasso", "stochastic-lasso", "cox", "simplex"),
        "matrix": ("completion", "birkhoff", "spectrahedron"),
        "attack": ("perturbation",),
    },
    build=_build,
    dims=(16, 64, 256),
    instances=(1, 2, 3),
    max_instance=2**31 - 1,
)
"""The pack of problems over convex sets; dimensions are squares, because some points are matrices."""
