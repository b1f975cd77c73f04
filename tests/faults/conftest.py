"""What the fault tests share: the methods, a small problem with a ledger, and a guard against hangs."""

import signal

import numpy as np
import pytest

from dfo.solvers import SOLVERS

OPTIMUM = np.array([0.7, -0.3, 0.2])
PEERS = ("scipy:Nelder-Mead", "pycma")
METHODS = (*SOLVERS, *PEERS)


@pytest.fixture(autouse=True)
def no_hang():
    """Fail a test that runs for more than 30 seconds."""

    def late(number, frame):
        raise TimeoutError("the case is still running after 30 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Ledger:
    """A sphere around the optimum that keeps every point it was asked for, before anything can go wrong.

    Args:
        value: what to return instead of ``f``: a function of (f, number of the call, x).
    """

    def __init__(self, value=None):
        self.value = value
        self.points = []

    def true(self, x):
        x = np.asarray(x, dtype=float)
        return float(((x - OPTIMUM[: len(x)]) ** 2).sum()) if len(x) <= 3 else float((x**2).sum())

    def __call__(self, x):
        self.points.append(np.array(x, dtype=float))
        f = self.true(x)
        return f if self.value is None else self.value(f, len(self.points), x)

    def __len__(self):
        return len(self.points)


@pytest.fixture
def ledger():
    return Ledger()
