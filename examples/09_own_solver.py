"""A solver of your own: three short functions over a state. The page "Add a solver" explains every line."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import dfo
from dfo.batch import Points
from dfo.components.ranking import merits
from dfo.random import Key, uniform


@dataclass(frozen=True, eq=False)
class State:
    """The memory: data and nothing else."""

    x: Any  # (d,) the best point
    merit: float
    width: float
    key: Key
    step: int


@dataclass(frozen=True)
class ShrinkingBox:
    """Random points in a box around the best one; the box shrinks when none of them is better."""

    width: float = 2.0
    population: int = 8
    factor: float = 0.7

    needs = frozenset({"values"})

    def init(self, x0, key):
        """Return the state before the first question."""
        return State(x0, np.inf, self.width, key, 0)

    def ask(self, s):
        """Ask about points in the box."""
        U = uniform(s.key.child(s.step), (self.population, len(s.x)), s.x)
        return Points(s.x + s.width * (2 * U - 1), step=s.step)

    def tell(self, s, batch, told):
        """Move to a better point, or shrink the box."""
        merit = merits(told)
        best, s = int(merit.argmin()), replace(s, step=s.step + 1)
        if merit[best] < s.merit:
            return replace(s, x=batch.member(best), merit=float(merit[best]))
        return replace(s, width=self.factor * s.width)

    def recommend(self, s):
        """Return the best point."""
        return s.x


scales = np.array([1, 30, 1_000])
for solver in (ShrinkingBox(), ShrinkingBox(population=16), dfo.RandomSearch(), dfo.CMA()):
    res = dfo.minimize(lambda x: float((scales * (x - 1) ** 2).sum()), np.zeros(3), method=solver, budget=800)
    print(f"{res.fun:9.2e}  {res.method[:70]}")
