"""``dfo list``."""

from __future__ import annotations

import sys

from dfo.bench.packs import packs
from dfo.bench.suite import Selection, load_suite, suite_files
from dfo.cli.console import print_json, say
from dfo.cli.words import counts, labels
from dfo.errors import InvalidArgument

__all__ = ["packs_of_problems", "problems_of", "solvers", "suites"]

Rows = list[dict[str, object]]


def _show(rows: Rows, json: bool, *columns: str) -> None:
    if json:
        print_json(rows)
        return
    widths = {column: max((len(str(row[column])) for row in rows), default=0) for column in columns[:-1]}
    for row in rows:
        words = [str(row[column]).ljust(widths.get(column, 0)) for column in columns]
        say("  ".join(words).rstrip())


def solvers(json: bool) -> None:
    """List dfo's solvers with the first sentence of their modules, and the peers."""
    from dfo.run.peers import PEERS
    from dfo.solvers import SOLVERS, solver_class

    rows: Rows = [{"name": "auto", "kind": "dfo", "summary": "Chosen by a plain rule; the result says why."}]
    for name in SOLVERS:
        doc = solver_class(name).__doc__ or sys.modules[solver_class(name).__module__].__doc__ or ""
        rows.append({"name": name, "kind": "dfo", "summary": doc.strip().partition("\n")[0]})
    rows += [{"name": name, "kind": "peer", "summary": _peer(name)} for name in PEERS]
    _show(rows, json, "name", "kind", "summary")


def _peer(name: str) -> str:
    family, _, method = name.partition(":")
    own = {"pycma": "pycma's BIPOP-CMA-ES.", "nevergrad": "Any entry of nevergrad's registry."}
    return own.get(family, f"scipy.optimize's {method}.")


def packs_of_problems(json: bool) -> None:
    """List the packs."""
    table = packs()
    if not table and not json:
        raise InvalidArgument("No problems are installed. Run: pip install 'dfo-optim[bench]'.")
    rows: Rows = [
        {"name": name, "problems": len(pack.select()), "summary": pack.summary} for name, pack in table.items()
    ]
    _show(rows, json, "name", "problems", "summary")


def problems_of(pack: str, dims: str | None, functions: str | None, instances: str | None, json: bool) -> None:
    """List the names of the problems of a pack."""
    ways, kinds, copies = counts("--dims", dims), labels("--functions", functions), counts("--instances", instances)
    names = Selection(
        pack,
        None if kinds is None else tuple(kinds),
        None if ways is None else tuple(ways),
        None if copies is None else tuple(copies),
    ).names()
    if json:
        print_json(list(names))
    else:
        say("\n".join(names))


def suites(json: bool) -> None:
    """List the installed suites."""
    rows: Rows = []
    for name in suite_files():
        suite = load_suite(name)
        rows.append(
            {"name": name, "problems": len(suite.names()), "budget": str(suite.budget), "summary": suite.summary}
        )
    _show(rows, json, "name", "problems", "budget", "summary")
