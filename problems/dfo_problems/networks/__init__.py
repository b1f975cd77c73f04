"""Networks that torch holds, on images and text, trained by forward passes on minibatches.

================  ==============  ==========  ==================================================================
name              network         weights     data (training, validation, test)
================  ==============  ==========  ==================================================================
``digits-mlp``    64-32-10             2,410  digits of scikit-learn, 8 x 8 (1197, 240, 360)
``digits-lenet``  small LeNet          6,010  the same
``mnist-mlp``     784-256-256-10     269,322  5000 images of MNIST (3500, 500, 1000)
``mnist-lenet``   LeNet-5             61,706  the same
``fashion-mlp``   784-256-256-10     269,322  Fashion-MNIST (50000, 10000, 10000)
``fashion-lenet`` LeNet-5             61,706  the same
``text-gpt``      2-layer GPT        110,336  characters of the reference of the Python language (80, 10, 10 %)
================  ==============  ==========  ==================================================================

A value is the mean cross-entropy of a minibatch of 128 images, or of 16 pieces of text of 64 characters each; the
point is the vector of all weights. ``measure`` is the cross-entropy of the validation part; the test is looked at by
``task(name).measure(module, "test")``, and by no solver. An instance is a random start.

:mod:`~dfo_problems.networks.models` builds these networks and larger ones without data,
:mod:`~dfo_problems.networks.data` holds the sources of the data and their licences.
"""

from __future__ import annotations

import copy
import itertools
from importlib import util
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import Floats, to_numpy
from dfo.errors import MissingPackage
from dfo.oracles.minibatch import Minibatch
from dfo.protocols import Problem
from dfo.random import Key
from dfo.spaces import Free
from dfo_problems.pack import Cell, Pack

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "Weights"]

_NAMES = {
    "digits": ("digits-mlp", "digits-lenet"),
    "mnist": ("mnist-mlp", "mnist-lenet"),
    "fashion": ("fashion-mlp", "fashion-lenet"),
    "text": ("text-gpt",),
}


class Weights(Minibatch):
    """Flat vectors as the weights of one network: what a minibatch costs with them, and a part of the data.

    Args:
        name: of the task, such as ``"mnist-lenet"``.
        key: of the weights at the start.

    Raises:
        MissingPackage: torch, or the package that carries the data, is not installed.
    """

    def __init__(self, name: str, key: Key) -> None:
        if util.find_spec("torch") is None:
            raise MissingPackage(f"networks-{name} needs torch. Install it: pip install 'dfo-optim[networks]'.")
        from dfo.nn.engine import Engine
        from dfo_problems.networks.tasks import task

        self.task = task(name)
        self.module = self.task.make(key)
        self.engine = Engine(self.module, self.task.loss, evaluate="together")
        self.tensors = self.engine.tensors
        self.ends = [0, *itertools.accumulate(p.numel() for p in self.tensors.values())]
        self.start_point = np.concatenate([p.numpy().ravel() for p in self.tensors.values()]).astype(float)
        super().__init__(self.losses, len(self.task.parts["train"]), self.task.size)

    def losses(self, X: Any, rows: Any) -> Floats:
        """Return the ``(p,)`` mean losses of the weights ``X``, ``(p, d)``, on some rows of the training part."""
        points = {
            name: part.unflatten(1, p.shape) for (name, p), part in zip(self.tensors.items(), self._cut(X), strict=True)
        }
        losses: Floats = self.engine.losses_of(self.task.parts["train"].take(to_numpy(rows)), points).mean(1).numpy()
        return losses

    def loaded(self, x: Any) -> nn.Module:
        """Return a copy of the network with the weights ``x``, ``(d,)``."""
        module = copy.deepcopy(self.module)
        own = dict(module.named_parameters())
        for (name, p), part in zip(self.tensors.items(), self._cut(x[None]), strict=True):
            own[name].data.copy_(part.view(p.shape))
        return module

    def exact(self, x: Any) -> float:
        """Return the mean cross-entropy of the weights ``x``, ``(d,)``, on the validation part."""
        return self.task.measure(self.loaded(x), "validation").loss

    def _cut(self, X: Any) -> list[Any]:
        """Return the columns of every tensor, of members ``(p, d)``."""
        import torch

        members = torch.as_tensor(X)
        return [members[:, a:b] for a, b in itertools.pairwise(self.ends)]


def _build(cell: Cell) -> Problem:
    fun = Weights(cell.function, Key(cell.instance or 0, ("networks", cell.function)))
    return Problem(
        name=cell.name,
        space=Free(fun.ends[-1]),
        fun=fun,
        x0=fun.start_point,
        measure=fun.exact,
        noisy=True,
        group=NETWORKS.group(cell.function),
        tags=frozenset({"network", "minibatch", "torch"}),
        reference="see dfo_problems.networks.data for the images and the text; mean cross-entropy of a network",
    )


NETWORKS = Pack(
    name="networks",
    summary="perceptrons, LeNets and a small transformer in torch, on digits, MNIST, Fashion-MNIST and text",
    groups=_NAMES,
    build=_build,
    instances=(1, 2, 3, 4, 5),
    max_instance=2**31 - 1,
)
"""The pack of torch networks; an instance is a random start."""
