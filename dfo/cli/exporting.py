"""``dfo export`` and ``dfo repair``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from dfo.cli.console import note, print_json, say
from dfo.errors import InvalidArgument

__all__ = ["export_store", "repair_store"]


def export_store(store: str, to: str, form: str | None) -> None:
    """Write the evaluations of a run to a file or folder, and say how many there are.

    Raises:
        InvalidArgument: an unknown format, or the store itself as the file to write.
    """
    from dfo.report.coco import export_coco
    from dfo.report.exports import export, format_of
    from dfo.run.store import View

    coco = form is not None and form.lower() == "coco"
    wanted = "coco" if coco else format_of(to, form)
    if os.path.exists(to) and os.path.exists(store) and os.path.samefile(store, to):
        raise InvalidArgument(f"--to: {to} is the store itself. Name another file.")
    with View.open(store) as view:
        count = export_coco(view, Path(to)) if coco else export(view, to, wanted)
    say(f"{count} evaluations  {to}")


def repair_store(store: str, to: str, json: bool) -> None:
    """Save what is whole in a store into a new one."""
    from dfo.run.store import repair

    salvage = repair(store, to)
    if json:
        print_json({**asdict(salvage), "store": store, "to": to})
        return
    say(f"kept  {salvage.kept}")
    say(f"lost  {salvage.lost}")
    if salvage.where:
        note(f"Damaged: {salvage.where}")
    say(f"store {to}")
