"""Give a problem to a method: the one translation from :class:`dfo.Problem` to :func:`dfo.minimize`."""

from __future__ import annotations

import math
import time
import traceback
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dfo.bench.budget import Budget
from dfo.bench.methods import Method
from dfo.bench.packs import make
from dfo.bench.plan import Cell, Label
from dfo.bench.record import Failure, Record
from dfo.bench.recorder import Recorder, thinned
from dfo.bench.targets import TARGETS
from dfo.errors import DfoError, EvaluationWarning
from dfo.protocols import Problem
from dfo.secrets import scrub
from dfo.sets.convex import is_convex
from dfo.spaces import Box, Named, Text

if TYPE_CHECKING:
    from dfo.run.result import Result

__all__ = ["run_cell", "solve"]

PER_DECADE = 10
"""Points of a stored trajectory per factor of ten in evaluations."""


class Idle(DfoError):
    """A method returned again and again without evaluating anything."""


def solve(
    problem: Problem, method: str, budget: int, seed: int = 0, *, x0: Any = None, fun: Any = None, **further: Any
) -> Result:
    """Minimise a problem.

    The method gets the problem's start and box (with its integers), its constraints in scipy's form, and
    the word whether values are noisy.

    Args:
        problem: the problem.
        method: as :class:`~dfo.bench.Method` reads it.
        budget: most evaluations.
        seed: of the run.
        x0: another start, a point of the problem's space.
        fun: another objective in place of the problem's, such as a recorder of it.
        **further: ``stop`` and ``callback`` of :func:`dfo.minimize`.

    Returns:
        The result of the one run, without restarts other than the method's own.

    Example:
        >>> from dfo.bench import make, solve
        >>> solve(make("classic-sphere-d02"), "random", budget=50).nfev
        50
    """
    from dfo.run.minimize import minimize

    wanted, space, start = Method.of(method), problem.space, problem.x0 if x0 is None else x0
    if isinstance(space, Named):
        start = Named({name: replace(p, init=start[name]) for name, p in space.parameters.items()})
    elif isinstance(space, Text):
        start = space
    constraints: Any = ()
    if problem.constraint is not None:
        from scipy.optimize import NonlinearConstraint

        constraints = NonlinearConstraint(problem.constraint, -math.inf, 0.0)
    return minimize(
        problem.fun if fun is None else fun,
        start,
        method=wanted.name,
        bounds=space if isinstance(space, Box) or is_convex(space) else None,
        constraints=constraints,
        options=wanted.options or None,
        budget=budget,
        seed=seed,
        noise=problem.noisy,
        vectorized=problem.vectorized,
        **further,
    )


def run_cell(cell: Cell, budget: Budget, targets: str | None) -> Record:
    """Run a cell until its budget is gone or the last target is hit.

    A method that returns early is started again from a random point of the space with what is left; the
    points are the same for all methods.

    Args:
        cell: what to run; the problem is built anew.
        budget: of the run.
        targets: name of the targets, or None.

    The merit of a function's run is the lowest of the points evaluated; of an oracle's, that of what the solver
    recommends (:class:`~dfo.bench.Recorder`).

    Returns:
        The record. An exception of the method or the objective is in it as ``failure``; evaluations up to
        it count.

    Raises:
        KeyboardInterrupt: the run was interrupted; there is no record of a part of a run.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    record = Record(cell.problem, cell.method, cell.seed, dim=Label.of(cell.problem).dim)
    recorder: Recorder | None = None
    try:
        problem = make(cell.problem)
        granted = budget.evaluations(problem.space.dim)
        record = replace(record, dim=problem.space.dim, group=problem.group, budget=granted)
        recorder = Recorder(problem, TARGETS[targets] if targets else ())
        record = replace(record, targets=len(recorder.targets))
        runs, failed = _exhaust(cell, problem, recorder, granted)
        record = replace(record, runs=runs, failed_evaluations=failed)
    except Exception as error:  # whatever a method or a problem raises belongs into the record
        text = "".join(traceback.format_exception(error))
        record = replace(record, failure=Failure(type(error).__name__, scrub(str(error)), scrub(text)[-4000:]))
    if recorder is not None:
        counts = [*_spaced(record.budget), *(b.evaluations(record.dim) for b in budget.prefixes())]
        trace = tuple((count, float(f"{value:.6g}")) for count, value in thinned(recorder.steps, counts))
        record = replace(record, evaluations=recorder.evaluations, hits=tuple(recorder.hits), trace=trace)
    return replace(
        record, seconds=round(time.perf_counter() - wall, 4), cpu_seconds=round(time.process_time() - cpu, 4)
    )


def _exhaust(cell: Cell, problem: Problem, recorder: Recorder, budget: int) -> tuple[int, int]:
    """Start the method until there is nothing left; return (starts, evaluations without a usable value)."""
    runs = failed = idle = 0
    while recorder.evaluations < budget and not recorder.done:
        x0 = problem.space.sample(cell.key.child("restart", runs), 1)[0] if runs else None
        before = recorder.evaluations
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EvaluationWarning)  # the record counts them
            result = solve(
                problem, cell.method, budget - before, cell.run_seed(runs), x0=x0, fun=recorder.fun, stop=recorder.stop
            )
        if result.status == "interrupted":
            raise KeyboardInterrupt
        runs, failed = runs + 1, failed + result.nfail
        if result.status == "budget" and recorder.fun is not recorder:
            break  # what is left is too little for another question to the oracle
        idle = idle + 1 if recorder.evaluations == before else 0
        if idle == 3:
            raise Idle(f"{cell.method} returned three times without an evaluation: {result.message}")
    return runs, failed


def _spaced(budget: int) -> list[int]:
    """Return counts from 1 to ``budget``, evenly spaced in their logarithm."""
    steps = math.ceil(PER_DECADE * math.log10(max(budget, 1)))
    return [*sorted({round(10 ** (i / PER_DECADE)) for i in range(steps)}), budget]
