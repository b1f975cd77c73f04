"""Outcomes on disk, and the report made of them."""

import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

TITLES = {
    "kill": "Killed with kill -9 at a random moment, and called again",
    "deaths": "Workers that die",
    "hangs": "Evaluations that never end",
    "signals": "SIGINT and SIGTERM",
    "disk": "Disks that are full, read-only or gone",
    "corruption": "Damaged stores",
    "nodes": "Ray nodes killed while they evaluate",
    "determinism": "One history on every setting",
    "threads": "One object, eight threads",
    "writers": "Several processes at one store",
    "costs": "What a store costs",
}
VERSIONS = ("dfo-optim", "numpy", "scipy", "cma", "optuna", "nevergrad")
COLUMNS = ("case", "tries", "held", "outcome", "seconds")


def place(state, case):
    return Path(state) / (re.sub(r"[^a-z0-9]+", "-", case.id.lower()) + ".json")


def kept(state, case, tries):
    """Return the outcome of a case that ended in an earlier session of this measurement, or None."""
    path = place(state, case)
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return record["record"] if record["asked"] == tries else None


def keep(state, case, asked, record):
    path = place(state, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, {"asked": asked, "record": record})


def forget(state, cases):
    for case in cases:
        place(state, case).unlink(missing_ok=True)


def replace(path, content):
    part = Path(f"{path}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def write(out, state, cases):
    """Put the outcomes of the cases into the report, beside what it holds of others."""
    out = Path(out)
    records = {}
    if out.exists():
        for record in json.loads(out.read_text())["records"]:
            records[record["group"], record["system"], record["case"]] = record
    for case in cases:
        record = json.loads(place(state, case).read_text())["record"]
        records[record["group"], record["system"], record["case"]] = record
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out, content(list(records.values())))


def content(records):
    order = list(TITLES)
    records.sort(key=lambda r: (order.index(r["group"]), r["system"] != "dfo"))
    own = [r for r in records if r["system"] == "dfo"]
    held = sum(r["held"] == r["tries"] for r in own)
    return {
        "name": "faults",
        "title": "Faults",
        "summary": f"{held} of {len(own)} promises held in every one of their tries.",
        "command": "make faults",
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(sum(r["seconds"] for r in records)),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
        "tables": list(tables(records)),
        "records": records,
    }


def tables(records):
    for group, title in TITLES.items():
        rows = [r for r in records if r["group"] == group]
        for promise in dict.fromkeys(r["promise"] for r in rows if r["system"] == "dfo"):
            own = [r for r in rows if r["system"] == "dfo" and r["promise"] == promise]
            yield {"title": f"{title}. Promise: {promise}.", "columns": COLUMNS, "rows": [cells(r) for r in own]}
        others = [r for r in rows if r["system"] != "dfo"]
        if others:
            named = [[r["system"], *cells(r)] for r in others]
            yield {"title": f"{title}: others on the same harness", "columns": ("system", *COLUMNS), "rows": named}


def cells(record):
    return [record[name] for name in COLUMNS]


def versions():
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"sqlite": sqlite()}


def sqlite():
    import sqlite3

    return sqlite3.sqlite_version
