"""Evaluations told as they end: no worker waits for the slowest of a batch.

The solver is driven as :class:`dfo.AskTell` drives it: what is free gets the next candidate at once, values arrive in
any order, and candidates drawn beyond a batch reach the solver as points that it observes. Which those are depends on
how long evaluations take, so that two runs differ; without ``asynchronous=True`` they never do.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dfo.arrays import is_array
from dfo.batch import Batch, Items, Points
from dfo.errors import CannotWrite, InvalidArgument, ObjectiveFailed, short
from dfo.feedback import Values
from dfo.oracles.function import Function, Halted
from dfo.oracles.outcomes import Evaluator, Failed
from dfo.oracles.values import values_of
from dfo.run.result import STATUS
from dfo.run.setup import GRACE

if TYPE_CHECKING:
    from dfo.run.asktell import AskTell, Candidate
    from dfo.run.result import Result
    from dfo.run.session import Session
    from dfo.run.setup import Setup
    from dfo.run.store import Run

__all__ = ["AsTheyEnd", "lanes_of_workers"]

LOOK = 0.1
"""Seconds between two looks at whether the run is to end."""


def lanes_of_workers(workers: Any, oracle: Any, eval_timeout: float | None, retries: int) -> list[Evaluator]:
    """Return one evaluator for each evaluation that can be under way at the same time.

    Raises:
        InvalidArgument: the oracle or the workers cannot be used one evaluation at a time.
    """
    from concurrent.futures import Executor

    from dfo.run.crew import evaluator_of
    from dfo.run.crew.crew import Crew

    if type(oracle) is not Function or oracle.vectorized or oracle.violation is not None:
        raise InvalidArgument(
            "asynchronous: expected a function of one point without constraints; oracles and vectorized functions"
            " answer whole batches. Leave it out, or drive dfo.AskTell yourself."
        )
    shared = oracle.evaluator
    if isinstance(shared, Crew):
        return [Crew(1, eval_timeout=eval_timeout, retries=retries, grace=GRACE) for _ in range(shared.size)]
    if isinstance(workers, Executor):
        count = int(getattr(workers, "_max_workers", 0) or os.cpu_count() or 1)
    else:
        count = int(getattr(shared, "size", 0) or 0) or _slots(shared)
    if shared is None or not count:
        raise InvalidArgument(
            f"asynchronous: expected workers that take one point at a time, got workers={short(workers)}."
            " Pass a number of processes of at least 2, 'threads:8', 'ray', or an executor."
        )
    limits: Any = {"eval_timeout": eval_timeout, "retries": retries, "grace": GRACE}
    return [evaluator_of(workers, oracle.call, **limits) or shared for _ in range(count)]


def _slots(evaluator: Any) -> int:
    slots = getattr(evaluator, "slots", None)
    return int(slots()) if callable(slots) else 0


@dataclass
class _Lane:
    """A thread that waits for one evaluation at a time."""

    evaluate: Evaluator
    call: Callable[[Any], Any]
    jobs: queue.SimpleQueue[Candidate | None]
    done: queue.SimpleQueue[tuple[Candidate, Any]]
    halted: Callable[[], bool]

    def run(self) -> None:
        while (candidate := self.jobs.get()) is not None:
            outcome: Any = None
            try:
                with contextlib.closing(self.evaluate(self.call, {candidate.id: candidate.x}, self.halted)) as found:  # type: ignore[type-var]
                    outcome = next((said for _, said in found), None)
            except Exception as error:
                outcome = error
            self.done.put((candidate, outcome))


@contextlib.contextmanager
def _lanes(
    evaluators: Sequence[Evaluator], call: Callable[[Any], Any], halted: Callable[[], bool]
) -> Iterator[tuple[queue.SimpleQueue[Any], queue.SimpleQueue[tuple[Candidate, Any]]]]:
    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Candidate, Any]] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_Lane(e, call, jobs, done, halted).run, name=f"dfo-lane-{i}", daemon=True)
        for i, e in enumerate(evaluators)
    ]
    for thread in threads:
        thread.start()
    try:
        yield jobs, done
    finally:
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(GRACE)
        for e in evaluators:
            getattr(e, "close", lambda: None)()


@dataclass(frozen=True, eq=False)
class AsTheyEnd:
    """Drives a run by asking and telling one point at a time.

    Args:
        evaluators: one for each evaluation that can be under way.
        x0: start or space, as the user gave it.
        bounds: as the user gave them.
        seed: of the run.
        planned: budget that the solver plans for.
    """

    evaluators: Sequence[Evaluator]
    x0: Any
    bounds: Any
    seed: int
    planned: Any

    def __call__(self, setup: Setup, session: Session, known: Any, reserve: int) -> Result:
        """Run to the end.

        Raises:
            InvalidArgument: the method is a peer, which cannot be asked.
            ObjectiveRaised: the objective raised an exception.
        """
        from dfo.run.asktell import AskTell
        from dfo.run.finish import result_of

        if isinstance(setup.solver, str):
            raise InvalidArgument(f"asynchronous: {setup.solver} calls the objective itself. Use one of dfo's methods.")
        budget = setup.granted if self.planned is ... else self.planned
        asker = AskTell(
            setup.solver, self.x0, self.bounds, seed=self.seed, budget=budget, noise=setup.noisy, store=setup.run
        )
        session.recommended = lambda: asker.recommended
        for x, value in zip(*known, strict=True) if known is not None else ():
            session.note_known(x, float(value))
            if not asker.asked:  # else it was played back
                asker.observe(x, float(value))
        if setup.run is not None:
            _read_back(setup.run, session)
        try:
            _drive(asker, session, setup.oracle, self.evaluators)
        except CannotWrite as error:
            session.end("unstored", f"{STATUS['unstored']} {error}")
        return result_of(setup, session, reserve)


def _read_back(run: Run, session: Session) -> None:
    """Enter what a store knows, in the order in which it was told."""
    from dfo.run.store import View
    from dfo.run.store.rows import answer_of
    from dfo.run.store.schema import GROUP

    with View.open(run.store.path) as view:
        points = {row.number: row.x for row in view.rows()}
        answers = sorted(view.table("answers"), key=lambda row: int(row[1]))
    for number, _, _, *columns in answers:
        if number < GROUP:  # others belong to the recommendation
            session.count(_batch(points[number]), values_of([answer_of(*columns).value]))
            session.nit += 1


def _batch(x: Any) -> Batch:
    return Points(x[None]) if is_array(x) else Items([x])


def _drive(asker: AskTell, session: Session, oracle: Any, evaluators: Sequence[Evaluator]) -> None:
    """Ask, evaluate and tell until the session ends; evaluations under way then get a grace.

    Raises:
        ObjectiveRaised: the objective raised an exception, with ``on_error="raise"``.
    """
    halt, flying, until = threading.Event(), 0, float("inf")
    with _lanes(evaluators, oracle.call, halt.is_set) as (jobs, done):
        while True:
            while flying < len(evaluators) and _goes_on(asker, session, flying):
                jobs.put(asker.ask_candidate())
                flying += 1
            if session.status and not halt.is_set():
                halt.set()
                until = time.monotonic() + GRACE
            if not flying or time.monotonic() > until:
                break
            with contextlib.suppress(queue.Empty):
                candidate, outcome = done.get(timeout=LOOK)
                flying -= 1
                if outcome is not None:  # None: given up, because the run is to end
                    _enter(asker, session, oracle, candidate, outcome)
    session.end("budget", f"The evaluation budget of {session.budget} is spent.")


def _goes_on(asker: AskTell, session: Session, flying: int) -> bool:
    """Tell whether one more evaluation may begin; note why none may, if it is not for the budget."""
    if session.over():
        return False
    why = asker.finished
    if why is not None:
        session.end("finished", why)
    return why is None and session.spent + (flying + 1) * session.price <= session.budget


def _enter(asker: AskTell, session: Session, oracle: Function, candidate: Candidate, outcome: Any) -> None:
    """Tell one value, and enter it into the books."""
    batch = _batch(candidate.x)
    error = outcome if isinstance(outcome, Exception) else None
    if isinstance(outcome, Failed) and outcome.kind == "raised" and oracle.on_error == "raise":
        error = outcome.error or ObjectiveFailed(outcome.text)
    if error is not None:
        session.halt(batch, Halted(values_of([]), 1, error))
        return
    told: Values = values_of([outcome], first=session.nfev == 0)
    session.count(batch, told)
    asker.tell(candidate.id, outcome)
    session.after_step(batch, told)
