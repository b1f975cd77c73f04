"""The front door: ``minimize`` and ``maximize``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from dfo.arrays import is_array, release
from dfo.encodings import Identity
from dfo.errors import InvalidType, short
from dfo.oracles.function import Function
from dfo.run import validate
from dfo.run.asynchronous import AsTheyEnd, lanes_of_workers
from dfo.run.durable import Arguments, Keeper, begin, finished, opened, restore, spent_before, take_up
from dfo.run.finish import judge_of, result_of
from dfo.run.interrupt import Interruptible
from dfo.run.loop import Loop, lanes_of
from dfo.run.peers import peer_is_native, run_peer
from dfo.run.result import Result
from dfo.run.session import ObjectiveRaised, Session
from dfo.run.setup import Setup, resolve
from dfo.sets.convex import is_convex

__all__ = ["maximize", "minimize", "run"]


def minimize(
    fun: Any,
    x0: Any = None,
    args: tuple[Any, ...] = (),
    method: Any = "auto",
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    budget: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    workers: Any = None,
    store: Any = None,
    known: tuple[Sequence[Any], Sequence[float]] | None = None,
    noise: bool | float | None = None,
    timeout: float | str | None = None,
    eval_timeout: float | None = None,
    retries: int = 1,
    stop: Any = None,
    vectorized: bool = False,
    on_error: Literal["raise", "record"] = "raise",
    asynchronous: bool = False,
) -> Result:
    """Find a point where ``fun`` is low, by evaluations alone.

    Args:
        fun: the objective ``fun(x, *args) -> float``, or an oracle. It gets a private copy of each point.
            NaN and infinite values are masked: ranked last, counted, never the result.
        x0: ``(d,)`` start (numpy, torch on any device, or a list); or a space, such as a dictionary of
            :class:`~dfo.Float`, :class:`~dfo.Int`, :class:`~dfo.Choice`; or None with finite bounds.
        args: further arguments of ``fun``.
        method: ``"auto"`` (see :mod:`dfo.run.auto`), a name (``dfo list solvers``), a solver such as
            ``dfo.CMA(population=20)``, or a peer: ``"scipy:COBYQA"``, ``"pycma"``, ``"nevergrad:NGOpt"``.
        bounds: one ``(lower, upper)`` pair per variable, None for no bound, or scipy's ``Bounds``. Between
            two finite bounds, lengths such as ``sigma`` are fractions of the width. Or a convex set, such as
            ``dfo.L1Ball(50)`` (:mod:`dfo.sets`), which may also be x0: the result is then a point of the set,
            although some methods query a little beside it.
        constraints: scipy's forms. Feasible points come before infeasible ones.
        tol: tolerance at which the solver takes itself to have converged.
        callback: called with a :class:`~dfo.Progress` after each step; several in a list. ``StopIteration``
            ends the run.
        options: fields of the solver by name; an unknown one is an error that names the nearest.
        budget: most evaluations, never exceeded; 0 evaluates nothing. Without it: 1000 per variable, and the
            run ends at its first convergence instead of restarting.
        seed: any integer >= 0. Equal seeds give equal runs.
        batch: evaluations per step. This changes the algorithm.
        workers: processes that evaluate at the same time (an int), ``"threads:8"``, ``"ray"``, a ``map``-like
            function, or a ``concurrent.futures`` executor. This never changes the result.
        store: file (``"run.db"``, or a :class:`dfo.Store`) that keeps every evaluation before the solver sees it. The
            same call goes on where an earlier one was stopped or killed, with the same result as if it had not been;
            with a larger budget, a run that has ended is extended.
        known: points and values from before: ``(X, y)``. They are not evaluated again.
        noise: whether equal points may get different values (or their standard deviation). Then ``x`` is the
            recommendation, re-evaluated with a twentieth of the budget. ``False`` says there is none, which
            lets ``auto`` choose faster methods.
        timeout: seconds, or a text such as ``"10m"``; between evaluations.
        eval_timeout: seconds that one evaluation may take; then its process is killed, and it has failed. Needs
            processes: without ``workers``, one.
        retries: times an evaluation whose process died is tried again before it has failed.
        stop: further reasons to end, such as ``dfo.Target(1e-8) | dfo.Stalled(500)``.
        vectorized: ``fun`` takes an ``(n, d)`` array (numpy or torch, as x0) and returns ``n`` values.
        on_error: ``"raise"``: an exception of ``fun`` ends the run and carries the result so far as
            ``exc.result``. ``"record"``: it is a failed evaluation and the run goes on.
        asynchronous: tell the solver each value as it ends, and give a free worker the next candidate at once, instead
            of waiting for the slowest of a batch. The result then depends on how long evaluations take.

    Returns:
        A :class:`~dfo.Result`. When the budget is spent ``success`` is false and ``x`` is the best point: no error.

    Raises:
        InvalidArgument: a value that cannot be used (a ``ValueError``), before the first evaluation.
        InvalidType: a type that cannot be used (a ``TypeError``), likewise.
        IncompatibleOracle: the method needs what the oracle does not give; names those that would do.
        BadObjective: the first value returned is not a number.

    Example:
        >>> import dfo
        >>> res = dfo.minimize(lambda x: (x[0] - 1) ** 2 + (x[1] + 2) ** 2, [0.0, 0.0], budget=500)
        >>> res.x.round(3)
        array([ 1., -2.])
    """
    arguments = Arguments(fun, x0, args, method, bounds, constraints, tol, options, seed, batch, noise, vectorized,
                          on_error, known)  # fmt: skip
    free = {
        "timeout": timeout, "workers": workers, "eval_timeout": eval_timeout, "retries": retries, "stop": stop,
        "asynchronous": asynchronous,
    }  # fmt: skip
    with opened(store) as kept:
        first = ... if kept is None else (kept.free or {}).get("granted", ...)
        setup = resolve(
            fun, x0, args, method, bounds, constraints, tol, callback, options,
            budget=budget, seed=seed, batch=batch, workers=workers, noise=noise, timeout=timeout, stop=stop,
            vectorized=vectorized, on_error=on_error, eval_timeout=eval_timeout, retries=retries, planned=first,
        )  # fmt: skip
        checked = validate.check_known(known, setup.space)
        if kept is not None:
            begin(kept, arguments, setup, free)
            setup = replace(setup, run=kept)
        if not asynchronous:
            return run(setup, checked)
        start = setup.space if x0 is None or not setup.given else x0
        lanes = lanes_of_workers(workers, setup.oracle, eval_timeout, retries)
        return run(setup, checked, AsTheyEnd(lanes, start, None if start is setup.space else bounds, seed, first))


def maximize(
    fun: Any,
    x0: Any = None,
    args: tuple[Any, ...] = (),
    method: Any = "auto",
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    budget: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    workers: Any = None,
    store: Any = None,
    known: tuple[Sequence[Any], Sequence[float]] | None = None,
    noise: bool | float | None = None,
    timeout: float | str | None = None,
    eval_timeout: float | None = None,
    retries: int = 1,
    stop: Any = None,
    vectorized: bool = False,
    on_error: Literal["raise", "record"] = "raise",
    asynchronous: bool = False,
) -> Result:
    """Find a point where ``fun`` is high: :func:`minimize` of ``-fun``, with the sign put back at the edge.

    Arguments are those of :func:`minimize`. A stop such as ``dfo.Target`` and the progress that a
    callback sees are in the minimised sign.

    Returns:
        The result, with ``fun``, ``best_fun`` and ``history`` in the user's sign.

    Example:
        >>> import dfo
        >>> round(dfo.maximize(lambda x: 3.0 - float(x @ x), [1.0, 1.0], budget=400).fun, 6)
        3.0
    """
    if hasattr(fun, "evaluate") and hasattr(fun, "gives"):
        raise InvalidType("fun: maximize takes a function; let an oracle answer with negated values instead.")
    if not callable(fun):
        raise InvalidType(f"fun: expected a function of one point, got {short(fun)}.")
    if known is not None:
        known = (known[0], (-np.asarray(known[1], dtype=float)).tolist())
    try:
        result = minimize(
            _Negated(fun), x0, args, method, bounds, constraints, tol, callback, options,
            budget=budget, seed=seed, batch=batch, workers=workers, store=store, known=known, noise=noise,
            timeout=timeout, eval_timeout=eval_timeout, retries=retries, stop=stop, vectorized=vectorized,
            on_error=on_error,
        )  # fmt: skip
    except Exception as error:
        carried = getattr(error, "result", None)
        if isinstance(carried, Result):
            error.result = carried.negated()  # type: ignore[attr-defined]
        raise
    return result.negated()


class _Negated:
    """``-fun``, picklable where ``fun`` is."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun = fun

    def __call__(self, x: Any, *args: Any) -> Any:
        value = self.fun(x, *args)
        if isinstance(value, (list, tuple)):
            return [-v for v in value]
        return value if isinstance(value, (str, bool, type(None))) else -value


