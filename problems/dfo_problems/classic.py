"""Sixteen textbook functions in any dimension from 2, vectorised over points, in numpy and torch.

Every function takes ``(n, d)`` points (or one ``(d,)`` point), of numpy or of torch on any device,
and returns ``(n,)`` values. Boxes are those of the textbooks, but a box whose middle would be the
minimiser ends at about 0.8 of its upper bound: a method that tries the middle first shall gain
nothing by it. Starts are the same low-discrepancy point in every box: no two coordinates are equal.
"""

# mypy: disable-error-code="no-any-return"
# what an array namespace returns has no type
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace
from dfo.protocols import Problem
from dfo.spaces import Box
from dfo_problems.pack import Cell, Pack

__all__ = [
    "CLASSIC",
    "FUNCTIONS",
    "Classic",
    "ackley",
    "cigar",
    "different_powers",
    "discus",
    "dixon_price",
    "ellipsoid",
    "griewank",
    "levy",
    "rastrigin",
    "rosenbrock",
    "rotated_ellipsoid",
    "schwefel",
    "sharp_ridge",
    "sphere",
    "start",
    "styblinski_tang",
    "zakharov",
]

SCHWEFEL_X = 420.96874635998203
"""Root of ``2 tan(sqrt(x)) + sqrt(x) = 0`` at which ``x sin(sqrt(x))`` is largest in [-500, 500]."""
SCHWEFEL_F = 418.98288727243371
"""``x sin(sqrt(x))`` at :data:`SCHWEFEL_X`."""
STYBLINSKI_X = -2.9035340277711771
"""Smallest root of ``4 x^3 - 32 x + 5 = 0``."""
STYBLINSKI_F = -39.166165703771415
"""``(x^4 - 16 x^2 + 5 x) / 2`` at :data:`STYBLINSKI_X`."""


def _opened(X: Array) -> tuple[Any, Array]:
    """Return the array namespace of ``X``, and ``X`` in floating point."""
    if is_torch(X):
        return namespace(X), X
    X = np.asarray(X)
    return np, X if X.dtype.kind == "f" else X.astype(float)


def _scales(X: Array) -> Array:
    """Return ``(d,)`` weights ``10^(6 (i-1)/(d-1))``, i = 1..d."""
    return as_like(10.0 ** np.linspace(0.0, 6.0, X.shape[-1]), X)


def _counts(X: Array) -> Array:
    """Return ``(d,)`` numbers 1..d."""
    return as_like(np.arange(1.0, X.shape[-1] + 1), X)


@lru_cache(maxsize=16)
def cosine_basis(dim: int) -> Floats:
    """Return the ``(d, d)`` orthogonal matrix of the discrete cosine transform, DCT-II.

    ``Q_1j = sqrt(1/d)``, ``Q_ij = sqrt(2/d) cos(pi (2j-1)(i-1) / (2d))``: dense, closed in form and equal
    on every machine, which a random rotation is not.

    Source: Ahmed, Natarajan and Rao (1974), IEEE Trans. Computers C-23(1).
    """
    i, j = np.arange(dim)[:, None], np.arange(dim)[None, :]
    Q = math.sqrt(2.0 / dim) * np.cos(math.pi * (2 * j + 1) * i / (2 * dim))
    Q[0] = math.sqrt(1.0 / dim)
    return Q


def sphere(X: Array) -> Array:
    """``f(x) = sum_i x_i^2``.

    Source: De Jong (1975), An Analysis of the Behavior of a Class of Genetic Adaptive Systems, F1.
    """
    xp, X = _opened(X)
    return xp.sum(X * X, axis=-1)


def ellipsoid(X: Array) -> Array:
    """``f(x) = sum_i 10^(6 (i-1)/(d-1)) x_i^2``: separable, condition number 10^6.

    Source: Hansen and Ostermeier (2001), Evolutionary Computation 9(2).
    """
    xp, X = _opened(X)
    return xp.sum(_scales(X) * X * X, axis=-1)


