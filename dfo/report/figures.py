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

__all__ = ["BANDS", "ecdf_figure", "look_of", "png", "svg", "values_figure"]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#8a8f98")
BANDS = 4
"""Most methods whose bands are drawn: more of them hide each other."""
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


def ecdf_figure(summary: Summary) -> Figure:
    """Draw runtime distributions: share of targets hit against evaluations per variable.

    One line a method, over all problems (up to :data:`BANDS` methods with 95 % bootstrap bands) and by
    dimension; the legend stands in the order of the final shares, which are in it.

    Args:
        summary: of problems with targets.

    Returns:
        A figure that belongs to no window.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    whole, *parts = summary.slices(("all", "dim"))
    parts = parts if len(parts) > 1 else []  # one dimension is all there is
    rows = -(-len(parts) // 4)
    across = -(-len(parts) // max(rows, 1))
    x = _grid(summary)
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(8.6, 3.7 + 2.3 * rows), layout="constrained")
        heights = [3.7, 2.3 * rows] if rows else [3.7]
        subfigures: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        upper, *lower = subfigures[:, 0]
        main = upper.add_subplot()
        _curves(main, summary, whole, x)
        main.set(title="all problems", xlabel="evaluations / d", ylabel="share of targets hit")
        _legend(main, summary)
        axes = [main]
        for i, part in enumerate(parts):
            ax = lower[0].add_subplot(rows, across, i + 1)
            _curves(ax, summary, part, x)
            ax.set(title=f"d = {part.value}", xlabel="evaluations / d" if i >= len(parts) - across else "")
            axes.append(ax)
        _shared_height(axes)
        figure.canvas.draw()  # while the style holds
    return figure


def _grid(summary: Summary) -> Floats:
    """Return evaluations per variable from 1 to the largest granted, evenly spaced in their logarithm."""
    most = max(2.0, float(summary.limits(summary.plan.budget).max()))
    return np.geomspace(1.0, most, 160)


def _shared_height(axes: Sequence[Axes]) -> None:
    """Let all panels end at the same quarter, just above the highest line."""
    highest = max(float(np.max(line.get_ydata())) for ax in axes for line in ax.lines)
    top = min(1.0, np.ceil(highest * 1.04 * 4) / 4)
    for ax in axes:
        ax.set_ylim(0.0, max(top, 0.25))
        ticks = [i / 4 for i in range(5) if i / 4 <= top]
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks])


def _curves(ax: Axes, summary: Summary, part: Slice, x: Floats) -> None:
    share, low, high = summary.curves(part.members, x)
    look, whole = look_of(summary.plan.methods), part.by == "all"
    for i, method in enumerate(summary.plan.methods):
        color, dashes = look[method]
        if whole and len(share) <= BANDS:
            ax.fill_between(x, low[i], high[i], color=color, alpha=0.09, linewidth=0)
        width = 1.8 if whole else 1.3
        ax.plot(x, share[i], color=color, linestyle=dashes, linewidth=width, solid_capstyle="butt")
    _log_axis(ax, x)


def _log_axis(ax: Axes, x: Floats) -> None:
    ax.set_xscale("log")
    ax.set_xlim(x[0], x[-1])
    ticks = [10**power for power in range(12) if x[0] <= 10**power <= x[-1]]
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
            early = x < np.sqrt(x[-1])  # first guesses may be far off: they must not set the scale
            if np.isfinite(later := curves[:, ~early]).any():
                low, high = float(np.nanmin(later)), float(np.nanmax(later))
                ax.set_ylim(low - 0.05 * (high - low or 1.0), high + 0.05 * (high - low or 1.0))
            ax.set(title=visible(problem), xlabel="evaluations")
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
