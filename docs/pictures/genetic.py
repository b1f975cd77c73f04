"""Draw docs/_static/methods/genetic.png: the maze walked for reward and for novelty, and the error of XOR networks."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.bench.measures.genetic import deep_ga, evolved
from dfo.random import Key
from dfo_problems.deceptive import GOAL, START, WALLS, walk, xor_error

OUT = Path(__file__).parents[1] / "_static" / "methods" / "genetic.png"


def draw_maze(axes: plt.Axes, title: str, method: str) -> None:
    """Draw where all walks of a run ended, and the walk of the best network."""
    ends: list[np.ndarray] = []

    def look(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, places = walk(X)
        ends.append(places)
        return values, places

    res = dfo.minimize(
        dfo.Behaviour(look, vectorized=True), np.zeros(22), method=method, options={"sigma": 0.3, "spread": 1.0},
        budget=10_000, seed=0, stop=dfo.Target(0.1),
    )  # fmt: skip
    places = np.concatenate(ends)
    axes.plot(*places[::4].T, ".", color="C0", markersize=1.5, alpha=0.5, rasterized=True)
    axes.plot(*walk(res.x[None], path=True)[:, 0].T, color="C1", linewidth=1.5)
    for left, right, y in WALLS["across"]:
        axes.plot([left, right], [y, y], "k", linewidth=2)
    for x, low, high in WALLS["up"]:
        axes.plot([x, x], [low, high], "k", linewidth=2)
    axes.plot(*START, "ko", markersize=5)
    axes.plot(*GOAL, "*", color="C3", markersize=12)
    axes.set(title=f"{title}, {len(places)} walks", xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xticks=[], yticks=[])
    axes.set_aspect("equal")


def draw_xor(axes: plt.Axes) -> None:
    """Draw the elite's error by generation for ten seeds."""
    for seed in range(10):
        states = evolved(deep_ga(13, sigma=0.1, spread=1.0), xor_error, np.zeros(13), Key(seed), 30)
        axes.semilogy([s.merits[0] for s in states[1:]], color="C0", linewidth=0.8)
    axes.axhline(0.01, color="k", linewidth=0.8, linestyle=":")
    axes.set(title="XOR, deep-ga, ten seeds", xlabel="generation", ylabel="error of the elite")


def main() -> None:
    """Draw the three panels."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
    draw_maze(left, "led by reward", "deep-ga")
    draw_maze(middle, "led by novelty", "novelty")
    draw_xor(right)
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=90, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
