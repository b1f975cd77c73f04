"""The conformance kit: what every solver, oracle and problem promises, as laws that can be tried.

    >>> from dfo.testing import check_solver
    >>> check_solver("random", laws=["seeds"], seconds=1.0).passed
    ('seeds',)

A law that everybody has to keep applies always; one that only some keep (``translation``,
``rank-invariance``, ``sphere``) applies to solvers that list it in their class attribute ``laws``. Cases are
drawn with hypothesis, the same in every run, for as many seconds as are granted: a law whose time is over
stops drawing and never fails for it.
"""

from __future__ import annotations

from dfo.testing.check import ORACLE_LAWS, PROBLEM_LAWS, SOLVER_LAWS, check_oracle, check_problem, check_solver
from dfo.testing.report import Outcome, Report
from dfo.testing.trial import takes_functions

__all__ = [
    "ORACLE_LAWS",
    "PROBLEM_LAWS",
    "SOLVER_LAWS",
    "Outcome",
    "Report",
    "check_oracle",
    "check_problem",
    "check_solver",
    "takes_functions",
]
