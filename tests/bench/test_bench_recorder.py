"""The recorder counts what the method asked for, and judges it by the merit of the problem."""

import time
from dataclasses import replace

import numpy as np
import pytest

import dfo
from dfo.bench import Recorder, solve
from dfo.bench.budget import Budget
from dfo.bench.cells import run_cell
from dfo.bench.methods import check_method
from dfo.bench.plan import Cell
from dfo.bench.recorder import thinned
from dfo.bench.targets import TARGETS
from dfo.errors import InvalidArgument
from dfo.oracles.rank import RankOracle
from dfo.protocols import Problem
from dfo.spaces import Box

BOX = Box([-5.0, -5.0], [5.0, 5.0])


def problem(fun, **more):
    return Problem("p", BOX, fun, np.ones(2), **{"f_opt": 0.0, **more})


def test_coco_targets_are_51_from_1e2_to_1e_minus_8():
    targets = TARGETS["coco"]
    assert len(targets) == 51
    assert targets[0] == 100.0
    assert targets[-1] == pytest.approx(1e-8)
    assert np.diff(np.log10(targets)) == pytest.approx(np.full(50, -0.2))


def test_first_hits_are_counted_in_evaluations():
    values = iter([50.0, 60.0, 5.0, 0.5, 0.7])
    recorder = Recorder(problem(lambda x: next(values)), (100.0, 10.0, 1.0, 0.1))
    assert [recorder(np.zeros(2)) for _ in range(5)] == [50.0, 60.0, 5.0, 0.5, 0.7]
    assert recorder.evaluations == 5
    assert recorder.hits == [1, 3, 4]
    assert recorder.steps == [(1, 50.0), (3, 5.0), (4, 0.5)]
    assert not recorder.done
    assert recorder.stop(None) is None


def test_gaps_are_measured_from_f_opt():
    recorder = Recorder(problem(lambda x: -9.0, f_opt=-10.0), (1.0,))
    recorder(np.zeros(2))
    assert recorder.best == 1.0
    assert recorder.done
    assert recorder.stop(None)[0] == "target"


def test_a_vectorised_batch_counts_member_by_member():
    batch = np.array([9.0, np.nan, 3.0, 4.0, 2.0, np.inf, -np.inf])
    recorder = Recorder(problem(lambda X: batch, vectorized=True), (5.0, 2.5))
    recorder(np.zeros((7, 2)))
    assert recorder.evaluations == 7
    assert recorder.hits == [3, 5]
    assert recorder.steps == [(1, 9.0), (3, 3.0), (5, 2.0)]


def test_failed_values_are_no_progress():
    values = iter([np.nan, -np.inf, np.inf, None, "x", 3.0])
    recorder = Recorder(problem(lambda x: next(values)), (5.0,))
    for _ in range(6):
        recorder(np.zeros(2))
    assert recorder.steps == [(6, 3.0)]
    assert recorder.hits == [6]


def test_noisy_problems_are_measured_without_noise():
    recorder = Recorder(problem(lambda x: -100.0, measure=lambda x: float(x[0]), noisy=True), (10.0, 1.0))
    recorder(np.array([7.0, 0.0]))
    assert recorder.hits == [1]
    assert recorder.best == 7.0


def test_constrained_problems_add_the_violation_and_cannot_be_below_the_optimum():
    constrained = problem(lambda x: float(x[0]), constraint=lambda x: np.array([x[1], -1.0]), f_opt=-2.0)
    recorder = Recorder(constrained, (10.0,))
    recorder(np.array([-5.0, 3.0]))  # lower than the optimum, and infeasible by 3
    assert recorder.best == 3.0
    recorder(np.array([-1.0, -4.0]))  # feasible, 1 above
    assert recorder.best == 1.0


def test_without_targets_infeasible_points_do_not_count():
    constrained = problem(lambda x: float(x[0]), constraint=lambda x: x[1:], f_opt=None)
    recorder = Recorder(constrained)
    recorder(np.array([-5.0, 1.0]))
    assert recorder.steps == []
    recorder(np.array([4.0, -1.0]))
    assert recorder.steps == [(2, 4.0)]
    assert not recorder.done


