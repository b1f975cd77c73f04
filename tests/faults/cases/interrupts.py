"""SIGINT and SIGTERM at random moments, really delivered."""

import random
import shutil
import signal
import time
from functools import partial

from cases import harness
from cases.black_box import count_begun
from cases.harness import Case, Child, Outcome, beside, tally, until

BUDGET = 60
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PROMISE = "a result within 5 s, a store that resumes to the uninterrupted history, no process left"
WAYS = {"serial": None, "2 workers": 2, "threads": "executor"}
LONG = {"serial": 17, "2 workers": 17, "threads": 16}


def delivered(child, ledger, number):
    """Send a signal after a share of the evaluations; return when, or None if the run had ended."""
    luck = random.Random(f"signal {number}")
    wanted = max(1, round(luck.uniform(0.0, 0.85) * BUDGET))
    if not until(lambda: count_begun(ledger) >= wanted or child.process.poll() is not None):
        return None
    time.sleep(luck.uniform(0.0, 0.005))
    child.process.send_signal(SIGNALS[number % 2])
    return time.monotonic()


def ours(way, tries, folder):
    def start(where):
        box = {"ledger": str(where / "ledger"), "seconds": 0.004}
        return Child("ours:minimize", where, budget=BUDGET, workers=WAYS[way], store=str(where / "run.db"), box=box)

    whole = start(folder / "whole")
    whole.end()
    expected = (whole.said() or {}).get("digest")

    def once(number):
        where = folder / str(number)
        first = start(where)
        sent = delivered(first, where / "ledger", number)
        code, said = first.end(20.0), first.said() or {}
        took = time.monotonic() - sent if sent else 0.0
        orphans = first.orphans(2.0)
        second = start(where)
        again, result = second.end(), second.said() or {}
        orphans += second.orphans(2.0)
        shutil.rmtree(where)
        if code is None or code != 0:
            return f"exit code {code}: {said.get('raised')} {said.get('text', '')[:150]}", took
        wrong = [
            (sent is None or said["status"] != "interrupted", f"status {said['status']}"),
            (took > 5.0 + harness.ROOM, f"{took:.1f} s to the end"),
            (again != 0, f"resume failed: {result.get('raised')} {result.get('text', '')[:150]}"),
            (result.get("digest") != expected, "another history after resuming"),
            (orphans > 0, f"{orphans} processes left"),
        ]
        return next((text for fault, text in wrong if fault), ""), took

    return summed(beside(once, tries), "results")


def peers(program, tries, folder):
    def once(number):
        where = folder / str(number)
        where.mkdir()
        ledger = where / "ledger"
        child = Child(f"rivals:{program}", where, budget=200, box={"ledger": str(ledger), "seconds": 0.02})
        sent = delivered(child, ledger, number)
        code, said = child.end(15.0), child.said()
        took = time.monotonic() - sent if sent else 0.0
        orphans = child.orphans(2.0)
        if code is None:
            return "hang", took
        fault = "" if said and "nfev" in said else f"no result (exit code {code})"
        return fault or f"{orphans} processes left" * bool(orphans), took

    return summed(beside(once, tries), "results")


def summed(found, noun):
    count, held, words = tally([fault for fault, _ in found])
    slowest = max(seconds for _, seconds in found)
    return Outcome(count, held, f"{held}/{count} {noun}; {slowest:.1f} s at most" + f"; {words}" * bool(words))


PEERS = {
    "Nelder-Mead": ("scipy", "scipy_nelder_mead", "scipy"),
    "differential_evolution, workers=2": ("scipy", "scipy_evolution_two", "scipy"),
    "fmin2": ("pycma", "pycma_fmin", "cma"),
    "optimize, n_jobs=2": ("pycma", "pycma_two", "cma"),
    "CMA": ("nevergrad", "nevergrad_serial", "nevergrad"),
    "CMA, ProcessPoolExecutor": ("nevergrad", "nevergrad_two", "nevergrad"),
}
CASES = [
    *(Case("signals", way, PROMISE, partial(ours, way), 1, LONG[way]) for way in WAYS),
    *(
        Case("signals", name, PROMISE, partial(peers, program), 0, 4, system, needs)
        for name, (system, program, needs) in PEERS.items()
    ),
]
