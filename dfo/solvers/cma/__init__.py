"""CMA-ES in one folder: the solver, the formulae of a generation, and when a run ends."""

from dfo.solvers.cma.solver import CMA, CMAState, SepCMA

__all__ = ["CMA", "CMAState", "SepCMA"]
