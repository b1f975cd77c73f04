"""The gaps to the lowest value that count as solved.

Source: Hansen, Auger, Brockhoff and Tusar (2022), Anytime performance assessment in blackbox optimization
benchmarking, IEEE Transactions on Evolutionary Computation 26(6).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TARGETS"]

TARGETS: Mapping[str, tuple[float, ...]] = {"coco": tuple(10.0 ** (2 - k / 5) for k in range(51))}
"""Name to gaps, largest first. COCO's: 51 from 1e2 to 1e-8, equally spaced in their logarithms."""
