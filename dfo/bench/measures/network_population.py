"""Populations of networks: what evaluating them and running a generation costs, against plain inference and peers.

The limit is plain inference: the same number of rows through one set of weights, in the best of a few chunks. All
figures are CPU time of one thread, in pairs (limit, ours, limit, a peer, ...) and divided by the limit just before;
reported are medians over the pairs. Ours are timed with directions that exist already ("given") or are drawn inside
("drawn"), and as whole generations of an optimizer: draw, evaluate at both ends, move the weights. Peers that are not
installed are left out, and a row says so. Ask and tell of flat populations have a measure of their own, ``population``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfo.bench.measures.fresh import forget_peak, fresh, fresh_rows, peak
from dfo.bench.measures.row import Row

__all__ = ["GOALS", "Goal", "network_population", "ours"]

SIGMA = 0.01

ROOM = 1 << 28
"""Bytes of drawn numbers that are kept for the update; what is needed of it is far less, except at full rank."""


@dataclass(frozen=True)
class Goal:
    """What is claimed of one way to evaluate one workload.

    Args:
        work: letter of the workload.
        law: ``rank 1``, ``rank 4`` (with ``, gaussian factors``), ``gaussian``, ``rademacher``, ``table``.
        what: ``given``, ``drawn`` or ``generation``.
        most: most times the limit; None where it is only reported.
        peers: least times faster than a peer; 0 where it is only reported.
        label: number of the goal.
    """

    work: str
    law: str
    what: str
    most: float | None
    peers: Mapping[str, float]
    label: str = ""


GOALS: tuple[Goal, ...] = (
    Goal("a", "rank 1", "given", 0.45, {"EvoTorch NEProblem": 6.0, "vmap": 0.0, "evosax": 0.0}, "G1"),
    Goal("a", "rank 1", "drawn", None, {"HyperscaleES r=1 (draws)": 1.25}, "G1"),
    Goal("a", "rank 4", "drawn", None, {"EvoX VirtualLoRA r=4 (draws)": 5.0, "HyperscaleES r=4 (draws)": 0.0}, "G1"),
    Goal("a", "gaussian", "given", None, {"EvoTorch NEProblem": 0.0, "EvoX SupervisedLearning": 0.0, "loop": 0.0}),
    Goal("a", "rank 1", "generation", 0.55, {"EvoTorch PGPE": 30.0, "evosax Open_ES": 0.0}, "G2"),
    Goal("a", "rank 4", "generation", None, {"EvoX VirtualLoRAES r=4": 7.0}, "G2"),
    Goal("a", "gaussian", "generation", 4.0, {"EvoTorch PGPE": 5.0, "vmap + randn": 2.0}, "G3"),
    Goal("a", "table", "generation", 3.0, {}, "G3"),
    Goal("a", "rademacher", "generation", None, {}),
    Goal("a", "rank 1, gaussian factors", "generation", None, {}),
    Goal("b", "gaussian", "given", 1.05, {"loop": 1.0, "EvoX SupervisedLearning": 1.8, "CBXpy eval_losses": 1.8}, "G5"),
    Goal("b", "rank 1", "given", 1.05, {"loop": 1.0, "EvoTorch NEProblem": 0.0, "evosax": 0.0}, "G5"),
    Goal("b", "rank 1", "generation", None, {"loop + randn": 0.0, "EvoTorch PGPE": 0.0}),
    Goal("c", "rank 1", "given", 1.15, {"EvoTorch NEProblem": 0.0, "vmap": 0.0, "evosax": 0.0}, "G4"),
    Goal("c", "rank 4", "given", 1.2, {}, "G4"),
    Goal("c", "gaussian", "given", None, {"EvoTorch NEProblem": 0.0, "vmap": 0.0}),
    Goal("c", "rank 1", "generation", 1.2, {"EvoTorch PGPE": 3.3, "vmap + randn": 0.0}, "G4"),
    Goal("c", "gaussian", "generation", None, {"EvoTorch PGPE": 0.0}),
    Goal("d", "rank 1", "given", 2.5, {"EvoTorch VecGymNE Policy": 8.0, "evosax": 0.0}, "G6"),
    Goal("d", "rank 4", "given", None, {}),
    Goal("d", "rank 1", "drawn", None, {"HyperscaleES r=1 (draws)": 0.0}),
    Goal("d", "gaussian", "given", 12.0, {"EvoTorch VecGymNE Policy": 0.0, "vmap": 0.0}, "G6"),
    Goal("d", "rank 1", "generation", None, {"vmap + randn": 0.0, "evosax Open_ES": 0.0}),
)
"""What is claimed, and what is reported beside it."""

MEMORY = (("a", "rank 1", 30.0, "G10"), ("a", "rank 4", None, ""), ("c", "rank 1", None, ""))
"""Workload, law, most MiB above a plain pass of one member, number of the goal."""


# ---------------------------------------------------------------------------------------------- ours


def _law(name: str) -> Any:
    from dfo.directions import Gaussian, LowRank, NoiseTable, Rademacher

    if name.startswith("rank "):
        rank, _, factors = name.removeprefix("rank ").partition(", ")
        return LowRank(rank=int(rank), entries="gaussian" if factors == "gaussian factors" else "rademacher")
    return {"gaussian": Gaussian, "rademacher": Rademacher, "table": NoiseTable}[name]()


def ours(work: Any, law: str, what: str) -> Callable[[], object]:
    """Return what evaluates the members of a workload, or runs a generation of an evolution strategy.

    Args:
        work: a workload.
        law: of the directions; one a member where each sees an example of its own, else one for two.
        what: as in :class:`Goal`.
    """
    from dfo.directions import Directions
    from dfo.nn.engine import Engine
    from dfo.nn.fronts import ES
    from dfo.nn.members import Draws
    from dfo.nn.update import Term, move
    from dfo.random import Key

    batch = (work.x, work.y)
    if what == "generation" and not work.own:
        front = ES(work.module, 1e-9, population=work.members, sigma=SIGMA, directions=_law(law), room=ROOM)
        return lambda: front.step(work.loss, batch)
    per = 1 if work.own else 2
    engine, count, each = Engine(work.module, work.loss), work.members // per, np.arange(work.members)
    index, scale, step = each // per, SIGMA * (1.0 - 2.0 * (each % 2)), [0]

    def draws() -> Draws:
        step[0] += 1
        return Draws(Directions(_law(law), Key(0).child(step[0]), count, engine.tensors), engine.tensors, ROOM)

    held = draws()

    def once() -> object:
        now = held if what == "given" else draws()
        told = engine.losses(batch, now, index, scale, share=not work.own)
        if not engine.together:
            raise RuntimeError(engine.describe())
        if what == "generation":
            f = told.mean(1).numpy()
            move(engine.tensors, [Term(now, 1e-9 * (f - f.mean()) / f.std(), [(0, count)])], Key(1).child(step[0]))
        return told

    return once


# ---------------------------------------------------------------------------------------------- measuring


def _peers(goals: Sequence[Goal]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the steps of the peers that a workload's goals name, and why others are left out."""
    from dfo.bench.measures.network_peers import FORWARD, GENERATION
    from dfo.bench.measures.network_workloads import WORKLOADS

    steps, missing = dict[str, Any](), dict[str, str]()
    for name in dict.fromkeys(name for goal in goals for name in goal.peers):
        try:
            made = {**FORWARD, **GENERATION}[name](WORKLOADS[goals[0].work]())
        except ImportError as error:
            missing[name] = str(error).splitlines()[0]
            continue
        if made is None:
            missing[name] = "it cannot do this workload"
        else:
            steps[name] = made
    return steps, missing


