"""Where points may live, and how to get back there.

Two kinds of space meet here. A *user space* is what the objective sees: a vector (:class:`Free`,
:class:`Box`), named parameters (:class:`Named` over :class:`Float`, :class:`Int`, :class:`Choice`)
or a sequence of symbols (:class:`Text`). A *solver space* is what a solver moves in: a free vector,
a box, or text. :func:`encoding` connects the two: coordinates with two finite bounds are worked in
the unit interval, so that lengths such as ``sigma`` are fractions of the box and no scale of the
problem overflows; logarithmic parameters become uniform in their logarithm, integers own cells of
equal width, and categories take one coordinate each, of which the largest wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from dfo.arrays import Array, Floats, Point, as_like, is_torch, namespace, size, to_numpy
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.random import Key, integers, uniform

__all__ = ["Box", "Choice", "Float", "Free", "Int", "Named", "Parameter", "Space", "Text", "Vector"]


@runtime_checkable
class Space(Protocol):
    """What every space can do."""

    @property
    def dim(self) -> int:
        """Number of coordinates (of symbols at most, for text)."""
        ...

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` is a point of the space."""
        ...

    def project(self, x: Any) -> Any:
        """Return the nearest point of the space."""
        ...

    def sample(self, key: Key, n: int) -> Any:
        """Return ``n`` random points: an ``(n, d)`` array, or a list of points that are no arrays."""
        ...


@dataclass(frozen=True)
class Free:
    """All of R^d.

    Args:
        dim: number of coordinates, at least 1.

    Example:
        >>> import dfo
        >>> dfo.Free(3).contains([0.0, 1e9, -2.0])
        True
    """

    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise InvalidArgument(f"dim: expected at least one variable, got {self.dim}.")

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` has ``dim`` finite coordinates."""
        if isinstance(x, Mapping):
            return size(x) == self.dim
        values = to_numpy(x)
        return values.shape == (self.dim,) and bool(np.isfinite(values).all())

    def project(self, x: Point) -> Point:
        """Return ``x``: every point is inside."""
        return x

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` points, uniform in [-1, 1): R^d has no uniform distribution."""
        points: Array = 2.0 * uniform(key, (n, self.dim)) - 1.0
        return points


@dataclass(frozen=True, eq=False)
class Box:
    """A box, bounded, half bounded or free in each coordinate; some coordinates may be integers.

    Args:
        lower: ``(d,)`` lower bounds, ``-inf`` where there is none.
        upper: ``(d,)`` upper bounds, ``inf`` where there is none.
        integer: ``(d,)`` true where a coordinate takes integers only.
        cells: ``(d,)`` widths of the cells on which the objective does not change, 0 where it does:
            1 for integers by default. A solver keeps its steps from falling asleep inside a cell.

    Raises:
        InvalidArgument: lengths differ, a bound is NaN, or a lower bound lies above its upper bound.

    Example:
        >>> import dfo
        >>> dfo.Box([-5, 0], [5, 9], integer=[False, True]).project([7.0, 2.4])
        array([5., 2.])
    """

    lower: Floats
    upper: Floats
    integer: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    cells: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        lower, upper = _bound("lower", self.lower), _bound("upper", self.upper)
        flags = np.asarray(self.integer, dtype=bool).reshape(-1)
        integer = flags if flags.size else np.zeros(lower.size, bool)
        if not lower.size == upper.size == integer.size:
            raise InvalidArgument(
                f"bounds: expected as many lower as upper bounds, got {lower.size} and {upper.size}"
                f" (integer: {integer.size}). Give one pair per variable."
            )
        if not lower.size:
            raise InvalidArgument("bounds: expected at least one variable, got none.")
        for i in np.flatnonzero(~(lower <= upper) | (lower == np.inf) | (upper == -np.inf)):
            raise InvalidArgument(
                f"bounds[{i}]: expected lower <= upper, got ({lower[i]:g}, {upper[i]:g})."
                " Swap them, or use None for a side without a bound."
            )
        lower = np.where(integer, np.ceil(lower), lower)
        upper = np.where(integer, np.floor(upper), upper)
        for i in np.flatnonzero(lower > upper):
            raise InvalidArgument(f"bounds[{i}]: no integer lies between the bounds of this integer variable.")
        cells = np.asarray(self.cells, dtype=float) if np.size(self.cells) else integer.astype(float)
        for name, value in (("lower", lower), ("upper", upper), ("integer", integer), ("cells", cells)):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.lower.size)

    @property
    def bounded(self) -> npt.NDArray[np.bool_]:
        """``(d,)`` true where both bounds are finite."""
        return np.isfinite(self.lower) & np.isfinite(self.upper)

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` is inside, bounds included, integers where they are asked for."""
        values = to_numpy(x)
        inside = values.shape == (self.dim,) and bool(((values >= self.lower) & (values <= self.upper)).all())
        return inside and bool((values == np.rint(values))[self.integer].all())

    def project(self, x: Any) -> Array:
        """Return the nearest point of the box (rounded in integer coordinates), ``(d,)`` or ``(n, d)``."""
        if is_torch(x):
            inside = x.clamp(as_like(self.lower, x), as_like(self.upper, x))
            flags = as_like(self.integer, x)
            snapped: Array = inside + flags * (inside.round() - inside)
            return snapped
        values = np.clip(np.asarray(x, dtype=float), self.lower, self.upper)
        rounded: Array = np.where(self.integer, np.rint(values), values)
        return rounded

    def sample(self, key: Key, n: int) -> Array:
        """Return ``(n, d)`` uniform points; a side without a bound reaches 2 from the other, or from 0."""
        lower = np.where(np.isfinite(self.lower), self.lower, np.where(np.isfinite(self.upper), self.upper - 2.0, -1.0))
        upper = np.where(np.isfinite(self.upper), self.upper, lower + 2.0)
        unit = uniform(key, (n, self.dim))
        if self.integer.any():
            lower, upper = np.where(self.integer, lower - 0.5, lower), np.where(self.integer, upper + 0.5, upper)
        return self.project(lower * (1.0 - unit) + upper * unit)

    @property
    def center(self) -> Array:
        """The middle of a bounded box."""
        return self.project(self.lower / 2 + self.upper / 2)

    def lmo(self, s: Any) -> Array:
        """Return a corner with the lowest ``<s, v>``: the lower bound where ``s > 0``, else the upper.

        Raises:
            InvalidArgument: a bound is infinite.
        """
        if not self.bounded.all():
            raise InvalidArgument(
                "lmo: expected a box with two finite bounds per variable; the minimum lies at infinity."
            )
        if is_torch(s):
            xp = namespace(s)
            corner: Array = xp.where(s > 0, as_like(self.lower, s), as_like(self.upper, s))
            return corner
        slope = np.asarray(s)
        return as_like(np.where(slope > 0, self.lower, self.upper), slope * 1.0)

    def __repr__(self) -> str:
        if self.dim > 20:
            return f"<Box of {self.dim} variables, {int(self.integer.sum())} of them integer>"
        flags = f", integer={self.integer.tolist()}" if self.integer.any() else ""
        return f"Box({self.lower.tolist()}, {self.upper.tolist()}{flags})"


