"""Draw docs/_static/methods/nonsmooth.png: accuracy by depth for AC-SA, and a game on the simplex by geometry."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.bench.measures.nonsmooth import kinked
from dfo.bench.measures.zo_sgd import game
from dfo.feedback import Values
from dfo.random import Key

OUT = Path(__file__).parents[1] / "_static" / "methods" / "nonsmooth.png"
CALLS = 8000


def draw_depth(axes: plt.Axes, seeds: int = 3) -> None:
    """Draw the value by sequential steps, at equal calls."""
    told = {"eps": 0.05, "lipschitz": 1.0, "distance": 1.0, "rounds": 1}
    radius = 0.025 / np.sqrt(20)
    for label, pairs in (("one pair at a time, averaged", 0), ("AC-SA, B = 1", 1), ("AC-SA, B = 20", 20)):
        steps = CALLS // (2 * max(pairs, 1))
        solver = dfo.ACSA(samples=pairs, steps=steps, **told) if pairs else dfo.ZOSGD(
            lr=(20 * steps) ** -0.5, samples=1, radius=radius
        )  # fmt: skip
        curves = []
        for seed in range(seeds):
            f, state = kinked("l2", 20, seed), solver.init(np.zeros(20), Key(seed))
            total, curve = np.zeros(20), []
            for k in range(steps):
                batch = solver.ask(state)
                state = solver.tell(state, batch, Values(f(batch.dense())))
                total = total + state.x
                curve.append(f((state.ag if pairs else total / (k + 1))[None])[0])
            curves.append(curve)
        axes.loglog(range(1, steps + 1), np.mean(curves, axis=0), label=label)
    axes.set(
        title="$|x - x^*|_2$ in 20 variables, 8000 calls each", xlabel="steps, one after the other", ylabel="value"
    )
    axes.legend(frameon=False)


def draw_game(axes: plt.Axes, seeds: int = 3, d: int = 50) -> None:
    """Draw the gap of a game on the simplex by evaluations."""
    at = np.arange(0, 6001, 50)
    for label, method in (
        ("zo-mirror, entropy", dfo.ZOMirror(average=True)),
        ("zo-mirror, euclidean", dfo.ZOMirror(average=True, geometry="euclidean")),
        ("zo-sgd, projected", "zo-sgd"),
    ):
        curves = []
        for seed in range(seeds):
            f, best = game(d, seed)
            path = [(0, f(np.full((1, d), 1 / d))[0] - best)]

            def look(p: dfo.Progress, path: list = path, f: object = f, best: float = best) -> None:
                path.append((p.nfev, f(p.recommended()[None])[0] - best))

            dfo.minimize(f, dfo.Simplex(d), method=method, budget=6000, seed=seed, vectorized=True, callback=look)
            count, value = np.array(path).T
            curves.append(value[np.searchsorted(count, at, side="right") - 1])
        axes.semilogy(at, np.mean(curves, axis=0), label=label)
    axes.set(title="gap of a game on the simplex, 50 variables", xlabel="evaluations")
    axes.legend(frameon=False)


def main() -> None:
    """Measure and draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    draw_depth(left)
    draw_game(right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=90)


if __name__ == "__main__":
    main()
