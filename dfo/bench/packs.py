"""Where problems come from: packs that other distributions register.

A distribution offers problems through the entry-point group ``dfo.problems``: a mapping from the name of
a pack to the pack. dfo names no such distribution in its imports. Where no entry point is registered (a
source tree on the path that nobody installed), the module in :data:`FALLBACK` is tried by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

from dfo.errors import DfoWarning, InvalidArgument, unknown
from dfo.protocols import Problem

__all__ = ["FALLBACK", "GROUP", "Pack", "make", "packs", "suite_folders"]

GROUP = "dfo.problems"
"""The entry-point group."""

FALLBACK = "dfo_problems:PROBLEMS"
"""``module:attribute`` that is tried when nothing is registered."""


class Pack(Protocol):
    """A family of problems; the name of each of its problems begins with the pack's name and a hyphen."""

    @property
    def name(self) -> str:
        """First part of the names of its problems."""
        ...

    @property
    def summary(self) -> str:
        """One sentence for listings."""
        ...

    def select(
        self,
        dims: Sequence[int] | None = None,
        functions: Sequence[str | int] | None = None,
        instances: Sequence[int] | None = None,
    ) -> list[str]:
        """Return the names of the problems wanted; None means all that the pack lists."""
        ...

    def make(self, name: str) -> Problem:
        """Build a problem from its name."""
        ...


@lru_cache(maxsize=1)
def _sources() -> tuple[tuple[str, Mapping[str, Pack]], ...]:
    """Return (module name, packs) of everything registered; a broken source is warned of and left out."""
    targets = sorted({entry.value for entry in metadata.entry_points(group=GROUP)}) or [FALLBACK]
    found: list[tuple[str, Mapping[str, Pack]]] = []
    for target in targets:
        module, _, attribute = target.partition(":")
        try:
            found.append((module, getattr(import_module(module), attribute or "PROBLEMS")))
        except (ImportError, AttributeError) as error:
            if target != FALLBACK or getattr(error, "name", None) != module:
                warnings.warn(f"The problems of {target!r} cannot be loaded: {error}", DfoWarning, stacklevel=3)
    return tuple(found)


def packs() -> dict[str, Pack]:
    """Return every pack by its name.

    Example:
        >>> from dfo.bench import packs
        >>> packs()["classic"].select(dims=[2], functions=["sphere"])
        ['classic-sphere-d02']
    """
    return {name: pack for _, table in _sources() for name, pack in table.items()}


def make(name: str) -> Problem:
    """Build the problem with this name, of whatever pack; the longest pack name that begins it decides.

    Raises:
        UnknownName: no problem has this name; the nearest one is named.
        InvalidArgument: no pack is installed.
    """
    table = packs()
    if not table:
        raise InvalidArgument("No problems are installed. Run: pip install 'dfo-optim[bench]'.")
    begun = [pack for pack in table if name.startswith(f"{pack}-")]
    if not begun:
        raise unknown("problem", name, [example for pack in table.values() for example in pack.select()[:1]])
    return table[max(begun, key=len)].make(name)


def suite_folders() -> list[Path]:
    """Return the folders of suite files: what ``suites_folder()`` of each source of packs answers."""
    folders: list[Path] = []
    for module, _ in _sources():
        ask: Any = getattr(import_module(module), "suites_folder", None)
        if ask is not None:
            folders.append(Path(ask()))
    return folders
