"""CMA-ES in one folder: the solver, and the formulae of a generation."""

from dfo.solvers.cma.solver import CMA, CMAState, SepCMA

__all__ = ["CMA", "CMAState", "SepCMA"]
