"""A first minimum: a function, a start, a budget, and what comes back."""

from itertools import pairwise

import dfo


def cost(x):
    """Rosenbrock's valley; lowest at (1, 1, 1), where it is 0."""
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(x))


# A start is enough. Without a budget the run ends when the solver has converged.
res = dfo.minimize(cost, [-1.0, 2.0, 0.5])
print(res)

# A budget is a promise: never more evaluations. A target says how low is low enough.
res = dfo.minimize(cost, [-1.0, 2.0, 0.5], budget=3_000, stop=dfo.Target(1e-6))
print(f"\ntarget reached: {res.success}, after {res.nfev} evaluations, at {res.x.round(3)}")

# The values are kept in the order of evaluation.
for n in (10, 100, 300):
    print(f"lowest value after {n:>3} evaluations: {res.history.best_fun[n - 1]:.3g}")