def run(setup: Setup, known: Any = None, drive: Callable[..., Result] | None = None) -> Result:
    """Run a resolved setup to its end, step by step or as ``drive`` does."""
    with Interruptible() as interrupt:
        reserve = reserve_of(setup)
        native = drive is not None or peer_is_native(setup)
        session = Session(
            setup.kept if native else setup.seen, Identity(setup.space, setup.x0) if native else setup.encoding,
            setup.budget - reserve - spent_before(setup), setup.stop, setup.hooks, interrupt, setup.key.child("oracle"),
            lanes_of(setup.solver),
        )  # fmt: skip
        if isinstance(setup.oracle, Function) and session.watchful:
            setup.oracle.watch = session.watch
        take_up(setup, session)
        try:
            return finished(setup, (drive or _drive)(setup, session, known, reserve))
        except ObjectiveRaised as raised:
            result = finished(setup, result_of(setup, session))
            with contextlib.suppress(AttributeError, TypeError):
                raised.cause.result = result  # type: ignore[attr-defined]
            raise raised.cause from None
        finally:
            getattr(getattr(setup.oracle, "evaluator", None), "close", lambda: None)()
            release()  # the memory of large populations


def reserve_of(setup: Setup) -> int:
    """Return the part of the budget kept for evaluations of the recommendation.

    With noise, a twentieth; in a convex set, one evaluation: the queries of a solver may lie beside the set; on lanes
    at least one episode, where the budget has ten.
    """
    if "values" not in setup.oracle.gives:
        return 0
    inside = is_convex(setup.encoding.inner)
    price = math.ceil(getattr(judge_of(setup), "price", 1.0))
    needed = price if inside else 10 * price if lanes_of(setup.solver) else math.inf
    least = price if setup.budget >= needed else 0
    return max(least, min(30, setup.budget // 20) if setup.noisy else 0)


def _drive(setup: Setup, session: Session, known: Any, reserve: int) -> Result:
    if isinstance(setup.solver, str):
        run_peer(setup, session, known)
        return result_of(setup, session, reserve)
    start = setup.encoding.start
    if known is not None and len(known[1]):
        lowest = int(np.argmin(known[1]))
        session.note_known(known[0][lowest], float(known[1][lowest]))
    keeper = None if setup.run is None else Keeper(setup.run)
    loop = Loop(setup.solver, session, start, setup.key.child("solver"), keeper)
    if known is not None and len(known[1]):
        encoded = [setup.encoding.encode(p) for p in known[0]]
        loop.observe(np.stack(encoded) if is_array(encoded[0]) else encoded, known[1])
    if setup.run is not None:
        restore(setup.run, loop)
    loop.go()
    return result_of(setup, session, reserve)
