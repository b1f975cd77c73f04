"""Genetic algorithms and novelty search: XOR, genomes, selection, operators, the maze with a pocket."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import dfo
from dfo.arrays import Array, Floats, to_numpy
from dfo.bench.measures.row import Row, interval
from dfo.bench.packs import make
from dfo.components.safe_mutation import divergence
from dfo.components.variation import crossed, polynomial_step, spread_factors
from dfo.feedback import Values
from dfo.protocols import Task
from dfo.random import Key, normal, uniform
from dfo.solvers import SOLVERS, solver_class
from dfo.spaces import Free

__all__ = [
    "differing_weights",
    "evolved",
    "genome_bytes",
    "kolmogorov",
    "maze_shares",
    "paper_genetic",
    "polynomial_distance",
    "sbx_distance",
    "selection_p_value",
    "xor_generations",
]

SUCH = "Such et al. 2017, arXiv:1712.06567"


def deep_ga(d: int, noisy: bool = False, **options: Any) -> Any:
    """Return a planned DeepGA in ``d`` free coordinates."""
    return solver_class("deep-ga")(**options).plan(Task(Free(d), noisy=noisy))


def evolved(solver: Any, fun: Any, x0: Array, key: Key, steps: int) -> list[Any]:
    """Return the states of a run by hand, the first one included; ``fun`` maps ``(n, d)`` to ``(n,)``."""
    states = [solver.init(x0, key)]
    for _ in range(steps):
        batch = solver.ask(states[-1])
        states.append(solver.tell(states[-1], batch, Values(np.asarray(to_numpy(fun(batch.dense())), dtype=float))))
    return states


def xor_generations(seeds: int) -> list[float]:
    """Return the generations until the XOR network's error is below 0.01; infinite after 100."""
    problem = make("deceptive-xor")
    solver = solver_class("deep-ga")(population=100, parents=10, sigma=0.1, spread=1.0)
    runs = [
        dfo.minimize(
            problem.fun, problem.x0, method=solver, budget=10_000, seed=seed, vectorized=True, stop=dfo.Target(0.01)
        )
        for seed in range(seeds)
    ]
    return [run.nfev / 100 if run.status == "target" else np.inf for run in runs]


def starts(d: int) -> list[Array]:
    """Return starts of every array library at hand, in single and double precision."""
    doubles = np.linspace(-1.0, 1.0, d)
    found: list[Any] = [doubles, doubles.astype(np.float32)]
    try:
        import torch
    except ImportError:
        return found
    return [*found, torch.tensor(doubles), torch.tensor(found[1])]


def differing_weights(d: int, generations: int) -> int:
    """Return how many decoded weights differ from the cached parents' by any bit, over all libraries and dtypes."""
    wrong = 0
    for x0 in starts(d):
        solver = deep_ga(d, population=20, parents=5, adapt="samr")
        last = evolved(solver, lambda X: (X * X).sum(axis=1), x0, Key(0), generations)[-1]
        for i, parent in enumerate(last.parents):
            decoded: Any = solver.decode(solver.genome(last, i), x0)
            wrong += int((decoded != parent).sum())
    return wrong


def selection_p_value(generations: int, parents: int = 10) -> float:
    """Return the p-value of the chi-square test that children are shared evenly among the parents."""
    from scipy import stats

    solver, counts = deep_ga(3, population=100, parents=parents), np.zeros(parents)
    state = evolved(solver, lambda X: (X * X).sum(axis=1), np.ones(3), Key(1), 1)[-1]
    for step in range(generations):
        counts += np.bincount(solver.ask(replace(state, step=step + 1)).origin, minlength=parents)
    return float(stats.chisquare(counts).pvalue)


def genome_bytes(d: int, generations: int, individuals: int) -> int:
    """Return the bytes that the genomes of one generation's individuals take in memory, what they share once."""
    solver = deep_ga(d, population=individuals, parents=2)
    state = solver.init(np.zeros(d, np.float32), Key(0))
    for step in range(generations):  # the values do not matter for the size: none is computed
        state = solver.tell(state, solver.ask(state), Values(uniform(Key(1, (step,)), (individuals,))))
    genomes = [solver.offspring(state, i) for i in range(individuals)]
    seen: dict[int, int] = {}

    def count(part: Any) -> None:
        if id(part) in seen:
            return
        seen[id(part)] = sys.getsizeof(part)
        for inner in part if isinstance(part, tuple) else vars(part).values() if hasattr(part, "__dict__") else ():
            count(inner)

    for genome in genomes:
        seen[id(genome)] = sys.getsizeof(genome) + sys.getsizeof(vars(genome))
        for part in vars(genome).values():
            count(part)
    return sum(seen.values())


