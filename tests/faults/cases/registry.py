"""Every case, by group."""

from cases import corruption, costs, deaths, determinism, disk, hangs, interrupts, kill, nodes, threads, writers
from cases.harness import Outcome

__all__ = ["CASES", "GROUPS", "Outcome", "chosen"]

GROUPS = {
    "kill": kill.CASES,
    "deaths": deaths.CASES,
    "hangs": hangs.CASES,
    "signals": interrupts.CASES,
    "disk": disk.CASES,
    "corruption": corruption.CASES,
    "nodes": nodes.CASES,
    "determinism": determinism.CASES,
    "threads": threads.CASES,
    "writers": writers.CASES,
    "costs": costs.CASES,
}
CASES = [case for cases in GROUPS.values() for case in cases]


def chosen(names):
    """Return the available cases whose group or identity begins with one of the names; all without names."""
    names = names or list(GROUPS)
    return [c for c in CASES if c.available and any(c.group == n or c.id.startswith(n) for n in names)]
