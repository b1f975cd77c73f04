"""Draw docs/_static/language.png: SmolLM2-135M on film reviews, from docs/benchmarks/network-language.json."""

import json
import re
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1]
OUT = DOCS / "_static" / "language.png"
CLAIM = re.compile(r"(?P<method>.+), (?P<figure>[a-z-]+) on (?P<n>\d+) test sentences after (?P<seconds>\d+) CPU-s")


def main() -> None:
    """Draw cross-entropy and calibrated accuracy by CPU time, with 95 % intervals over the seeds."""
    rows = json.loads((DOCS / "benchmarks" / "network-language.json").read_text())["rows"]
    curves: dict = {}
    for row in rows:
        told = CLAIM.fullmatch(row["claim"])
        low, _, high = row["interval"].partition("..")
        band = (float(low), float(high)) if high else (row["measured"], row["measured"])
        point = (float(told["seconds"]), row["measured"], *band)
        curves.setdefault(told["figure"], {}).setdefault(told["method"], []).append(point)
    figure, both = plt.subplots(1, 2, figsize=(10.5, 3.4), constrained_layout=True)
    for axes, name in zip(both, ("calibrated", "cross-entropy"), strict=True):
        color = 0
        for method, points in curves[name].items():
            if len(points) == 1:
                style = {"16-shot": ":", "zero-shot": "--"}.get(method, "-.")
                axes.axhline(points[0][1], color="gray", linestyle=style, linewidth=1, label=method)
                continue
            seconds, mean, low, high = zip(*points, strict=True)
            axes.plot(seconds, mean, "o-", color=f"C{color}", markersize=4, label=method)
            axes.fill_between(seconds, low, high, color=f"C{color}", alpha=0.15, linewidth=0)
            color += 1
        axes.set(title=name, xlabel="seconds of CPU time, one thread")
    both[0].set_title("calibrated accuracy, 1,000 test sentences")
    figure.legend(*both[1].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