def maze_shares(method: str, seeds: int, budget: int, first: int = 0, **options: Any) -> list[float]:
    """Return for each seed 1 where the walker reached the goal of the maze, else 0."""
    problem = make("deceptive-maze")
    solver = solver_class(method)(**options)
    return [
        float(
            dfo.minimize(
                problem.fun, problem.x0, method=solver, budget=budget, seed=first + seed, stop=dfo.Target(0.1)
            ).status
            == "target"
        )
        for seed in range(seeds)
    ]


def kolmogorov(sample: Floats, cdf: Any) -> float:
    """Return sqrt(n) times the distance between a sample's distribution and another; above 1.95 once in 1000."""
    ordered, n = np.sort(sample), len(sample)
    theory = cdf(ordered)
    above, below = np.arange(1, n + 1) / n - theory, theory - np.arange(n) / n
    return float(np.sqrt(n) * max(above.max(), below.max()))


def sbx_distance(n: int, eta: float = 15.0) -> float:
    """Return the Kolmogorov statistic of the spread factors of ``n`` crossed coordinates."""
    parents = np.stack([np.zeros(2 * n), np.ones(2 * n)])
    children = crossed("sbx", Key(3), parents, np.array([[0, 1]]), eta)
    spread = (children[1] - children[0])[children[0] != 0.0]

    def cdf(b: Floats) -> Floats:
        power = eta + 1.0
        return np.where(b <= 1.0, 0.5 * b**power, 1.0 - 0.5 * np.maximum(b, 1.0) ** -power)

    assert np.allclose(spread_factors(cdf(spread), eta), spread)
    return kolmogorov(spread, cdf)


def polynomial_distance(n: int, eta: float = 20.0) -> tuple[float, float]:
    """Return the Kolmogorov statistic and the mean size of ``n`` polynomial steps in the middle of the interval."""
    moved: Any = polynomial_step(np.full(n, 0.5), uniform(Key(4), (n,)), eta)
    size = np.abs(moved - 0.5)
    return kolmogorov(size, lambda t: 1.0 - (1.0 - t) ** (eta + 1.0)), float(size.mean())


def elite_rises(seeds: int, generations: int) -> int:
    """Return how often the elite's value rose from one generation to the next, without noise."""
    rises = 0
    for seed in range(seeds):
        states = evolved(deep_ga(13, spread=1.0), make("deceptive-xor").fun, np.zeros(13), Key(seed), generations)
        rises += int((np.diff([s.merits[0] for s in states[1:]]) > 0).sum())
    return rises


def luck(again: int, seeds: int, evaluations: int = 20_000) -> list[float]:
    """Return by how much the elite is worse than it looks, on a sphere with noise of standard deviation 1."""
    gaps = []
    for seed in range(seeds):
        solver, key = deep_ga(20, noisy=True, reevaluations=again), Key(seed, ("noise",))
        state, spent = solver.init(np.ones(20), Key(seed)), 0
        while spent < evaluations:
            batch = solver.ask(state)
            f = (batch.dense() ** 2).sum(axis=1) + normal(key.child(state.step), (len(batch),))
            state, spent = solver.tell(state, batch, Values(f)), spent + len(batch)
        gaps.append(float((state.parents[0] ** 2).sum() - state.merits[0]))
    return gaps


def calls_on_sphere(method: str, seeds: int, most: int = 100_000, **options: Any) -> float:
    """Return the median calls (at most ``most``) until ``|x|^2`` fell to 1 %, from normal starts, d = 100."""
    calls = []
    for seed in range(seeds):
        x0 = normal(Key(seed, ("start",)), (100,))
        res = dfo.minimize(
            lambda X: (X * X).sum(axis=1), x0, method=solver_class(method)(**options), budget=most, seed=seed,
            vectorized=True, stop=dfo.Target(0.01 * float(x0 @ x0)),
        )  # fmt: skip
        calls.append(res.nfev)
    return float(np.median(calls))


