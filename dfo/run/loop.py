"""Drive one of dfo's own solvers through a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfo.arrays import Array
from dfo.errors import IncompatibleOracle
from dfo.protocols import CONSTRAINTS, Oracle, Solver
from dfo.random import Key
from dfo.run.session import Session

__all__ = ["Loop", "check_fits", "lanes_of"]


def check_fits(solver: Solver[Any], oracle: Oracle[Any], name: str, kind: str = "") -> None:
    """Refuse, before the first evaluation, a solver that needs what the oracle does not give.

    Args:
        solver: planned.
        oracle: of the run.
        name: of the solver, for the message.
        kind: of the space, such as ``"convex"``: methods that do not move in it are not proposed.

    Raises:
        IncompatibleOracle: naming the solvers that would do.
    """
    from dfo.solvers import SOLVERS, solver_class

    if "ended" in oracle.gives and "ended" not in solver.needs:
        lanes = [other for other in SOLVERS if "ended" in solver_class(other).needs]
        raise IncompatibleOracle(
            f"{name} asks about whole points, but the oracle unrolls a few steps at a time."
            f" Use oracle.whole(), or one of these methods: {', '.join(lanes)}."
        )
    missing = set(solver.needs) - set(oracle.gives)
    if CONSTRAINTS in oracle.gives and CONSTRAINTS not in getattr(solver, "handles", ()):
        missing.add(f"no {CONSTRAINTS}")
    if not missing:
        return
    fitting = [
        other
        for other in SOLVERS
        if solver_class(other).needs <= oracle.gives
        and (not kind or kind in getattr(solver_class(other), "spaces", (kind,)))
        and (CONSTRAINTS not in oracle.gives or CONSTRAINTS in getattr(solver_class(other), "handles", ()))
    ]
    raise IncompatibleOracle(
        f"{name} needs {', '.join(sorted(solver.needs))}"
        f"{' and cannot handle constraints' if f'no {CONSTRAINTS}' in missing else ''},"
        f" but the oracle gives {', '.join(sorted(oracle.gives))}."
        f" These methods would do: {', '.join(fitting) or 'none'}."
    )


def lanes_of(solver: Any) -> int:
    """Return the number of persistent inner states that a solver uses (0 for most)."""
    return int(getattr(solver, "lanes", 0) or 0)


class Loop:
    """A solver's state and the session it runs in; :meth:`go` may be called again after more budget.

    Args:
        solver: planned, frozen.
        session: the books.
        x0: start in solver coordinates.
        key: the run's key.
        keep: called with the loop after every step, to keep its state.
    """

    def __init__(
        self, solver: Any, session: Session, x0: Any, key: Key, keep: Callable[[Loop], None] | None = None
    ) -> None:
        self.solver, self.session, self.keep = solver, session, keep
        self.state: Any = solver.init(x0, key)
        self._finished = getattr(solver, "finished", None)
        gauges = getattr(solver, "gauges", None)
        if gauges is not None:
            session.gauges = lambda: gauges(self.state)
        session.recommended = self.recommend

    def observe(self, points: Any, values: Array) -> None:
        """Tell the solver points that were evaluated elsewhere, in solver coordinates, if it listens."""
        if hasattr(self.solver, "observe"):
            self.state = self.solver.observe(self.state, points, values)

    def go(self) -> None:
        """Ask, evaluate and tell until there is a reason to end.

        Raises:
            ObjectiveRaised: the objective raised an exception.
        """
        solver, session, finished = self.solver, self.session, self._finished
        session.status = ""
        while not session.over():
            if finished is not None:
                why = finished(self.state)
                if why is not None:
                    session.end("finished", why)
                    break
            batch = solver.ask(self.state)
            told = session.evaluate(batch)
            if told is None:
                break
            self.state = solver.tell(self.state, batch, told)
            session.after_step(batch, told)
            if self.keep is not None:
                self.keep(self)

    def recommend(self) -> Any:
        """Return the solver's recommendation as a user point."""
        z = self.solver.recommend(self.state)
        return self.session.encoding.decode(z[None])[0] if hasattr(z, "shape") else z
