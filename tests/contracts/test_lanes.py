"""Persistent inner problems: lanes, ``commit``, ``ended``, and evolution strategies that live on them.

An inner problem (training with some hyper-parameters, a simulation) is unrolled a few steps at a time.
The oracle keeps one inner state per *lane*; a batch says which lane each member continues and whether
the lanes advance; the answer says where an inner problem ended. The solvers differ only in which noise
they credit with a loss: the noise of this unroll (truncated ES, biased), the sum over the episode (PES:
Vicol et al. 2021, arXiv:2112.13835), or the one draw the episode began with (ES-Single: Vicol et al.
2023, arXiv:2304.11153).

The inner problem is influence balancing (Tallec and Ollivier 2017, arXiv:1702.05043, section 4.1): 23
units pass their activity on to the left; the parameter pushes the first ten up and the other thirteen
down. What it does at once is the opposite of what it does in the long run, which fools truncation. The
minimum is at theta = -1/6.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

import dfo
from dfo.batch import Points
from dfo.components.stages import Staged
from dfo.feedback import Values
from dfo.random import Key, normal
from dfo.run.packing import register
from dfo.run.stopping import MaxSteps

PUSH = np.where(np.arange(23) < 10, 1.0, -1.0)


@dataclass(frozen=True)
class InfluenceBalancing:
    """``s <- A s + theta b`` with A = (I + shift) / 2, from s = 1; loss ``(s_0 - 1)^2 / 2`` per step.

    An unroll stops where its inner problem ends: ``losses`` are NaN from there on, the loss of the unroll
    is the sum of what was run, and the lane begins anew with the next unroll.
    """

    steps: int = 1  # of one unroll
    horizon: float = np.inf  # steps of one episode

    gives: ClassVar = frozenset({"values", "ended"})
    max_batch: ClassVar = None

    def start(self, lanes, key):
        return np.ones((lanes, 23)), np.zeros(lanes, int)

    def evaluate(self, batch, memory):
        states, ages = memory if batch.lane is not None else self.start(len(batch), Key(0))
        lane = np.arange(len(batch)) if batch.lane is None else batch.lane
        theta, s, age = batch.dense()[:, :1], states[lane], ages[lane]  # (n, 1), (n, 23), (n,)
        losses = np.full((len(batch), self.steps), np.nan)
        for k in range(self.steps):
            live = age < self.horizon
            pushed = 0.5 * s + theta * PUSH
            pushed[:, :-1] += 0.5 * s[:, 1:]
            s = np.where(live[:, None], pushed, s)
            losses[live, k] = 0.5 * (s[live, 0] - 1.0) ** 2
            age = age + live
        ended = age >= self.horizon
        told = Values(np.nansum(losses, axis=1), ended=ended, losses=losses)
        if batch.lane is None or not batch.commit:
            return told, memory
        states, ages = states.copy(), ages.copy()  # a new memory: the old one stays what it was
        states[lane], ages[lane] = np.where(ended[:, None], 1.0, s), np.where(ended, 0, age)
        return told, (states, ages)


@register
@dataclass(frozen=True, eq=False)
class State:
    x: Any  # (d,)
    now: Any  # (pairs, d) unit noise of this unroll
    trail: Any  # (pairs, d) unit noise credited with its losses
    g: Any  # (d,) the last estimate
    key: Key
    step: int
    stage: str = ""


@dataclass(frozen=True)
class PersistentES:
    """Antithetic evolution strategies whose members keep their lanes; the memory of noise makes the difference."""

    memory: Literal["single", "sum"] = "single"
    lr: float = 1e-4
    radius: float = 0.1
    pairs: int = 500

    needs: ClassVar = frozenset({"values", "ended"})

    @property
    def lanes(self):
        return 2 * self.pairs

    def init(self, x0, key):
        now = normal(key.child(0), (self.pairs, x0.size))
        return State(x0, now, now, 0 * x0, key, 0)

    def ask(self, s):
        move = self.radius * s.now
        return Points(np.concatenate([s.x + move, s.x - move]), lane=np.arange(self.lanes), step=s.step)

    def tell(self, s, batch, told):
        plus, minus = told.f.reshape(2, -1)
        g = (plus - minus) @ s.trail / (2 * self.radius * self.pairs)
        ended = told.ended[: self.pairs, None]  # both members of a pair end together
        fresh = normal(s.key.child(s.step + 1), s.now.shape)
        now = np.where(ended, fresh, s.now) if self.memory == "single" else fresh
        trail = now if self.memory == "single" else np.where(ended, 0.0, s.trail) + now
        return replace(s, x=s.x - self.lr * g, now=now, trail=trail, g=g, step=s.step + 1)

    def recommend(self, s):
        return s.x


@dataclass(frozen=True)
class TruncatedES(Staged):
    """All members look ahead from one inner state, which then follows the mean alone: blind to the past."""

    lr: float = 1e-4
    radius: float = 0.1
    pairs: int = 500

    stages: ClassVar = ("look", "follow")
    needs: ClassVar = frozenset({"values", "ended"})
    lanes: ClassVar = 1

    def init(self, x0, key):
        return State(x0, None, None, 0 * x0, key, 0, "look")

    def noise(self, s):
        return normal(s.key.child(s.step), (self.pairs, s.x.size))

    def ask_look(self, s):
        move, lane = self.radius * self.noise(s), np.zeros(2 * self.pairs, int)
        return Points(np.concatenate([s.x + move, s.x - move]), lane=lane, commit=False, step=s.step)

    def tell_look(self, s, batch, told):
        plus, minus = told.f.reshape(2, -1)
        g = (plus - minus) @ self.noise(s) / (2 * self.radius * self.pairs)
        return replace(s, g=g, stage="follow", step=s.step + 1)

    def ask_follow(self, s):
        return Points(s.x[None], lane=np.zeros(1, int), step=s.step)

    def tell_follow(self, s, batch, told):
        return replace(s, x=s.x - self.lr * s.g, stage="look", step=s.step + 1)

    def recommend(self, s):
        return s.x


# ---------------------------------------------------------------------- what the methods are known to do


@pytest.mark.parametrize("memory", ["single", "sum"])
def test_persistent_es_finds_the_long_run_optimum(memory):
    res = dfo.minimize(
        InfluenceBalancing(), [0.5], method=PersistentES(memory), noise=True, budget=10**7, stop=dfo.MaxSteps(1500)
    )
    assert abs(res.x[0] + 1 / 6) < 1e-3


def test_truncated_es_goes_the_wrong_way():
    res = dfo.minimize(
        InfluenceBalancing(), [0.5], method=TruncatedES(), noise=True, budget=10**7, stop=dfo.MaxSteps(3000)
    )
    assert res.x[0] > 0.9  # two steps an update


def test_the_result_of_a_run_on_lanes_is_the_recommendation():
    seen = []
    res = dfo.minimize(
        InfluenceBalancing(), [0.5], method=PersistentES(), budget=10**6, stop=dfo.MaxSteps(300),
        callback=lambda progress: seen.append(progress.recommended()),
    )  # fmt: skip
    np.testing.assert_array_equal(res.x, seen[-1])


def full_es(theta, unit, radius, horizon):
    """Return the textbook estimate: every member unrolled from the start to the end."""
    members = np.concatenate([theta + radius * unit, theta - radius * unit])
    told, _ = InfluenceBalancing(horizon, horizon).evaluate(Points(members), ())
    plus, minus = told.f.reshape(2, -1)
    return (plus - minus) @ unit / (2 * radius * len(unit))


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 13])
def test_es_single_sums_to_full_es_over_an_episode_that_ends_inside_an_unroll(steps, begin):
    horizon, solver = 10, PersistentES("single", lr=0.0, pairs=20)
    loop = begin(solver, InfluenceBalancing(steps, horizon), np.array([0.3]))
    for _ in range(3):  # three episodes, each with a noise of its own
        unit, total = loop.state.now, 0.0
        for _ in range(-(-horizon // steps)):
            loop.session.stop = MaxSteps(loop.session.nit + 1)
            loop.go()
            total = total + loop.state.g
        np.testing.assert_allclose(total, full_es(0.3, unit, solver.radius, horizon), rtol=1e-10)
        assert not (loop.state.now == unit).any()


# ---------------------------------------------------------------------- what lanes promise


def probe(oracle, memory, theta, lane, commit=True):
    told, memory = oracle.evaluate(Points(np.array(theta)[:, None], lane=np.array(lane), commit=commit), memory)
    return told, memory


@pytest.fixture
def aged():
    """An oracle with a memory in which no two lanes are equal: four lanes, two of them near their end."""
    oracle = InfluenceBalancing(steps=4, horizon=10)
    memory = oracle.start(4, Key(0))
    for lane, rounds in enumerate([0, 1, 2, 2]):
        for _ in range(rounds):
            _, memory = probe(oracle, memory, [0.1 * lane], [lane])
    return oracle, memory


def test_permuting_lanes_permutes_answers_and_nothing_else(aged):
    oracle, memory = aged
    theta, order = np.array([0.5, -0.2, 0.1, 0.7]), np.array([2, 0, 3, 1])
    told, after = probe(oracle, memory, theta, np.arange(4))
    other, after_other = probe(oracle, memory, theta[order], order)
    np.testing.assert_array_equal(other.f, told.f[order])
    np.testing.assert_array_equal(other.ended, told.ended[order])
    for one, two in zip(after, after_other, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_lane_does_not_notice_the_others(aged):
    oracle, memory = aged
    together, after = probe(oracle, memory, [0.5, -0.2], [1, 3])
    alone, after_alone = probe(oracle, memory, [-0.2], [3])
    assert alone.f[0] == together.f[1]
    np.testing.assert_array_equal(after[0][3], after_alone[0][3])
    np.testing.assert_array_equal(after[0][[0, 2]], memory[0][[0, 2]])


def test_without_commit_nothing_is_remembered(aged):
    oracle, memory = aged
    looked, after = probe(oracle, memory, [0.5, 0.4, 0.3], [1, 1, 1], commit=False)
    assert after is memory
    assert len(set(looked.f)) == 3
    again, _ = probe(oracle, memory, [0.5, 0.4, 0.3], [1, 1, 1], commit=False)
    np.testing.assert_array_equal(looked.f, again.f)


def test_an_inner_problem_that_ends_inside_an_unroll_stops_there_and_begins_anew(aged):
    oracle, memory = aged
    told, after = probe(oracle, memory, [0.1, 0.2, 0.3], [0, 2, 3])
    np.testing.assert_array_equal(told.ended, [False, True, True])
    np.testing.assert_array_equal(np.isnan(told.losses).sum(axis=1), [0, 2, 2])  # ten steps are four, four, two
    np.testing.assert_array_equal(told.f, np.nansum(told.losses, axis=1))
    np.testing.assert_array_equal(after[0][[2, 3]], 1.0)
    np.testing.assert_array_equal(after[1], [4, 4, 0, 0])


# ---------------------------------------------------------------------- what the run promises


def test_a_batch_cut_by_the_budget_is_completed_when_there_is_more(begin):
    def end(*budgets):
        loop = begin(PersistentES(pairs=5), InfluenceBalancing(4, 10), np.array([0.5]))
        for budget in budgets:
            loop.session.budget = budget
            loop.go()
            assert loop.session.nfev == budget
        return loop

    whole, cut = end(60), end(13, 14, 39, 60)
    np.testing.assert_array_equal(cut.state.x, whole.state.x)
    np.testing.assert_array_equal(cut.session.memory[0], whole.session.memory[0])
    np.testing.assert_array_equal(cut.session.history.fun, whole.session.history.fun)


def test_saved_in_the_middle_of_an_episode_it_goes_on(begin, reloaded):
    loops = [begin(PersistentES("sum", pairs=4), InfluenceBalancing(4, 10), np.array([0.5]), steps=4) for _ in range(2)]
    for loop in loops:
        loop.go()
    loops[0].state, loops[0].session.memory = reloaded((loops[0].state, loops[0].session.memory))
    for loop in loops:
        loop.session.stop = MaxSteps(20)
        loop.go()
    np.testing.assert_array_equal(loops[0].state.x, loops[1].state.x)


def test_an_oracle_without_lanes_is_refused_before_it_is_asked():
    with pytest.raises(dfo.errors.IncompatibleOracle, match="needs ended, values"):
        dfo.minimize(lambda x: 1 / 0, [0.5], method=PersistentES())
