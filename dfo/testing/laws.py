"""What a law is, how its cases are drawn, and how a subject is judged by many of them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dfo.errors import unknown
from dfo.testing.report import Outcome, Report

__all__ = ["Broken", "Cases", "Domain", "Law", "Skipped", "expect", "judge", "law"]

Domain: TypeAlias = range | Sequence[Any]
"""Where an argument of a case is drawn from: a range of integers, or a list of choices."""


class Broken(AssertionError):
    """A law does not hold; the message says for what."""


class Skipped(Exception):
    """A law cannot be tried here; the message says why."""


def expect(holds: bool, message: str) -> None:
    """Raise unless ``holds``; unlike the statement ``assert``, also under ``python -O``.

    Raises:
        Broken: it does not hold.
    """
    if not holds:
        raise Broken(message)


class Cases:
    """Draws the cases of one law with hypothesis until its share of the time is spent.

    Cases are the same in every run (nothing is random, nothing is stored), the first one is always tried,
    and a failing one is shrunk to a small one.

    Args:
        seconds: share of the time.
        most: most cases.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self.until, self.most, self.tried = time.monotonic() + seconds, most, 0
        self.remark = ""  # what the report says beside a law that holds
        self._failing: dict[str, BaseException] = {}
        self._last_try = math.inf
        self._last = ""

    def each(self, body: Callable[..., None], always: Iterable[Mapping[str, Any]] = (), **domains: Domain) -> None:
        """Call ``body`` with arguments drawn from their domains, and with those of ``always`` whatever the time.

        Raises:
            Broken: ``body`` raised, with the smallest arguments found.
            Skipped: ``body`` said so.
            ImportError: hypothesis is not installed.
        """
        hypothesis, strategies = _hypothesis()
        settings = hypothesis.settings(
            max_examples=self.most, derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck), print_blob=False,
        )  # fmt: skip

        def one(**drawn: Any) -> None:
            going = time.monotonic() <= self.until and self.tried < self._last_try
            if not self.tried or going or _name(drawn) in self._failing:
                self._try(body, drawn)

        try:
            settings(hypothesis.given(**{name: _strategy(strategies, d) for name, d in domains.items()})(one))()
            for case in always:
                self._try(body, case)
        except Skipped:
            raise
        except Exception as error:
            raise Broken(f"{_sentence(error)}\n    for {self._last}") from error

    def _try(self, body: Callable[..., None], drawn: Mapping[str, Any]) -> None:
        self._last = _name(drawn)
        if self._last in self._failing:  # again, so that shrinking sees what it saw before
            raise self._failing[self._last]
        self.tried += 1
        try:
            body(**drawn)
        except Exception as error:
            self._failing[self._last] = error
            self._last_try = min(self._last_try, self.tried + self.most)  # as many to find a smaller one
            raise


def _name(drawn: Mapping[str, Any]) -> str:
    return ", ".join(f"{argument}={value!r}" for argument, value in drawn.items())


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, Broken) else f"raised {type(error).__name__}: {error}"


def _hypothesis() -> tuple[Any, Any]:
    try:
        import hypothesis
        import hypothesis.strategies
    except ImportError:
        raise ImportError("dfo.testing draws its cases with hypothesis. Run: pip install 'dfo-optim[test]'.") from None
    return hypothesis, hypothesis.strategies


def _strategy(strategies: Any, domain: Domain) -> Any:
    if isinstance(domain, range):
        return strategies.integers(domain[0], domain[-1])
    return strategies.sampled_from(list(domain))


@dataclass(frozen=True)
class Law:
    """Something that is true of every solver, oracle or problem, or of those that declare it.

    Args:
        name: short, for reports and selections.
        check: function of a subject; raises if the law is broken.
        declared: whether it applies only to subjects that list it in their ``laws``.
    """

    name: str
    check: Callable[[Any], None]
    declared: bool = False

    @property
    def states(self) -> str:
        """What the law says, in one sentence."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


def law(book: dict[str, Law], name: str, declared: bool = False) -> Callable[[Callable[[Any], None]], Law]:
    """Enter a function into a book of laws; usable as a decorator."""

    def enter(check: Callable[[Any], None]) -> Law:
        book[name] = Law(name, check, declared)
        return book[name]

    return enter


def judge(
    subject: str,
    book: Mapping[str, Law],
    build: Callable[[Cases], Any],
    seconds: float,
    cases: int,
    laws: Iterable[str] | None = None,
    declared: Iterable[str] = (),
) -> Report:
    """Judge a subject by the laws of a book and return the report.

    Args:
        subject: its name in the report.
        book: the laws.
        build: makes what the checks get, from the cases of one law.
        seconds: shared among the laws; what one leaves over goes to the rest.
        cases: most cases drawn for one law.
        laws: names of the laws wanted; all by default.
        declared: optional laws that the subject promises to keep.

    Raises:
        UnknownName: a name that no law has.
    """
    wanted, promised = list(book if laws is None else laws), set(declared)
    for name in [*wanted, *promised]:
        if name not in book:
            raise unknown("law", name, book)
    todo = [name for name in wanted if not book[name].declared or name in promised]
    end = time.monotonic() + seconds
    outcomes = []
    for name in wanted:
        if name not in todo:
            outcomes.append(Outcome(name, "not declared", states=book[name].states))
            continue
        left = len(todo) - todo.index(name)
        share = max(0.0, end - time.monotonic()) / left
        outcomes.append(_outcome(book[name], build, Cases(share, cases)))
    return Report(subject, tuple(outcomes))


def _outcome(one: Law, build: Callable[[Cases], Any], cases: Cases) -> Outcome:
    began = time.monotonic()
    status, message = "passed", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a law that is about warnings turns them on
            one.check(build(cases))
    except Skipped as reason:
        status, message = "skipped", str(reason)
    except ImportError:
        raise
    except Exception as error:
        status, message = "failed", _sentence(error)
    seconds = time.monotonic() - began
    return Outcome(one.name, status, message or cases.remark, max(1, cases.tried), seconds, one.states)  # type: ignore[arg-type]
