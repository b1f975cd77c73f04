"""Laws about what goes in and out of a run: budgets, dtypes, bounds, names."""

from __future__ import annotations

import ast
import copy
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from dfo.arrays import is_torch, to_numpy
from dfo.batch import Batch, Linear
from dfo.errors import EvaluationWarning, InvalidArgument, UnknownName
from dfo.run.minimize import minimize
from dfo.sets import Convex, L1Ball, Shifted, Simplex
from dfo.spaces import Box
from dfo.testing.equal import difference, numbers
from dfo.testing.laws import Law, Skipped, expect, law
from dfo.testing.solver_state import DIMS, SEEDS
from dfo.testing.trial import LANDSCAPES, Landscape, Subject, Trial, bowl, doubles, points_of

__all__ = ["BOOK"]

BOOK: dict[str, Law] = {}


def _value(x: Any) -> float:
    return float(bowl(doubles(x)[None])[0])


class _Recorded:
    """The bowl, with the points that it was asked for."""

    def __init__(self, fun: Landscape = bowl) -> None:
        self.fun = fun
        self.seen: list[Any] = []

    def __call__(self, x: Any) -> float:
        self.seen.append(x)
        return float(self.fun(doubles(x)[None])[0])


@law(BOOK, "budget")
def budget(s: Subject) -> None:
    """A run never evaluates more than its budget, for any budget from 0 on, and stops short only when finished.

    Broken by: scipy (COBYLA evaluates 5 times on a budget of 0 or 1, differential evolution 15) and pycma (8).
    """

    def body(d: int, seed: int, budget: int) -> None:
        fun = _Recorded()
        res = minimize(
            s.objective(fun), s.array(np.full(d, 0.8)), method=s.solver, seed=seed, budget=budget, bounds=_bounds(s, d)
        )
        seen = fun.seen
        expect(len(seen) <= budget, f"{len(seen)} evaluations on a budget of {budget}")
        expect(res.nfev == len(seen), f"nfev is {res.nfev} after {len(seen)} evaluations")
        expect(len(seen) == budget or res.status == "finished", f"{len(seen)} of {budget} evaluations: {res.message}")
        expect(len(res.history) == res.nfev, f"the history has {len(res.history)} of {res.nfev} values")
        expect(bool(np.isfinite(to_numpy(res.x)).all()), f"x is {res.x} after {budget} evaluations")

    edges = [{"d": 2, "seed": 0, "budget": b} for b in (0, 1)]
    s.cases.each(body, edges, d=DIMS, seed=SEEDS, budget=range(51))


def _bounds(s: Subject, d: int) -> Any:
    return None if s.free() else [(-2.0, 2.0)] * d


@law(BOOK, "dtype-device")
def dtype_device(s: Subject) -> None:
    """The points that the objective sees, and the result, are of the library, dtype and device of the start.

    Broken by: scipy, pycma and nevergrad, where a tensor comes back as a numpy array.
    """

    def body(d: int, dtype: str, bounded: bool) -> None:
        x0, fun = s.array(np.full(d, 0.75), dtype), _Recorded()
        box = [(-2.0, 2.0)] * d if bounded else _bounds(s, d)
        res = minimize(s.objective(fun), x0, method=s.solver, budget=30 * d, bounds=box)
        for name, x in [("x", res.x), ("best_x", res.best_x), *((f"point {i}", x) for i, x in enumerate(fun.seen))]:
            expect(type(x) is type(x0), f"{name} is a {type(x).__name__}")
            expect(x.dtype == x0.dtype, f"{name} is {x.dtype}")
            expect(tuple(x.shape) == (d,), f"{name} has shape {tuple(x.shape)}")
            expect(not is_torch(x) or x.device == s.array(0.0).device, f"{name} is on {getattr(x, 'device', '')}")

    single = [{"d": 2, "dtype": "float32", "bounded": b} for b in (False, True)]
    s.cases.each(body, single, d=DIMS, dtype=["float64", "float32"], bounded=[False, True])