def test_targets_need_an_optimum_and_a_function():
    with pytest.raises(InvalidArgument, match="f_opt"):
        Recorder(problem(lambda x: 1.0, f_opt=None), (1.0,))
    with pytest.raises(InvalidArgument, match="function or an oracle"):
        Recorder(problem(object()))


def test_thinned_keeps_what_is_needed():
    steps = [(1, 9.0), (4, 5.0), (6, 2.0), (90, 1.0)]
    assert thinned(steps, [3, 5, 5, 1000]) == [(1, 9.0), (4, 5.0), (90, 1.0)]
    assert thinned([(5, 1.0)], [1, 2]) == []
    assert thinned([], [1]) == []


def test_an_evaluation_costs_microseconds():
    recorder, x = Recorder(problem(lambda x: 1.0), TARGETS["coco"]), np.zeros(2)
    recorder(x)
    began = time.process_time()
    for _ in range(20_000):
        recorder(x)
    assert (time.process_time() - began) / 20_000 < 20e-6  # 0.2 us on a quiet machine


# ---------------------------------------------------------------------- problems that are oracles


def judged(**more):
    """Return a problem of which only rankings are told."""
    merit = lambda x: float(((x - 0.3) ** 2).sum())  # noqa: E731
    return Problem("judged", BOX, RankOracle.of(merit), np.ones(2), **{"f_opt": 0.0, "measure": merit, **more})


def test_an_oracle_is_judged_by_the_merit_of_what_is_recommended():
    problem, seen = judged(), []
    recorder = Recorder(problem, (1.0, 1e-1, 1e-2))
    result = solve(
        problem, "zo-rank-sgd", 300, fun=recorder.fun, stop=recorder.stop,
        callback=lambda p: seen.append((p.nfev, problem.measure(p.recommended()))),
    )  # fmt: skip
    lowest = np.minimum.accumulate([merit for _, merit in seen])
    better = np.flatnonzero(np.diff(lowest, prepend=np.inf) < 0)
    assert recorder.steps == [(seen[i][0], seen[i][1]) for i in better]
    assert recorder.evaluations == result.nfev <= 300
    assert recorder.hits == [next(n for n, merit in seen if merit <= t) for t in (1.0, 1e-1, 1e-2)]
    assert result.status == "target"


def test_an_oracle_is_counted_in_the_unit_of_its_budget():
    class Dear(dfo.Function):
        price = 5.0

        def evaluate(self, batch, memory):
            told, memory = super().evaluate(batch, memory)
            return replace(told, cost=np.full(len(batch), 3.0)), memory

    problem = judged()
    recorder = Recorder(replace(problem, fun=Dear(problem.measure)))
    result = solve(problem, "random[batch=4]", 100, fun=recorder.fun, stop=recorder.stop)
    assert recorder.evaluations == result.cost <= 100
    assert result.nfev == result.cost / 3


def test_an_oracle_without_a_measure_is_refused():
    with pytest.raises(InvalidArgument, match="expected a `measure`"):
        Recorder(judged(measure=None))


@pytest.mark.parametrize("method", ["zo-rank-sgd", "cma", "random"])
def test_the_bench_runs_oracles_to_the_end_of_their_budget(method):
    record = run_cell(Cell("ranking-exact-quadratic-i01-d02", method, 0), Budget.of(205), None)
    assert record.failure is None
    assert record.runs == 1
    assert 205 - 8 < record.evaluations <= 205
    assert record.best < 2.0


def test_the_bench_runs_unrolled_problems_on_lanes():
    record = run_cell(Cell("unrolled-influence-balancing", "es-single[population=10]", 0), Budget.of(200), None)
    assert record.failure is None
    assert record.evaluations == 200
    assert check_method("es-single[population=10]").options == {"population": 10}


def test_a_method_that_an_oracle_cannot_answer_is_a_failure_of_the_run():
    record = run_cell(Cell("ranking-exact-quadratic-i01-d02", "zo-sgd", 0), Budget.of(100), "coco")
    assert record.failure.kind == "IncompatibleOracle"
    assert record.evaluations == 0
