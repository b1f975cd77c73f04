"""dfo: black-box and derivative-free optimization.

``dfo.minimize(f, x0)`` finds a point where ``f`` is low, by evaluations alone. The names below are loaded
when they are first used: ``import dfo`` itself loads numpy and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfo.version import __version__

_NAMES = {
    "minimize": "dfo.run.minimize",
    "maximize": "dfo.run.minimize",
    "AskTell": "dfo.run.asktell",
    "join": "dfo.run.join",
    "Store": "dfo.run.store",
    "Result": "dfo.run.result",
    "History": "dfo.run.result",
    "as_scipy_method": "dfo.run.peers",
    "Ray": "dfo.run.crew.ray",
    "AnyOf": "dfo.run.stopping",
    "MaxEvals": "dfo.run.stopping",
    "MaxSteps": "dfo.run.stopping",
    "MaxTime": "dfo.run.stopping",
    "Stalled": "dfo.run.stopping",
    "Target": "dfo.run.stopping",
    "Print": "dfo.run.hooks",
    "Record": "dfo.run.hooks",
    "Progress": "dfo.protocols",
    "Problem": "dfo.protocols",
    "Task": "dfo.protocols",
    "Box": "dfo.spaces",
    "Choice": "dfo.spaces",
    "Float": "dfo.spaces",
    "Free": "dfo.spaces",
    "Int": "dfo.spaces",
    "Named": "dfo.spaces",
    "Text": "dfo.spaces",
    "Birkhoff": "dfo.sets.polytopes",
    "GroupBall": "dfo.sets.norms",
    "KSparse": "dfo.sets.balls",
    "L1Ball": "dfo.sets.balls",
    "L2Ball": "dfo.sets.balls",
    "LInfBall": "dfo.sets.balls",
    "LpBall": "dfo.sets.norms",
    "NuclearBall": "dfo.sets.matrices",
    "OpNormBall": "dfo.sets.matrices",
    "Polytope": "dfo.sets.polytopes",
    "Product": "dfo.sets.combined",
    "Scaled": "dfo.sets.combined",
    "Shifted": "dfo.sets.combined",
    "Simplex": "dfo.sets.balls",
    "Spectrahedron": "dfo.sets.matrices",
    "Key": "dfo.random",
    "Function": "dfo.oracles.function",
    "HumanNoise": "dfo.oracles.rank",
    "Behaviour": "dfo.oracles.behaviour",
    "Minibatch": "dfo.oracles.minibatch",
    "RankOracle": "dfo.oracles.rank",
    "Unrolled": "dfo.oracles.unrolled",
    "CBO": "dfo.solvers.cbo",
    "CBS": "dfo.solvers.cbo",
    "CMA": "dfo.solvers.cma",
    "SepCMA": "dfo.solvers.cma",
    "GLD": "dfo.solvers.gld",
    "FrankWolfe": "dfo.solvers.frank_wolfe",
    "DeepGA": "dfo.solvers.genetic",
    "Genetic": "dfo.solvers.genetic",
    "NoveltySearch": "dfo.solvers.genetic",
    "CEM": "dfo.solvers.cem",
    "LMMAES": "dfo.solvers.lm_ma_es",
    "SNES": "dfo.solvers.nes",
    "XNES": "dfo.solvers.nes",
    "NelderMead": "dfo.solvers.nelder_mead",
    "RandomSearch": "dfo.solvers.random_search",
    "ESSingle": "dfo.solvers.unrolled_es",
    "FullES": "dfo.solvers.unrolled_es",
    "GPES": "dfo.solvers.unrolled_es",
    "NRES": "dfo.solvers.unrolled_es",
    "PES": "dfo.solvers.unrolled_es",
    "TruncatedES": "dfo.solvers.unrolled_es",
    "ACSA": "dfo.solvers.acsa",
    "ChatScore": "dfo.oracles.remote",
    "Policy": "dfo.oracles.policy",
    "ZOMirror": "dfo.solvers.mirror",
    "ZORankSGD": "dfo.solvers.zo_rank_sgd",
    "ARS": "dfo.solvers.ars",
    "GuidedES": "dfo.solvers.guided_es",
    "OpenAIES": "dfo.solvers.openai_es",
    "PGPE": "dfo.solvers.pgpe",
    "ZOSGD": "dfo.solvers.zo_sgd",
}

__all__ = [*sorted(_NAMES), "__version__"]  # noqa: PLE0604


_ROOMS = frozenset({
    "arrays", "batch", "bench", "components", "directions", "distributions", "encodings", "errors", "feedback",
    "files", "masks", "nn", "oracles", "protocols", "random", "report", "run", "secrets", "sets", "solvers", "spaces",
    "structured", "testing",
})  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"dfo.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'dfo' has no attribute {name!r}")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})


if TYPE_CHECKING:
    from dfo.oracles.behaviour import Behaviour as Behaviour
    from dfo.oracles.function import Function as Function
    from dfo.oracles.minibatch import Minibatch as Minibatch
    from dfo.oracles.policy import Policy as Policy
    from dfo.oracles.rank import HumanNoise as HumanNoise
    from dfo.oracles.rank import RankOracle as RankOracle
    from dfo.oracles.remote import ChatScore as ChatScore
    from dfo.oracles.unrolled import Unrolled as Unrolled
    from dfo.protocols import Problem as Problem
    from dfo.protocols import Progress as Progress
    from dfo.protocols import Task as Task
    from dfo.random import Key as Key
    from dfo.run.asktell import AskTell as AskTell
    from dfo.run.crew.ray import Ray as Ray
    from dfo.run.hooks import Print as Print
    from dfo.run.hooks import Record as Record
    from dfo.run.join import join as join
    from dfo.run.minimize import maximize as maximize
    from dfo.run.minimize import minimize as minimize
    from dfo.run.peers import as_scipy_method as as_scipy_method
    from dfo.run.result import History as History
    from dfo.run.result import Result as Result
    from dfo.run.stopping import AnyOf as AnyOf
    from dfo.run.stopping import MaxEvals as MaxEvals
    from dfo.run.stopping import MaxSteps as MaxSteps
    from dfo.run.stopping import MaxTime as MaxTime
    from dfo.run.stopping import Stalled as Stalled
    from dfo.run.stopping import Target as Target
    from dfo.run.store import Store as Store
    from dfo.sets.balls import KSparse as KSparse
    from dfo.sets.balls import L1Ball as L1Ball
    from dfo.sets.balls import L2Ball as L2Ball
    from dfo.sets.balls import LInfBall as LInfBall
    from dfo.sets.balls import Simplex as Simplex
    from dfo.sets.combined import Product as Product
    from dfo.sets.combined import Scaled as Scaled
    from dfo.sets.combined import Shifted as Shifted
    from dfo.sets.matrices import NuclearBall as NuclearBall
    from dfo.sets.matrices import OpNormBall as OpNormBall
    from dfo.sets.matrices import Spectrahedron as Spectrahedron
    from dfo.sets.norms import GroupBall as GroupBall
    from dfo.sets.norms import LpBall as LpBall
    from dfo.sets.polytopes import Birkhoff as Birkhoff
    from dfo.sets.polytopes import Polytope as Polytope
    from dfo.solvers.acsa import ACSA as ACSA
    from dfo.solvers.ars import ARS as ARS
    from dfo.solvers.cbo import CBO as CBO
    from dfo.solvers.cbo import CBS as CBS
    from dfo.solvers.cem import CEM as CEM
    from dfo.solvers.cma import CMA as CMA
    from dfo.solvers.cma import SepCMA as SepCMA
    from dfo.solvers.frank_wolfe import FrankWolfe as FrankWolfe
    from dfo.solvers.genetic import DeepGA as DeepGA
    from dfo.solvers.genetic import Genetic as Genetic
    from dfo.solvers.genetic import NoveltySearch as NoveltySearch
    from dfo.solvers.gld import GLD as GLD
    from dfo.solvers.guided_es import GuidedES as GuidedES
    from dfo.solvers.lm_ma_es import LMMAES as LMMAES
    from dfo.solvers.mirror import ZOMirror as ZOMirror
    from dfo.solvers.nelder_mead import NelderMead as NelderMead
    from dfo.solvers.nes import SNES as SNES
    from dfo.solvers.nes import XNES as XNES
    from dfo.solvers.openai_es import OpenAIES as OpenAIES
    from dfo.solvers.pgpe import PGPE as PGPE
    from dfo.solvers.random_search import RandomSearch as RandomSearch
    from dfo.solvers.unrolled_es import GPES as GPES
    from dfo.solvers.unrolled_es import NRES as NRES
    from dfo.solvers.unrolled_es import PES as PES
    from dfo.solvers.unrolled_es import ESSingle as ESSingle
    from dfo.solvers.unrolled_es import FullES as FullES
    from dfo.solvers.unrolled_es import TruncatedES as TruncatedES
    from dfo.solvers.zo_rank_sgd import ZORankSGD as ZORankSGD
    from dfo.solvers.zo_sgd import ZOSGD as ZOSGD
    from dfo.spaces import Box as Box
    from dfo.spaces import Choice as Choice
    from dfo.spaces import Float as Float
    from dfo.spaces import Free as Free
    from dfo.spaces import Int as Int
    from dfo.spaces import Named as Named
    from dfo.spaces import Text as Text
