"""Processes that we own: what they answer, how they end, and what they leave behind (nothing)."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from troubles import ENDS, HANGS, Alone, Counted, Deadly, Fussy, MyError, Once, raise_, slow, value, with_child

import dfo
from dfo import errors
from dfo.run.crew import evaluator_of


def never():
    return False


def run(crew, call, points, halted=never):
    return dict(crew(call, points, halted))


@contextlib.contextmanager
def crew_of(size, call, **options):
    crew = evaluator_of(size, call, **options)
    try:
        yield crew
    finally:
        crew.close()


def children():
    """Process ids of our children, zombies included."""
    return set(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def quick():
    """The faster start, where other tests have left no threads."""
    return "spawn" if threading.active_count() > 1 else "fork"


def script(text, *args, **options):
    """Run a script of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *args], capture_output=True, text=True, timeout=60, check=False,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def nothing_left():
    before = children()
    yield
    gc.collect()
    assert eventually(lambda: children() <= before)


# ---------------------------------------------------------------------- answers


def test_every_point_is_answered_once():
    points = {7 + i: float(i) for i in range(40)}
    with crew_of(2, value) as crew:
        assert repr(crew) == "Crew(2, start='spawn', retries=1)"
        found = list(crew(value, points, never))
        assert sorted(found) == [(7 + i, float(i)) for i in range(40)]
        assert run(crew, value, {}) == {}
        offset = 3.0
        assert run(crew, lambda x: x + offset, {1: 1.0, 2: 2.0}) == {1: 4.0, 2: 5.0}  # another objective


def test_answers_come_as_they_are_ready():
    with crew_of(2, slow, start=quick()) as crew:
        assert [number for number, _ in crew(slow, {0: 0.6, 1: 0.05, 2: 0.05, 3: 0.05}, never)] == [1, 2, 3, 0]


def test_the_objective_is_sent_once():
    Counted.sent = 0
    counted = Counted()
    with crew_of(2, counted) as crew:
        pids = set(run(crew, counted, dict.fromkeys(range(20))).values())
        assert pids >= set(run(crew, counted, dict.fromkeys(range(20))).values())
        assert 1 <= len(pids) <= 2
        assert os.getpid() not in pids
    assert Counted.sent == 1


@pytest.mark.parametrize("point", [np.arange(1e6), {"a": 1, "b": [np.eye(3)]}, "text", lambda x: x, None])
def test_points_and_answers_of_any_kind(point):
    with crew_of(1, lambda x: x, eval_timeout=60, start=quick()) as crew:
        back = run(crew, crew._call, {0: point})[0]
    if isinstance(point, np.ndarray):
        assert back.flags.writeable
        np.testing.assert_array_equal(back, point)
    elif callable(point):
        assert back(5) == 5
    else:
        assert str(back) == str(point)


def test_large_objectives_reach_every_worker():
    data = np.arange(3e6)
    with crew_of(2, lambda x: float(data[x])) as crew:
        assert run(crew, crew._call, {i: i for i in range(6)}) == {i: float(i) for i in range(6)}


