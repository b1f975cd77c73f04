"""Whether a method fits into the memory of this machine, told before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dfo.errors import ProblemTooLarge

__all__ = ["available", "check_memory", "needed"]

SQUARE = {
    "CMA": 4.2, "XNES": 3.2, "NelderMead": 3.0,
    "pycma": 3.2, "nevergrad:CMA": 3.2, "scipy:Nelder-Mead": 3.1, "scipy:Powell": 1.0, "scipy:BFGS": 3.0,
    "scipy:COBYLA": 6.1, "scipy:COBYQA": 8.0, "scipy:trust-constr": 3.0, "scipy:SLSQP": 1.0,
    "scipy:differential_evolution": 75.0,
}  # fmt: skip
"""Numbers held, over the square of the number of variables: matrices, simplices and their copies. Measured as the
growth of the largest resident memory at d = 2,000 (differential evolution: 300), or counted in the source."""

VECTORS = 60.0
"""Vectors as long as a point that any method holds, with encodings, copies and temporaries (at d = 300,000)."""

SMALL = 1 << 28
"""Bytes that are not worth a look at what is free."""

COUNTS = ("population", "particles", "samples", "batch")
"""Fields of solvers that say how many points a batch holds."""

COPIES = 12.0
"""Times a whole batch is held: drawn, decoded, projected, handed to the objective (measured there, in a box)."""

LINEAR = ("sep-cma", "openai-es", "zo-sgd", "scipy:L-BFGS-B")
"""What to propose, the strongest first: a few vectors or tens of them."""


def needed(method: Any, dim: int, itemsize: int = 8) -> float:
    """Return about how many bytes a method holds for points of ``dim`` variables.

    Args:
        method: a planned solver, or the name of a peer.
        dim: variables.
        itemsize: bytes of a number.

    Example:
        >>> import dfo
        >>> needed(dfo.CMA(population=20), 10_000) > 8 * 10_000**2
        True
    """
    name = method if isinstance(method, str) else type(method).__name__
    points = next((n for n in (getattr(method, field, None) for field in COUNTS) if isinstance(n, int)), 0)
    return itemsize * dim * (SQUARE.get(name, 0.0) * dim + COPIES * points + VECTORS)


def available() -> float:
    """Return the bytes that this process may still take: of the machine, of its control group, of its own limit."""
    room = [float("inf")]
    try:
        fields = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        room += [1024.0 * int(words[1]) for words in fields if words[0] == "MemAvailable:"]
    except (OSError, ValueError):
        room.append(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8e9)
    room += [_of_group(Path("/sys/fs/cgroup")), _of_limit()]
    return max(0.0, min(room))


def _of_group(folder: Path) -> float:
    try:
        most = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        return float("inf") if most == "max" else float(int(most) - used)
    except (OSError, ValueError):
        return float("inf")


def _of_limit() -> float:
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most == resource.RLIM_INFINITY:
            return float("inf")
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return float("inf")
    return float(most - used)


def check_memory(method: Any, name: str, dim: int, itemsize: int = 8) -> None:
    """Refuse a method that does not fit, naming one that does.

    Args:
        method: a planned solver, or the name of a peer.
        name: as the user knows it.
        dim: variables.
        itemsize: bytes of a number.

    Raises:
        ProblemTooLarge: what it needs is more than there is.
    """
    need = needed(method, dim, itemsize)
    if need < SMALL or need <= (have := available()):
        return
    fitting = [other for other in LINEAR if other != name and itemsize * dim * 10.0 * VECTORS <= have]
    hint = f" Use method={fitting[0]!r}, whose cost is linear in the number of variables." if fitting else ""
    raise ProblemTooLarge(
        f"{name}: {dim} variables need about {need / 2**30:.3g} GiB of memory, and {have / 2**30:.3g} GiB are free."
        f"{hint} With few points at once (batch=, or the solver's population), any method needs less."
    )
