"""The one place where a user's arguments are judged, before the first evaluation is spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, is_array, is_torch, to_numpy
from dfo.errors import InvalidArgument, InvalidType, short, unknown
from dfo.sets.convex import ConvexSet, is_convex
from dfo.spaces import Box, Choice, Float, Free, Int, Named, Text

__all__ = [
    "bounds_of",
    "check_budget",
    "check_count",
    "check_known",
    "check_noise",
    "check_positive",
    "options_for",
    "space_and_start",
    "violation_of",
]

UserSpace = Free | Box | Named | Text | ConvexSet


def check_count(name: str, value: Any, least: int) -> int | None:
    """Return an integer argument, or None.

    Raises:
        InvalidType: it is not an integer.
        InvalidArgument: it is below ``least``.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidType(f"{name}: expected an integer >= {least}, got {short(value)}.")
    if math.isnan(value) or (math.isfinite(value) and value != math.floor(value)):
        raise InvalidArgument(f"{name}: expected an integer >= {least}, got {value!r}.")
    if value == math.inf or value < least:
        raise InvalidArgument(f"{name}: expected a finite integer >= {least}, got {value!r}.")
    return int(value)


def check_positive(name: str, value: Any) -> None:
    """Refuse an argument that is neither None nor a positive finite number.

    Raises:
        InvalidType: it is no number.
        InvalidArgument: it is NaN, infinite, zero or negative.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidType(f"{name}: expected a positive number, got {short(value)}.")
    if not 0 < value < math.inf:
        raise InvalidArgument(f"{name}: expected a positive finite number, got {value!r}.")


def check_noise(noise: Any) -> None:
    """Refuse a ``noise`` that is neither None, nor a bool, nor a standard deviation.

    Raises:
        InvalidType: it is something else.
        InvalidArgument: it is NaN, infinite or negative.
    """
    if noise is not None and not isinstance(noise, (bool, np.bool_)) and noise != 0:
        check_positive("noise", noise)


def check_budget(value: Any) -> int | None:
    """Return the evaluation budget, or None; 0 evaluates nothing."""
    return check_count("budget", value, 0)


def _no_classes(**given: Any) -> None:
    for name, value in given.items():
        if isinstance(value, type):
            raise InvalidType(f"{name}: expected an instance such as dfo.{value.__name__}(3), got the class.")


def space_and_start(x0: Any, bounds: Any) -> tuple[UserSpace, Any]:
    """Return the space and the start that ``x0`` and ``bounds`` describe.

    ``x0`` is a vector, a space, a mapping of named parameters, or None with finite bounds. ``bounds`` are pairs,
    or a convex set.

    Raises:
        InvalidArgument: no variable, NaN or infinity in x0, a length that does not fit, x0 outside.
        InvalidType: x0 is nothing of the kind.
    """
    _no_classes(x0=x0, bounds=bounds)
    if isinstance(x0, (Float, Int, Choice)):
        raise InvalidType(
            f'x0: a parameter needs a name; write {{"name": {short(x0)}}}, and the objective gets a dict.'
        )
    if isinstance(x0, Mapping) and not any(is_array(v) for v in x0.values()):
        x0 = Named(x0)
    if isinstance(x0, (Free, Box, Named, Text)) or is_convex(x0):
        if bounds is not None:
            raise InvalidArgument("bounds: the space given as x0 has its own; drop one of the two.")
        return x0, _start_of(x0)
    if x0 is None:
        region = _region(bounds)
        return region, _start_of(region)
    x = _vector(x0)
    if is_convex(bounds):
        return bounds, _within(bounds, x)
    space: UserSpace = Free(int(x.shape[0])) if bounds is None else bounds_of(bounds, int(x.shape[0]))
    if isinstance(space, Box):
        x = _inside(space, x)
    return space, x


def _region(bounds: Any) -> Box | ConvexSet:
    if bounds is None:
        raise InvalidArgument("x0: expected a start, a space, or finite bounds; got None for both.")
    return bounds if is_convex(bounds) else bounds_of(bounds, None)


def _start_of(space: UserSpace) -> Any:
    if isinstance(space, Named):
        return space.start
    if isinstance(space, Text):
        return space.project("")
    if isinstance(space, Free):
        return np.zeros(space.dim)
    if not isinstance(space, Box):
        return np.array(space.center, dtype=float)
    lower = np.where(np.isfinite(space.lower), space.lower, np.minimum(0.0, space.upper))
    upper = np.where(np.isfinite(space.upper), space.upper, np.maximum(0.0, space.lower))
    return space.project(lower / 2 + upper / 2)


def _vector(x0: Any) -> Array:
    if is_torch(x0):
        x = x0.detach()
        if not x.dtype.is_floating_point:
            x = x.double()
        values = to_numpy(x)
    else:
        try:
            values = np.array(x0)
        except ValueError:
            raise InvalidType(f"x0: expected a vector of numbers, got {short(x0)}.") from None
        if values.dtype.kind not in "fiub":
            raise InvalidType(f"x0: expected a vector of real numbers, got {short(x0)}.")
        values = np.atleast_1d(values if values.dtype in (np.float32, np.float64) else values.astype(float))
        x = values
    if values.ndim != 1:
        raise InvalidArgument(f"x0: expected shape (d,), got {values.shape}. Flatten it, or start one run per row.")
    if not values.size:
        raise InvalidArgument("x0: expected at least one variable, got none.")
    for i in np.flatnonzero(~np.isfinite(values)):
        raise InvalidArgument(f"x0[{i}]: expected a finite number, got {values[i]}.")
    result: Array = x
    return result


def _within(region: ConvexSet, x: Array) -> Array:
    if x.shape[0] != region.dim:
        raise InvalidArgument(f"x0: expected {region.dim} variables, as {short(region)} has, got {x.shape[0]}.")
    if not region.contains(x):
        nearest = np.asarray(to_numpy(region.project(x)), dtype=float)
        i = int(np.abs(nearest - to_numpy(x)).argmax())
        raise InvalidArgument(
            f"x0: expected a point of {short(region)}, got one outside; the nearest has"
            f" x0[{i}] = {nearest[i]:g} instead of {float(x[i]):g}. Start at bounds.project(x0), or leave x0 out to"
            " start at the center."
        )
    return x


def _inside(box: Box, x: Array) -> Array:
    values = np.asarray(to_numpy(x), dtype=float)
    single = 4 if to_numpy(x).dtype.itemsize < 8 else 0  # single precision cannot hold every bound
    slack = single * np.finfo(np.float32).eps * np.abs(values)
    outside = np.flatnonzero((values < box.lower - slack) | (values > box.upper + slack))
    for i in outside:
        more = f" ({len(outside)} of {len(values)} lie outside)" if len(outside) > 1 else ""
        raise InvalidArgument(
            f"x0[{i}]: expected a start within the bounds ({box.lower[i]:g}, {box.upper[i]:g}), got {values[i]:g}{more}"
            ". Move it inside, or widen the bounds."
        )
    return x


def bounds_of(bounds: Any, d: int | None) -> Box:
    """Return the box that scipy-style bounds describe: pairs with None, or a ``Bounds`` object.

    Raises:
        InvalidArgument: a number of pairs other than ``d``, a bound that is NaN, a reversed pair.
        InvalidType: something that is no pair of numbers.
    """
    if isinstance(bounds, Box):
        box = bounds
    elif hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        size = d or max(np.size(bounds.lb), np.size(bounds.ub))
        try:
            box = Box(np.broadcast_to(bounds.lb, (size,)), np.broadcast_to(bounds.ub, (size,)))
        except ValueError as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(
                f"bounds: expected {size} pairs, one per variable, got {np.size(bounds.lb)} and {np.size(bounds.ub)}."
            ) from None
    else:
        box = _pairs(bounds)
    if d is not None and box.dim != d:
        raise InvalidArgument(f"bounds: expected {d} pairs, one per variable of x0, got {box.dim}.")
    return box


def _pairs(bounds: Any) -> Box:
    try:
        pairs = [tuple(pair) for pair in bounds]
        lower = [-math.inf if a is None else float(a) for a, _ in pairs]
        upper = [math.inf if b is None else float(b) for _, b in pairs]
    except (TypeError, ValueError):
        raise InvalidType(
            f"bounds: expected one (lower, upper) pair per variable, None for no bound, got {short(bounds)}."
        ) from None
    return Box(np.array(lower), np.array(upper))


def options_for(cls: type, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options as fields of the solver class.

    Raises:
        UnknownName: an option that the solver does not have; names the nearest.
        InvalidType: options is not a mapping.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InvalidType(f"options: expected a mapping of names to values, got {short(options)}.")
    known = {f.name for f in fields(cls)} - {"space"} if is_dataclass(cls) else set()
    for name in options:
        if name not in known:
            raise unknown(f"option of {cls.__name__}", name, known)
    return dict(options)


def check_known(known: Any, space: UserSpace) -> tuple[Sequence[Any], np.ndarray[Any, np.dtype[np.float64]]] | None:
    """Return points and values that were known before the run, without the unusable ones.

    Raises:
        InvalidArgument: not a pair of as many points as values, or a point outside the space.
    """
    if known is None:
        return None
    try:
        points, values = known
        values = np.asarray(to_numpy(values), dtype=float).reshape(-1)
        count = len(points)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"known: expected a pair (X, y) of points and their values, got {short(known)}."
        ) from None
    if count != values.size:
        raise InvalidArgument(f"known: expected as many points as values, got {count} and {values.size}.")
    if isinstance(space, (Free, Box)) or is_convex(space):
        points = [_known_vector(p, i) for i, p in enumerate(points)]
    for i, p in enumerate(points):
        if not space.contains(p):
            raise InvalidArgument(f"known: point {i}, {short(p)}, is not a point of {short(space)}.")
    usable = np.isfinite(values)
    return [p for p, ok in zip(points, usable, strict=True) if ok], values[usable]


def _known_vector(point: Any, i: int) -> Array:
    if is_torch(point):
        return point  # type: ignore[no-any-return]
    try:
        return np.array(point, dtype=float)
    except (TypeError, ValueError):
        raise InvalidArgument(f"known: expected vectors of numbers, but point {i} is {short(point)}.") from None


def violation_of(constraints: Any) -> Callable[[Any], float] | None:
    """Return the total violation (0 where feasible) of scipy-style constraints, or None without any.

    Accepts one or several of: dictionaries ``{"type": "ineq" | "eq", "fun": g, "args": ()}`` (``g(x) >= 0``
    or ``== 0``), ``NonlinearConstraint``, ``LinearConstraint``.

    Raises:
        InvalidType: something else.
    """
    several = constraints if isinstance(constraints, (list, tuple)) else (constraints,)
    parts = [_violation(c) for c in several if c is not None]
    if not parts:
        return None
    return lambda x: float(sum(part(x) for part in parts))


EQUALITY_TOLERANCE = 1e-8
"""Violations up to this are rounding, not infeasibility."""


def _violation(constraint: Any) -> Callable[[Any], float]:
    if isinstance(constraint, Mapping):
        kind, fun = constraint.get("type"), constraint.get("fun")
        if kind not in ("ineq", "eq") or not callable(fun):
            raise InvalidArgument(
                f'constraints: expected {{"type": "ineq" or "eq", "fun": function}}, got {short(constraint)}.'
            )
        args = tuple(constraint.get("args", ()))
        upper = 0.0 if kind == "eq" else math.inf
        return lambda x: _outside(fun(x, *args), 0.0, upper)
    if callable(constraint):
        raise InvalidType(
            "constraints: a bare function has no sign convention."
            ' Write {"type": "ineq", "fun": g} for g(x) >= 0, or scipy\'s NonlinearConstraint.'
        )
    if hasattr(constraint, "lb") and hasattr(constraint, "A"):
        matrix = np.atleast_2d(np.asarray(constraint.A, dtype=float))
        return lambda x: _outside(matrix @ np.asarray(x, dtype=float), constraint.lb, constraint.ub)
    if hasattr(constraint, "lb") and hasattr(constraint, "fun"):
        return lambda x: _outside(constraint.fun(x), constraint.lb, constraint.ub)
    raise InvalidType(f"constraints: expected scipy's forms of a constraint, got {short(constraint)}.")


def _outside(values: Any, lower: Any, upper: Any) -> float:
    g = np.atleast_1d(np.asarray(to_numpy(values), dtype=float))
    excess = np.maximum(np.maximum(lower - g, g - upper), 0.0)
    excess = np.where(np.isnan(g), np.inf, np.where(excess <= EQUALITY_TOLERANCE, 0.0, excess))
    return float(excess.sum())
