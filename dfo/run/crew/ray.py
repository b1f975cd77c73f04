"""Evaluations as tasks of a Ray cluster: on this machine, or on many.

Each evaluation is one task, named by its number. Ray retries nothing here: an evaluation whose *worker* died is tried
again as often as the user allows, and one whose *node* died goes to another node without counting against it.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dfo.errors import DfoWarning, InvalidArgument, InvalidType, ObjectiveFailed, short
from dfo.oracles.outcomes import Failed
from dfo.run.crew import ray_head
from dfo.run.crew.wire import Parcel, attempt, loads, pack

__all__ = ["Ray", "RayEvaluator", "ray_evaluator"]

POLL = 0.1
"""Seconds between two looks at whether the run is to end."""

LOSSES = 10
"""Nodes that may die under one evaluation before it counts as failed."""

_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


@dataclass(frozen=True)
class Ray:
    """Evaluate on a Ray cluster: ``minimize(..., workers=dfo.Ray(resources={"num_gpus": 0.5}))``.

    Args:
        address: ``"host:port"`` of a head, ``"ray://host:port"`` of a client server, ``"auto"`` for a running cluster,
            ``"local"`` for a new one on this machine; None joins a running one if there is one.
        resources: what each evaluation takes: ``num_cpus`` (1 if not given), ``num_gpus``, ``memory`` in bytes, and
            resources that nodes were given names for.

    Raises:
        InvalidType: the address is no string, or a resource no number.
        InvalidArgument: a resource is negative or not finite.

    Example:
        >>> Ray(resources={"num_cpus": 2}).resources
        {'num_cpus': 2}
    """

    address: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.address, (str, type(None))):
            raise InvalidType(f"address: expected 'host:port' or None, got {short(self.address)}.")
        for name, amount in self.resources.items():
            if isinstance(amount, bool) or not isinstance(amount, (int, float)):
                raise InvalidType(f"resources: expected a number for {name!r}, got {short(amount)}.")
            if not 0 <= amount < float("inf"):
                raise InvalidArgument(f"resources: expected a finite amount >= 0 of {name!r}, got {short(amount)}.")


@dataclass
class _Task:
    """One evaluation under way, or waiting to be tried again."""

    number: int
    point: Any
    reference: Any = None
    began: float | None = None
    due: float = 0.0
    died: int = 0
    lost: int = 0


class RayEvaluator:
    """Evaluates points as tasks of a Ray cluster.

    The cluster is joined, or begun, at the first batch; one that began here ends with :meth:`close`.

    Args:
        address: see :class:`Ray`.
        resources: what each evaluation takes; see :class:`Ray`.
        eval_timeout: seconds that one evaluation may run, counted from when it begins on its node.
        retries: how often an evaluation is tried again whose worker process died.
        grace: seconds that evaluations under way may go on once the run is to end.

    Raises:
        InvalidArgument: a time limit for a ``ray://`` address.

    Example:
        >>> RayEvaluator(resources={"num_cpus": 1}, eval_timeout=60.0).lost
        0
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        resources: Mapping[str, float] | None = None,
        eval_timeout: float | None = None,
        retries: int = 1,
        grace: float = 5.0,
    ) -> None:
        wanted = Ray(address, dict(resources or {}))
        self.address, self.resources = wanted.address, {"num_cpus": 1, **wanted.resources}
        if eval_timeout is not None and (address or "").startswith("ray://"):
            raise InvalidArgument(
                f"eval_timeout={eval_timeout:g}: through a Ray client nobody hears when an evaluation begins; run on a"
                " node of the cluster with workers='ray:auto', or let the objective watch its time."
            )
        self.eval_timeout, self.retries, self.grace = eval_timeout, retries, grace
        self.died, self.lost = 0, 0
        """Evaluations made again because a worker died, and because a node died."""
        self.retried: Callable[[int, str], None] = _nobody
        """Called with (number, what happened) when an evaluation is made again."""
        self._ours = False
        self._call: Callable[[Any], Any] | None = None
        self._body = b""
        self._reference: Any = None
        self._remote: Any = None

    def __repr__(self) -> str:
        limit = "" if self.eval_timeout is None else f", eval_timeout={self.eval_timeout:g}"
        return f"RayEvaluator({self.address!r}, resources={self.resources}{limit}, retries={self.retries})"

    def check(self, call: Callable[[Any], Any]) -> None:
        """Refuse an objective that cannot be sent, before any cluster is asked.

        Raises:
            MissingPackage: Ray is not installed.
            InvalidType: it cannot be sent; says why and what to do.
        """
        ray_head.load()
        if call is not self._call:
            self._body, self._call, self._reference = pack(call), call, None

    def __call__(
        self, call: Callable[[Any], Any], points: Mapping[int, Any], halted: Callable[[], bool]
    ) -> Iterator[tuple[int, Any]]:
        """Yield number and outcome of each point, in the order of completion.

        Raises:
            MissingPackage: Ray is not installed.
            InvalidArgument: no cluster answers, or no node of it has the resources.
            InvalidType: the objective cannot be sent.
            ObjectiveFailed: a node cannot load the objective, such as where a module is missing there.
        """
        return _Batch(self, self._send(call), points, halted).outcomes()

    def close(self) -> None:
        """Leave the cluster; end it if it began here."""
        self._call = self._reference = self._remote = None
        if self._ours:
            self._ours = False
            ray_head.end()

    def start(self, reference: Any, task: _Task) -> None:
        """Hand a task to the cluster.

        Raises:
            InvalidArgument: Ray does not take these resources.
        """
        # by default Ray fills a node before it looks at the next one: short evaluations would never leave the first
        options = {"name": f"evaluation {task.number}", "scheduling_strategy": "SPREAD", **self._request()}
        try:  # the reference travels inside a list: each worker process fetches the objective once, and keeps it
            task.reference = self._remote.options(**options).remote([reference], reference.hex(), task.point)
        except ValueError as error:  # such as one and a half GPU
            raise InvalidArgument(f"resources: Ray does not take {self.resources} ({error}).") from error
        task.began = None

    def slots(self) -> int:
        """Return how many evaluations the cluster can hold at the same time."""
        amounts = {_OPTIONS.get(name, name): amount for name, amount in self.resources.items() if amount > 0}
        alive = [node["Resources"] for node in ray_head.load().nodes() if node["Alive"]]
        if not amounts:
            return sum(max(1, int(node.get("CPU", 1))) for node in alive)
        return sum(int(min(node.get(name, 0) / amount for name, amount in amounts.items())) for node in alive)

    def _request(self) -> dict[str, Any]:
        own = {name: amount for name, amount in self.resources.items() if name not in _OPTIONS}
        return {name: self.resources[name] for name in _OPTIONS if name in self.resources} | {"resources": own}

    def _send(self, call: Callable[[Any], Any]) -> Any:
        """Put the objective into the cluster, once, and return the reference to it."""
        self.check(call)
        ray = ray_head.load()
        if self._remote is None:
            took = ray_head.join(self.address)
            self._ours = self._ours or took != "there"
            self._capacity(fixed=took == "begun")
            timed = self.eval_timeout is not None
            form = {"num_returns": "streaming"} if timed else {}  # two answers: it has begun, and what it came to
            self._remote = ray.remote(max_retries=0, **form)(_timed if timed else _evaluate)
        if self._reference is None:
            self._reference, self._body = ray.put((list(sys.path), self._body)), b""
        return self._reference

    def _capacity(self, fixed: bool) -> None:
        """Refuse what no node could ever run; a cluster of others may still grow."""
        if self.slots() > 0:
            return
        text = f"no node of the Ray cluster has {dict(self.resources)}: evaluations would wait for ever"
        if fixed:
            self.close()
            raise InvalidArgument(f"resources: {text}.")
        warnings.warn(f"workers='ray': {text}, unless one joins.", DfoWarning, stacklevel=2)