def safe_changes(count: int = 100, change: float = 0.1) -> Floats:
    """Return the changes of a small network's outputs by safe mutations whose target is ``change``."""
    inputs = normal(Key(8), (20, 3))

    def outputs(x: Any) -> Any:
        return np.tanh(np.tanh(inputs @ x[:12].reshape(3, 4)) @ (100.0 * x[12:]).reshape(4, 2))

    solver = deep_ga(20, population=count, outputs=outputs, change=change)
    state = evolved(solver, lambda X: (X * X).sum(axis=1), 0.3 * np.ones(20), Key(0), 1)[-1]
    batch = solver.ask(state)
    before = [outputs(parent) for parent in state.parents]
    return np.array([divergence(before[batch.origin[i]], outputs(batch.member(i))) for i in range(count)])


def trap_shares(method: str, seeds: int, budget: int, **options: Any) -> list[float]:
    """Return for each seed 1 where the optimum of the trap of 30 bits was found, else 0."""
    problem = make("deceptive-trap")
    solver = solver_class(method)(**options)
    stop = dfo.Target(-29.5)
    runs = [
        dfo.minimize(problem.fun, problem.space, method=solver, budget=budget, seed=s, stop=stop) for s in range(seeds)
    ]
    return [float(run.status == "target") for run in runs]


def by_ranking(seeds: int, budget: int) -> tuple[float, float]:
    """Return the medians of ``f / f(x0)`` of ``genetic`` on a sphere in 5 variables: by values, by rankings of 8."""
    x0, reached = np.linspace(1.0, 2.0, 5), ([], [])  # type: tuple[Floats, tuple[list[float], list[float]]]

    def judge(points: list[Any]) -> list[int]:
        return sorted(range(len(points)), key=lambda i: float(points[i] @ points[i]))

    for seed in range(seeds):
        for fun, into in zip((lambda x: float(x @ x), dfo.RankOracle(judge)), reached, strict=True):
            res = dfo.minimize(fun, x0, method="genetic", budget=budget, seed=seed)
            into.append(float(res.x @ res.x) / float(x0 @ x0))
    return float(np.median(reached[0])), float(np.median(reached[1]))


def _algorithm_rows() -> list[Row]:
    generations = xor_generations(10)
    p, rises = selection_p_value(200), elite_rises(5, 40)
    curse, cured = luck(0, 10), luck(3, 10)
    hit = float((np.abs(safe_changes() / 0.1 - 1.0) < 0.01).mean())
    wrong, size = differing_weights(1001, 20), genome_bytes(4_000_000, 100, 1000) / 1e6
    return [
        Row(
            "XOR, 2-3-1 tanh, P = 100, T = 10, sigma = 0.1, N(0, 1): most generations to MSE < 0.01",
            "< 100 in 10 of 10", float(max(generations)), max(generations) < 100, f"derived for {SUCH}", 10,
        ),
        Row(
            "the same, median generations", "8..26 (another program: 13.5)", float(np.median(generations)),
            bool(8 <= np.median(generations) <= 26), "independent simulation", 10, interval(generations),
        ),
        Row(
            "weights of decoded genomes that differ from the parents by any bit", "0", float(wrong), wrong == 0,
            f"{SUCH}, eq. 1", len(starts(1)),
        ),
        Row(
            "children of each of the T = 10 parents, 20,000 in all: p-value of uniformity", "> 0.001 (chi-square)",
            p, p > 0.001, f"{SUCH}, algorithm 1",
        ),
        Row("generations in which the elite got worse, no noise, XOR", "0 of 195", float(rises), rises == 0, SUCH, 5),
        Row(
            "noise 1 on a sphere, d = 20: the elite is worse than it looks by, E = 0", "> 0 (winner's curse)",
            float(np.mean(curse)), float(np.mean(curse)) > 0, "theory: the least of many noisy values is lucky", 10,
            interval(curse),
        ),
        Row(
            "the same with E = 3 re-evaluations", "less than half of it", float(np.mean(cured)),
            float(np.mean(cured)) < 0.5 * float(np.mean(curse)), f"{SUCH}, section 3.1: elites are evaluated again", 10,
            interval(cured),
        ),
        Row(
            "1000 genomes of 4,000,000 weights at generation 100, megabytes", "< 5", size, size < 5.0,
            f"{SUCH}, section 3.1",
        ),
        Row(
            "safe mutations (SM-R), target 0.1: share of 100 whose outputs change by 0.1 +- 1 %", ">= 0.95", hit,
            hit >= 0.95, "Lehman et al. 2018, arXiv:1712.06563, section 4.1",
        ),
    ]  # fmt: skip


