"""Members of a population as one forward pass sees them, and the directions of one step tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from dfo.arrays import Floats
from dfo.batch import Ints
from dfo.directions import Directions, Distribution, LowRank
from dfo.errors import InvalidType
from dfo.random import Key
from dfo.structured import over

__all__ = ["SMALL", "Draws", "Entries", "Factors", "Members", "Rows", "Shared", "Shelf", "Stream"]

SMALL = 1 << 20
"""Numbers up to which the directions of one tensor are drawn for a whole step at a time."""


@dataclass(frozen=True, eq=False)
class Members:
    """Which direction each member takes, and how far.

    Args:
        index: ``(n,)`` direction of each member.
        scale: ``(n,)`` signed radius of each member.
        rows: examples that a member sees, B; a forward pass of all members sees ``n B`` rows, member by member.
        share: whether all members see the same examples.
        apart: whether the two ends of a direction may be in passes of their own, which costs no more draws.
        shared: what the passes of an evaluation share.
    """

    index: Ints
    scale: Floats
    rows: int
    share: bool = True
    apart: bool = True
    shared: Shared = field(default_factory=lambda: Shared(()))

    @property
    def n(self) -> int:
        """Number of members."""
        return len(self.index)

    @cached_property
    def span(self) -> tuple[int, int]:
        """First direction used, and the one behind the last."""
        return int(self.index.min()), int(self.index.max()) + 1

    @cached_property
    def per(self) -> int:
        """Neighbours that share a direction: 2 where members come in pairs, else 1."""
        pairs = self.n % 2 == 0 and bool((self.index[0::2] == self.index[1::2]).all())
        return 2 if pairs else 1

    def grouped(self, drawn: Tensor) -> Tensor:
        """Return what was drawn for directions ``span`` as one for every group of neighbours, ``(n / per, ...)``."""
        return drawn if self._groups is None else drawn[self._groups.to(drawn.device)]

    def each(self, drawn: Tensor) -> Tensor:
        """Return what was drawn for directions ``span`` as one for every member, ``(n, ...)``."""
        return drawn if self._singles is None else drawn[self._singles.to(drawn.device)]

    @cached_property
    def _groups(self) -> Tensor | None:
        return _places(self.index[:: self.per], self.span)

    @cached_property
    def _singles(self) -> Tensor | None:
        return _places(self.index, self.span)

    @cached_property
    def _scales(self) -> dict[Any, Tensor]:
        return {}

    def scales(self, like: Tensor) -> Tensor:
        """Return the radii ``(n,)`` as a tensor like another."""
        kind = like.dtype, like.device
        if kind not in self._scales:
            self._scales[kind] = torch.as_tensor(self.scale, dtype=torch.float64).to(like.device, like.dtype)
        return self._scales[kind]

    def part(self, start: int, stop: int) -> Members:
        """Return members ``start .. stop``."""
        return replace(self, index=self.index[start:stop], scale=self.scale[start:stop])


def _places(index: Ints, span: tuple[int, int]) -> Tensor | None:
    """Return places within a span; None where they are all of it, in order."""
    start, stop = span
    if len(index) == stop - start and bool((index == np.arange(start, stop)).all()):
        return None
    return torch.as_tensor(index - start)


class Shared:
    """Products of the data themselves, which are the same in all passes of an evaluation: they are made in the first.

    Args:
        data: the tensors of a batch that nobody writes to; while they are there, nothing else has their addresses.
    """

    def __init__(self, data: Iterable[Tensor]) -> None:
        self.places, self.kept = {t.data_ptr() for t in data}, dict[tuple[Any, ...], Tensor]()

    def linear(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x w^T + bias``, to be read only."""
        if x.data_ptr() not in self.places:
            return linear(x, w, bias)
        where = tuple((t.data_ptr(), t.shape, t.stride()) for t in (x, w, bias) if t is not None)
        if where not in self.kept:
            self.kept[where] = linear(x, w, bias)
        return self.kept[where]


class Shelf:
    """Keeps what has been drawn for a step while there is room, so that the update need not draw it again.

    What is drawn again equals what was kept, to the bit, so the room changes no result.

    Args:
        room: bytes.
    """

    def __init__(self, room: int) -> None:
        self.room, self.kept = room, dict[tuple[Any, ...], Any]()

    def get(self, where: tuple[Any, ...], draw: Callable[[], Any]) -> Any:
        """Return what was drawn for a place, drawn now if need be."""
        found = self.kept.get(where)
        if found is None:
            found = draw()
            tensors = found if isinstance(found, tuple) else (found,)
            need = sum(t.numel() * t.element_size() for t in tensors)
            if need <= self.room:
                self.room -= need
                self.kept[where] = found
        return found


