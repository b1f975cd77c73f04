"""The suites of COCO, through the real ``cocoex``: what the comparison of solvers is agreed on.

======================  =======================================================  =====================
pack                    functions x dimensions x instances                       ``f_opt``
======================  =======================================================  =====================
``bbob``                24 x (2, 3, 5, 10, 20, 40) x any                         told by COCO
``bbob-noisy``          30 (f101..f130) x (2, 3, 5, 10, 20, 40) x 1..15          of the noise-free twin
``bbob-constrained``    54 x (2, 3, 5, 10, 20, 40) x 1..15                       f at the minimiser
``bbob-mixint``         24 x (5, 10, 20, 40, 80, 160) x 1..15                    scaled from bbob
``bbob-largescale``     24 x (20, 40, 80, 160, 320, 640) x 1..15                 as in bbob
======================  =======================================================  =====================

A value on these problems is reached when ``measure(x) - f_opt`` (``fun(x) - f_opt`` where ``measure``
is None) is. Starts are COCO's, which is the middle of the box in ``bbob``. Nothing is written to
disk, no observer is attached, and every problem is opened anew: a problem can be pickled, and what
one run evaluates leaves no trace in the next.

Source: Hansen, Auger, Ros, Mersmann, Tusar and Brockhoff (2021), COCO: a platform for comparing
continuous optimizers in a black-box setting, Optimization Methods and Software 36(1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats
from dfo.protocols import Problem
from dfo.spaces import Box
from dfo_problems import legacy
from dfo_problems.pack import Cell, Pack

__all__ = [
    "BBOB",
    "CONSTRAINED",
    "LARGESCALE",
    "MIXINT",
    "NOISY",
    "Bare",
    "Constrained",
    "NoiseFree",
    "Single",
]

REFERENCE = "Hansen et al. (2021), Optimization Methods and Software 36(1); coco-experiment"

MIXINT_SCALES = (
    *(1.0, 1e-3, 1e-1, 1e-1, 1.0),  # f1..f5
    *(1e-2, 1.0, 1e-2, 1e-2, 1e-3),  # f6..f10
    *(1e-2, 1e-4, 1e-1, 1.0, 1e-1),  # f11..f15
    *(1.0, 10.0, 1.0, 10.0, 1e-1),  # f16..f20
    *(1.0, 1.0, 10.0, 1e-1),  # f21..f24
)
"""Factors by which bbob-mixint scales the functions of bbob (``suite_bbob_mixint.c``)."""

NOISE_FREE = (1, 8, 1, 8, 7, 10, 14, 17, 19, 21)
"""Function of bbob under f101..103, f104..106, ..., f128..130 of bbob-noisy."""


def _cocoex() -> Any:
    try:
        import cocoex
    except ImportError as error:
        raise ImportError("COCO's suites need coco-experiment. Install it: pip install 'dfo-optim[bench]'.") from error
    return cocoex


class Bare:
    """A function of bbob for ``(n, d)`` points at once, in compiled code.

    Args:
        function: 1..24.
        instance: from 1.
        dim: from 2.
    """

    def __init__(self, function: int, instance: int, dim: int) -> None:
        self.cell = (function, instance, dim)
        self._evaluate = _cocoex().BareProblem("bbob", function, dim, instance)

    def __call__(self, X: Array) -> Floats:
        """Return ``(n,)`` values of ``(n, d)`` points, or the value of one ``(d,)`` point."""
        # COCO reads through a writable buffer in C order; only a copy is sure to be one
        values: Floats = self._evaluate(np.array(X, dtype=float, order="C"))
        return values

    def __reduce__(self) -> tuple[type[Bare], tuple[int, int, int]]:
        return type(self), self.cell

    def optimum(self) -> tuple[float, Floats]:
        """Return the lowest value and the ``(d,)`` minimiser, asked from a second copy.

        COCO marks a problem whose minimiser was looked up as unfit for benchmarking.
        """
        function, instance, dim = self.cell
        copy = _cocoex().BareProblem("bbob", function, dim, instance)
        return copy.best_value(), np.array(copy.best_parameter())


class Single:
    """A problem of any suite of COCO, for one ``(d,)`` point at a time.

    Args:
        suite: COCO's name of the suite.
        function: index in the suite, from 1.
        instance: from 1.
        dim: one of the suite's dimensions.
    """

    def __init__(self, suite: str, function: int, instance: int, dim: int) -> None:
        self.cell = (suite, function, instance, dim)
        cocoex = _cocoex()
        level = cocoex.log_level("error")  # set for opening only: other users of cocoex keep theirs
        try:
            # COCO ends the process on a selection that it does not know: packs check every number first
            self._suite = cocoex.Suite(
                suite, f"instances: {instance}", f"function_indices: {function} dimensions: {dim}"
            )
            self.evaluate = self._suite.get_problem(0)
        finally:
            cocoex.log_level(level)

    def __call__(self, x: Array) -> float:
        """Return the value of one ``(d,)`` point."""
        value: float = self.evaluate(x)
        return value

    def __reduce__(self) -> tuple[type[Single], tuple[str, int, int, int]]:
        return type(self), self.cell

    @property
    def box(self) -> Box:
        """The region of interest; the first coordinates may be integers."""
        problem = self.evaluate
        integer = np.arange(problem.dimension) < problem.number_of_integer_variables
        return Box(problem.lower_bounds, problem.upper_bounds, integer=integer)

    @property
    def start(self) -> Floats:
        """COCO's initial solution, ``(d,)``: feasible, and in the middle where all points are."""
        x0: Floats = self.evaluate.initial_solution
        return x0