def rotated_ellipsoid(X: Array) -> Array:
    """``f(x) = ellipsoid(Q x)`` with the orthogonal matrix ``Q`` of :func:`cosine_basis`.

    Source: Hansen and Ostermeier (2001), Evolutionary Computation 9(2); the rotation is ours.
    """
    _, X = _opened(X)
    return ellipsoid(X @ as_like(cosine_basis(X.shape[-1]).T, X))  # rows of X are points: (Q x)^T = x^T Q^T


def cigar(X: Array) -> Array:
    """``f(x) = x_1^2 + 10^6 sum_{i>1} x_i^2``: one long axis.

    Source: Hansen and Ostermeier (2001), Evolutionary Computation 9(2).
    """
    xp, X = _opened(X)
    return X[..., 0] ** 2 + 1e6 * xp.sum(X[..., 1:] ** 2, axis=-1)


def discus(X: Array) -> Array:
    """``f(x) = 10^6 x_1^2 + sum_{i>1} x_i^2``: one short axis.

    Source: Hansen and Ostermeier (2001), Evolutionary Computation 9(2) (there: tablet).
    """
    xp, X = _opened(X)
    return 1e6 * X[..., 0] ** 2 + xp.sum(X[..., 1:] ** 2, axis=-1)


def different_powers(X: Array) -> Array:
    """``f(x) = sum_i |x_i|^(i+1)``: flat and flatter towards the minimum.

    Source: Molga and Smutnicki (2005), Test functions for optimization needs, 2.8.
    """
    xp, X = _opened(X)
    return xp.sum(xp.abs(X) ** (_counts(X) + 1.0), axis=-1)


def sharp_ridge(X: Array) -> Array:
    """``f(x) = x_1^2 + 100 sqrt(sum_{i>1} x_i^2)``: not differentiable along the ridge that leads down.

    Source: Hansen, Finck, Ros and Auger (2009), INRIA RR-6829, f13 without its rotations.
    """
    xp, X = _opened(X)
    return X[..., 0] ** 2 + 100.0 * xp.sqrt(xp.sum(X[..., 1:] ** 2, axis=-1))


def rosenbrock(X: Array) -> Array:
    """``f(x) = sum_{i<d} 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2``: a bent valley, minimum at (1, ..., 1).

    From d = 4 there is a second, local minimum near (-1, 1, ..., 1).

    Source: Rosenbrock (1960), The Computer Journal 3(3); in d variables, Shang and Qiu (2006).
    """
    xp, X = _opened(X)
    here, ahead = X[..., :-1], X[..., 1:]
    return xp.sum(100.0 * (ahead - here**2) ** 2 + (1.0 - here) ** 2, axis=-1)


def dixon_price(X: Array) -> Array:
    """``f(x) = (x_1 - 1)^2 + sum_{i>1} i (2 x_i^2 - x_{i-1})^2``.

    Minimum 0 at ``x_i = 2^(2^(1-i) - 1)``; the sign of ``x_d`` does not matter.

    Source: Dixon and Price (1989), J. Optimization Theory and Applications 60(2).
    """
    xp, X = _opened(X)
    chain = _counts(X)[1:] * (2.0 * X[..., 1:] ** 2 - X[..., :-1]) ** 2
    return (X[..., 0] - 1.0) ** 2 + xp.sum(chain, axis=-1)


def zakharov(X: Array) -> Array:
    """``f(x) = s + t^2 + t^4`` with ``s = sum_i x_i^2`` and ``t = sum_i i x_i / 2``.

    Source: Jamil and Yang (2013), Int. J. Math. Modelling and Numerical Optimisation 4(2), 173.
    """
    xp, X = _opened(X)
    t = xp.sum(0.5 * _counts(X) * X, axis=-1)
    return xp.sum(X * X, axis=-1) + t**2 + t**4


