"""Words to calls: the ``dfo`` command."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process with 0 (done), 1 (failed), 2 (usage), 130 or 143 (signals)."""
    if find_spec("typer") is None or find_spec("rich") is None:
        print("The dfo command needs typer and rich. Run: pip install 'dfo-optim[cli]'", file=sys.stderr)
        raise SystemExit(1)
    from dfo.cli.app import app

    app(prog_name="dfo")