BOXES: dict[str, tuple[float, float]] = {
    "unit": (0.0, 1.0),
    "wide": (-1e300, 1e300),
    "narrow": (0.8, 0.8 + 1e-12),
    "fixed": (0.8, 0.8),
    "half": (-np.inf, 0.9),
    "other half": (0.7, np.inf),
    "at the minimum": (0.31, 5.0),
}


@law(BOOK, "bounds")
def bounds(s: Subject) -> None:
    """No point lies outside the bounds, integers are integral, and every solver's own points stay in its space.

    Broken by: scipy's Powell, COBYLA and dual annealing from a start outside, evotorch (42 of 300 points).
    """

    def body(d: int, seed: int, kind: str, landscape: str) -> None:
        lower, upper = BOXES[kind]
        cells = np.arange(d) % 2 == 1  # every other coordinate is an integer where the box holds one
        integer = cells & (np.floor(upper) >= np.ceil(lower)) & (abs(upper) < 1e9)
        box = Box(np.full(d, lower), np.full(d, upper), integer)
        x0 = box.project(np.full(d, 0.8))
        fun = _Recorded(LANDSCAPES[landscape])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EvaluationWarning)
            res = minimize(s.objective(fun), s.array(x0), method=s.solver, bounds=box, budget=60, seed=seed)
        outside = [x for x in [*fun.seen, res.x] if not box.contains(x)]
        expect(not outside, f"{len(outside)} points outside {box}, such as {outside[:1]}")

    def inner(d: int, seed: int) -> None:
        box = Box(np.zeros(d), np.ones(d))
        for _, batch in s.trial(d, seed, lambda X: -bowl(X), space=box).steps(12):
            X = points_of(batch)
            expect(
                bool(((X >= 0.0) & (X <= 1.0)).all()), f"step {batch.step} leaves the unit box: {X.min()}..{X.max()}"
            )

    s.cases.each(inner, d=DIMS, seed=SEEDS)
    kinds = [kind for kind, ends in BOXES.items() if "vector" in s.spaces or np.isfinite(ends).all()]
    every = [{"d": 3, "seed": 0, "kind": kind, "landscape": "bowl"} for kind in kinds]
    s.cases.each(body, every, d=DIMS, seed=SEEDS, kind=kinds, landscape=list(LANDSCAPES))


SETS: dict[str, Callable[[int], Convex]] = {
    "simplex": lambda d: Simplex(d + 1),
    "l1 ball": lambda d: Shifted(L1Ball(d, 0.5), np.full(d, 0.5)),
}


@law(BOOK, "convex-sets")
def convex_sets(s: Subject) -> None:
    """In a convex set, recommendations, the best point and the result are points of the set, within the budget.

    Broken by: codes that return the lowest query, which may lie beside the set.
    """
    if "convex" not in s.spaces:
        raise Skipped("it does not move in convex sets")
    simplex: Any = SETS["simplex"](2)
    try:
        s.planned(simplex)
    except InvalidArgument as refusal:
        raise Skipped(f"this configuration refuses them: {refusal}") from None

    def body(seed: int, d: int, kind: str, landscape: str, budget: int) -> None:
        space = SETS[kind](d)
        start, fun = s.array(space.center), _Recorded(LANDSCAPES[landscape])

        def look(progress: Any) -> None:
            for x in (progress.best_x, progress.recommended()):
                expect(x is None or space.contains(x), f"step {progress.step}: {x} is not in {space!r}")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EvaluationWarning)
            res = minimize(
                s.objective(fun), start, method=s.solver, bounds=space, budget=budget, seed=seed, callback=look
            )
        expect(len(fun.seen) == res.nfev <= budget, f"{len(fun.seen)} evaluations on a budget of {budget}")
        for name, x in (("x", res.x), ("best_x", res.best_x)):
            expect(x is None or space.contains(x), f"{name} = {x} is not in {space!r}")
            expect(x is None or (type(x) is type(start) and x.dtype == start.dtype), f"{name} is {type(x)}")
        known = res.nfail > 0 or not budget or bool(np.isfinite(res.fun))
        expect(known, f"fun is {res.fun} after {budget} evaluations")

    edges = [{"seed": 0, "d": 2, "kind": k, "landscape": "bowl", "budget": b} for k in SETS for b in (0, 1, 120)]
    s.cases.each(body, edges, seed=SEEDS, d=DIMS, kind=list(SETS), landscape=list(LANDSCAPES), budget=[2, 7, 31, 150])


