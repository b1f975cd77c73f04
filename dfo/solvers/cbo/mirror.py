"""Mirror maps: particles move as dual variables, and their images stay in the set.

The images are ``x = grad phi*(y)`` for a convex function phi of the set: the entropy of a simplex, the logarithmic
barrier of a box, or half the squared norm on any convex set, whose map is the projection.

Reference: Bungert, Hoffmann, Kim and Roith 2025, arXiv:2501.12189 (mirror consensus-based optimisation).
"""

from __future__ import annotations

from typing import Any, Literal

from dfo.arrays import Array, as_like, namespace
from dfo.errors import InvalidArgument, short
from dfo.sets import Simplex
from dfo.spaces import Box, Space

__all__ = ["MIRRORS", "Mirror", "from_dual", "to_dual"]

Mirror = Literal["none", "entropy", "barrier", "projection"]
MIRRORS: tuple[Mirror, ...] = ("none", "entropy", "barrier", "projection")

FLOOR = 1e-12
"""Least share of a simplex, or of the width of a box, that a first particle is given: its dual is finite."""


def to_dual(mirror: Mirror, space: Space | None, X: Array) -> Array:
    """Return ``(n, d)`` dual variables whose images are the points ``X`` of the set.

    Raises:
        InvalidArgument: the barrier without a bounded box, entropy without a simplex.
    """
    xp = namespace(X)
    if mirror == "entropy":
        if not isinstance(space, Simplex):
            raise InvalidArgument(
                f"mirror: entropy needs a simplex, got {short(space)}. Use 'barrier' in a box, 'projection' elsewhere."
            )
        floor = max(FLOOR, float(xp.finfo(X.dtype).tiny))
        share: Array = xp.log(xp.clip(X / X.sum(axis=1)[:, None], floor, None))
        return share
    if mirror == "barrier":
        lower, width = _box(space, X)
        t = xp.clip((X - lower) / width, 1e-6, 1.0 - 1e-6)
        dual: Array = 1.0 / (1.0 - t) - 1.0 / t
        return dual
    return as_like(X, X)


def from_dual(mirror: Mirror, space: Space | None, Y: Array) -> Array:
    """Return ``(n, d)`` points of the set: the images of dual variables ``Y``."""
    xp = namespace(Y)
    if mirror == "entropy":
        e = xp.exp(Y - xp.max(Y, axis=1)[:, None])
        points: Array = e * (_total(space) / e.sum(axis=1)[:, None])
        return points
    if mirror == "barrier":  # y = 1/(1 - t) - 1/t  solved for t
        lower, width = _box(space, Y)
        t = 0.5 + Y / (2.0 * (2.0 + xp.sqrt(4.0 + Y * Y)))
        inside: Array = lower + width * t
        return inside
    project: Any = getattr(space, "project", None)
    return Y + 0.0 if project is None else as_like(project(Y), Y)


def _total(space: Any) -> float:
    return float(getattr(space, "radius", 1.0))


def _box(space: Space | None, like: Array) -> tuple[Any, Any]:
    if not isinstance(space, Box) or not space.bounded.all():
        raise InvalidArgument(
            "mirror: the logarithmic barrier needs two finite bounds for every variable. Give bounds."
        )
    lower = as_like(space.lower, like)
    return lower, as_like(space.upper - space.lower, like)
