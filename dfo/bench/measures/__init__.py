"""Published and derived figures, measured again by a command: ``dfo measure NAME``, ``dfo bench paper-FAMILY``.

A measure returns rows of claim, expected figure, measured figure and verdict. The expected figures are
medians of other implementations, theory, or a ratio to a peer timed in the same run; where they come from
stands in each row. Times are never compared with a clock of another machine. A module here is one family
of measures; those whose name begins with ``paper-`` hold a family of solvers against its papers.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from dfo.bench.measures.row import Row
from dfo.errors import unknown
from dfo.run.result import versions

__all__ = ["MEASURES", "Row", "measure"]

MEASURES: Mapping[str, str] = {
    "bbob": "dfo.bench.measures.cma:bbob",
    "cma-medians": "dfo.bench.measures.cma:cma_medians",
    "network-coordinates": "dfo.bench.measures.coordinates:coordinates",
    "network-distributed": "dfo.bench.measures.network_scale:distributed",
    "network-exactness": "dfo.bench.measures.network_exactness:network_exactness",
    "network-gpu": "dfo.bench.measures.network_gpu:network_gpu",
    "network-in-place": "dfo.bench.measures.in_place:two_point_in_place",
    "network-language": "dfo.bench.measures.language:language",
    "network-language-steps": "dfo.bench.measures.network_steps:network_language_steps",
    "network-laws": "dfo.bench.measures.network_laws:network_laws",
    "network-memory": "dfo.bench.measures.network_memory:network_memory",
    "network-offload": "dfo.bench.measures.network_scale:offload",
    "network-population": "dfo.bench.measures.network_population:network_population",
    "network-steps": "dfo.bench.measures.network_steps:network_steps",
    "overhead": "dfo.bench.measures.overhead:overhead",
    "paper-cbo": "dfo.bench.measures.cbo:cbo",
    "paper-digits": "dfo.bench.measures.digits:digits",
    "paper-es": "dfo.bench.measures.evolution_strategies:evolution_strategies",
    "paper-frank-wolfe": "dfo.bench.measures.frank_wolfe:frank_wolfe",
    "paper-genetic": "dfo.bench.measures.genetic:paper_genetic",
    "paper-nes": "dfo.bench.measures.nes:natural_evolution",
    "paper-unrolled": "dfo.bench.measures.unrolled:unrolled",
    "paper-zo-nonsmooth": "dfo.bench.measures.nonsmooth:nonsmooth",
    "paper-zo-rank-sgd": "dfo.bench.measures.zo_rank_sgd:rank_sgd",
    "paper-zo-sgd": "dfo.bench.measures.zo_sgd:zo_sgd",
    "population": "dfo.bench.measures.population:population",
    "ray": "dfo.bench.measures.ray_tasks:ray_tasks",
    "workers": "dfo.bench.measures.workers:workers",
}
"""Name to ``module:function``; each takes seconds to a few minutes."""


def measure(name: str) -> dict[str, Any]:
    """Run a measure and return a record of it that JSON can hold.

    Raises:
        UnknownName: there is no such measure.
    """
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    module, _, attribute = MEASURES[name].partition(":")
    function: Callable[[], Sequence[Row]] = getattr(import_module(module), attribute)
    began = time.perf_counter()
    rows = function()
    return {
        "name": name,
        "summary": (function.__doc__ or "").strip().splitlines()[0],
        "command": f"dfo bench {name}" if name.startswith("paper-") else f"dfo measure {name}",
        "seconds": round(time.perf_counter() - began, 1),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {**versions(), "python": platform.python_version()},
        "rows": [asdict(row) for row in rows],
    }
