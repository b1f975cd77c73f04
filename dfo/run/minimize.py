"""The front door: ``minimize`` and ``maximize``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

import numpy as np

from dfo.arrays import is_array
from dfo.encodings import Encoding, Identity, encoding
from dfo.errors import InvalidArgument, InvalidType, short, unknown
from dfo.oracles.encoded import Encoded
from dfo.oracles.function import Function
from dfo.protocols import CONSTRAINTS, Hook, Oracle, Task
from dfo.random import Key
from dfo.run import auto, validate
from dfo.run.finish import result_of
from dfo.run.hooks import Print, as_hooks
from dfo.run.interrupt import Interruptible
from dfo.run.loop import Loop, check_fits, lanes_of
from dfo.run.peers import PEERS, is_peer, peer_is_native, run_peer
from dfo.run.result import Result
from dfo.run.session import ObjectiveRaised, Session
from dfo.run.stopping import AnyOf, MaxEvals, MaxSteps, MaxTime, seconds
from dfo.run.workers import mapper_of
from dfo.spaces import Box

__all__ = ["DEFAULT_BUDGET", "Setup", "maximize", "minimize", "resolve"]

DEFAULT_BUDGET = 1000
"""Evaluations per variable when no budget is given; the run then also ends at its first convergence."""

ALIASES: Mapping[str, str] = {
    "maxfev": "budget",
    "maxfun": "budget",
    "maxiter": "steps",
    "maxtime": "timeout",
    "disp": "disp",
    "popsize": "population",
    "sigma0": "sigma",
    "xatol": "xtol",
    "fatol": "ftol",
}
"""Words of scipy, pycma and their kin, accepted in ``options``."""


@dataclass(frozen=True, eq=False)
class Setup:
    """A run's arguments, judged and resolved.

    Args:
        oracle: answers in user coordinates.
        encoding: between user points and solver coordinates.
        solver: a planned solver, or the name of a peer.
        reason: why ``auto`` chose it.
        budget: hard budget.
        granted: the user's budget, or None.
        stop: further stops.
        hooks: hooks.
        key: the run's key.
        noisy: whether equal points may get different values.
        options: options of a peer.
        x0: the start as the user sees it.
        constraints: scipy's constraints, for peers that take them natively.
    """

    oracle: Oracle[Any]
    encoding: Encoding
    solver: Any
    reason: str
    budget: int
    granted: int | None
    stop: Any
    hooks: tuple[Hook, ...]
    key: Key
    noisy: bool
    options: Mapping[str, Any]
    x0: Any
    space: Any
    constraints: Any = ()

    @property
    def seen(self) -> Oracle[Any]:
        """The oracle in solver coordinates."""
        plain = self.encoding.inner is self.space
        return self.oracle if plain else Encoded(self.oracle, self.encoding)


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
    known: tuple[Sequence[Any], Sequence[float]] | None = None,
    noise: bool | float | None = None,
    timeout: float | str | None = None,
    stop: Any = None,
    vectorized: bool = False,
    on_error: Literal["raise", "record"] = "raise",
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
            two finite bounds, lengths such as ``sigma`` are fractions of the width.
        constraints: scipy's forms. Feasible points come before infeasible ones.
        tol: tolerance at which the solver takes itself to have converged.
        callback: called with a :class:`~dfo.Progress` after each step; several in a list. ``StopIteration``
            ends the run.
        options: fields of the solver by name; an unknown one is an error that names the nearest.
        budget: most evaluations, never exceeded; 0 evaluates nothing. Without it: 1000 per variable, and the
            run ends at its first convergence instead of restarting.
        seed: any integer >= 0. Equal seeds give equal runs.
        batch: evaluations per step. This changes the algorithm.
        workers: processes that evaluate at the same time (an int), a ``map``-like function, or a
            ``concurrent.futures`` executor. This never changes the result.
        known: points and values from before: ``(X, y)``. They are not evaluated again.
        noise: whether equal points may get different values (or their standard deviation). Then ``x`` is the
            recommendation, re-evaluated with a twentieth of the budget. ``False`` says there is none, which
            lets ``auto`` choose faster methods.
        timeout: seconds, or a text such as ``"10m"``.
        stop: further reasons to end, such as ``dfo.Target(1e-8) | dfo.Stalled(500)``.
        vectorized: ``fun`` takes an ``(n, d)`` array (numpy or torch, as x0) and returns ``n`` values.
        on_error: ``"raise"``: an exception of ``fun`` ends the run and carries the result so far as
            ``exc.result``. ``"record"``: it is a failed evaluation and the run goes on.

    Returns:
        A :class:`~dfo.Result`. Running out of budget is not an error: ``success`` is false, ``x`` is the best.

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
    setup = resolve(
        fun, x0, args, method, bounds, constraints, tol, callback, options,
        budget=budget, seed=seed, batch=batch, workers=workers, noise=noise, timeout=timeout, stop=stop,
        vectorized=vectorized, on_error=on_error,
    )  # fmt: skip
    checked = validate.check_known(known, setup.space.dim)
    return run(setup, checked)


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
    known: tuple[Sequence[Any], Sequence[float]] | None = None,
    noise: bool | float | None = None,
    timeout: float | str | None = None,
    stop: Any = None,
    vectorized: bool = False,
    on_error: Literal["raise", "record"] = "raise",
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
    if hasattr(fun, "evaluate"):
        raise InvalidType("fun: maximize takes a function; let an oracle answer with negated values instead.")
    if not callable(fun):
        raise InvalidType(f"fun: expected a function of one point, got {short(fun)}.")
    if known is not None:
        known = (known[0], (-np.asarray(known[1], dtype=float)).tolist())
    return minimize(
        _Negated(fun), x0, args, method, bounds, constraints, tol, callback, options,
        budget=budget, seed=seed, batch=batch, workers=workers, known=known, noise=noise, timeout=timeout,
        stop=stop, vectorized=vectorized, on_error=on_error,
    ).negated()  # fmt: skip


class _Negated:
    """``-fun``, picklable where ``fun`` is."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun = fun

    def __call__(self, x: Any, *args: Any) -> Any:
        value = self.fun(x, *args)
        if isinstance(value, (list, tuple)):
            return [-v for v in value]
        return value if isinstance(value, (str, bool, type(None))) else -value