def _bound(name: str, values: object) -> Floats:
    bound = np.array(values, dtype=float).reshape(-1)
    for i in np.flatnonzero(np.isnan(bound)):
        raise InvalidArgument(f"bounds[{i}]: the {name} bound is NaN. Use None or infinity for a side without a bound.")
    return bound


Vector: TypeAlias = Free | Box
"""A space of vectors: what a numeric solver moves in."""


@dataclass(frozen=True)
class Float:
    """A named real parameter.

    Args:
        lower: smallest value (above 0 with ``log``).
        upper: largest value.
        log: search the logarithm uniformly; right for rates and scales.
        init: value to start from; the middle of the range by default.
    """

    lower: float
    upper: float
    log: bool = False
    init: float | None = None
    width = 1  # coordinates taken in the encoding

    def __post_init__(self) -> None:
        _check_range("Float", self.lower, self.upper, self.log, self.init)

    def contains(self, value: Any) -> bool:
        """Tell whether ``value`` is a number within the range."""
        return _is_real(value) and self.lower <= value <= self.upper

    def encode(self, value: float) -> Floats:
        """Return the ``(1,)`` unit coordinate of ``value``."""
        low, high = _scale(self.lower, self.log), _scale(self.upper, self.log)
        return np.array([0.5 if low == high else _ratio(_scale(value, self.log), low, high)])

    def decode(self, z: Floats) -> float:
        """Return the value at the ``(1,)`` unit coordinate."""
        unit = min(max(float(z[0]), 0.0), 1.0)
        low, high = _scale(self.lower, self.log), _scale(self.upper, self.log)
        mixed = low * (1.0 - unit) + high * unit
        return min(max(math.exp(mixed) if self.log else mixed, self.lower), self.upper)