def test_the_place_of_a_worker():
    def place(x):
        threads = [os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")]
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return os.getcwd(), sys.path, threads, os.getpgrp() == os.getpid() == os.getsid(0), ignored

    before = dict(os.environ), os.getcwd(), {n: signal.getsignal(n) for n in signal.valid_signals()}, sys.path[:]
    for start in ("spawn", quick()):
        with crew_of(2, place, start=start) as crew:
            found = run(crew, place, {0: 0})[0]
        assert found == (os.getcwd(), sys.path, ["1"] * 3, True, True)
    after = dict(os.environ), os.getcwd(), {n: signal.getsignal(n) for n in signal.valid_signals()}, sys.path[:]
    assert after == before


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize("end", ENDS)
def test_ends(end):
    fun, kind, text = ENDS[end]

    def objective(x):
        return fun(x) if x == 2 else x

    with crew_of(2, objective, start=quick()) as crew:
        found = run(crew, objective, {i: i for i in range(6)})
        failed = found.pop(2)
        assert found == {0: 0, 1: 1, 3: 3, 4: 4, 5: 5}
        if kind is None:
            assert failed == 2
        else:
            assert (failed.kind, text in failed.text) == (kind, True), failed
            assert (failed.error is not None) == (kind == "raised")
        assert run(crew, objective, {0: 0, 1: 1}) == {0: 0, 1: 1}


def test_exceptions_come_back_as_themselves():
    def objective(x):
        raise_(MyError("no mesh", 3) if x else Fussy(1, 2))

    with crew_of(2, objective) as crew:
        found = run(crew, objective, {0: 0, 1: 1})
    assert type(found[1].error) is MyError
    assert found[1].error.args == ("no mesh", 3)
    assert isinstance(found[0].error, errors.ObjectiveFailed)
    for failed in found.values():
        assert "in raise_" in failed.trace
        assert failed.trace.rstrip() in failed.error.__notes__[0]


def test_a_death_is_tried_again(tmp_path):
    told = []
    objective = Once(tmp_path / "mark")
    with crew_of(2, objective) as crew:
        crew.retried = lambda number, how: told.append((number, how))
        assert run(crew, objective, {10 + i: i for i in range(4)}) == {10 + i: i for i in range(4)}
    assert told == [(11, "exit status 3")]
    (tmp_path / "mark").unlink()
    with crew_of(2, objective, retries=0) as crew:
        assert run(crew, objective, {11: 1})[11].text == "exit status 3"


def test_a_worker_that_dies_between_two_batches_is_nobody_s_fault():
    pid = lambda x: os.getpid()  # noqa: E731
    with crew_of(2, pid, retries=0, start=quick()) as crew:
        before = set(run(crew, pid, {i: i for i in range(50)}).values())
        for process in before:
            os.kill(process, signal.SIGKILL)
        after = set(run(crew, pid, {i: i for i in range(50)}).values())
    assert after
    assert not before & after


def test_blame_falls_on_one_where_evaluations_are_quick():
    """A next point waits in the pipe already; it shares neither the death nor the time of the one before."""
    told = []

    def objective(x):
        if x == 150:
            os._exit(3)
        if x == 250:
            time.sleep(600)
        return x

    with crew_of(2, objective, eval_timeout=1.0) as crew:
        crew.retried = lambda number, how: told.append(number)
        found = run(crew, objective, {i: i for i in range(400)})
    assert (found.pop(150).kind, found.pop(250).kind, told) == ("died", "timeout", [150])
    assert found == {i: i for i in range(400) if i not in (150, 250)}


@pytest.mark.parametrize("hang", HANGS)
def test_hangs_end_in_time(hang):
    fun = HANGS[hang]

    def objective(x):
        return fun(x) if x == 1 else x

    with crew_of(2, objective, eval_timeout=0.5, start=quick()) as crew:
        began = time.monotonic()
        found = run(crew, objective, {i: i for i in range(5)})
        assert time.monotonic() - began < 0.5 + 2
    failed = found.pop(1)
    assert (failed.kind, failed.text) == ("timeout", "no value within 0.5 s")
    assert found == {0: 0, 2: 2, 3: 3, 4: 4}


def test_what_the_objective_started_ends_with_it(tmp_path):
    path = tmp_path / "pid"
    with crew_of(1, with_child, eval_timeout=1.0) as crew:
        assert run(crew, with_child, {0: str(path)})[0].kind == "timeout"
    assert eventually(lambda: not alive(path.read_text()))


def test_an_answer_in_time_counts_however_late_it_is_read():
    with crew_of(2, slow, eval_timeout=0.4, start=quick()) as crew:
        found = {}
        for number, outcome in crew(slow, {0: 0.0, 1: 0.1, 2: 0.1}, never):
            time.sleep(0.6)  # the caller is busy
            found[number] = outcome
    assert found == {0: 0.0, 1: 0.1, 2: 0.1}


# ---------------------------------------------------------------------- halts


def test_a_halt_grants_a_grace():
    halted = threading.Event()
    with crew_of(2, slow, grace=1.0, start=quick()) as crew:
        found = []
        for number, _ in crew(slow, {0: 0.0, 1: 0.5, 2: 600.0, 3: 0.0}, halted.is_set):
            found.append(number)
            began = time.monotonic()
            halted.set()
        assert found in ([0, 1], [1, 0])
        assert time.monotonic() - began < 3
        assert run(crew, slow, {5: 0.0, 6: 0.0}) == {5: 0.0, 6: 0.0}
        assert run(crew, slow, {5: 0.0}, halted.is_set) == {}


def test_closing_the_iterator_leaves_the_crew_usable():
    with crew_of(2, slow, start=quick()) as crew:
        found = crew(slow, {0: 0.0, 1: 600.0, 2: 600.0}, never)
        assert next(found) == (0, 0.0)
        with pytest.raises(errors.NoWorkers, match="another call"):
            run(crew, slow, {4: 0.0})
        found.close()
        assert run(crew, slow, {1: 0.1, 2: 0.0}) == {1: 0.1, 2: 0.0}
    crew.close()
    with pytest.raises(errors.NoWorkers, match="closed"):
        run(crew, slow, {0: 0.0})


# ---------------------------------------------------------------------- objectives that cannot


def test_objectives_that_cannot_be_sent():
    lock, before = threading.Lock(), children()
    options = {"mesh": [1, {"guard": lock}]}

    class Model:
        def __init__(self):
            self.guard = lock

        def cost(self, x):
            return 1.0

    for objective, name in (
        (lambda x: lock, "lock is"),
        (lambda x: options, "item 'guard' is"),
        (Model().cost, "guard"),
    ):
        with pytest.raises(errors.InvalidType, match=f"workers.*cannot be sent to a process.*{name}.*threads"):
            evaluator_of(2, objective)
    assert children() == before


def test_objectives_that_cannot_be_loaded(capfd):
    module = type(sys)("ghost")
    sys.modules["ghost"] = module
    try:
        exec("def cost(x):\n    return 1.0", module.__dict__)
        module.__file__ = "ghost.py"
        module.__spec__ = dfo.__spec__
        with (
            crew_of(2, module.cost) as crew,
            pytest.raises(errors.InvalidType, match=r"cannot be loaded there \(ModuleNotFoundError: .*'ghost'"),
        ):
            run(crew, module.cost, {0: 0.0})
    finally:
        del sys.modules["ghost"]
    deadly = Deadly()
    with crew_of(2, deadly) as crew, pytest.raises(errors.NoWorkers, match=r"3 processes in a row .*exit status 7"):
        run(crew, deadly, {0: 0.0})


def test_those_there_are_do_the_work(tmp_path):
    alone = Alone(tmp_path / "mark")
    with crew_of(2, alone) as crew:
        assert run(crew, alone, dict.fromkeys(range(60), 0.05)) == dict.fromkeys(range(60), 0.05)
        assert len(crew.team) == 1


def test_without_cloudpickle(monkeypatch):
    from dfo.run.crew import wire

    monkeypatch.setattr(wire, "_by_value", lambda: None)
    with pytest.raises(errors.InvalidType, match=r"lambda.*cannot be sent to a process.*Install cloudpickle"):
        evaluator_of(2, lambda x: 1.0)
    with crew_of(2, value) as crew:
        assert run(crew, value, {0: 1.0}) == {0: 1.0}


def test_a_fork_is_refused_where_it_is_not_safe():
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    try:
        with pytest.raises(errors.InvalidArgument, match=r"start: 'fork' is not safe.*\d other thread"):
            evaluator_of(2, value, start="fork")
    finally:
        event.set()
        thread.join()
    with pytest.raises(errors.InvalidArgument, match="start: expected one of 'spawn', 'fork', got 'thread'"):
        evaluator_of(2, value, start="thread")


# ---------------------------------------------------------------------- scripts


def test_a_script_without_a_guard(tmp_path):
    """Functions and exceptions of ``__main__`` travel by value: the script is not run again by its workers."""
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent("""
            import dfo
            print("once")
            scale = 2.0
            class TooFar(Exception): pass
            def cost(x):
                if x[0] < -5: raise TooFar("left")
                return scale * float(x @ x)
            print(dfo.minimize(cost, [1.0, 2.0], method="cma", budget=24, workers=2).nfev)
            try:
                dfo.minimize(cost, [-9.0, 2.0], method="cma", budget=24, workers=2)
            except TooFar as error:
                print(error)
        """)
    )
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["once", "24", "left"]


