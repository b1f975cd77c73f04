"""Write the report of a stored bench beside its results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dfo.bench.run import load_records
from dfo.bench.store import read_config
from dfo.bench.summary import Summary
from dfo.errors import MissingPackage
from dfo.files import replacing
from dfo.report.text import Table

__all__ = ["MissingPackage", "Written", "check_packages", "tables_of", "write_report"]


@dataclass(frozen=True)
class Written:
    """A report.

    Args:
        summary: the numbers.
        page: the HTML file.
        pictures: PNG files.
        data: CSV files.
    """

    summary: Summary
    page: Path
    pictures: tuple[Path, ...]
    data: tuple[Path, ...]


def check_packages() -> None:
    """Refuse before hours of work are done what could not be shown after.

    Raises:
        MissingPackage: matplotlib or jinja2 is not installed; the message says how to install them.
    """
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise MissingPackage(f"Reports need {' and '.join(missing)}. Run: pip install 'dfo-optim[bench]'.")


def write_report(folder: str | os.PathLike[str]) -> Written:
    """Write ``report.html``, pictures and CSV files of a stored bench, whether it is complete or not.

    Args:
        folder: the directory of the bench; the files are written there.

    Returns:
        What was written.

    Raises:
        InvalidArgument: there is no bench in the folder.
        MissingPackage: matplotlib or jinja2 is not installed.
    """
    from dfo.report.figures import ecdf_figure, png, values_figure
    from dfo.report.page import page
    from dfo.report.tables import indexed, scores_csv, values_csv

    config, (plan, records) = read_config(folder), load_records(folder)
    check_packages()
    summary, home = Summary(plan, records), Path(folder)
    scores = summary.scores()
    pictures: dict[str, bytes] = {}
    data: dict[str, str] = {}
    if summary.targeted:
        pictures["ecdf.png"], data["scores.csv"] = png(ecdf_figure(summary)), scores_csv(scores)
    if summary.valued:
        pictures["values.png"], data["values.csv"] = png(values_figure(summary)), values_csv(summary)
    html = page(summary, indexed(scores), config)
    for name, picture in pictures.items():
        with replacing(home / name, "wb") as file:
            file.write(picture)
    for name, text in (*data.items(), ("report.html", html)):
        with replacing(home / name) as file:
            file.write(text)
    return Written(
        summary, home / "report.html", tuple(home / name for name in pictures), tuple(home / name for name in data)
    )


def tables_of(summary: Summary) -> list[Table]:
    """Return the tables that end a bench on the console."""
    from dfo.report.tables import by_slice, indexed, overview, values_table

    tables = []
    if summary.targeted:
        scores = indexed(summary.scores(("all", "dim", "group")))
        tables += [overview(summary, scores), by_slice(summary, scores, summary.plan.budget)]
    if summary.valued:
        tables.append(values_table(summary, summary.plan.budget))
    return tables