class Stream:
    """The directions of one tensor, ``(a, b)`` or of any shape, drawn when they are needed.

    Args:
        like: the tensor: its shape, dtype and device.
        kind: array of the library and precision in which they are drawn, those of the solver's point, so that solver
            and network speak of the same directions; the tensor's own by default.
    """

    shelf = Shelf(0)
    count = 0

    def __init__(self, like: Tensor, kind: Any = None) -> None:
        self.like, self.kind = like, like if kind is None else kind

    def span(self, start: int, stop: int, each: int) -> tuple[int, int]:
        """Return which directions to draw for ``start .. stop``: all of the step where they are small and can be kept.

        A draw of a few numbers costs as much as one of a few thousand.

        Args:
            start: first direction.
            stop: the one behind the last.
            each: numbers that a direction needs.
        """
        need = self.count * each
        fits = need <= SMALL and need * self.like.element_size() <= self.shelf.room
        return (0, self.count) if fits or (id(self), 0, self.count) in self.shelf.kept else (start, stop)

    def keep(self, drawn: Any) -> None:
        """Keep all directions of the step, which have been drawn elsewhere, if there is room."""
        self.shelf.get((id(self), 0, self.count), lambda: drawn)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return directions ``start .. stop`` as ``(k, *shape)``."""
        raise NotImplementedError


class Factors(Stream):
    """Directions that are products of two factors.

    Args:
        law: with ``factors``.
        key: of the tensor.
        like: the tensor; its sides behind the first count as one.
        kind: see :class:`Stream`.
    """

    def __init__(self, law: LowRank, key: Key, like: Tensor, kind: Any = None) -> None:
        super().__init__(like, kind)
        self.law, self.key = law, key
        self.a, self.b = like.shape[0], math.prod(like.shape[1:])

    def factors(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return ``(k, a, r)`` and ``(k, r, b)``, whose products are directions ``start .. stop``."""
        first, last = self.span(start, stop, (self.a + self.b) * self.law.rank)

        def draw() -> tuple[Tensor, Tensor]:
            left, right = self.law.factors(self.key, self.a, self.b, last - first, self.kind, first)
            return torch.as_tensor(left).to(self.like), torch.as_tensor(right).to(self.like)

        left, right = self.shelf.get((id(self), first, last), draw)
        return left[start - first : stop - first], right[start - first : stop - first]

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the products, ``(k, *shape)``."""
        left, right = self.factors(start, stop)
        return torch.bmm(left, right).view(stop - start, *self.like.shape)


class Entries(Stream):
    """Directions whose entries are drawn one by one, any stretch of them alone.

    Args:
        law: an elementwise distribution.
        key: of the tensor, or of the whole point.
        like: the tensor.
        first: place of the tensor within the point.
        stride: coordinates of the point; those of the tensor when it has a key of its own.
        kind: see :class:`Stream`.
    """

    def __init__(
        self, law: Distribution, key: Key, like: Tensor, first: int = 0, stride: int | None = None, kind: Any = None
    ) -> None:
        super().__init__(like, kind)
        self.law, self.key, self.first, self.stride = law, key, first, stride or like.numel()
        self.spans: set[tuple[int, int]] = set()  # that were drawn in one piece

    def keep(self, drawn: Any) -> None:
        """Keep all directions of the step, ``(count, ...)``, which have been drawn elsewhere, if there is room."""
        super().keep(drawn.view(self.count, *self.like.shape))
        self.spans.add((0, self.count))

    def piece(self, i: int, start: int, count: int) -> Tensor:
        """Return ``count`` entries of direction ``i`` from ``start`` on, flat."""
        for first, last in self.spans:
            rows = self.shelf.kept.get((id(self), first, last))
            if first <= i < last and rows is not None:
                cut: Tensor = rows[i - first].view(-1)[start : start + count]
                return cut
        where = i * self.stride + self.first + start
        return self.shelf.get((id(self), "piece", where, count), lambda: self._pieces(where, count))

    def rows(self, start: int, stop: int) -> Tensor:
        """Return ``(k, *shape)``."""
        first, last = self.span(start, stop, self.like.numel())
        self.spans.add((first, last))
        drawn: Tensor = self.shelf.get((id(self), first, last), lambda: self._rows(first, last))
        return drawn[start - first : stop - first]

    def _rows(self, start: int, stop: int) -> Tensor:
        m, k = self.like.numel(), stop - start
        if self.stride == m:
            return self._pieces(start * m, k * m).view(k, *self.like.shape)
        pieces = [self._pieces(i * self.stride + self.first, m) for i in range(start, stop)]
        return torch.stack(pieces).view(k, *self.like.shape)

    def _pieces(self, start: int, count: int) -> Tensor:
        return torch.as_tensor(self.law.piece(self.key, start, count, self.kind)).to(self.like)


class Rows(Stream):
    """Directions that exist already.

    Args:
        drawn: ``(q, m)``.
        like: the tensor, of ``m`` entries.
    """

    def __init__(self, drawn: Tensor, like: Tensor) -> None:
        super().__init__(like)
        self.drawn = drawn

    def rows(self, start: int, stop: int) -> Tensor:
        """Return ``(k, *shape)``."""
        return torch.as_tensor(self.drawn[start:stop]).reshape(stop - start, *self.like.shape).to(self.like)


class Draws:
    """The directions of one step, tensor by tensor.

    Args:
        directions: the recipe, of a point in named blocks or of one flat vector.
        tensors: the tensors that move, in the order in which a flat vector holds them.
        room: bytes of what is drawn that may be kept.
    """

    def __init__(self, directions: Directions, tensors: Mapping[str, Tensor], room: int = 1 << 26) -> None:
        self.directions, self.tensors = directions, tensors
        make = _in_blocks if isinstance(directions.like, Mapping) else _flat
        self.streams, self.shelf = make(directions, tensors), Shelf(room)
        for stream in self.streams.values():
            stream.shelf, stream.count = self.shelf, directions.count
        drawn = sum(t.numel() * t.element_size() for t in map(_large, self.streams.values()) if t is not None)
        self.cheap = drawn * directions.count <= room
        """Whether what passes share is drawn once: factors are small, and of entries there is room for all."""


def _large(stream: Stream) -> Tensor | None:
    """Return the tensor of a stream whose directions are as large as itself and drawn when they are needed."""
    return stream.like if isinstance(stream, Entries) and stream.like.dim() > 1 else None


def _in_blocks(directions: Directions, tensors: Mapping[str, Tensor]) -> dict[str, Stream]:
    streams, shapes = dict[str, Stream](), {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, law in over(directions.law, directions.key, shapes).items():  # the others stay where they are
        mine: Any = law
        tensor, key = tensors[name], directions.key.child(name)
        if isinstance(mine, LowRank):
            streams[name] = _factored(mine, key.child(0), tensor)
        elif mine.elementwise:
            streams[name] = Entries(mine, key, tensor)
        else:
            streams[name] = Rows(mine.rows(key, directions.count, tensor.reshape(-1)), tensor)
    return streams


def _factored(law: Any, key: Key, tensor: Tensor, kind: Any = None) -> Stream:
    if tensor.dim() < 2 or math.prod(tensor.shape[1:]) == 1:
        return Entries(law.vectors, key, tensor, kind=kind)
    return Factors(law, key, tensor, kind)


def _flat(directions: Directions, tensors: Mapping[str, Tensor]) -> dict[str, Stream]:
    law, kind, streams, at = directions.law, directions.like, dict[str, Stream](), 0
    total = sum(t.numel() for t in tensors.values())
    if isinstance(law, LowRank) and _sides(law.shape) == [tuple(t.shape) for t in tensors.values()]:
        keys = (directions.key.child(j) for j in range(len(tensors)))
        return {name: _factored(law, key, t, kind) for key, (name, t) in zip(keys, tensors.items(), strict=True)}
    drawn: Any = None if law.elementwise else directions.dense()
    for name, tensor in tensors.items():
        if law.elementwise:
            streams[name] = Entries(law, directions.key, tensor, at, total, kind)
        else:
            streams[name] = Rows(drawn[:, at : at + tensor.numel()], tensor)
        at += tensor.numel()
    return streams


def _sides(shape: Any) -> Sequence[tuple[int, ...]]:
    if shape is None:
        raise InvalidType("LowRank: expected the shapes of the tensors for a flat point. Use oracle.low_rank().")
    return [tuple(s) for s in shape] if isinstance(shape[0], (tuple, list)) else []
