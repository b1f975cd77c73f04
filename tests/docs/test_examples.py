"""Every script in ``examples`` runs, is short, says what it shows, and leaves nothing behind."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT
from test_pages import environment

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir()), "a script writes only where --out says"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_form(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source))
    assert len(source.splitlines()) <= 60
