"""Textbook functions under noise of three kinds, with noise that is a function of instance and count.

========================  ====================================================================
``additive-FUNCTION``     ``y = f(x) + 0.1 z``: the noise does not fade towards the minimum
``relative-FUNCTION``     ``y = f_opt + (f(x) - f_opt) exp(0.5 z)``: COCO's Gaussian model
``heavy-FUNCTION``        ``y = f(x) + 0.1 c``: one measurement in thirty is off by more than 2
========================  ====================================================================

``z`` is standard normal, ``c`` is Cauchy: it has no mean, so that averages of measurements do not settle.
``measure`` is the function without the noise.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from dfo.arrays import Array, namespace, to_numpy
from dfo.protocols import Problem
from dfo.random import Key, normal, uniform
from dfo_problems.classic import CLASSIC
from dfo_problems.pack import Cell, Pack

__all__ = ["NOISY_CLASSIC", "Noisy"]

Kind = Literal["additive", "relative", "heavy"]

LEVELS: dict[Kind, float] = {"additive": 0.1, "relative": 0.5, "heavy": 0.1}
"""Standard deviation of the noise, of the logarithm of its factor, or the scale of the Cauchy distribution."""


class Noisy:
    """A function under noise; evaluation number i since the object was made gets noise number i.

    The same calls on a new object give the same values, whether points come one by one or in arrays; the
    same point asked twice gets two values. The count is the object's: copies in several processes draw
    the same noise each.

    Args:
        problem: the problem without noise; vectorised, with known ``f_opt``.
        kind: "additive", "relative" or "heavy".
        key: names the stream of noise.
    """

    def __init__(self, problem: Problem, kind: Kind, key: Key) -> None:
        self.problem, self.kind, self.key = problem, kind, key
        self.calls = 0

    def __call__(self, X: Array) -> Array:
        """Return ``(n,)`` noisy values of ``(n, d)`` points."""
        values = self.problem.fun(X)
        start, self.calls = self.calls, self.calls + len(values)
        if self.kind == "heavy":
            unit: Any = uniform(self.key, tuple(values.shape), like=values, start=start)
            return values + LEVELS["heavy"] * namespace(values).tan(math.pi * (unit - 0.5))  # type: ignore[no-any-return]
        z = normal(self.key, tuple(values.shape), like=values, start=start)
        if self.kind == "additive":
            return values + LEVELS["additive"] * z  # type: ignore[no-any-return]
        floor = self.problem.f_opt
        return floor + (values - floor) * namespace(values).exp(LEVELS["relative"] * z)  # type: ignore[no-any-return]

    def exact(self, x: Any) -> float:
        """Return the value of one ``(d,)`` point without noise; does not count as a call."""
        return float(to_numpy(self.problem.fun(x[None]))[0])


def _build(cell: Cell) -> Problem:
    name, _, function = cell.function.partition("-")
    base = CLASSIC.build(Cell(CLASSIC.name, function, dim=cell.dim))
    fun = Noisy(base, next(kind for kind in LEVELS if kind == name), Key(cell.instance or 0, (cell.function,)))
    return Problem(
        name=cell.name,
        space=base.space,
        fun=fun,
        x0=base.x0,
        f_opt=base.f_opt,
        x_opt=base.x_opt,
        vectorized=True,
        measure=fun.exact,
        noisy=True,
        group=NOISY_CLASSIC.group(cell.function),
        tags=base.tags,
        reference=base.reference,
    )


_BASES = ("sphere", "ellipsoid", "rosenbrock", "rastrigin")

NOISY_CLASSIC = Pack(
    name="noisy",
    summary="textbook functions under additive, relative and heavy-tailed noise; measured without noise",
    groups={kind: tuple(f"{kind}-{base}" for base in _BASES) for kind in LEVELS},
    build=_build,
    dims=(2, 5, 10, 20, 40),
    instances=(1, 2, 3, 4, 5),
    max_dim=CLASSIC.max_dim,
    max_instance=2**31 - 1,
)
"""The pack of noisy textbook functions; an instance is a stream of noise."""
