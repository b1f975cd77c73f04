"""Draw docs/_static/methods/ranking.png: a ranking and its direction, and runs by exact, partial and human ones."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.bench.measures.zo_rank_sgd import quadratic
from dfo.feedback import Values
from dfo.random import Key, normal

OUT = Path(__file__).parents[1] / "_static" / "methods" / "ranking.png"


def bowl(X: np.ndarray) -> np.ndarray:
    """Return the values of a tilted valley in two variables."""
    return (X[..., 0] - X[..., 1]) ** 2 + 0.3 * (X[..., 0] + X[..., 1]) ** 2


def draw_ranking(axes: plt.Axes) -> None:
    """Draw eight points by rank, the direction that they give, and the steps along it that are ranked next."""
    grid = np.stack(np.meshgrid(np.linspace(-1.6, 2.6, 200), np.linspace(-1.6, 2.0, 200)), axis=-1)
    axes.contour(grid[..., 0], grid[..., 1], bowl(grid), levels=np.geomspace(0.05, 10, 9), colors="lightgray")
    solver = dfo.ZORankSGD(population=8, radius=0.45, lr=2.0, shrink=0.6)
    state = solver.init(np.array([1.6, 0.9]), Key(101))
    batch = solver.ask(state)
    told = Values(bowl(batch.dense())).ranking()
    state = solver.tell(state, batch, told)
    for x, rank in zip(batch.dense(), told.rank, strict=True):
        axes.text(*x, f"{rank + 1:.0f}", ha="center", va="center", color="C0")
    steps = solver.ask(state).dense()
    axes.plot(*steps.T, "-", color="C1", linewidth=1)
    axes.plot(*steps[1:].T, "o", color="C1", markersize=4, label="steps to rank next")
    axes.plot(*steps[0], "k.", markersize=10, label="current point")
    axes.set(title="eight points, ranked, and the direction of descent", xticks=[], yticks=[])
    axes.legend(frameon=False, loc="lower right")


def draw_runs(axes: plt.Axes, seeds: int = 9) -> None:
    """Draw f/f0 by points shown, for the judges of the pack."""
    at = np.arange(0, 1601, 20)
    for method, kind, label in (
        ("zo-rank-sgd", "exact", "zo-rank-sgd"), ("zo-rank-sgd", "top3", "best three of eight named"),
        ("zo-rank-sgd", "human", "a person"), ("gld", "exact", "GLD-Fast"),
    ):  # fmt: skip
        curves = []
        for seed in range(seeds):
            problem = dfo.bench.make(f"ranking-{kind}-quadratic-i01-d10")
            x0, path = normal(Key(seed, ("start",)), (10,)), [(0, 1.0)]
            f0 = float(quadratic(x0[None])[0])

            def look(p: dfo.Progress, path: list = path, f0: float = f0) -> None:
                path.append((p.nfev, float(quadratic(p.recommended()[None])[0]) / f0))

            noise = dfo.HumanNoise(f0 / 8) if kind == "human" else None
            oracle = dfo.RankOracle.of(quadratic, noise=noise, skip=0.1 * (kind == "human"), vectorized=True)
            oracle = problem.fun if kind == "top3" else oracle
            dfo.minimize(oracle, x0, method=method, budget=1600, seed=seed, callback=look)
            count, value = np.array(path).T
            curves.append(value[np.searchsorted(count, at, side="right") - 1])
        axes.semilogy(at, np.median(curves, axis=0), label=label)
    axes.set(xlabel="points shown, at most eight at a time", title="f / f$_0$, $|x|^2$, ten variables", ylim=(1e-12, 2))
    axes.legend(frameon=False, loc="lower left")


def main() -> None:
    """Measure and draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    draw_ranking(left)
    draw_runs(right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=90)


if __name__ == "__main__":
    main()