def _title(goal: Goal) -> str:
    number = f"{goal.label} " if goal.label else ""
    return f"{number}{{name}}: {goal.law}, {goal.what}"


def _rows(letter: str, pairs: int) -> list[Row]:
    import torch

    from dfo.bench.measures.network_workloads import WORKLOADS, limit, paired

    torch.set_num_threads(1)
    torch.manual_seed(0)
    goals, work = [goal for goal in GOALS if goal.work == letter], WORKLOADS[letter]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps, missing = _peers(goals)
        for goal in goals:
            steps[_title(goal)] = ours(WORKLOADS[letter](), goal.law, goal.what)
        if letter == "b":
            steps["channels last"] = limit(WORKLOADS[letter](), channels_last=True)
        ratios = paired(limit(work), steps, pairs, work.repeats)
    rows = [row for goal in goals for row in _judged(goal, work.name, ratios, missing, pairs)]
    reported = {name: r for name, r in ratios.items() if name not in {_title(goal) for goal in goals}}
    return rows + [
        Row(f"{work.name}: {name} / limit", "reported", float(np.median(r)), True, SOURCE, pairs, _spread(r))
        for name, r in reported.items()
    ]


SOURCE = "CPU time of one thread, paired in the same run"


def _spread(ratios: Any) -> str:
    return f"pairs {float(np.min(ratios)):.3g}..{float(np.max(ratios)):.3g}"


