"""Problems with known answers, and black boxes without, on which dfo's solvers are compared.

``PROBLEMS`` maps the name of a pack to the pack. dfo finds it through the entry-point group
``dfo.problems`` and never imports this package by name.

Example:
    >>> import dfo_problems
    >>> problem = dfo_problems.make("classic-rosenbrock-d05")
    >>> float(problem.fun(problem.x_opt))
    0.0
    >>> dfo_problems.PROBLEMS["bbob"].select(dims=[5], functions=[1, 8], instances=[1])
    ['bbob-f001-i01-d05', 'bbob-f008-i01-d05']
"""

from __future__ import annotations

from pathlib import Path

from dfo.errors import unknown
from dfo.protocols import Problem
from dfo_problems.classic import CLASSIC
from dfo_problems.coco import BBOB, CONSTRAINED, LARGESCALE, MIXINT, NOISY
from dfo_problems.consensus import CONSENSUS
from dfo_problems.constrained import CONVEX_SETS
from dfo_problems.deceptive import DECEPTIVE
from dfo_problems.language.pack import LANGUAGE
from dfo_problems.networks import NETWORKS
from dfo_problems.noisy import NOISY_CLASSIC
from dfo_problems.pack import Cell, Pack
from dfo_problems.ranking import RANKING
from dfo_problems.training import TRAINING
from dfo_problems.tuning import TUNING
from dfo_problems.unrolled import UNROLLED

__all__ = ["PROBLEMS", "Cell", "Pack", "make", "suites_folder"]

PROBLEMS: dict[str, Pack] = {
    "classic": CLASSIC,
    "noisy": NOISY_CLASSIC,
    "bbob": BBOB,
    "bbob-noisy": NOISY,
    "bbob-constrained": CONSTRAINED,
    "bbob-mixint": MIXINT,
    "bbob-largescale": LARGESCALE,
    "tuning": TUNING,
    "deceptive": DECEPTIVE,
    "training": TRAINING,
    "ranking": RANKING,
    "consensus": CONSENSUS,
    "constrained": CONVEX_SETS,
    "unrolled": UNROLLED,
    "networks": NETWORKS,
    "language": LANGUAGE,
}
"""The packs by name."""


def make(name: str) -> Problem:
    """Build the problem with this name, of whatever pack.

    Args:
        name: such as ``"bbob-f008-i01-d10"``; the longest pack name that begins it names the pack.

    Raises:
        UnknownName: no problem has this name; the nearest one is named.
        ImportError: the problem needs an extra that is not installed; the message names it.
    """
    begun = [pack for pack in PROBLEMS if name.startswith(f"{pack}-")]
    if not begun:
        examples = [pack.select(pack.dims[:1], instances=pack.instances[:1]) for pack in PROBLEMS.values()]
        raise unknown("problem", name, [example for some in examples for example in some])
    return PROBLEMS[max(begun, key=len)].make(name)


def suites_folder() -> Path:
    """Return the folder of the ``*.toml`` files that ``dfo bench`` reads, in a wheel or in the source tree."""
    here = Path(__file__).resolve().parent
    packed = here / "suites"  # where the wheel puts them
    return packed if packed.is_dir() else here.parent / "suites"
