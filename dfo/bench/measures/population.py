"""What one generation costs beyond the evaluation: ask and tell, against memory bandwidth and against peers.

Everything is CPU time of one thread, torch in single precision, in pairs: the limit (write the population
once, read it once), then a generation of ours, then one of the peer, over and over; ratios are medians over
the pairs. The evaluation reads one column. Peers that are not installed are left out.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfo.bench.measures.fresh import fresh_rows
from dfo.bench.measures.row import Row
from dfo.feedback import Values
from dfo.protocols import Task
from dfo.random import Key
from dfo.solvers import SOLVERS, solver_class
from dfo.spaces import Free

__all__ = ["PEERS", "generations", "population"]

Step = Callable[[], object]

MEMBERS = 100

CASES: tuple[tuple[str, dict[str, Any], float | None, str, float], ...] = (
    ("openai-es", {}, 4.0, "evotorch PGPE", 5.0),
    ("openai-es", {"directions": "table"}, 1.5, "", 0.0),
    ("openai-es", {"directions": "rademacher"}, None, "", 0.0),
    ("pgpe", {}, 4.0, "evotorch PGPE", 5.0),
    ("snes", {}, None, "evotorch SNES", 0.0),
    ("cem", {}, None, "evotorch CEM", 0.0),
    ("deep-ga", {}, None, "evotorch GA", 8.0),
    ("genetic", {}, None, "evotorch GA", 8.0),
    ("cbo", {}, None, "cbx CBO (torch)", 5.0),
    ("lm-ma-es", {}, None, "", 0.0),
    ("sep-cma", {}, None, "", 0.0),
)
"""Solver, options, most times the limit, peer, least times faster than it; None and 0 where nothing is claimed."""


def generations(name: str, options: Mapping[str, Any], d: int, n: int = MEMBERS) -> Step:
    """Return a function that runs one generation of a solver: ask, build the points, read a column, tell."""
    import torch

    from dfo.directions import NoiseTable

    cls = solver_class(name)
    given = {k: NoiseTable() if v == "table" else v for k, v in options.items()}
    if "population" in cls.__dataclass_fields__:
        given["population"] = n
    x0 = torch.zeros(d)
    solver = cls(**given).plan(Task(Free(d), budget=10**9, batch=n))
    held: list[Any] = [solver.init(x0, Key(0))]

    def step() -> None:
        batch = solver.ask(held[0])
        f = batch.dense()[:, 0].double().numpy().copy()
        held[0] = solver.tell(held[0], batch, Values(f))

    return step


def _limit(d: int) -> Step:
    import torch

    X = torch.zeros(MEMBERS, d)

    def once() -> None:
        X.fill_(1.0)
        X.sum()

    return once


# ---------------------------------------------------------------------- peers


def _evotorch(make: Callable[[Any], Any], d: int) -> Step:
    import logging

    import torch

    logging.disable(logging.INFO)
    from evotorch import Problem
    from evotorch.decorators import vectorized

    @vectorized  # type: ignore[untyped-decorator]
    def first(X: Any) -> Any:
        return X[:, 0]

    problem = Problem("min", first, solution_length=d, initial_bounds=(-1.0, 1.0), dtype=torch.float32)
    searcher = make(problem)
    step: Step = searcher.step
    return step


def _pgpe(problem: Any) -> Any:
    from evotorch.algorithms import PGPE

    return PGPE(problem, popsize=MEMBERS, center_learning_rate=0.1, stdev_learning_rate=0.1, stdev_init=0.1)


def _snes(problem: Any) -> Any:
    from evotorch.algorithms import SNES

    return SNES(problem, popsize=MEMBERS, stdev_init=0.1)


def _cem(problem: Any) -> Any:
    from evotorch.algorithms import CEM

    return CEM(problem, popsize=MEMBERS, parenthood_ratio=0.1, stdev_init=0.1)


def _ga(problem: Any) -> Any:
    from evotorch.algorithms import GeneticAlgorithm
    from evotorch.operators import GaussianMutation, OnePointCrossOver

    operators = [OnePointCrossOver(problem, tournament_size=4), GaussianMutation(problem, stdev=0.1)]
    return GeneticAlgorithm(problem, popsize=MEMBERS, operators=operators)


def _cbx(d: int) -> Step:
    import torch
    from cbx.dynamics.cbo import CBO
    from cbx.utils.torch_utils import to_torch_dynamic

    x = torch.randn(1, MEMBERS, d)
    dynamic = to_torch_dynamic(CBO)(
        lambda X: X[..., 0], d=d, x=x, f_dim="3D", noise="anisotropic", verbosity=0, max_it=10**9
    )
    step: Step = dynamic.step
    return step


PEERS: Mapping[str, Callable[[int], Step]] = {
    "evotorch PGPE": lambda d: _evotorch(_pgpe, d),
    "evotorch SNES": lambda d: _evotorch(_snes, d),
    "evotorch CEM": lambda d: _evotorch(_cem, d),
    "evotorch GA": lambda d: _evotorch(_ga, d),
    "cbx CBO (torch)": _cbx,
}
"""Name of a peer to what makes one generation of it."""


# ---------------------------------------------------------------------- measuring


def _seconds(step: Step) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def _paired(steps: Mapping[str, Step], pairs: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the seconds of every step, measured in turn, after two rounds to warm up."""
    for _ in range(2):
        for step in steps.values():
            step()
    rounds = [{name: _seconds(step) for name, step in steps.items()} for _ in range(pairs)]
    return {name: np.array([r[name] for r in rounds]) for name in steps}


