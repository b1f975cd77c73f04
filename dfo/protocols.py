"""The contracts: what a solver, an oracle, a stop and a hook are, and the records they exchange.

Data flows one way. A solver asks with a batch, an oracle answers with feedback, the solver is told;
budgets, workers, progress and storage happen to that stream from outside. The oracle never sees the
solver; the solver never sees the oracle, the clock, the workers or the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from dfo.arrays import Floats
from dfo.batch import Batch
from dfo.feedback import Feedback
from dfo.random import Key
from dfo.sets.convex import ConvexSet
from dfo.spaces import Box, Free, Named, Space, Text

__all__ = ["CONSTRAINTS", "Hook", "Oracle", "Problem", "Progress", "Solver", "Stop", "Task"]

S = TypeVar("S")
M = TypeVar("M")

CONSTRAINTS = "violations"
"""The word in ``Oracle.gives`` and ``Solver.handles`` for constraint violations."""


@dataclass(frozen=True)
class Task:
    """What a solver may know before it starts.

    Args:
        space: the space in which it moves: a free vector, a box (with ``cells``), a convex set, or text.
        budget: evaluations granted, or None when the user set none; the run then ends at the
            solver's first convergence.
        batch: evaluations wanted per step, or None for the solver's own choice.
        gives: what the oracle answers with.
        noisy: whether equal points may get different values.
        max_batch: most members that the oracle takes at once, or None.
    """

    space: Space | ConvexSet
    budget: int | None = None
    batch: int | None = None
    gives: frozenset[str] = frozenset({"values", "ranking"})
    noisy: bool = False
    max_batch: int | None = None


@runtime_checkable
class Solver(Protocol[S]):
    """A frozen description of an algorithm and three short functions over an explicit state.

    State is data: arrays, numbers, strings, :class:`~dfo.random.Key`, None, tuples and dataclasses of
    these. ``ask`` is pure, so asking twice gives the same batch. ``tell`` may reuse the buffers of its
    state and always advances. Optional members: ``plan(task) -> Solver`` fills the fields left None,
    ``observe(state, points, values) -> state`` takes points evaluated elsewhere, ``finished(state) ->
    str | None`` says why there is nothing left to do, ``gauges(state) -> dict[str, float]`` reports,
    ``handles`` names optional feedback that the solver can use, ``spaces`` the kinds of space it moves in:
    ``"vector"`` (free and boxed), ``"convex"`` (sets of :mod:`dfo.sets` and bounded boxes), ``"text"``.
    """

    needs: ClassVar[frozenset[str]]

    def init(self, x0: Any, key: Key) -> S:
        """Return the state before the first question."""
        ...

    def ask(self, state: S) -> Batch:
        """Return the next question."""
        ...

    def tell(self, state: S, batch: Batch, told: Feedback) -> S:
        """Return the state after the answer ``told`` to ``batch``."""
        ...

    def recommend(self, state: S) -> Any:
        """Return the point to report when values are noisy: the best estimate of the minimiser."""
        ...


@runtime_checkable
class Oracle(Protocol[M]):
    """A way in which a question is answered, with its memory kept outside.

    ``gives`` names the answers it can give; ``max_batch`` bounds the members of one question (a
    person ranks at most eight), None for no bound. An oracle whose evaluations do not cost 1 each has a
    number ``price``: what one evaluation costs at most, in the unit of the budget, so that the budget stays
    hard; what each did cost is told in ``Values.cost``.
    """

    gives: frozenset[str]
    max_batch: int | None

    def start(self, lanes: int, key: Key) -> M:
        """Return the memory for ``lanes`` persistent inner states; ``()`` where nothing is remembered."""
        ...

    def evaluate(self, batch: Batch, memory: M) -> tuple[Feedback, M]:
        """Answer a batch and return the answer with the memory after it."""
        ...


@dataclass(frozen=True, eq=False)
class Progress:
    """What stops and hooks see after every step.

    Args:
        step: number of batches told.
        nfev: evaluations spent.
        seconds: wall-clock seconds since the start.
        best_x: lowest point so far, as the objective saw it; None before there is one.
        best_fun: its value; infinite before there is one.
        stalled: evaluations since the lowest value last fell.
        nfail: evaluations that gave no usable value.
        batch: the batch of this step (in solver coordinates).
        told: its answer.
        points: the batch as the objective saw it, computed when called.
        gauges: what the solver reports, computed when called.
        recommended: the solver's recommendation, computed when called.
    """

    step: int
    nfev: int
    seconds: float
    best_x: Any
    best_fun: float
    stalled: int
    nfail: int
    batch: Batch | None
    told: Feedback | None
    points: Callable[[], Batch | None] = lambda: None
    gauges: Callable[[], Mapping[str, float]] = dict
    recommended: Callable[[], Any] = lambda: None

    @property
    def x(self) -> Any:
        """The lowest point so far (scipy's name)."""
        return self.best_x

    @property
    def fun(self) -> float:
        """The lowest value so far (scipy's name)."""
        return self.best_fun


class Stop(Protocol):
    """A reason to end a run; combine several with ``|``."""

    def __call__(self, progress: Progress) -> tuple[str, str] | None:
        """Return (status, sentence) when the run is to end, else None."""
        ...


class Hook(Protocol):
    """Called after every step; raising ``StopIteration`` ends the run."""

    def __call__(self, progress: Progress) -> None:
        """Look at the progress."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """A question with a known answer, for comparing solvers.

    Args:
        name: unique within its pack, such as ``"bbob-f008-i01-d10"``.
        space: where the points live.
        fun: the objective of one point, or of ``(n, d)`` points when ``vectorized``; or an oracle.
        x0: start, a point of the space.
        f_opt: lowest value, where it is known.
        x_opt: a point where it is reached, where it is known.
        vectorized: whether ``fun`` takes a whole ``(n, d)`` array.
        constraint: function of one point returning ``(m,)`` values that must be <= 0, or None.
        measure: merit of a point by which solvers are compared, where it is not ``fun``: without the noise,
            with the violation of constraints added; of what is recommended, where ``fun`` is an oracle.
        noisy: whether equal points may get different values.
        group: family for averages, such as ``"separable"``.
        tags: words to select by.
        reference: where the problem comes from.
    """

    name: str
    space: Free | Box | Named | Text | ConvexSet
    fun: Any
    x0: Any
    f_opt: float | None = None
    x_opt: Any = None
    vectorized: bool = False
    constraint: Callable[[Any], Floats] | None = None
    measure: Callable[[Any], float] | None = None
    noisy: bool = False
    group: str = ""
    tags: frozenset[str] = field(default_factory=frozenset)
    reference: str = ""

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, {type(self.space).__name__}, dim={self.space.dim}, f_opt={self.f_opt})"
