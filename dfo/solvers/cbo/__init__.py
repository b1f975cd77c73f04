"""Consensus-based optimisation and consensus-based sampling: particles that drift to a weighted mean of themselves."""

from dfo.solvers.cbo.sampling import CBS, CBSState
from dfo.solvers.cbo.solver import CBO, CBOState
from dfo.solvers.cbo.weights import Growth

__all__ = ["CBO", "CBS", "CBOState", "CBSState", "Growth"]
