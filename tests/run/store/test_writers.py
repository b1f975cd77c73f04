"""One writer at a time, forks that leave it alone, readers that wait for nobody, disks that fail."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from stores import CONFIG, ask, contents, rows, write

from dfo.errors import CannotWrite, RunLocked
from dfo.oracles.outcomes import Answer
from dfo.run.store import Run, Store, View, lock

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.db")


def begun(path):
    run = Run.open(Store(path))
    run.begin(CONFIG, {})
    return run


def tell(run, i):
    number, _ = ask(run, i)
    run.tell({number: Answer(float(i))})


def tell_all(run):
    """Tell until something is raised."""
    for i in range(100_000):
        tell(run, i)


def contest(path, go, outcomes, locks):
    if not locks:
        lock._flock = unsupported
    go.wait()
    began = time.monotonic()
    try:
        run = begun(path)
    except RunLocked as error:
        outcomes.put(("locked", error.pid, time.monotonic() - began))
        return
    outcomes.put(("open", os.getpid(), 0.0))
    time.sleep(1.0)
    run.close()


def unsupported(handle, shared=False):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("locks", [True, False], ids=["flock", "no flock"])
def test_of_eight_that_create_a_store_one_does(path, locks):
    go, outcomes = FORK.Event(), FORK.Queue()
    children = [FORK.Process(target=contest, args=(path, go, outcomes, locks)) for _ in range(8)]
    for child in children:
        child.start()
    go.set()
    found = sorted((outcomes.get(timeout=20) for _ in children), reverse=True)
    for child in children:
        child.join()
    assert [how for how, *_ in found] == ["open"] + ["locked"] * 7
    assert {pid for _, pid, _ in found} == {found[0][1]}
    assert max(seconds for *_, seconds in found) < 5.0
    assert os.listdir(os.path.dirname(path)) == ["run.db"]


@pytest.mark.parametrize("locks", [True, False], ids=["flock", "no flock"])
def test_the_lock_of_a_dead_process_is_taken_over(path, locks, monkeypatch):
    if not locks:
        monkeypatch.setattr(lock, "_flock", unsupported)
    child = os.fork()
    if not child:
        begun(path)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with View.open(path) as view:
        assert view.status == "killed"
    with begun(path):
        assert lock.holder(path)["pid"] == os.getpid()
    assert lock.holder(path) is None


def test_without_flock_another_machine_is_believed_and_a_recycled_number_is_not(path, monkeypatch):
    monkeypatch.setattr(lock, "_flock", unsupported)
    for content, free in [
        ({"pid": 1, "host": "elsewhere", "since": "2026"}, False),
        ({"pid": os.getpid(), "host": socket.gethostname(), "start": "12"}, True),
        ({"pid": 2**22 + 1, "host": socket.gethostname()}, True),
    ]:
        with open(path + ".lock.owner", "w", encoding="utf-8") as file:
            json.dump(content, file)
        if free:
            begun(path).close()
        else:
            with pytest.raises(RunLocked, match="elsewhere since 2026"):
                begun(path)


@pytest.mark.parametrize("way", ["os._exit(0)", "sys.exit(0)", "run.close()", "del run; import gc; gc.collect()"])
def test_a_forked_child_leaves_the_store_alone(path, way):
    program = f"""
import os, sys, time
from stores import *
run = Run.open(Store({path!r})); run.begin(CONFIG, {{}})
ask(run, 0); run.tell({{0: Answer(0.0)}})
child = os.fork()
if not child:
    {way}
    os._exit(0)
os.waitpid(child, 0)
for i in range(1, 50): ask(run, i); run.tell({{i: Answer(float(i))}})
sleeper = os.fork()
if not sleeper:
    try:
        run.tell({{0: Answer(1.0)}})
    except Exception as error:
        os.write(1, type(error).__name__.encode() + b'\\n')
    os.close(1)
    os.close(2)
    time.sleep(20)
    os._exit(0)
os.write(1, b'%d\\n' % sleeper)
time.sleep(0.2)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.run(
        [sys.executable, "-c", program], cwd=os.path.dirname(__file__), capture_output=True, text=True, check=False
    )
    lines = parent.stdout.split()
    assert parent.returncode == -9, parent.stderr
    try:
        assert "CannotWrite" in lines
        begun(path).close()  # though a child of the dead writer lives
        assert len(rows(path)) == 50
    finally:
        os.kill(next(int(line) for line in lines if line.isdigit()), 9)


def test_readers_see_every_answer_and_write_nothing(path):
    with begun(path) as run:
        views = []
        for i in range(8):
            tell(run, i)
            views.append(View.open(path))
            before = contents(path)
            assert [view.told for view in views[-3:]] == [i + 1] * len(views[-3:])
            assert next(views[-1].rows(i)).value == float(i)
            assert {end: data for end, data in contents(path).items() if end != "-shm"} == {
                end: data for end, data in before.items() if end != "-shm"
            }
        for view in views:
            view.close()
    assert os.listdir(os.path.dirname(path)) == ["run.db"]


