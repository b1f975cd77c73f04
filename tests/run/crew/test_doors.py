"""Threads, executors and maps; what ``workers`` may be."""

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from troubles import MyError, value

from dfo import errors
from dfo.run.crew import evaluator_of


def never():
    return False


def die(x):
    os._exit(3)


def fails(x):
    if x == 1:
        raise MyError("no mesh")
    if x == 2:
        raise SystemExit(5)
    return x


@pytest.mark.parametrize("workers", ["threads", "threads:2", ("threads", 3), "executor", "processes", map])
def test_outcomes(workers):
    pool = {"executor": ThreadPoolExecutor, "processes": ProcessPoolExecutor}.get(str(workers))
    with pool(2) if pool else threading.Lock() as opened:
        evaluator = evaluator_of(opened if pool else workers, fails)
        assert repr(evaluator).split("(")[0] in ("Threads", "Submitted", "Mapped")
        assert list(evaluator(fails, {}, never)) == []
        assert list(evaluator(fails, {0: 0}, lambda: True)) == []
        for _ in range(2):
            found = dict(evaluator(fails, {i: i for i in range(6)}, never))
            failed, left = found.pop(1), found.pop(2)
            assert found == {0: 0, 3: 3, 4: 4, 5: 5}
            assert (failed.kind, failed.text, type(failed.error)) == ("raised", "MyError: no mesh", MyError)
            assert (left.kind, left.text, type(left.error)) == ("raised", "SystemExit: 5", errors.ObjectiveFailed)
            evaluator.close()
            evaluator.close()


@pytest.mark.parametrize("workers", ["threads:2", "executor"])
def test_a_halt_starts_nothing_more(workers):
    started, halted = [], threading.Event()

    def objective(x):
        started.append(x)
        time.sleep(0.2 if x < 2 else 0.5)
        return x

    with ThreadPoolExecutor(2) as pool:
        evaluator = evaluator_of(pool if workers == "executor" else workers, objective, grace=5.0)
        found = []
        for number, _ in evaluator(objective, {i: i for i in range(30)}, halted.is_set):
            found.append(number)
            halted.set()
    assert sorted(found) == sorted(started)
    assert len(found) <= 6


def test_threads_that_outlive_the_grace_are_left():
    release = threading.Event()

    def objective(x):
        if x:
            release.wait(30)
        return x

    evaluator, began = evaluator_of("threads:2", objective, grace=0.2), time.monotonic()
    try:
        found = []
        for number, _ in evaluator(objective, {0: 0, 1: 1}, lambda: time.monotonic() > began + 0.1):
            found.append(number)
        assert found == [0]
        assert time.monotonic() - began < 5
        assert dict(evaluator(objective, {0: 0}, never)) == {0: 0}
    finally:
        release.set()


def test_closing_early_cancels():
    with ThreadPoolExecutor(1) as pool:
        evaluator, started = evaluator_of(pool, value), []
        found = evaluator(lambda x: started.append(time.sleep(0.05)), {i: i for i in range(50)}, never)
        next(found)
        found.close()
    assert len(started) < 10


def test_executors_that_break():
    with ProcessPoolExecutor(1) as pool, pytest.raises(errors.NoWorkers, match="broke down"):
        dict(evaluator_of(pool, die)(die, {0: 0}, never))
    with pytest.raises(errors.NoWorkers, match="takes no work"):
        dict(evaluator_of(pool, value)(value, {0: 0}, never))
    with pytest.raises(errors.InvalidType, match=r"cannot be sent to a process.*lambda"):
        evaluator_of(pool, lambda x: 1.0)


def test_maps_that_are_none():
    with pytest.raises(errors.InvalidType, match="returned 2 results for 3 points"):
        dict(evaluator_of(lambda call, xs: [call(x) for x in xs[:2]], value)(value, {i: i for i in range(3)}, never))
    with pytest.raises(errors.InvalidType, match="is no map"):
        dict(evaluator_of(lambda call, xs: 3, value)(value, {0: 0}, never))
    assert dict(evaluator_of(lambda call, xs: (float(x) for x in xs), value)(value, {4: 0}, never)) == {4: 0.0}


@pytest.mark.parametrize("workers", ["threads", ThreadPoolExecutor(1), map])
def test_time_limits_need_processes(workers):
    with pytest.raises(errors.InvalidArgument, match=r"eval_timeout=3: workers=.*cannot interrupt"):
        evaluator_of(workers, value, eval_timeout=3)


@pytest.mark.parametrize(
    "workers",
    [0, -1, 1.5, "two", "threads:x", "threads:0", "fork:2:3", ("vfork", 2), (), [1], True, {}, ThreadPoolExecutor],
)
def test_workers_that_are_none(workers):
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=r"^workers: "):
        evaluator_of(workers, value)


@pytest.mark.parametrize("options", [{"eval_timeout": 0}, {"eval_timeout": "1"}, {"retries": -1}, {"grace": -1.0}])
def test_options_that_cannot_be(options):
    with pytest.raises((errors.InvalidArgument, errors.InvalidType), match=next(iter(options))):
        evaluator_of(2, value, **options)


def test_one_worker_is_this_process():
    assert evaluator_of(None, value) is None
    assert evaluator_of(1, value) is None
    assert repr(evaluator_of(1, value, eval_timeout=2)) == "Crew(1, start='spawn', eval_timeout=2, retries=1)"
    assert repr(evaluator_of("threads:3", value)) == "Threads(3)"
    assert repr(evaluator_of("spawn:1", value)) == "Crew(1, start='spawn', retries=1)"
