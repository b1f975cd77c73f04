"""How an optimizer of networks works beside its own parameters, and what follows from the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from dfo.components.options import check_count, check_not_negative, check_positive, check_share
from dfo.directions import Distribution
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.nn.engine import Evaluate, typical_size
from dfo.nn.tensors import Choice
from dfo.nn.torch_rule import TorchRule

__all__ = ["Options", "Rule", "check_numbers", "default_lr", "default_radius", "groups_of"]

Rule: TypeAlias = "Literal['sgd', 'momentum'] | TorchRule"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an optimizer of networks works, beside its own parameters.

    Args:
        directions: ``"low-rank"`` (rank 1, default: the cheapest to evaluate), a name of
            :data:`dfo.directions.DISTRIBUTIONS`, or a law that works on named blocks.
        rule: ``"sgd"``; ``"momentum"``, whose memory is redrawn from keys; or :class:`TorchRule`, any optimizer of
            torch, at the memory of its own state plus one gradient.
        beta: of momentum.
        weight_decay: share of ``lr`` by which weights shrink each step (decoupled).
        params: which parameters move; see :func:`dfo.nn.tensors.trainable`.
        groups: further settings by name, ``{"params": r"norm|bias", "lr": 1e-4, "weight_decay": 0.0}``; a tensor
            belongs to the first whose expression matches, else to the main group, the last of ``param_groups``.
        evaluate: ``"auto"``, ``"together"``, ``"one by one"``; see :class:`dfo.nn.engine.Engine`.
        chunk: members of one pass.
        lag: columns of updates that weights of 16 bits may lag behind: until there are so many, updates ride in the
            factors, where rounding loses nothing and costs nothing. 0 adds every step at once, as rules other than
            ``"sgd"`` do. Calls of the module outside, and its ``state_dict``, add what is missing first.
        room: bytes of drawn numbers that are kept from the passes for the update.
        seed: of the run.

    Raises:
        InvalidArgument: a number out of its range, or a rule that does not exist.
    """

    directions: str | Distribution = "low-rank"
    rule: Rule = "sgd"
    beta: float = 0.9
    weight_decay: float = 0.0
    params: Choice = None
    groups: Sequence[Mapping[str, Any]] = ()
    evaluate: Evaluate = "auto"
    chunk: int | None = None
    lag: int = 8
    room: int = 1 << 26
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rule, TorchRule) and self.rule not in ("sgd", "momentum"):
            raise InvalidArgument(f'rule: expected "sgd", "momentum" or a TorchRule, got {self.rule!r}.')
        check_numbers({name: getattr(self, name) for name in ("beta", "weight_decay", "lag", "room")})
        if self.beta in (0, 1):
            raise InvalidArgument(f"beta: expected a number between 0 and 1, got {self.beta!r}.")


COUNTS: Mapping[str, int] = {"samples": 1, "population": 2, "lag": 0, "room": 0}
"""Options that are integers, and the least they may be."""

BY_DEFAULT = frozenset({"lr", "radius", "samples", "sigma"})
"""Options that may be None."""


def check_numbers(given: Mapping[str, Any]) -> None:
    """Check those numbers of an optimizer of networks that are given by name.

    Raises:
        InvalidArgument: one is out of its range.
        InvalidType: one is no number.
    """
    told = SimpleNamespace(**given)
    for name, value in given.items():
        if value is None and name not in BY_DEFAULT:
            raise InvalidType(f"{name}: expected a number, got None.")
    check_positive(told, *(name for name in ("lr", "radius", "sigma") if name in given))
    check_not_negative(told, *(name for name in ("weight_decay",) if name in given))
    check_share(told, *(name for name in ("beta", "decay", "memory") if name in given))
    for name in given.keys() & COUNTS.keys():
        check_count(told, COUNTS[name], name)


def default_radius(tensors: Mapping[str, Tensor]) -> float:
    """Return the smoothing: half a hundredth of the typical size of a weight.

    In 16 bits a difference must stand out of the rounding of the forward pass, and in 32 bits curvature is still small
    there; in double precision a hundredth of that, where rounding errors are smaller and curvature counts.
    """
    double = all(t.dtype == torch.float64 for t in tensors.values())
    return (5e-5 if double else 5e-3) * typical_size(tensors)


def default_lr(tensors: Mapping[str, Tensor]) -> float:
    """Return the root mean square of a first step per weight, ``4 d**-0.4`` of the typical size of a weight.

    Found by hand on digits (2,410 weights) and on a language model (1.3e8) with other sentences than those measured;
    it makes the length of a step nearly independent of the number of weights.
    """
    return 4.0 * sum(t.numel() for t in tensors.values()) ** -0.4 * typical_size(tensors)


def groups_of(
    module: nn.Module, tensors: Mapping[str, Tensor], lr: float, options: Options
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Return the group of every tensor, and the groups with the module's parameters; the last takes the rest."""
    parameters = dict(module.named_parameters())
    groups: list[dict[str, Any]] = []
    group_of: dict[str, int] = {}
    for given in options.groups:
        pattern = given.get("params")
        unknown = set(given) - {"params", "lr", "weight_decay"}
        if not isinstance(pattern, str) or unknown or None in given.values():
            raise InvalidArgument(f"groups: expected params (an expression), lr and weight_decay, got {short(given)}.")
        check_not_negative(SimpleNamespace(**given), *(given.keys() - {"params"}))
        mine = [name for name in tensors if name not in group_of and re.search(pattern, name)]
        if not mine:
            raise InvalidArgument(f"groups: no name of a parameter that moves matches {pattern!r}.")
        group_of.update(dict.fromkeys(mine, len(groups)))
        groups.append({**given, "params": [parameters[name] for name in mine]})
    rest = [name for name in tensors if name not in group_of]
    if rest:
        group_of.update(dict.fromkeys(rest, len(groups)))
        groups.append({"params": [parameters[name] for name in rest], "lr": lr})
    return {name: group_of[name] for name in tensors}, groups
