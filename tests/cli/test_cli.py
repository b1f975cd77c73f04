"""The command line as users and scripts see it: words, exit codes, streams."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfo.cli.words import counts, labels
from dfo.errors import InvalidArgument

SUPPORT = Path(__file__).parents[1] / "bench" / "support"
HOSTILE = "<script>alert(1)</script>\\u001b[31m$x^2$"
ODD = """
name = "odd <i>suite</i>"
budget = "{budget}"
targets = "coco"
[[problems]]
pack = "odd"
functions = [{functions}]
"""


def environment(*paths):
    inherited = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *inherited]), "COLUMNS": "100"}


def dfo(*words, code=0, paths=(), cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "dfo.cli", *map(str, words)],
        capture_output=True, text=True, env=environment(*paths), cwd=cwd, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def odd_suite(tmp_path, *functions, budget="20d"):
    path = tmp_path / "odd.toml"
    path.write_text(ODD.format(budget=budget, functions=", ".join(f'"{f}"' for f in functions)))
    return path


# ---------------------------------------------------------------------- words


def test_numbers_and_spans():
    assert counts("--dims", "2,5") == [2, 5]
    assert counts("--instances", " 1-3, 9") == [1, 2, 3, 9]
    assert counts("--dims", None) is None
    assert labels("--functions", "1,8-9,sphere") == [1, 8, 9, "sphere"]
    assert labels("--functions", "sharp-ridge") == ["sharp-ridge"]
    for text in ("", "a", "2,,5", "-1", "5-2", "1.5"):
        with pytest.raises(InvalidArgument, match="--dims"):
            counts("--dims", text)
    with pytest.raises(InvalidArgument, match="--functions"):
        labels("--functions", "1,,2")


# ---------------------------------------------------------------------- start


def test_help_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['dfo', '--help']\n"
        "from dfo.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'numpy', 'jinja2', 'cocoex'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bench" in done.stdout


def test_without_typer_the_install_line_is_printed():
    script = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "import importlib.util; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'typer' else real(name, *a)\n"
        "from dfo.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'dfo-optim[cli]'" in done.stderr


def test_usage_errors_end_with_2():
    assert "No such command" in dfo("nonsense", code=2).stderr
    dfo("bench", code=2)
    dfo("run", "classic-sphere-d02", "--seed", "-1", code=2)


# ---------------------------------------------------------------------- list


def test_list():
    solvers = json.loads(dfo("list", "solvers", "--json").stdout)
    assert {"auto", "random", "scipy:COBYQA", "pycma"} <= {s["name"] for s in solvers}
    assert all(s["summary"] for s in solvers)
    packs = {p["name"]: p for p in json.loads(dfo("list", "problems", "--json").stdout)}
    assert packs["bbob"]["problems"] >= 24
    suites = dfo("list", "suites").stdout
    assert "bbob-small" in suites
    names = dfo("list", "problems", "bbob", "--functions", "1,8", "--dims", "2", "--instances", "1-2").stdout.split()
    assert names == ["bbob-f001-i01-d02", "bbob-f001-i02-d02", "bbob-f008-i01-d02", "bbob-f008-i02-d02"]
    assert "'bbob'" in dfo("list", "problems", "bbbob", code=2).stderr


def test_a_reader_that_leaves_early_is_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-m", "dfo.cli", "list", "problems", "bbob-noisy"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    with process:
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


# ---------------------------------------------------------------------- run


def test_run(tmp_path):
    words = ("run", "bbob-f001-i01-d02", "--method", "scipy:COBYQA", "--budget", "100", "--seed", "3")
    done = dfo(*words, "--out", tmp_path / "r.json")
    assert "gap" in done.stdout
    assert done.stderr == ""
    stored = json.loads((tmp_path / "r.json").read_text())
    printed = json.loads(dfo(*words, "--json").stdout)
    assert {**stored, "seconds": 0} == {**printed, "seconds": 0}
    assert stored["nfev"] <= 100
    assert stored["gap"] <= 1e-8
    assert stored["targets_hit"] == 51
    assert stored["seed"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clasic-sphere-d02"], "classic-sphere-d02"),
        (["classic-spere-d02"], "classic-sphere-d02"),
        (["classic-sphere-d02", "--method", "randm"], "random"),
        (["classic-sphere-d02", "--budget", "ten"], "budget: expected"),
        (["classic-sphere-d02", "--out", "/nowhere/at/all.json"], "--out"),
    ],
)
def test_run_refuses_what_it_does_not_know(words, said):
    done = dfo("run", *words, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_run_of_an_oracle_says_the_merit_of_what_is_recommended():
    words = ("run", "ranking-exact-quadratic-i01-d02", "--method", "zo-rank-sgd", "--budget", "200")
    assert "merit: " in dfo(*words).stdout
    printed = json.loads(dfo(*words, "--json").stdout)
    assert printed["fun"] is None
    assert printed["gap"] <= printed["merit"] < 1e-2
    assert "These methods would do: " in dfo(*words[:3], "zo-sgd", code=2).stderr


def test_run_fails_when_the_objective_does():
    done = dfo("run", "odd-raises-i01-d02", "--method", "scipy:Powell", code=1, paths=[SUPPORT])
    assert "RuntimeError: no value at" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_ends_at_a_signal_with_its_result(number, code, tmp_path):
    (tmp_path / "pids").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dfo.cli", "run", "odd-slow-i01-d02", "--method", "random", "--budget", "100000",
         "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment(SUPPORT), "ODD_PIDS": str(tmp_path / "pids")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    until = time.monotonic() + 20
    while not os.listdir(tmp_path / "pids"):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    out, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert json.loads(out)["status"] == "interrupted"


# ---------------------------------------------------------------------- bench and report


def test_bench_on_coco_from_suite_to_report(tmp_path):
    out = tmp_path / "out"
    words = ("bench", "bbob-small", "--methods", "random,scipy:SLSQP", "--functions", "1,8", "--dims", "2,3")
    done = dfo(*words, "--budget", "20d", "--workers", "2", "--baseline", "scipy:SLSQP", "--out", out)
    assert "8 runs to do." in done.stderr
    assert "8/8 runs, 0 failed" in done.stderr
    for word in ("vs scipy:SLSQP", "d=2", "d=3", "separable", str(out / "report.html"), str(out / "ecdf.png")):
        assert word in done.stdout
    assert (out / "ecdf.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "scores.csv").read_text().startswith("budget,by,value,method,problems,share,low,high,difference")
    again = dfo(*words, "--budget", "20d", "--baseline", "scipy:SLSQP", "--out", out)
    assert "0 runs to do, 8 are stored already." in again.stderr
    assert again.stdout == done.stdout
    rebuilt = json.loads(dfo("report", out, "--json").stdout)
    assert rebuilt["order"] == ["scipy:SLSQP", "random"]
    assert rebuilt["failures"] == []
    assert len(rebuilt["scores"]) == 2 * 2 * (1 + 2 + 2 + 2)
    refused = dfo(*words, "--budget", "30d", "--out", out, code=2)
    assert "budget: stored '20d', asked for '30d'" in refused.stderr


def test_bench_without_out_writes_nothing(tmp_path):
    done = dfo("bench", "quick", "--methods", "random", "--dims", "2", "--budget", "10d", cwd=tmp_path)
    assert "random" in done.stdout
    assert "report" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quik", "--methods", "random"], "'quick'"),
        (["quick", "--methods", "rndom"], "'random'"),
        (["quick", "--methods", "random", "--functions", "sfere"], "'sphere'"),
        (["quick", "--methods", "random", "--dims", "two"], "--dims: expected numbers"),
        (["quick", "--methods", "random", "--baseline", "cma"], "baseline"),
        (["quick", "--methods", ","], "methods: expected at least one"),
        (["quick", "--methods", "random", "--budget", "0"], "budget: expected"),
    ],
)
def test_bench_refuses_what_it_does_not_know(words, said, tmp_path):
    done = dfo("bench", *words, "--out", tmp_path / "out", code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_failed_runs_are_shown_and_end_with_1(tmp_path):
    suite = odd_suite(tmp_path, "bowl", "raises")
    done = dfo("bench", suite, "--methods", "scipy:Powell", "--out", tmp_path / "out", code=1, paths=[SUPPORT])
    assert "Failed: scipy:Powell on odd-raises-i01-d02, seed 0: no value at" in done.stderr
    assert "1 runs failed" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout  # the message tried to clear the screen
    assert "\\x1b[2J" in done.stderr
    assert "failed" in done.stdout


def test_hostile_names_stay_text_in_terminal_and_page(tmp_path):
    suite = odd_suite(tmp_path, HOSTILE, "bowl", "raises")
    done = dfo("bench", suite, "--methods", "scipy:Powell", "--out", tmp_path / "out", code=1, paths=[SUPPORT])
    assert "\x1b" not in done.stdout + done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<i>suite</i>" not in page
    assert "no value at <b>" not in page  # the message of the exception
    assert "no value at &lt;b&gt;" in page


def test_the_page_is_one_file_in_two_colour_schemes(tmp_path):
    suite = odd_suite(tmp_path, "bowl")
    dfo("bench", suite, "--methods", "random,cma", "--out", tmp_path / "out", paths=[SUPPORT])
    page = (tmp_path / "out" / "report.html").read_text()
    for loads in ("http:", "https:", "<script", "<link", "<img", "@import", "url(http", "src="):
        assert loads not in page, loads
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 1
    assert 'role="img" aria-label=' in page
    assert page.index("hit the most targets") < page.index("<svg") < page.index("Configuration")


def test_values_without_optimum_are_reported(tmp_path):
    path = tmp_path / "open.toml"
    path.write_text('budget = "30"\n[[problems]]\npack = "odd"\nfunctions = ["bowl"]\ninstances = [99]\n')
    done = dfo("bench", path, "--methods", "random,cma", "--seeds", "2", "--out", tmp_path / "out", paths=[SUPPORT])
    assert "mean rank" in done.stdout
    assert (tmp_path / "out" / "values.png").exists()
    assert (tmp_path / "out" / "values.csv").read_text().count("\n") == 1 + 2 * 2
    assert "Best values" in (tmp_path / "out" / "report.html").read_text()


def test_a_bench_in_which_nothing_worked_says_so(tmp_path):
    suite = odd_suite(tmp_path, "dies")
    done = dfo("bench", suite, "--methods", "random", "--out", tmp_path / "out", code=1, paths=[SUPPORT])
    assert "exit status 3" in done.stderr
    assert "Left out: 1 problems" in done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No problem has been run by every method yet" in page
    assert "WorkerDied" in page


def test_one_method_on_one_problem_is_enough(tmp_path):
    done = dfo("bench", "quick", "--methods", "random", "--functions", "sphere", "--dims", "2", "--out", tmp_path / "o")
    assert "random" in done.stdout


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = dfo("bench", "quick", "--methods", "random", "--out", tmp_path / "file", code=2)
    assert "expected a directory" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_report_of_nothing_is_refused(tmp_path):
    assert "no bench is stored here" in dfo("report", tmp_path, code=2).stderr


# ---------------------------------------------------------------------- check


def test_check():
    pytest.importorskip("hypothesis")
    done = dfo("check", "classic-sphere-d02", "--seconds", "0.5")
    assert "passed" in done.stdout
    assert "classic-sphere-d02" in dfo("check", "clasic-sphere-d02", code=2).stderr
