"""A solver under test on a small problem, driven by hand: ask, answer, tell."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, to_numpy
from dfo.batch import Batch, Items, Linear
from dfo.errors import InvalidArgument, InvalidType
from dfo.feedback import Values
from dfo.oracles.behaviour import Behaviour
from dfo.oracles.function import Function
from dfo.protocols import Task
from dfo.random import Key
from dfo.run.packing import pack, unpack
from dfo.sets import L1Ball, Shifted
from dfo.solvers import solver_class
from dfo.spaces import Box, Free, Text, Vector
from dfo.testing.laws import Cases, Skipped

__all__ = [
    "LANDSCAPES",
    "STEPS",
    "Episodes",
    "Landscape",
    "Subject",
    "Trial",
    "bowl",
    "doubles",
    "points_of",
    "repacked",
    "takes_functions",
    "torch_or_skip",
]

Landscape = Callable[[Floats], Floats]
"""Values ``(n,)`` of points ``(n, d)``."""

STEPS = 30
"""Steps of a trial: enough for restarts on a terrace."""


def bowl(X: Floats) -> Floats:
    """A tilted, scaled paraboloid whose minimum is 1, in multiples of 2**-30 so that transforms keep the order."""
    j = np.arange(X.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        f = 1.0 + ((1.0 + j) * (X - 0.3 - 0.1 * j) ** 2).sum(axis=1) + 0.01 * X[:, 0]
        rounded: Floats = np.where(f < 2.0**20, np.round(f * 2.0**30) / 2.0**30, f)
        return rounded


def terraces(X: Floats) -> Floats:
    """The bowl in steps: many ties, and flat where it is low."""
    return np.floor(bowl(X))


def holes(X: Floats) -> Floats:
    """The bowl without the half of the points next to its minimum: NaN there."""
    return np.where(X[:, -1] < 0.2, np.nan, bowl(X))


LANDSCAPES: dict[str, Landscape] = {"bowl": bowl, "terraces": terraces, "holes": holes}
"""Small objectives by name: smooth, with ties, with failures."""


NUMERIC = frozenset({"vector", "convex"})
"""Words in ``Solver.spaces`` for solvers of numbers."""

TEXT = "text"
"""Name of the landscape of strings."""


def bounded(d: int) -> Box | Shifted:
    """Return a bounded space around the usual start: the unit box, or in an even number of variables an l1 ball."""
    return Box(np.zeros(d), np.ones(d)) if d % 2 else Shifted(L1Ball(d, d / 2), np.full(d, 0.5))


def misses(items: Sequence[str]) -> Floats:
    """Return how many symbols of each string are not the one wanted there."""
    return np.array([sum(symbol != "abc"[i % 3] for i, symbol in enumerate(item)) for item in items], dtype=float)


def doubles(x: Any) -> Floats:
    """Return a private copy of an array, in double precision on the host."""
    return np.array(to_numpy(x), dtype=float)


def points_of(batch: Batch) -> Floats:
    """Return the members of a batch as ``(n, d)`` doubles.

    Raises:
        Skipped: they are no vectors.
    """
    if not isinstance(batch, Linear):
        raise Skipped(f"it asks with {type(batch).__name__}, and this law is about vectors")
    return doubles(batch.dense())


def repacked(state: Any) -> Any:
    """Return a state as it is after it was saved and loaded.

    Raises:
        Skipped: it cannot be packed, which is the matter of another law.
    """
    try:
        tree, arrays = pack(state)
    except InvalidType as error:
        raise Skipped(f"the state is no data (law state-is-data): {error}") from None
    return unpack(json.loads(json.dumps(tree)), {name: np.array(a, order="K") for name, a in arrays.items()})


EPISODE = 5
"""Unrolls of an episode on trial."""


def endings(batch: Batch) -> Any:
    """Return which episodes end with a batch: pairs of lanes are out of step, each ends every fifth step."""
    lane = np.zeros(len(batch), np.int64) if batch.lane is None else batch.lane
    return (batch.step + lane // 2) % EPISODE == EPISODE - 1


class Episodes(Function):
    """A function whose value at a point is the loss of every unroll there; episodes end as :func:`endings` says."""

    def __init__(self, fun: Callable[[Any], Any]) -> None:
        super().__init__(fun)
        self.gives = frozenset({"values", "ended"})

    def evaluate(self, batch: Batch, memory: tuple[()]) -> tuple[Values, tuple[()]]:
        """Evaluate every member, and say whose episode ended."""
        told, memory = super().evaluate(batch, memory)
        return replace(told, ended=endings(batch)), memory


def takes_functions(name: str) -> bool:
    """Tell whether the registered solver minimises a plain function of a vector, with or without bounds."""
    cls = solver_class(name)
    return bool(cls.needs <= {"values", "ranking"}) and "vector" in getattr(cls, "spaces", {"vector"})


@dataclass(frozen=True, eq=False)
class Trial:
    """A planned solver, its start and its objective.

    Args:
        solver: planned.
        x0: start in solver coordinates.
        key: stream of the solver.
        fun: the objective.
    """

    solver: Any
    x0: Any
    key: Key
    fun: Landscape

    def start(self) -> Any:
        """Return the first state, from a private copy of the start."""
        return self.solver.init(copy.deepcopy(self.x0), self.key)

    def ended(self, state: Any) -> bool:
        """Tell whether the solver has nothing left to do."""
        finished = getattr(self.solver, "finished", None)
        return finished is not None and finished(state) is not None

    def answer(self, batch: Batch) -> Values:
        """Evaluate a batch; what is not finite is masked, as an oracle does."""
        f = misses(batch.items) if isinstance(batch, Items) else self.fun(points_of(batch))
        bad = ~np.isfinite(f)
        ended = endings(batch) if "ended" in self.solver.needs else None
        did = points_of(batch)[:, :2] if "behaviour" in self.solver.needs else None
        return Values(np.where(bad, np.inf, f), failed=bad if bad.any() else None, ended=ended, behaviour=did)

    def steps(self, count: int = STEPS, via: Callable[[Any, int], Any] | None = None) -> Iterator[tuple[Any, Batch]]:
        """Yield state and batch before each tell: at most ``count`` times, fewer if the solver finishes.

        Args:
            count: most steps.
            via: what happens to the state before step ``i``, such as being saved and loaded.
        """
        state = self.start()
        for i in range(count):
            state = state if via is None else via(state, i)
            if self.ended(state):
                return
            batch = self.solver.ask(state)
            yield state, batch
            state = self.solver.tell(state, batch, self.answer(batch))

    def path(self, count: int = STEPS) -> list[Any]:
        """Return the points of each step: an ``(n, d)`` array, or the strings."""
        batches = [batch for _, batch in self.steps(count)]
        return [list(batch.items) if isinstance(batch, Items) else points_of(batch) for batch in batches]


@dataclass(frozen=True, eq=False)
class Subject:
    """A solver as its laws see it.

    Args:
        solver: a frozen description, not planned.
        library: ``"numpy"`` or ``"torch"``: what the starts are made of.
        device: of torch.
        cases: draws the cases of the law at hand.
    """

    solver: Any
    library: str = "numpy"
    device: str = "cpu"
    cases: Cases = field(default_factory=lambda: Cases(1.0, 30))

    @property
    def spaces(self) -> frozenset[str]:
        """The kinds of space in which the solver moves."""
        return getattr(self.solver, "spaces", frozenset({"vector"}))

    @property
    def landscapes(self) -> list[str]:
        """Names of the small objectives on which the solver can be tried.

        Raises:
            Skipped: there is none.
        """
        names = [*(LANDSCAPES if self.spaces & NUMERIC else ()), *((TEXT,) if "text" in self.spaces else ())]
        if not names:
            raise Skipped(f"no trial for a solver that moves in {', '.join(sorted(self.spaces))}")
        return names

    def array(self, values: Any, dtype: str = "float64") -> Array:
        """Return values as an array of the library under test.

        Raises:
            Skipped: the solver does not move in vectors.
        """
        if not self.spaces & NUMERIC:
            raise Skipped("it does not move in vectors")
        if self.library == "numpy":
            return np.array(values, dtype=dtype)
        import torch

        tensor: Array = torch.tensor(values, dtype=getattr(torch, dtype), device=self.device)
        return tensor

    def planned(self, space: Vector | Text | Shifted, budget: int | None = 10_000) -> Any:
        """Return the solver as it would be in a run."""
        task = Task(
            space, budget, gives=frozenset({"values", "ranking"} | (self.solver.needs & {"ended", "behaviour"}))
        )
        missing = set(self.solver.needs) - task.gives
        if missing:
            raise Skipped(f"it needs {', '.join(sorted(missing))}, and this law answers with values")
        return self.solver.plan(task) if hasattr(self.solver, "plan") else self.solver

    def objective(self, fun: Callable[[Any], Any]) -> Any:
        """Return a function of one point, or the oracle that it makes for a solver that needs more than values."""
        if "behaviour" in self.solver.needs:
            return Behaviour(lambda x: (fun(x), doubles(x)[:2]))
        return Episodes(fun) if "ended" in self.solver.needs else fun

    def on(self, landscape: str, d: int, seed: int) -> Trial:
        """Return the solver on a landscape by name, with ``d`` coordinates or symbols."""
        if landscape == TEXT:
            return Trial(self.planned(Text("abc", d)), "c" * d, Key(seed, ("solver",)), bowl)
        return self.trial(d, seed, LANDSCAPES[landscape])

    def trial(self, d: int, seed: int = 0, fun: Landscape = bowl, x0: Any = None, space: Vector | None = None) -> Trial:
        """Return the solver on a landscape in a free space, or in a bounded one if it takes no free one."""
        start = np.linspace(0.9, 0.6, d) if x0 is None else x0
        try:
            solver = self.planned(space or Free(d))
        except InvalidArgument:
            if space is not None:
                raise
            solver = self.planned(bounded(d))
        return Trial(solver, self.array(start), Key(seed, ("solver",)), fun)

    def free(self) -> bool:
        """Tell whether the solver moves in a free space."""
        try:
            self.planned(Free(2))
        except InvalidArgument:
            return False
        return True


def torch_or_skip() -> Any:
    """Return torch.

    Raises:
        Skipped: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise Skipped("torch is not installed") from None
    return torch
