"""Draw docs/_static/methods/unrolled.png: influence balancing, and variances by the number of unrolls."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dfo.bench.measures.unrolled import drive, variance
from dfo.bench.packs import make

OUT = Path(__file__).parents[1] / "_static" / "methods" / "unrolled.png"


def main() -> None:
    """Measure and draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    problem = make("unrolled-influence-balancing")
    options = {"rule": "sgd", "lr": 1e-4, "sigma": 0.1, "population": 200}
    for method in ("truncated-es", "pes", "es-single"):
        path = [state.x[0] for state in drive(method, problem.fun, problem.x0, 800, **options)]
        left.plot(path, label=method)
    left.axhline(-1 / 6, color="gray", linestyle=":", label="minimum")
    left.set(xlabel="updates", ylabel="theta", title="influence balancing")
    left.legend(frameon=False)
    unrolls, dim = np.array([1, 2, 5, 10, 20, 50]), 100
    cases = (
        ("es-single", False, "es-single", "C2", np.full(6, dim + 1.0)),
        ("pes", True, "pes, equal gradients", "C1", dim * (1 + 1 / unrolls) / 2),
        ("pes", False, "pes, independent gradients", "C4", dim * (unrolls + 1) / 2),
    )
    for method, alike, label, color, theory in cases:
        found = [variance(method, dim, int(u), alike, 20, 25).mean() for u in unrolls]
        right.loglog(unrolls, found, "o", color=color, label=label)
        right.loglog(unrolls, theory, "-", color=color, linewidth=1)
    right.set(xlabel="unrolls of an episode", title="variance / |gradient|$^2$, 100 variables")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=100)


if __name__ == "__main__":
    main()
