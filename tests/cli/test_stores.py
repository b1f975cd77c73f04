"""The commands around stored runs, with real processes: shown while they run, killed, taken up, exported."""

import csv
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import chdir
from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

import dfo
from dfo.cli.app import app
from dfo.errors import CannotWrite, InvalidArgument
from dfo.report.exports import COLUMNS, cell, export, format_of
from dfo.run.store import Run, Store, View

MODEL = """
import os, time
import dfo

calls = 0

def cost(x):
    global calls
    calls += 1
    while calls > 10 and os.path.exists("hold"):
        time.sleep(0.01)
    return float(((x - 0.3) ** 2).sum())

def other(x):
    return 2.0 * cost(x)

def sometimes(x):
    if x[0] > 1.0:
        raise ValueError("no mesh above 1")
    return cost(x)

if __name__ == "__main__":
    dfo.minimize(cost, [2.0, 2.0, 2.0], method="cma", bounds=[(-5, 5)] * 3, budget=120, seed=7, store="run.db")
"""


begun = []


pytestmark = pytest.mark.filterwarnings("ignore::dfo.errors.EvaluationWarning")  # stores of failures are made here


@pytest.fixture
def home(tmp_path):
    """Return a folder with an objective; what a test has begun ends with it."""
    (tmp_path / "model.py").write_text(MODEL)
    yield tmp_path
    for process in begun:
        process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()
    begun.clear()


def environment():
    inherited = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": inherited, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}


def begin(home, *words):
    """Start a command that a test may kill."""
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=home, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    begun.append(process)
    return process


