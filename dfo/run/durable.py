"""A run that a killed process does not lose: begun in a store, or taken up where the store ends.

Taking up is replay: the same arguments make the solver ask the same questions, and the store answers those that it
knows. What was kept of the solver's state and of the session's books now and then only shortens it. A larger budget
extends a run that has ended: its solver keeps the plan it made for the first one.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.errors import BadState, CannotWrite, InvalidType, short
from dfo.random import RNG_VERSION
from dfo.run.finish import describe
from dfo.run.identity import changed_lines, identity
from dfo.run.result import STATUS

if TYPE_CHECKING:
    from dfo.run.loop import Loop
    from dfo.run.result import Result
    from dfo.run.session import Session
    from dfo.run.setup import Setup
    from dfo.run.store import Run

__all__ = ["Books", "Keeper", "Standing", "finished", "opened", "restore", "spent_before", "take_up"]

SHARE = 0.02
"""Most of the time that goes into keeping states."""


@contextmanager
def opened(store: Any) -> Iterator[Run | None]:
    """Context with the run of a store, or None without one; what ends it by an exception is noted.

    Raises:
        InvalidType: it is neither a path nor a :class:`dfo.Store`.
        RunLocked, DamagedStore, CannotWrite: see :class:`dfo.Store`.
    """
    if store is None:
        yield None
        return
    from os import PathLike

    from dfo.run.store import Run, Store

    if isinstance(store, (str, PathLike)):
        store = Store(store)
    if not isinstance(store, Store):
        raise InvalidType(f'store: expected a path such as "run.db", or a dfo.Store, got {short(store)}.')
    run = Run.open(store)
    try:
        yield run
    except KeyboardInterrupt:
        with suppress(CannotWrite):
            run.finish("interrupted", STATUS["interrupted"], {})
        raise
    except Exception as error:
        if not isinstance(error, BadState) and not run.fresh and getattr(error, "result", None) is None:
            with suppress(CannotWrite):
                run.finish("error", f"{type(error).__name__}: {error}", {})  # of a callback, of a solver
        raise
    finally:
        with suppress(CannotWrite):
            run.close()


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of :func:`dfo.minimize` that make a run what it is; others may change when it is taken up."""

    objective: Any
    x0: Any
    args: Any
    method: Any
    bounds: Any
    constraints: Any
    tol: Any
    options: Any
    seed: Any
    batch: Any
    noise: Any
    vectorized: Any
    on_error: Any
    known: Any


def begin(run: Run, arguments: Arguments, setup: Setup, free: Mapping[str, Any]) -> None:
    """Write what a run is begun with, or compare it with what it was begun with.

    Raises:
        RunMismatch: naming every difference.
    """
    config = {f.name: identity(getattr(arguments, f.name)) for f in fields(arguments)}
    solver = setup.solver if isinstance(setup.solver, str) else describe(setup.solver)
    config |= {"solver": solver, "rng": RNG_VERSION}
    if not run.fresh:
        config["objective"] = _told_apart(arguments.objective, run.config or {}, config["objective"])
    granted = setup.granted if run.fresh else (run.free or {}).get("granted")
    plain = {name: short(value) if name == "workers" and not _is_plain(value) else identity(value)
             for name, value in free.items()}  # fmt: skip
    run.begin(config, {"granted": granted, "budget": setup.budget, **plain})


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, str))


def _told_apart(objective: Any, config: Mapping[str, Any], now: Any) -> Any:
    """Add to a changed objective the lines of it that were not there."""
    before = config.get("objective")
    if before == now or not isinstance(before, dict) or not isinstance(now, dict):
        return now
    lines = changed_lines(objective, before.get("lines") or ())
    return now | {"changed": lines} if lines else now


def spent_before(setup: Setup) -> int:
    """Return evaluations of recommendations when the run ended with smaller budgets: the extended one pays them."""
    return 0 if setup.run is None else int(setup.run.finals(setup.budget))


@dataclass(frozen=True, eq=False)
class Books:
    """What a session has counted so far; the values themselves lie in the store."""

    nfev: int
    nit: int
    nfail: int
    best_at: int
    spent: float
    best_x: Any
    best_fun: float
    best_merit: float
    best_violation: float
    note: str
    lowest: float
    fell_at: int
    values: int
    violation: Any = None  # (values,) where queries beside a convex set are in it

    @classmethod
    def of(cls, session: Session) -> Books:
        """Return what a session has counted."""
        plain = {f.name: getattr(session, f.name) for f in fields(cls) if hasattr(session, f.name)}
        violation = np.array(session._violation) if session.inside is not None and len(session._violation) else None
        return cls(
            **plain, lowest=session._lowest, fell_at=session._fell_at, values=len(session._fun), violation=violation
        )

    def put_back(self, session: Session, values: Any, violation: Any) -> None:
        """Let a session go on from here, with its ``(values,)`` values so far."""
        for name in (f.name for f in fields(self)):
            if hasattr(session, name):
                setattr(session, name, getattr(self, name))
        session._lowest, session._fell_at = self.lowest, self.fell_at
        violation = self.violation if self.violation is not None else violation
        session._fun = array("d", np.ascontiguousarray(values, dtype=float).tobytes())
        if violation is not None:
            session._violation = array("d", np.ascontiguousarray(violation, dtype=float).tobytes())


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a run stands after a step: the solver's state, the books, and what the oracle remembers."""

    state: Any
    books: Books
    memory: Any


class Keeper:
    """Keeps the standing of a loop in its store, now and then.

    Args:
        run: the store, whose ``every`` is the least time between two; more where keeping takes more than
            :data:`SHARE` of the time.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.every = run, run.store.every
        self._next = time.monotonic() + self.every

    def __call__(self, loop: Loop) -> None:
        """Keep the standing if it is time."""
        began = time.monotonic()
        if began < self._next or loop.session.replaying():
            return
        try:
            self.run.checkpoint(self.run.position, Standing(loop.state, Books.of(loop.session), loop.session.memory))
        except InvalidType:  # a state or a memory that is no data: replay does without
            self._next = float("inf")
            return
        took = time.monotonic() - began
        self._next = began + max(self.every, took / SHARE)


def restore(run: Run, loop: Loop) -> bool:
    """Put a loop where the newest usable standing of its store left it; without one, replay begins at the start."""
    session = loop.session
    for position, kept in run.checkpoints():
        if not isinstance(kept, Standing) or type(kept.state) is not type(loop.state):
            continue
        values, violation = run.values(position)
        if kept.books.spent > session.budget or len(values) != kept.books.values:
            continue
        kept.books.put_back(session, values, violation)
        loop.state, session.memory = kept.state, kept.memory
        run.seek(position)
        return True
    return False


def take_up(setup: Setup, session: Session) -> None:
    """Let a session know what its store knows, and the store what the workers do."""
    run: Run | None = setup.run
    if run is None:
        return
    session.replaying = lambda: run.replaying
    evaluator: Any = getattr(setup.oracle, "evaluator", None)
    if hasattr(evaluator, "retried"):
        evaluator.retried = run.retry


def finished(setup: Setup, result: Result) -> Result:
    """Note how a run ended, if it has a store; one that cannot be written any more stays as it is."""
    if setup.run is not None:
        names = ("fun", "success", "nfev", "nit", "nfail", "seconds", "best_fun", "fun_stderr", "violation", "method")
        summary: Mapping[str, Any] = {name: identity(result[name]) for name in names} | {"x": identity(result.x)}
        with suppress(CannotWrite):
            setup.run.finish(result.status, result.message, summary)
    return result
