"""Batches of data: any nest of mappings, sequences and dataclasses of tensors whose first dimension is the example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfo.errors import InvalidArgument
from dfo.nn.lifted import tile
from dfo.nn.members import Members

__all__ = ["dealt", "examples", "mapped", "rows_of", "split", "tensors_of", "tiled"]

PATCH = 256
"""Pixels of an image that count as a row."""


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from tensors_of(value)
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from tensors_of(getattr(batch, field.name))


def examples(batch: Any) -> int | None:
    """Return the number of examples of a batch, the first dimension of its first tensor; None without tensors."""
    return next((t.shape[0] for t in tensors_of(batch) if t.dim() > 0 and t.shape[0] > 0), None)


def rows_of(batch: Any) -> int:
    """Return how many rows a layer sees of one member: tokens, patches of images, else examples."""
    first = next((t for t in tensors_of(batch) if t.dim() > 0), None)
    if first is None:
        return 1
    if not first.is_floating_point():
        return first.numel() if first.dim() > 1 else first.shape[0]
    return first.shape[0] * max(1, first.shape[2:].numel() // PATCH if first.dim() == 4 else 1)


def tiled(batch: Any, members: Members) -> Any:
    """Return the batch of all members: tensors whose first dimension is that of the examples are tiled."""
    return batch if members.n == 1 else mapped(batch, members.rows, lambda rows: tile(rows, members))


def dealt(batch: Any, members: Members) -> Any:
    """Return the batch of all members, each of which sees the examples of its direction."""
    own = (members.index[:, None] * members.rows + np.arange(members.rows)).reshape(-1)
    if len(own) == examples(batch) and (own == np.arange(len(own))).all():
        return batch
    return mapped(batch, examples(batch), lambda rows: rows[torch.as_tensor(own, device=rows.device)])


def mapped(batch: Any, count: int | None, function: Callable[[Tensor], Tensor]) -> Any:
    """Return the batch with a function applied to the tensors whose first dimension is ``count``."""
    if isinstance(batch, Tensor):
        return function(batch) if batch.dim() > 0 and batch.shape[0] == count else batch
    if isinstance(batch, Mapping):
        made: Any = {key: mapped(value, count, function) for key, value in batch.items()}
        return made if type(batch) is dict else type(batch)(made)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(value, count, function) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(mapped(value, count, function) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: mapped(getattr(batch, f.name), count, function) for f in fields(batch)})
    return batch


def split(batch: Any, parts: int) -> list[Any]:
    """Return a batch cut into stretches of its examples.

    Raises:
        InvalidArgument: the examples cannot be cut into so many equal parts.
    """
    count = examples(batch)
    if parts == 1:
        return [batch]
    if parts < 1 or count is None or count % parts:
        raise InvalidArgument(
            f"parts: expected a number that divides the {count} examples of the batch, got {parts!r}."
        )
    size = count // parts
    return [mapped(batch, count, lambda rows, at=at: rows[at : at + size]) for at in range(0, count, size)]  # type: ignore[misc]
