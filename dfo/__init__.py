"""dfo: black-box and derivative-free optimization.

``dfo.minimize(f, x0)`` finds a point where ``f`` is low, by evaluations alone. The names below are loaded
when they are first used: ``import dfo`` itself loads numpy and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "minimize": "dfo.run.minimize",
    "maximize": "dfo.run.minimize",
    "AskTell": "dfo.run.asktell",
    "Result": "dfo.run.result",
    "History": "dfo.run.result",
    "as_scipy_method": "dfo.run.peers",
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
    "Key": "dfo.random",
    "Function": "dfo.oracles.function",
    "RankOracle": "dfo.oracles.rank",
    "CMA": "dfo.solvers.cma",
    "SepCMA": "dfo.solvers.cma",
    "NelderMead": "dfo.solvers.nelder_mead",
    "RandomSearch": "dfo.solvers.random_search",
    "ZOSGD": "dfo.solvers.zo_sgd",
}

__all__ = [*sorted(_NAMES), "__version__"]  # noqa: PLE0604


_ROOMS = frozenset({
    "arrays", "batch", "bench", "components", "directions", "encodings", "errors", "feedback", "oracles",
    "protocols", "random", "report", "run", "solvers", "spaces", "testing",
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
    from dfo.oracles.function import Function as Function
    from dfo.oracles.rank import RankOracle as RankOracle
    from dfo.protocols import Problem as Problem
    from dfo.protocols import Progress as Progress
    from dfo.protocols import Task as Task
    from dfo.random import Key as Key
    from dfo.run.asktell import AskTell as AskTell
    from dfo.run.hooks import Print as Print
    from dfo.run.hooks import Record as Record
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
    from dfo.solvers.cma import CMA as CMA
    from dfo.solvers.cma import SepCMA as SepCMA
    from dfo.solvers.nelder_mead import NelderMead as NelderMead
    from dfo.solvers.random_search import RandomSearch as RandomSearch
    from dfo.solvers.zo_sgd import ZOSGD as ZOSGD
    from dfo.spaces import Box as Box
    from dfo.spaces import Choice as Choice
    from dfo.spaces import Float as Float
    from dfo.spaces import Free as Free
    from dfo.spaces import Int as Int
    from dfo.spaces import Named as Named
    from dfo.spaces import Text as Text
