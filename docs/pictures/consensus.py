"""Draw docs/_static/methods/consensus.png: the canyon with the path of the consensus point, and Rastrigin by noise."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.feedback import Values
from dfo.random import Key, normal

OUT = Path(__file__).parents[1] / "_static" / "methods" / "consensus.png"
PACK = dfo.bench.packs()["consensus"]


def path(solver: dfo.CBO, f: object, X: np.ndarray, steps: int, key: Key) -> np.ndarray:
    """Return the consensus points of a run from the particles ``X``."""
    state, points = replace(solver.init(X[0], key), X=X), []
    for _ in range(steps):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values(f(batch.dense())))
        points.append(state.c)
    return np.array(points)


def draw_canyon(axes: plt.Axes) -> None:
    """Draw the landscape, the path of the consensus point and that of gradient descent."""
    f = PACK.make("consensus-canyon").fun
    grid = np.stack(np.meshgrid(np.linspace(-1.5, 10, 220), np.linspace(-1.5, 10, 220)), axis=-1)
    axes.contourf(grid[..., 0], grid[..., 1], f(grid.reshape(-1, 2)).reshape(220, 220), levels=14, cmap="Greys_r")
    key = Key(3)
    X = 8.0 + 0.5 * normal(key.child("start"), (200, 2))
    solver = dfo.CBO(population=200, noise="isotropic", sigma=1.6, dt=0.01, alpha=100.0, restarts="none")
    points = path(solver, f, X, 250, key)
    axes.plot(*X.T, ".", color="C0", markersize=2)
    axes.plot(*points.T, "-", color="C1", linewidth=1.5, label="consensus point, 250 steps")
    x, walk, e = np.array([8.0, 8.0]), [], 1e-5 * np.eye(2)
    for _ in range(4000):
        x = x - 1e-3 * (f(x + e) - f(x - e)) / 2e-5
        walk.append(x)
    axes.plot(*np.array(walk).T, "-", color="C2", linewidth=1.5, label="gradient descent")
    axes.plot(*walk[-1], "o", color="C2", markersize=4)
    axes.plot(0, 0, "*", color="C3", markersize=10)
    axes.set(title="a canyon with ripples", xticks=[], yticks=[])
    axes.legend(frameon=True, loc="lower right", fontsize=8)


def draw_rastrigin(axes: plt.Axes) -> None:
    """Draw the distance of the consensus point to the minimiser by step, for three strengths of noise."""
    f = PACK.make("consensus-rastrigin20").fun
    for sigma, color in ((8.0, "C1"), (5.1, "C2"), (3.0, "C0")):
        for seed in range(4):
            key = Key(seed, ("picture",))
            X = 2.0 + 4.0 * normal(key.child("start"), (100, 20))
            solver = dfo.CBO(population=100, sigma=sigma, dt=0.01, alpha=100.0, noise="anisotropic", restarts="none")
            far = np.abs(path(solver, f, X, 1500, key)).max(axis=1)
            label = rf"$\sigma = {sigma:g}$" if seed == 0 else None
            axes.semilogy(np.arange(1500), far, color=color, linewidth=1, label=label)
    axes.set(title="Rastrigin, 20 variables", xlabel="step", ylabel=r"$\max_k |c_k - x^*_k|$")
    axes.legend(frameon=False)


def main() -> None:
    """Draw the figure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    draw_canyon(left)
    draw_rastrigin(right)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=85)


if __name__ == "__main__":
    main()
