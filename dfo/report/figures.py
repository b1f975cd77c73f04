"""Pictures of a bench, drawn with matplotlib, without touching its global state.

Colours are those of Okabe and Ito (2008), Color Universal Design: told apart by everybody, on white and on
black; the ninth method starts again with dashes. A method keeps its colour when others are added.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import Floats
from dfo.bench.summary import Slice, Summary
from dfo.report.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ecdf_figure", "look_of", "png", "svg", "values_figure"]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#8a8f98")
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1)))
INK, GRID = "#1b1f23", "#dfe3e8"  # replaced by the page's colours in SVG

_STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "dfo",
    "text.parse_math": False,
}


def look_of(methods: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return the colour and the dashes of each method, by its place in the plan."""
    return {m: (COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]) for i, m in enumerate(methods)}


def _axes(figure: Figure, panels: int) -> list[Axes]:
    """Return a wide panel, and below it rows of up to four small ones for the others."""
    small, across = panels - 1, min(4, max(panels - 1, 1))
    rows = -(-small // across)
    grid = figure.add_gridspec(1 + rows, across, height_ratios=[1.9] + [1.0] * rows)
    axes = [figure.add_subplot(grid[0, :])]
    axes += [figure.add_subplot(grid[1 + i // across, i % across], sharey=axes[0]) for i in range(small)]
    return axes


def ecdf_figure(summary: Summary) -> Figure:
    """Draw runtime distributions: share of targets hit against evaluations per variable.

    One line a method, over all problems (with a 95 % bootstrap band) and by dimension; the legend stands in
    the order of the final shares, which are in it.

    Args:
        summary: of problems with targets.

    Returns:
        A figure that belongs to no window.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    parts = list(summary.slices(("all", "dim")))
    parts = parts[:1] if len(parts) == 2 else parts  # one dimension is all there is
    with rc_context(_STYLE):  # type: ignore[arg-type]
        rows = -(-(len(parts) - 1) // 4)
        figure = Figure(figsize=(8.6, 3.9 + 2.1 * rows), layout="constrained")
        x = _grid(summary)
        for i, (ax, part) in enumerate(zip(_axes(figure, len(parts)), parts, strict=True)):
            _curves(ax, summary, part, x, band=i == 0)
            ax.set_title("all problems" if part.by == "all" else f"d = {part.value}")
            if i == 0:
                ax.set_ylabel("share of targets hit")
            if i == 0 or i > len(parts) - 5:
                ax.set_xlabel("evaluations / d")
            ax.tick_params(labelleft=i == 0 or (i - 1) % 4 == 0)
        _legend(figure.axes[0], summary)
        figure.canvas.draw()  # while the style holds
    return figure


def _grid(summary: Summary) -> Floats:
    """Return evaluations per variable from 1 to the largest granted, evenly spaced in their logarithm."""
    most = max(2.0, float(summary.limits(summary.plan.budget).max()))
    return np.geomspace(1.0, most, 160)


def _curves(ax: Axes, summary: Summary, part: Slice, x: Floats, band: bool) -> None:
    share, low, high = summary.curves(part.members, x)
    look = look_of(summary.plan.methods)
    for i, method in enumerate(summary.plan.methods):
        color, dashes = look[method]
        if band:
            ax.fill_between(x, low[i], high[i], color=color, alpha=0.09, linewidth=0)
        width = 1.8 if band else 1.3
        ax.plot(x, share[i], color=color, linestyle=dashes, linewidth=width, solid_capstyle="butt")
    _log_axis(ax, x)
    ax.set_ylim(0.0, 1.0)
    ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])


def _log_axis(ax: Axes, x: Floats) -> None:
    ax.set_xscale("log")
    ax.set_xlim(x[0], x[-1])
    ticks = [t for power in range(10) for t in (10**power,) if x[0] <= t <= x[-1]]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([], minor=True)


def _legend(ax: Axes, summary: Summary) -> None:
    """Name the lines beside the panel, highest first."""
    from matplotlib.lines import Line2D

    look, order = look_of(summary.plan.methods), summary.order()
    final: dict[str, str] = {}
    if summary.targeted:
        means = summary.solved(summary.plan.budget).mean(axis=1)
        final = {m: f"  {mean:.2f}" for m, mean in zip(summary.plan.methods, means, strict=True)}
    handles = [Line2D([], [], color=look[m][0], linestyle=look[m][1], linewidth=2.2) for m in order]
    labels = [f" {visible(m)}{final.get(m, '')}" for m in order]  # a label that begins with "_" would be left out
    ax.legend(handles, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.8, labelspacing=0.7)


def values_figure(summary: Summary) -> Figure:
    """Draw the median over seeds of the best value so far, a panel for each problem without targets."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = summary.valued[:12]
    across = min(3, len(shown))
    with rc_context(_STYLE):  # type: ignore[arg-type]
        rows = -(-len(shown) // across)
        figure = Figure(figsize=(8.6, 0.6 + 2.6 * rows), layout="constrained")
        look = look_of(summary.plan.methods)
        for i, problem in enumerate(shown):
            ax = figure.add_subplot(rows, across, i + 1)
            x, curves = summary.trajectories(problem)
            for method, curve in zip(summary.plan.methods, curves, strict=True):
                color, dashes = look[method]
                ax.plot(x, curve, color=color, linestyle=dashes, linewidth=1.6, drawstyle="steps-post")
            _log_axis(ax, x)
            ax.set_title(visible(problem))
            ax.set_xlabel("evaluations")
        figure.axes[0].set_ylabel("best value, median")
        _legend(figure.axes[across - 1], summary)
        figure.canvas.draw()
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as PNG on white."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def svg(figure: Figure, label: str) -> str:
    """Return a figure as SVG to stand within a page.

    Colours of ink and grid become the page's variables ``--ink`` and ``--grid``; nothing is loaded from
    elsewhere, and equal figures give equal text.

    Args:
        figure: the figure.
        label: what it shows, for those who cannot see it.
    """
    from html import escape

    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(label, quote=True)}">{rest}'