@dataclass(frozen=True)
class Int:
    """A named integer parameter; both ends are included and every integer is equally wide.

    Args:
        lower: smallest value (at least 1 with ``log``).
        upper: largest value.
        log: search the logarithm uniformly.
        init: value to start from; the middle of the range by default.
    """

    lower: int
    upper: int
    log: bool = False
    init: int | None = None
    width = 1

    def __post_init__(self) -> None:
        _check_range("Int", self.lower, self.upper, self.log, self.init)
        if self.lower != int(self.lower) or self.upper != int(self.upper):
            raise InvalidArgument(f"Int: expected integer ends, got {self.lower!r} and {self.upper!r}.")

    def contains(self, value: Any) -> bool:
        """Tell whether ``value`` is an integer within the range."""
        return _is_real(value) and self.lower <= value <= self.upper and value == int(value)

    def _ends(self) -> tuple[float, float]:
        return _scale(self.lower - 0.5, self.log), _scale(self.upper + 0.5, self.log)

    def encode(self, value: float) -> Floats:
        """Return the ``(1,)`` unit coordinate of ``value``."""
        return np.array([_ratio(_scale(value, self.log), *self._ends())])

    def decode(self, z: Floats) -> int:
        """Return the integer in whose cell the ``(1,)`` unit coordinate lies."""
        unit = min(max(float(z[0]), 0.0), 1.0)
        low, high = self._ends()
        mixed = low * (1.0 - unit) + high * unit
        return int(min(max(math.floor((math.exp(mixed) if self.log else mixed) + 0.5), self.lower), self.upper))


@dataclass(frozen=True)
class Choice:
    """A named parameter that takes one of several values without an order.

    Args:
        options: at least one value of any kind.
        init: value to start from; the first option by default.
    """

    options: Sequence[Any]
    init: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.options, str) or not len(self.options):
            raise InvalidArgument(f"Choice: expected a list of at least one option, got {short(self.options)}.")
        object.__setattr__(self, "options", tuple(self.options))
        if self.init is not None and not self.contains(self.init):
            raise InvalidArgument(f"Choice: init={short(self.init)} is not one of {short(self.options)}.")

    @property
    def width(self) -> int:
        """Coordinates taken in the encoding: one for two options, else one per option."""
        return 1 if len(self.options) <= 2 else len(self.options)

    def contains(self, value: Any) -> bool:
        """Tell whether ``value`` is one of the options."""
        return any(value is option or value == option for option in self.options)

    def encode(self, value: Any) -> Floats:
        """Return the ``(width,)`` unit coordinates of ``value``."""
        index = next(i for i, option in enumerate(self.options) if value is option or value == option)
        if self.width == 1:
            return np.array([0.25 + 0.5 * index])
        z = np.full(self.width, 0.5)
        z[index] = 0.75
        return z

    def decode(self, z: Floats) -> Any:
        """Return the option whose coordinate is largest (the first of equals)."""
        index = int(z[0] >= 0.5) if self.width == 1 else int(np.argmax(z))
        return self.options[min(index, len(self.options) - 1)]


Parameter: TypeAlias = Float | Int | Choice
"""One named parameter."""


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _check_range(kind: str, lower: Any, upper: Any, log: bool, init: Any) -> None:
    if not (_is_real(lower) and _is_real(upper)):
        raise InvalidType(f"{kind}: expected two numbers, got {short(lower)} and {short(upper)}.")
    if not (math.isfinite(lower) and math.isfinite(upper) and lower <= upper):
        raise InvalidArgument(f"{kind}: expected finite lower <= upper, got {lower!r} and {upper!r}.")
    if log and lower <= 0:
        raise InvalidArgument(f"{kind}: a logarithmic range must lie above 0, got lower={lower!r}. Drop log=True.")
    if init is not None and not (_is_real(init) and lower <= init <= upper):
        raise InvalidArgument(f"{kind}: init={short(init)} lies outside {lower!r}..{upper!r}.")


def _scale(value: float, log: bool) -> float:
    return math.log(value) if log else float(value)


def _ratio(value: float, low: float, high: float) -> float:
    half = high / 2 - low / 2  # the halves cannot overflow
    return min(max((value / 2 - low / 2) / half, 0.0), 1.0)


