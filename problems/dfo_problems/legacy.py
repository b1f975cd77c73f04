"""The random numbers of BBOB 2009, as far as they are needed to know what COCO keeps to itself.

COCO hides the minimiser of a constrained problem, and three of its noisy functions have no noise-free
twin. Both are functions of a seed through the generator that all of its suites share, which is written
here after ``suite_bbob_legacy_code.c`` of coco-experiment. Numbers are equal to COCO's to the last bit,
sums to rounding; the tests hold both against COCO itself.

Source: Hansen, Finck, Ros and Auger (2009), Real-Parameter Black-Box Optimization Benchmarking 2009:
Noiseless Functions Definitions, INRIA RR-6829, and its reference code.
"""

from __future__ import annotations

import math

import numpy as np

from dfo.arrays import Floats

__all__ = ["minimiser", "normals", "oscillated", "rotation", "uniforms"]

_MODULUS = 2**31 - 1


def _advanced(state: int) -> int:
    """One step of the minimal standard generator, 16807 s mod (2^31 - 1), by Schrage's division."""
    quotient = state // 127773
    state = 16807 * (state - quotient * 127773) - 2836 * quotient
    return state + _MODULUS if state < 0 else state


def uniforms(count: int, seed: int) -> Floats:
    """Return ``(count,)`` uniform numbers in (0, 1): Park and Miller's generator, Bays-Durham shuffled."""
    state = max(abs(seed), 1)
    shuffle = [0] * 32
    for i in range(39, -1, -1):
        state = _advanced(state)
        if i < 32:
            shuffle[i] = state
    drawn = shuffle[0]
    out = np.empty(count)
    for i in range(count):
        state = _advanced(state)
        slot = drawn // 67108865
        drawn, shuffle[slot] = shuffle[slot], state
        out[i] = drawn / _MODULUS
    return np.where(out == 0.0, 1e-99, out)


def normals(count: int, seed: int) -> Floats:
    """Return ``(count,)`` standard normal numbers, by Box and Muller's transform."""
    u = uniforms(2 * count, seed)
    z = np.sqrt(-2.0 * np.log(u[:count])) * np.cos(2.0 * math.pi * u[count:])
    return np.where(z == 0.0, 1e-99, z)


def minimiser(dim: int, seed: int) -> Floats:
    """Return the ``(d,)`` place of a minimum: uniform on a grid of width 0.0008 in [-4, 4), never 0."""
    x = 8.0 * np.floor(1e4 * uniforms(dim, seed)) / 1e4 - 4.0
    return np.where(x == 0.0, -1e-5, x)


def rotation(dim: int, seed: int) -> Floats:
    """Return the ``(d, d)`` rotation: a normal matrix, its columns made orthonormal by Gram and Schmidt."""
    B = normals(dim * dim, seed).reshape(dim, dim).T.copy()  # COCO fills column by column
    for i in range(dim):
        for j in range(i):
            B[:, i] -= (B[:, i] @ B[:, j]) * B[:, j]
        B[:, i] /= math.sqrt(B[:, i] @ B[:, i])
    return B


def oscillated(z: Floats) -> Floats:
    """Return ``T_osz(z)``: smooth, monotonous ripples that keep the sign; RR-6829, section 0.2.

    ``T_osz(z) = sign(z) exp(l + 0.049 (sin(c1 l) + sin(c2 l)))`` with ``l = log|z|``, ``(c1, c2)`` =
    (10, 7.9) for z > 0 and (5.5, 3.1) for z < 0.
    """
    size = np.where(z == 0.0, 1.0, np.abs(z))
    up = z > 0.0
    log = np.log(size)
    ripple = np.sin(np.where(up, 10.0, 5.5) * log) + np.sin(np.where(up, 7.9, 3.1) * log)
    moved: Floats = np.sign(z) * np.exp(log + 0.049 * ripple)
    return moved
