"""``method="auto"``: a plain rule, printed with every result that used it.

=====================================  =====================================================
the problem (d variables, budget)      the choice
=====================================  =====================================================
points are text                        random
inner problems on lanes                es-single
points of a convex set                 zo-fw
the same, only compared                zo-rank-sgd
the oracle only ranks                  cma
constraints                            scipy:COBYLA if ``noise=False``, else cma
``noise=False``, 2-50 d, up to 100 d   scipy:SLSQP, restarted at random points
1 to 5 variables, budget below 300 d   nelder-mead
up to 100 variables                    cma (BIPOP restarts)
up to 10,000 variables                 sep-cma
more                                   zo-sgd
=====================================  =====================================================

With ``batch`` only methods that ask about several points at once are taken. ``workers`` has no say: it never changes a
result.

The quasi-Newton peer is chosen only on the user's word that values carry no noise: it is the best
of all at small budgets on smooth functions and the worst when a value jitters or is missing.
"""

from __future__ import annotations

from dfo.protocols import CONSTRAINTS
from dfo.sets.convex import is_convex
from dfo.spaces import Box, Free, Text

__all__ = ["choose"]


def choose(
    space: object,
    dim: int,
    budget: int | None,
    noise: object,
    gives: frozenset[str],
    integers: bool,
    serial: bool = True,
) -> tuple[str, str]:
    """Return the method and the reason in one sentence; without ``serial`` only methods that ask in batches."""
    special = _special(space, gives)
    if special is not None:
        return special
    smooth = noise is False and serial and not integers and isinstance(space, (Free, Box))
    if "violations" in gives:
        return ("scipy:COBYLA", "constraints, no noise") if smooth else ("cma", "constraints")
    per_dim = (budget or 1000 * dim) / dim
    if smooth and 2 <= dim <= 50 and per_dim <= 100:
        return "scipy:SLSQP", f"no noise, {dim} variables, {per_dim:.0f} evaluations per variable"
    if serial and dim <= 5 and per_dim < 300 and not integers and noise is None:
        return "nelder-mead", f"{dim} variables, {per_dim:.0f} evaluations per variable"
    if dim <= 100:
        return "cma", f"{dim} variables"
    return ("sep-cma" if dim <= 10_000 else "zo-sgd"), f"{dim} variables"


def _special(space: object, gives: frozenset[str]) -> tuple[str, str] | None:
    """Return the choice where the kind of points or of answers leaves only one."""
    if isinstance(space, Text):
        return "random", "points are text"
    if "ended" in gives:
        return "es-single", "the oracle unrolls inner problems on lanes"
    if is_convex(space) and ("values" not in gives or CONSTRAINTS in gives):
        return "zo-rank-sgd", "points of a convex set, only compared"
    if is_convex(space):
        return "zo-fw", "points of a convex set"
    if "values" not in gives:
        return "cma", "the oracle only ranks"
    return None