class _Batch:
    """The evaluations of one batch."""

    def __init__(
        self, crew: RayEvaluator, reference: Any, points: Mapping[int, Any], halted: Callable[[], bool]
    ) -> None:
        self.crew, self.reference, self.halted = crew, reference, halted
        self.ray, self.errors = ray_head.load(), ray_head.load().exceptions
        self.waiting = deque(_Task(number, point) for number, point in points.items())
        self.flying: dict[Any, _Task] = {}
        self.window, self.looked = self._width(), time.monotonic()
        self.until: float | None = None

    def outcomes(self) -> Iterator[tuple[int, Any]]:
        """Yield number and outcome; whatever is left at the end is given up."""
        try:
            while self.waiting or self.flying:
                if self._ended():
                    return
                self._submit()
                for task in self._ready():
                    outcome = self._settle(task)
                    if outcome is not None:
                        yield task.number, outcome[0]
                yield from self._late()
        finally:
            for reference in self.flying:
                self.ray.cancel(reference, force=True)

    def _width(self) -> int:
        return 2 * self.crew.slots() + 2

    def _ended(self) -> bool:
        """Tell whether the grace is over; nothing new begins once the run is to end."""
        if self.until is None and self.halted():
            self.until = time.monotonic() + self.crew.grace
            self.waiting.clear()
            if self.crew.eval_timeout is not None:  # then those that have not begun are known
                self._give_up(task for task in list(self.flying.values()) if task.began is None)
        return self.until is not None and time.monotonic() >= self.until

    def _give_up(self, tasks: Iterable[_Task]) -> None:
        for task in tasks:
            self.ray.cancel(task.reference, force=True)
            del self.flying[task.reference]

    def _submit(self) -> None:
        now = time.monotonic()
        if self.waiting and now > self.looked + 5.0:  # nodes may have joined
            self.window, self.looked = self._width(), now
        for _ in range(len(self.waiting)):
            if len(self.flying) >= self.window:
                return
            task = self.waiting.popleft()
            if task.due > now:
                self.waiting.append(task)
                continue
            self.crew.start(self.reference, task)
            self.flying[task.reference] = task

    def _ready(self) -> list[_Task]:
        """Return the tasks that have something to say, after a short wait."""
        flying = list(self.flying)
        if not flying:
            time.sleep(POLL)  # all that is left waits for its next attempt
            return []
        ready, rest = self.ray.wait(flying, num_returns=1, timeout=POLL)
        if ready and rest:
            ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [self.flying[reference] for reference in ready]

    def _settle(self, task: _Task) -> tuple[Any] | None:
        """Return the outcome of a task, or None where it has only begun or is tried again."""
        timed = self.crew.eval_timeout is not None
        try:
            said = self.ray.get(next(task.reference) if timed else task.reference)
        except (self.errors.NodeDiedError, self.errors.ObjectLostError, self.errors.LocalRayletDiedError) as error:
            return self._lost(task, _line(error))
        except (self.errors.RayTaskError, self.errors.RaySystemError) as error:
            if not isinstance(error, self.errors.TaskCancelledError):
                raise ObjectiveFailed(f"Ray: a node cannot run the objective ({_line(error)}).") from error
            return self._died(task, "cancelled from outside")
        except self.errors.WorkerCrashedError:
            return self._died(task, "the worker process died")
        except self.errors.RayError as error:  # such as killed for want of memory
            return self._died(task, _line(error))
        if timed and task.began is None:
            task.began = time.monotonic()
            return None
        del self.flying[task.reference]
        return (said.outcome,)

    def _died(self, task: _Task, text: str) -> tuple[Any] | None:
        del self.flying[task.reference]
        task.died += 1
        if task.died > self.crew.retries:
            return (Failed("died", text),)
        self.crew.died += 1
        self._again(task, text)
        return None

    def _lost(self, task: _Task, text: str) -> tuple[Any] | None:
        del self.flying[task.reference]
        task.lost += 1
        if task.lost > LOSSES:
            return (Failed("died", f"lost with {LOSSES} nodes ({text})"),)
        self.crew.lost += 1
        self.window = self._width()
        task.due = time.monotonic() + min(0.1 * 2**task.lost, 5.0)  # until the cluster knows that the node is gone
        self._again(task, text)
        return None

    def _again(self, task: _Task, text: str) -> None:
        if self.until is None:
            self.crew.retried(task.number, text)
            self.waiting.appendleft(task)

    def _late(self) -> Iterator[tuple[int, Any]]:
        """Interrupt evaluations that ran past their time."""
        limit, now = self.crew.eval_timeout, time.monotonic()
        if limit is None:
            return
        late = [task for task in self.flying.values() if task.began is not None and now - task.began > limit]
        self._give_up(late)
        for task in late:
            yield task.number, Failed("timeout", f"no value after {limit:g} s")


