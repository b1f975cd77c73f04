"""Problems whose slope leads into a trap, and the network on which genetic algorithms were first tried.

=================  ==========================================================================================
``maze``           a walker who starts in a pocket, a wall like a U upside down, behind whose bottom is the goal
``trap``           strings of 30 bits: the count of ones leads away from the optimum, in blocks of five
``trap-integers``  the same as integers in a box
``xor``            weights of a 2-3-1 network of tanh units that learns the exclusive or
=================  ==========================================================================================

The maze's objective is an oracle of values and behaviours (:class:`dfo.Behaviour`): the behaviour is where the walker
ends. A walker that closes in on the goal ends at the bottom of the pocket, 0.2 from the goal; the way there leads
down, out and around, and nothing on it is as near until the walker stands above the wall.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dfo.arrays import Array, Floats, namespace, to_numpy
from dfo.oracles.behaviour import Behaviour
from dfo.protocols import Problem
from dfo.spaces import Box, Free, Text
from dfo_problems.pack import Cell, Pack

__all__ = ["DECEPTIVE", "GOAL", "POCKET", "REACHED", "START", "WALLS", "trap", "walk", "xor_error"]

START, GOAL = (0.0, 0.0), (0.0, 0.5)
POCKET = 0.3
"""Height of the bottom of the pocket, which is a wall between start and goal."""

WALLS = {"across": ((-0.6, 0.6, POCKET),), "up": ((-0.6, -0.6, POCKET), (0.6, -0.6, POCKET))}
"""The U: pieces ``(from x, to x, y)`` stop steps up and down, pieces ``(x, from y, to y)`` those sideways."""

STEPS, PACE, HIDDEN = 60, 0.06, 4
WEIGHTS = 3 * HIDDEN + 2 * HIDDEN + 2
REACHED = 0.15
"""Distance from which the goal counts as reached."""


def walk(X: Array, path: bool = False) -> Any:
    """Return the distance to the goal and the place at the end of the walk, ``(n,)`` and ``(n, 2)``.

    A network of four tanh units sees the place and answers with a step of at most ``PACE`` in each coordinate. Walls
    and the rim of the arena, the square from -1 to 1, stop the part of a step that would cross them.

    Args:
        X: ``(n, 22)`` weights.
        path: return the places of all steps instead, ``(STEPS + 1, n, 2)``.
    """
    W = np.asarray(to_numpy(X), dtype=float)
    inner = W[:, : 3 * HIDDEN].reshape(-1, 3, HIDDEN)
    outer, shift = W[:, 3 * HIDDEN : 5 * HIDDEN].reshape(-1, HIDDEN, 2), W[:, 5 * HIDDEN :]
    at = np.tile(START, (len(W), 1))
    places = [at]
    for _ in range(STEPS):
        seen = np.concatenate([at, np.ones((len(W), 1))], axis=1)[:, None]  # (n, 1, 3)
        step = PACE * np.tanh((np.tanh(seen @ inner) @ outer)[:, 0] + shift)
        at = _moved(at, step)
        places.append(at)
    if path:
        return np.stack(places)
    return np.sqrt(((at - GOAL) ** 2).sum(axis=1)), at


def _moved(at: Floats, step: Floats) -> Floats:
    """Return where a step leads: sideways first, then up or down; a part that would cross a wall is not taken."""
    x, y = at[:, 0], at[:, 1]
    to = np.clip(x + step[:, 0], -1.0, 1.0)
    for wall, low, high in WALLS["up"]:
        to = np.where(((x < wall) != (to < wall)) & (y >= low) & (y <= high), x, to)
    up = np.clip(y + step[:, 1], -1.0, 1.0)
    for left, right, wall in WALLS["across"]:
        up = np.where(((y < wall) != (up < wall)) & (to >= left) & (to <= right), y, up)
    return np.stack([to, up], axis=1)


def _distance(x: Any) -> float:
    return float(walk(np.asarray(to_numpy(x))[None])[0][0])


INPUTS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
ANSWERS = np.array([0.0, 1.0, 1.0, 0.0])


def xor_error(X: Array) -> Any:
    """Return ``(n,)`` mean squared errors of networks 2-3-1 of tanh units, ``(n, 13)`` weights each."""
    xp, W = namespace(X), _any(X)
    inputs = xp.asarray(INPUTS, dtype=W.dtype, device=W.device)
    answers = xp.asarray(ANSWERS, dtype=W.dtype, device=W.device)
    hidden = xp.tanh(inputs @ W[:, :6].reshape(-1, 2, 3) + W[:, None, 6:9])  # (n, 4, 3)
    outputs = xp.tanh((hidden @ W[:, 9:12, None])[:, :, 0] + W[:, 12:])  # (n, 4)
    return ((outputs - answers) ** 2).mean(axis=1)


def _any(x: Any) -> Any:
    return x


BITS, BLOCK = 30, 5


def trap(bits: Any) -> float:
    """Return minus the sum over blocks of five bits of 5 for five ones, else of 4 less the number of ones.

    Reference: Deb and Goldberg 1993, "Analyzing deception in trap functions", FOGA 2.
    """
    ones = np.array([float(b) for b in bits]).reshape(-1, BLOCK).sum(axis=1)
    return -float(np.where(ones == BLOCK, BLOCK, BLOCK - 1 - ones).sum())


def _trap_of_text(x: str) -> float:
    return trap(x)


def _trap_of_integers(x: Any) -> float:
    return trap(np.rint(to_numpy(x)))


def _build(cell: Cell) -> Problem:
    about: dict[str, dict[str, Any]] = {
        "maze": {
            "space": Free(WEIGHTS),
            "fun": Behaviour(walk, vectorized=True),
            "x0": np.zeros(WEIGHTS),
            "measure": _distance,
            "reference": "own; after Lehman and Stanley 2011, and Conti et al. 2018, arXiv:1712.06560, section 4.1",
        },
        "trap": {
            "space": Text("01", BITS),
            "fun": _trap_of_text,
            "x0": "01" * (BITS // 2),
            "f_opt": -float(BITS),
            "x_opt": "1" * BITS,
            "reference": "Deb and Goldberg 1993, FOGA 2",
        },
        "trap-integers": {
            "space": Box(np.zeros(BITS), np.ones(BITS), np.ones(BITS, bool)),
            "fun": _trap_of_integers,
            "x0": np.arange(BITS) % 2.0,
            "f_opt": -float(BITS),
            "x_opt": np.ones(BITS),
            "reference": "Deb and Goldberg 1993, FOGA 2",
        },
        "xor": {
            "space": Free(13),
            "fun": xor_error,
            "x0": np.zeros(13),
            "vectorized": True,
            "reference": "Such et al. 2017, arXiv:1712.06567, for the algorithm; the network is the textbook one",
        },
    }
    return Problem(
        name=cell.name,
        group=DECEPTIVE.group(cell.function),
        tags=frozenset({"deceptive"} - ({"deceptive"} if cell.function == "xor" else set())),
        **about[cell.function],
    )


DECEPTIVE = Pack(
    name="deceptive",
    summary="slopes that lead into traps: a maze with a pocket, trap functions; and the XOR network",
    groups={"maze": ("maze",), "bits": ("trap", "trap-integers"), "network": ("xor",)},
    build=_build,
)
"""The pack of traps."""
