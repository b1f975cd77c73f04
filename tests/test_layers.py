"""Imports point one way: the contracts of ``pyproject.toml``, held by import-linter."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_contracts_are_kept():
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " broken" in done.stdout
    assert "0 broken" in done.stdout


def imports(path):
    """The dfo modules that a file imports anywhere, types included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


SOLVERS = sorted((ROOT / "dfo" / "solvers").rglob("*.py"))


@pytest.mark.parametrize("path", SOLVERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_solvers_know_neither_oracles_nor_runs_nor_each_other(path):
    family = path.relative_to(ROOT / "dfo" / "solvers").parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "dfo":
            continue
        assert parts[1:2] not in (["oracles"], ["run"], ["bench"], ["report"], ["testing"], ["cli"]), module
        if parts[1:2] == ["solvers"] and family != "__init__":
            assert parts[2:3] == [family], module


def test_nothing_imports_the_packs():
    for path in (ROOT / "dfo").rglob("*.py"):
        assert not any(module.partition(".")[0] == "dfo_problems" for module in imports(path)), path
