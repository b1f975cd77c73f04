"""What oracles with lanes share: inner states as trees of arrays, and randomness that goes by number.

A tree is an array, or a tuple or dictionary (nested at will) of arrays, each with a leading lane axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dfo.arrays import Array, copy, is_array, is_torch, namespace
from dfo.random import Key, integers, normal, uniform

__all__ = ["BEFORE", "Draws", "Ints", "put", "rows", "stacked"]

Ints = npt.NDArray[np.int64]

Draw = Callable[[Key, tuple[int, ...], int], Array]

BEFORE = -1
"""The time of the draws of a reset."""


def rows(tree: Any, index: Any) -> Any:
    """Return a copy of the lanes ``index`` of a tree (with one integer: of that lane, without the lane axis)."""
    if isinstance(tree, dict):
        return {name: rows(part, index) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(rows(part, index) for part in tree)
    if isinstance(tree, list):
        return [tree[i] for i in index]
    alias = isinstance(index, int) and tree.ndim > (0 if is_torch(tree) else 1)
    return copy(tree[index]) if alias else tree[index]


def put(tree: Any, index: Ints, new: Any) -> Any:
    """Return a copy of a tree whose lanes ``index`` are those of ``new``."""
    if isinstance(tree, dict):
        return {name: put(part, index, new[name]) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(put(part, index, n) for part, n in zip(tree, new, strict=True))
    if is_torch(tree):
        result = copy(tree)
        result[index] = new
        return result
    kind = np.result_type(tree, new)  # a count that became a mean is no longer an integer
    result = np.array(tree, dtype=kind, copy=True)
    result[index] = new
    return result


def blank(tree: Any, lanes: int) -> Any:
    """Return a tree of zeros with ``lanes`` lanes."""
    if isinstance(tree, dict):
        return {name: blank(part, lanes) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(blank(part, lanes) for part in tree)
    xp = namespace(tree)
    return xp.zeros((lanes, *tree.shape[1:]), dtype=tree.dtype, device=tree.device)


def stacked(states: Sequence[Any]) -> Any:
    """Return the tree of states of single lanes, each an array, a number, or a tuple or dictionary of these."""
    first = states[0]
    if isinstance(first, dict):
        return {name: stacked([s[name] for s in states]) for name in first}
    if isinstance(first, tuple):
        return tuple(stacked([s[i] for s in states]) for i in range(len(first)))
    if is_torch(first):
        return namespace(first).stack(list(states))
    return np.stack([np.asarray(s) for s in states])


@dataclass(frozen=True, eq=False)
class Draws:
    """What is random in a step of an inner problem: equal data numbers draw the same, whoever asks and whenever.

    A function of one lane sees one number and gets one draw; a vectorised one sees ``(n,)`` numbers and gets
    ``n`` draws, stacked. Two draws of one kind in one step need two names.

    Args:
        number: the data number of the lane, at least 0, or ``(n,)`` numbers.
        t: the step of the inner problem, from 0, or ``(n,)`` steps; -1 in a reset.
        key: the stream.

    Example:
        >>> import numpy as np
        >>> from dfo.oracles.lanes import Draws
        >>> from dfo.random import Key
        >>> data = Draws(np.array([3, 8, 3]), np.array([0, 0, 0]), Key(0))
        >>> z = data.normal((2,))
        >>> z.shape, bool((z[0] == z[2]).all()), bool((z[0] == z[1]).any())
        ((3, 2), True, False)
    """

    number: Any
    t: Any
    key: Key

    def normal(self, shape: tuple[int, ...] = (), like: Array | None = None, name: str = "") -> Array:
        """Return standard normal numbers of this shape (a lane); library, dtype and device are those of ``like``."""
        return self._drawn("normal", name, shape, lambda key, size, start: normal(key, size, like, start))

    def uniform(self, shape: tuple[int, ...] = (), like: Array | None = None, name: str = "") -> Array:
        """Return uniform numbers in [0, 1) of this shape (a lane)."""
        return self._drawn("uniform", name, shape, lambda key, size, start: uniform(key, size, like, start))

    def integers(self, high: int, shape: tuple[int, ...] = (), name: str = "") -> Array:
        """Return integers in ``0 .. high - 1`` of this shape (a lane), such as the rows of a minibatch."""
        return self._drawn("integers", name, shape, lambda key, size, start: integers(key, high, size, start))

    def at(self, t: Any) -> Draws:
        """Return the draws of the same lanes at another step, or ``(n,)`` steps."""
        return replace(self, t=t)

    def take(self, index: Any) -> Draws:
        """Return the draws of the lanes ``index``; with one integer, of that lane alone."""
        number, t = (x[index] if is_array(x) else x for x in (self.number, self.t))
        return Draws(int(number), int(t), self.key) if isinstance(index, int) else Draws(number, t, self.key)

    def _drawn(self, kind: str, name: str, shape: tuple[int, ...], draw: Draw) -> Array:
        """Number ``k`` owns words ``k m .. (k + 1) m`` of the stream of (kind, name, t), for ``m`` numbers a lane."""
        stream, m = self.key.child(kind, name) if name else self.key.child(kind), math.prod(shape)
        if not is_array(self.number):
            return draw(stream.child(int(self.t)), shape, int(self.number) * m)
        t, result = np.broadcast_to(self.t, self.number.shape), None
        for now in np.unique(t):
            at = np.flatnonzero(t == now)
            numbers, inverse = np.unique(self.number[at], return_inverse=True)
            key, drawn = stream.child(int(now)), []
            for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):  # neighbours are drawn together
                drawn.append(draw(key, (len(run), *shape), int(run[0]) * m))
            block: Any = namespace(drawn[0]).concat(drawn)[inverse.reshape(-1)]
            if len(at) == len(t):
                return block  # type: ignore[no-any-return]
            result = put(blank(block, len(t)) if result is None else result, at, block)
        return result  # type: ignore[return-value]