def _judged(goal: Goal, name: str, ratios: Mapping[str, Any], missing: Mapping[str, str], pairs: int) -> list[Row]:
    mine, title = ratios[_title(goal)], _title(goal).format(name=name)
    at = float(np.median(mine))
    rows = [
        Row(f"{title} / limit", "reported" if goal.most is None else f"<= {goal.most:g}", at,
            goal.most is None or at <= goal.most, SOURCE, pairs, _spread(mine))
    ]  # fmt: skip
    for peer, least in goal.peers.items():
        wanted = f">= {least:g}" if least else "reported"
        if peer in missing:
            rows.append(
                Row(
                    f"{title}: times faster than {peer}",
                    wanted,
                    float("nan"),
                    least == 0.0,
                    f"left out: {missing[peer]}",
                    0,
                )
            )
            continue
        gain = float(np.median(ratios[peer] / mine))
        rows.append(
            Row(
                f"{title}: times faster than {peer}",
                wanted,
                gain,
                gain >= least,
                SOURCE,
                pairs,
                _spread(ratios[peer] / mine),
            )
        )
    return rows


# ---------------------------------------------------------------------------------------------- memory


def _mebibytes(letter: str, law: str, what: str) -> float:
    """Return what a generation needs above a plain pass of one member, in MiB; to be called in a fresh process."""
    import torch

    from dfo.bench.measures.network_workloads import WORKLOADS

    torch.set_num_threads(1)
    work = WORKLOADS[letter]()
    step = ours(work, law, what)
    with torch.no_grad():
        work.loss(work.module, (work.x, work.y))
    forget_peak()
    before = peak()
    for _ in range(3):
        step()
    return peak() - before


# ---------------------------------------------------------------------------------------------- the measure


ALONE = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
"""One thread for JAX too."""


RUNS = 5
"""Processes whose memory is taken: what the allocator holds differs by ten MiB from one to the next."""


def network_population(pairs: int = 5) -> list[Row]:
    """Populations of four networks, forward and whole generations, against plain inference and five libraries."""
    rows: list[Row] = []
    for letter in "abcd":
        rows += fresh_rows("network_population", f"_rows({letter!r}, {pairs})", ALONE)
    for letter, law, most, label in MEMORY:
        call = f"m._mebibytes({letter!r}, {law!r}, 'generation')"
        each = [float(fresh("network_population", call, {**ALONE, "RUN": str(run)})) for run in range(RUNS)]
        need = float(np.median(each))
        claim = f"{label} ({letter}) {law}, generation: MiB above a plain pass of one member".strip()
        wanted, spread = "reported" if most is None else f"<= {most:g}", f"runs {min(each):.3g}..{max(each):.3g}"
        source = "largest resident memory of a fresh process, median of the runs"
        rows.append(Row(claim, wanted, need, most is None or need <= most, source, RUNS, spread))
    return rows