def resolve(
    fun: Any, x0: Any, args: Any, method: Any, bounds: Any, constraints: Any, tol: Any, callback: Any, options: Any,
    *, budget: Any, seed: Any, batch: Any, workers: Any, noise: Any, timeout: Any, stop: Any, vectorized: bool,
    on_error: Any,
) -> Setup:  # fmt: skip
    """Judge every argument of :func:`minimize` and return what they mean together."""
    space, start = validate.space_and_start(x0, bounds)
    key = Key.of(seed)
    extra, options = _split(options)
    granted = validate.check_budget(extra.get("budget", budget))
    count = validate.check_count("batch", batch, 1)
    hooks = as_hooks(callback) + ((Print(),) if extra.get("disp") else ())
    stop = _stops(stop, timeout if timeout is not None else extra.get("timeout"), extra.get("steps"))
    for evals in [s for s in getattr(stop, "stops", ()) if isinstance(s, MaxEvals)]:
        granted = evals.n if granted is None else min(granted, evals.n)
    oracle = _oracle(fun, args, vectorized, on_error, validate.violation_of(constraints), workers)
    if CONSTRAINTS not in oracle.gives:
        constraints = ()
    seen = encoding(space, start)
    noisy = bool(noise)
    integers = isinstance(seen.inner, Box) and bool(seen.inner.cells.any())
    reason = ""
    if isinstance(method, str) and method == "auto" or method is None:
        method, reason = auto.choose(space, space.dim, granted, noise, oracle.gives, integers)
    solver: Any = method
    if not (isinstance(method, str) and is_peer(method)):
        task = Task(seen.inner, granted, count, oracle.gives, noisy, oracle.max_batch)
        solver = _solver(method, options, tol, task)
        check_fits(solver, oracle, method if isinstance(method, str) else type(method).__name__)
    elif tol is not None:
        options = {**options, "tol": tol}
    return Setup(
        oracle, seen, solver, reason, DEFAULT_BUDGET * space.dim if granted is None else granted, granted,
        stop, hooks, key, noisy, options, start, space, constraints,
    )  # fmt: skip


