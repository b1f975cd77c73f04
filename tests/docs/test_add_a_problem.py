"""The page "Add a problem", followed in an empty folder: an installed pack that the command line finds."""

import subprocess
import sys
from pathlib import Path

from pages import ROOT, blocks
from test_pages import environment

PAGE = ROOT / "docs" / "howto" / "add_a_problem.md"


def test_a_pack_registered_by_following_the_page_is_found(tmp_path: Path) -> None:
    found = blocks(PAGE)
    module = next(b.text for b in found if b.text.startswith("# my_problems.py"))
    suite = next(b.text for b in found if b.text.startswith("# wells.toml"))
    entry = next(b.text for b in found if "entry-points" in b.text)
    (tmp_path / "my_problems.py").write_text(module, encoding="utf-8")
    (tmp_path / "wells.toml").write_text(suite, encoding="utf-8")
    about = tmp_path / "my_problems-1.0.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: my-problems\nVersion: 1.0\n", encoding="utf-8")
    name, _, target = entry.splitlines()[1].partition(" = ")
    about.joinpath("entry_points.txt").write_text(f"[dfo.problems]\n{name} = {target.strip(chr(34))}\n", "utf-8")

    commands = [line[2:].split() for b in found if "console" in b.language for line in b.text.splitlines()]
    assert len(commands) == 4
    for command in commands:
        done = subprocess.run(
            [Path(sys.executable).with_name("dfo"), *command[1:]], cwd=tmp_path,
            env=environment() | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "wells" in done.stdout
