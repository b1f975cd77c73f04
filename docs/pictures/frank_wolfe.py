"""Draw docs/_static/methods/frank_wolfe.png: a run on a triangle, and gaps by evaluations beside projected methods."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo

OUT = Path(__file__).parents[1] / "_static" / "methods" / "frank_wolfe.png"
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.866]])
METHODS = {
    "zo-fw kwsa": dfo.FrankWolfe(scheme="kwsa"),
    "zo-fw i-rdsa": dfo.FrankWolfe(),
    "zo-fw deterministic": dfo.FrankWolfe(scheme="deterministic"),
    "zo-sgd": "zo-sgd",
    "zo-mirror": "zo-mirror",
}


def draw_triangle(axes: plt.Axes) -> None:
    """Draw a quadratic over the simplex, the iterates of a run and the queries of its first steps."""
    target = np.array([0.25, 0.5, 0.4])
    u, v = np.meshgrid(np.linspace(0, 1, 150), np.linspace(0, 1, 150))
    inside = u + v <= 1
    points = np.stack([1 - u - v, u, v], axis=-1)
    values = np.where(inside, ((points - target) ** 2).sum(axis=-1), np.nan)
    axes.contourf(*np.moveaxis(points @ CORNERS, -1, 0), values, levels=12, cmap="Greys_r")
    path, queries = [], []

    def look(progress: dfo.Progress) -> None:
        path.append(progress.recommended())
        queries.append(progress.batch.dense())

    def f(x: np.ndarray) -> float:
        return float(((x - target) ** 2).sum())

    solver = dfo.FrankWolfe(samples=2, c=lambda t: 0.1 / (t + 1) ** 0.5, look=0)
    dfo.minimize(f, [1.0, 0.0, 0.0], bounds=dfo.Simplex(3), method=solver, budget=320, callback=look, seed=2)
    axes.plot(
        *(np.concatenate(queries[:12]) @ CORNERS).T, ".", color="C0", markersize=3, label="queries, first 12 steps"
    )
    start = np.array([[1.0, 0.0, 0.0]])
    axes.plot(*(np.concatenate([start, path]) @ CORNERS).T, "-", color="C1", linewidth=1, label="iterates")
    best = dfo.Simplex(3).project(target) @ CORNERS
    axes.plot(*best, "*", color="C3", markersize=9)
    axes.plot(*CORNERS[[0, 1, 2, 0]].T, "k-", linewidth=0.8)
    axes.set(title="over a simplex", xticks=[], yticks=[], ylim=(-0.3, 1.0), aspect="equal")
    axes.legend(frameon=False, loc="lower center", fontsize=8)


def draw_gaps(axes: plt.Axes, name: str, title: str) -> None:
    """Draw what is left of ``f - f*`` at the recommendation, by evaluations."""
    problem = dfo.bench.make(name)
    for number, (label, method) in enumerate(METHODS.items()):
        seen: list[tuple[int, float]] = []

        def look(progress: dfo.Progress, seen: list[tuple[int, float]] = seen) -> None:
            if not seen or progress.nfev > 1.05 * seen[-1][0]:
                seen.append((progress.nfev, problem.measure(progress.recommended()) - problem.f_opt))

        dfo.minimize(
            problem.fun, problem.x0, bounds=problem.space, method=method, budget=12_800, vectorized=True, callback=look
        )
        axes.loglog(*np.array(seen).T, color=f"C{number}", label=label, linewidth=1.2)
    axes.set(title=title, xlabel="evaluations", ylabel="$f - f^*$")


def main() -> None:
    """Draw the figure."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
    draw_triangle(left)
    draw_gaps(middle, "constrained-lasso-i01-d64", "lasso, 64 variables")
    draw_gaps(right, "constrained-birkhoff-i01-d64", "doubly stochastic, 8 x 8")
    middle.legend(frameon=False, fontsize=8)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=80)


if __name__ == "__main__":
    main()
