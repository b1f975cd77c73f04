"""The weights of a task's network as the unknown of a problem."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from dfo.nn.oracle import ModuleOracle
from dfo.random import Key
from dfo_problems.networks.tasks import task

__all__ = ["Weights"]


class Weights(ModuleOracle):
    """Losses of a network on minibatches by number, and what weights are worth on examples that no batch holds.

    Args:
        name: of the task, such as ``"mnist-lenet"``.
        key: of the weights at the start.

    Raises:
        UnknownName: there is no such task.
        MissingPackage: the package that carries the data is not installed.
    """

    def __init__(self, name: str, key: Key) -> None:
        self.task = task(name)
        super().__init__(self.task.make(key), self.task.loss, self.task.batch)

    def loaded(self, x: Any) -> nn.Module:
        """Return a copy of the network with the weights ``x``, ``(d,)``."""
        module = copy.deepcopy(self.engine.module)
        own = dict(module.named_parameters())
        for name, value in self.blocks(x).items():
            own[name].data.copy_(value)
        return module

    def exact(self, x: Any) -> float:
        """Return the mean cross-entropy of the weights ``x``, ``(d,)``, on the validation part."""
        return self.task.measure(self.loaded(x), "validation").loss
