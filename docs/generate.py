"""Writes the pages that are made from the code, into ``reference/_generated``: they cannot go stale.

- a page for every public module, from its docstrings;
- the table of solvers, from the solver classes and ``solvers.csv``;
- the command line, from the options that its commands declare;
- the examples, from the scripts;
- the tables of measured results, from ``benchmarks/*.json``.

A solver without a row in ``solvers.csv``, or a public name that no page documents, ends the build.
"""

from __future__ import annotations

import ast
import csv
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dfo
import dfo_problems
from dfo.errors import ProblemTooLarge
from dfo.protocols import CONSTRAINTS, Task
from dfo.sets import LInfBall
from dfo.solvers import SOLVERS, solver_class
from dfo.spaces import Free

ROOMS = {
    "dfo.run": "Running",
    "dfo.solvers": "Solvers",
    "dfo.oracles": "Oracles",
    "dfo.nn": "Networks",
    "dfo.components": "Components of solvers",
    "dfo.bench": "Benchmarks",
    "dfo.report": "Reports",
    "dfo.testing": "Conformance tests",
    "dfo.cli": "Command line",
    "dfo_problems": "Problem packs",
    "dfo": "Foundations",
}
"""Groups of the module index, in order; the longest prefix of a module's name decides."""

LARGEST = 10**7

FACTS = ("command", "date", "seconds", "machine", "versions")
"""Keys of a stored result that say how it was made."""


def write_all(docs: Path) -> None:
    """Write every generated page below ``docs``; pages whose text is unchanged are not touched."""
    out = docs / "reference" / "_generated"
    out.mkdir(parents=True, exist_ok=True)
    missing = undocumented(docs)
    if missing:
        raise SystemExit(f"public names that no page of docs/reference documents: {', '.join(missing)}")
    results = sorted((docs / "benchmarks").glob("*.json"))
    pages = {
        "solvers.inc.md": solver_table(docs / "solvers.csv"),
        "benchmarks.inc.md": benchmark_tables(results),
        "commands.inc.md": command_line(),
        "examples.inc.md": examples(sorted((docs.parent / "examples").glob("*.py"))),
        "modules.inc.md": module_index(),
        **{f"benchmark-{path.stem}.inc.md": _section(path, heading=False) for path in results},
        **{f"{name}.md": module_page(name) for name in modules()},
    }
    for stale in {path.name for path in out.glob("*.md")} - set(pages):
        (out / stale).unlink()
    for name, text in pages.items():
        path = out / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------- public names


def modules() -> list[str]:
    """Return the dotted names of every public module of both packages but ``dfo`` itself."""
    found = [info.name for package in (dfo, dfo_problems) for info in _inside(package)]
    return sorted(["dfo_problems", *(n for n in found if not any(part.startswith("_") for part in n.split(".")))])


def _inside(package: Any) -> Iterable[pkgutil.ModuleInfo]:
    return pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda name: None)


def undocumented(docs: Path) -> list[str]:
    """Return the names of ``dfo.__all__`` that no hand-written reference page documents."""
    text = "".join(page.read_text(encoding="utf-8") for page in (docs / "reference").glob("*.md"))
    shown = set(re.findall(r"^\.\. auto\w+:: dfo\.(\w+)", text, re.MULTILINE))
    return sorted(set(dfo.__all__) - shown - {"__version__"})


def module_index() -> str:
    """Return a table of contents of the module pages, one for each room."""
    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in modules():
        rooms[max((room for room in ROOMS if name == room or name.startswith(f"{room}.")), key=len)].append(name)
    parts = []
    for room, title in ROOMS.items():
        if rooms[room]:
            rows = [(f"[{name}](/reference/_generated/{name}.md)", summary(name)) for name in rooms[room]]
            lines = "\n".join(f"{name} </reference/_generated/{name}>" for name in rooms[room])
            toctree = f"```{{toctree}}\n:hidden:\n\n{lines}\n```\n"
            parts.append(f"## {title}\n\n{markdown(('module', 'what it holds'), rows)}\n{toctree}")
    return "\n".join(parts)


def summary(name: str) -> str:
    """Return the first sentence of a module's docstring, with code marked the way Markdown does."""
    first = (importlib.import_module(name).__doc__ or "").strip().partition("\n\n")[0]
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(first.split())).replace("``", "`").removesuffix("::")


def module_page(name: str) -> str:
    """Return the page of a module: its docstring, then what it defines; re-exports are links."""
    module = importlib.import_module(name)
    public = list(getattr(module, "__all__", ()))
    top = {n: home for n, home in dfo._NAMES.items() if home == name}
    elsewhere = [n for n in public if n in top or _home(module, n) not in (name, "")]
    own = [n for n in public if n not in elsewhere]
    lines = [f"# {name}", "", "```{eval-rst}", f".. automodule:: {name}"]
    if own:
        lines += ["   :members: " + ", ".join(own)]
    lines += ["```", ""]
    if elsewhere:
        links = [f"- {{py:obj}}`{_target(module, n, top)}`" for n in sorted(elsewhere, key=str.lower)]
        lines += ["Documented elsewhere:", "", *links, ""]
    return "\n".join(lines)


def _home(module: Any, name: str) -> str:
    """Return the module that defines a name, or an empty string for plain data."""
    value = getattr(module, name)
    if not (isinstance(value, type) or callable(value)):
        return ""
    return str(getattr(value, "__module__", ""))


def _target(module: Any, name: str, top: dict[str, str]) -> str:
    if name in top:
        return f"dfo.{name}"
    home = _home(module, name)
    return f"dfo.{name}" if dfo._NAMES.get(name) == home else f"{home}.{name}"


