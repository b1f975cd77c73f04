"""The three checks: of a solver, an oracle, a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal

from dfo.batch import Batch
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.protocols import Oracle, Problem
from dfo.random import Key
from dfo.solvers import solver_class
from dfo.testing import oracle as oracle_laws
from dfo.testing import problem as problem_laws
from dfo.testing import solver_edges, solver_state, solver_values
from dfo.testing.laws import Cases, Law, judge
from dfo.testing.report import Report
from dfo.testing.trial import Subject

__all__ = ["ORACLE_LAWS", "PROBLEM_LAWS", "SOLVER_LAWS", "check_oracle", "check_problem", "check_solver"]

SOLVER_LAWS: Mapping[str, Law] = {**solver_state.BOOK, **solver_values.BOOK, **solver_edges.BOOK}
"""The laws of solvers by name."""

ORACLE_LAWS: Mapping[str, Law] = oracle_laws.BOOK
"""The laws of oracles by name."""

PROBLEM_LAWS: Mapping[str, Law] = problem_laws.BOOK
"""The laws of problems by name."""


def check_solver(
    solver_or_name: Any,
    *,
    library: Literal["numpy", "torch"] = "numpy",
    device: str = "cpu",
    seconds: float = 10.0,
    cases: int = 30,
    laws: Iterable[str] | None = None,
) -> Report:
    """Judge a solver by the laws of solvers.

    Args:
        solver_or_name: a registered name, a solver class, or a solver such as ``dfo.CMA(population=8)``.
        library: what the starts are made of.
        device: where torch puts them.
        seconds: granted to all laws together; a law that runs out of its share draws no more cases.
        cases: most cases drawn for one law.
        laws: names out of :data:`SOLVER_LAWS`; all by default.

    Returns:
        The report; call ``raise_if_failed()`` in a test.

    Raises:
        InvalidArgument: an unknown name of a law, a solver or a library.
        InvalidType: not a solver.
        ImportError: hypothesis is not installed, or torch where it is asked for.

    Example:
        >>> from dfo.testing import check_solver
        >>> check_solver("random", laws=["budget", "ask-twice"], seconds=1.0).raise_if_failed()
    """
    if library not in ("numpy", "torch"):
        raise InvalidArgument(f'library: expected "numpy" or "torch", got {short(library)}.')
    solver = solver_class(solver_or_name)() if isinstance(solver_or_name, str) else solver_or_name
    solver = solver() if isinstance(solver, type) else solver
    for name in ("needs", "init", "ask", "tell", "recommend"):
        if not hasattr(solver, name):
            raise InvalidType(f"solver: expected a solver, but {short(solver)} has no {name!r}.")
    on = "" if library == "numpy" else f" on torch:{device}"
    declared: frozenset[str] = getattr(solver, "laws", frozenset())
    return judge(
        f"{short(solver)}{on}",
        SOLVER_LAWS,
        lambda drawn: Subject(solver, library, device, drawn),
        seconds,
        cases,
        laws,
        declared,
    )


def check_oracle(
    oracle: Oracle[Any],
    batch_factory: Callable[[Key, int], Batch],
    *,
    lanes: int = 0,
    tolerance: float = 0.0,
    seconds: float = 5.0,
    cases: int = 30,
    laws: Iterable[str] | None = None,
) -> Report:
    """Judge an oracle by the laws of oracles.

    Args:
        oracle: the oracle.
        batch_factory: ``(key, n) -> batch`` of ``n`` members that the oracle can answer; with lanes, member ``i``
            is best put on lane ``i``.
        lanes: persistent inner states to start, at least as many as the batches use.
        tolerance: by how much values may differ, relatively, between a batch and its parts; 0 asks for equal bits.
        seconds: granted to all laws together; a law that runs out of its share draws no more cases.
        cases: most cases drawn for one law.
        laws: names out of :data:`ORACLE_LAWS`; all by default.

    Raises:
        UnknownName: an unknown name of a law.

    Example:
        >>> import dfo
        >>> from dfo.batch import Points
        >>> from dfo.random import normal
        >>> from dfo.testing import check_oracle
        >>> oracle = dfo.Function(lambda x: float(x @ x))
        >>> check_oracle(oracle, lambda key, n: Points(normal(key, (n, 3))), seconds=1.0).failed
        ()
    """

    def build(drawn: Cases) -> oracle_laws.OracleSubject:
        return oracle_laws.OracleSubject(oracle, batch_factory, lanes, tolerance, drawn)

    return judge(type(oracle).__name__, ORACLE_LAWS, build, seconds, cases, laws)


def check_problem(
    problem: Problem,
    *,
    tolerance: float = 1e-9,
    seconds: float = 2.0,
    cases: int = 30,
    laws: Iterable[str] | None = None,
) -> Report:
    """Judge a problem by the laws of problems.

    Args:
        problem: the problem.
        tolerance: rounding allowed in values, relative to their size (to 1, for small ones).
        seconds: granted to all laws together; a law that runs out of its share draws no more cases.
        cases: most cases drawn for one law.
        laws: names out of :data:`PROBLEM_LAWS`; all by default.

    Raises:
        InvalidType: not a problem.
        UnknownName: an unknown name of a law.

    Example:
        >>> import dfo, numpy as np
        >>> from dfo.testing import check_problem
        >>> p = dfo.Problem("ball", dfo.Free(2), lambda x: float(x @ x), np.ones(2), 0.0, np.zeros(2))
        >>> check_problem(p, seconds=1.0).failed
        ()
    """
    given: object = problem
    if not isinstance(given, Problem):
        wanted = ", ".join(f.name for f in fields(Problem))
        raise InvalidType(f"problem: expected a dfo.Problem ({wanted}), got {short(given)}.")

    def build(drawn: Cases) -> problem_laws.ProblemSubject:
        return problem_laws.ProblemSubject(problem, tolerance, drawn)

    return judge(repr(problem), PROBLEM_LAWS, build, seconds, cases, laws)
