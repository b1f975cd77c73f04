"""What is kept of a run: one line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from dfo.bench.plan import Cell
from dfo.errors import BadState, short
from dfo.files import strict_json

__all__ = ["Failure", "Record"]


@dataclass(frozen=True)
class Failure:
    """Why a run did not come to its end.

    Args:
        kind: name of the exception's class.
        message: its text.
        traceback: where it came from; empty if unknown.
    """

    kind: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Record:
    """The outcome of a cell.

    Args:
        problem: name of the problem.
        method: the method.
        seed: the user's seed.
        dim: variables; 0 if the problem could not be built.
        group: family of the problem.
        budget: evaluations granted.
        targets: number of targets; 0 where best values are compared.
        evaluations: evaluations spent.
        runs: times the method was started: 1 and the restarts.
        failed_evaluations: evaluations that gave no usable value.
        hits: evaluations spent at the first hit of each target, as far as targets were hit.
        trace: (evaluations, lowest gap so far) at counts spaced evenly in their logarithm and at the
            budgets of the tables; without targets, the lowest merit.
        seconds: wall-clock duration.
        cpu_seconds: processor time of the whole run, the objective's included.
        session: index of the entry of ``config.json`` that says with which versions it was run.
        failure: why it ended early, or None.
    """

    problem: str
    method: str
    seed: int
    dim: int = 0
    group: str = ""
    budget: int = 0
    targets: int = 0
    evaluations: int = 0
    runs: int = 0
    failed_evaluations: int = 0
    hits: tuple[int, ...] = ()
    trace: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    session: int = 0
    failure: Failure | None = None

    @property
    def cell(self) -> Cell:
        """What was run."""
        return Cell(self.problem, self.method, self.seed)

    @property
    def best(self) -> float:
        """The lowest gap, or merit without targets; infinite where nothing was evaluated."""
        return self.trace[-1][1] if self.trace else math.inf

    def best_at(self, evaluations: int) -> float:
        """Return the lowest gap (merit) after a number of evaluations."""
        return next((value for count, value in reversed(self.trace) if count <= evaluations), math.inf)

    def to_line(self) -> str:
        """Return the record as one line of JSON, without what is at its default."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: value for name, value in content.items() if value != _DEFAULTS.get(name, _DEFAULTS)}
        if self.failure is not None:
            kept["failure"] = self.failure.__dict__
        return json.dumps(kept, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> Record:
        """Return the record that :meth:`to_line` wrote.

        Raises:
            BadState: the line is something else.
        """
        try:
            content: Mapping[str, Any] = strict_json(line)
            table = dict(content)
            table["hits"] = tuple(table.get("hits", ()))
            table["trace"] = tuple((int(n), float(v)) for n, v in table.get("trace", ()))
            if table.get("failure") is not None:
                table["failure"] = Failure(**table["failure"])
            return cls(**table)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise BadState(f"expected a record of a run, got {short(line)} ({error})") from None


_DEFAULTS = {f.name: f.default for f in fields(Record) if f.name not in ("problem", "method", "seed")}
