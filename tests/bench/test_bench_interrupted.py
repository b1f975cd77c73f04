"""A bench that is really killed goes on, and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dfo.bench import bench, load_records

SUPPORT = Path(__file__).parent / "support"
SUITE = """
name = "odd"
budget = "20d"
targets = "coco"
[[problems]]
pack = "odd"
functions = ["slow"]
instances = [1, 2, 3, 4]
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def start(tmp_path, *more):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *filter(None, sys.path)])}
    (tmp_path / "pids").mkdir(exist_ok=True)
    (tmp_path / "odd.toml").write_text(SUITE)
    return subprocess.Popen(
        [sys.executable, "-m", "dfo.cli", "bench", str(tmp_path / "odd.toml"), "--methods", "random,cma",
         "--seeds", "2", "--workers", "2", "--out", str(tmp_path / "out"), *more],
        env={**environment, "ODD_PIDS": str(tmp_path / "pids")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (a shell may have ignored it)
    )  # fmt: skip


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.02)


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_killed_bench_goes_on(tmp_path, number, plan):
    results, pids = tmp_path / "out" / "results.jsonl", tmp_path / "pids"
    process = start(tmp_path)
    wait_for(lambda: results.exists() and results.read_bytes().count(b"\n") >= 3)
    wait_for(lambda: len(os.listdir(pids)) == 2)  # the second worker may come late
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number != signal.SIGKILL:
        assert "the same command goes on" in said
        assert "Traceback" not in said
    kept = results.read_bytes().count(b"\n")
    assert 3 <= kept < 16
    workers = [int(name) for name in os.listdir(pids)]
    assert len(workers) == 2
    wait_for(lambda: all(map(ended, workers)))

    again = start(tmp_path)
    out, said = again.communicate(timeout=60)
    assert again.returncode == 0, said
    assert f"{kept} are stored already" in said
    assert "report.html" in out
    whole = bench(plan(["slow"], ["random", "cma"], seeds=(0, 1), instances=(1, 2, 3, 4), budget="20d"), workers=0)
    assert [timeless(r) for r in load_records(tmp_path / "out")[1]] == [timeless(r) for r in whole]


def timeless(record):
    return replace(record, seconds=0.0, cpu_seconds=0.0, session=0)
