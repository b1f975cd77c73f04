"""The law of directions of every step of a run, where the law looks at the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dfo.directions import Distribution
from dfo.masks import Masks

__all__ = ["Laws"]


class Laws:
    """The law of every step; one with ``of(tensors)`` looks at the weights where each of its periods begins.

    Args:
        law: of a run.
    """

    def __init__(self, law: Distribution) -> None:
        self.law, self.seen = law, dict[int, Masks]()

    @property
    def looks(self) -> bool:
        """Whether the law looks at the weights."""
        return hasattr(self.law, "of")

    def at(self, t: int, tensors: Mapping[str, Tensor]) -> Distribution:
        """Return the law of step ``t``, which takes the weights as they are if it is the first of its period."""
        looking: Any = self.law
        if not self.looks:
            return self.law
        period = t // looking.period
        if period not in self.seen:
            self.seen[period] = looking.of(tensors)
        return self.seen[period]

    def forget(self, t: int) -> None:
        """Forget what no step from ``t`` on needs."""
        looking: Any = self.law
        for period in [p for p in self.seen if p < t // looking.period]:
            del self.seen[period]

    def state(self) -> dict[str, Tensor]:
        """Return what was seen: ``mask/<number of the period>/<name>``."""
        return {f"mask/{period}/{name}": x for period, law in self.seen.items() for name, x in law.masks.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        seen: dict[int, dict[str, Tensor]] = {}
        for where, x in state.items():
            _, period, name = where.split("/", 2)
            seen.setdefault(int(period), {})[name] = x
        self.seen = {period: Masks(masks) for period, masks in seen.items()}
