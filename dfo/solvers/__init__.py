"""dfo's own solvers: one file, one algorithm family.

:data:`SOLVERS` is the whole registry, written out: a name that users type, and where it lives. A new
solver appends one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from dfo.errors import unknown

__all__ = ["SOLVERS", "solver_class"]

SOLVERS: dict[str, str] = {
    "ars": "dfo.solvers.ars:ARS",
    "cbo": "dfo.solvers.cbo:CBO",
    "cbs": "dfo.solvers.cbo:CBS",
    "cem": "dfo.solvers.cem:CEM",
    "cma": "dfo.solvers.cma:CMA",
    "deep-ga": "dfo.solvers.genetic:DeepGA",
    "es-single": "dfo.solvers.unrolled_es:ESSingle",
    "full-es": "dfo.solvers.unrolled_es:FullES",
    "genetic": "dfo.solvers.genetic:Genetic",
    "gld": "dfo.solvers.gld:GLD",
    "guided-es": "dfo.solvers.guided_es:GuidedES",
    "lm-ma-es": "dfo.solvers.lm_ma_es:LMMAES",
    "nelder-mead": "dfo.solvers.nelder_mead:NelderMead",
    "novelty": "dfo.solvers.genetic:NoveltySearch",
    "nres": "dfo.solvers.unrolled_es:NRES",
    "openai-es": "dfo.solvers.openai_es:OpenAIES",
    "pes": "dfo.solvers.unrolled_es:PES",
    "pgpe": "dfo.solvers.pgpe:PGPE",
    "random": "dfo.solvers.random_search:RandomSearch",
    "sep-cma": "dfo.solvers.cma:SepCMA",
    "snes": "dfo.solvers.nes:SNES",
    "truncated-es": "dfo.solvers.unrolled_es:TruncatedES",
    "xnes": "dfo.solvers.nes:XNES",
    "zo-acsa": "dfo.solvers.acsa:ACSA",
    "zo-fw": "dfo.solvers.frank_wolfe:FrankWolfe",
    "zo-mirror": "dfo.solvers.mirror:ZOMirror",
    "zo-rank-sgd": "dfo.solvers.zo_rank_sgd:ZORankSGD",
    "zo-sgd": "dfo.solvers.zo_sgd:ZOSGD",
}
"""Name to ``module:Class``; packages of yours may add entries at run time."""


def solver_class(name: str, registry: Mapping[str, str] | None = None) -> Any:
    """Return the class registered under ``name``.

    Raises:
        UnknownName: nothing is registered under it.
    """
    table = SOLVERS if registry is None else registry
    if name not in table:
        raise unknown("method", name, table)
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
