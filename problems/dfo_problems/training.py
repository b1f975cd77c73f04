"""Weights of small networks on the real data sets that scikit-learn ships, trained on minibatches.

==========================  =================  =======================================
``digits-ACTIVATION``       64-32-10           2410 weights, 1437 + 360 images
``digits-resplit-...``      64-32-10           the same images, split in another way
``breast-cancer-...``       30-16-2             530 weights, 426 + 143 samples
``wine-...``                13-16-3             275 weights, 133 + 45 samples
``iris-...``                4-16-3              131 weights, 112 + 38 samples
==========================  =================  =======================================

``ACTIVATION`` is ``tanh`` or ``relu``. A value is the mean cross-entropy of a minibatch of 256 rows (a third of the
rows where that is fewer), the same rows for all members of a step (:class:`dfo.oracles.minibatch.Minibatch`).
``measure`` is the cross-entropy of the whole training part, and :func:`accuracy` that of the test part, which no
solver sees. An instance is a random start: weights scaled by the root of the inputs of their unit.

The digits task is the protocol by which populations of networks are compared; the other three are for choosing
defaults before the digits are looked at.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace, to_numpy
from dfo.oracles.minibatch import Minibatch
from dfo.protocols import Problem
from dfo.random import Key, normal
from dfo.spaces import Free
from dfo_problems.digits import Labels, load_digits, split
from dfo_problems.pack import Cell, Pack

__all__ = ["MLP", "TRAINING", "Training", "accuracy"]

Activation = Literal["tanh", "relu"]

MINIBATCH = 256
"""Rows that a step sees (a third of the training part, where that is fewer)."""

HIDDEN: dict[str, int] = {"digits": 32, "digits-resplit": 32, "breast-cancer": 16, "wine": 16, "iris": 16}
"""Hidden units by data set."""


class MLP:
    """The cross-entropy of one-hidden-layer networks whose weights are the rows of a population.

    A row holds the weights ``(inputs, units)`` and the biases of the first layer, then those of the second.

    Args:
        data: ``(n, inputs)`` rows.
        labels: ``(n,)`` classes from 0.
        hidden: units of the hidden layer.
        activation: ``"tanh"`` or ``"relu"``.
    """

    def __init__(self, data: Floats, labels: Labels, hidden: int, activation: Activation) -> None:
        self.data, self.labels, self.activation = data, labels, activation
        self.sizes = (int(data.shape[1]), hidden, int(labels.max()) + 1)
        self.dim = sum(a * b + b for a, b in itertools.pairwise(self.sizes))

    def start(self, key: Key) -> Floats:
        """Return ``(d,)`` random weights of variance 1 (tanh) or 2 (relu) over the inputs of their unit; biases 0."""
        gain = 2.0 if self.activation == "relu" else 1.0
        layers = [
            np.concatenate([normal(key.child(i), (a * b,)) * math.sqrt((gain if i == 0 else 1.0) / a), np.zeros(b)])
            for i, (a, b) in enumerate(itertools.pairwise(self.sizes))
        ]
        return np.concatenate(layers)

    def scores(self, X: Array, data: Array) -> Array:
        """Return ``(p, n, classes)`` scores of the rows of ``data`` by the networks ``X``, ``(p, d)``."""
        xp, p, at, h = namespace(X), X.shape[0], 0, data
        for layer, (a, b) in enumerate(itertools.pairwise(self.sizes)):
            weights, biases = X[:, at : at + a * b].reshape(p, a, b), X[:, at + a * b : at + a * b + b]
            at += a * b + b
            h = xp.matmul(h, weights)  # (n, a) or (p, n, a) by (p, a, b)
            h += biases[:, None, :]
            if layer == 0:
                h = xp.tanh(h) if self.activation == "tanh" else xp.clip(h, 0.0, None)
        return h

    def loss(self, X: Array, rows: Array | None = None) -> Array:
        """Return the ``(p,)`` mean cross-entropies of the networks ``X`` on some rows, or on all."""
        xp = namespace(X)
        chosen = np.arange(len(self.labels)) if rows is None else to_numpy(rows)
        scores: Any = self.scores(X, as_like(self.data[chosen], X))
        scores = scores - (xp.amax(scores, -1) if is_torch(X) else scores.max(axis=-1))[..., None]
        right: Any = scores[:, np.arange(len(chosen)), self.labels[chosen]]
        result: Array = (xp.log(xp.exp(scores).sum(-1)) - right).mean(-1)
        return result


@lru_cache(maxsize=4)
def _parts(name: str) -> tuple[Floats, Labels, Floats, Labels]:
    """Return training rows and classes, test rows and classes of a data set."""
    if name.startswith("digits"):
        return load_digits(int(name == "digits-resplit"))
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(f"{name} needs scikit-learn. Install it: pip install 'dfo-optim[bench]'.") from error
    X, y = getattr(datasets, f"load_{name.replace('-', '_')}")(return_X_y=True)
    return split(X, y, 3 * len(X) // 4, Key(0, (name,)))


class Training(Minibatch):
    """The minibatch losses of a network on a data set, and what it is worth on rows that no solver sees.

    Args:
        function: of the pack, such as ``"digits-tanh"``.
    """

    def __init__(self, function: str) -> None:
        name, _, activation = function.rpartition("-")
        data, labels, self._data, self._labels = _parts(name)
        self.network = MLP(data, labels, HIDDEN[name], "relu" if activation == "relu" else "tanh")
        super().__init__(self.network.loss, len(labels), min(MINIBATCH, len(labels) // 3))

    @property
    def test(self) -> tuple[Floats, Labels]:
        """Rows and classes that no solver sees."""
        return self._data, self._labels

    def exact(self, x: Any) -> float:
        """Return the mean cross-entropy of the weights ``x``, ``(d,)``, on the whole training part."""
        return float(self.network.loss(x[None])[0])

    def accuracy(self, x: Any) -> float:
        """Return the share of the test part that the weights ``x``, ``(d,)``, put into its class."""
        found = to_numpy(self.network.scores(x[None], as_like(self._data, x)))[0].argmax(axis=-1)
        return float((found == self._labels).mean())


def accuracy(function: str, x: Any) -> float:
    """Return the share of the test part that the weights ``x``, ``(d,)``, put into its class.

    Args:
        function: of the pack, such as ``"digits-tanh"``.
        x: weights.
    """
    return Training(function).accuracy(x)


def _build(cell: Cell) -> Problem:
    fun = Training(cell.function)
    return Problem(
        name=cell.name,
        space=Free(fun.network.dim),
        fun=fun,
        x0=fun.network.start(Key(cell.instance or 0, (cell.function,))),
        measure=fun.exact,
        noisy=True,
        group=TRAINING.group(cell.function),
        tags=frozenset({"network", "minibatch"}),
        reference="data sets of scikit-learn; mean cross-entropy of a multi-layer perceptron",
    )


TRAINING = Pack(
    name="training",
    summary="weights of small networks on digits, breast cancer, wine and iris, by minibatches",
    groups={name: tuple(f"{name}-{activation}" for activation in ("tanh", "relu")) for name in HIDDEN},
    build=_build,
    instances=(1, 2, 3, 4, 5),
    max_instance=2**31 - 1,
)
"""The pack of small networks; an instance is a random start."""
