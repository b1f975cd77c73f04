"""Every exception and warning of the package.

::

    DfoError
    |-- InvalidArgument (ValueError)      an argument has a value that cannot be used
    |   `-- UnknownName                   a name that nothing answers to; names the nearest one
    |-- InvalidType (TypeError)           an argument has a type that cannot be used
    |-- IncompatibleOracle (TypeError)    the solver needs an answer that the oracle does not give
    |-- ProblemTooLarge (MemoryError)     a solver would need more memory than the machine has
    |-- MissingPackage (ImportError)      an optional package is not installed; says how to install it
    |-- BadObjective (TypeError)          the first value of the objective is not a number
    |-- UnknownCandidate (KeyError)       ``tell`` got a point that was never asked for
    |-- AlreadyTold (KeyError)            ``tell`` got a candidate that has its value already
    |-- BadState (ValueError)             a stored state does not fit what reads it
    |   |-- DamagedStore                  a store is torn, flipped or foreign; says what `dfo repair` can save
    |   `-- RunMismatch                   a stored run was begun with other arguments; names each difference
    |-- RunLocked (RuntimeError)          another process writes to the store; says which, where, since when
    |-- NoWorkers (RuntimeError)          processes die before they take work, or an executor is broken or closed
    |-- Disconnected (ConnectionError)    the driver of a run, or the connection to it, is gone
    |-- ObjectiveFailed (RuntimeError)    the objective raised in another process something that cannot be sent
    `-- CannotWrite (OSError)             a file could not be written; what was stored before is as it was
    DfoWarning (UserWarning)
    |-- EvaluationWarning                 evaluations failed and were masked
    `-- StoreWarning                      a store was cut short or could no longer be written

Bad *input* raises before the first evaluation is spent; a bad *outcome* is a result.
Messages say what was expected, what came, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AlreadyTold",
    "BadObjective",
    "BadState",
    "CannotWrite",
    "DamagedStore",
    "DfoError",
    "DfoWarning",
    "Disconnected",
    "EvaluationWarning",
    "IncompatibleOracle",
    "InvalidArgument",
    "InvalidType",
    "MissingPackage",
    "NoWorkers",
    "ObjectiveFailed",
    "ProblemTooLarge",
    "RunLocked",
    "RunMismatch",
    "StoreWarning",
    "UnknownCandidate",
    "UnknownName",
    "short",
    "unknown",
]


class DfoError(Exception):
    """Base of every exception that dfo raises on purpose."""


class InvalidArgument(DfoError, ValueError):
    """An argument has a value that cannot be used."""


class UnknownName(InvalidArgument):
    """A method, problem, suite or option that does not exist."""


class InvalidType(DfoError, TypeError):
    """An argument has a type that cannot be used."""


class IncompatibleOracle(DfoError, TypeError):
    """The solver needs feedback that the oracle does not give."""


class ProblemTooLarge(DfoError, MemoryError):
    """The solver would need more memory than there is."""


class MissingPackage(DfoError, ImportError):
    """An optional package is not installed."""


class BadObjective(DfoError, TypeError):
    """The first value that the objective returned is not a real number."""


class UnknownCandidate(DfoError, KeyError):
    """``tell`` got a point that ``ask`` never handed out."""

    __str__ = Exception.__str__  # KeyError would print the repr of the sentence


class AlreadyTold(DfoError, KeyError):
    """``tell`` got a candidate whose value is known already."""

    __str__ = Exception.__str__


class BadState(DfoError, ValueError):
    """A stored solver state does not fit the solver or the schema that reads it."""


class DamagedStore(BadState):
    """A store is torn, flipped, cut short or no store at all."""


class RunMismatch(BadState):
    """A stored run was begun with other arguments, or asks other questions than it did."""


class RunLocked(DfoError, RuntimeError):
    """Another process writes to this store.

    Args:
        message: the whole sentence.
        pid: its process, 0 where it is not known.
        host: its machine.
        since: when it began, as ISO 8601 in UTC.
    """

    def __init__(self, message: str, pid: int = 0, host: str = "", since: str = "") -> None:
        super().__init__(message)
        self.pid, self.host, self.since = pid, host, since


class Disconnected(DfoError, ConnectionError):
    """The driver of a run that others take part in has ended, died, or never began."""


class ObjectiveFailed(DfoError, RuntimeError):
    """The objective raised, in another process, an exception that cannot be sent; the message is what it said."""


class NoWorkers(DfoError, RuntimeError):
    """Nobody is there to evaluate: processes die before they are ready, or an executor is broken or shut down."""


class CannotWrite(DfoError, OSError):
    """A file could not be written (disk full, folder read-only, ...); what was stored before is as it was."""


class DfoWarning(UserWarning):
    """Base of every warning that dfo issues."""


class EvaluationWarning(DfoWarning):
    """Evaluations failed (NaN, infinite, wrong type, exception) and were masked."""


class StoreWarning(DfoWarning):
    """The end of a store was cut off, or a store could no longer be written while its run went on to its result."""


def short(value: object, limit: int = 80) -> str:
    """Return ``repr(value)`` cut to ``limit`` characters, for use in messages."""
    try:
        text = repr(value)
    except Exception:  # a user's __repr__ may do anything
        text = f"<{type(value).__name__} without repr>"
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """Build the error for a name that nothing answers to, naming the nearest one.

    Args:
        kind: what the name was meant to name, such as ``"method"`` or ``"option of CMA"``.
        name: what the user typed.
        known: the names that exist.
    """
    from difflib import get_close_matches

    names = sorted(known)
    folded = {n.lower(): n for n in names}
    close = get_close_matches(str(name).lower(), list(folded), n=1, cutoff=0.5)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    if len(names) > 40:
        near = get_close_matches(str(name).lower(), list(folded), n=5, cutoff=0.0)
        return UnknownName(f"Unknown {kind} {short(name)}.{hint} Nearest: {', '.join(folded[n] for n in near)}.")
    return UnknownName(f"Unknown {kind} {short(name)}.{hint} Known: {', '.join(names)}.")
