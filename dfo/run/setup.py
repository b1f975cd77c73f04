"""A run's arguments, judged and resolved into one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from dfo.arrays import is_blocks
from dfo.encodings import Encoding, encoding
from dfo.errors import InvalidArgument, InvalidType, short, unknown
from dfo.oracles.encoded import Encoded
from dfo.oracles.function import Function
from dfo.protocols import CONSTRAINTS, Hook, Oracle, Task
from dfo.random import Key
from dfo.run import auto, validate
from dfo.run.crew import evaluator_of
from dfo.run.hooks import Print, as_hooks
from dfo.run.loop import check_fits, lanes_of
from dfo.run.memory import check_memory
from dfo.run.peers import PEERS, is_peer
from dfo.run.recorded import recorded
from dfo.run.stopping import AnyOf, MaxEvals, MaxSteps, MaxTime, seconds
from dfo.sets.convex import is_convex
from dfo.spaces import Box, Free, Named, Text

__all__ = ["ALIASES", "DEFAULT_BUDGET", "Setup", "resolve", "solver_of"]

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

GRACE = 3.5
"""Seconds that evaluations under way get when a run is to end: with all the rest, it ends within five."""

RUN_WORDS = ("budget", "steps", "timeout", "disp")
"""What :data:`ALIASES` may name that belongs to the run and not to the solver."""


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
        given: whether that start is the user's choice.
        space: the space as the user sees it.
        constraints: scipy's constraints, for peers that take them natively.
        run: the store that keeps what is asked and answered, or None.
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
    given: bool
    space: Any
    constraints: Any = ()
    run: Any = None

    @property
    def kept(self) -> Oracle[Any]:
        """The oracle, its answers kept where the run has a store."""
        return recorded(self.oracle, self.run)

    @property
    def seen(self) -> Oracle[Any]:
        """The oracle in solver coordinates."""
        plain = self.encoding.inner is self.space
        return self.kept if plain else Encoded(self.kept, self.encoding)


def resolve(
    fun: Any, x0: Any, args: Any, method: Any, bounds: Any, constraints: Any, tol: Any, callback: Any, options: Any,
    *, budget: Any, seed: Any, batch: Any, workers: Any, noise: Any, timeout: Any, stop: Any, vectorized: bool,
    on_error: Any, eval_timeout: Any = None, retries: Any = 1, planned: Any = ...,
) -> Setup:  # fmt: skip
    """Judge every argument of :func:`minimize` and return what they mean together.

    ``planned`` is the budget that the solver plans for, where it is not the one granted: a run that is extended goes
    on as it was planned.
    """
    if x0 is None:
        x0 = getattr(fun, "x0", None)  # an oracle that knows where to start, such as the weights of a network
    space, start = validate.space_and_start(x0, bounds)
    key = Key.of(seed)
    validate.check_positive("tol", tol)
    validate.check_noise(noise)
    peer = isinstance(method, str) and method != "auto" and is_peer(method)
    extra, options = _split(options, peer)
    granted = validate.check_budget(extra.get("budget", budget))
    count = validate.check_count("batch", batch, 1)
    hooks = as_hooks(callback) + ((Print(),) if extra.get("disp") else ())
    stop = _stops(stop, timeout if timeout is not None else extra.get("timeout"), extra.get("steps"))
    for evals in [s for s in getattr(stop, "stops", ()) if isinstance(s, MaxEvals)]:
        granted = evals.n if granted is None else min(granted, evals.n)
    ahead = granted if planned is ... else planned
    oracle = _oracle(
        fun, args, vectorized, on_error, validate.violation_of(constraints), workers, eval_timeout, retries
    )
    if CONSTRAINTS not in oracle.gives:
        constraints = ()
    seen = encoding(space, start)
    noisy = bool(noise)
    integers = isinstance(seen.inner, Box) and bool(seen.inner.cells.any())
    reason, serial = "", count is None  # workers must not matter: they never change a result
    if (isinstance(method, str) and method == "auto") or method is None:
        method, reason = auto.choose(space, space.dim, ahead, noise, oracle.gives, integers, serial)
    solver: Any = method
    if peer and is_convex(space):
        raise InvalidArgument(f"method: {method} knows no convex sets. Use method='auto', or one of dfo's that do.")
    if not (isinstance(method, str) and is_peer(method)):
        task = Task(seen.inner, ahead, count, oracle.gives, noisy, oracle.max_batch)
        solver = solver_of(method, options, tol, task)
        kind = "convex" if is_convex(space) else "text" if isinstance(space, Text) else "vector"
        check_fits(solver, oracle, _called(method), kind)
        noisy = noisy or lanes_of(solver) > 0  # a value depends on the inner state: the lowest one seen is no result
    else:
        if count is not None:
            raise InvalidArgument(f"batch: {method} chooses its own; drop it, or use one of dfo's solvers.")
        options = ({"restart": ahead is not None} if reason else {}) | options
        options |= {} if tol is None else {"tol": tol}
    check_memory(solver, _called(method), 0 if is_blocks(start) else space.dim)
    return Setup(
        oracle, seen, solver, reason, DEFAULT_BUDGET * space.dim if granted is None else granted, granted,
        stop, hooks, key, noisy, options, start, _is_point(x0), space, constraints,
    )  # fmt: skip


def _called(method: Any) -> str:
    return method if isinstance(method, str) else type(method).__name__


def _is_point(x0: Any) -> bool:
    return x0 is not None and not isinstance(x0, (Mapping, Free, Box, Named, Text)) and not is_convex(x0)


def _split(options: Any, peer: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that belong to the run, and those of the solver by their dfo names.

    The options of a peer keep its own names; only the words for the budget are the run's.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InvalidType(f"options: expected a mapping of names to values, got {short(options)}.")
    run: dict[str, Any] = {}
    mine: dict[str, Any] = {}
    for name, value in (options or {}).items():
        word = ALIASES.get(name, name)
        if value is None:
            continue
        if name in ALIASES and word in RUN_WORDS and not (peer and word == "steps"):
            run[word] = value
        else:
            mine[name if peer else word] = value
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


def _oracle(
    fun: Any, args: Any, vectorized: bool, on_error: Any, violation: Any, workers: Any, eval_timeout: Any, retries: Any
) -> Oracle[Any]:
    validate.check_positive("eval_timeout", eval_timeout)
    retries = validate.check_count("retries", retries, 0)
    if hasattr(fun, "evaluate") and hasattr(fun, "gives"):
        if vectorized or args or violation is not None or workers is not None or eval_timeout is not None:
            raise InvalidArgument(
                "args, vectorized, constraints, workers and eval_timeout belong to functions; an oracle has its own."
            )
        oracle: Oracle[Any] = fun
        return oracle
    if not callable(fun):
        raise InvalidType(f"fun: expected a function of one point, or an oracle, got {short(fun)}.")
    if on_error not in ("raise", "record"):
        raise InvalidArgument(f'on_error: expected "raise" or "record", got {short(on_error)}.')
    args = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    function = Function(fun, args, vectorized=vectorized, on_error=on_error, violation=violation)
    evaluator = evaluator_of(workers, function.call, eval_timeout=eval_timeout, retries=retries or 0, grace=GRACE)
    if vectorized and evaluator is not None:
        raise InvalidArgument("workers: a vectorized objective gets the whole batch; give one or the other.")
    function.evaluator = evaluator
    return function


def check_moves(solver: Any, space: Any) -> None:
    """Refuse a solver that does not move in a space, as its ``spaces`` say.

    Raises:
        InvalidArgument: naming the methods that do.
    """
    from dfo.solvers import SOLVERS, solver_class

    spaces, name = getattr(solver, "spaces", None), type(solver).__name__
    if isinstance(space, Text) and "text" not in (spaces or {"text"}):
        raise InvalidArgument(f"method: {name} moves vectors and cannot search text. Use 'random'.")
    if is_convex(space) and "convex" not in (spaces or ()):
        fitting = [m for m in SOLVERS if "convex" in getattr(solver_class(m), "spaces", ())]
        raise InvalidArgument(
            f"method: {name} would leave {short(space)}. These methods move in convex sets: {', '.join(fitting)}."
        )
    bounded = isinstance(space, Box) and bool(space.bounded.all())
    if isinstance(space, (Free, Box)) and not bounded and spaces is not None and "vector" not in spaces:
        hint = "two finite bounds per variable, or a set such as bounds=dfo.L1Ball(d)" if "convex" in spaces else "text"
        raise InvalidArgument(f"method: {name} cannot move in {short(space)}. Give it {hint}.")


def solver_of(method: Any, options: Mapping[str, Any], tol: Any, task: Task) -> Any:
    """Return the planned solver that a name or an instance stands for.

    Raises:
        UnknownName: no method, or no option of it, has that name.
        InvalidType: ``method`` is neither a name nor a solver.
        InvalidArgument: a tolerance for a solver without one.
    """
    from dfo.solvers import SOLVERS, solver_class

    if isinstance(method, str):
        if method not in SOLVERS:
            raise unknown("method", method, [*SOLVERS, *PEERS, "auto"])
        cls = solver_class(method)
        solver = cls(**validate.options_for(cls, options))
    elif is_dataclass(method) and hasattr(method, "ask") and not isinstance(method, type):
        solver = replace(method, **validate.options_for(type(method), options))
    else:
        raise InvalidType(f'method: expected a name such as "cma" or a solver such as dfo.CMA(), got {short(method)}.')
    check_moves(solver, task.space)
    if tol is not None:
        fields = [name for name in ("tol", "xtol", "ftol") if hasattr(solver, name)]
        if not fields:
            raise InvalidArgument(f"tol: {type(solver).__name__} has no tolerance. Use stop=dfo.Stalled(n) instead.")
        solver = replace(solver, **dict.fromkeys(fields, float(tol)))
    return solver.plan(task) if hasattr(solver, "plan") else solver
