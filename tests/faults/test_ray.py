"""Ray: outcomes, worker deaths, time limits, halts, a node that dies, a cluster of our own on loopback."""

import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import dfo
from dfo.errors import InvalidArgument, InvalidType, MissingPackage, ObjectiveFailed
from dfo.oracles.outcomes import Failed
from dfo.run.crew import evaluator_of
from dfo.run.crew.ray import Ray, RayEvaluator, ray_evaluator

HERE = Path(__file__).parent
needs_ray = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("ray"), reason="ray is not installed: pip install 'dfo-optim[ray]'"
)


def never():
    return False


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("odd")


def call(x):
    """What an objective may do; x is a word, or a number to return."""
    if isinstance(x, tuple):
        word, path = x
        if word == "once" and os.path.exists(path):
            return 7.0
        Path(path).write_text(str(os.getpid()))
        if word == "hang":
            ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock
        os._exit(3)
    if x == "exit":
        os._exit(3)
    if x == "sys.exit":
        sys.exit(3)
    if x == "sleep":
        time.sleep(60)
    if x == "module":
        return sys.stdin
    if x in ("raise", "odd"):
        return Failed(*{"raise": ("raised", "OSError: no mesh", OSError(5, "no mesh")),
                        "odd": ("raised", "Odd: odd", Odd(1, 2))}[x])  # fmt: skip
    return float(x)


SECONDS = 120  # clusters take their time, but not for ever


@pytest.fixture(scope="module")
def cluster():
    """A head and another node, joined; what pytest makes of warnings is not Ray's affair."""
    pytest.importorskip("ray")
    from ray_cases import cluster_of

    from dfo.run.crew import ray_head

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with cluster_of(2) as running:
            assert ray_head.join(running.address) == "joined"
            yield running
            ray_head.end()


@pytest.fixture
def evaluator(cluster):
    return RayEvaluator


@needs_ray
def test_outcomes_by_number(evaluator):
    staff = evaluator()
    points = dict(enumerate([1.0, "exit", "sys.exit", "module", "raise", "odd", "nan", 2], start=40))
    known = dict(staff(call, points, never))
    assert set(known) == set(points)
    assert (known[40], known[47]) == (1.0, 2.0)
    assert math.isnan(known[46])
    assert known[41] == Failed("died", "the worker process died")
    assert known[42].kind == "raised"
    assert "SystemExit: 3" in str(known[42])
    assert known[43].kind == "bad_type"
    assert type(known[44].error) is OSError
    assert known[44].error.errno == 5
    assert type(known[45].error) is ObjectiveFailed
    assert (staff.died, staff.lost) == (1, 0)  # the one that died was tried again, as one is


@needs_ray
def test_a_worker_that_dies_is_tried_again_as_often_as_wanted(evaluator, tmp_path):
    staff, told = evaluator(retries=2), []
    staff.retried = lambda number, text: told.append((number, text))
    known = dict(staff(call, {0: ("once", str(tmp_path / "a")), 1: "exit"}, never))
    assert known == {0: 7.0, 1: Failed("died", "the worker process died")}
    assert sorted(number for number, _ in told) == [0, 1, 1]


@needs_ray
def test_a_time_limit_interrupts_what_holds_the_interpreter(evaluator, tmp_path):
    staff, path = evaluator(eval_timeout=1.0), tmp_path / "pid"
    staff(call, {0: 1.0}, never)
    dict(staff(call, dict.fromkeys(range(4), 1.0), never))  # processes are up
    began = time.monotonic()
    known = dict(staff(call, {4: ("hang", str(path)), 5: 5.0, 6: "sleep", 7: "exit"}, never))
    assert time.monotonic() - began < 20
    assert known[5] == 5.0
    assert {known[4], known[6]} == {Failed("timeout", "no value after 1 s")}
    assert known[7].kind == "died"
    gone = time.monotonic() + 10
    while Path(f"/proc/{path.read_text()}").exists() and time.monotonic() < gone:
        time.sleep(0.05)
    assert not Path(f"/proc/{path.read_text()}").exists()


@needs_ray
@pytest.mark.parametrize("limit", [None, 50.0])
def test_a_halt_gives_a_grace_and_begins_nothing_more(evaluator, limit):
    staff, known = evaluator(grace=1.0, eval_timeout=limit), {}
    points = {0: 0.0, 1: "sleep", **{n: float(n) for n in range(2, 60)}}
    began = time.monotonic()
    for number, outcome in staff(call, points, lambda: bool(known)):
        known[number] = outcome
    assert time.monotonic() - began < 20
    assert 1 not in known
    assert 1 <= len(known) < 30
    assert all(known[number] == number for number in known)


@needs_ray
def test_closing_the_iterator_gives_up_what_is_under_way(evaluator):
    staff = evaluator()
    outcomes = staff(call, {0: 0.0, 1: "sleep", 2: "sleep", 3: "sleep", 4: "sleep"}, never)
    assert next(outcomes) == (0, 0.0)
    outcomes.close()
    began = time.monotonic()  # all places are free again
    assert dict(staff(call, {n: float(n) for n in range(4)}, never)) == {n: n for n in range(4)}
    assert time.monotonic() - began < 20


@needs_ray
def test_minimize_over_ray_is_the_serial_run(cluster):
    def run(workers):
        def sphere(x):
            if x[0] > 1.2:
                raise ValueError("hidden constraint")
            return float(x @ x)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dfo.errors.EvaluationWarning)
            return dfo.minimize(sphere, np.ones(3), method="cma", budget=60, seed=1, on_error="record", workers=workers)

    ray, serial = run(Ray(cluster.address, resources={"num_cpus": 0.5})), run(None)
    assert ray.nfev == serial.nfev == 60
    assert np.array_equal(ray.history.fun, serial.history.fun, equal_nan=True)
    assert np.array_equal(ray.x, serial.x)


