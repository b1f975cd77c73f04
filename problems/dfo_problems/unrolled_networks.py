"""Inner problems that are networks: a training with these hyper-parameters, a recurrence with these weights.

All of them run many lanes at once in numpy: arrays carry a leading lane axis ``n``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.arrays import Array, Floats
from dfo.oracles.lanes import Draws
from dfo_problems.digits import load_digits

__all__ = ["Copying", "Layered", "Scheduled", "Training"]

Rates = Callable[[Floats, Floats], tuple[Any, Any, Any]]


class Training:
    """Training of ReLU networks on the digits by gradient descent with momentum: ``v <- m v + g``, ``w <- w - r v``.

    The loss of a step is the cross-entropy of its minibatch before the step, in nats. Data numbers draw the initial
    weights (of variance 2 over the inputs) and the minibatches. States are single precision.

    Args:
        hidden: units of the hidden layers.
        rates: ``(theta (n, d), t (n,)) -> (r, m, width)``: step size and momentum ``(n, 2 layers)`` of the weights and
            biases of each layer, and the units ``(n, hidden layers)`` in use, or None for all.
        batch: images of a minibatch.
    """

    def __init__(self, hidden: Sequence[int], rates: Rates, batch: int) -> None:
        self.sizes, self.rates, self.batch = (64, *hidden, 10), rates, batch

    def reset(self, data: Draws) -> tuple[Any, ...]:
        """Return initial weights and velocities: ``(W_1, b_1, W_2, ..., velocities in the same order)``."""
        pairs = list(itertools.pairwise(self.sizes))
        like = np.empty(0, np.float32)
        drawn: Any = data.normal((sum(a * b for a, b in pairs),), like)  # (n, all weights)
        n, at, weights = len(drawn), 0, []
        for a, b in pairs:
            weights.append(drawn[:, at : at + a * b].reshape(n, a, b) * np.float32((2 / a) ** 0.5))
            weights.append(np.zeros((n, b), np.float32))
            at += a * b
        return (*weights, *(np.zeros_like(w) for w in weights))

    def step(self, theta: Floats, state: tuple[Any, ...], t: Any, data: Draws) -> tuple[Any, Floats]:
        """Take one step of every training."""
        images, labels, _, _ = load_digits()
        rows = data.integers(len(images), (self.batch,))  # (n, batch)
        half = len(state) // 2
        weights, velocity = state[:half], state[half:]
        with np.errstate(all="ignore"):  # trainings with wild rates overflow, and are clamped
            r, m, width = self.rates(np.asarray(theta, dtype=float), np.asarray(t))
            hidden = enumerate(self.sizes[1:-1])
            masks = None if width is None else [np.arange(h) < width[:, i, None] for i, h in hidden]
            loss, gradient = _cross_entropy(weights, images[rows].astype(np.float32), labels[rows], masks)
            moved, pushed = [], []
            for i, (w, v, g) in enumerate(zip(weights, velocity, gradient, strict=True)):
                lanes = (-1, *(1,) * (w.ndim - 1))
                v = m[:, i].astype(np.float32).reshape(lanes) * v + g
                moved.append(w - r[:, i].astype(np.float32).reshape(lanes) * v)
                pushed.append(v)
        return (*moved, *pushed), loss


def _cross_entropy(
    weights: Sequence[Any], x: Any, labels: Any, masks: Sequence[Any] | None
) -> tuple[Floats, list[Any]]:
    """Return ``(n,)`` mean cross-entropies and the gradients of the weights, by back-propagation."""
    layers, active = len(weights) // 2, [x]
    for i in range(layers):
        z = active[-1] @ weights[2 * i] + weights[2 * i + 1][:, None, :]  # (n, batch, units)
        if i < layers - 1:
            np.maximum(z, 0.0, out=z)
            if masks is not None:
                z *= masks[i][:, None, :]
        active.append(z)
    scores = active.pop()
    scores = scores - scores.max(axis=2, keepdims=True)
    share = np.exp(scores)
    total = share.sum(axis=2, keepdims=True)
    n, batch = labels.shape
    lane, row = np.arange(n)[:, None], np.arange(batch)
    loss = (np.log(total[:, :, 0]) - scores[lane, row, labels]).mean(axis=1)
    back = share / total
    back[lane, row, labels] -= 1.0
    back /= np.float32(batch)
    gradient: list[Any] = []
    for i in reversed(range(layers)):
        gradient = [active[i].transpose(0, 2, 1) @ back, back.sum(axis=1), *gradient]
        if i:
            back = (back @ weights[2 * i].transpose(0, 2, 1)) * (active[i] > 0)
    return loss.astype(float), gradient


@dataclass(frozen=True)
class Scheduled:
    """The rates of ``theta = (ln r_0, ln p)``: ``r_t = r_0 / (1 + t / horizon)^p`` for all, momentum 0.9."""

    horizon: int

    def __call__(self, theta: Floats, t: Floats) -> tuple[Any, Any, Any]:
        """Return step sizes, momenta, and no widths."""
        r = np.exp(theta[:, 0]) / (1.0 + t / self.horizon) ** np.exp(theta[:, 1])
        return np.repeat(r[:, None], 99, axis=1), np.full((len(theta), 99), 0.9), None


@dataclass(frozen=True)
class Layered:
    """The rates of ``5 h + 4`` numbers for the ``h`` hidden layers of a network.

    For the weights and biases of each of the ``h + 1`` layers: logarithms of the step sizes, then momenta through a
    logistic function; then, through one too, the share of each hidden layer's units in use, rounded up.
    """

    hidden: tuple[int, ...]

    def __call__(self, theta: Floats, t: Floats) -> tuple[Any, Any, Any]:
        """Return step sizes, momenta and widths."""
        blocks = 2 * (len(self.hidden) + 1)
        squeezed = 1.0 / (1.0 + np.exp(-theta[:, blocks:]))
        width = np.ceil(squeezed[:, blocks:] * np.array(self.hidden))
        return np.exp(theta[:, :blocks]), squeezed[:, :blocks], width


class Copying:
    """A recurrent network, ``theta``, sees ``length`` bits and has to say them again; losses in bits, a mean in all.

    ``h <- tanh(A h + B x + c)`` with inputs (bit, whether to speak); the chance of a 1 is a logistic function
    of ``a h + b``. Data numbers draw the ``batch`` patterns of an episode of ``2 length`` steps.

    Args:
        units: of the hidden layer.
        length: bits of a pattern.
        batch: patterns at once.
    """

    def __init__(self, units: int, length: int, batch: int) -> None:
        self.units, self.length, self.batch = units, length, batch
        self.dim = units * units + 4 * units + 1

    def reset(self, data: Draws) -> tuple[Any, Any]:
        """Return hidden states of zero, and the patterns."""
        bits = data.integers(2, (self.batch, self.length))  # (n, batch, length)
        return np.zeros((len(bits), self.batch, self.units)), bits

    def step(self, theta: Array, state: tuple[Any, Any], t: Any, data: Draws) -> tuple[Any, Floats]:
        """Read a bit, or say one."""
        (h, bits), n, u = state, len(theta), self.units
        speak = t >= self.length  # (n,)
        bit = bits[np.arange(n), :, t % self.length]  # (n, batch)
        at = np.cumsum([u * u, u, u, u, u])
        recur, read, told, bias, out = (part for part in np.split(theta[:, : at[-1]], at[:-1], axis=1))
        told_now = (told * speak[:, None] + bias)[:, None, :]
        seen = np.where(speak[:, None], 0.0, 2.0 * bit - 1.0)
        h = np.tanh(h @ recur.reshape(n, u, u) + seen[:, :, None] * read[:, None, :] + told_now)
        score = (h * out[:, None, :]).sum(axis=2) + theta[:, -1:]
        loss = np.logaddexp(0.0, np.where(bit == 1, -score, score)).mean(axis=1) / np.log(2.0)
        return (h, bits), np.where(speak, loss / self.length, 0.0)
