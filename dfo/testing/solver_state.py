"""Laws about state, randomness and resumption."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.encodings import Identity
from dfo.errors import InvalidType
from dfo.feedback import Ranking
from dfo.oracles.function import Function
from dfo.run.loop import Loop, lanes_of
from dfo.run.packing import pack
from dfo.run.session import Session
from dfo.spaces import Free
from dfo.testing.equal import difference, identical, numbers
from dfo.testing.laws import Law, Skipped, expect, law
from dfo.testing.trial import STEPS, Subject, Trial, doubles, points_of, repacked

__all__ = ["BOOK", "DIMS", "SEEDS"]

BOOK: dict[str, Law] = {}
DIMS = range(1, 6)
SEEDS = (0, 1, 7, 2**32 - 1)


@law(BOOK, "unchanged")
def unchanged(s: Subject) -> None:
    """Using a solver changes neither its configuration, nor its class, nor the start.

    Broken by: optimizers that are their own state (cmaes, pycma, nevergrad), where a second run continues the first.
    """

    def body(d: int, seed: int, landscape: str) -> None:
        trial = s.on(landscape, d, seed)
        before, start = copy.deepcopy(_settings(trial.solver)), copy.deepcopy(trial.x0)
        state = trial.solver.init(trial.x0, trial.key)
        for _ in range(STEPS):
            if trial.ended(state):
                break
            batch = trial.solver.ask(state)
            state = trial.solver.tell(state, batch, trial.answer(batch))
            trial.solver.recommend(state)
        changed = difference(before, _settings(trial.solver))
        expect(not changed, f"the configuration changed during a run: {changed}")
        changed = difference(start, trial.x0)
        expect(not changed, f"the start was overwritten: x0{changed}")

    s.cases.each(body, d=DIMS, seed=SEEDS, landscape=s.landscapes)


def _settings(solver: Any) -> dict[str, Any]:
    """Return what a solver and its class hold, functions left out."""
    cls = type(solver)
    own = vars(solver) if hasattr(solver, "__dict__") else {n: getattr(solver, n) for n in cls.__dataclass_fields__}
    shared = {f"{cls.__name__}.{n}": v for n, v in vars(cls).items() if _is_data(v) and not n.startswith("__")}
    return {**own, **shared}


def _is_data(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, list, dict, set, tuple, frozenset, np.ndarray))


@law(BOOK, "ask-twice")
def ask_twice(s: Subject) -> None:
    """Asking twice gives the same batch to the last bit and leaves the state as it was.

    Broken by: every optimizer whose ``ask`` advances a generator (pycma, cmaes, nevergrad): a crash between
    ask and tell loses the question.
    """

    def body(d: int, seed: int, landscape: str) -> None:
        trial = s.on(landscape, d, seed)
        for state, batch in trial.steps():
            before = copy.deepcopy(state)
            found = difference(batch, trial.solver.ask(state))
            expect(not found, f"the second ask of step {batch.step} differs from the first: batch{found}")
            found = difference(before, state)
            expect(not found, f"ask changed the state: state{found}")
            found = difference(batch, trial.solver.ask(before))
            expect(not found, f"a copy of the state asks something else: batch{found}")

    s.cases.each(body, d=DIMS, seed=SEEDS, landscape=s.landscapes)


@law(BOOK, "resume")
def resume(s: Subject) -> None:
    """Stopped at any step, saved, loaded and continued, a run is the one that was never stopped, bit for bit.

    Broken by: scipy (no resumption at all), optuna (the sampler's generator is not stored, the resumed run is
    another), pymoo's CMA-ES (a Python generator, pymoo#312).
    """
    visited: set[str] = set()

    def body(d: int, seed: int, landscape: str, stop: int) -> None:
        trial = s.on(landscape, d, seed)
        every = stop == STEPS  # the last choice stops before each step, and so in every stage
        resumed = trial.steps(via=lambda state, i: repacked(state) if every or i == stop else state)
        for (state, batch), (other, again) in zip(trial.steps(), resumed, strict=True):
            visited.add(getattr(state, "stage", ""))
            found = difference(state, other) or difference(batch, again)
            expect(not found, f"at step {batch.step} the resumed run differs: {found}")

    stages = [{"d": 2, "seed": 0, "landscape": landscape, "stop": STEPS} for landscape in s.landscapes]
    s.cases.each(body, stages, d=DIMS, seed=SEEDS, landscape=s.landscapes, stop=range(STEPS + 1))
    if any(visited):
        s.cases.remark = f"in the stages {', '.join(sorted(visited))}"


@law(BOOK, "state-is-data")
def state_is_data(s: Subject) -> None:
    """A state holds arrays, numbers, strings, keys, None, tuples and dataclasses of these, nothing else.

    Broken by: optimizers that can be saved by pickle only, and then not always (cmaes#7, nevergrad#1355), with the
    code that a pickle may run (nevergrad's ``Optimizer.load``).
    """

    def body(d: int, seed: int, landscape: str) -> None:
        for state, _ in s.on(landscape, d, seed).steps():
            try:
                pack(state)
            except InvalidType as error:
                expect(False, str(error))
            found = difference(state, repacked(state))
            expect(not found, f"a part of the state does not come back: state{found}")

    s.cases.each(body, d=DIMS, seed=SEEDS, landscape=s.landscapes)


@law(BOOK, "global-rng")
def global_rng(s: Subject) -> None:
    """The global random states of numpy, torch and random are neither read nor written.

    Broken by: pycma (seeds numpy's and so resets the user's stream to a constant), nevergrad, evotorch's CMA-ES.
    """

    def body(d: int, seed: int, landscape: str) -> None:
        trial, paths = s.on(landscape, d, seed), []
        for user_seed in (1, 2):
            _set_globals(user_seed)
            before = _globals()
            paths.append(trial.path(8))
            changed = [name for name, state in _globals().items() if not identical(state, before[name])]
            expect(not changed, f"the global random state of {', '.join(changed)} was changed")
        expect(identical(*paths), "the points depend on the user's global random state")

    kept = _globals()
    try:
        s.cases.each(body, d=DIMS, seed=SEEDS, landscape=s.landscapes)
    finally:
        _restore(kept)


def _torch() -> Any:
    import sys

    return sys.modules.get("torch")


def _globals() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002
    if (torch := _torch()) is not None:
        states["torch"] = torch.get_rng_state()
    return states


def _set_globals(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if (torch := _torch()) is not None:
        torch.manual_seed(seed)


def _restore(states: dict[str, Any]) -> None:
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    if "torch" in states:
        _torch().set_rng_state(states["torch"])


@law(BOOK, "seeds")
def seeds(s: Subject) -> None:
    """Every integer from 0 on is a seed of its own, and equal seeds give equal runs.

    Broken by: pycma (seed 0 means the time, pycma#228), zo2 (0 is not a seed), and all that feed numpy's RandomState
    (32 bits). A solver that draws nothing gives one run for all seeds.
    """
    several = (0, 1, 5, 2**32 - 1, 2**32 + 5, 2**64 + 5)

    def body(d: int) -> None:
        def path(seed: int) -> list[Floats]:  # two runs: few and coarse draws may agree by chance
            return [*s.trial(d, seed).path(6), *s.trial(d + 4, seed).path(12)]

        paths = {seed: path(seed) for seed in several}
        for seed, once in paths.items():
            expect(identical(once, path(seed)), f"two runs with seed {seed} differ")
        equal = [(a, b) for a in several for b in several if a < b and identical(paths[a], paths[b])]
        all_pairs = len(several) * (len(several) - 1) // 2
        expect(len(equal) in (0, all_pairs), f"different seeds give the same run: {equal}")

    s.cases.each(body, d=DIMS)


@law(BOOK, "skipped-ranking")
def skipped_ranking(s: Subject) -> None:
    """A solver that needs rankings takes partial and skipped ones: it advances, and learns nothing from nothing.

    Broken by: every library that takes numbers only (scipy, cmaes, nevergrad, optuna).
    """
    if s.solver.needs != {"ranking"}:
        raise Skipped("it needs more than a ranking")

    def body(d: int, seed: int, skip: int) -> None:
        trial = s.trial(d, seed)
        state, step = trial.start(), -1
        for i in range(12):
            batch, before = trial.solver.ask(state), copy.deepcopy(trial.solver.recommend(state))
            expect(batch.step > step, f"after a ranking, step {step} is asked again")
            n, step = len(batch), batch.step
            told = Ranking(np.full(n, np.nan), skipped=True) if i >= skip else _top(trial, batch)
            state = trial.solver.tell(state, batch, told)
            bad = [where for where, x in numbers(state) if np.isnan(x).any()]
            expect(not bad, f"NaN in state{', state'.join(bad)} after a ranking")
            same = not told.skipped or identical(before, trial.solver.recommend(state))
            expect(same, "a skipped ranking moved the recommendation")

    s.cases.each(body, d=DIMS, seed=SEEDS, skip=range(12))


def _top(trial: Trial, batch: Any) -> Ranking:
    """Return a ranking of the best three, of all but the last member, which was not shown."""
    order = np.argsort(trial.fun(points_of(batch))[:-1], kind="stable")[:3]
    rank = Ranking.of_order(order.tolist(), len(batch)).rank
    rank[-1] = np.nan if len(batch) > 1 else rank[-1]
    return Ranking(rank)


@law(BOOK, "extended-budget")
def extended_budget(s: Subject) -> None:
    """A run cut in the middle of a batch is completed by a larger budget into the run that was never cut.

    Broken by: codes whose unit is the generation, which overrun the budget by the rest of it (pycma, cmaes, scipy's
    differential evolution) and cannot be continued from its middle.
    """

    def body(d: int, seed: int, cut: int) -> None:
        whole, parts = _history(s, d, seed, (80,)), _history(s, d, seed, (cut, cut, 80))
        expect(len(whole) == len(parts), f"{len(parts)} evaluations in two goes, {len(whole)} in one")
        at = next((i for i, (a, b) in enumerate(zip(whole, parts, strict=True)) if not identical(a, b)), None)
        expect(at is None, f"evaluation {at} differs after the budget was extended")

    s.cases.each(body, d=DIMS, seed=SEEDS, cut=range(80))


def _history(s: Subject, d: int, seed: int, budgets: tuple[int, ...]) -> list[Floats]:
    """Return the points evaluated when the budget is raised step by step."""
    trial = s.trial(d, seed)
    seen: list[Floats] = []

    def fun(x: Any) -> float:
        seen.append(doubles(x))
        return float(trial.fun(seen[-1][None])[0])

    asked = s.objective(fun)
    oracle = Function(fun) if asked is fun else asked
    session = Session(oracle, Identity(Free(d), trial.x0), budgets[0], lanes=lanes_of(trial.solver))
    loop = Loop(trial.solver, session, copy.deepcopy(trial.x0), trial.key)
    for budget in budgets:
        session.budget = budget
        loop.go()
        expect(session.nfev <= budget, f"{session.nfev} evaluations of {budget}")
    return seen