def rastrigin(X: Array) -> Array:
    """``f(x) = sum_i x_i^2 + 10 (1 - cos(2 pi x_i))``: about 10^d regular minima.

    Source: Rastrigin (1974), Systems of Extremal Control; in d variables, Muehlenbein, Schomisch and
    Born (1991), Parallel Computing 17.
    """
    xp, X = _opened(X)
    return xp.sum(X * X + 10.0 * (1.0 - xp.cos(2.0 * math.pi * X)), axis=-1)


def ackley(X: Array) -> Array:
    """``f(x) = 20 - 20 exp(-0.2 sqrt(mean x_i^2)) + e - exp(mean cos(2 pi x_i))``: a funnel in a flat land.

    Source: Ackley (1987), A Connectionist Machine for Genetic Hillclimbing; in d variables, Baeck (1996).
    """
    xp, X = _opened(X)
    bowl = -20.0 * xp.exp(-0.2 * xp.sqrt(xp.mean(X * X, axis=-1)))
    ripple = -xp.exp(xp.mean(xp.cos(2.0 * math.pi * X), axis=-1))
    return (bowl + 20.0) + (ripple + math.e)


def griewank(X: Array) -> Array:
    """``f(x) = sum_i x_i^2 / 4000 - prod_i cos(x_i / sqrt(i)) + 1``: easier the more variables there are.

    Source: Griewank (1981), J. Optimization Theory and Applications 34(1).
    """
    xp, X = _opened(X)
    product = xp.prod(xp.cos(X / xp.sqrt(_counts(X))), axis=-1)
    return xp.sum(X * X, axis=-1) / 4000.0 - product + 1.0


def levy(X: Array) -> Array:
    """``f(x) = sin^2(pi w_1) + sum_{i<d} u_i^2 (1 + 10 sin^2(pi w_i + 1)) + u_d^2 (1 + sin^2(2 pi w_d))``.

    Here ``u_i = (x_i - 1)/4`` and ``w_i = 1 + u_i``; minimum 0 at (1, ..., 1).

    Source: Levy and Montalvo (1985), SIAM J. Scientific and Statistical Computing 6(1); in this form,
    Laguna and Marti (2005), J. Global Optimization 33(2).
    """
    xp, X = _opened(X)
    u = (X - 1.0) / 4.0
    w = 1.0 + u
    first = xp.sin(math.pi * w[..., 0]) ** 2
    middle = xp.sum(u[..., :-1] ** 2 * (1.0 + 10.0 * xp.sin(math.pi * w[..., :-1] + 1.0) ** 2), axis=-1)
    last = u[..., -1] ** 2 * (1.0 + xp.sin(2.0 * math.pi * w[..., -1]) ** 2)
    return first + middle + last


def schwefel(X: Array) -> Array:
    """``f(x) = sum_i c - x_i sin(sqrt|x_i|)``, ``c = 418.98288727...``: the best basin lies in a corner.

    The next best basin of a coordinate is at -302.5, far away. Below 0 only outside the box.

    Source: Schwefel (1981), Numerical Optimization of Computer Models, problem 2.26.
    """
    xp, X = _opened(X)
    return xp.sum(SCHWEFEL_F - X * xp.sin(xp.sqrt(xp.abs(X))), axis=-1)


def styblinski_tang(X: Array) -> Array:
    """``f(x) = sum_i (x_i^4 - 16 x_i^2 + 5 x_i) / 2``: two basins a coordinate, minimum -39.166 d.

    Source: Styblinski and Tang (1990), Neural Networks 3(4).
    """
    xp, X = _opened(X)
    return 0.5 * xp.sum(X**4 - 16.0 * X**2 + 5.0 * X, axis=-1)


