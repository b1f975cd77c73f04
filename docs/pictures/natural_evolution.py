"""Draw docs/_static/methods/natural_evolution.png: ellipses of three strategies in a valley, and a collapse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.feedback import Values
from dfo.protocols import Task
from dfo.random import Key
from dfo.spaces import Free

OUT = Path(__file__).parents[1] / "_static" / "methods" / "natural_evolution.png"


def valley(X: np.ndarray) -> np.ndarray:
    """Return a long, tilted valley."""
    return (X[..., 0] + X[..., 1]) ** 2 + 40.0 * (X[..., 0] - X[..., 1]) ** 2


def states(solver: Any, x0: np.ndarray, f: Any, count: int) -> list[Any]:
    """Return the states of ``count`` generations."""
    solver = replace(solver, restarts="none", noisy=True).plan(Task(Free(len(x0)), 10**6))
    found = [solver.init(x0, Key(1))]
    for _ in range(count):
        batch = solver.ask(found[-1])
        found.append(solver.tell(found[-1], batch, Values(f(batch.X))))
    return found


def ellipse(axes: plt.Axes, mean: np.ndarray, A: np.ndarray, color: str) -> None:
    """Draw the points one standard deviation away."""
    angle = np.linspace(0, 2 * np.pi, 90)
    axes.plot(*(mean[:, None] + A @ np.array([np.cos(angle), np.sin(angle)])), color=color, linewidth=0.9)


def draw_valley(axes: plt.Axes, name: str, solver: Any) -> None:
    """Draw the valley, the path of the mean, and the ellipse of every seventh generation."""
    grid = np.stack(np.meshgrid(np.linspace(-2.6, 1.4, 160), np.linspace(-2.6, 1.4, 160)), axis=-1)
    axes.contourf(grid[..., 0], grid[..., 1], np.log(valley(grid) + 0.05), levels=14, cmap="Greys_r")
    path = states(solver, np.array([-1.6, -2.0]), valley, 42)
    for state in path[::7]:
        ellipse(axes, state.mean, state.sigma * state.B if name == "xnes" else np.diag(state.stdev), "C1")
    axes.plot(*np.array([s.mean for s in path]).T, ".-", color="C0", markersize=2, linewidth=0.8)
    axes.plot(0, 0, "*", color="C3", markersize=9)
    axes.set(title=name, xticks=[], yticks=[], xlim=(-2.6, 1.4), ylim=(-2.6, 1.4))


def draw_collapse(axes: plt.Axes) -> None:
    """Draw f of the mean by generation: plain CEM from afar, and with a floor, extra variance, the default."""
    f = lambda X: (X * X).sum(axis=-1)  # noqa: E731
    plain = {"population": 50, "elite": 0.1, "smoothing": 0.0, "smoothing_stdev": 0.0}
    for label, options in (
        ("plain", plain),
        ("floor=0.2", plain | {"floor": 0.2}),
        ("extra=1, fading", plain | {"extra": 1.0, "extra_steps": 100}),
        ("defaults", {"population": 50}),
    ):
        path = states(dfo.CEM(**options), np.full(10, 10.0), f, 200)
        axes.semilogy([f(s.mean) for s in path], label=label, linewidth=1.2)
    axes.set(title="cem from afar, sphere, d=10", xlabel="generations", ylabel="f(mean)")
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    """Draw the picture."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
    draw_valley(axes[0], "snes", dfo.SNES(sigma=0.3, population=12))
    draw_valley(axes[1], "xnes", dfo.XNES(sigma=0.3, population=12))
    draw_collapse(axes[2])
    figure.savefig(OUT, dpi=85)


if __name__ == "__main__":
    main()
