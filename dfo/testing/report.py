"""What a check found: one outcome a law, printed as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Outcome", "Report", "Status"]

Status = Literal["passed", "failed", "skipped", "not declared"]


@dataclass(frozen=True)
class Outcome:
    """How a subject stands before one law.

    Args:
        law: name of the law.
        status: ``"passed"``, ``"failed"``, ``"skipped"`` (it could not be tried here) or ``"not declared"``
            (an optional law that the subject does not promise to keep).
        message: the counterexample, the reason for skipping, or a remark.
        examples: cases drawn.
        seconds: time spent.
        states: what the law says, in one sentence.
    """

    law: str
    status: Status
    message: str = ""
    examples: int = 0
    seconds: float = 0.0
    states: str = ""


@dataclass(frozen=True)
class Report:
    """The outcomes of a check.

    Args:
        subject: what was checked, as it would be written.
        outcomes: one a law, in the order of the laws.

    Example:
        >>> from dfo.testing import Outcome, Report
        >>> Report("Solver()", (Outcome("budget", "passed", examples=3),)).raise_if_failed()
    """

    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the laws that are broken."""
        return self._names("failed")

    @property
    def passed(self) -> tuple[str, ...]:
        """Names of the laws that were tried and hold."""
        return self._names("passed")

    def _names(self, status: Status) -> tuple[str, ...]:
        return tuple(outcome.law for outcome in self.outcomes if outcome.status == status)

    def __getitem__(self, law: str) -> Outcome:
        return next(outcome for outcome in self.outcomes if outcome.law == law)

    def raise_if_failed(self) -> None:
        """Raise if any law is broken.

        Raises:
            AssertionError: names each broken law, what it says, and the counterexample.
        """
        broken = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        if broken:
            lines = [f"{o.law}: {o.states}\n    {o.message}" for o in broken]
            raise AssertionError(f"{self.subject} breaks {len(broken)} law(s)\n  " + "\n  ".join(lines))

    def __repr__(self) -> str:
        width = max([len(outcome.law) for outcome in self.outcomes], default=0)
        lines = [self.subject]
        for o in self.outcomes:
            remark = o.message.splitlines()[0] if o.message else ""
            lines.append(
                f"  {o.law:<{width}}  {o.status:<12}  {o.examples:>3} cases  {o.seconds:5.2f} s  {remark}".rstrip()
            )
        return "\n".join(lines)
