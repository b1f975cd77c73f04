"""From the books of a session to the result of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dfo.arrays import Floats, copy, is_array, namespace
from dfo.batch import Batch, Items, Points
from dfo.oracles.function import Function, Halted
from dfo.run.recorded import recorded
from dfo.run.result import STATUS, Result, versions
from dfo.run.session import Session

if TYPE_CHECKING:
    from dfo.run.setup import Setup

__all__ = ["judge_of", "result_of"]


def result_of(setup: Setup, session: Session, reserve: int = 0) -> Result:
    """Return the result; with noise, spend ``reserve`` of the budget on evaluations of the recommendation."""
    session.warn()
    x, fun, stderr = session.best_x, session.best_fun, 0.0
    if session.inside is not None and not setup.noisy:
        _try_recommended(session, reserve, setup)
        x, fun, reserve = session.best_x, session.best_fun, 0
    if setup.noisy or x is None:
        x, fun, stderr = _recommended(session, reserve, setup)
    status, message = session.status or "finished", session.message
    lost = session.nfail > 0 and session.nfail >= session.nfev
    if x is None or (lost and session.best_x is None):
        x, fun, stderr = (copy(setup.x0) if is_array(setup.x0) else setup.x0), math.nan, 0.0
    if lost and status not in ("error", "interrupted"):
        status, message = "all_failed", STATUS["all_failed"] + (f" The first {session.note}." if session.note else "")
    elif status == "budget":
        fell = f"; the lowest value fell last at {session.best_at}" if session.best_at else ""
        message = f"The evaluation budget of {setup.budget} is spent{fell}."
    fun = fun if math.isfinite(fun) else math.nan
    solver: Any = setup.solver
    return Result(
        x=x,
        fun=fun,
        success=status in ("target", "finished") and session.best_violation <= 0.0 and not math.isnan(fun),
        status=status,
        message=message or STATUS[status],
        nfev=session.nfev,
        nit=session.nit,
        cost=session.spent,
        nfail=session.nfail,
        seconds=session.seconds,
        best_x=session.best_x,
        best_fun=session.best_fun if math.isfinite(session.best_fun) else math.nan,
        fun_stderr=stderr,
        violation=session.best_violation,
        history=session.history,
        method=solver if isinstance(solver, str) else describe(solver),
        reason=setup.reason,
        seed=setup.key.seed,
        gauges=dict(session.gauges()),
        versions=versions(),
    )


def describe(solver: Any) -> str:
    """Return the solver as it would be written, without the space that the run filled in."""
    shown = replace(solver, space=None) if hasattr(solver, "space") else solver
    return repr(shown).replace(", space=None", "").replace("space=None", "")


def judge_of(setup: Setup) -> Any:
    """Return the oracle that evaluates the recommendation.

    One with lanes tells the loss of an unroll; what counts is that of an episode, where episodes end.
    """
    oracle: Any = setup.oracle
    return oracle.whole() if hasattr(oracle, "whole") and oracle.horizon < math.inf else oracle


def _again(setup: Setup, batch: Batch, session: Session) -> Any:
    judge = judge_of(setup)
    try:
        with last_words(setup):
            return recorded(judge, setup.run).evaluate(batch, session.memory if judge is setup.oracle else ())[0]
    except Halted as halt:  # time is over, or the objective raised: the mean of what there is
        return halt.done


@contextmanager
def last_words(setup: Setup) -> Iterator[None]:
    """Context whose evaluations are the run's last: a run that is extended later does not ask them again."""
    if setup.run is not None:
        setup.run.final = setup.budget
    try:
        yield
    finally:
        if setup.run is not None:
            setup.run.final = 0


def _many_times(x: Any, count: int, setup: Setup, session: Session) -> Any:
    """Return the values of ``count`` evaluations of ``x``.

    An oracle that chooses the data of a batch by its step (a minibatch, an episode) is asked step by step: the
    same data again would say nothing about the error of the mean.
    """
    judge = judge_of(setup)
    each = 1 if isinstance(judge, Function) or judge is not setup.oracle else count
    told: Any = None
    for i in range(each):
        n, step = count // each, session.nit + i
        batch: Batch = Points(namespace(x).stack([x] * n), step=step) if is_array(x) else Items([x] * n, step=step)
        more = _again(setup, batch, session)
        told = more if told is None else told.joined(more)
        if len(more.f) < n:  # halted
            break
    return told


def _try_recommended(session: Session, reserve: int, setup: Setup) -> None:
    """Evaluate the recommendation, a point of the set that the solver may never have asked about."""
    x = session.recommended()
    if x is None or not reserve or session.status in ("interrupted", "error"):
        return
    told = _again(setup, Points(x[None]), session)
    session.count(Points(x[None][: len(told.f)]), told)


def _recommended(session: Session, reserve: int, setup: Setup) -> tuple[Any, float, float]:
    """Return the recommendation, the mean of its re-evaluations and the standard error of that mean."""
    price = float(getattr(judge_of(setup), "price", 1.0))
    x, count = session.recommended(), int(reserve / price)
    if x is None or not count or session.status in ("interrupted", "error") or "values" not in setup.oracle.gives:
        return x, (session.best_fun if not setup.noisy else math.nan), 0.0
    status, message = session.status, session.message
    session.budget += reserve
    told = _many_times(x, count, setup, session)
    session.count_again(told, price)
    session.status, session.message = status, message
    f: Floats = told.f[told.valid]
    if not f.size:
        return x, math.nan, 0.0
    return x, float(f.mean()), float(f.std(ddof=1) / math.sqrt(f.size)) if f.size > 1 else math.inf