@law(BOOK, "optional-members")
def optional_members(s: Subject) -> None:
    """Where they exist, gauges are numbers, ``finished`` is a sentence or None, and ``observe`` keeps the state sound.

    Broken by: nothing in particular, which is what makes other people's hooks and progress bars crash.
    """

    def body(d: int, seed: int, landscape: str) -> None:
        trial = s.on(landscape, d, seed)
        solver = trial.solver
        for i, (state, batch) in enumerate(trial.steps(12)):
            gauges = solver.gauges(state) if hasattr(solver, "gauges") else {}
            for name, value in gauges.items():
                expect(type(name) is str and isinstance(value, (int, float)), f"gauge {name!r} is {value!r}")
            why = solver.finished(state) if hasattr(solver, "finished") else None
            expect(why is None or (isinstance(why, str) and why != ""), f"finished says {why!r}")
            stage, stages = getattr(state, "stage", None), getattr(solver, "stages", ())
            expect(stage is None or stage in stages, f"stage {stage!r} is not one of {stages}")
            if hasattr(solver, "observe") and i % 4 == 3:
                _observed(trial, state, batch)

    s.cases.each(body, d=DIMS, seed=SEEDS, landscape=s.landscapes)


def _observed(trial: Trial, state: Any, batch: Batch) -> None:
    """Demand that points evaluated elsewhere leave a state that is sound, and the same each time."""
    values = trial.answer(batch).f - 10.0  # better than what the solver knows
    members: Any = batch.dense() if isinstance(batch, Linear) else [batch.member(i) for i in range(len(batch))]
    after = [trial.solver.observe(copy.deepcopy(state), copy.deepcopy(members), values.copy()) for _ in range(2)]
    found = difference(*after)
    expect(not found, f"observing the same twice gives two states: state{found}")
    bad = [where for where, x in numbers(after[0]) if np.isnan(x).any()]
    expect(not bad, f"NaN in state{', state'.join(bad)} after observing")
    expect(len(trial.solver.ask(after[0])) > 0, "nothing is asked after observing")


@law(BOOK, "configuration")
def configuration(s: Subject) -> None:
    """A solver's repr builds an equal solver, ``replace`` works, and a mistyped option is answered with the right one.

    Broken by: scipy, where an unknown option is a warning, and by optimizers that print as ``<object at 0x...>``.
    """
    solver = s.solver
    rebuilt = _read(repr(solver), vars(sys.modules[type(solver).__module__]))
    expect(rebuilt == solver, f"the repr builds another solver: {rebuilt!r} is not {solver!r}")
    found = difference(replace(solver), solver)
    expect(not found, f"dataclasses.replace builds another solver: {found}")
    names = [f.name for f in fields(solver) if f.name != "space"]  # the run fills the space in
    for name in [n for n in names if len(n) > 3]:  # in a shorter one, a missing letter leaves too little
        typo = name[:-2] + name[-1]
        try:
            minimize(_value, np.full(2, 0.8), method=solver, options={typo: 1}, budget=0)
        except UnknownName as error:
            expect(f"Did you mean {name!r}" in str(error), f"option {typo!r} is answered with: {error}")
        else:
            expect(False, f"the option {typo!r}, which does not exist, was accepted")


def _read(text: str, names: dict[str, Any]) -> Any:
    """Return the value of a repr: literals and calls of ``names``, nothing else."""
    return _value_of(ast.parse(text, mode="eval").body, names)


def _value_of(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            arguments = [_value_of(part, names) for part in node.args]
            options = {str(k.arg): _value_of(k.value, names) for k in node.keywords}
            return names[name](*arguments, **options)
        case ast.Tuple():
            return tuple(_value_of(part, names) for part in node.elts)
        case ast.Name(id="inf"):
            return float("inf")
    return ast.literal_eval(node)
