"""A network as an oracle: the unknown is the vector of its weights, an answer is a mean loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from dfo.arrays import Floats
from dfo.batch import Batch, Ints, Linear, Perturbations
from dfo.directions import Directions, LowRank
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.feedback import Values
from dfo.nn.engine import Engine, Evaluate, Loss
from dfo.nn.members import Draws
from dfo.nn.tensors import Choice
from dfo.oracles.function import Halted
from dfo.oracles.values import values_of_array
from dfo.random import Key

__all__ = ["Data", "ModuleOracle", "evaluate_population"]

Data: TypeAlias = "Callable[[int], Any] | Any"
"""A function of a number that returns a batch, a list of batches, or one batch."""


class ModuleOracle:
    """Mean losses of a module whose weights are the unknown, for any solver of dfo.

    The point is one vector: the weights that move, one tensor behind the other, in single precision (in double, where
    one of them is). Solvers that perturb (``zo-sgd``, ``openai-es``, ``zo-rank-sgd``, ...) never build a member: their
    directions go to the module as they are; with :meth:`low_rank` they are products of two vectors a matrix. Solvers
    that hold points (``genetic``, ``cbo``, ``cma``, ...) have theirs evaluated as stacked weights. A run without an
    ``x0`` begins at the weights as they are; weights outside its bounds are an error that says how many.

    Args:
        module: any module; it keeps its own weights, mode and buffers. :meth:`load` puts a result into it.
        loss: ``loss(module, batch)`` that returns ``(B,)`` losses, so that members ride together, or one number of any
            kind: accuracy, a score of generated text, ...
        data: ``function(number)`` that returns the batch with this number, a list of batches that are taken in turn, or
            one batch. All members of a step see the same batch, and equal numbers are equal batches.
        params: which parameters move; see :func:`dfo.nn.tensors.trainable`.
        evaluate: ``"auto"``, ``"together"``, ``"one by one"``; see :class:`dfo.nn.Engine`.
        chunk: members of one pass.

    Raises:
        InvalidType: the loss is no function, the module no module, or the data an iterator without numbers.
        InvalidArgument: nothing is left to move, or the list of batches is empty.

    Example:
        >>> import dfo, dfo.nn, torch
        >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        >>> net = torch.nn.Linear(3, 1)
        >>> square = lambda module, batch: (module(batch[0]) - batch[1]).square().mean(1)
        >>> oracle = dfo.nn.ModuleOracle(net, square, (x, x.sum(1, keepdim=True)))
        >>> res = dfo.minimize(oracle, method="openai-es", budget=4000)
        >>> oracle.load(res.x)
        >>> bool(square(net, (x, x.sum(1, keepdim=True))).mean() < 1e-3)
        True
    """

    gives: frozenset[str] = frozenset({"values", "ranking"})
    max_batch: int | None = None

    def __init__(
        self, module: nn.Module, loss: Loss, data: Data, params: Choice = None, *, evaluate: Evaluate = "auto",
        chunk: int | None = None,
    ) -> None:  # fmt: skip
        if not callable(loss):
            raise InvalidType(f"loss: expected a function of module and batch, got {short(loss)}.")
        self.engine = Engine(module, loss, params, evaluate, chunk)
        self.data = _numbered(data)
        kinds = {t.device for t in self.engine.tensors.values()}
        if len(kinds) > 1:
            raise InvalidArgument(f"module: expected weights on one device, got {sorted(map(str, kinds))}.")
        self._first, self._last = True, (None, None)

    # ------------------------------------------------------------------ the point

    @property
    def x0(self) -> Tensor:
        """The weights of the module as they are, ``(d,)``."""
        parts = [t.reshape(-1).to(self._dtype) for t in self.engine.tensors.values()]
        return torch.cat(parts)

    @property
    def _dtype(self) -> torch.dtype:
        double = any(t.dtype == torch.float64 for t in self.engine.tensors.values())
        return torch.float64 if double else torch.float32

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors, in the order in which the point holds them."""
        return tuple(tuple(t.shape) for t in self.engine.tensors.values())

    def low_rank(self, rank: int = 1, entries: Literal["gaussian", "rademacher"] = "rademacher") -> LowRank:
        """Return the law of directions that are products of two factors for every matrix of this module.

        Args:
            rank: columns of a factor.
            entries: see :class:`dfo.directions.LowRank`.
        """
        return LowRank(self.shapes, rank, entries)

    def blocks(self, x: Any) -> dict[str, Tensor]:
        """Return a point ``(d,)``, or points ``(n, d)``, as tensors by name, ``(*shape)`` or ``(n, *shape)``.

        Raises:
            InvalidArgument: another number of coordinates.
        """
        flat = torch.as_tensor(x)
        sizes = [t.numel() for t in self.engine.tensors.values()]
        if flat.shape[-1] != sum(sizes):
            raise InvalidArgument(f"x: expected {sum(sizes)} weights, got {flat.shape[-1]}.")
        parts = flat.split(sizes, -1)
        named = zip(self.engine.tensors.items(), parts, strict=True)
        return {name: part.reshape(*flat.shape[:-1], *t.shape) for (name, t), part in named}

    def load(self, x: Any) -> None:
        """Put a point into the module, in place."""
        with torch.no_grad():
            for name, value in self.blocks(x).items():
                self.engine.tensors[name].copy_(value)

    # ------------------------------------------------------------------ answers

    def start(self, lanes: int, key: Key) -> Key:
        """Return the key of what module and loss draw, such as dropout masks."""
        return key.child("dropout")

    def evaluate(self, batch: Batch, memory: Key) -> tuple[Values, Key]:
        """Evaluate every member on the batch with its number (that of the step, where the question has none).

        Equal numbers are equal data, and equal random numbers of module and loss.

        Raises:
            InvalidType: the members are no vectors.
            Halted: the loss raised an exception.
        """
        if not isinstance(batch, Linear):
            raise InvalidType(f"ModuleOracle: expected a batch of vectors, got {type(batch).__name__}.")
        numbers = np.full(len(batch), batch.step) if batch.data is None else np.asarray(batch.data)
        f, error = np.empty(len(batch)), np.full(len(batch), np.nan)
        for number in np.unique(numbers):
            where = np.flatnonzero(numbers == number)
            try:
                told = self._losses(batch, where, self.data(int(number)), memory.child(int(number)))
            except Exception as reason:
                raise Halted(Values(np.empty(0)), len(batch), reason) from reason
            f[where] = told.mean(1).numpy()
            if told.shape[1] > 1:
                error[where] = (told.std(1) / told.shape[1] ** 0.5).numpy()
        values = values_of_array(f, len(batch), self._first)
        self._first = False
        return (replace(values, stderr=error) if np.isfinite(error).all() else values), memory

    def _losses(self, batch: Linear, where: Ints, data: Any, noise: Key) -> Tensor:
        """Return the losses ``(k, B)`` of some members."""
        if not isinstance(batch, Perturbations):
            X: Any = torch.as_tensor(batch.dense())
            return self.engine.losses_of(data, self.blocks(X[torch.as_tensor(where)]), noise)
        n = len(batch)
        index = np.arange(n) if batch.index is None else batch.index
        origin = np.zeros(n, int) if batch.origin is None else batch.origin
        told: list[Tensor] = [torch.empty(0)] * len(where)
        for o in np.unique(origin[where]):
            mine = np.flatnonzero(origin[where] == o)
            members = where[mine]
            center = self._center(batch.centers[int(o)])
            draws, scale = self._draws(batch.directions), batch.scale[members]
            losses = self.engine.losses(data, draws, index[members], scale, center, noise=noise)
            for i, row in zip(mine, losses, strict=True):
                told[i] = row
        return torch.stack(told)

    def _center(self, x: Any) -> dict[str, Tensor]:
        blocks = x if isinstance(x, Mapping) else self.blocks(x)
        return {name: blocks[name].to(t) for name, t in self.engine.tensors.items()}

    def _draws(self, directions: Directions) -> Draws:
        """Return the directions tensor by tensor, the same object for the same question."""
        if self._last[0] is not directions:
            self._last = (directions, Draws(directions, self.engine.tensors))  # type: ignore[assignment]
        draws: Any = self._last[1]
        return draws


