"""Runs that go on after their process has ended: steps repeated from a log, from the latest snapshot on.

A record is written before its step moves the weights, so a process may be killed at any moment: what the log says has
happened is repeated, what it does not say is evaluated again, with the same random numbers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dfo.errors import BadState, InvalidArgument, short
from dfo.nn.replay import ReplayLog, describe
from dfo.nn.snapshots import Snapshot, Snapshots

if TYPE_CHECKING:
    from dfo.nn.remembered import Remembered

__all__ = ["begin", "go_on", "repeat", "save"]


def begin(front: Remembered, path: str | os.PathLike[str] | None, fsync: bool) -> ReplayLog:
    """Return a new log for an optimizer that has made no step."""
    if front.t:
        raise InvalidArgument(f"log_to: expected no step before, got {front.t}. Ask for the log first, or resume one.")
    header = describe(front.engine.tensors, front.key.seed, front.config())
    return ReplayLog.create(path, header, fsync=fsync)


def repeat(front: Remembered, log: ReplayLog, stop: int | None) -> None:
    """Apply the records of a log from the step of the optimizer on; what lags behind stays behind."""
    _same_run(front, log)
    for i in range(log.position(front.t), len(log) if stop is None else log.position(stop)):
        record = log[i]
        if record.step != front.t:
            raise BadState(f"replay: expected step {front.t}, got {record.step}.")
        if record.named.get("flushed"):
            front.flush()
        front.course.apply(record, front._decays())
        front._observe(record)


def _same_run(front: Remembered, log: ReplayLog) -> None:
    """Compare an optimizer, and its weights where it has made no step, with the head of a log."""
    start = "later" if front.t else None  # no hash of weights that need not be those of the start
    ours = describe(front.engine.tensors, front.key.seed, front.config(), start)
    for about in ("config", "seed", "tensors", *([] if front.t else ["start"])):
        theirs, mine = log.header.get(about), ours[about]
        if theirs == mine:
            continue
        if isinstance(theirs, dict) and isinstance(mine, dict):
            theirs, mine = ({k: v for k, v in a.items() if v != b.get(k)} for a, b in ((theirs, mine), (mine, theirs)))
        raise BadState(
            f"replay: expected an optimizer with the {about} of the log, {short(theirs)}, got {short(mine)}."
            " Make it as that of the run, on the weights that the run began with."
        )


def go_on(front: Remembered, log: ReplayLog, snapshots: Snapshots | None) -> None:
    """Bring an optimizer that has made no step to the end of a log, from the latest snapshot on.

    Raises:
        InvalidArgument: steps have been made.
        BadState: the log is of another run.
    """
    if front.t:
        raise InvalidArgument(f"resume: expected an optimizer that has made no step, got {front.t}.")
    if snapshots is not None:
        end = log[-1].step + 1 if len(log) else 0
        snapshots.run = snapshots.run or log.identity
        snapshots.truncate(end)
        found = snapshots.latest()
        if found is not None:
            _load(front, log, found)
    repeat(front, log, None)


def save(front: Remembered, snapshots: Snapshots) -> None:
    """Write a snapshot of the weights, of the state of an optimizer of torch, and of masks that are held."""
    front.flush()
    snapshots.save(front.t, {**front.engine.tensors, **_inner(front), **front.course.laws.state()})


def _load(front: Remembered, log: ReplayLog, found: Snapshot) -> None:
    """Put an optimizer where a snapshot was taken: weights from there, all the rest from the log."""
    held = found.tensors()
    inner = {name: x for name, x in held.items() if name.startswith("rule/")}
    seen = {name: x for name, x in held.items() if name.startswith("mask/")}
    weights = {name: x for name, x in held.items() if name not in inner and name not in seen}
    if {n: (x.shape, x.dtype) for n, x in weights.items()} != {
        n: (x.shape, x.dtype) for n, x in front.engine.tensors.items()
    }:
        raise BadState(f"{found.path}: expected the tensors that this optimizer moves. Use the snapshots of the run.")
    with torch.no_grad():
        for name, x in weights.items():
            front.engine.tensors[name].copy_(x)
    for i in range(log.position(found.step)):
        record = log[i]
        front.course.past.append((record.step, record.weights))
        front._observe(record)
    front.course.t, front.course.flushed = found.step, True
    front.course.laws.load(seen)
    if front.course.rule is not None:
        state = front.course.rule.state_dict()
        state["state"] = {}
        for name, x in inner.items():
            _, number, what = name.split("/")
            state["state"].setdefault(int(number), {})[what] = x
        front.course.rule.load_state_dict(state)


def _inner(front: Remembered) -> dict[str, Tensor]:
    """Return the tensors of an optimizer of torch: ``rule/<number of the parameter>/<name>``."""
    if front.course.rule is None:
        return {}
    state = front.course.rule.state_dict()["state"]
    return {f"rule/{i}/{what}": x for i, own in state.items() for what, x in own.items() if isinstance(x, Tensor)}
