"""The log of a run: round trips, damage, sudden death."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dfo.errors import BadState, CannotWrite, InvalidArgument, InvalidType
from dfo.nn import logfile
from dfo.nn.replay import ReplayLog, describe, replay
from dfo.nn.rounding import add_
from dfo.nn.snapshots import Snapshots
from dfo.random import Key, normal


def entry(step, q=3):
    """Return what is logged for a step, a function of the step."""
    drawn = np.random.default_rng(step).standard_normal(q)
    return step, drawn, [1e-3 / (step + 1), 0.1], {"loss": float(drawn.sum()), "läng": float("nan")}


def same(record, step, weights, rates, named):
    return (
        record.step == step
        and record.weights.tobytes() == np.asarray(weights).tobytes()
        and record.rates == tuple(rates)
        and np.array(list(record.named.values())).tobytes() == np.array(list(named.values())).tobytes()
        and list(record.named) == list(named)
    )


def filled(path, steps=4, q=3):
    log = ReplayLog.create(path, {"seed": 7, "config": {"lr": 1e-3}})
    for step in range(steps):
        log.append(*entry(step, q))
    return log


@pytest.mark.parametrize("where", ["file", "memory"])
def test_round_trip(tmp_path, where):
    log = filled(tmp_path / "log" if where == "file" else None, 10)
    if where == "file":
        log.close()
        log = ReplayLog.open(tmp_path / "log")
    assert len(log) == 10
    assert log.header["seed"] == 7
    assert {"dfo", "rng"} <= log.header.keys()
    assert all(same(record, *entry(i)) for i, record in enumerate(log))
    assert [r.step for r in log.records[3:7]] == [3, 4, 5, 6]
    assert [r.step for r in log[-2:]] == [8, 9]
    assert same(log[-1], *entry(9))
    assert log.position(4) == 4
    assert log.note == ""
    with pytest.raises(IndexError):
        log[10]


def test_records_are_small(tmp_path):
    for q in (1, 16, 1000):
        log = filled(None, 0)
        before = log._end
        log.append(0, np.ones(q), [1e-3])
        assert log._end - before == 8 * q + 8 + 28


def test_steps_grow_and_can_be_dropped(tmp_path):
    log = filled(tmp_path / "log", 6)
    with pytest.raises(InvalidArgument, match="expected a step > 5"):
        log.append(*entry(5))
    log.truncate(3)
    assert [r.step for r in log] == [0, 1, 2]
    log.append(*entry(8))
    log.truncate(100)
    log.close()
    log = ReplayLog.open(tmp_path / "log", write=True)
    assert [r.step for r in log] == [0, 1, 2, 8]
    log.truncate(0)
    log.append(*entry(1))
    assert same(ReplayLog.open(tmp_path / "log")[0], *entry(1))


def test_one_writer_many_readers(tmp_path):
    log = filled(tmp_path / "log")
    with pytest.raises(InvalidArgument, match="another writer"):
        ReplayLog.open(tmp_path / "log", write=True)
    code = f"from dfo.nn.replay import ReplayLog; ReplayLog.open({str(tmp_path / 'log')!r}, write=True)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another writer" in other.stderr
    with ReplayLog.open(tmp_path / "log") as reader:
        log.append(*entry(4))
        assert len(reader) == 4
        assert same(reader[3], *entry(3))
        with pytest.raises(InvalidArgument, match="reading only"):
            reader.append(*entry(5))
    log.close()
    ReplayLog.open(tmp_path / "log", write=True).close()


def test_refusals(tmp_path):
    filled(tmp_path / "log").close()
    with pytest.raises(InvalidArgument, match="expected no such file"):
        ReplayLog.create(tmp_path / "log", {})
    assert len(ReplayLog.open(tmp_path / "log")) == 4
    with pytest.raises(InvalidArgument, match="no such file"):
        ReplayLog.open(tmp_path / "none")
    with pytest.raises(CannotWrite):
        ReplayLog.create(tmp_path / "no" / "folder", {})
    for header in ({"x": float("nan")}, {"x": {1, 2}}, {"x": (1, 2)}, {"x": {1: 2}}):
        with pytest.raises(InvalidType, match="plain JSON"):
            ReplayLog.create(None, header)
    log = filled(None)
    for wrong in ((9, np.ones((2, 2)), [1.0]), (-1, [1.0], [1.0]), (1 << 63, [1.0], [1.0])):
        with pytest.raises(InvalidArgument):
            log.append(*wrong)
    with pytest.raises(InvalidArgument):
        log.append(9, [1.0], [1.0], {"n" * 300: 1.0})
    assert len(log) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log"]


def test_table(tmp_path):
    log = filled(None, 2)
    log.append(2, [0.1], [], {"other": 1.0})
    log.to_csv(tmp_path / "log.csv")
    lines = (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "step,rate_0,rate_1,loss,läng,other,weight_0,weight_1,weight_2"
    assert lines[3] == "2,,,,,1.0,0.1"
    assert float(lines[1].split(",")[6]) == entry(0)[1][0]
    with pytest.raises(CannotWrite):
        log.to_csv(tmp_path / "no" / "log.csv")


# ---------------------------------------------------------------------- damage


def test_every_flipped_byte_is_found(tmp_path):
    filled(tmp_path / "log").close()
    intact = (tmp_path / "log").read_bytes()
    ends = [*ReplayLog.open(tmp_path / "log")._starts, len(intact)]
    for at in range(len(intact)):
        for mask in (0x01, 0x80, 0xFF, 1 + at % 255):
            damaged = bytearray(intact)
            damaged[at] ^= mask
            (tmp_path / "bad").write_bytes(damaged)
            with pytest.raises(BadState, match="byte"):
                ReplayLog.open(tmp_path / "bad")
            if at < ends[0]:
                with pytest.raises(BadState):
                    ReplayLog.open(tmp_path / "bad", salvage=True)
                continue
            saved = ReplayLog.open(tmp_path / "bad", salvage=True)
            assert len(saved) == sum(end <= at for end in ends[1:])
            assert all(same(record, *entry(i)) for i, record in enumerate(saved))
            assert "damage" in saved.note


def test_every_length_is_a_prefix(tmp_path):
    filled(tmp_path / "log").close()
    intact = (tmp_path / "log").read_bytes()
    ends = [*ReplayLog.open(tmp_path / "log")._starts, len(intact)]
    for length in range(len(intact)):
        (tmp_path / "cut").write_bytes(intact[:length])
        if length < ends[0]:
            with pytest.raises(BadState):
                ReplayLog.open(tmp_path / "cut")
            continue
        kept = sum(end <= length for end in ends[1:])
        for tail in (b"", b"\0" * 5000):  # torn, or room that was given and not filled before power was lost
            (tmp_path / "cut").write_bytes(intact[:length] + tail)
            if tail and length not in ends:
                continue  # zeros in the middle of a record are damage
            reader = ReplayLog.open(tmp_path / "cut")
            assert len(reader) == kept
            assert bool(reader.note) == (length not in ends or bool(tail))
            with ReplayLog.open(tmp_path / "cut", write=True) as log:
                assert log.note == reader.note
                log.append(*entry(kept))
            again = ReplayLog.open(tmp_path / "cut")
            assert again.note == ""
            assert [r.step for r in again] == list(range(kept + 1))
            assert same(again[kept], *entry(kept))


def test_missing_repeated_and_swapped_records(tmp_path):
    filled(tmp_path / "log").close()
    intact = (tmp_path / "log").read_bytes()
    starts = [*ReplayLog.open(tmp_path / "log")._starts, len(intact)]
    head, parts = intact[: starts[0]], [intact[a:b] for a, b in itertools.pairwise(starts)]
    for order in ((1, 2, 3), (0, 2, 3), (0, 0, 1, 2, 3), (0, 2, 1, 3), (3, 2, 1, 0)):
        (tmp_path / "bad").write_bytes(head + b"".join(parts[i] for i in order))
        with pytest.raises(BadState):
            ReplayLog.open(tmp_path / "bad")


def test_a_change_behind_the_readers_back(tmp_path):
    filled(tmp_path / "log").close()
    reader = ReplayLog.open(tmp_path / "log")
    with open(tmp_path / "log", "r+b") as file:
        file.seek(reader._starts[2] + 30)
        file.write(b"xx")
    assert same(reader[1], *entry(1))
    with pytest.raises(BadState, match="has changed"):
        reader[2]


def test_newer_versions_and_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "FORMAT", 2)
    filled(tmp_path / "new").close()
    monkeypatch.undo()
    with pytest.raises(BadState, match="format 1, got 2"):
        ReplayLog.open(tmp_path / "new")
    hostile = [b"", b"dfo.log\n", b"\x80\x04.", b"{}" * 50, b"dfo.log\n\x01\0\0\0\xff\xff\xff\xff" + b"[" * 10_000]
    for content in hostile:
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(BadState):
            ReplayLog.open(tmp_path / "other")


def test_salvaged_logs_go_on(tmp_path):
    filled(tmp_path / "log", 6).close()
    with open(tmp_path / "log", "r+b") as file:
        file.seek(ReplayLog.open(tmp_path / "log")._starts[3] + 30)
        file.write(b"xx")
    with ReplayLog.open(tmp_path / "log", write=True, salvage=True) as log:
        assert len(log) == 3
        log.append(*entry(3))
    assert all(same(record, *entry(i)) for i, record in enumerate(ReplayLog.open(tmp_path / "log")))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_full_disk(tmp_path):
    code = f"""
