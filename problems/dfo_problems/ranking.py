"""Problems that only rank: textbook functions behind a judge who compares at most eight points.

========================  ========================================================================================
``exact-FUNCTION``        the order by value
``top3-FUNCTION``         of that order only the best three; the others share the last place
``noisy-FUNCTION``        the order after normal noise, of a twentieth of the value at the start, on every value
``human-FUNCTION``        a person (:class:`dfo.HumanNoise`): errors and ties as measured, one question in ten
                          skipped; from the start to the minimum it is eight points, the width of the raters' scale
``free-FUNCTION``         the order by value of as many points as the method likes to show
========================  ========================================================================================

``quadratic`` is ``|x|^2``, ``rosenbrock`` Rosenbrock's function; the instance draws the start from N(0, I) and names
nothing else: the judge's errors come with the seed of the run. The *merit* is the value of what a method recommends
after each ranking; a budget counts the points shown.

References: Tang, Rybin and Chang 2024, arXiv:2303.03751 (both functions, d = 100, start N(0, I)).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, to_numpy
from dfo.oracles.rank import HumanNoise, RankOracle
from dfo.protocols import Problem
from dfo.random import Key, normal
from dfo.spaces import Free
from dfo_problems.pack import Cell, Pack

__all__ = ["RANKING", "quadratic", "rosenbrock"]

SKIP = 0.1
"""Share of the questions that a person does not answer."""

NOISE = 0.05
"""Standard deviation of the noise, as a share of the value at the start."""

SCALE = 8.0
"""Points of the raters' scale between the value at the start and the minimum."""


def quadratic(X: Array) -> Any:
    """Return ``(n,)`` values of ``|x|^2``."""
    return (X * X).sum(axis=-1)


def rosenbrock(X: Array) -> Any:
    """Return ``(n,)`` values of ``sum_j 100 (x_{j+1} - x_j^2)^2 + (1 - x_j)^2``."""
    return (100.0 * (X[:, 1:] - X[:, :-1] ** 2) ** 2 + (1.0 - X[:, :-1]) ** 2).sum(axis=-1)


FUNCTIONS: dict[str, tuple[Callable[[Array], Any], float]] = {
    "quadratic": (quadratic, 0.0),
    "rosenbrock": (rosenbrock, 1.0),
}
"""Function, and the coordinate of its minimum; its value there is 0."""


def _value(f: Callable[[Array], Any], x: Any) -> float:
    return float(f(np.asarray(to_numpy(x), dtype=float)[None])[0])


def _judge(kind: str, f: Callable[[Array], Any], start: float) -> RankOracle:
    if kind == "noisy":
        return RankOracle.of(f, vectorized=True, noise=NOISE * start)
    if kind == "human":
        return RankOracle.of(f, vectorized=True, noise=HumanNoise(start / SCALE), skip=SKIP)
    return RankOracle.of(f, vectorized=True, top=3 if kind == "top3" else None, max_batch=None if kind == "free" else 8)


def _build(cell: Cell) -> Problem:
    kind, _, name = cell.function.partition("-")
    (f, at), d = FUNCTIONS[name], cell.dim or 2
    x0: Floats = normal(Key(cell.instance or 1, ("ranking", name)), (d,))

    measure = partial(_value, f)
    return Problem(
        name=cell.name,
        space=Free(d),
        fun=_judge(kind, f, measure(x0)),
        x0=x0,
        f_opt=0.0,
        x_opt=np.full(d, at),
        measure=measure,
        noisy=kind in ("noisy", "human"),
        group=RANKING.group(cell.function),
        tags=frozenset({"ranking", *({"smooth", "separable", "unimodal"} if name == "quadratic" else {"smooth"})}),
        reference="Tang, Rybin and Chang 2024, arXiv:2303.03751",
    )


KINDS = ("exact", "top3", "noisy", "human", "free")

RANKING = Pack(
    name="ranking",
    summary="functions behind a judge who only ranks: exactly, partly, with noise, as people do",
    groups={kind: tuple(f"{kind}-{name}" for name in FUNCTIONS) for kind in KINDS},
    build=_build,
    dims=(2, 5, 10, 20, 100),
    instances=(1, 2, 3, 4, 5),
    max_dim=10_000,
    max_instance=2**31 - 1,
)
"""The pack of rankings; an instance is a start."""