ORPHAN = """
    import ctypes, os, subprocess, sys, time
    from dfo.run.crew import evaluator_of

    def stuck(x):
        child = subprocess.Popen(["sleep", "600"])
        with open(x, "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock

    crew = evaluator_of(2, stuck, start=sys.argv[2])
    list(crew(stuck, {0: sys.argv[1] + "0", 1: sys.argv[1] + "1"}, lambda: False))
"""


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_no_orphans_when_the_parent_is_killed(start, tmp_path):
    path = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(ORPHAN), str(path), start])
    files = [Path(f"{path}{i}") for i in range(2)]
    assert eventually(lambda: all(f.exists() and len(f.read_text().split()) == 2 for f in files), 20)
    pids = [pid for file in files for pid in file.read_text().split()]
    assert all(map(alive, pids))
    parent.kill()
    parent.wait()
    assert eventually(lambda: not any(map(alive, pids)), 1.0)


def test_the_end_of_the_interpreter_ends_workers():
    lines = script("""
        import os, time
        from dfo.run.crew import evaluator_of
        crew = evaluator_of(2, lambda x: os.getpid() if x else time.sleep(600))
        found = crew(crew._call, {0: 0, 1: 1}, lambda: False)
        print(next(found)[1], *[process.pid for process in crew.team])
    """)
    assert eventually(lambda: not any(map(alive, lines[0].split())), 2.0)