import resource, signal
from dfo.errors import CannotWrite
from dfo.nn.replay import ReplayLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = ReplayLog.create({str(tmp_path / "log")!r}, {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    for step in range(1000):
        log.append(step, [1.0, 2.0, 3.0], [1.0])
except CannotWrite as error:
    print(step, "room" in str(error) or "large" in str(error) or "part" in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
log.append(step, [1.0], [1.0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    step, said = done.stdout.split()
    assert said == "True"
    log = ReplayLog.open(tmp_path / "log")
    assert [r.step for r in log] == list(range(int(step) + 1))
    assert log.note == ""


WRITERS = """
import os, sys
import numpy as np
from dfo.nn.replay import ReplayLog
path, said, q = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    log = ReplayLog.open(path, write=True)
    told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for step in range(len(log), 10**9):
        log.append(step, np.random.default_rng(step).standard_normal(q), [float(step)])
        os.write(told, b"%d\\n" % step)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_at_random_moments(tmp_path):
    ReplayLog.create(tmp_path / "log", {}).close()
    moments, q, grown, acknowledged = random.Random(0), 2000, 0, 0
    command = [sys.executable, "-W", "ignore", "-c", WRITERS, str(tmp_path / "log"), str(tmp_path / "said"), str(q)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        for _ in range(8):
            print("go", file=parent.stdin, flush=True)
            child = int(parent.stdout.readline())
            time.sleep(moments.uniform(0.0, 0.3))
            os.kill(child, signal.SIGKILL)
            assert parent.stdout.readline() == "dead\n"
            told = (tmp_path / "said").read_bytes().split(b"\n")[:-1] if (tmp_path / "said").exists() else []
            acknowledged = max(acknowledged, *(int(line) + 1 for line in told[-1:]), 0)
            log = ReplayLog.open(tmp_path / "log")
            assert len(log) >= max(acknowledged, grown)
            for i in {0, grown, len(log) // 2, len(log) - 1} & set(range(len(log))):
                assert log[i].step == i
                assert log[i].weights.tobytes() == np.random.default_rng(i).standard_normal(q).tobytes()
            grown = len(log)
        parent.stdin.close()
    assert acknowledged > 8


# ---------------------------------------------------------------------- replay


def start_weights():
    return {
        "matrix": normal(Key(0, ("m",)), (40, 30), torch.empty(0)).mul_(0.02).bfloat16(),
        "vector": normal(Key(0, ("v",)), (30,), torch.empty(0)).mul_(0.02),
    }


def apply(record, tensors):
    """Move along gaussian directions that the step names, as a front would."""
    for name, tensor in tensors.items():
        key = Key(7, (record.step, name))

        def piece(start, stop, key=key):
            drawn = [normal(key.child(j), (stop - start,), torch.empty(0), start) for j in range(len(record.weights))]
            return sum(record.rates[0] * w * u for w, u in zip(record.weights, drawn, strict=True))

        add_(tensor, piece, key.child("rounding"))


def test_resume_is_a_snapshot_and_the_records_behind_it(tmp_path):
    weights, seen = start_weights(), []
    with ReplayLog.create(tmp_path / "log", describe(weights, 7, {"method": "zo-sgd"})) as log:
        snapshots = Snapshots(tmp_path / "snapshots", keep=2, run=log.identity)
        for step in range(12):
            log.append(step, entry(step)[1], [1e-4])
            apply(log[-1], weights)
            seen.append({name: t.clone() for name, t in weights.items()})
            if step % 5 == 4:
                snapshots.save(step + 1, weights)
    log = ReplayLog.open(tmp_path / "log")
    for steps in (0, 1, 7, 12):  # from the start
        rebuilt = start_weights()
        assert replay(log, rebuilt, apply, stop=steps) == steps
        if steps:
            assert all(torch.equal(rebuilt[name], t) for name, t in seen[steps - 1].items())
    latest = Snapshots(tmp_path / "snapshots", run=log.identity).latest()
    assert latest.step == 10
    rebuilt = {name: torch.zeros_like(t) for name, t in weights.items()}
    latest.load_into(rebuilt)
    assert replay(log, rebuilt, apply, start=latest.step) == 2
    assert all(torch.equal(rebuilt[name], t) for name, t in weights.items())


def test_replay_refuses_what_does_not_fit():
    weights = start_weights()
    log = ReplayLog.create(None, describe(weights, 7, {}))
    log.append(0, [1.0], [1e-3])
    with pytest.raises(BadState, match="'vector'"):
        replay(log, {"matrix": weights["matrix"]}, apply)
    with pytest.raises(BadState, match="not the weights"):
        replay(log, {name: t + 1 for name, t in weights.items()}, apply)
    other = ReplayLog.create(None, {**log.header, "rng": 99})
    with pytest.raises(BadState, match="random numbers"):
        replay(other, weights, apply)
    assert log.header["threads"] == torch.get_num_threads()
    assert log.header["tensors"][0] == {"name": "matrix", "shape": [40, 30], "dtype": "bfloat16"}