def _split(options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that belong to the run, and those of the solver by their dfo names."""
    if options is not None and not isinstance(options, Mapping):
        raise InvalidType(f"options: expected a mapping of names to values, got {short(options)}.")
    run: dict[str, Any] = {}
    mine: dict[str, Any] = {}
    for name, value in (options or {}).items():
        word = ALIASES.get(name, name)
        target = run if word in ("budget", "steps", "timeout", "disp") and name in ALIASES else mine
        if value is not None:
            target[word] = value
    if "steps" in run:
        run["steps"] = validate.check_count("maxiter", run["steps"], 0)
    return run, mine


def _stops(stop: Any, timeout: Any, steps: int | None) -> Any:
    parts: tuple[Any, ...] = ()
    if stop is not None:
        if not callable(stop):
            raise InvalidType(f"stop: expected a stop such as dfo.Target(1e-8), got {short(stop)}.")
        parts = stop.stops if isinstance(stop, AnyOf) else (stop,)
    if timeout is not None:
        parts += (MaxTime(seconds(timeout)),)
    if steps is not None:
        parts += (MaxSteps(steps),)
    return AnyOf(parts) if parts else None


def _oracle(fun: Any, args: Any, vectorized: bool, on_error: Any, violation: Any, workers: Any) -> Oracle[Any]:
    if hasattr(fun, "evaluate") and hasattr(fun, "gives"):
        if vectorized or args or violation is not None or workers is not None:
            raise InvalidArgument("args, vectorized, constraints and workers belong to functions; an oracle has its own.")
        oracle: Oracle[Any] = fun
        return oracle
    if not callable(fun):
        raise InvalidType(f"fun: expected a function of one point, or an oracle, got {short(fun)}.")
    if on_error not in ("raise", "record"):
        raise InvalidArgument(f'on_error: expected "raise" or "record", got {short(on_error)}.')
    args = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    return Function(
        fun, args, vectorized=vectorized, on_error=on_error, violation=violation, mapper=mapper_of(workers, fun)
    )


def _solver(method: Any, options: Mapping[str, Any], tol: Any, task: Task) -> Any:
    from dfo.solvers import SOLVERS, solver_class

    if isinstance(method, str):
        if method not in SOLVERS:
            raise unknown("method", method, [*SOLVERS, *PEERS, "auto"])
        cls = solver_class(method)
        solver = cls(**validate.options_for(cls, options))
    elif is_dataclass(method) and hasattr(method, "ask") and not isinstance(method, type):
        solver = replace(method, **validate.options_for(type(method), options))  # type: ignore[type-var]
    else:
        raise InvalidType(f'method: expected a name such as "cma" or a solver such as dfo.CMA(), got {short(method)}.')
    if tol is not None:
        fields = [name for name in ("tol", "xtol", "ftol") if hasattr(solver, name)]
        if not fields:
            raise InvalidArgument(f"tol: {type(solver).__name__} has no tolerance. Use stop=dfo.Stalled(n) instead.")
        solver = replace(solver, **dict.fromkeys(fields, float(tol)))
    return solver.plan(task) if hasattr(solver, "plan") else solver


def run(setup: Setup, known: Any = None) -> Result:
    """Run a resolved setup to its end."""
    with Interruptible() as interrupt:
        reserve = min(30, setup.budget // 20) if setup.noisy else 0
        native = isinstance(setup.solver, str) and peer_is_native(setup)
        session = Session(
            setup.oracle if native else setup.seen, Identity(setup.space, setup.x0) if native else setup.encoding,
            setup.budget - reserve, setup.stop, setup.hooks, interrupt, setup.key.child("oracle"),
            lanes_of(setup.solver),
        )  # fmt: skip
        if isinstance(setup.oracle, Function) and session.watchful:
            setup.oracle.watch = session.watch
        try:
            return _drive(setup, session, known, reserve)
        except ObjectiveRaised as raised:
            with contextlib.suppress(AttributeError, TypeError):
                raised.cause.result = result_of(setup, session)  # type: ignore[attr-defined]
            raise raised.cause from None


def _drive(setup: Setup, session: Session, known: Any, reserve: int) -> Result:
    if isinstance(setup.solver, str):
        run_peer(setup, session, known)
        return result_of(setup, session)
    start = setup.encoding.start
    if known is not None and len(known[1]):
        lowest = int(np.argmin(known[1]))
        session.note_known(known[0][lowest], float(known[1][lowest]))
    loop = Loop(setup.solver, session, start, setup.key.child("solver"))
    if known is not None and len(known[1]):
        encoded = [setup.encoding.encode(p) for p in known[0]]
        loop.observe(np.stack(encoded) if is_array(encoded[0]) else encoded, known[1])
    loop.go()
    return result_of(setup, session, loop, reserve)
