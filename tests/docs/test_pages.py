"""Every Python block of the README and of the documentation runs, and prints what the page says it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, runnable

RUNNER = Path(__file__).with_name("pages.py")


def environment() -> dict[str, str]:
    """One thread for linear algebra, no display."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, RUNNER, page], cwd=tmp_path, env=environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
