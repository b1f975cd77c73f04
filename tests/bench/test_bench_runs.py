"""Cells, the store, and what happens when something goes wrong in the middle."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dfo.bench import Budget, Cell, Record, Store, bench, load_records, make, read_config, read_records, run_cell, solve
from dfo.bench.record import Failure
from dfo.bench.summary import Summary
from dfo.errors import BadState, InvalidArgument


def timeless(records):
    """Return records without what differs from run to run."""
    return [replace(r, seconds=0.0, cpu_seconds=0.0, session=0) for r in records]


# ---------------------------------------------------------------------- cells


def test_the_budget_is_spent_to_the_last_evaluation():
    record = run_cell(Cell("bbob-f015-i01-d02", "scipy:SLSQP", 0), Budget.of("50d"), "coco")
    assert record.failure is None
    assert record.evaluations == record.budget == 100
    assert record.runs > 1  # it returned early and was started again


def test_the_last_target_ends_a_cell():
    record = run_cell(Cell("bbob-f001-i01-d02", "scipy:SLSQP", 0), Budget.of("500d"), "coco")
    assert len(record.hits) == record.targets == 51
    assert record.evaluations < 100
    assert list(record.hits) == sorted(record.hits)
    assert record.best <= 1e-8


def test_restarts_begin_at_the_same_points_for_every_method(odd, monkeypatch):
    from dfo.bench import cells as module

    starts: dict[str, list] = {}
    original = module.solve

    def spied(problem, method, budget, seed, *, x0=None, **further):
        starts.setdefault(method, []).append(x0 if x0 is None else x0.tolist())
        return original(problem, method, min(budget, 10), seed, x0=x0, **further)

    monkeypatch.setattr(module, "solve", spied)
    for method in ("random", "scipy:Powell"):
        run_cell(Cell("odd-bowl-i01-d02", method, 3), Budget.of("40"), None)
    assert starts["random"][:4] == starts["scipy:Powell"][:4]
    assert starts["random"][0] is None  # the first start is the problem's own
    assert starts["random"][1] != starts["random"][2]


def test_a_method_that_does_nothing_is_a_failure(odd, monkeypatch):
    from dfo.bench import cells as module

    monkeypatch.setattr(module, "solve", lambda *a, **k: solve(make("odd-bowl-i01-d02"), "random", 0))
    record = run_cell(Cell("odd-bowl-i01-d02", "random", 0), Budget.of(40), "coco")
    assert record.failure.kind == "Idle"


def test_constraints_integers_and_names_reach_the_method():
    assert run_cell(Cell("bbob-constrained-f001-i01-d02", "scipy:COBYLA", 0), Budget.of("50d"), "coco").best < 1e-3
    mixed = run_cell(Cell("bbob-mixint-f001-i01-d05", "random", 0), Budget.of("20d"), "coco")
    assert mixed.failure is None
    assert mixed.hits
    refused = run_cell(Cell("bbob-constrained-f001-i01-d02", "scipy:Nelder-Mead", 0), Budget.of(9), "coco")
    assert "takes no constraints" in refused.failure.message
    assert refused.evaluations == 0


def test_problems_without_optimum_report_best_values(odd):
    record = run_cell(Cell("odd-bowl-i99-d02", "random", 0), Budget.of(50), None)
    assert record.targets == 0
    assert record.hits == ()
    assert record.best == pytest.approx(record.best_at(50))
    assert record.best_at(1) == pytest.approx(0.98)
    assert record.best_at(0) == float("inf")


def test_targets_on_a_problem_without_optimum_are_a_failure_that_says_why(odd):
    record = run_cell(Cell("odd-bowl-i99-d02", "random", 0), Budget.of(50), "coco")
    assert "f_opt" in record.failure.message


def test_failed_values_are_counted_not_fatal(odd):
    record = run_cell(Cell("odd-nan-i01-d02", "random", 0), Budget.of(50), "coco")
    assert record.failure is None
    assert 0 < record.failed_evaluations < 50
    lowest = run_cell(Cell("odd-minus-i01-d02", "random", 0), Budget.of(50), "coco")
    assert len(lowest.hits) < 51  # minus infinity is no optimum


def test_records_survive_their_line():
    record = Record(
        "p", "m", 3, 2, "g", 9, 51, 9, 1, 2, (1, 4), ((1, 3.5), (4, 1e-9)), 0.1, 0.2, 1, Failure("E", "\x1b", "t")
    )
    assert Record.from_line(record.to_line()) == record
    assert "\n" not in record.to_line()
    assert Record.from_line(Record("p", "m", 0).to_line()) == Record("p", "m", 0)
    for line in ("", "[]", "{}", '{"problem":1}', '{"problem":"p","method":"m","seed":0,"odd":1}'):
        with pytest.raises(BadState):
            Record.from_line(line)


# ---------------------------------------------------------------------- whole benches


def test_equal_plans_give_equal_records_whatever_the_number_of_workers(plan, tmp_path, capfd):
    grid = plan(["bowl", "nan", "prints"], ["random", "cma", "scipy:SLSQP"], dims=(2, 3), seeds=(0, 1))
    records = bench(grid, workers=1)
    assert timeless(bench(grid, tmp_path / "out", workers=2)) == timeless(records)
    assert [r.cell for r in records] == grid.cells()
    assert len({r.hits for r in records if r.method == "random"}) > 2  # seeds and problems differ
    assert "noise on standard output" in capfd.readouterr().err  # what problems print is not lost


def test_cells_of_this_process_are_those_of_a_worker(plan):
    grid = plan(["bowl", "nan"], ["random", "cma"])
    assert timeless(bench(grid, workers=0)) == timeless(bench(grid, workers=1))


def test_a_cell_that_raises_is_recorded_and_the_others_go_on(plan):
    records = bench(plan(["raises", "bowl"], ["random", "cma"], budget="64d"), workers=1)
    failed = [r for r in records if r.failure]
    assert {r.problem for r in failed} == {"odd-raises-i01-d02"}
    assert all(r.failure.kind == "RuntimeError" and "no value at" in r.failure.message for r in failed)
    assert all("odd_problems.py" in r.failure.traceback for r in failed)
    assert [r.best for r in failed if r.method == "random"] == [7.5]  # what came before counts


def test_a_worker_that_dies_takes_one_cell_with_it(plan, tmp_path, capfd):
    records = bench(plan(["bowl", "dies"], ["random", "cma"], seeds=(0, 1)), tmp_path, workers=2)
    dead = [r for r in records if r.failure]
    assert [r.problem for r in dead] == ["odd-dies-i01-d02"] * 4
    assert all("exit status 3" in r.failure.message for r in dead)
    assert len(records) == 8


def test_failed_cells_are_tried_again(plan, tmp_path):
    grid = plan(["raises", "bowl"])
    bench(grid, tmp_path, workers=0)
    ran = []

    class Watcher:
        def start(self, cells, stored):
            ran.extend(cells)

        def done(self, record):
            pass

    bench(grid, tmp_path, workers=0, watcher=Watcher())
    assert [cell.problem for cell in ran] == ["odd-raises-i01-d02"]
    assert len(load_records(tmp_path)[1]) == 2


def test_what_is_added_extends_the_grid(plan, tmp_path):
    bench(plan(["bowl"], ["random"]), tmp_path, workers=0)
    bench(plan(["bowl"], ["cma"], seeds=(0, 1), dims=(3,)), tmp_path, workers=0)
    stored, records = load_records(tmp_path)
    assert stored.methods == ("random", "cma")
    assert stored.seeds == (0, 1)
    assert stored.problems == ("odd-bowl-i01-d02", "odd-bowl-i01-d03")
    assert len(records) == 8
    whole = bench(plan(["bowl"], ["random", "cma"], seeds=(0, 1), dims=(2, 3)), workers=0)
    assert timeless(sorted(records, key=str)) == timeless(sorted(whole, key=str))


def test_another_configuration_is_refused_with_the_difference(plan, tmp_path):
    bench(plan(["bowl"], budget="10d"), tmp_path, workers=0)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(InvalidArgument, match=r"budget: stored '10d', asked for '20d'") as caught:
        bench(plan(["bowl"], budget="20d", targets=None), tmp_path, workers=0)
    assert "targets: stored 'coco', asked for None" in str(caught.value)
    assert (tmp_path / "config.json").read_text() == before


def test_one_writer_at_a_time(plan, tmp_path):
    grid = plan(["bowl"])
    with Store(tmp_path, grid), pytest.raises(InvalidArgument, match="another process"):
        Store(tmp_path, grid)
    Store(tmp_path, grid).close()


def test_a_torn_last_line_is_run_again(plan, tmp_path):
    grid = plan(["bowl"], ["random", "cma"])
    whole = bench(grid, tmp_path, workers=0)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(read_records(tmp_path)) == 1
    assert timeless(bench(grid, tmp_path, workers=0)) == timeless(whole)
    assert len(path.read_text().splitlines()) == 2


def test_a_damaged_line_names_itself(plan, tmp_path):
    bench(plan(["bowl"], ["random", "cma"]), tmp_path, workers=0)
    path = tmp_path / "results.jsonl"
    path.write_text("gibberish\n" + path.read_text())
    with pytest.raises(BadState, match=r"results.jsonl, line 1"):
        load_records(tmp_path)


def test_the_configuration_says_versions_and_machine(plan, tmp_path):
    bench(plan(["bowl"]), tmp_path, workers=0)
    config = read_config(tmp_path)
    assert config.plan == plan(["bowl"])
    assert len(config.sessions) == 1
    assert {"dfo", "rng", "python", "numpy"} <= set(config.sessions[0]["versions"])
    table = json.loads((tmp_path / "config.json").read_text())
    for damage in ({**table, "schema": 99}, {**table, "plan": {}}, {"schema": 1}):
        (tmp_path / "config.json").write_text(json.dumps(damage))
        with pytest.raises(BadState):
            read_config(tmp_path)


# ---------------------------------------------------------------------- summary


def hits(problem, method, seed, counts, budget=100, dim=2):
    return Record(problem, method, seed, dim, "g", budget, 51, budget, 1, hits=tuple(counts))


def test_summary_by_hand(plan):
    grid = plan(["bowl"], ["random", "cma"], dims=(2, 4), budget="50d")
    two, four = grid.problems
    records = [
        hits(two, "random", 0, [2] * 10),  # 10 targets after one evaluation per variable
        hits(two, "cma", 0, [2] * 10 + [40] * 41),  # the other 41 after 20 per variable
        hits(four, "random", 0, [], 200, 4),
        hits(four, "cma", 0, [200] * 51, 200, 4),
    ]
    scores = {(str(s.budget), s.by, s.value, s.method): s for s in Summary(grid, records).scores()}
    assert scores["10d", "all", "all", "random"].share == pytest.approx(10 / 51 / 2)
    assert scores["10d", "all", "all", "cma"].difference == 0.0
    assert scores["50d", "dim", "2", "cma"].share == 1.0
    assert scores["50d", "dim", "4", "random"].share == 0.0
    assert scores["50d", "group", "g", "cma"].share == 1.0
    last = scores["50d", "all", "all", "cma"]
    assert last.difference == pytest.approx((1 - 10 / 51 + 1) / 2)
    assert last.problems == 2
    assert last.low != last.low  # one function and instance: no interval
    summary = Summary(grid, records)
    assert summary.order() == ["cma", "random"]
    x = np.array([1.0, 20.0, 50.0])
    random, cma = summary.curves(np.array([0, 1]), x)[0]
    assert random.tolist() == pytest.approx([5 / 51] * len(x))
    assert cma.tolist() == pytest.approx([5 / 51, 0.5, 1.0])


def test_incomplete_problems_are_left_out_for_everybody(plan):
    grid = plan(["bowl"], ["random", "cma"], dims=(2, 4))
    records = [
        hits(grid.problems[0], "random", 0, [1]), hits(grid.problems[0], "cma", 0, [1]),
        hits(grid.problems[1], "cma", 0, [1] * 51, dim=4),
    ]  # fmt: skip
    summary = Summary(grid, records)
    assert summary.incomplete == [grid.problems[1]]
    assert summary.targeted == [grid.problems[0]]
    assert {s.problems for s in summary.scores(["all"])} == {1}
    assert Summary(grid, []).scores() == []


def test_medians_and_ranks(plan):
    grid = plan(["bowl"], ["random", "cma"], seeds=(0, 1, 2), instances=(98,), targets=None, budget=100)

    def valued(method, seed, *trace):
        return Record(grid.problems[0], method, seed, 2, "g", 100, 0, 100, 1, trace=trace)

    records = [
        valued("random", 0, (1, 5.0), (60, 1.0)), valued("random", 1, (1, 6.0), (40, 2.0)),
        valued("random", 2, (1, 9.0)),
        valued("cma", 0, (1, 5.0), (30, 0.5)), valued("cma", 1, (1, 7.0)), valued("cma", 2, (1, 4.0), (90, 3.0)),
    ]  # fmt: skip
    summary = Summary(grid, records)
    assert [(m.best, m.rank) for m in summary.medians(Budget.of(50))] == [(5.0, 2.0), (4.0, 1.0)]
    assert [(m.best, m.rank) for m in summary.medians(Budget.of(100))] == [(2.0, 1.0), (3.0, 2.0)]
    assert summary.order() == ["random", "cma"]


def test_intervals_are_the_same_every_time():
    from dfo.bench import Plan, load_suite

    grid = Plan.of(load_suite("quick"), ["random", "scipy:Powell"], budget="10d")
    records = bench(grid, workers=0)
    assert Summary(grid, records).scores() == Summary(grid, records[::-1]).scores()
