"""How particles move about their consensus point, in place and a tile of the population at a time.

A tile is some whole rows, or a piece of one row, that stays in the cache of a core; entry ``j`` of row ``i`` takes
number ``i d + j`` of the key's stream, so the size of the tiles changes no particle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dfo.arrays import Array, Floats, as_like, is_torch, namespace
from dfo.random import Key, fill_normal
from dfo.spaces import Box, Space

__all__ = ["NOISES", "Forces", "Noise", "fold", "kick", "mix", "move", "norms", "spread", "tiles"]

Noise = Literal["anisotropic", "isotropic", "covariance", "constant"]
NOISES: tuple[Noise, ...] = ("anisotropic", "isotropic", "covariance")

TILE = 1 << 18
"""Numbers in a tile on the host; a device takes the whole population at once."""


@dataclass(frozen=True, eq=False)
class Forces:
    """What moves a particle x with ``D = x - c`` and ``B = x - y``, y its best point: one step of length ``dt``.

    Args:
        pull: share of D that drift leaves: a number, or ``(n,)``.
        gain: ``sigma sqrt(dt)``, the strength of the noise.
        noise: ``"anisotropic"``: ``D * z``; ``"isotropic"``: ``|D| z``; ``"constant"``: ``z`` (consensus hopping).
        limit: bound M on the scale of the noise, or None (Fornasier et al. 2023, arXiv:2310.16610).
        pull_best: share of B that is lost, ``lambda_2 dt``.
        gain_best: ``sigma_2 sqrt(dt)``.
        inertia: m; 0 without velocities.
        dt: of the step, for the velocities.
    """

    pull: float | Floats
    gain: float
    noise: Noise
    limit: float | None = None
    pull_best: float = 0.0
    gain_best: float = 0.0
    inertia: float = 0.0
    dt: float = 1.0


def tiles(X: Array) -> Iterator[tuple[slice, slice, int]]:
    """Yield (rows, columns, index of the first entry in C order) of the tiles of ``X``, ``(n, d)``."""
    n, d = int(X.shape[0]), int(X.shape[1])
    array: Any = X
    most = TILE if not is_torch(X) or array.device.type == "cpu" else n * d
    if d <= most:
        rows = max(1, most // d)
        for i in range(0, n, rows):
            yield slice(i, min(i + rows, n)), slice(0, d), i * d
        return
    for i in range(n):
        for j in range(0, d, most):
            yield slice(i, i + 1), slice(j, min(j + most, d)), i * d + j


def norms(X: Array, c: Array) -> Array:
    """Return ``(n, 1)`` distances of the rows of ``X`` to ``c``, ``(d,)`` or ``(n, d)``."""
    xp = namespace(X)
    sums: Any = xp.zeros((X.shape[0], 1), dtype=X.dtype, device=X.device)
    for rows, columns, _ in tiles(X):
        D = X[rows, columns] - _part(c, rows, columns)
        sums[rows] += xp.vecdot(D, D)[:, None]
    distances: Array = xp.sqrt(sums)
    return distances


def spread(X: Array, c: Array, enough: float = np.inf) -> float:
    """Return the largest distance of a coordinate of ``X`` to ``c``; the search ends at the first above ``enough``."""
    widest = 0.0
    for rows, columns, _ in tiles(X):
        widest = max(widest, float(abs(X[rows, columns] - _part(c, rows, columns)).max()))
        if widest > enough:
            break
    return widest


def move(
    X: Array, c: Array, forces: Forces, key: Key, best: Array | None = None, velocity: Array | None = None
) -> None:
    """Move the rows of ``X`` in place by one step (algorithm: Carrillo et al. 2021, eq. 2.8, with the options).

    Without inertia ``x += -lambda dt D + gain S(D) z [- lambda_2 dt B + gain_2 S(B) z']``. With inertia the
    same force F moves the velocity, friction ``1 - m`` taken implicitly: ``m (v' - v) = -(1 - m) v' dt + F``, so
    ``v' = (m v + F) / (m + (1 - m) dt)`` and ``x += dt v'``; m = 0 is the step without.

    Args:
        X: ``(n, d)``.
        c: ``(d,)``, or ``(n, d)`` one for each particle.
        forces: their strengths.
        key: of the noise.
        best: ``(n, d)`` best points of the particles, or None.
        velocity: ``(n, d)``, moved in place; or None.
    """
    pull: Any = forces.pull if isinstance(forces.pull, float) else as_like(forces.pull, X)[:, None]
    plain = best is None and velocity is None
    scale = _scales(X, c, forces)
    scale_best = None if best is None else _scales(X, best, forces)
    draws, others = _Draws(X), None if best is None else _Draws(X)
    for rows, columns, start in tiles(X):
        x: Any = X[rows, columns]
        center = _part(c, rows, columns)
        kept = pull if isinstance(pull, float) else pull[rows]
        if plain and kept is pull and pull == 0.0 and forces.noise != "anisotropic":  # c + scale z
            fill_normal(x, key, start)
            x *= forces.gain * _amplitude(x, scale, rows, forces)
            x += center
            continue
        z = draws.like(x, key, start)
        if plain and forces.noise == "anisotropic" and forces.limit is None:  # c + D (pull + gain z)
            _stretch(x, center, kept, forces.gain, z)
            _tame(x)
            continue
        D = x - center
        z *= _amplitude(D, scale, rows, forces)
        z *= forces.gain
        if plain:
            x -= (1.0 - kept) * D
            x += z
            _tame(x)
            continue
        z -= (1.0 - kept) * D
        if best is not None and others is not None:
            B = x - best[rows, columns]
            other = others.like(x, key.child("best"), start)
            other *= _amplitude(B, scale_best, rows, forces)
            z += forces.gain_best * other - forces.pull_best * B
        if velocity is not None:
            z = _accelerated(velocity[rows, columns], z, forces)
        x += z
        _tame(x)


def _stretch(x: Any, center: Any, kept: Any, gain: float, z: Any) -> None:
    """Replace ``x`` by ``center + (x - center) (kept + gain z)`` in place; ``z`` is used up."""
    x -= center
    if is_torch(x) and gain > 0.0:
        z += kept / gain
        namespace(x).addcmul(center, x, z, value=gain, out=x)
        return
    z *= gain
    z += kept
    x *= z
    x += center


def _accelerated(v: Any, force: Any, forces: Forces) -> Any:
    """Move the velocities ``v`` in place and return the step of the particles."""
    m = forces.inertia
    v *= m
    v += force
    v /= m + (1.0 - m) * forces.dt
    _tame(v)
    return forces.dt * v


def _tame(x: Any) -> None:
    """Keep numbers so small, in place, that squares of distances can be taken."""
    if is_torch(x):
        most = 1e100 if x.element_size() == 8 else 1e4 if str(x.dtype).endswith("float16") else 1e15
        x.clamp_(-most, most)
    else:
        most = 1e100 if x.dtype.itemsize == 8 else 1e15 if x.dtype.itemsize == 4 else 1e2
        np.clip(x, -most, most, out=x)


def _part(c: Any, rows: slice, columns: slice) -> Any:
    return c[columns] if c.ndim == 1 else c[rows, columns]


class _Draws:
    """Normal numbers in one buffer, which the next draw overwrites."""

    def __init__(self, X: Any) -> None:
        most = max((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns, _ in tiles(X))
        self.buffer: Any = namespace(X).empty((most,), dtype=X.dtype, device=X.device)

    def like(self, x: Any, key: Key, start: int) -> Any:
        """Return numbers ``start ..`` of a stream, in the shape of ``x``."""
        return fill_normal(self.buffer[: x.shape[0] * x.shape[1]].reshape(tuple(x.shape)), key, start)


def _scales(X: Array, c: Array, forces: Forces) -> Any:
    """Return ``(n, 1)`` scales of the isotropic noise, or None."""
    if forces.noise != "isotropic":
        return None
    distances = norms(X, c)
    return distances if forces.limit is None else namespace(X).clip(distances, None, forces.limit)


def _amplitude(D: Any, scale: Any, rows: slice, forces: Forces) -> Any:
    if forces.noise == "constant":
        return 1.0
    if scale is not None:
        return scale[rows]
    return D if forces.limit is None else namespace(D).clip(D, -forces.limit, forces.limit)


def mix(X: Array, c: Array, A: Array) -> None:
    """Replace the rows of ``X - c`` by ``A @ (X - c)`` in place, some columns at a time; ``A`` is ``(n, n)``.

    With ``A = pull I + gain Z diag(sqrt w)``, Z standard normal, this is drift with noise ``gain C^1/2 z`` for the
    weighted covariance ``C = sum_j w_j D_j D_j^T``, exactly and without a matrix of d x d.
    """
    n, d = int(X.shape[0]), int(X.shape[1])
    width = max(1, 2 * TILE // n)
    for at in range(0, d, width):
        columns = slice(at, min(at + width, d))
        center = c[columns]
        X[:, columns] = center + A @ (X[:, columns] - center)


def kick(X: Array, amount: float, key: Key) -> None:
    """Add ``amount`` times standard normal numbers to ``X`` in place."""
    draws = _Draws(X)
    for rows, columns, start in tiles(X):
        x: Any = X[rows, columns]
        z = draws.like(x, key, start)
        z *= amount
        x += z


def fold(space: Space | None, X: Array) -> None:
    """Mirror the rows of ``X`` at the bounds of a box into it, in place; project them into any other set.

    A clipped coordinate of many particles would agree with that of the consensus point, where anisotropic
    noise is 0, and stay at the bound for good; mirrored ones differ.
    """
    if isinstance(space, Box):
        _fold_box(space, X)
    elif space is not None and hasattr(space, "project"):
        X[...] = as_like(space.project(X), X)


def _fold_box(box: Box, X: Array) -> None:
    xp = namespace(X)
    low = as_like(np.where(box.bounded, box.lower, 0.0), X)
    period = as_like(np.where(box.bounded, 2.0 * (box.upper - box.lower), 1.0), X)
    lower, upper = as_like(box.lower, X), as_like(box.upper, X)
    safe = xp.where(period > 0, period, xp.ones_like(period))
    two_sided = bool(box.bounded.all())
    flags: Any = xp.asarray(box.bounded) if not is_torch(X) else as_like(box.bounded.astype(float), X) > 0
    for rows, columns, _ in tiles(X):
        x: Any = X[rows, columns]
        bottom, top = lower[columns], upper[columns]
        t = xp.remainder(x - low[columns], safe[columns])
        t = low[columns] + xp.where(2.0 * t > period[columns], period[columns] - t, t)
        if not two_sided:
            once = xp.where(x < bottom, 2.0 * bottom - x, xp.where(x > top, 2.0 * top - x, x))
            t = xp.where(flags[columns], t, once)
        x[...] = xp.clip(t, bottom, top)
