"""The suite files say what they select, and nothing else."""

import re
import tomllib

import pytest

import dfo_problems
from dfo_problems import PROBLEMS, make, suites_folder

FILES = sorted(suites_folder().glob("*.toml"))
EXPECTED = {
    *(
        "quick",
        "classic",
        "constrained",
        "consensus",
        "noisy",
        "tuning",
        "ranking",
        "deceptive",
        "training",
        "unrolled",
        "networks",
    ),
    *("bbob", "bbob-small", "bbob-noisy", "bbob-constrained", "bbob-mixint", "bbob-largescale"),
}


def names(suite: dict) -> list[str]:
    return [
        name
        for entry in suite["problems"]
        for name in PROBLEMS[entry["pack"]].select(entry.get("dims"), entry.get("functions"), entry.get("instances"))
    ]


def test_every_suite_is_there():
    assert {file.stem for file in FILES} == EXPECTED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_suite_is_complete_and_selects_problems(file):
    suite = tomllib.loads(file.read_text())
    assert suite["name"] == file.stem
    assert suite["summary"]
    assert re.fullmatch(r"[1-9]\d*d?", suite["budget"])
    assert set(suite) <= {"name", "summary", "budget", "targets", "problems"}
    for entry in suite["problems"]:
        assert set(entry) <= {"pack", "functions", "dims", "instances"}
    selected = names(suite)
    assert len(set(selected)) == len(selected) >= 3
    assert suite.get("targets") == ("coco" if make(selected[0]).f_opt is not None else None)


@pytest.mark.parametrize(
    ("stem", "count"), [("bbob-small", 24 * 2), ("bbob", 24 * 4 * 3), ("bbob-constrained", 54 * 2), ("quick", 6 * 2)]
)
def test_a_suite_has_the_size_that_it_promises(stem, count):
    assert len(names(tomllib.loads((suites_folder() / f"{stem}.toml").read_text()))) == count


def test_suites_inside_the_package_come_first(monkeypatch, tmp_path):
    # a wheel carries them there; the source tree has them beside the package
    (tmp_path / "dfo_problems" / "suites").mkdir(parents=True)
    monkeypatch.setattr(dfo_problems, "__file__", str(tmp_path / "dfo_problems" / "__init__.py"))
    assert suites_folder() == tmp_path / "dfo_problems" / "suites"
    (tmp_path / "dfo_problems" / "suites").rmdir()
    assert suites_folder() == tmp_path / "suites"
