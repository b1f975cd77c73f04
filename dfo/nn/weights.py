"""Parameters that differ by member: what a forward pass is given in the place of a module's own tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dfo.nn.members import Entries, Factors, Members, Stream

__all__ = ["Explicit", "Factored", "Lag", "Streamed", "Values"]


@dataclass(frozen=True, eq=False)
class Lag:
    """An update that has not been added to a tensor yet.

    Args:
        columns: of its factors, k.
        factors: returns them, ``(a, k)`` and ``(k, b)``; made when the tensor is used, and for no longer.
    """

    columns: int
    factors: Callable[[], tuple[Tensor, Tensor]]


class Values:
    """A parameter with one explicit value a member.

    Args:
        base: the center, ``shape``; what the parameter looks like from outside.
        members: the members.
        given: ``(n, *shape)`` values, or None when a subclass makes them.
    """

    def __init__(self, base: Tensor, members: Members, given: Tensor | None = None) -> None:
        self.base, self.members, self.given = base, members, given

    def explicit(self) -> Tensor:
        """Return the values, ``(n, *shape)``."""
        if self.given is None:
            raise NotImplementedError
        return self.given

    def one(self, i: int) -> Tensor:
        """Return the value of member ``i``."""
        return self.explicit()[i]

    def shift(self) -> Tensor:
        """Return how far each member's value lies from the center, ``(n, *shape)``."""
        return self.explicit() - self.base

    def moved(self) -> Values:
        """Return the transposed parameter (matrices only)."""
        return Values(self.base.t(), self.members, self.explicit().transpose(1, 2))

    def cut(self, start: int, stop: int) -> Values:
        """Return rows ``start .. stop`` of the parameter."""
        return Values(self.base[start:stop], self.members, self.explicit()[:, start:stop])


