"""The page "Add a solver", followed to the letter in a copy of the source: nothing but new files and new lines."""

import difflib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, blocks
from test_pages import environment

PAGE = ROOT / "docs" / "howto" / "add_a_solver.md"
SESSION = """
import dfo, dfo.solvers, pathlib
assert pathlib.Path(dfo.__file__).is_relative_to(pathlib.Path.cwd()), dfo.__file__
from dfo.testing import check_solver
{check}
report.raise_if_failed()
res = {call}
assert res.fun < 1e-8 and res.method.startswith("OnePlusOne("), res
disk = {{"type": "ineq", "fun": lambda x: 1.0 - x @ x}}
res = dfo.minimize(lambda x: x[0] + x[1], [0.5, 0.5], method="one-plus-one", constraints=disk, budget=400)
assert res.violation == 0.0 and res.fun < -1.3, res
import sys
sys.path.insert(0, "docs")
import generate
assert "one-plus-one" in generate.solver_table(pathlib.Path("docs/solvers.csv"))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what the page touches."""
    shutil.copytree(ROOT / "dfo", tmp_path / "dfo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs").mkdir()
    for name in ("docs/solvers.csv", "docs/generate.py", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def append(path: Path, line: str, before: str) -> None:
    """Put a line in front of the first line that begins with ``before`` behind the place it belongs to, or last."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next((i for i, old in enumerate(lines) if re.match(before, old)), len(lines)) if before else len(lines)
    lines.insert(at, line)
    path.write_text("".join(lines), encoding="utf-8")


def test_a_solver_added_by_following_the_page_touches_only_appended_lines(source: Path) -> None:
    parts = [(block.language, block.text) for block in blocks(PAGE)]
    module = next(text for language, text in parts if language == "python")
    entry, call, check = (text for language, text in parts if language == "{code-block} python")
    row, news = (text for language, text in parts if language == "{code-block} text")
    place = re.match(r"# (\S+)\n", module)
    assert place is not None

    (source / place[1]).write_text(module.split("\n", 1)[1], encoding="utf-8")
    append(source / "dfo/solvers/__init__.py", entry, r"\}")
    append(source / "docs/solvers.csv", row, "")
    append(source / "CHANGELOG.md", news, "")

    for name in ("dfo/solvers/__init__.py", "docs/solvers.csv", "CHANGELOG.md"):
        before, after = ((tree / name).read_text(encoding="utf-8").splitlines() for tree in (ROOT, source))
        changed = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
        assert [line[0] for line in changed] == ["+"], changed

    session = SESSION.format(check=check, call=call.strip())
    done = subprocess.run(
        [sys.executable, "-c", session], cwd=source, env=environment() | {"PYTHONPATH": str(source)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_solver_is_as_short_as_the_page_says() -> None:
    module = next(block.text for block in blocks(PAGE) if block.language == "python")
    code = re.sub(r'""".*?"""', "", module, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]) <= 70
