"""What one evaluation came to, who evaluates, and who keeps the books: three contracts around a function.

An *evaluator* answers a few numbered points, at the same time perhaps and in any order; a *ledger* knows what was
answered before and keeps what is answered now. :class:`~dfo.Function` brings the two together: a point goes to the
evaluator only if the ledger has no answer, and an answer reaches the solver only after the ledger has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dfo.batch import Batch
from dfo.secrets import scrub

__all__ = ["KINDS", "Answer", "Evaluator", "Failed", "Ledger"]

KINDS = ("raised", "timeout", "died", "nonfinite", "bad_type")
"""Why an evaluation gave no usable value: the objective raised; it ran past its time; its process died; it returned
NaN or an infinity; it returned something that is no number."""


@dataclass(frozen=True)
class Failed:
    """An evaluation that gave no usable value, in words, so that it can cross a pipe and lie in a store.

    Args:
        kind: one of :data:`KINDS`.
        text: what happened, in one line without the kind: ``"ValueError: no mesh"``, ``"killed by SIGSEGV"``.
        error: the exception itself where it is known in this process; never stored.
        trace: the traceback of another process, as text; never stored.

    Secrets that the process knows of (:mod:`dfo.secrets`) are masked in both texts.
    """

    kind: str
    text: str
    error: Exception | None = field(default=None, compare=False)
    trace: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", scrub(self.text))
        object.__setattr__(self, "trace", scrub(self.trace) if self.trace else "")

    def __str__(self) -> str:
        return f"{self.kind} {self.text}" if self.kind == "raised" else self.text


@dataclass(frozen=True)
class Answer:
    """What is known of one evaluation.

    Args:
        value: the number returned (it may be NaN or infinite), or why there is none.
        violation: total constraint violation; None without constraints.
    """

    value: float | Failed
    violation: float | None = None


class Evaluator(Protocol):
    """Evaluates numbered points."""

    def __call__(
        self, call: Callable[[Any], Any], points: Mapping[int, Any], halted: Callable[[], bool]
    ) -> Iterator[tuple[int, Any]]:
        """Yield ``(number, outcome)`` for each point, in any order, as soon as it is known.

        Args:
            call: the objective; it returns what the user's function returned, or a :class:`Failed` where that raised.
            points: by their number within the run; the number of an evaluation that is tried again stays.
            halted: tells whether the run is to end; asked now and then while evaluations are under way. Then those
                under way may finish within a grace, and the iteration ends early.

        Closing the iterator gives up what is under way.
        """
        ...


class Ledger(Protocol):
    """Keeps the evaluations of a run and knows those of earlier processes."""

    def ask(self, batch: Batch, points: Sequence[Any]) -> tuple[int, Mapping[int, Answer]]:
        """Enter questions; return the number of the first point, and by number the answers known from before.

        Raises:
            RunMismatch: other points were asked under these numbers before.
            CannotWrite: the store is full, gone or read-only.
        """
        ...

    def tell(self, answers: Mapping[int, Answer]) -> None:
        """Enter answers by number: when this returns they outlive the process.

        Raises:
            CannotWrite: the store is full, gone or read-only.
        """
        ...

    def seek(self, number: int) -> None:
        """Say which number the next question has: a batch was cut short, and what is left of it is asked again."""
        ...