@dataclass(frozen=True)
class Classic:
    """A function with its box and its minimiser.

    Args:
        fun: takes ``(n, d)`` points to ``(n,)`` values.
        lower: lower bound of every coordinate.
        upper: upper bound of every coordinate.
        at: coordinate of the minimiser, equal in all coordinates, or a function of ``d`` to ``(d,)``.
        level: lowest value per coordinate: ``f_opt = level * d``.
    """

    fun: Callable[[Array], Array]
    lower: float
    upper: float
    at: float | Callable[[int], Floats] = 0.0
    level: float = 0.0

    def x_opt(self, dim: int) -> Floats:
        """Return the ``(d,)`` minimiser."""
        return self.at(dim) if callable(self.at) else np.full(dim, self.at)

    @property
    def source(self) -> str:
        """Where the function comes from, out of its docstring."""
        return " ".join((self.fun.__doc__ or "").partition("Source: ")[2].split())


def _dixon_price_minimiser(dim: int) -> Floats:
    x: Floats = 2.0 ** (2.0 ** (1.0 - np.arange(1.0, dim + 1)) - 1.0)
    return x


FUNCTIONS: dict[str, Classic] = {
    "sphere": Classic(sphere, -5.12, 4.0),
    "ellipsoid": Classic(ellipsoid, -5.0, 4.0),
    "cigar": Classic(cigar, -5.0, 4.0),
    "discus": Classic(discus, -5.0, 4.0),
    "different-powers": Classic(different_powers, -1.0, 0.8),
    "rotated-ellipsoid": Classic(rotated_ellipsoid, -5.0, 4.0),
    "sharp-ridge": Classic(sharp_ridge, -5.0, 4.0),
    "rosenbrock": Classic(rosenbrock, -5.0, 10.0, at=1.0),
    "dixon-price": Classic(dixon_price, -10.0, 10.0, at=_dixon_price_minimiser),
    "zakharov": Classic(zakharov, -5.0, 10.0),
    "rastrigin": Classic(rastrigin, -5.12, 4.0),
    "ackley": Classic(ackley, -32.768, 26.0),
    "griewank": Classic(griewank, -600.0, 480.0),
    "levy": Classic(levy, -10.0, 10.0, at=1.0),
    "schwefel": Classic(schwefel, -500.0, 500.0, at=SCHWEFEL_X),
    "styblinski-tang": Classic(styblinski_tang, -5.0, 5.0, at=STYBLINSKI_X, level=STYBLINSKI_F),
}
"""The functions by the label that they bear in names."""


def start(box: Box) -> Floats:
    """Return the ``(d,)`` start: ``0.1 + 0.8 frac(i g)`` of the way across, g the golden ratio, i = 1..d."""
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    unit = 0.1 + 0.8 * (np.arange(1, box.dim + 1) * golden % 1.0)
    return box.lower + (box.upper - box.lower) * unit


def _build(cell: Cell) -> Problem:
    classic, dim = FUNCTIONS[cell.function], cell.dim or 0
    box = Box(np.full(dim, classic.lower), np.full(dim, classic.upper))
    return Problem(
        name=cell.name,
        space=box,
        fun=classic.fun,
        x0=start(box),
        f_opt=classic.level * dim,
        x_opt=classic.x_opt(dim),
        vectorized=True,
        group=CLASSIC.group(cell.function),
        tags=frozenset({"torch"}),
        reference=classic.source,
    )


CLASSIC = Pack(
    name="classic",
    summary="16 textbook functions with known minima in any dimension from 2; numpy and torch",
    groups={
        "separable": ("sphere", "ellipsoid", "cigar", "discus", "different-powers"),
        "valley": ("rotated-ellipsoid", "sharp-ridge", "rosenbrock", "dixon-price", "zakharov"),
        "multimodal": ("rastrigin", "ackley", "griewank", "levy", "schwefel", "styblinski-tang"),
    },
    build=_build,
    dims=(2, 5, 10, 20, 40),
    max_dim=10_000,
)
"""The pack of the classic functions."""
