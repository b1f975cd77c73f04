"""Several processes work on one run as clients of its driver; each of them, and the driver, may die at any moment."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import dfo
from dfo import errors
from dfo.run.store import View

PRELUDE = """
    import os, sys, time, dfo
    store = sys.argv[1]
    def f(x): return float(((x - 0.3) ** 2).sum())
"""
CLIENT = """
    with dfo.join(store, wait=20) as client:
        for candidate in client:
            print("asked", candidate.id, flush=True)
            time.sleep(float(sys.argv[2]))
            client.tell(candidate, f(candidate.x))
            print("told", candidate.id, flush=True)
    print("done", flush=True)
"""
DRIVER = """
    with dfo.AskTell("cma", [1.0, 2.0, 0.5], seed=3, store=store) as opt, opt.serve(budget=int(sys.argv[2])) as server:
        print("serving", flush=True)
        assert server.wait(60)
        print("nfev", opt.nfev, flush=True)
"""


@pytest.fixture
def start():
    """Return a function that runs a script in a process of its own; they are gone at the end."""
    children = []

    def run(script, *words):
        command = [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script), *map(str, words)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return children[-1]

    yield run
    for child in children:
        child.kill()
        child.communicate()


def until(child, word):
    """Read lines until one begins with a word."""
    for line in child.stdout:
        if line.startswith(word):
            return line.split()
    raise AssertionError(f"no {word!r}: {child.stderr.read()}")


def evaluate(store, told, count=None):
    with dfo.join(store, wait=10) as client:
        for candidate in client:
            client.tell(candidate, float(((candidate.x - 0.3) ** 2).sum()))
            told.append(candidate.id)
            if count is not None and len(told) >= count:
                return


def test_clients_of_other_processes_evaluate_the_budget(tmp_path, start):
    store = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0, 0.5], seed=3, store=store) as opt, opt.serve(budget=60) as server:
        clients = [start(CLIENT, store, 0.002) for _ in range(3)]
        assert server.wait(60)
        lines = [line for child in clients for line in child.communicate(timeout=20)[0].splitlines()]
        assert sorted(int(line.split()[1]) for line in lines if line.startswith("told")) == list(range(60))
        assert lines.count("done") == 3
        assert (opt.nfev, opt.asked, opt.pending) == (60, 60, {})
    with View.open(store) as view:
        assert (view.count, view.told) == (60, 60)


def test_what_a_killed_client_had_is_given_to_others(tmp_path, start):
    store = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0, 0.5], seed=3, store=store) as opt, opt.serve(budget=40) as server:
        stuck = [start(CLIENT, store, 1000) for _ in range(2)]
        lost = sorted(int(until(child, "asked")[1]) for child in stuck)
        told = []
        good = threading.Thread(target=evaluate, args=(store, told))
        good.start()
        while len(told) < 38:
            time.sleep(0.01)
        assert not server.wait(0.3)  # two are out: the good client is kept waiting
        assert good.is_alive()
        for child in stuck:
            child.send_signal(signal.SIGKILL)
        assert server.wait(20)
        good.join(20)
        assert sorted(told[-2:]) == lost == [0, 1]
        assert sorted(told) == list(range(40))
        assert opt.nfev == 40


def test_a_killed_driver_is_an_error_to_clients_and_goes_on_where_it_was(tmp_path, start):
    store = tmp_path / "run.db"
    driver = start(DRIVER, store, 50)
    until(driver, "serving")
    client = dfo.join(store)
    held = [client.ask() for _ in range(9)]
    for candidate in held[:6]:
        client.tell(candidate, float(candidate.x @ candidate.x))
    driver.kill()
    driver.wait()
    with pytest.raises(errors.Disconnected):
        client.ask()
    with pytest.raises(errors.Disconnected):
        client.tell(held[6], 1.0)
    with pytest.raises(errors.Disconnected, match="nobody serves"):
        dfo.join(store)
    client.close()
    again = start(DRIVER, store, 50)
    with dfo.join(store, wait=20) as client:
        back = [client.ask() for _ in range(4)]
        assert [c.id for c in back] == [6, 7, 8, 9]
        for old, new in zip(held[6:], back, strict=False):
            np.testing.assert_array_equal(old.x, new.x)
        for candidate in back:
            client.tell(candidate, float(candidate.x @ candidate.x))
    told = []
    evaluate(store, told)
    assert until(again, "nfev") == ["nfev", "50"]
    with View.open(store) as view:
        assert (view.count, view.told) == (50, 50)


def test_many_threads_of_many_clients(tmp_path):
    """Eight threads, half of them sharing a client, 1,000 rounds in all: counters exact, no number twice."""
    store, told, wrong, before = tmp_path / "run.db", [], [], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with dfo.AskTell("random", [1.0, 2.0], seed=3, store=store) as opt, opt.serve(budget=1000) as server:
            shared = dfo.join(store)

            def work(client):
                try:
                    for candidate in client:
                        client.tell(candidate, float(candidate.x @ candidate.x))
                        told.append(candidate.id)
                except BaseException as error:
                    wrong.append(error)

            clients = [shared] * 4 + [dfo.join(store) for _ in range(4)]
            threads = [threading.Thread(target=work, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            assert server.wait(60)
            for thread in threads:
                thread.join(20)
            for client in set(clients):
                client.close()
            assert wrong == []
            assert sorted(told) == list(range(1000))
            assert opt.nfev == 1000
    finally:
        sys.setswitchinterval(before)


def test_values_points_and_failures_cross_the_socket(tmp_path):
    store = tmp_path / "run.db"
    space = {"lr": dfo.Float(1e-5, 1, log=True), "n": dfo.Int(1, 9), "kind": dfo.Choice(["a", "b"])}
    with dfo.AskTell("random", space, store=store) as opt, opt.serve(), dfo.join(store) as client:
        first = client.ask()
        assert first.x == opt.pending[0]
        client.tell(first, 0.1 + 0.2)
        for value in (float("nan"), float("inf"), ValueError("no mesh"), "seven", None):
            client.tell(client.ask(), value)
        with pytest.raises(errors.AlreadyTold):
            client.tell(first, 1.0)
        with pytest.raises(errors.UnknownCandidate):
            client.tell(99, 1.0)
        with pytest.raises(errors.InvalidType):
            client.tell("first", 1.0)
        assert opt.best_fun == 0.1 + 0.2
        assert opt.nfev == 6
    with View.open(store) as view:
        assert [row.status for row in view.rows()] == [
            "ok", "nonfinite", "nonfinite", "raised", "bad_type", "bad_type",
        ]  # fmt: skip


def test_the_driver_may_ask_and_tell_as_well_and_leave(tmp_path):
    store = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0], store=store) as opt:
        server = opt.serve(budget=3)
        with dfo.join(store) as client:
            mine, theirs = opt.ask_candidate(), client.ask()
            assert (mine.id, theirs.id) == (0, 1)
            opt.tell(mine, 1.0)
            client.tell(theirs, 2.0)
            server.close()
            with pytest.raises(errors.Disconnected):
                client.ask()
        server.close()
        assert opt.ask_candidate().id == 2


def test_only_this_user_finds_the_way_in(tmp_path):
    deep = tmp_path / ("d" * 120) / ("e" * 120)  # longer than an address may be
    deep.mkdir(parents=True)
    store, before = deep / "run.db", os.umask(0)
    try:
        with dfo.AskTell("cma", [1.0, 2.0], store=store) as opt:
            with opt.serve(budget=2), dfo.join(store) as client:
                where = json.loads((deep / "run.db.door").read_text())["socket"]
                assert stat.S_IMODE(os.stat(deep / "run.db.door").st_mode) == 0o600
                assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
                assert stat.S_IMODE(os.stat(os.path.dirname(where)).st_mode) == 0o700
                assert client.ask().id == 0
            assert not os.path.exists(os.path.dirname(where))
            assert not (deep / "run.db.door").exists()
    finally:
        os.umask(before)


def test_strange_messages_do_no_harm(tmp_path):
    store = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0], store=store) as opt, opt.serve(budget=5):
        where = json.loads((tmp_path / "run.db.door").read_text())["socket"]
        for line in (
            b"\n", b"{}\n", b"[" * 9000 + b"\n", b'{"op": "tell", "id": 0, "value": 1e400}\n', b"\x80\x04K\x01.\n",
            b'{"op": "ask", "op": "tell"}\n', b'{"op": "tell", "id": "0", "value": 1}\n', b'{"op": "__init__"}\n',
            b'{"op": "tell", "id": true, "value": {"x": 1}}\n', b'{"op": "tell", "id": 0, "value": NaN}\n',
            b'{"op": "tell", "id": 0, "value": ["os.system", "id"]}\n',
        ):  # fmt: skip
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(where)
                raw.sendall(line)
                assert "error" in json.loads(raw.makefile("rb").readline())
        for bad in (b"x" * (1 << 17), b'{"op": "ask"}'):  # no end of a line in sight; half a message
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(where)
                try:
                    raw.sendall(bad)
                    raw.shutdown(socket.SHUT_WR)
                    assert raw.recv(10) == b""
                except OSError:
                    pass
        assert (opt.nfev, opt.asked) == (0, 0)


def test_without_a_store_there_is_nothing_to_join(tmp_path):
    with pytest.raises(errors.InvalidArgument, match="store"):
        dfo.AskTell("cma", [1.0, 2.0]).serve()
    with pytest.raises(errors.Disconnected, match="nobody serves"):
        dfo.join(tmp_path / "run.db")
    os.mkfifo(tmp_path / "run.db.door")
    with pytest.raises(errors.Disconnected):
        dfo.join(tmp_path / "run.db")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_clients_and_drivers_die_all_the_time(tmp_path, start, seed):
    store, rng = tmp_path / "run.db", np.random.default_rng(seed)
    told = set()
    for _ in range(4):
        driver = start(DRIVER, store, 10_000)
        until(driver, "serving")
        clients = [start(CLIENT, store, 0.003) for _ in range(3)]
        until(clients[0], "told")
        time.sleep(float(rng.uniform(0.0, 0.3)))
        for child in rng.permutation([driver, *clients]):
            child.kill()
            time.sleep(float(rng.uniform(0.0, 0.05)))
        for child in clients:
            told |= {int(line.split()[1]) for line in child.communicate()[0].splitlines() if line.startswith("told ")}
    with View.open(store) as view:
        kept = {row.number for row in view.rows() if row.told is not None}
    assert told <= kept
    with dfo.AskTell("cma", [1.0, 2.0, 0.5], seed=3, store=store) as opt:
        assert opt.nfev == len(kept)
