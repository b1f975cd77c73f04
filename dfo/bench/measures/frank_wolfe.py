"""Zeroth-order Frank-Wolfe: rates by scheme, rounding, oracles of the sets, and a universal perturbation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, interval
from dfo.bench.packs import make
from dfo.errors import DfoWarning
from dfo.feedback import Values
from dfo.protocols import Task
from dfo.random import Key, normal
from dfo.run.minimize import minimize
from dfo.sets import (
    Birkhoff,
    Convex,
    GroupBall,
    KSparse,
    L1Ball,
    L2Ball,
    LInfBall,
    LpBall,
    NuclearBall,
    OpNormBall,
    Polytope,
    Simplex,
    Spectrahedron,
)
from dfo.solvers import solver_class

__all__ = ["SETS", "frank_wolfe", "gaps"]

STUDY = "numerical study of arXiv:1810.03233's schemes, mean of 4 seeds"

RATES: tuple[tuple[str, int, int, float, dict[int, float]], ...] = (
    ("kwsa", 1, 50, -0.53, {93: 0.0234, 750: 0.0081, 3000: 0.0036}),
    ("kwsa", 1, 200, -0.59, {93: 0.0226, 750: 0.0064, 3000: 0.0028}),
    ("rdsa", 1, 50, -0.56, {625: 0.0265, 5000: 0.0076, 20000: 0.0043}),
    ("rdsa", 1, 200, -0.46, {625: 0.0614, 5000: 0.0276, 20000: 0.0121}),
    ("i-rdsa", 10, 50, -0.60, {625: 0.0100, 5000: 0.0026, 20000: 0.0011}),
    ("i-rdsa", 10, 200, -0.55, {625: 0.0234, 5000: 0.0076, 20000: 0.0034}),
)
"""Scheme, directions, dimension, slope, and mean of f - f* by number of updates."""

ROUNDING: dict[tuple[int, str], tuple[float, float, float]] = {
    (10, "forward"): (0.00027, 0.0041, 0.0140),
    (10, "central"): (0.00014, 0.00011, 0.00009),
    (1000, "forward"): (0.0051, 0.0038, 0.0140),
    (1000, "central"): (0.0025, 0.00016, 0.00009),
}
"""Constant added to f and scheme: f - f* in single precision with floors 0, 1e-3, 1e-2 of c."""


def gaps(
    solver: Any, d: int, marks: Sequence[int], seed: int, noise: float = 0.1, offset: float = 0.0, dtype: Any = float
) -> tuple[list[float], float]:
    """Return ``f - f*`` after ``marks`` updates, and by how much an iterate left the ball at most.

    The problem is ``E |x - x* - y|^2 / 2`` over the l1 ball of radius 1: ``x*`` has five entries of 0.15, ``y`` is
    normal with deviation ``noise``, shared by the queries of an update; from 0.

    Args:
        solver: not planned.
        d: variables.
        marks: numbers of updates, rising.
        seed: of the run.
        noise: of the data.
        offset: constant added to the values.
        dtype: of points and values.
    """
    ball, target = L1Ball(d), np.zeros(d, dtype)
    target[:5] = 0.15
    planned = solver.plan(Task(ball))
    state, found, outside = planned.init(np.zeros(d, dtype), Key(seed)), [], 0.0
    for t in range(marks[-1]):
        batch = planned.ask(state)
        y: Any = 0.0
        if noise:
            y = (noise * normal(Key(seed, ("data",)).child(int(batch.data[0])), (d,))).astype(dtype)
        rest = batch.dense() - target - y
        f = np.asarray(0.5, dtype) * (rest * rest).sum(axis=1) + np.asarray(offset, dtype)
        state = planned.tell(state, batch, Values(f.astype(float)))
        outside = max(outside, float(ball.excess(state.x)))
        if t + 1 in marks:
            found.append(0.5 * float(((state.x - target).astype(float) ** 2).sum()))
    return found, outside


def _rates(seeds: int) -> list[Row]:
    """Return the rows of the published experiment, and the ratios between its schemes."""
    rows, means, worst = [], {}, 0.0
    for scheme, m, d, slope, expected in RATES:
        solver = solver_class("zo-fw")(scheme=scheme, samples=m, faithful=True, look=0, minibatches=2**53)
        first, last = min(expected), max(expected)
        marks = sorted({*expected, *(int(t) for t in np.geomspace(first, last, 16))})
        runs = [gaps(solver, d, marks, seed) for seed in range(seeds)]
        values = np.array([found for found, _ in runs])
        worst = max(worst, *(outside for _, outside in runs))
        means[scheme, d] = [float(values[:, marks.index(t)].mean()) for t in expected]
        title = f"{scheme}{f' m={m}' if scheme == 'i-rdsa' else ''} d={d}"
        measured = float(np.polyfit(np.log(marks), np.log(values.mean(axis=0)), 1)[0])
        claim = f"{title}: log-log slope of f - f*, updates {first} to {last}"
        rows.append(Row(claim, f"<= -1/3 (the study: {slope})", measured, measured <= -1 / 3, STUDY, seeds))
        for at, t in enumerate(expected):
            mean, figure = means[scheme, d][at], expected[t]
            claim, spread = f"{title}: f - f* after {t} updates", interval(values[:, marks.index(t)])
            rows.append(Row(claim, f"{figure} +- 30 %", mean, abs(mean / figure - 1) <= 0.3, STUDY, seeds, spread))
    rows.append(
        Row(
            "iterates of all these runs: most by which one leaves the ball", "<= 1e-12", worst, worst <= 1e-12, "theory"
        )
    )
    return [*rows, _exact(), *_ratios(means, seeds)]


def _exact() -> Row:
    """Return the slope of the deterministic scheme, whose values carry no noise."""
    solver = solver_class("zo-fw")(scheme="deterministic", faithful=True, look=0)
    marks = sorted({int(t) for t in np.geomspace(93, 3000, 16)})
    found, _ = gaps(solver, 50, marks, 0, noise=0.0)
    slope = float(np.polyfit(np.log(marks), np.log(found), 1)[0])
    claim = "deterministic d=50, no noise: log-log slope of f - f*, updates 93 to 3000"
    return Row(claim, "<= -1 (the rate O(1/t))", slope, slope <= -1.0, "arXiv:1810.03233, abstract")


def _ratios(means: dict[tuple[str, int], list[float]], seeds: int) -> list[Row]:
    cases = [
        ("kwsa: f - f*, d=200 over d=50 (independent of d)", ("kwsa", 200), ("kwsa", 50), 0.75, 1.1),
        ("rdsa: f - f*, d=200 over d=50", ("rdsa", 200), ("rdsa", 50), 2.3, 3.6),
        ("f - f* of rdsa over i-rdsa m=10, d=50", ("rdsa", 50), ("i-rdsa", 50), 2.3, 4.0),
        ("f - f* of rdsa over i-rdsa m=10, d=200", ("rdsa", 200), ("i-rdsa", 200), 2.3, 4.0),
    ]
    rows = []
    for claim, above, below, low, high in cases:
        for name, i in (("first", 0), ("second", 1), ("last", 2)):
            ratio = means[above][i] / means[below][i]
            rows.append(Row(f"{claim}, {name} mark", f"{low} to {high}", ratio, low <= ratio <= high, STUDY, seeds))
    return rows


def _rounding(seeds: int) -> list[Row]:
    """Return final gaps in single precision, d = 784, 1500 updates, by scheme, floor and constant added to f."""
    source = "numerical study without noise; its seeds are not stated"

    def final(dtype: Any, offset: float, **options: Any) -> float:
        solver = solver_class("zo-fw")(scheme="i-rdsa", samples=10, look=0, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DfoWarning)
            runs = [gaps(solver, 784, [1500], seed, 0.0, offset, dtype)[0][0] for seed in range(seeds)]
        return float(np.mean(runs))

    reference, figure = final(np.float64, 0.0, faithful=True), 1.5e-4
    claim, within = "d=784, i-rdsa m=10, 1500 updates: f - f*, {}", "{:g} within a factor of 4"
    holds = _near(reference, figure)
    rows = [Row(claim.format("double, forward"), within.format(figure), reference, holds, source, seeds)]
    found = {}
    for (offset, scheme), expected in ROUNDING.items():
        for floor, figure in zip((0.0, 1e-3, 1e-2), expected, strict=True):
            value = final(np.float32, float(offset), difference=scheme, floor=floor)
            found[offset, scheme, floor] = value
            title = claim.format(f"single, {scheme}, floor {floor:g}, f + {offset}")
            rows.append(Row(title, within.format(figure), value, _near(value, figure), source, seeds))
    for offset in (10, 1000):
        ratio = found[offset, "forward", 1e-2] / found[offset, "central", 1e-2]
        title = f"single, floor 1e-2, f + {offset}: f - f* of forward over central differences"
        rows.append(Row(title, "> 20", ratio, ratio > 20, source, seeds))
    return rows


def _near(value: float, figure: float) -> bool:
    return abs(math.log(value / figure)) <= math.log(4.0)


def _symmetric(s: Floats) -> Floats:
    S = s.reshape(2 * (math.isqrt(len(s)),))
    return np.asarray((S + S.T) / 2)


def _best_ordering(s: Floats) -> float:
    from itertools import permutations

    S = s.reshape(2 * (math.isqrt(len(s)),))
    return min(float(S[np.arange(len(S)), list(p)].sum()) for p in permutations(range(len(S))))


def _polytope() -> Polytope:
    return Polytope(vertices=normal(Key(5), (12, 6)))


SETS: dict[str, tuple[Callable[[], Convex], Callable[[Floats], Any]]] = {
    "simplex": (lambda: Simplex(20, 2.0), lambda s: 2.0 * s.min()),
    "l1 ball": (lambda: L1Ball(20, 2.0), lambda s: -2.0 * np.abs(s).max()),
    "l2 ball": (lambda: L2Ball(20, 2.0), lambda s: -2.0 * float(np.linalg.norm(s))),
    "linf ball": (lambda: LInfBall(20, 2.0), lambda s: -2.0 * np.abs(s).sum()),
    "l3 ball": (lambda: LpBall(20, 3.0, 2.0), lambda s: -2.0 * float(np.linalg.norm(s, 1.5))),
    "4-sparse polytope": (lambda: KSparse(20, 4), lambda s: -np.sort(np.abs(s))[-4:].sum()),
    "group ball": (lambda: GroupBall(20, 5), lambda s: -np.linalg.norm(s.reshape(4, 5), axis=1).max()),
    "nuclear ball": (lambda: NuclearBall((4, 5), 2.0), lambda s: -2.0 * np.linalg.norm(s.reshape(4, 5), 2)),
    "nuclear ball, iterated": (
        lambda: NuclearBall((40, 50), 2.0, exact=0), lambda s: -2.0 * np.linalg.norm(s.reshape(40, 50), 2),
    ),
    "operator-norm ball": (lambda: OpNormBall((4, 5)), lambda s: -np.linalg.norm(s.reshape(4, 5), "nuc")),
    "spectrahedron": (lambda: Spectrahedron(5), lambda s: np.linalg.eigvalsh(_symmetric(s))[0]),
    "spectrahedron, iterated": (
        lambda: Spectrahedron(40, exact=0), lambda s: np.linalg.eigvalsh(_symmetric(s))[0],
    ),
    "polytope of 12 vertices": (_polytope, lambda s: (_polytope().vertices @ s).min()),
    "birkhoff, side 4": (lambda: Birkhoff(4), _best_ordering),
}  # fmt: skip
"""Sets, and the lowest inner product over each by a formula of its own (the dual norm, an enumeration)."""


def _oracles(slopes: int = 20, points: int = 10_000) -> list[Row]:
    """Return how far each oracle is from its formula, and whether a random point of the set lies lower."""
    rows = []
    for name, (build, formula) in SETS.items():
        space = build()
        S = normal(Key(1, (name,)), (slopes, space.dim))
        drawn = points if space.dim < 500 else points // 10
        lowest = (S @ space.sample(Key(2, (name,)), drawn).T).min(axis=1)
        values, known = (S * space.lmo(S)).sum(axis=1), np.array([formula(s) for s in S])
        off = float(np.abs(values / known - 1.0).max())
        claim = f"{name}: oracle against its formula, largest relative difference of {slopes} slopes"
        rows.append(Row(claim, "<= 1e-12", off, off <= 1e-12, "dual norm", slopes))
        least = float((lowest - values).min())
        claim = f"{name}: lowest of {drawn} random points of the set less the oracle's value, least of {slopes} slopes"
        rows.append(Row(claim, ">= 0", least, least >= -1e-12, "definition", slopes))
    return rows


def _problems(seeds: int = 3) -> list[Row]:
    """Return runs of the front door on the constrained pack."""
    rows, budget = [], 12_800
    for function in ("simplex", "birkhoff", "spectrahedron", "completion"):
        problem: Any = make(f"constrained-{function}-i01-d64")
        start, left = problem.measure(problem.x0) - problem.f_opt, []
        for seed in range(seeds):
            res = minimize(
                problem.fun, problem.x0, method="zo-fw", bounds=problem.space, budget=budget, seed=seed, vectorized=True
            )
            left.append((problem.measure(res.x) - problem.f_opt) / start)  # infinite beside the set
        claim, mean = f"constrained-{function}-d64, {budget} calls: share of f(x0) - f* left", float(np.mean(left))
        rows.append(Row(claim, "<= 0.02", mean, mean <= 0.02, "no published figure", seeds, interval(left)))
    return rows


def _perturbation(seeds: int = 3) -> list[Row]:
    """Return what the smoke form of the paper's attack must show: the loss falls, the pattern stays in the ball."""
    problem: Any = make("constrained-perturbation-i01-d64")
    images, start = problem.fun, problem.x0
    solver = solver_class("zo-fw")(scheme="i-rdsa", samples=15)
    falls, right, outside = [], [], [0.0]

    def look(progress: Any) -> None:
        outside[0] = max(outside[0], float(problem.space.excess(progress.recommended())))

    for seed in range(seeds):
        res = minimize(
            images, start, method=solver, bounds=problem.space, budget=6000, seed=seed, vectorized=True, callback=look
        )
        falls.append(problem.measure(start) - problem.measure(res.x))
        right.append(_recognised(images, res.x))
    clean, mean, fall = _recognised(images, start), float(np.mean(right)), min(falls)
    source, name = "arXiv:1810.03233, section 5, in small: 100 digits, l_inf ball, m = 15", "universal perturbation"
    cases: list[tuple[str, str, float, bool, str]] = [
        ("fall of the log-probability, least of the seeds", "> 0", fall, fall > 0, interval(falls)),
        ("most by which an iterate leaves the ball", "<= 1e-12", outside[0], outside[0] <= 1e-12, ""),
        ("digits still recognised", f"< {clean:.2f}, the clean share", mean, mean < clean, interval(right)),
    ]
    return [
        Row(f"{name}: {claim}", want, got, holds, source, seeds, spread) for claim, want, got, holds, spread in cases
    ]


def _recognised(images: Any, x: Any) -> float:
    return float((images.scores(x).argmax(axis=1) == images.labels).mean())


def frank_wolfe(seeds: int = 4) -> list[Row]:
    """Zeroth-order Frank-Wolfe: rates of the four schemes, rounding, oracles of the sets, a universal perturbation."""
    return [*_rates(seeds), *_rounding(3), *_oracles(), *_problems(), *_perturbation()]
