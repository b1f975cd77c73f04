"""Reads the code blocks of a Markdown page, and runs them.

- A block of ``python`` is run; all blocks of a page share one process and one namespace.
- A block of ``text`` right behind it is what it prints; ``...`` stands for anything.
- In a block of ``console``, lines that begin with ``$ dfo`` are run in an empty folder of the page.
- Everything else (``toml``, ``{code-block} python``) is shown and not run.

A block that imports a package which is not installed is left out, with its output.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import linecache
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("[!_]*/*.md"))]
FENCE = re.compile(r"^( *)(`{3,})(.*?)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the number of its first line, and what follows as output."""

    language: str
    text: str
    line: int
    output: str | None = None


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order; output is joined to the code before it."""
    source = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(source):
        language, text = match[3].strip(), re.sub(f"^{match[1]}", "", match[4], flags=re.MULTILINE)
        line = source.count("\n", 0, match.start()) + 2
        behind = bool(found) and found[-1].language == "python" and not source[end : match.start()].strip()
        if language == "text" and behind:
            found[-1] = Block("python", found[-1].text, found[-1].line, text)
        else:
            found.append(Block(language, text, line))
        end = match.end()
    return found


def runnable(page: Path) -> bool:
    """Tell whether a page has anything to run."""
    return any(block.language == "python" or dfo_commands(block) for block in blocks(page))


def dfo_commands(block: Block) -> list[str]:
    """Return the dfo commands of a console block, continued lines joined."""
    if block.language != "console":
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line[2:].strip() for line in lines if line.startswith("$ dfo ")]


def missing(block: Block) -> str:
    """Return the first package that a block imports and that is not installed, or an empty string."""
    names = re.findall(r"^\s*(?:import|from)\s+(\w+)", block.text, re.MULTILINE)
    return next((name for name in names if find_spec(name) is None), "")


def agrees(expected: str, got: str) -> bool:
    """Tell whether an output is as expected, up to white space and ``...``."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected.strip() + "\n", got.strip() + "\n", flags)


def run(page: Path) -> Iterator[str]:
    """Run a page in this process, as ``__main__``; yield what is wrong."""
    namespace = sys.modules["__main__"].__dict__
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "console":
            yield from filter(None, (command(where, line) for line in dfo_commands(block)))
        if block.language != "python" or missing(block):
            continue
        linecache.cache[where] = (len(block.text), None, block.text.splitlines(keepends=True), where)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, where, "exec"), namespace)
        except Exception:
            yield f"{where}\n{traceback.format_exc()}"
            return
        if block.output is not None and not agrees(block.output, printed.getvalue()):
            yield f"{where}: expected\n{block.output}\ngot\n{printed.getvalue()}"


def command(where: str, line: str) -> str:
    """Run a dfo command; return what is wrong, or an empty string."""
    words = [str(Path(sys.executable).with_name("dfo")), *shlex.split(line, comments=True)[1:]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else f"{where}: {line}\nexit {done.returncode}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    wrong = list(run(Path(sys.argv[1]).resolve()))
    print("\n".join(wrong))
    sys.exit(bool(wrong))
