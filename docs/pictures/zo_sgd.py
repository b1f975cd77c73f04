"""Draw docs/_static/methods/zo_sgd.png: second moments of estimates, and what the rules do on a quadratic."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dfo
from dfo.bench.measures.zo_sgd import second_moment
from dfo.directions import DISTRIBUTIONS
from dfo.random import Key

OUT = Path(__file__).parents[1] / "_static" / "methods" / "zo_sgd.png"
D = 20


def draw_moments(axes: plt.Axes) -> None:
    """Draw measured second moments over what theory says."""
    counts = [1, 2, 4, 6, 10, 14, 20]
    theory = {
        "gaussian": lambda q: 1 + (D + 1) / q, "sphere": lambda q: 1 + (D - 1) / q, "orthogonal": lambda q: D / q,
    }  # fmt: skip
    for at, (law, exact) in enumerate(theory.items()):
        found = [second_moment(DISTRIBUTIONS[law], D, q, 20_000, Key(0).child(law, q)) for q in counts]
        axes.plot(counts, found, "o", color=f"C{at}", markersize=5, label=law)
        axes.plot(range(1, D + 1), [exact(q) for q in range(1, D + 1)], color=f"C{at}", linewidth=0.8)
    axes.set(
        title=r"E$|\hat g|^2$ / $|g|^2$ in 20 variables; lines: theory", xlabel="directions per step", yscale="log"
    )
    axes.legend(frameon=False)


def quadratic(X: np.ndarray) -> np.ndarray:
    """Return half of a quadratic of condition 100."""
    return 0.5 * (np.geomspace(1, 100, X.shape[1]) * X * X).sum(axis=1)


def draw_rules(axes: plt.Axes, seeds: int = 5) -> None:
    """Draw f/f0 by evaluations for several rules, steps fitted."""
    at = np.arange(0, 6001, 50)
    for rule, options in (
        ("sgd", {}), ("momentum", {}), ("conservative", {}), ("svrg", {}), ("adam", {}), ("sign", {}),
    ):  # fmt: skip
        curves = []
        for seed in range(seeds):
            path = [(0, 1.0)]
            f0 = quadratic(np.ones((1, D)))[0]

            def look(p: dfo.Progress, path: list = path, f0: float = f0) -> None:
                path.append((p.nfev, quadratic(p.recommended()[None])[0] / f0))

            dfo.minimize(
                quadratic, np.ones(D), method=dfo.ZOSGD(rule=rule, **options), budget=6000, seed=seed,
                vectorized=True, callback=look,
            )  # fmt: skip
            count, value = np.array(path).T
            curves.append(value[np.searchsorted(count, at, side="right") - 1])
        axes.semilogy(at, np.median(curves, axis=0), label=rule)
    axes.set(title="f / f$_0$, quadratic of condition 100, 20 variables", xlabel="evaluations", ylim=(1e-6, 2))
    axes.legend(frameon=False, ncols=2, loc="lower left", fontsize=8)


def main() -> None:
    """Measure and draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    draw_moments(left)
    draw_rules(right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=90)


if __name__ == "__main__":
    main()
