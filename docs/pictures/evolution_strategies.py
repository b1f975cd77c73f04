"""Draw docs/_static/methods/evolution_strategies.png: mirrored pairs, PGPE's cloud, and runs on a sphere."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.feedback import Values
from dfo.protocols import Task
from dfo.random import Key
from dfo.spaces import Free

OUT = Path(__file__).parents[1] / "_static" / "methods" / "evolution_strategies.png"


def valley(X: np.ndarray) -> np.ndarray:
    """Return an ellipse four times as long as wide, upright."""
    return X[:, 0] ** 2 + 16.0 * X[:, 1] ** 2


def states(solver: object, x0: np.ndarray, steps: int, seed: int) -> list:
    """Return the states of a run on the valley."""
    solver = solver.plan(Task(Free(2), steps * solver.population))
    kept = [solver.init(x0, Key(seed))]
    for _ in range(steps):
        batch = solver.ask(kept[-1])
        kept.append(solver.tell(kept[-1], batch, Values(valley(batch.dense()))))
    return kept


def background(axes: plt.Axes, title: str) -> None:
    """Draw the level lines."""
    grid = np.stack(np.meshgrid(np.linspace(-3.4, 1.4, 160), np.linspace(-1.6, 1.9, 160)), axis=-1)
    axes.contour(grid[..., 0], grid[..., 1], valley(grid.reshape(-1, 2)).reshape(160, 160) ** 0.5, 12, colors="0.8")
    axes.plot(0, 0, "*", color="C3", markersize=10)
    axes.set(title=title, xticks=[], yticks=[], aspect="equal")


def draw_pairs(axes: plt.Axes) -> None:
    """Draw mirrored pairs of one generation, the better half of each in colour, and the path of the center."""
    background(axes, "openai-es: mirrored pairs")
    solver, x0 = dfo.OpenAIES(population=12, sigma=0.4), np.array([-2.6, 1.2])
    kept = states(solver, x0, 40, 1)
    X = solver.plan(Task(Free(2), 480)).ask(kept[0]).dense()
    for plus, minus in zip(X[::2], X[1::2], strict=True):
        low, high = (plus, minus) if valley(plus[None])[0] < valley(minus[None])[0] else (minus, plus)
        axes.plot(*np.array([low, high]).T, "-", color="0.6", linewidth=0.8)
        axes.plot(*low, "o", color="C0", markersize=4)
        axes.plot(*high, "o", color="white", markeredgecolor="0.5", markersize=4)
    axes.plot(*np.array([s.x for s in kept]).T, ".-", color="C1", linewidth=1.2, markersize=3)


def draw_cloud(axes: plt.Axes) -> None:
    """Draw the ellipses of PGPE."""
    background(axes, "pgpe: a width for each axis")
    kept = states(dfo.PGPE(population=12, sigma=0.4, lr_sigma=0.4), np.array([-2.6, 1.2]), 90, 1)
    turn = np.linspace(0, 2 * np.pi, 60)
    for s in kept[::15]:
        axes.plot(s.x[0] + s.stdev[0] * np.cos(turn), s.x[1] + s.stdev[1] * np.sin(turn), color="C0", linewidth=1)
    axes.plot(*np.array([s.x for s in kept]).T, "-", color="C1", linewidth=1.2)


def draw_runs(axes: plt.Axes) -> None:
    """Draw the lowest value by evaluation on the sphere in 100 variables."""
    for name in ("openai-es", "pgpe", "ars", "guided-es"):
        res = dfo.minimize(lambda X: (X * X).sum(axis=1), np.ones(100), method=name, budget=20_000, vectorized=True)
        best = np.minimum.accumulate(res.history.fun)
        axes.semilogy(np.arange(len(best))[::50], best[::50], label=name, linewidth=1.3)
    axes.set(title="sphere, 100 variables", xlabel="evaluations", xticks=[0, 10_000, 20_000])
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    """Draw the picture."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.1), layout="constrained")
    draw_pairs(axes[0])
    draw_cloud(axes[1])
    draw_runs(axes[2])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=80)


if __name__ == "__main__":
    main()