@needs_ray
def test_what_the_caller_began_stays(cluster):
    import ray

    staff = RayEvaluator()
    assert dict(staff(call, {0: 3.0}, never)) == {0: 3.0}
    staff.close()
    assert ray.is_initialized()


@needs_ray
def test_a_cluster_of_others_may_grow(cluster):
    staff = RayEvaluator(resources={"unobtainium": 1}, grace=0.0)
    ends = time.monotonic() + 0.5
    with pytest.warns(dfo.errors.DfoWarning, match="unobtainium"):
        assert list(staff(call, {0: 1.0}, lambda: time.monotonic() > ends)) == []


@needs_ray
@pytest.mark.filterwarnings("ignore::dfo.errors.DfoWarning")  # there is no GPU here
def test_what_ray_does_not_take(cluster):
    with pytest.raises(InvalidArgument, match=r"num_gpus.*1\.5"):
        list(RayEvaluator(resources={"num_gpus": 1.5})(call, {0: 1.0}, never))


def test_a_client_takes_no_time_limit():
    with pytest.raises(InvalidArgument, match="eval_timeout=3"):
        RayEvaluator("ray://head:10001", eval_timeout=3.0)


@needs_ray
def test_a_node_that_dies_costs_nothing_but_time(cluster):
    from ray_cases import run_node_loss

    record = run_node_loss(evaluations=60, nodes=2, cluster=cluster)
    assert record["kept"], record
    assert record["lost"] >= 1, record


ALONE = """
    import faulthandler, json, logging, os, signal, sys, threading, warnings
    warnings.simplefilter("error")
    import dfo
    from dfo.errors import InvalidArgument
    from dfo.run.crew.ray import RayEvaluator

    def state():
        return [dict(os.environ), repr(sys.excepthook), repr(threading.excepthook), list(map(repr, warnings.filters)),
                faulthandler.is_enabled(), logging.root.level, repr(logging.root.handlers), os.getcwd(),
                {int(s): repr(signal.getsignal(s)) for s in signal.valid_signals()}]

    def refused(**settings):
        try:
            return list(RayEvaluator(**settings)(abs, {0: 1.0}, lambda: False))
        except InvalidArgument as error:
            return str(error)

    before, states = state(), []
    said = [refused(address="127.0.0.1:1"), refused(address="nowhere"), refused(resources={"unobtainium": 1})]
    staff = RayEvaluator()
    known = dict(staff(abs, {0: -1.0, 1: 2.0}, lambda: False))
    states.append(state() == before)
    import psutil
    me, listening = psutil.Process(), []
    for process in (me, *me.children(recursive=True)):
        for socket in process.net_connections("inet"):
            if socket.status == "LISTEN" or socket.type.name == "SOCK_DGRAM":
                listening.append(socket.laddr.ip.removeprefix("::ffff:"))
    staff.close()
    states.append(state() == before)
    print(json.dumps({"said": said, "known": sorted(known.values()), "states": states, "listening": listening,
                      "left": [p.name() for p in me.children(recursive=True)]}))
"""


@needs_ray
def test_a_cluster_of_our_own_listens_on_loopback_and_leaves_no_trace(tmp_path):
    pytest.importorskip("psutil")
    home, env = tmp_path / "home", {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    home.mkdir()
    short = tempfile.mkdtemp(prefix="r", dir="/tmp")  # Ray's sockets lie below it: 107 characters at most
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE)], capture_output=True, text=True, check=False, timeout=120,
        env={**env, "HOME": str(home), "RAY_TMPDIR": short}, cwd=tmp_path,
    )  # fmt: skip
    shutil.rmtree(short, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert all(word in text for word, text in zip(["127.0.0.1:1", "nowhere", "unobtainium"], seen["said"], strict=True))
    assert seen["known"] == [1.0, 2.0]
    assert seen["states"] == [True, True]
    assert len(seen["listening"]) >= 4
    assert set(seen["listening"]) == {"127.0.0.1"}
    assert seen["left"] == []
    assert not list(home.iterdir())  # Ray's token would lie here, readable by everybody


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'dfo-optim\[ray\]'"):
        dfo.minimize(call, [1.0], method="cma", budget=10, workers="ray")


@needs_ray
def test_what_cannot_be_sent_is_refused_before_a_cluster_is_asked():
    lock = __import__("threading").Lock()
    with pytest.raises(InvalidType, match="lock"):
        dfo.minimize(lambda x: lock and 0.0, [1.0], method="cma", budget=10, workers="ray:127.0.0.1:1")


@pytest.mark.parametrize(
    ("resources", "kind"),
    [({"num_cpus": "2"}, InvalidType), ({"num_gpus": -1}, InvalidArgument), ({"memory": math.inf}, InvalidArgument),
     ({"num_cpus": True}, InvalidType)],
)  # fmt: skip
def test_resources_are_numbers(resources, kind):
    with pytest.raises(kind, match="resources"):
        Ray(resources=resources)


@needs_ray
def test_words_for_workers():
    assert ray_evaluator("ray").address is None
    assert ray_evaluator("ray://head:10001").address == "ray://head:10001"
    assert ray_evaluator("ray:auto").address == "auto"
    assert ray_evaluator("ray:head:6379").address == "head:6379"
    made = evaluator_of(Ray("auto", resources={"num_gpus": 0.5}), abs, eval_timeout=3.0, retries=2)
    assert repr(made) == "RayEvaluator('auto', resources={'num_cpus': 1, 'num_gpus': 0.5}, eval_timeout=3, retries=2)"
