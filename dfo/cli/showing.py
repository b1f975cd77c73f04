"""``dfo show``: what a store says about its run, also while another process writes it."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from dfo.bench.posed import problem_of
from dfo.cli.console import print_json, say
from dfo.errors import DfoError, short
from dfo.report.exports import finite
from dfo.report.text import visible

if TYPE_CHECKING:
    from dfo.run.store import Row, View

__all__ = ["facts", "follow", "objective_of", "resume_command", "show"]

POLL = 0.3
"""Seconds between two looks at a run that is followed."""

_CHUNK = 500

_OPEN = ("running", "killed", "interrupted", "open")
"""States in which a run may be taken up without a new budget."""

EVERY = 10.0
"""Seconds after which a line is printed even if there is nothing new."""


def show(path: str, json: bool, rows: int) -> None:
    """Print what a store says.

    Args:
        path: of the store.
        json: for machines.
        rows: so many of the last evaluations are listed.
    """
    from dfo.run.store import View

    with View.open(path) as view:
        content = facts(path, view)
        last = [_evaluation(row) for row in _last(view, rows)]
    if json:
        print_json({**content, "rows": last})
        return
    say("\n".join(f"{name:>11}: {text}" for name, text in _lines(content)))
    if last:
        say()
        say("\n".join(_listed(row) for row in last))


# ---------------------------------------------------------------------- what there is to say


def facts(path: str, view: View) -> dict[str, Any]:
    """Return what a store says about its run, as data."""
    config, free = view.config or {}, view.free or {}
    best, sessions = view.best, view.sessions
    told = [row.told for row in _last(view, 64) if row.told is not None]
    return {
        "store": path,
        "objective": objective_of(config),
        "problem": problem_of(config),
        "method": config.get("method"),
        "solver": config.get("solver"),
        "space": _space(config),
        "seed": config.get("seed"),
        "budget": free.get("budget"),
        "state": _state(view),
        "status": view.status,
        "message": view.message,
        "writer": view.writer,
        "asked": view.count,
        "told": view.told,
        "failed": view.failed,
        "best": None if best is None else _evaluation(best),
        "began": sessions[0]["started"] if sessions else None,
        "last": max(told, default=None),
        "sessions": sessions,
        "failures": [_evaluation(row) for row in _failures(view, 3)],
        "summary": view.summary,
        "resume": resume_command(path, config) if "objective" in config else None,
    }


def objective_of(config: Mapping[str, Any]) -> str:
    """Return the name of what was minimised, for people: nothing is imported by it."""
    if "objective" not in config:
        return "asked and told by a program (dfo.AskTell)"
    content = config["objective"]
    if (problem := problem_of(config)) is not None:
        return problem
    name: Any = content
    while isinstance(content, Mapping):
        name = content.get("function") or content.get("object") or content.get("class") or name
        held = content.get("holds")
        content = held.get("fun") if str(name).endswith(":_Negated") and isinstance(held, Mapping) else None
    return name if isinstance(name, str) else short(name)


def resume_command(path: str, config: Mapping[str, Any]) -> str:
    """Return the command that takes a run up, as a shell reads it."""
    command = ["dfo", "resume", path]
    if problem_of(config) is None:
        command += ["--objective", "FILE.py:FUNCTION"]
    return shlex.join(command)


def _state(view: View) -> str:
    """Return one of :data:`_OPEN`, or ``finished``."""
    status = view.status
    return status if status in _OPEN else "finished"


def _space(config: Mapping[str, Any]) -> str | None:
    """Return the space in words, as far as the store describes it; no point is made, however large it claims to be."""
    from dfo.run.rebuilt import rebuilt

    name = "x0" if config.get("bounds") is None else "bounds"
    try:
        found = rebuilt(name, config.get(name))
    except DfoError:
        return None
    if (name == "x0" and isinstance(found, list)) or hasattr(found, "tolist"):
        return f"{len(found)} free variables"
    return None if found is None else short(found, 200)


def _last(view: View, count: int) -> list[Row]:
    return list(view.rows(max(view.count - count, 0))) if count else []


def _failures(view: View, count: int) -> list[Row]:
    """Return the last failed evaluations."""
    found: list[Row] = []
    wanted, end = min(count, view.failed), view.count
    while len(found) < wanted and end > 0:
        start = max(end - _CHUNK, 0)
        found = [row for row in islice(view.rows(start), end - start) if row.status not in ("ok", "asked")] + found
        end = start
    return found[-count:]


def _evaluation(row: Row) -> dict[str, Any]:
    return {
        "number": row.number,
        "step": row.step,
        "status": row.status,
        "value": row.value,
        "violation": row.violation,
        "note": row.note,
        "x": finite(row.x),
    }


# ---------------------------------------------------------------------- for people


def _lines(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    best = content["best"]
    lines = [
        ("store", content["store"]),
        ("problem" if content["problem"] else "objective", content["objective"]),
        (
            "method",
            " = ".join(dict.fromkeys(_cut(str(content[k]), 120) for k in ("method", "solver") if content[k])),
        ),
        ("space", content["space"]),
        ("seed", content["seed"]),
        ("state", _state_words(content)),
        ("evaluations", _counts(content)),
        ("best", "none yet" if best is None else f"{best['value']:.10g} at evaluation {best['number']}{_beside(best)}"),
        ("x", None if best is None else short(best["x"], 400)),
        ("time", _time(content)),
        ("sessions", _sessions(content["sessions"])),
        *[("failed", _failure(row)) for row in content["failures"]],
        ("resume", _resume(content)),
    ]
    return [(name, str(text)) for name, text in lines if text is not None]


def _resume(content: Mapping[str, Any]) -> str | None:
    command = content["resume"]
    return command if command is None or content["state"] != "finished" else f"{command} --budget MORE"


def _state_words(content: Mapping[str, Any]) -> str:
    state, writer = content["state"], content["writer"] or {}
    if state == "running":
        return f"running: process {writer.get('pid')} on {writer.get('host')} since {writer.get('since')}"
    if state == "killed":
        return "killed: its process ended without a word"
    status = "" if content["status"] == state else f": {content['status']}"
    return f"{state}{status}" + (f" ({content['message']})" if content["message"] else "")


def _counts(content: Mapping[str, Any]) -> str:
    budget = "" if content["budget"] is None else f" of {content['budget']}"
    under_way = content["asked"] - content["told"]
    parts = [f"{content['told']}{budget} told", f"{content['failed']} failed" if content["failed"] else ""]
    parts.append(
        f"{under_way} {'under way' if content['state'] == 'running' else 'asked and not told'}" if under_way else ""
    )
    return ", ".join(part for part in parts if part)


def _beside(best: Mapping[str, Any]) -> str:
    return f", violation {best['violation']:.3g}" if best["violation"] else ""


def _failure(row: Mapping[str, Any]) -> str:
    return f"evaluation {row['number']}: {row['status']}: {_cut(str(row['note'] or row['value']), 300)}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _time(content: Mapping[str, Any]) -> str | None:
    began, last = content["began"], content["last"]
    if began is None or last is None:
        return None
    return f"{_moment(began)} to {_moment(last)}"


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):  # of a foreign file
        return short(seconds)


def _sessions(sessions: list[dict[str, Any]]) -> str:
    if not sessions:
        return "0"
    last = sessions[-1]
    versions = last.get("versions")
    of = f", dfo {versions.get('dfo')}" if isinstance(versions, Mapping) else ""
    return f"{len(sessions)}, the last on {last.get('host')} by process {last.get('pid')}{of}"


def _listed(row: Mapping[str, Any]) -> str:
    value = "" if row["value"] is None else f"{row['value']:.10g}"
    return f"{row['number']:>8}  {row['status']:<9}  {value:>17}  {short(row['x'], 80)}  {row['note'] or ''}".rstrip()


# ---------------------------------------------------------------------- while it runs


def follow(path: str, as_json: bool) -> None:
    """Print how a run gets on until it ends: a line for every new best in a log, one line in place on a terminal."""
    from dfo.run.store import View

    page = _Page(as_json)
    try:
        while True:
            with View.open(path) as view:
                running = view.writer is not None  # looked at first: what was told before it ended is seen below
                page.update(_glance(view, running))
            if not running:
                break
            time.sleep(POLL)
    finally:
        page.close()


def _glance(view: View, running: bool) -> dict[str, Any]:
    best = view.best
    return {
        "state": "running" if running else _state(view),
        "told": view.told,
        "failed": view.failed,
        "budget": (view.free or {}).get("budget"),
        "best": None if best is None else best.value,
        "number": None if best is None else best.number,
    }


class _Page:
    """Where lines go: one after the other, or over each other on a terminal."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._in_place = sys.stdout.isatty() and not as_json
        self._shown: dict[str, Any] = {}
        self._next = -math.inf
        self._open = False

    def update(self, now: dict[str, Any]) -> None:
        """Show where a run stands, if it is news or has not been shown for a while."""
        moment = time.monotonic()
        news = any(now[k] != self._shown.get(k, ...) for k in ("state", "best", "number"))
        if not (news or self._in_place or moment >= self._next):
            return
        if now != self._shown:
            self._put(json.dumps(now) if self.as_json else _standing(now))
        self._shown, self._next = now, moment + EVERY

    def _put(self, text: str) -> None:
        if self._in_place:
            print(f"\r\x1b[K{visible(text)}", end="", flush=True)
            self._open = True
        else:
            print(visible(text), flush=True)

    def close(self) -> None:
        """Leave the line."""
        if self._open:
            print(flush=True)


def _standing(now: Mapping[str, Any]) -> str:
    budget = "" if now["budget"] is None else f"/{now['budget']}"
    best = "none yet" if now["best"] is None else f"{now['best']:.10g} at {now['number']}"
    failed = f", {now['failed']} failed" if now["failed"] else ""
    return f"{now['told']}{budget} evaluations{failed}, best {best}" + (
        f", {now['state']}" if now["state"] != "running" else ""
    )