def _operator_rows() -> list[Row]:
    sbx, (steps, mean) = sbx_distance(100_000), polynomial_distance(100_000)
    return [
        Row(
            "SBX, eta = 15: sqrt(n) Kolmogorov distance of the spread factor", "< 1.95 (level 0.001)", sbx, sbx < 1.95,
            "Deb and Agrawal 1995, eq. 9",
        ),
        Row(
            "polynomial mutation, eta = 20: the same for the size of the step", "< 1.95 (level 0.001)", steps,
            steps < 1.95, "Deb and Goyal 1996",
        ),
        Row(
            "polynomial mutation, eta = 20: mean step", "1/22 +- 2 %", mean, abs(22 * mean - 1) < 0.02,
            "theory: 1 / (eta + 2)",
        ),
    ]  # fmt: skip


def _share(claim: str, expected: str, holds: Callable[[float], bool], source: str, runs: list[float]) -> Row:
    share = float(np.mean(runs))
    return Row(claim, expected, share, holds(share), source, len(runs), interval(runs, share=True))


def _search_rows() -> list[Row]:
    at: dict[str, Any] = {"sigma": 0.3, "spread": 1.0}
    reward, novel = maze_shares("deep-ga", 20, 10_000, **at), maze_shares("novelty", 20, 10_000, **at)
    strategy = maze_shares("novelty", 5, 60_000, variant="ns", lr=0.1, **at)
    trap, chance = (
        trap_shares("genetic", 10, 20_000, population=1000, parents=200, tournament=4),
        trap_shares("random", 3, 20_000),
    )
    values, ranks = by_ranking(11, 500)
    claim, source = "maze with a pocket: share of runs that reach the goal,", "only the direction is published: "
    such, conti = f"{source}{SUCH}, section 4.3", f"{source}Conti et al. 2018, arXiv:1712.06560, section 4.1"
    blocks = "one-point crossover inherits blocks whole"
    return [
        _share(f"{claim} deep-ga by reward, 10,000 walks", "<= 0.1", lambda x: x <= 0.1, such, reward),
        _share(f"{claim} GA-NS, 10,000 walks", ">= 0.9", lambda x: x >= 0.9, such, novel),
        _share(f"{claim} NS-ES, 60,000 walks", ">= 0.5", lambda x: x >= 0.5, conti, strategy),
        _share("trap of 30 bits: share of optima, genetic, 20,000 calls", ">= 0.9", lambda x: x >= 0.9, blocks, trap),
        _share("the same by random search", "0", lambda x: x == 0, "theory: 2^-30 a call", chance),
        Row(
            "genetic by rankings of 8, sphere d = 5, 500 shown: median f/f0", "<= 0.1", ranks, ranks <= 0.1,
            f"the law of the sphere; by values: {values:.2g}", 11,
        ),
    ]  # fmt: skip


def _against_snes() -> list[Row]:
    if "snes" not in SOLVERS:
        return []
    snes = calls_on_sphere("snes", 5)
    plain = calls_on_sphere("deep-ga", 5) / snes
    tuned = min(calls_on_sphere("deep-ga", 5, sigma=sigma) for sigma in (0.01, 0.03, 0.1, 0.3)) / snes
    claim, source = (
        "sphere, d = 100, to 1 % of f(x0): calls of deep-ga over calls of snes",
        "expected, no published figure",
    )
    return [
        Row(f"{claim}, defaults (at most 100,000 calls)", ">= 10", plain, plain >= 10, source, 5),
        Row(f"{claim}, best of four sigmas in hindsight", ">= 10", tuned, tuned >= 10, source, 5),
    ]


def paper_genetic() -> list[Row]:
    """Deep GA, operators, novelty: XOR, genomes to the bit, selection, re-evaluation, the maze, traps, rankings."""
    return [*_algorithm_rows(), *_operator_rows(), *_search_rows(), *_against_snes()]
