"""One figure of a measure: what is claimed, what was expected, what came out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row", "holds_within", "interval"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        claim: what is claimed, in one line.
        expected: the figure to reach, in words.
        measured: the figure reached.
        holds: whether it is reached.
        source: where the expected figure comes from: a paper and its equation, theory, a peer of the same run.
        seeds: number of independent runs behind the figure.
        interval: 95 % interval of the figure where it is a mean or a share, in words; empty where it is exact.
    """

    claim: str
    expected: str
    measured: float
    holds: bool
    source: str
    seeds: int = 1
    interval: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "measured", float(self.measured))  # plain numbers, whatever they came from
        object.__setattr__(self, "holds", bool(self.holds))


def holds_within(measured: float, expected: float, tolerance: float) -> bool:
    """Tell whether a figure lies within a relative ``tolerance`` of the expected one."""
    return bool(abs(measured / expected - 1.0) <= tolerance)


def interval(values: object, share: bool = False) -> str:
    """Return the 95 % interval of a mean (Student) or, for zeros and ones, of a share (Wilson), in words."""
    import numpy as np
    from scipy import stats

    x = np.asarray(values, dtype=float)
    n, mean = len(x), float(x.mean())
    if share:
        z2 = float(stats.norm.ppf(0.975)) ** 2
        middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
        half = (z2 / n * (mean * (1 - mean) + z2 / (4 * n))) ** 0.5 / (1 + z2 / n)
        return f"{middle - half:.3g}..{middle + half:.3g}"
    if n < 2:
        return ""
    half = float(stats.t.ppf(0.975, n - 1)) * float(x.std(ddof=1)) / n**0.5
    return f"{mean - half:.3g}..{mean + half:.3g}"