def test_without_standard_streams_and_without_processes(tmp_path):
    """Pipes do not take the numbers of closed streams; where no process can be started, that is said."""
    lines = tmp_path / "lines"
    script(
        """
        import os, sys, resource
        for number in range(3):
            os.close(number)
        from dfo.run.crew import evaluator_of
        def loud(x):
            os.write(1, b"noise") if x == 9 else print("noise")
            return x
        lines = open(sys.argv[1], "w")
        crew = evaluator_of(2, loud)
        print(dict(crew(loud, {0: 0, 1: 1}, lambda: False)) == {0: 0, 1: 1}, file=lines)
        crew.close()
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 6, used + 6))  # for one worker, not for two
        crew = evaluator_of(2, loud)
        print(dict(crew(loud, {0: 0, 1: 1}, lambda: False)) == {0: 0, 1: 1}, len(crew.team), file=lines)
        crew.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1, used + 6))
        try:
            dict(evaluator_of(2, loud)(loud, {0: 0}, lambda: False))
        except Exception as error:
            print(type(error).__name__, error, file=lines)
        lines.close()
    """,
        str(lines),
    )
    first, second, third = lines.read_text().splitlines()
    assert (first, second) == ("True", "True 1")
    assert third.startswith("NoWorkers workers: the system starts no process (")


def test_a_fork_of_the_owner_leaves_the_workers_alone():
    lines = script("""
        import os
        from dfo.run.crew import evaluator_of
        crew = evaluator_of(2, abs)
        dict(crew(abs, {0: -1.0, 1: 2.0}, lambda: False))
        if os.fork() == 0:
            crew.close()
            os._exit(0)
        os.wait()
        print(dict(crew(abs, {0: -1.0, 1: 2.0}, lambda: False)) == {0: 1.0, 1: 2.0})
    """)
    assert lines == ["True"]


def test_crews_leave_nothing():
    gc.collect()
    before = set(os.listdir("/proc/self/fd")), children()
    for close in (True, False):
        crew = evaluator_of(2, value)
        assert run(crew, value, {0: 1.0, 1: 2.0}) == {0: 1.0, 1: 2.0}
        if close:
            crew.close()
        del crew  # forgotten, perhaps without a close
    gc.collect()
    assert (set(os.listdir("/proc/self/fd")), children()) == before


def test_forks():
    """In an interpreter without threads: no part of the objective is sent, and thirty crews leave nothing."""
    lines = script("""
        import gc, os, threading, time
        from pathlib import Path
        from dfo.run.crew import evaluator_of

        def left():
            gc.collect()
            return sorted(os.listdir("/proc/self/fd")), Path(f"/proc/self/task/{os.getpid()}/children").read_text()

        lock = threading.Lock()
        def objective(x):
            if x == 3: os._exit(3)
            if x == 4: time.sleep(600)
            return lock.locked()

        before = left()
        for i in range(30):
            crew = evaluator_of("fork:2", objective, eval_timeout=0.5)
            found = dict(crew(objective, {k: k for k in range(5 if i == 0 else 2)}, lambda: False))
            if i == 0:
                print(crew, found[0], found[3], found[4])
                print(dict(crew(lambda x: -x, {0: 5}, lambda: False)))
            if i % 2:
                crew.close()
            del crew
        print(left() == before)
    """)
    assert lines == [
        "Crew(2, start='fork', eval_timeout=0.5, retries=1) False exit status 3 no value within 0.5 s",
        "{0: -5}",
        "True",
    ]


def test_minimize_with_a_crew():
    """The history is that of one process, whatever dies on the way."""
    one = dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cma", budget=40)
    two = dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cma", budget=40, workers=2)
    alone = dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cma", budget=40, eval_timeout=30)
    np.testing.assert_array_equal(one.history.fun, two.history.fun)
    np.testing.assert_array_equal(one.history.fun, alone.history.fun)