def _nobody(number: int, text: str) -> None:
    """Take no notice."""


def ray_evaluator(
    workers: str | Ray | RayEvaluator, *, eval_timeout: float | None = None, retries: int = 1, grace: float = 5.0
) -> RayEvaluator:
    """Return the evaluator that ``workers`` means.

    Args:
        workers: ``"ray"``, ``"ray://host:port"``, ``"ray:ADDRESS"`` with an address of :class:`Ray`, a :class:`Ray`,
            or an evaluator, which stays as it is.
        eval_timeout: seconds that one evaluation may run.
        retries: how often an evaluation is made again whose worker process died.
        grace: seconds that evaluations under way may go on once the run is to end.

    Example:
        >>> ray_evaluator("ray:auto", retries=2)
        RayEvaluator('auto', resources={'num_cpus': 1}, retries=2)
    """
    if isinstance(workers, RayEvaluator):
        return workers
    if isinstance(workers, str):
        workers = Ray(workers if workers.startswith("ray://") else workers.partition(":")[2] or None)
    return RayEvaluator(
        workers.address, resources=workers.resources, eval_timeout=eval_timeout, retries=retries, grace=grace
    )


def _line(error: Exception) -> str:
    """Return the sentence of an error that says most: the first of Ray's, or the last of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = "Traceback" in str(error) or "ray::" in str(error)
    text = lines[-1 if last else 0] if lines else type(error).__name__
    return text.split(". ")[0].rstrip(".")[:200]


# What follows runs on the nodes.


_CALLS: dict[str, Callable[[Any], Any]] = {}


def _evaluate(references: list[Any], key: str, point: Any) -> Parcel:
    """Evaluate one point with the objective of this key, fetched once in the life of a worker process."""
    if key not in _CALLS:
        _CALLS.clear()
        path, body = ray_head.load().get(references[0])
        sys.path += [folder for folder in path if folder not in sys.path]  # modules beside the script are found too
        _CALLS[key] = loads(body)
    return Parcel(attempt(_CALLS[key], point))


def _timed(references: list[Any], key: str, point: Any) -> Iterator[Any]:
    """Say that the evaluation begins, then what it came to."""
    yield "begun"
    yield _evaluate(references, key, point)