def _numbered(data: Data) -> Callable[[int], Any]:
    """Return the data as a function of the number of a batch."""
    if isinstance(data, (Tensor, Mapping, tuple)):
        return lambda number: data
    if isinstance(data, list):
        if not data:
            raise InvalidArgument("data: expected at least one batch, got an empty list.")
        return lambda number: data[number % len(data)]
    if callable(data):
        return data
    if hasattr(data, "__next__") or (hasattr(data, "__iter__") and not hasattr(data, "__dataclass_fields__")):
        raise InvalidType(
            f"data: expected a function of a number, a list of batches or one batch, got {short(data)}."
            " Of a loader, take list(loader)."
        )
    return lambda number: data


def evaluate_population(
    module: nn.Module, loss: Loss, batch: Any, directions: Directions, index: Sequence[int] | Ints,
    scale: Sequence[float] | Floats, *, engine: Engine | None = None,
) -> Floats:  # fmt: skip
    """Return the mean losses ``(n,)`` of ``theta + scale_i u_index[i]``, for loops of one's own.

    Args:
        module: at ``theta``; it is not changed.
        loss: as in :class:`ModuleOracle`.
        batch: what the loss takes.
        directions: of a point in named blocks, ``Directions(law, key, count, tensors)`` with the tensors of
            :func:`dfo.nn.tensors.trainable`.
        index: ``(n,)`` direction of each member.
        scale: ``(n,)`` signed radius of each member.
        engine: of an earlier call, so that nothing is found out twice.

    Example:
        >>> import torch, dfo.nn
        >>> from dfo.directions import Directions, LowRank
        >>> from dfo.random import Key
        >>> net, x = torch.nn.Linear(3, 2), torch.ones(4, 3)
        >>> tensors = dfo.nn.trainable(net)
        >>> directions = Directions(LowRank(), Key(0), 5, tensors)
        >>> total = lambda module, batch: module(batch).sum(1)
        >>> f = dfo.nn.evaluate_population(net, total, x, directions, [0, 0, 1], [0.1, -0.1, 0.1])
        >>> f.shape
        (3,)
    """
    engine = Engine(module, loss) if engine is None else engine
    told = engine.losses(batch, Draws(directions, engine.tensors), np.asarray(index), np.asarray(scale, dtype=float))
    f: Floats = told.mean(1).numpy()
    return f
