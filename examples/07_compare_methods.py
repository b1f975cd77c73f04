"""Compare methods: run several on one problem with several seeds, and plot how fast each gets down.

Needs matplotlib (pip install "dfo-optim[bench]"). With --out FILE.png the picture is kept. For comparisons on
many problems, with statistics, use the command line: dfo bench bbob-small --methods cma,random
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib
import numpy as np

import dfo

matplotlib.use("Agg")
import matplotlib.pyplot as plt

METHODS = ["cma", "sep-cma", "nelder-mead", "zo-sgd", "random", "scipy:COBYQA"]
BUDGET, SEEDS, D = 600, 3, 4


def rotated_ellipsoid(x):
    """Axes of lengths 1 to 30, turned away from the coordinates; lowest value 0 at (1, ..., 1)."""
    turned = HADAMARD @ (x - 1)
    return float((np.geomspace(1, 1_000, D) * turned**2).sum())


HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, help="where to keep the picture")
out = parser.parse_args().out

figure, ax = plt.subplots(figsize=(7, 4))
for method in METHODS:
    curves = []
    for seed in range(SEEDS):
        res = dfo.minimize(rotated_ellipsoid, bounds=[(-5, 4)] * D, method=method, budget=BUDGET, seed=seed)
        best = res.history.best_fun
        curves.append(np.append(best, np.full(BUDGET - len(best), best[-1])))  # a peer may end early
    median = np.median(curves, axis=0)
    ax.loglog(np.arange(1, BUDGET + 1), median + 1e-16, label=method)
    print(f"{method:<14} median of {SEEDS} seeds: {median[99]:9.2e} after 100, {median[-1]:9.2e} after {BUDGET}")

ax.set(xlabel="evaluations", ylabel="lowest value so far", ylim=(1e-12, None))
ax.legend()
with tempfile.TemporaryDirectory() as scratch:
    figure.savefig(out or Path(scratch) / "convergence.png", dpi=120)
print(f"picture: {out or 'not kept; pass --out convergence.png'}")