def test_a_reader_that_stays_open_sees_the_run_go_on_and_end(path):
    run = begun(path)
    view = View.open(path)
    for i in range(5):
        tell(run, i)
    assert view.told == 5
    run.finish("budget", "", {})
    run.close()
    assert (view.status, view.told) == ("budget", 5)
    view.close()
    assert len(rows(path)) == 5
    begun(path).close()
    assert os.listdir(os.path.dirname(path)) == ["run.db"]


@contextmanager
def tmpfs(folder, options):
    """A file system of our own, where the test may have one."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs to mount a file system")
    try:
        yield str(folder / "run.db")
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("how", ["closed", "killed", "running"])
def test_reading_where_nothing_can_be_written(tmp_path, how):
    with tmpfs(tmp_path / "disk", "size=8m") as path:
        if how == "closed":
            write(path, 20)
        child = os.fork() if how != "closed" else 0
        if how != "closed" and not child:
            run = begun(path)
            for i in range(20):
                tell(run, i)
            os.kill(os.getpid(), 9) if how == "killed" else time.sleep(30)
            os._exit(0)
        if how == "killed":
            os.waitpid(child, 0)
        if how == "running":
            while not os.path.exists(path) or not os.path.exists(path + "-wal") or View.open(path).told < 20:
                time.sleep(0.05)
        if how != "running":
            subprocess.run(["mount", "-o", "remount,ro", os.path.dirname(path)], check=True)
        try:
            before = contents(path)
            with View.open(path) as view:
                assert (view.status, view.told, view.best.number) == ({"closed": "budget"}.get(how, how), 20, 0)
            assert contents(path).keys() == before.keys()
            if how != "running":
                assert contents(path) == before
                with pytest.raises(CannotWrite, match="read-only") as caught:
                    Run.open(Store(path))
                assert caught.value.errno == errno.EROFS
        finally:
            if how == "running":
                os.kill(child, 9)
                os.waitpid(child, 0)


@pytest.mark.parametrize("size", [0, 64, 128, 256, 512])
def test_a_full_disk(tmp_path, size):
    with tmpfs(tmp_path / "disk", "size=1m") as path:
        filler = f"{path}.filler"
        with open(filler, "wb") as file:
            file.write(bytes((1024 - size) * 1024))
        if size < 128:  # not even a store without a question
            with pytest.raises(CannotWrite, match="disk full") as caught:
                begun(path)
            os.unlink(filler)
            told, run = 0, begun(path)
        else:
            run = begun(path)
            with pytest.raises(CannotWrite, match="disk full") as caught:
                tell_all(run)
            assert caught.value.filename == path
            with View.open(path) as view:
                told = view.told
            assert told == run._turn
            os.unlink(filler)
        assert caught.value.errno == errno.ENOSPC
        run.seek(told)
        for i in range(told, told + 5):
            tell(run, i)
        run.finish("budget", "", {})
        run.close()
        assert [row[3] for row in rows(path)] == [float(i) for i in range(told + 5)]


def test_the_largest_size_of_a_file(path):
    run = begun(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(CannotWrite, match="disk full") as caught:
            tell_all(run)
        told = run._turn
        with pytest.raises(CannotWrite):
            run.checkpoint(told, {"x": np.zeros(200_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    run.seek(told)
    tell(run, told)
    run.close()
    assert [row[3] for row in rows(path)] == [float(i) for i in range(told + 1)]


def test_a_folder_that_vanishes(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    run = begun(str(folder / "run.db"))
    tell(run, 0)
    time.sleep(0.03)
    os.rename(folder, tmp_path / "there")
    with pytest.raises(CannotWrite, match="gone") as caught:
        tell(run, 1)
    assert caught.value.errno == errno.ENOENT
    os.rename(tmp_path / "there", folder)
    run.seek(1)
    tell(run, 1)
    time.sleep(0.03)
    shutil.rmtree(folder)
    with pytest.raises(CannotWrite, match="gone"):
        tell(run, 2)
    run.close()
    assert os.listdir(tmp_path) == []


def test_closing_twice_lets_go_once(path):
    first = begun(path)
    first.close()
    second = begun(path)
    first.close()
    assert lock.holder(path)["pid"] == os.getpid()
    with pytest.raises(RunLocked):
        begun(path)
    tell(second, 0)
    second.close()
    assert lock.holder(path) is None


def test_with_fsync(path):
    with Run.open(Store(path, fsync=True)) as run:
        run.begin(CONFIG, {})
        tell(run, 0)
    assert len(rows(path)) == 1
