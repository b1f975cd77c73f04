"""Points evaluated elsewhere: solvers that share what they find, and data known before the run.

The exemplar is a portfolio. It is a solver made of solvers: they take turns, and whoever was not asked
observes the best point of the one who was. The run around it needs to know nothing of this: one budget,
one history, one state that is saved and loaded.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import dfo
from dfo.batch import Points
from dfo.random import Key
from dfo.run.packing import register
from dfo.run.stopping import MaxSteps


@register
@dataclass(frozen=True, eq=False)
class State:
    states: tuple  # of the members
    step: int


@dataclass(frozen=True)
class TakingTurns:
    """A portfolio whose members take turns and observe each other's best points."""

    members: tuple

    needs: ClassVar = frozenset({"values"})

    def plan(self, task):
        return replace(self, members=tuple(m.plan(task) if hasattr(m, "plan") else m for m in self.members))

    def init(self, x0, key):
        return State(tuple(m.init(x0, key.child(i)) for i, m in enumerate(self.members)), 0)

    def turn(self, s):
        return s.step % len(self.members)

    def ask(self, s):
        return replace(self.members[self.turn(s)].ask(s.states[self.turn(s)]), step=s.step)

    def tell(self, s, batch, told):
        best = int(np.argmin(told.merit()))
        point, value = batch.member(best)[None], told.merit()[best : best + 1]
        states = list(s.states)
        for i, member in enumerate(self.members):
            if i == self.turn(s):
                states[i] = member.tell(states[i], batch, told)
            elif hasattr(member, "observe") and np.isfinite(value[0]):
                states[i] = member.observe(states[i], point, value)
        return State(tuple(states), s.step + 1)

    def recommend(self, s):
        return self.members[0].recommend(s.states[0])


@dataclass(frozen=True)
class Stranger:
    """Asks about one and the same point for ever: what a lucky guess looks like to the others."""

    x: tuple

    needs: ClassVar = frozenset({"ranking"})

    def init(self, x0, key):
        return 0

    def ask(self, s):
        return Points(np.array([self.x]), step=s)

    def tell(self, s, batch, told):
        return s + 1

    def recommend(self, s):
        return np.array(self.x)


def rastrigin(x):
    return float(10 * x.size + (x * x - 10 * np.cos(2 * np.pi * x)).sum())


START, GUESS = np.full(3, 4.2), (1.0, 0.0, 0.0)  # rastrigin has a local minimum of 1 near the guess
PAIR = TakingTurns((dfo.CMA(sigma=0.3, restarts="none"), dfo.RandomSearch(radius=8.0, batch=8)))


def planned(portfolio, d=3):
    return portfolio.plan(dfo.Task(dfo.Free(d), budget=1000))


def test_the_mean_moves_to_a_better_point_that_somebody_else_found(begin):
    loop = begin(planned(TakingTurns((dfo.CMA(sigma=0.3), Stranger(GUESS)))), dfo.Function(rastrigin), START, steps=1)
    loop.go()
    assert np.linalg.norm(loop.state.states[0].mean - START) < 2.0
    loop.session.stop = MaxSteps(2)
    loop.go()
    np.testing.assert_array_equal(loop.state.states[0].mean, GUESS)
    assert loop.state.states[0].best == rastrigin(np.array(GUESS))


def test_the_mean_stays_when_the_point_is_worse(begin):
    means = []
    for portfolio in (TakingTurns((dfo.CMA(), Stranger((9.0,) * 3))), TakingTurns((dfo.CMA(),))):
        loop = begin(planned(portfolio), dfo.Function(rastrigin), START, steps=len(portfolio.members) * 5)
        loop.go()
        means.append(loop.state.states[0].mean)
    np.testing.assert_array_equal(*means)


@pytest.mark.parametrize("budget", [1, 8, 203])
def test_both_spend_one_budget(budget):
    res = dfo.minimize(rastrigin, START, method=PAIR, budget=budget)
    assert res.nfev == budget == len(res.history)
    assert res.fun == res.history.fun.min() == rastrigin(res.x)


@dataclass(frozen=True)
class Gauged(TakingTurns):
    """Reports the lowest value that the first member knows."""

    def gauges(self, s):
        return {"known": s.states[0].best}


@pytest.mark.parametrize("bounds", [None, [(-10, 10)] * 3])
@pytest.mark.parametrize("seed", range(3))
def test_what_one_finds_the_other_goes_on_from(seed, bounds):
    """After every turn the strategy knows a value as low as the lowest of both, inside bounds as outside."""
    lowest, known = [], []

    def watch(progress):
        lowest.append(progress.best_fun)
        known.append(progress.gauges()["known"])

    dfo.minimize(rastrigin, START, method=Gauged(PAIR.members), bounds=bounds, budget=600, seed=seed, callback=watch)
    assert lowest == known
    assert len(set(lowest)) > 1


def test_random_search_remembers_what_it_observes():
    solver = planned(PAIR).members[1]
    state = solver.observe(solver.init(START, Key(0)), np.array([GUESS]), np.array([1.0]))
    np.testing.assert_array_equal(solver.recommend(state), GUESS)


def test_saved_between_turns_it_goes_on(begin, reloaded):
    through, stopped = (begin(planned(PAIR), dfo.Function(rastrigin), START, steps=20) for _ in range(2))
    through.go()
    for steps in (1, 2, 7, 20):
        stopped.session.stop = MaxSteps(steps)
        stopped.go()
        stopped.state = reloaded(stopped.state)
    np.testing.assert_array_equal(stopped.session.history.fun, through.session.history.fun)


# ---------------------------------------------------------------------- known before the run


@pytest.mark.parametrize("bounds", [None, [(-10, 10)] * 3])
def test_a_run_starts_from_the_best_of_what_is_known(bounds):
    X = np.array([START + 1, GUESS, START - 1])
    known = (X, [rastrigin(x) for x in X])
    asked = []
    res = dfo.minimize(
        lambda x: asked.append(x) or rastrigin(x), START, method=dfo.CMA(sigma=1e-3), bounds=bounds, known=known,
        budget=7,
    )  # fmt: skip
    assert np.abs(np.array(asked) - GUESS).max() < 0.1
    assert len(asked) == res.nfev == 7  # what is known costs nothing


def test_a_known_point_can_be_the_result():
    res = dfo.minimize(lambda x: 5.0, START, method="random", known=([GUESS, START], [1.0, float("nan")]), budget=10)
    np.testing.assert_array_equal(res.x, GUESS)
    assert res.fun == 1.0
    assert res.nfev == 10


def test_without_listening_a_solver_runs_as_if_nothing_were_known():
    runs = [dfo.minimize(rastrigin, START, method="random", known=k, budget=64) for k in (None, ([GUESS], [1.0]))]
    np.testing.assert_array_equal(runs[0].history.fun, runs[1].history.fun)