class Explicit(Values):
    """The center plus a scaled direction, written out when it is asked for.

    Args:
        base: the center.
        members: the members.
        stream: the directions of this tensor.
    """

    def __init__(self, base: Tensor, members: Members, stream: Stream) -> None:
        super().__init__(base, members)
        self.stream = stream

    @cached_property
    def drawn(self) -> Tensor:
        """Directions, ``(g, *shape)`` for every group of neighbours that share one."""
        return self.members.grouped(self.stream.rows(*self.members.span))

    def shift(self) -> Tensor:
        """Return the scaled directions, ``(n, *shape)``."""
        n, g = self.members.n, len(self.drawn)
        scale = self.members.scales(self.drawn).view(g, n // g, *[1] * self.base.dim())
        return (self.drawn.unsqueeze(1) * scale).view(n, *self.base.shape)

    def explicit(self) -> Tensor:
        """Return the values, ``(n, *shape)``."""
        if self.given is None:
            self.given = self.shift().add_(self.base)
        return self.given

    def forget(self) -> None:
        """Drop what was written out; it is written again when it is asked for."""
        self.given = None
        self.__dict__.pop("drawn", None)

    def one(self, i: int) -> Tensor:
        """Return the value of member ``i``, nothing of which is kept."""
        if self.given is not None:
            return self.given[i]
        j = int(self.members.index[i])
        drawn = self.stream.rows(j, j + 1)[0]
        return (drawn * self.members.scales(drawn)[i]).add_(self.base)  # as above, to the bit


class Streamed(Explicit):
    """As :class:`Explicit`, for tensors that are too large to be written out: a stretch of rows at a time.

    Args:
        base: the center.
        members: the members.
        stream: entries that are drawn one by one.
    """

    stream: Entries
    swapped = False
    start = 0

    def moved(self) -> Streamed:
        """Return the transposed parameter (matrices only)."""
        other = Streamed(self.base, self.members, self.stream)
        other.start, other.swapped = self.start, not self.swapped
        return other

    def cut(self, start: int, stop: int) -> Values:
        """Return rows ``start .. stop`` of the parameter."""
        if self.swapped:
            return super().cut(start, stop)
        other = Streamed(self.base[start:stop], self.members, self.stream)
        other.start = self.start + start
        return other

    @cached_property
    def drawn(self) -> Tensor:
        """Directions, ``(g, *shape)`` for every group of neighbours that share one."""
        rows = self.stream.rows(*self.members.span)
        return self.members.grouped(rows[:, self.start : self.start + self.base.shape[0]])

    def one(self, i: int) -> Tensor:
        """Return the value of member ``i``, nothing of which is kept."""
        drawn = self.stretch(int(self.members.index[i]), 0, self.base.shape[0])
        return torch.add(self.base, drawn, alpha=float(self.members.scale[i]))

    def stretch(self, j: int, start: int, stop: int) -> Tensor:
        """Return rows ``start .. stop`` of direction ``j``."""
        width = self.base[0].numel()
        drawn = self.stream.piece(j, (self.start + start) * width, (stop - start) * width)
        return drawn.view(stop - start, *self.base.shape[1:])


class Factored(Values):
    """The center plus a scaled product of two factors, which is never written.

    Args:
        base: the center; its sides behind the first count as one.
        members: the members.
        left: ``(g, a, k)`` for every group of neighbours that share a direction.
        right: ``(g, k, b)``.
        rank: columns of ``left`` that the members' radii scale; those behind belong to all members alike.
        lag: what has to be added to ``base`` for the center.
    """

    def __init__(
        self, base: Tensor, members: Members, left: Tensor, right: Tensor, rank: int, lag: Lag | None = None
    ) -> None:
        super().__init__(base, members)
        self._left, self._right, self.rank, self._lag = left, right, rank, lag
        self.groups, self.width = len(left), left.shape[2] + (0 if lag is None else lag.columns)

    @classmethod
    def of(cls, base: Tensor, members: Members, stream: Factors, lag: Lag | None = None) -> Factored:
        """Return the parameter whose directions are those of a stream.

        Args:
            base: the center, or where it was some steps ago.
            members: the members.
            stream: the directions.
            lag: what has to be added to ``base`` for the center.
        """
        left, right = (members.grouped(part) for part in stream.factors(*members.span))
        return cls(base, members, left, right, left.shape[2], lag)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the factors ``(g, a, k)`` and ``(g, k, b)``, with the columns of what lags behind."""
        if self._lag is None:
            return self._left, self._right
        tall, flat = (part.expand(self.groups, -1, -1) for part in self._lag.factors())
        return torch.cat([self._left, tall], 2), torch.cat([self._right, flat], 1)

    def columns(self, like: Tensor) -> Tensor:
        """Return what scales each column for each member, ``(n, k)``."""
        scales, k = self.members.scales(like).unsqueeze(1), self.width
        if k == self.rank:
            return scales.expand(-1, k)
        columns = like.new_ones(self.members.n, k)
        columns[:, : self.rank] = scales
        return columns

    def scaled(self, left: Tensor) -> Tensor:
        """Return the left factors of groups as that of every member, scaled, ``(n, a, k)``."""
        return left.repeat_interleave(self.members.n // self.groups, 0) * self.columns(left).unsqueeze(1)

    def explicit(self) -> Tensor:
        """Return the values, ``(n, *shape)``, which are not kept."""
        left, right = self.factors()
        product = torch.bmm(self.scaled(left), right.repeat_interleave(self.members.n // self.groups, 0))
        return product.view(self.members.n, *self.base.shape).add_(self.base)

    def one(self, i: int) -> Tensor:
        """Return the value of member ``i``."""
        g, (left, right) = i * self.groups // self.members.n, self.factors()
        scaled = left[g].clone()
        scaled[:, : self.rank] *= float(self.members.scale[i])
        flat = self.base.reshape(self.base.shape[0], -1)
        return torch.addmm(flat, scaled, right[g]).view(self.base.shape)

    def moved(self) -> Factored:
        """Return the transposed parameter (matrices only)."""
        left, right = self.factors()
        return Factored(self.base.t(), self.members, right.transpose(1, 2), left.transpose(1, 2), self.rank)

    def cut(self, start: int, stop: int) -> Factored:
        """Return rows ``start .. stop`` of the parameter."""
        left, right = self.factors()
        return Factored(self.base[start:stop], self.members, left[:, start:stop], right, self.rank)
