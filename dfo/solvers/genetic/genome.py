"""Points stored as the seeds of their mutations: a few numbers a generation, whatever the point's size.

A link ``(step, member, power)`` names one gaussian mutation; a chain of them, the first of which is the initial
draw, leads from the start of a run to an individual: ``theta_k = theta_{k-1} + power_k z(step_k, member_k)``
(Such et al. 2017, arXiv:1712.06567, eq. 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from dfo.arrays import Array, Point, as_like, copy, is_blocks
from dfo.directions import Directions, Gaussian
from dfo.errors import InvalidArgument
from dfo.random import RNG_VERSION, Key
from dfo.spaces import Box, Space

__all__ = ["Chain", "Genome", "Link", "decode", "layout", "mutations", "projected"]

Link: TypeAlias = tuple[int, int, float]
"""Step of the question, number of the member in it, standard deviation of its noise."""

Chain: TypeAlias = tuple[Link, ...]
"""The initial draw, then the mutations, oldest first."""


@dataclass(frozen=True)
class Genome:
    """Everything that rebuilds an individual elsewhere, but the start of the run.

    Args:
        key: the solver's key.
        chain: the initial draw and the mutations.
        layout: name, shape and dtype of every array of the point, in order; the noise depends on all of them.
        rng: version of the random numbers.
    """

    key: Key
    chain: Chain
    layout: tuple[tuple[str, tuple[int, ...], str], ...]
    rng: int = RNG_VERSION


def layout(x: Point) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Return name, shape and dtype of the arrays that a point is made of."""
    blocks: dict[str, Any] = dict(x) if is_blocks(x) else {"": x}
    return tuple((name, tuple(b.shape), str(b.dtype).rpartition(".")[2]) for name, b in blocks.items())


def mutations(key: Key, step: int, count: int, like: Point) -> Directions:
    """Return the noise of the members of one question."""
    return Directions(Gaussian(), key.child(step, "mutations"), count, like)


def projected(space: Space | None, x: Any) -> Any:
    """Return ``x``, ``(d,)`` or ``(n, d)``, moved into the box where there is one."""
    return as_like(space.project(x), x) if isinstance(space, Box) else x


def decode(genome: Genome, x0: Point, space: Space | None = None) -> Any:
    """Return the point that a genome stands for, to the last bit.

    Args:
        genome: from the same library, dtype and device.
        x0: start of the run, in the solver's coordinates.
        space: where the run searched: points leave no box.

    Raises:
        InvalidArgument: another version of the random numbers, or a start of another shape or dtype.
    """
    if genome.rng != RNG_VERSION:
        raise InvalidArgument(
            f"genome: its random numbers have version {genome.rng}, this dfo draws version {RNG_VERSION}."
            " Decode it with the dfo that made it, or keep the decoded weights."
        )
    if genome.layout != layout(x0):
        raise InvalidArgument(f"x0: expected the start of the run, {genome.layout}, got {layout(x0)}.")
    x: Array = copy(x0)
    for step, member, power in genome.chain:
        x = projected(space, mutations(genome.key, step, member + 1, x).add_member(x, member, power))
    return x
