"""ZO-SGD: second moments of directions, contraction of steps, rules and their pitfalls, projection against mirror."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.measures.row import Row, holds_within, interval
from dfo.directions import DISTRIBUTIONS, Directions, Distribution, LowRank
from dfo.feedback import Values
from dfo.random import Key, normal, signs
from dfo.run.minimize import minimize
from dfo.sets import Simplex
from dfo.solvers import solver_class

__all__ = ["contraction", "game", "second_moment", "zo_sgd"]


def second_moment(law: Distribution, d: int, q: int, draws: int, key: Key) -> float:
    """Return the mean of ``|g_hat|^2 / |g|^2`` of central differences of a linear function.

    Args:
        law: distribution of the directions.
        d: dimension.
        q: directions per estimate.
        draws: directions in all.
        key: the stream.
    """
    g = normal(key.child("slope"), (d,))
    joint = not law.elementwise
    if joint and q > 1:  # directions of one estimate depend on each other
        groups = [Directions(law, key.child(i), q, g).dense() for i in range(draws // q)]
        U = np.stack(groups)  # (n, q, d)
    else:
        U = Directions(law, key, draws // q * q, g).dense().reshape(-1, q, d)
    estimates = np.einsum("nq,nqd->nd", U @ g, U) / q  # a central difference of a linear function is exact
    return float((estimates**2).sum(axis=1).mean() / (g @ g))


def contraction(directions: str, lr: float, seeds: int) -> tuple[float, float]:
    """Return mean and standard deviation of ``log |x_T|^2 / |x_0|^2`` on half the sphere, d = 100, T = 2000."""
    logs = []
    solver = solver_class("zo-sgd")(lr=lr, samples=1, directions=directions, radius=1e-3)
    for seed in range(seeds):
        x0 = normal(Key(seed).child("start"), (100,))
        state = solver.init(x0, Key(seed))
        for _ in range(2000):
            batch = solver.ask(state)
            X: Any = batch.dense()
            state = solver.tell(state, batch, Values(0.5 * (X * X).sum(axis=1)))
        logs.append(float(np.log((state.x @ state.x) / (x0 @ x0))))
    return float(np.mean(logs)), float(np.std(logs))


def zo_sgd(draws: int = 200_000, seeds: int = 50) -> list[Row]:
    """Second moments of directions, contraction of steps, rules and their pitfalls, projection against mirror."""
    d, rows = 20, []
    laws = DISTRIBUTIONS
    cases: list[tuple[str, Distribution, int, int, float]] = [
        ("gaussian", laws["gaussian"], d, 1, d + 2),
        ("sphere", laws["sphere"], d, 1, d),
        ("rademacher", laws["rademacher"], d, 1, d),
        ("coordinate", laws["coordinate"], d, 1, d),
        ("sparse (density 0.1)", laws["sparse"], d, 1, d - 1 + 3 / 0.1),
        ("gaussian, 5 directions", laws["gaussian"], d, 5, 1 + (d + 1) / 5),
        ("sphere, 5 directions", laws["sphere"], d, 5, 1 + (d - 1) / 5),
        ("orthogonal, 5 directions", laws["orthogonal"], d, 5, d / 5),
        ("coordinate, all directions", laws["coordinate"], d, d, 1.0),
        ("low rank, 5 x 4, rank 1", LowRank((5, 4), 1, "gaussian"), d, 1, 7 * 6),
    ]
    for name, law, dim, q, expected in cases:
        measured = second_moment(law, dim, q, draws, Key(0).child("moment", name))
        claim = f"second moment of the estimate, {name}, d={dim}"
        rows.append(Row(claim, f"{expected:g} +- 3 %", measured, holds_within(measured, expected, 0.03), "theory"))
    for name, lr, theory in (("sphere", 1 / 100, 2000 * np.log(1 - 1 / 100)), ("gaussian", 1 / 102, -19.70)):
        mean, _ = contraction(name, lr, seeds)
        expected = -20.2 if name == "sphere" else -19.9
        claim = f"mean log contraction of |x|^2, one {name} direction, d=100, 2000 steps, {seeds} seeds"
        source = f"independent simulation; log of the mean is {theory:.2f} in theory"
        rows.append(Row(claim, f"{expected} +- 0.5", mean, abs(mean - expected) <= 0.5, source, seeds))
    return [*rows, _iid(min(seeds, 20)), *_svrg(draws // 50), *_signs(draws), _conservative(5), *_simplex()]


# ---------------------------------------------------------------------- rules


def _answered(solver: Any, state: Any, f: Any) -> Any:
    batch = solver.ask(state)
    return solver.tell(state, batch, Values(f(batch.dense())))


def _half_sphere(X: Any) -> Floats:
    return np.asarray(0.5 * (X * X).sum(axis=1))


def _svrg(draws: int) -> list[Row]:
    """Return the variance of the SVRG estimate: at its anchor, near it, and with other directions in its two terms.

    On half the sphere, with one direction on the sphere and an anchor x_s: ``E|v - g|^2`` is ``(d - 1)|x - x_s|^2``
    with equal directions in both terms, and ``(d - 1)(|x|^2 + |x_s|^2)`` with independent ones.
    """
    d, key = 20, Key(3)
    solver = solver_class("zo-sgd")(rule="svrg", lr=1.0, samples=1, radius=0.1, period=10**6)
    anchor: Any = normal(key.child("anchor"), (d,))
    first = _answered(solver, solver.init(anchor, key), _half_sphere)
    still = max(float(np.abs(_answered(solver, _aged(first, i), _half_sphere).x).max()) for i in range(100))
    x = anchor + 0.1 * normal(key.child("away"), (d,))
    near = _aged(first, 0, x)
    errors = [float(((_answered(solver, _aged(near, i), _half_sphere).x) ** 2).sum()) for i in range(draws)]
    same = float(np.mean(errors)) / ((d - 1) * float((x - anchor) @ (x - anchor)))
    U, V = (Directions(DISTRIBUTIONS["sphere"], key.child(name), draws, x).dense() for name in ("u", "v"))
    v = (U @ x)[:, None] * U - (V @ anchor)[:, None] * V + anchor
    plain = (d - 1) * float(x @ x)
    other = float(((v - x) ** 2).sum(axis=1).mean()) / plain
    derived = 1.0 + float(anchor @ anchor) / float(x @ x)
    return [
        Row("svrg: largest coordinate of v - g at the anchor, 100 draws", "0 to 1e-9", still, still < 1e-9, "1.6.7"),
        Row(
            f"svrg: E|v - g|^2 / ((d-1)|x - x_s|^2) near the anchor, {draws} draws", "1 +- 5 %", same,
            holds_within(same, 1.0, 0.05), "derived, exact on half the sphere", draws,
        ),
        Row(
            "svrg with other directions in the two terms: its variance / that of the plain estimate",
            f"{derived:.3g} +- 5 %, above 1 (1.8: variance increases)", other, holds_within(other, derived, 0.05),
            "derived, exact on half the sphere", draws,
        ),
    ]  # fmt: skip


def _aged(state: Any, age: int, x: Any = None) -> Any:
    """Return a state whose next directions are those of another age."""
    from dataclasses import replace

    return replace(state, age=age, x=state.x if x is None else x)


def _signs(draws: int) -> list[Row]:
    """With one direction, sign(g_hat) is a random corner: a coordinate is right with ``1/2 + asin(d^-1/2) / pi``."""
    rows = []
    for d in (10, 100):
        g = np.ones(d)
        U = Directions(DISTRIBUTIONS["gaussian"], Key(d).child("signs"), draws // d, g).dense()
        right = float((np.sign((U @ g)[:, None] * U) > 0).mean())
        derived = 0.5 + float(np.arcsin(d**-0.5)) / np.pi
        claim = f"sign of an estimate from one gaussian direction, d={d}: share of coordinates with the sign of g"
        rows.append(
            Row(claim, f"{derived:.4f} +- 1 %", right, holds_within(right, derived, 0.01), "derived", draws // d)
        )
    return rows


def _conservative(seeds: int) -> Row:
    """A conservative step keeps the lowest of three on the same data."""
    solver = solver_class("zo-sgd")(rule="conservative", lr=0.05, samples=2)
    worst = -np.inf
    for seed in range(seeds):
        state = solver.init(np.ones(10), Key(seed))
        for _ in range(200):
            before = float(_half_sphere(state.x[None])[0])
            state = _answered(solver, state, _half_sphere)
            worst = max(worst, float(_half_sphere(state.x[None])[0]) - before)
    return Row("conservative: largest rise of f in a step, 100 steps", "<= 0", worst, worst <= 0.0, "1.6.7", seeds)


def _iid(seeds: int) -> Row:
    """Contraction with q gaussian directions at ``1 / (1 + (d + 1) / q)``, through ``dfo.minimize``."""
    d, q, steps = 100, 10, 300
    factor = 1.0 + (d + 1) / q
    solver = solver_class("zo-sgd")(lr=1.0 / factor, samples=q, directions="gaussian", radius=1e-3)
    logs = []
    for seed in range(seeds):
        x0: Any = normal(Key(seed).child("start"), (d,))
        last: list[Any] = []

        def hook(progress: Any, last: list[Any] = last) -> None:
            last[:] = [progress.recommended]

        minimize(_half_sphere, x0, method=solver, budget=2 * q * steps, seed=seed, vectorized=True, callback=hook)
        end = last[0]()
        logs.append(float(np.log((end @ end) / (x0 @ x0))))
    mean, theory = float(np.mean(logs)), steps * float(np.log(1.0 - 1.0 / factor))
    claim = f"dfo.minimize: mean log contraction of |x|^2, {q} gaussian directions, d={d}, {steps} steps"
    source = "1.3: E|x|^2 contracts by 1 - 1/(1 + (d+1)/q); the mean of the log is slightly lower"
    return Row(claim, f"{theory:.2f} +- 3 %", mean, holds_within(mean, theory, 0.03), source, seeds, interval(logs))


# ---------------------------------------------------------------------- projection and mirror


def game(d: int, seed: int) -> Any:
    """Return ``max_j (A x)_j`` of ``(n, d)`` points of the simplex, A a 20 x d matrix of signs, and its least value."""
    from scipy.optimize import linprog

    A = signs(Key(seed).child("game"), (20, d))
    table = np.hstack([A, -np.ones((20, 1))])
    cost, total = np.r_[np.zeros(d), 1.0], np.r_[np.ones(d), 0.0][None]
    bounds = [(0, None)] * d + [(None, None)]
    best = linprog(cost, table, np.zeros(20), total, [1.0], bounds).fun
    return (lambda X: (X @ A.T).max(axis=1)), float(best)


_GAMES = (
    (20, 4000, True, 8),
    (200, 20_000, True, 8),
    (20, 4000, False, 5),
    (200, 4000, False, 5),
    (1000, 4000, False, 5),
)
"""Dimension, calls, whether the means of the iterates are compared (else the last ones, the defaults), and seeds."""


def _simplex() -> list[Row]:
    """Projected against exponentiated steps on games over the simplex, at equal calls."""
    rows = []
    for d, calls, average, seeds in _GAMES:
        gaps: dict[str, list[float]] = {"entropy": [], "euclidean": [], "zo-sgd": []}
        for seed in range(seeds):
            f, best = game(d, seed)
            for kind, found in gaps.items():
                method: Any = (
                    "zo-sgd" if kind == "zo-sgd" else solver_class("zo-mirror")(geometry=kind, average=average)
                )
                run = minimize(f, Simplex(d), method=method, budget=calls, seed=seed, vectorized=True)
                found.append(run.fun - best)
        where = f"game on the simplex, d={d}, {calls} calls, {'mean of the iterates' if average else 'last iterate'}"
        source = "log d in place of d where gradients are bounded in the largest coordinate (Beck, Teboulle 2003)"
        for other, steps in (("euclidean", "projected adaptive steps"), ("zo-sgd", "projected zo-sgd")):
            ratio = float(np.mean(gaps["entropy"]) / np.mean(gaps[other]))
            each = [a / b for a, b in zip(gaps["entropy"], gaps[other], strict=True)]
            claim = f"{where}: gap of exponentiated steps / of {steps}"
            rows.append(Row(claim, "< 1", ratio, ratio < 1.0, source, seeds, f"ratios {interval(each)}"))
    return rows