def cli(home, *words, code=0):
    process = begin(home, "-m", "dfo.cli", *words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, f"{out}\n{err}"
    return subprocess.CompletedProcess(words, code, out, err)


def quick(home, *words, code=0):
    """Run a command in this process, where no other process is the point."""
    with chdir(home):
        done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    return subprocess.CompletedProcess(words, code, done.stdout, done.stderr)


def wait_for(path, told, process, seconds=60.0):
    """Wait until a store has so many answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists():
            try:
                with View.open(path) as view:
                    if view.told >= told:
                        return
            except dfo.errors.DfoError:  # being created
                pass
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"{told} answers did not come")


def history(path):
    """Return the digest of every question and answer of a store, by plain SQL."""
    with sqlite3.connect(path) as sql:
        rows = sql.execute("SELECT number, x, status, value FROM evaluations ORDER BY number").fetchall()
    sql.close()
    return len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()


def held(home, told=10):
    """Start the script and wait until it has so many answers, where it stays until the file "hold" is gone."""
    (home / "hold").touch()
    run = begin(home, "model.py")
    wait_for(home / "run.db", told, run)
    return run


def stored(home, fun=None, name="run.db", **further):
    """Make a store in this process."""
    arguments = {"x0": [2.0, 2.0], "method": "cma", "budget": 40, "seed": 3} | further
    return dfo.minimize(fun or (lambda x: float(x @ x)), store=Store(home / name), **arguments)


# ---------------------------------------------------------------------- show


def test_show_says_what_ran_and_how_it_ended(home):
    quick(home, "run", "bbob-f008-i01-d02", "--method", "cma", "--budget", "60", "--seed", "5", "--store", "run.db")
    before = sorted(os.listdir(home)), (home / "run.db").read_bytes()
    text = quick(home, "show", "run.db", "--rows", "2").stdout
    for words in ("bbob-f008-i01-d02", "cma", "60 of 60 told", "finished: budget", "dfo resume run.db", "dfo 0."):
        assert words in text
    assert len([line for line in text.splitlines() if re.match(r"\s+5[89]  ok", line)]) == 2
    machine = json.loads(quick(home, "show", "run.db", "--json", "--rows", "60").stdout)
    assert (machine["problem"], machine["seed"], machine["told"], machine["failed"]) == ("bbob-f008-i01-d02", 5, 60, 0)
    assert machine["state"] == "finished"
    assert machine["best"]["value"] == min(row["value"] for row in machine["rows"])
    assert before == (sorted(os.listdir(home)), (home / "run.db").read_bytes())  # looking writes nothing


def test_show_and_follow_beside_a_run(home):
    run = held(home)
    follow = begin(home, "-m", "dfo.cli", "show", "run.db", "--follow")
    machine = json.loads(cli(home, "show", "run.db", "--json").stdout)
    assert machine["state"] == "running"
    assert machine["writer"]["pid"] == run.pid
    assert machine["told"] == 10
    assert machine["objective"] == "__main__:cost"
    assert machine["resume"] == "dfo resume run.db --objective FILE.py:FUNCTION"
    assert f"running: process {run.pid} on " in cli(home, "show", "run.db").stdout
    follow.stdout.readline()
    (home / "hold").unlink()
    assert run.wait(60) == 0
    out, err = follow.communicate(timeout=60)
    assert follow.returncode == 0, err
    lines = out.splitlines()
    assert lines[-1].endswith("finished")
    assert lines[-1].startswith("120/120 evaluations")
    assert json.loads(cli(home, "show", "run.db", "--json").stdout)["best"]["value"] == min(
        row.value for row in rows_of(home / "run.db")
    )
    assert "\r" not in out


def test_follow_ends_at_ctrl_c_and_leaves_the_run_alone(home):
    run = held(home)
    follow = begin(home, "-m", "dfo.cli", "show", "run.db", "--follow", "--json")
    first = json.loads(follow.stdout.readline())
    assert first["state"] == "running"
    follow.send_signal(signal.SIGINT)
    assert follow.wait(20) == 130
    follow.communicate()
    assert run.poll() is None
    run.kill()
    run.communicate()
    assert "killed: its process ended without a word" in cli(home, "show", "run.db").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_one_line_is_drawn_in_place(home):
    import pty

    run = held(home)
    ours, theirs = pty.openpty()
    follow = subprocess.Popen(
        [sys.executable, "-m", "dfo.cli", "show", "run.db", "--follow"], cwd=home, env=environment(),
        stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"10/120" not in seen:
        seen += os.read(ours, 1000)
    (home / "hold").unlink()
    assert run.wait(60) == 0
    try:
        while part := os.read(ours, 1000):
            seen += part
    except OSError:  # the other end is closed
        pass
    assert follow.wait(30) == 0
    os.close(ours)
    frames = seen.decode().replace("\r\n", "").split("\r\x1b[K")
    assert frames[0] == ""
    assert frames[-1].startswith("120/120 evaluations")
    assert seen.count(b"\n") == 1


def test_failures_are_shown_with_their_text(home):
    stored(home, failing, on_error="record")
    text = quick(home, "show", "run.db").stdout
    assert re.search(r"evaluation \d+: raised: ValueError: '?no mesh above 1", text)
    assert re.search(r"40 of 40 told, \d+ failed", text)


def failing(x):
    if x[0] > 1.0:
        raise ValueError("no mesh above 1")
    return float(x @ x)


def test_what_is_no_store_is_said_and_not_created(home):
    (home / "text.db").write_text("no database")
    for words in (("show", "none.db"), ("resume", "none.db"), ("export", "none.db", "--to", "x.csv")):
        assert "none.db" in quick(home, *words, code=2).stderr
    assert "text.db" in quick(home, "show", "text.db", code=1).stderr
    assert sorted(os.listdir(home)) == ["model.py", "text.db"]


def test_a_run_that_a_program_asks_and_tells(home):
    with dfo.AskTell("cma", [1.0, 2.0], store=home / "run.db") as opt:
        for _ in range(7):
            opt.tell(x := opt.ask(), float(x @ x))
    text = quick(home, "show", "run.db").stdout
    assert "asked and told by a program" in text
    assert "resume" not in text
    assert "start the program again" in quick(home, "resume", "run.db", code=2).stderr


# ---------------------------------------------------------------------- resume


def test_a_killed_run_on_a_problem_resumes_by_name_as_if_never_stopped(home):
    words = ("run", "bbob-f010-i02-d03", "--method", "cma", "--budget", "600", "--seed", "2", "--store")
    cli(home, *words, "whole.db")
    run = begin(home, "-m", "dfo.cli", *words, "cut.db")
    wait_for(home / "cut.db", 40, run)
    run.kill()
    run.communicate()
    cut, _ = history(home / "cut.db")
    assert 40 <= cut < 600
    resumed = json.loads(cli(home, "resume", "cut.db", "--json").stdout)
    whole = json.loads(cli(home, *words, "whole.db", "--json").stdout)  # replayed: nothing is left to do
    assert history(home / "cut.db") == history(home / "whole.db")
    for name in ("x", "fun", "nfev", "nit", "status", "gap", "targets_hit"):
        assert resumed[name] == whole[name]


def test_a_killed_run_of_a_script_resumes_with_its_objective(home):
    subprocess.run([sys.executable, "model.py"], cwd=home, env=environment(), check=True, timeout=60)
    (home / "run.db").rename(home / "whole.db")
    run = held(home)
    run.kill()
    run.communicate()
    (home / "hold").unlink()
    assert history(home / "run.db")[0] < 20
    needs = cli(home, "resume", "run.db", code=2).stderr
    assert "--objective" in needs
    assert "__main__:cost" in needs  # a hint, not an import
    cli(home, "resume", "run.db", "--objective", "model.py:cost")
    assert history(home / "run.db") == history(home / "whole.db")
    cli(home, "resume", "run.db", "--objective", "model:cost", "--budget", "150")
    assert history(home / "run.db")[0] == 150


def test_another_objective_is_refused_with_the_difference(home):
    subprocess.run([sys.executable, "model.py"], cwd=home, env=environment(), check=True, timeout=60)
    before = history(home / "run.db")
    refused = cli(home, "resume", "run.db", "--objective", "model.py:other", "--budget", "130", code=2).stderr
    assert "objective" in refused
    assert "cost" in refused
    for words, said in (
        (("--objective", "model.py:nothing"), "no function 'nothing'"),
        (("--objective", "nowhere.py:cost"), "no file"),
        (("--objective", "nowhere:cost"), "no module"),
        (("--objective", "cost"), "FILE.py:FUNCTION"),
        (("--seed", "3"), "No such option"),
    ):
        assert said in quick(home, "resume", "run.db", *words, code=2).stderr
    assert history(home / "run.db") == before


def test_every_kind_of_space_resumes(home):
    (home / "spaces.py").write_text(
        "def named(p): return (p['rate'] - 0.1) ** 2 + p['layers'] + (p['kind'] == 'b')\n"
        "def text(s): return float(s.count('a'))\n"
        "def vector(x): return float((x * x).sum())\n"
        "def high(x): return 1.0 - float((x * x).sum())\n"
    )
    sys.path.insert(0, str(home))
    try:
        import spaces

        cases = {
            "named": ({"rate": dfo.Float(1e-3, 1, log=True), "layers": dfo.Int(1, 4), "kind": dfo.Choice(["a", "b"])},),
            "text": (dfo.Text("abc", (2, 5)),),
            "vector": (dfo.L1Ball(3, radius=2.0),),
        }
        for name, (space,) in cases.items():
            dfo.minimize(getattr(spaces, name), space, budget=12, store=home / f"{name}.db")
            cli(home, "resume", f"{name}.db", "--objective", f"spaces.py:{name}", "--budget", "20")
            assert history(home / f"{name}.db")[0] == 20
        found = dfo.maximize(spaces.high, [1.0, 1.0], method="cma", budget=30, store=home / "high.db")
    finally:
        sys.path.remove(str(home))
    again = json.loads(cli(home, "resume", "high.db", "--objective", "spaces.py:high", "--json").stdout)
    assert again["fun"] == found.fun


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_best_and_the_command_that_goes_on(home, number, code):
    words = ("run", "bbob-f024-i01-d40", "--method", "random", "--budget", "1000000", "--store", "odd name.db")
    run = begin(home, "-m", "dfo.cli", *words)
    wait_for(home / "odd name.db", 20, run)
    assert cli(home, "resume", "odd name.db", code=75).stderr.count(f"process {run.pid}") == 1
    run.send_signal(number)
    out, err = run.communicate(timeout=20)
    assert run.returncode == code
    assert "interrupted" in out
    assert re.search(r"Interrupted: \d+ evaluations are kept, best \S+ at evaluation \d+", err)
    assert "To go on: dfo resume 'odd name.db'" in err
    told = history(home / "odd name.db")[0]
    done = json.loads(cli(home, "resume", "odd name.db", "--budget", str(told + 50), "--json").stdout)
    assert done["nfev"] == told + 50


def test_the_same_command_goes_on_and_another_one_is_refused(home):
    words = ("run", "classic-sphere-d02", "--method", "cma", "--store", "run.db", "--budget")
    quick(home, *words, "30")
    assert json.loads(quick(home, *words, "50", "--json").stdout)["nfev"] == 50
    whole = history(home / "run.db")
    for further, said in (
        (("--seed", "1"), "seed"),
        (("--method", "random"), "method"),
        (("--workers", "many"), "many"),
        (("--eval-timeout", "-1"), "eval_timeout"),
    ):
        assert said in quick(home, *words, "60", *further, code=2).stderr
    other = quick(home, "run", "classic-sphere-d03", "--method", "cma", "--store", "run.db", code=2).stderr
    assert "classic-sphere-d02" in other
    assert "classic-sphere-d03" in other
    assert history(home / "run.db") == whole


def test_an_objective_that_raises_ends_with_1_and_can_be_mended(home):
    script = "import dfo, model\ndfo.minimize(model.sometimes, [0.5, 0.5], method='cma', budget=60, store='r.db')\n"
    failed = begin(home, "-c", script)
    failed.communicate(timeout=60)
    assert failed.returncode == 1
    raised = cli(home, "resume", "r.db", "--objective", "model:sometimes", code=1).stderr
    assert "no mesh above 1" in raised
    assert "To go on: dfo resume r.db --objective FILE.py:FUNCTION" in raised


def test_workers_and_a_time_limit_change_no_result(home):
    words = ("run", "classic-sphere-d02", "--method", "cma", "--budget", "60", "--store")
    cli(home, *words, "one.db")
    cli(home, *words, "two.db", "--workers", "2", "--eval-timeout", "30")
    assert history(home / "one.db") == history(home / "two.db")


# ---------------------------------------------------------------------- export


def rows_of(path):
    with View.open(path) as view:
        return list(view.rows())


def test_csv_reads_back_to_the_last_bit(home):
    stored(home, failing, on_error="record")
    assert "40 evaluations" in quick(home, "export", "run.db", "--to", "run.csv").stdout
    raw = (home / "run.csv").read_bytes()
    assert raw.count(b"\r\n") == 41
    with (home / "run.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [*COLUMNS, "x0", "x1"]
    for line, row in zip(table, rows_of(home / "run.db"), strict=True):
        assert [float(line["x0"]), float(line["x1"])] == row.x.tolist()
        assert (float(line["value"]) if line["value"] else None) == row.value
        assert line["status"] == row.status
        assert line["note"] == (row.note or "")


def test_no_cell_of_text_is_a_formula(home):
    kinds = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "plain", 'a,"b"\n']
    space = {"=cmd": dfo.Float(-1, 1), "value": dfo.Choice(kinds)}
    stored(home, lambda p: p["=cmd"], x0=space, method="random", budget=80)
    quick(home, "export", "run.db", "--to", "run.csv")
    with (home / "run.csv").open(newline="") as file:
        header, *table = list(csv.reader(file))
    assert header[-2:] == ["'=cmd", "value_"]
    assert {line[-1] for line in table} == {f"'{k}" if k[0] in "=+-@\t\r" else k for k in kinds}
    assert any(float(line[-2]) < 0 for line in table)  # numbers stay numbers
    assert cell(-1.5) == "-1.5"
    texts = {line[i] for line in table for i, name in enumerate(header) if name in ("status", "note", "value_")}
    assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r")) for text in texts)


def test_jsonl_is_strict(home):
    stored(home, lambda x: float("nan") if x[0] > 1 else float(x @ x))
    quick(home, "export", "run.db", "--to", "run.jsonl")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (home / "run.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(40))
    assert all(line["x"] == row.x.tolist() for line, row in zip(lines, rows_of(home / "run.db"), strict=True))


def test_parquet_reads_back(home):
    parquet = pytest.importorskip("pyarrow.parquet")
    stored(home, lambda p: p["rate"], x0={"rate": dfo.Float(0, 1), "n": dfo.Int(1, 9), "k": dfo.Choice(["a", (1, 2)])})
    quick(home, "export", "run.db", "--to", "run.pq", "--format", "parquet")
    table = parquet.read_table(home / "run.pq")
    assert table.column_names == [*COLUMNS, "rate", "n", "k"]
    rows = rows_of(home / "run.db")
    assert table["rate"].to_pylist() == [row.x["rate"] for row in rows]
    assert table["n"].to_pylist() == [row.x["n"] for row in rows]
    assert str(table.schema.field("n").type) == "int64"
    assert set(table["k"].to_pylist()) <= {"a", "[1, 2]"}


def test_without_pyarrow_the_install_line_is_printed(home, monkeypatch):
    stored(home)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with View.open(home / "run.db") as view, pytest.raises(ImportError, match=r"dfo-optim\[parquet\]"):
        export(view, home / "run.parquet", "parquet")


@pytest.mark.parametrize(
    ("problem", "g"), [("bbob-f008-i02-d02", 0), ("bbob-constrained-f003-i01-d02", 1), ("bbob-noisy-f101-i01-d02", 0)]
)
def test_cocopp_reads_the_coco_folder(home, problem, g):
    quick(home, "run", problem, "--method", "cma", "--budget", "90", "--store", "run.db")
    quick(home, "export", "run.db", "--to", "data", "--format", "coco")
    function = int(problem.split("-f")[1][:3])
    lines = (home / "data" / f"data_f{function}" / f"bbobexp_f{function}_DIM2.dat").read_text().splitlines()[1:]
    counts, gaps = zip(*[(int(line.split()[0]), float(line.split()[2])) for line in lines], strict=True)
    assert counts[-1] == 90
    assert list(gaps) == sorted(gaps, reverse=True)
    printed = json.loads(
        quick(home, "run", problem, "--method", "cma", "--budget", "90", "--store", "run.db", "--json").stdout
    )
    assert gaps[-1] == pytest.approx(printed["gap"], rel=1e-8)
    assert "is there already" in quick(home, "export", "run.db", "--to", "data", "--format", "coco", code=2).stderr
    if find_spec("cocopp") is None:
        return
    script = (
        "import warnings, json\nwarnings.simplefilter('ignore')\nfrom cocopp.pproc import DataSetList\n"
        "(d,) = DataSetList('data')\n"
        "print(json.dumps([d.funcId, d.dim, d.instancenumbers, float(d.maxevals[0]), float(d.finalfunvals[0])]))\n"
    )
    read = begin(home, "-W", "ignore", "-c", script)
    out, err = read.communicate(timeout=60)
    assert read.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found[:4] == [function, 2, [int(problem.split("-i")[1][:2])], 90.0 * (1 + g)]
    assert found[4] == pytest.approx(printed["gap"], rel=1e-8)


def test_coco_needs_a_problem_of_its_suites(home):
    stored(home)
    assert "function of yours" in quick(home, "export", "run.db", "--to", "data", "--format", "coco", code=2).stderr
    assert not (home / "data").exists()


def test_an_export_is_whole_or_not_there(home):
    stored(home)
    assert "is the store itself" in quick(home, "export", "run.db", "--to", "run.db", "--format", "csv", code=2).stderr
    assert "csv, jsonl, parquet" in quick(home, "export", "run.db", "--to", "run.xls", code=2).stderr
    (home / "victim").write_text("untouched")
    (home / "link.csv").symlink_to(home / "victim")
    quick(home, "export", "run.db", "--to", "link.csv")
    assert (home / "victim").read_text() == "untouched"
    with View.open(home / "run.db") as view, pytest.raises(CannotWrite, match="cannot be written"):
        export(view, home / "nowhere" / "run.csv", "csv")
    with pytest.raises(InvalidArgument):
        format_of("run.db")


def test_an_export_beside_a_run(home):
    run = held(home)
    cli(home, "export", "run.db", "--to", "part.csv")
    assert run.poll() is None
    run.kill()
    run.communicate()
    with (home / "part.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) >= 10
    assert {line["status"] for line in table} <= {"ok", "asked"}


# ---------------------------------------------------------------------- repair


def test_repair_saves_what_is_whole(home):
    stored(home, budget=400)
    whole = history(home / "run.db")[0]
    raw = bytearray((home / "run.db").read_bytes())
    at = raw.rindex(b"float64 (2,)")
    raw[at - 40] ^= 0xFF
    (home / "run.db").write_bytes(raw)
    assert "dfo repair" in quick(home, "show", "run.db", code=1).stderr
    found = json.loads(quick(home, "repair", "run.db", "--to", "new.db", "--json").stdout)
    assert 0 < found["kept"] <= whole
    assert history(home / "new.db")[0] >= found["kept"]
    quick(home, "show", "new.db")
    assert "new.db" in quick(home, "repair", "run.db", "--to", "new.db", code=2).stderr  # it exists


# ---------------------------------------------------------------------- hostile strings


EVIL = ["\x1b]0;owned\x07", "\x1b[2J", "a\rb", "\u202etxt.exe", "\x9b31m", "\x00null"[1:] + "\x7f"]


def evil(p):
    raise ValueError("".join(EVIL))


def test_no_control_character_reaches_the_terminal(home):
    name = f"run{EVIL[1]}{EVIL[3]}.db"
    script = home / f"odd{EVIL[2]}.py"
    script.write_text(
        f"import dfo, sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import test_stores as t\n"
        "t.evil.__qualname__ = 'evil' + t.EVIL[0]\n"
        "space = {'rate' + t.EVIL[1]: dfo.Float(0, 1), 'kind' + t.EVIL[4]: dfo.Choice(t.EVIL)}\n"
        f"dfo.minimize(t.evil, space, budget=8, on_error='record', method='random', store={name!r})\n"
    )
    run = begin(home, "-W", "ignore", script)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    outputs = [
        quick(home, "show", name, "--rows", "8"),
        quick(home, "show", name, "--follow"),
        quick(home, "show", name, "--json", "--rows", "8"),
        quick(home, "show", name, "--follow", "--json"),
        quick(home, "resume", name, code=2),
        quick(home, "resume", name, "--objective", f"x{EVIL[0]}:y", code=2),
        quick(home, "export", name, "--to", f"out{EVIL[1]}.csv"),
        quick(home, "export", name, "--to", f"out{EVIL[1]}", code=2),
        quick(home, "repair", name, "--to", f"new{EVIL[1]}.db"),
    ]
    for done in outputs:
        for text in (done.stdout, done.stderr):
            raw = [c for c in text if c != "\n" and not c.isprintable()]
            assert not raw, (done.args, raw)
    assert "owned" in outputs[0].stdout  # shown, spelled out
    assert r"\x1b]0;" in outputs[0].stdout


POSED = {"object": "dfo.bench.posed:PosedFunction", "holds": {"problem": "../../etc/passwd"}}


@pytest.mark.parametrize(
    ("config", "code"),
    [({"objective": POSED}, 2), ({"objective": POSED | {"holds": {"problem": "os:system"}}}, 2),
     ({"objective": {"function": "os:system"}, "x0": {"class": "subprocess:Popen", "fields": {"args": "id"}}}, 2),
     ({"objective": None, "x0": {"class": "dfo.spaces:Free", "fields": {"dim": "x"}}}, 1),
     ({"objective": [], "x0": {"class": "dfo.sets.balls:Simplex", "fields": {"dim": 10**15, "radius": 1.0}},
       "method": {"class": "os:x", "fields": {}}}, 2),
     ({"objective": {}, "method": [1], "seed": {}, "x0": "text", "bounds": 3}, 1), ({"objective": 1}, 2)],
    ids=str,
)  # fmt: skip
def test_what_a_store_says_is_data(home, config, code):
    with Run.open(Store(home / "run.db")) as run:
        run.begin(config, {"budget": [], "workers": {}, "timeout": "x"})
    quick(home, "show", "run.db")
    quick(home, "show", "run.db", "--json")
    words = () if "holds" in str(config) else ("--objective", "builtins:print")
    done = quick(home, "resume", "run.db", *words, code=code)
    assert done.stderr.startswith("Error: ")


def test_a_name_does_not_leave_the_folder_of_a_measure(home):
    (home / "out").mkdir()
    quick(home / "out", "measure", "../../../escaped", "--out", ".", code=2)
    assert sorted(os.listdir(home)) == ["model.py", "out"]
    assert os.listdir(home / "out") == []


def test_a_report_is_not_written_through_a_link(home):
    words = ("bench", "quick", "--methods", "random", "--budget", "20", "--functions", "sphere", "--dims", "2")
    quick(home, *words, "--workers", "0", "--out", "bench")
    (home / "victim").write_text("untouched")
    for name in ("report.html", "ecdf.png", "scores.csv"):
        (home / "bench" / name).unlink()
        (home / "bench" / name).symlink_to(home / "victim")
    quick(home, *words, "--workers", "0", "--out", "bench")
    assert (home / "victim").read_text() == "untouched"
    assert not (home / "bench" / "report.html").is_symlink()


def test_numbers_keep_their_bits_in_cells():
    for value in (0.1 + 2**-54, 5e-324, -1.7976931348623157e308, np.nextafter(1.0, 2.0).item()):
        assert float(str(cell(value))) == value
