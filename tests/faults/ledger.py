"""What the fault tests share: the methods, and a small problem that keeps account of its evaluations."""

import numpy as np

from dfo.solvers import SOLVERS as ALL
from dfo.testing import takes_functions

OPTIMUM = np.array([0.7, -0.3, 0.2])
PEERS = ("scipy:Nelder-Mead", "pycma")
SOLVERS = tuple(name for name in ALL if takes_functions(name))
METHODS = (*SOLVERS, *PEERS)


class Ledger:
    """A sphere around the optimum that keeps every point it was asked for, before anything can go wrong.

    Args:
        value: what to return instead of ``f``: a function of (f, number of the call, x).
        scale: unit of x.
    """

    def __init__(self, value=None, scale=1.0):
        self.value, self.scale = value, scale
        self.points = []

    def true(self, x):
        z = np.asarray(x, dtype=float) / self.scale
        return float(((z - np.resize(OPTIMUM, len(z))) ** 2).sum())

    def __call__(self, x):
        self.points.append(np.array(x, dtype=float))
        f = self.true(x)
        return f if self.value is None else self.value(f, len(self.points), x)

    def __len__(self):
        return len(self.points)