def _peer(name: str, d: int) -> Step | None:
    if not name:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PEERS[name](d)
    except ImportError:
        return None


def _case(name: str, options: Mapping[str, Any], most: float | None, peer: str, least: float, pairs: int) -> list[Row]:
    d = 10**6
    steps: dict[str, Step] = {"limit": _limit(d), "ours": generations(name, options, d)}
    theirs = _peer(peer, d)
    if theirs is not None:
        steps["peer"] = theirs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        took = _paired(steps, pairs)
    label = name + "".join(f", {v}" for v in options.values())
    ratio = float(np.median(took["ours"] / took["limit"]))
    rows = [
        Row(
            f"{label}: ask + tell / write and read the population once, d=1e6, {MEMBERS} members",
            "reported" if most is None else f"<= {most:g}", ratio, most is None or ratio <= most,
            "CPU time of one thread, paired in the same run", pairs,
        )
    ]  # fmt: skip
    if "peer" in took:
        gain = float(np.median(took["peer"] / took["ours"]))
        rows.append(
            Row(
                f"{label}: times faster than {peer}, d=1e6, {MEMBERS} members",
                f">= {least:g}" if least else "reported", gain, gain >= least, "paired in the same run", pairs,
            )
        )  # fmt: skip
    return rows


def _small(name: str, options: Mapping[str, Any], claimed: bool) -> Row:
    step = generations(name, options, 1000)
    took = _paired({"ours": step}, 200)["ours"]
    best = float(np.median(took)) * 1e3
    label = name + "".join(f", {v}" for v in options.values())
    return Row(
        f"{label}: milliseconds of CPU time for ask + tell, d=1e3, {MEMBERS} members",
        "<= 0.5" if claimed else "reported", best, not claimed or best <= 0.5, "this machine", 200,
    )  # fmt: skip


def _rows(pairs: int) -> list[Row]:
    import torch

    torch.set_num_threads(1)
    rows: list[Row] = []
    for name, options, most, peer, least in CASES:
        if name in SOLVERS:
            rows += _case(name, options, most, peer, least, pairs)
    return rows + [_small(name, options, most is not None) for name, options, most, *_ in CASES if name in SOLVERS]


def population(pairs: int = 5) -> list[Row]:
    """Cost of one generation at a million variables, torch on one thread, against bandwidth, EvoTorch and CBXpy."""
    return fresh_rows("population", f"_rows({pairs})")
