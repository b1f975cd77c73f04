"""How a command ends, and what it prints on the way.

Results go to standard output, everything else to standard error. Names come from files and other people's
packages, so that control characters in them are spelled out; secrets are masked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from dfo.errors import DfoError, IncompatibleOracle, InvalidArgument, InvalidType, RunLocked, RunMismatch
from dfo.secrets import scrub

if TYPE_CHECKING:
    from dfo.report.text import Table

__all__ = ["Ended", "guarded", "note", "print_json", "print_table", "say", "signalled"]


TEMPORARY = 75
"""Exit code for what may work later (``EX_TEMPFAIL`` of sysexits.h)."""


class Ended(Exception):
    """Ends the command with a code; what there was to say has been said.

    Args:
        code: exit code of the process.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


_signals: list[int] = []


def signalled() -> int:
    """Return the exit code for an interrupted command: 143 after SIGTERM, else 130."""
    return 128 + (_signals[-1] if _signals else signal.SIGINT)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C, which runs know how to end at; only the exit code differs."""
    _signals.append(number)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # a job in the background of a script
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn what a command raises into its exit code and one message.

    Raises:
        SystemExit: 1 for a failure, 2 for a word or value that cannot be used, 75 for a store that another process
            writes to, 130 or 143 after a signal.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
        sys.stdout.flush()
    except Ended as end:
        raise SystemExit(end.code) from None
    except KeyboardInterrupt:
        raise SystemExit(signalled()) from None
    except (InvalidArgument, InvalidType, IncompatibleOracle, RunMismatch) as error:
        note(f"Error: {error}")
        raise SystemExit(2) from None
    except RunLocked as error:
        note(f"Error: {error}")
        raise SystemExit(TEMPORARY) from None
    except (DfoError, ImportError) as error:
        note(f"Error: {error}")
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: object = "") -> None:
    """Print a result."""
    print(_shown(text))


def note(text: object) -> None:
    """Print a remark on standard error."""
    print(_shown(text), file=sys.stderr)


def _shown(text: object) -> str:
    from dfo.report.text import visible  # not above: `dfo --help` loads nothing that it does not need

    return "\n".join(visible(line) for line in scrub(str(text)).split("\n"))


def print_json(content: Mapping[str, Any] | list[Any]) -> None:
    """Print JSON for machines; numbers that JSON lacks become null."""
    print(json.dumps(_plain(content), indent=1))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def print_table(table: Table) -> None:
    """Print a table: drawn on a terminal, cut to its width; aligned text elsewhere."""
    from dfo.report.text import fitted, plain, visible

    if not sys.stdout.isatty():
        print(plain(table) + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(visible(table.title), style="italic"))
    for part in fitted(table, console.width - 2):
        console.print(_drawn(part))


def _drawn(table: Table) -> Any:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    from dfo.report.text import visible

    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, column in enumerate(table.columns):
        drawn.add_column(Text(visible(column)), justify="right" if i else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(visible(word), style="" if i else "bold") for i, word in enumerate(row)))
    return drawn
