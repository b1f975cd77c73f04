"""Ask for points, evaluate them wherever and whenever, tell their values in any order."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import copy, is_array
from dfo.batch import Batch
from dfo.encodings import encoding
from dfo.errors import AlreadyTold, BadState, IncompatibleOracle, InvalidArgument, InvalidType, UnknownCandidate, short
from dfo.feedback import Ranking, Values
from dfo.oracles.encoded import decoded
from dfo.oracles.rank import RankOracle
from dfo.oracles.values import values_of
from dfo.protocols import Task
from dfo.random import Key
from dfo.run import validate
from dfo.run.candidates import Asked, Candidate, Kept, beyond, chosen, content, members, one
from dfo.run.packing import load, save
from dfo.run.peers import is_peer
from dfo.run.session import inside_of
from dfo.run.setup import solver_of

if TYPE_CHECKING:
    from dfo.run.serve import Server
    from dfo.run.store import Store
    from dfo.run.store.asking import Journal

__all__ = ["AskTell", "Candidate"]


class AskTell:
    """A solver without a loop: the caller evaluates.

    Each :meth:`ask` hands out a new candidate; each :meth:`tell` takes one value, in any order. When every
    member of the solver's batch has its value the solver learns, and the next batch begins. Candidates
    asked beyond the batch, while values are outstanding, are drawn from the same distribution and reach
    the solver as points that it observes. All methods may be called from several threads.

    Args:
        method: a name or a solver, as in :func:`dfo.minimize` (peers cannot be asked).
        x0: a start, a space, or a dictionary of parameters, as in :func:`dfo.minimize`.
        bounds: one pair per variable, a convex set, or None. In a set, some candidates may lie a little beside it;
            these are never ``best_x``, and ``recommended`` is a point of the set.
        options: fields of the solver by name.
        seed: any integer >= 0.
        batch: evaluations per step.
        budget: evaluations that the caller intends to spend, if known: some solvers plan for it, and with it
            they restart when they have converged. It is not enforced.
        noise: whether equal points may get different values.
        store: file (``"run.db"``, or a :class:`dfo.Store`) in which every question is kept before it is handed out, and
            every answer before the solver learns. Made again with the same arguments, the object is where it was, to
            the last bit, and candidates without a value are handed out again first, under their numbers.

    Raises:
        InvalidArgument, InvalidType: as :func:`dfo.minimize` does.
        IncompatibleOracle: the method needs more than values, such as the ends of inner problems.
        RunMismatch: the store was begun with other arguments.
        RunLocked, DamagedStore, CannotWrite: see :class:`dfo.Store`.

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
        store: str | os.PathLike[str] | Store | None = None,
    ) -> None:
        if isinstance(method, str) and method != "auto" and is_peer(method):
            raise InvalidArgument(f"method: {method!r} calls the objective itself and cannot be asked. Use minimize.")
        self.space, start = validate.space_and_start(x0, bounds)
        self._encoding, self._budget = encoding(self.space, start), budget
        self._journal: Journal | None = None
        begun = {"x0": x0, "method": method, "bounds": bounds, "options": options, "batch": batch, "noise": noise}
        task = Task(
            self._encoding.inner, validate.check_budget(budget), validate.check_count("batch", batch, 1), noisy=noise
        )
        if method == "auto":
            method = chosen(self.space, task)
        self.solver = solver_of(method, options or {}, None, task)
        if missing := self.solver.needs - {"values", "ranking"}:
            raise IncompatibleOracle(
                f"{type(self.solver).__name__} needs {', '.join(sorted(missing))}; AskTell gets values or orders."
                " Give dfo.minimize an oracle that answers with them."
            )
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        """Notified when a value is told or a candidate is given back."""
        self._state: Any = self.solver.init(self._encoding.start, Key.of(seed).child("solver"))
        self._serial = self._extras = 0
        self._pending: dict[int, Asked] = {}
        self._by_point: dict[Any, list[int]] = {}
        self._told: set[int] = set()
        self._again: list[int] = []
        self.nfev = 0
        self._inside = inside_of(self._encoding.inner)
        self.best_x: Any = None
        self.best_fun = math.inf
        self._begin()
        if store is not None:
            from dfo.run.store.asking import Journal

            journal = Journal(store, {**begun, "seed": seed}, self.solver, budget)
            journal.play(self)
            self._journal = journal

    def _begin(self) -> None:
        """Draw the solver's next batch."""
        self._origin: Any = self._state  # what the batch is drawn from; observations move the state on
        self._batch: Batch = self.solver.ask(self._state)
        self._points = members(decoded(self._batch, self._encoding))
        self._values: list[float | None] = [None] * len(self._points)
        self._given = 0

    # ------------------------------------------------------------------ asking

    def ask(self) -> Any:
        """Return a new point to evaluate, a private copy."""
        return self.ask_candidate().x

    def ask_candidate(self) -> Candidate:
        """Return a new candidate: a point with its number and data."""
        with self._lock:
            if self._again:  # handed out before a restore or to a client that is gone, and never told
                number = self._again.pop(0)
                return self._candidate(number, self._pending[number])
            member = None if self.ahead else self._given
            z, x = (None, self._points[member]) if member is not None else self._beyond()
            number = self._serial
            if self._journal is not None:
                self._journal.asked(number, x, None if member is None else self._batch.step, self._data(member))
            self._serial += 1
            if member is None:
                self._extras += 1
            else:
                self._given += 1
            return self._candidate(number, self._wait_for(number, member, z, x))

    def _wait_for(self, number: int, member: int | None, z: Any, x: Any) -> Asked:
        asked = self._pending[number] = Asked(member, z, x, content(x))
        self._by_point.setdefault(asked.key, []).append(number)
        return asked

    def _candidate(self, number: int, asked: Asked) -> Candidate:
        return Candidate(number, copy(asked.x) if is_array(asked.x) else asked.x, self._data(asked.member))

    def _data(self, member: int | None) -> int | None:
        return None if member is None or self._batch.data is None else int(self._batch.data[member])

    def _beyond(self) -> tuple[Any, Any]:
        return beyond(self.solver, self._state, self._extras, len(self._points), self._encoding)

    def ask_batch(self) -> list[Candidate]:
        """Return all candidates of the present batch that have not been handed out."""
        with self._lock:
            return [self.ask_candidate() for _ in range(len(self._points) - self._given)]

    @property
    def pending(self) -> dict[int, Any]:
        """The points that were asked and not yet told, by number; to hand out again after a crash."""
        with self._lock:
            return {number: asked.x for number, asked in self._pending.items()}

    # ------------------------------------------------------------------ telling

    def tell(self, candidate: Any, value: Any) -> None:
        """Take the value of a candidate.

        Args:
            candidate: what :meth:`ask` or :meth:`ask_candidate` returned, or a candidate's number.
            value: a real number; NaN, infinite or no number at all is a failed evaluation.

        Raises:
            UnknownCandidate: it was never asked. Points of your own go through :meth:`observe`.
            AlreadyTold: it has its value already.
        """
        with self._lock:
            number, f = self._number(candidate), one(value)
            if self._journal is not None:
                self._journal.told(number, value)
            if number in self._again:
                self._again.remove(number)
            self.changed.notify_all()
            asked = self._pending.pop(number)
            numbers = self._by_point[asked.key]
            numbers.remove(number)
            if not numbers:
                del self._by_point[asked.key]
            self._told.add(number)
            self.nfev += 1
            if f < self.best_fun and (self._inside is None or self._inside(asked.x)):
                self.best_x, self.best_fun = (copy(asked.x) if is_array(asked.x) else asked.x), f
            if asked.member is None:
                self._observe([asked.z], np.array([f]))
                return
            self._values[asked.member] = f if math.isfinite(f) else math.nan
            if all(v is not None for v in self._values):
                self._learn(values_of(self._values))

    def tell_order(self, order: Sequence[Any] | None) -> None:
        """Take a ranking of the present batch instead of values, for solvers that need only an order.

        Args:
            order: indices into :meth:`ask_batch`, best first; ties as groups; the first few are enough; None
                to skip the question.

        Raises:
            InvalidType: the solver needs values.
        """
        with self._lock:
            if "ranking" not in self.solver.needs:
                raise InvalidType(f"tell_order: {type(self.solver).__name__} needs values, and an order has none.")
            told, _ = RankOracle(lambda points: order, None).evaluate(self._batch, ())
            if self._journal is not None:
                self._journal.ordered(order)
            for number in [n for n, asked in self._pending.items() if asked.member is not None]:
                asked = self._pending.pop(number)
                self._by_point[asked.key].remove(number)
                self._told.add(number)
            self._again = [number for number in self._again if number in self._pending]
            self.nfev += len(self._points)
            self.changed.notify_all()
            self._learn(told)

    def _learn(self, told: Values | Ranking) -> None:
        self._state = self.solver.tell(self._state, self._batch, told)
        self._begin()

    def _number(self, candidate: Any) -> int:
        if isinstance(candidate, Candidate):
            number = candidate.id
        elif isinstance(candidate, int) and not isinstance(candidate, bool):
            number = candidate
        else:
            numbers = self._by_point.get(content(candidate), ())
            if not numbers:
                raise UnknownCandidate(
                    f"tell: {short(candidate)} is not waiting for a value: it was never asked, is told already, or was"
                    " changed since. Pass what ask() returned; points of your own go through observe()."
                )
            number = numbers[0]
        if number in self._told:
            raise AlreadyTold(f"tell: candidate {number} has its value already.")
        if number not in self._pending:
            raise UnknownCandidate(f"tell: no candidate {number} was asked; {self._serial} have been so far.")
        return number

    def observe(self, x: Any, value: float) -> None:
        """Take a point that was never asked, with its value.

        It may become the best; a solver that can learn from foreign points does.

        Raises:
            InvalidArgument: the point is not in the space.
        """
        point = np.asarray(x, dtype=float) if not is_array(x) and isinstance(x, (list, tuple)) else x
        if not self.space.contains(point):
            raise InvalidArgument(f"observe: {short(x)} is not a point of {self.space!r}.")
        with self._lock:
            f = one(value)
            if self._journal is not None and math.isfinite(f):
                self._journal.observed(point, f)
            if f < self.best_fun:
                self.best_x, self.best_fun = (copy(point) if is_array(point) else point), f
            self._observe([self._encoding.encode(point)], np.array([f]))

    def _observe(self, points: list[Any], values: Any) -> None:
        if not hasattr(self.solver, "observe") or not math.isfinite(values[0]):
            return
        before = self._state
        stacked = points[0][None] if is_array(points[0]) else points
        self._state = self.solver.observe(before, stacked, values)

    # ------------------------------------------------------------------ others

    def serve(self, budget: int | None = None) -> Server:
        """Let other processes of this machine ask and tell, through :func:`dfo.join`, until the server is closed.

        Args:
            budget: candidates that are handed out in all; the object's own budget if None. Clients then get None
                for a candidate, and ``wait`` of the server returns.

        Returns:
            The server, a context manager. Asking and telling goes on here too.

        Raises:
            InvalidArgument: there is no store that others could name.
            CannotWrite: there is no room for a socket.
        """
        from dfo.run.serve import Server

        if self._journal is None:
            raise InvalidArgument('serve: expected an AskTell with a store, such as store="run.db".')
        budget = self._budget if budget is None else budget
        return Server(self, self._journal.path, validate.check_budget(budget))

    def give_back(self, numbers: Collection[int]) -> None:
        """Have candidates handed out again whose evaluation was given up, under their numbers, before new ones."""
        with self._lock:
            self._again = sorted({*self._again, *(number for number in numbers if number in self._pending)})
            self.changed.notify_all()

    @property
    def ahead(self) -> bool:
        """Whether the next new candidate lies beyond the present batch."""
        return self._given >= len(self._points)

    @property
    def asked(self) -> int:
        """How many candidates were handed out, each counted once."""
        return self._serial

    @property
    def returned(self) -> int:
        """How many candidates were given back and wait to be handed out again."""
        return len(self._again)

    def close(self) -> None:
        """Let go of the store, if there is one; the object can no longer be asked or told then."""
        if self._journal is not None:
            with self._lock:
                self._journal.close(self)

    def __enter__(self) -> AskTell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------ keeping

    def save(self, path: str) -> None:
        """Write everything to a file, atomically, for :meth:`restore`; no pickle."""
        with self._lock:
            pending = tuple((number, asked.member, asked.z) for number, asked in sorted(self._pending.items()))
            counts = (self._serial, self._extras, self._given, self.nfev)
            told = tuple(sorted(self._told))
            kept = Kept(
                self._origin, self._state, tuple(self._values), counts, pending, told, self.best_x, self.best_fun
            )
            save(path, kept)

    def restore(self, path: str) -> None:
        """Take up what :meth:`save` wrote, on an object made with the same arguments.

        Candidates that were handed out and never told are handed out again first, under their numbers.

        Raises:
            BadState: the file is damaged or was written by something else.
        """
        kept = load(path)
        if not isinstance(kept, Kept) or type(kept.state) is not type(self._state):
            raise BadState(f"restore: {path} does not hold an AskTell of {type(self.solver).__name__}.")
        with self._lock:
            self._state, self._told = kept.origin, set(kept.told)
            self._begin()
            self._state = kept.state
            self._values = list(kept.values)
            self._serial, self._extras, self._given, self.nfev = kept.counts
            self.best_x, self.best_fun = kept.best_x, kept.best_fun
            self._pending, self._by_point = {}, {}
            for number, member, z in kept.pending:
                x = self._points[member] if member is not None else self._encoding.decode(z[None])[0]
                self._wait_for(number, member, z, x)
            self._again = sorted(self._pending)

    @property
    def recommended(self) -> Any:
        """The solver's recommendation: what to use when values are noisy."""
        with self._lock:
            z = self.solver.recommend(self._state)
            return self._encoding.decode(z[None])[0] if is_array(z) else z

    @property
    def finished(self) -> str | None:
        """Why the solver has nothing left to do, or None."""
        return self.solver.finished(self._state) if hasattr(self.solver, "finished") else None
