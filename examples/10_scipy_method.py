"""dfo inside scipy: code that calls scipy.optimize.minimize can use dfo's solvers without knowing dfo."""

import numpy as np
from scipy.optimize import minimize

import dfo


def ripples(x):
    """A bowl with ripples, turned by 30 degrees; lowest value 0. Local methods stop in the first ripple."""
    y = np.array([[0.866, -0.5], [0.5, 0.866]]) @ (x - 0.4)
    return float((y**2 + 3 - 3 * np.cos(4 * y)).sum())


def somebody_elses_code(fun, method):
    """Knows scipy only."""
    return minimize(fun, [3.1, -2.3], method=method, bounds=[(-5, 5), (-5, 5)])


for name, method in {
    "scipy's Nelder-Mead": "Nelder-Mead",
    "scipy's Powell": "Powell",
    "dfo's cma": dfo.as_scipy_method("cma", budget=2_000, seed=0),
    "dfo's random search": dfo.as_scipy_method("random", budget=2_000, seed=0),
}.items():
    res = somebody_elses_code(ripples, method)
    print(f"{name:<20} {res.fun:8.4f}  after {res.nfev} evaluations  ({type(res).__name__})")
