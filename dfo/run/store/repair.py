"""Save what is whole in a damaged store into a new one."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Salvage", "repair"]


@dataclass(frozen=True)
class Salvage:
    """What a repair saved.

    Args:
        kept: questions kept, from the first on without gaps.
        lost: questions and answers known of that could not be kept.
        where: where the first damage is; empty where there is none.
    """

    kept: int
    lost: int
    where: str


def repair(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> Salvage:
    """Save the valid prefix of a store into a new file."""
    raise NotImplementedError
