"""Noise: every measurement of the same point differs, so the lowest value seen is luck."""

import numpy as np

import dfo
from dfo.random import Key, normal

SIGMA = 0.1


def true_yield_loss(x):
    return float(((x - np.array([0.3, -0.2, 0.1])) ** 2).sum())


class Experiment:
    """Measures with noise. Measurement i gets noise i of its key, so the script prints the same every time."""

    def __init__(self, seed):
        self.key, self.count = Key(seed), 0

    def __call__(self, x):
        """Measure once."""
        self.count += 1
        return true_yield_loss(x) + SIGMA * normal(self.key.child(self.count), (1,))[0]


res = dfo.minimize(
    Experiment(seed=0),
    x0=[0.9, 0.9, 0.9],
    bounds=[(-1, 1)] * 3,
    method=dfo.CMA(population=20, restarts="none"),
    budget=1_000,
    noise=True,
)

print(f"recommended point:   {res.x.round(2)}")
print(f"its value, measured: {res.fun:.3f} +- {res.fun_stderr:.3f}")
print(f"its true value:      {true_yield_loss(res.x):.3f}")
print(f"lowest value seen:   {res.best_fun:.3f}  (the true one there is {true_yield_loss(res.best_x):.3f})")
