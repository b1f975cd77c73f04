"""``dfo measure``: figures to reach, measured again."""

from __future__ import annotations

import json as json_module
from pathlib import Path

import typer

from dfo.errors import unknown
from dfo.files import replacing

__all__ = ["run_measure"]


def run_measure(name: str, out: str | None, json: bool) -> None:
    """Run a measure, print its rows, write its record; exit with 1 if a figure is not reached.

    What fresh processes have answered is kept beside ``out`` until the measure ends; interrupted, it goes on there.
    """
    from dfo.bench.measures import MEASURES, measure
    from dfo.bench.measures.fresh import keeping

    path = None
    if name not in MEASURES:  # before it becomes a part of a path
        raise unknown("measure", name, MEASURES)
    if out is not None:
        path = Path(out) if out.endswith(".json") else Path(out) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
    with keeping(path and path.with_suffix(".part")):
        record = measure(name)
    text = json_module.dumps(record, indent=1)
    if path is not None:
        with replacing(path) as file:
            file.write(text + "\n")
    if json:
        typer.echo(text)
    else:
        for row in record["rows"]:
            verdict = "holds" if row["holds"] else "FAILS"
            spread = f" [{row['interval']}]" if row["interval"] else ""
            typer.echo(f"{verdict}  {row['measured']:>10.4g}{spread}  (expected {row['expected']})  {row['claim']}")
    if not all(row["holds"] for row in record["rows"]):
        raise typer.Exit(1)
