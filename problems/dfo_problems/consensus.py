"""Landscapes on which consensus-based optimisation was studied, with the starts of those studies.

===================  ==============================================================================
``canyon``           a bent canyon with local minima along its bed, minimum 0 at the origin
``rastrigin4``, ..   Rastrigin at half strength, ``sum v^2 + 2.5 (1 - cos 2 pi v)``, d = 2, 4, 20
``ackley10``         Ackley's function in [-3, 3]^10
``softmax``          650 weights of a softmax regression of the digits, on minibatches of 60 images
===================  ==============================================================================

References: Riedl, Klock, Geldhauser and Fornasier 2023, arXiv:2306.09778 (canyon); Fornasier, Klock and Riedl 2021,
arXiv:2103.15130 (Rastrigin); Carrillo, Jin, Li and Zhu 2021, arXiv:1909.09249 (softmax regression).
"""

# mypy: disable-error-code="no-any-return"
# what an array namespace returns has no type
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dfo.arrays import Array, as_like, namespace, to_numpy
from dfo.oracles.minibatch import Minibatch
from dfo.protocols import Problem
from dfo.spaces import Box, Free
from dfo_problems.classic import ackley
from dfo_problems.digits import TRAIN, load_digits
from dfo_problems.pack import Cell, Pack

__all__ = ["CONSENSUS", "MINIBATCH", "Softmax", "canyon", "half_rastrigin", "softmax_loss"]

MINIBATCH = 60
"""Images that a step of the softmax regression sees."""

CLASSES, PIXELS = 10, 64


def canyon(X: Array) -> Array:
    """Return ``(n,)`` values of a canyon along ``y = (x - 1)(x - 4)^2 / 8 + 2`` that leads from (8, 8) to the origin.

    Source: Riedl et al. 2023, arXiv:2306.09778, figure 1.
    """
    xp, x, y = namespace(X), X[..., 0], X[..., 1]
    v = y - ((x - 1.0) * (x - 4.0) ** 2 / 8.0 + 2.0)
    b = -x - 1.6 * y
    walls = 100.0 * (1.0 - xp.exp(-1.4 * v * v * xp.exp(-0.002 * x**4)))
    bowl = 1.6 * x * x + 0.8 * y * y
    ripples = 8.0 * (2.0 - xp.cos(0.75 * math.pi * x) - xp.cos(0.75 * math.pi * y))
    gate = xp.clip((1.0 - xp.exp(-9.0 * b * b)) * xp.sign(b), 0.0, None)
    return walls + bowl + ripples + 16.0 * xp.exp(1.0 - 2.0 * v**4) * gate


def half_rastrigin(X: Array) -> Array:
    """``f(x) = sum_i x_i^2 + 2.5 (1 - cos(2 pi x_i))``.

    Source: Fornasier, Klock and Riedl 2021, arXiv:2103.15130.
    """
    xp = namespace(X)
    return (X * X + 2.5 * (1.0 - xp.cos(2.0 * math.pi * X))).sum(-1)


def _scores(X: Array, images: Array) -> Array:
    """Return ``(p, n, 10)`` scores of images by the rows of ``X``, ``(p, 650)``: weights ``(64, 10)``, then biases."""
    xp, p = namespace(X), X.shape[0]
    weights, biases = X[:, : PIXELS * CLASSES].reshape(p, PIXELS, CLASSES), X[:, PIXELS * CLASSES :]
    return xp.matmul(images, weights) + biases[:, None, :]


def softmax_loss(X: Array, rows: Array | None = None) -> Array:
    """Return the ``(p,)`` mean cross-entropies on some training images, or on all.

    Args:
        X: ``(p, 650)`` weights.
        rows: indices of training images.
    """
    xp, (images, labels, _, _) = namespace(X), load_digits()
    chosen = np.arange(len(labels)) if rows is None else to_numpy(rows)
    scores: Any = _scores(X, as_like(images[chosen], X))
    right = scores[:, np.arange(len(chosen)), labels[chosen]]  # (p, n)
    top = xp.max(scores, axis=-1)
    return (xp.log(xp.exp(scores - top[..., None]).sum(-1)) + top - right).mean(-1)


class Softmax(Minibatch):
    """The minibatch losses of the softmax regression, and what weights are worth on images that no solver sees."""

    def __init__(self) -> None:
        super().__init__(softmax_loss, TRAIN, MINIBATCH)

    def exact(self, x: Any) -> float:
        """Return the mean cross-entropy of the weights ``x``, ``(650,)``, on all training images."""
        return float(softmax_loss(x[None])[0])

    def accuracy(self, x: Any) -> float:
        """Return the share of test images that the weights ``x``, ``(650,)``, put into their class."""
        _, _, images, labels = load_digits()
        found = to_numpy(_scores(x[None], as_like(images, x)))[0].argmax(axis=-1)
        return float((found == labels).mean())


def _softmax(cell: Cell) -> Problem:
    fun = Softmax()
    return Problem(
        name=cell.name, space=Free((PIXELS + 1) * CLASSES), fun=fun, x0=np.zeros((PIXELS + 1) * CLASSES),
        measure=fun.exact, noisy=True, group="data", tags=frozenset({"minibatch"}),
        reference="Carrillo et al. 2021, arXiv:1909.09249; digits of scikit-learn",
    )  # fmt: skip


def _build(cell: Cell) -> Problem:
    if cell.function == "softmax":
        return _softmax(cell)
    name = cell.function.rstrip("0123456789")
    d = int(cell.function[len(name) :] or 2)
    functions: dict[str, Callable[[Array], Array]] = {
        "canyon": canyon, "rastrigin": half_rastrigin, "ackley": ackley
    }  # fmt: skip
    starts = {"canyon": 8.0, "rastrigin": 2.0, "ackley": 1.5}
    return Problem(
        name=cell.name, space=Box(np.full(d, -3.0), np.full(d, 3.0)) if name == "ackley" else Free(d),
        fun=functions[name], x0=np.full(d, starts[name]), f_opt=0.0, x_opt=np.zeros(d), vectorized=True,
        group=CONSENSUS.group(cell.function), tags=frozenset({"multimodal"}),
        reference=(functions[name].__doc__ or "").partition("Source: ")[2].strip(),
    )  # fmt: skip


CONSENSUS = Pack(
    name="consensus",
    summary="consensus-based optimisation: a canyon, Rastrigin at half strength, Ackley, softmax of digits",
    groups={
        "canyon": ("canyon",),
        "rastrigin": ("rastrigin2", "rastrigin4", "rastrigin20"),
        "ackley": ("ackley10",),
        "data": ("softmax",),
    },
    build=_build,
)
"""The pack; its functions have one dimension each."""