# ---------------------------------------------------------------------- solvers


def solver_table(rows: Path) -> str:
    """Return the table of solvers: what the classes say of themselves, and what ``solvers.csv`` adds."""
    with rows.open(encoding="utf-8", newline="") as file:
        notes = {row["name"]: row for row in csv.DictReader(file)}
    if set(notes) != set(SOLVERS):
        raise SystemExit(f"docs/solvers.csv: expected one row for each of {sorted(SOLVERS)}, got {sorted(notes)}")
    head = ("method", "good for", "needs", "constraints", "noise", "integers", "variables", "`known`")
    body = []
    for name in sorted(SOLVERS):
        cls, note = solver_class(name), notes[name]
        body.append(
            (
                f"[`{name}`](#dfo.{cls.__name__})" if cls.__name__ in dfo._NAMES else f"`{name}`",
                note["good for"],
                " and ".join(sorted(cls.needs)),
                "yes" if CONSTRAINTS in getattr(cls, "handles", ()) else "no",
                note["noise"],
                note["integers"],
                f"{note['variables']}{most_variables(cls)}",
                "used" if hasattr(cls, "observe") else "best kept",
            )
        )
    return markdown(head, body)


def most_variables(cls: type) -> str:
    """Return the limit above which a solver refuses to plan, found by bisection."""
    solver: Any = cls()
    if not hasattr(solver, "plan") or _plans(solver, LARGEST):
        return ""
    low, high = 1, LARGEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _plans(solver, middle) else (low, middle)
    return f" (limit {low:,})"


def _plans(solver: Any, dim: int) -> bool:
    moves: Any = getattr(solver, "spaces", {"vector"})
    try:
        solver.plan(Task(Free(dim) if "vector" in moves else LInfBall(dim)))
    except ProblemTooLarge:
        return False
    return True


# ---------------------------------------------------------------------- examples


def examples(scripts: Iterable[Path]) -> str:
    """Return a section for each script: its docstring, then its code."""
    sections = []
    for script in scripts:
        source = script.read_text(encoding="utf-8")
        text = ast.get_docstring(ast.parse(source)) or ""
        title, _, rest = text.partition(": ")
        code = source.split('"""', 2)[2].strip()
        body = f"{rest[:1].upper()}{rest[1:]}\n\n`examples/{script.name}`\n\n```python\n{code}\n```\n"
        sections.append(f"## {title}\n\n{body}")
    return "\n".join(sections)


# ---------------------------------------------------------------------- measured results


def benchmark_tables(files: Iterable[Path]) -> str:
    """Return a section for each stored result, or a sentence when there is none yet."""
    sections = [_section(path) for path in files]
    return "\n".join(sections) or "No measured results are stored yet.\n"


def _section(path: Path, heading: bool = True) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        content = {"tables": [content]}
    title = content.get("title") or str(content.get("name") or path.stem).replace("_", "-")
    parts = [f"## {title}", ""] if heading else []
    if content.get("summary"):
        parts += [str(content["summary"]), ""]
    for table in _tables(content):
        if table.get("title"):
            parts += [f"**{table['title']}**", ""]
        parts += [markdown(table["columns"], table["rows"]), ""]
    facts = [(word, content[word]) for word in FACTS if content.get(word)]
    parts += [f"- {word}: {_fact(value)}" for word, value in facts]
    return "\n".join([*parts, ""])


def _tables(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a result: given as such, as a list of records, or as plain numbers by name."""
    if "columns" in content and "rows" in content:
        return [content]
    if "tables" in content:
        several = content["tables"]
        pairs = several.items() if isinstance(several, dict) else [(None, table) for table in several]
        return [one for title, table in pairs for one in _table(title, table)]
    skipped = ("title", "name", "summary", "schema", *FACTS)
    named = [(None if name == "rows" else name, value) for name, value in content.items() if name not in skipped]
    return [one for name, value in named for one in _table(name, value)]


def _table(title: str | None, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict) and {"columns", "rows"} <= set(value):
        return [{"title": value.get("title", title), "columns": value["columns"], "rows": value["rows"]}]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(name for row in value for name in row))
        return [{"title": title, "columns": columns, "rows": [[row.get(c, "") for c in columns] for row in value]}]
    if isinstance(value, dict) and value:
        return [{"title": title, "columns": ["", "value"], "rows": [[k, v] for k, v in value.items()]}]
    return []


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"`{value}`" if isinstance(value, str) and value.startswith(("dfo ", "make ")) else str(value)


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


# ---------------------------------------------------------------------- command line


def command_line() -> str:
    """Return a section for each command of ``dfo``, from the options that it declares."""
    from typer.main import get_command

    from dfo.cli.app import app

    return "\n".join(_commands(get_command(app), "dfo"))


def _commands(command: Any, path: str) -> list[str]:
    children = getattr(command, "commands", {})
    parts = [part for name in sorted(children) for part in _commands(children[name], f"{path} {name}")]
    if children:
        return parts
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join([path, *(_usage(a) for a in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [(f"`{_usage(a)}`", getattr(a, "help", "") or "", "") for a in arguments]
    rows += [(f"`{', '.join(o.opts)}`", o.help or "", _default(o)) for o in options]
    text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    text = re.sub(r"(?<!`)--\w+", r"`\g<0>`", text)
    return [f"## {path}\n", f"```text\n{usage}\n```\n", f"{text}\n", markdown(("option", "meaning", "default"), rows)]


def _usage(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    return word if argument.required else f"[{word}]"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    return "" if value is None or value is False or callable(value) else f"`{value}`"
