"""Ask for points, evaluate them wherever and whenever, tell their values in any order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import is_array, to_numpy
from dfo.batch import Batch, Items, Points
from dfo.encodings import encoding
from dfo.errors import AlreadyTold, InvalidArgument, InvalidType, UnknownCandidate, short
from dfo.feedback import Ranking, Values
from dfo.oracles.encoded import decoded
from dfo.oracles.rank import RankOracle
from dfo.oracles.values import values_of
from dfo.protocols import Task
from dfo.random import Key
from dfo.run import validate
from dfo.run.peers import is_peer
from dfo.run.result import describe_solver
from dfo.run.setup import solver_of
from dfo.spaces import Box

__all__ = ["AskTell", "Candidate"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A point to evaluate.

    Args:
        id: number of the candidate within its run, from 0.
        x: the point, a private copy.
        data: what to evaluate it on (minibatch, episode seed), or None.
    """

    id: int
    x: Any
    data: int | None = None


class AskTell:
    """A solver without a loop: the caller evaluates.

    Each :meth:`ask` hands out a new candidate; each :meth:`tell` takes one value. When every candidate of
    the solver's batch has its value, the solver learns and the next batch begins; values may come in any
    order, and a batch that is handed out whole but not told whole yields no new candidates: ``ask`` then
    raises, naming how many values are missing. All methods may be called from several threads.

    Args:
        method: a name or a solver, as in :func:`dfo.minimize` (peers cannot be asked).
        x0: a start, a space, or a dictionary of parameters, as in :func:`dfo.minimize`.
        bounds: one pair per variable, or None.
        options: fields of the solver by name.
        seed: any integer >= 0.
        batch: evaluations per step.
        budget: evaluations that the caller intends to spend, if known: some solvers plan for it, and with it
            they restart when they have converged. It is not enforced.
        noise: whether equal points may get different values.

    Raises:
        InvalidArgument, InvalidType: as :func:`dfo.minimize` does.

    Example:
        >>> import dfo
        >>> opt = dfo.AskTell("cma", [1.0, 2.0], seed=1)
        >>> for _ in range(300):
        ...     x = opt.ask()
        ...     opt.tell(x, float(x @ x))
        >>> opt.best_fun < 1e-4
        True
    """

    def __init__(
        self,
        method: Any,
        x0: Any = None,
        bounds: Any = None,
        options: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        batch: int | None = None,
        budget: int | None = None,
        noise: bool = False,
    ) -> None:
        if isinstance(method, str) and method != "auto" and is_peer(method):
            raise InvalidArgument(f"method: {method!r} calls the objective itself and cannot be asked. Use minimize.")
        self.space, start = validate.space_and_start(x0, bounds)
        self._encoding = encoding(self.space, start)
        task = Task(
            self._encoding.inner, validate.check_budget(budget), validate.check_count("batch", batch, 1), noisy=noise
        )
        self.solver = solver_of("cma" if method == "auto" else method, validate.options_for_method(method, options), None, task)
        self._lock = threading.RLock()
        self._state = self.solver.init(self._encoding.start, Key.of(seed).child("solver"))
        self._told: dict[int, Any] = {}
        self._next = self._first = self._known = 0
        self._ids: dict[Any, deque[int]] = {}
        self._x0, self._batch, self._shown = start, None, None
        self.nfev = 0
        self.best_x: Any = None
        self.best_fun = float("inf")