class Constrained(Single):
    """A problem of bbob-constrained: objective, constraints and the merit that joins them."""

    def __init__(self, suite: str, function: int, instance: int, dim: int) -> None:
        super().__init__(suite, function, instance, dim)
        # the whole problem is built around the origin and then moved to this point (suite_cons_bbob.c)
        self.x_opt = legacy.minimiser(dim, function + 10_000 * instance)
        self.f_opt = float(self.evaluate(self.x_opt))

    def constraint(self, x: Array) -> Floats:
        """Return ``(m,)`` constraint values of one point, feasible where all are <= 0."""
        values: Floats = self.evaluate.constraint(x)
        return values

    def merit(self, x: Array) -> float:
        """Return ``f_opt + max(f(x) - f_opt, 0) + sum_i max(g_i(x), 0)``: ``f_opt`` at the minimiser only."""
        violation = float(np.maximum(self.constraint(x), 0.0).sum())
        return self.f_opt + max(float(self.evaluate(x)) - self.f_opt, 0.0) + violation


class NoiseFree:
    """What a function of bbob-noisy is without its noise, for one point in the box.

    Seven of the ten families are functions of bbob. f125..127 are f19 with its Griewank part a tenth as
    high, and f116..118 are f10 with condition number 10^4 (``suite_bbob_noisy.c``).

    Args:
        function: 101..130.
        instance: from 1.
        dim: from 2.
    """

    def __init__(self, function: int, instance: int, dim: int) -> None:
        self.cell = (function, instance, dim)
        self.base = NOISE_FREE[(function - 101) // 3]
        self._bare = Bare(self.base, instance, dim)
        self.f_opt, self.x_opt = self._bare.optimum()
        if self.base == 10:
            self._rotation = legacy.rotation(dim, 10 + 10_000 * instance + 1_000_000)
            self._weights = 1e4 ** np.linspace(0.0, 1.0, dim)

    def __call__(self, x: Array) -> float:
        """Return the value of one ``(d,)`` point."""
        if self.base == 10:
            z = legacy.oscillated(self._rotation @ (np.asarray(x, dtype=float) - self.x_opt))
            return self.f_opt + float(self._weights @ z**2)
        value = float(self._bare(x))
        return self.f_opt + (value - self.f_opt) / 10.0 if self.base == 19 else value

    def __reduce__(self) -> tuple[type[NoiseFree], tuple[int, int, int]]:
        return type(self), self.cell


def _numbers(cell: Cell) -> tuple[int, int, int]:
    """Return function, instance and dimension of a cell that has all three."""
    return int(cell.function[1:]), cell.instance or 0, cell.dim or 0


def _bbob(cell: Cell) -> Problem:
    fun = Bare(*_numbers(cell))
    f_opt, x_opt = fun.optimum()
    dim = len(x_opt)
    return Problem(
        name=cell.name,
        space=Box(np.full(dim, -5.0), np.full(dim, 5.0)),
        fun=fun,
        x0=np.zeros(dim),
        f_opt=f_opt,
        x_opt=x_opt,
        vectorized=True,
        group=BBOB.group(cell.function),
        reference=REFERENCE,
    )


def _noisy(cell: Cell) -> Problem:
    function, instance, dim = _numbers(cell)
    fun, exact = Single(cell.pack, function - 100, instance, dim), NoiseFree(function, instance, dim)
    return Problem(
        name=cell.name,
        space=fun.box,
        fun=fun,
        x0=fun.start,
        f_opt=exact.f_opt,
        x_opt=exact.x_opt,
        measure=exact,
        noisy=True,
        group=NOISY.group(cell.function),
        tags=frozenset({("gaussian", "uniform", "cauchy")[(function - 101) % 3]}),
        reference=REFERENCE,
    )


def _constrained(cell: Cell) -> Problem:
    fun = Constrained(cell.pack, *_numbers(cell))
    return Problem(
        name=cell.name,
        space=fun.box,
        fun=fun,
        x0=fun.start,
        f_opt=fun.f_opt,
        x_opt=fun.x_opt,
        constraint=fun.constraint,
        measure=fun.merit,
        group=CONSTRAINED.group(cell.function),
        reference=REFERENCE,
    )


def _scaled(cell: Cell) -> Problem:
    """Build a problem of the two suites whose lowest values are bbob's, up to a factor."""
    function, instance, _ = _numbers(cell)
    fun = Single(cell.pack, *_numbers(cell))
    factor = MIXINT_SCALES[function - 1] if cell.pack == MIXINT.name else 1.0
    f_opt, _ = Bare(function, instance, 2).optimum()  # equal in all dimensions
    return Problem(
        name=cell.name,
        space=fun.box,
        fun=fun,
        x0=fun.start,
        f_opt=factor * f_opt,
        group=BBOB.group(cell.function),
        reference=REFERENCE,
    )


def _labels(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"f{number:03d}" for number in range(first, last + 1))


_FIVE = {
    "separable": _labels(1, 5),
    "moderate": _labels(6, 9),
    "ill-conditioned": _labels(10, 14),
    "multimodal": _labels(15, 19),
    "weak-structure": _labels(20, 24),
}
_OBJECTIVES = (
    *("sphere", "ellipsoid", "linear", "rotated-ellipsoid", "discus"),
    *("bent-cigar", "different-powers", "rastrigin", "rotated-rastrigin"),
)
_SMALL, _FIFTEEN = (2, 3, 5, 10, 20, 40), tuple(range(1, 16))


def _suite(
    name: str,
    summary: str,
    groups: dict[str, tuple[str, ...]],
    build: Callable[[Cell], Problem],
    dims: tuple[int, ...] = _SMALL,
    max_instance: int = 0,
) -> Pack:
    return Pack(name, summary, groups, build, dims, _FIFTEEN, max_instance=max_instance)


BBOB = _suite("bbob", "COCO's 24 noise-free functions, vectorised", _FIVE, _bbob, max_instance=999)
"""The 24 noise-free functions; new editions of COCO use new instances, so any up to 999 will do."""

NOISY = _suite(
    "bbob-noisy",
    "COCO's 30 noisy functions; measured without noise",
    {"moderate-noise": _labels(101, 106), "severe-noise": _labels(107, 121), "multimodal": _labels(122, 130)},
    _noisy,
)
"""Noisy functions: ``fun`` adds noise and 1e-8, ``measure`` adds neither.

COCO keeps one stream of noise for the whole process, and starts it anew whenever a problem of any
suite but ``bbob`` is made. A run that follows its ``make`` is therefore reproducible, and runs that
differ in their seeds only meet the same noise: average over instances. Problems that are evaluated in
turns draw from the one stream.
"""

CONSTRAINED = _suite(
    "bbob-constrained",
    "COCO's 54 functions with 1 to 3d + 6 active constraints",
    {name: _labels(6 * i + 1, 6 * i + 6) for i, name in enumerate(_OBJECTIVES)},
    _constrained,
)
"""Constrained functions, grouped by objective; ``measure`` is :meth:`Constrained.merit`."""

MIXINT = _suite(
    "bbob-mixint", "COCO's 24 functions with four fifths integer variables", _FIVE, _scaled, (5, 10, 20, 40, 80, 160)
)
"""Mixed-integer functions: a fifth each of the variables takes 2, 4, 8, 16 values, the last is real."""

LARGESCALE = _suite(
    "bbob-largescale", "COCO's 24 functions in up to 640 dimensions", _FIVE, _scaled, (20, 40, 80, 160, 320, 640)
)
"""The functions of bbob with block rotations, whose cost grows linearly with the dimension."""