@dataclass(frozen=True)
class Named:
    """The product of named parameters; a point is a dictionary.

    Args:
        parameters: mapping from name to :class:`Float`, :class:`Int` or :class:`Choice`.

    Example:
        >>> import dfo
        >>> space = dfo.Named({"lr": dfo.Float(1e-4, 1, log=True), "layers": dfo.Int(1, 8)})
        >>> space.decode(space.encode({"lr": 0.01, "layers": 3}))["layers"]
        3
    """

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InvalidArgument("parameters: expected at least one variable, got none.")
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, (Float, Int, Choice)):
                raise InvalidType(
                    f"parameters[{name!r}]: expected dfo.Float, dfo.Int or dfo.Choice, got {short(parameter)}."
                )
        object.__setattr__(self, "parameters", dict(self.parameters))

    @property
    def dim(self) -> int:
        """Number of encoded coordinates."""
        return sum(p.width for p in self.parameters.values())

    @property
    def start(self) -> dict[str, Any]:
        """The point of the ``init`` values, with middles (first options) where there is none."""
        point: dict[str, Any] = {}
        for name, p in self.parameters.items():
            if p.init is not None:
                point[name] = p.init
            else:
                point[name] = p.options[0] if isinstance(p, Choice) else p.decode(np.array([0.5]))
        return point

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` has exactly these names, each with a value in its range."""
        return (
            isinstance(x, Mapping)
            and x.keys() == self.parameters.keys()
            and all(p.contains(x[name]) for name, p in self.parameters.items())
        )

    def project(self, x: Mapping[str, Any]) -> dict[str, Any]:
        """Return the point of the space nearest to ``x`` in the encoding."""
        return self.decode(self.encode(x))

    def encode(self, x: Mapping[str, Any]) -> Floats:
        """Return the ``(dim,)`` unit coordinates of a point."""
        return np.concatenate([p.encode(x[name]) for name, p in self.parameters.items()])

    def decode(self, z: Floats) -> dict[str, Any]:
        """Return the point at the ``(dim,)`` unit coordinates."""
        point, at = {}, 0
        for name, p in self.parameters.items():
            point[name] = p.decode(z[at : at + p.width])
            at += p.width
        return point

    def cells(self) -> Floats:
        """Return ``(dim,)`` widths of the cells on which a point does not change; 0 where it does."""
        widths: list[float] = []
        for p in self.parameters.values():
            if isinstance(p, Int):
                widths.append(1.0 / (p.upper - p.lower + 1))
            else:  # the largest of several coordinates wins, and may lead by up to 1
                widths += [1.0 if p.width == 1 else 1.5] * p.width if isinstance(p, Choice) else [0.0]
        return np.array(widths)

    def sample(self, key: Key, n: int) -> list[dict[str, Any]]:
        """Return ``n`` points, uniform in the encoding."""
        return [self.decode(z) for z in uniform(key, (n, self.dim))]


@dataclass(frozen=True)
class Text:
    """Sequences of symbols; a point is a string.

    Args:
        alphabet: the symbols, each one character.
        length: number of symbols, or the pair (fewest, most).

    Example:
        >>> import dfo
        >>> dfo.Text("ab", 3).contains("aba"), dfo.Text("ab", 3).contains("abc")
        (True, False)
    """

    alphabet: str
    length: int | tuple[int, int]

    def __post_init__(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) != len(self.alphabet):
            raise InvalidArgument(f"alphabet: expected different symbols, got {short(self.alphabet)}.")
        low, high = self.lengths
        if not 0 <= low <= high or high < 1:
            raise InvalidArgument(f"length: expected 0 <= fewest <= most and most >= 1, got {self.length!r}.")

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most symbols."""
        return (self.length, self.length) if isinstance(self.length, int) else self.length

    @property
    def dim(self) -> int:
        """The most symbols that a point has."""
        return self.lengths[1]

    def contains(self, x: Any) -> bool:
        """Tell whether ``x`` is a string of an allowed length over the alphabet."""
        low, high = self.lengths
        return isinstance(x, str) and low <= len(x) <= high and set(x) <= set(self.alphabet)

    def project(self, x: str) -> str:
        """Return ``x`` without foreign symbols, cut or padded with the first symbol."""
        low, high = self.lengths
        kept = "".join(c for c in x if c in self.alphabet)[:high]
        return kept + self.alphabet[0] * (low - len(kept))

    def sample(self, key: Key, n: int) -> list[str]:
        """Return ``n`` strings: uniform length, then uniform symbols."""
        low, high = self.lengths
        counts = low + integers(key.child("length"), high - low + 1, (n,))
        symbols = integers(key.child("symbols"), len(self.alphabet), (n, high))
        return ["".join(self.alphabet[j] for j in row[:count]) for row, count in zip(symbols, counts, strict=True)]
