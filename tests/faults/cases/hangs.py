"""Evaluations that never end; times count from the moment at which the hang begins."""

import shutil
import time
from functools import partial

from cases import harness
from cases.black_box import count_begun
from cases.harness import Case, Child, Outcome, beside, tally, until

BUDGET = 24
TIMEOUT = 1.5
HANGS = ("hang", "hang in C", "hang, deaf to signals")
PROMISE = (
    f"with eval_timeout={TIMEOUT} the run returns {TIMEOUT} + 2 s after the hang began, its budget exact, "
    "the hang said, no process left"
)
PLACES = {
    "the first": {"trouble": "hang", "at": 1},
    "one in the middle": {"trouble": "hang", "at": 12},
    "the last": {"trouble": "hang", "at": BUDGET},
    "both workers": {"trouble": "hang", "at": 9},
    "in C, holding the interpreter's lock": {"trouble": "hang in C", "at": 7},
    "deaf to SIGTERM and SIGINT": {"trouble": "hang, deaf to signals", "at": 7},
}


def ours(place, tries, folder):
    def once(number):
        where = folder / str(number)
        where.mkdir()
        box = {"ledger": str(where / "ledger"), "seconds": 0.002, "sticky": True, **PLACES[place]}
        both = place == "both workers"
        child = Child(
            "ours:minimize", where, method="cma", budget=BUDGET, workers=2, eval_timeout=TIMEOUT, on_error="record",
            every_worker=both, store=str(where / "run.db"), box=box,
        )  # fmt: skip
        code, said = child.end(40.0), child.said() or {}
        orphans = child.orphans(2.0)
        begun = max((path.stat().st_mtime for path in where.glob("ledger.struck*")), default=0.0)
        shutil.rmtree(where)
        if code is None:
            return "hang", 40.0
        if code != 0:
            return f"exit code {code}: {said.get('raised')} {said.get('text', '')[:150]}", 0.0
        late = said["ended"] - begun
        wrong = [
            (not begun, "nothing hung"),
            (late > TIMEOUT + 2.0 + harness.ROOM, f"returned after {late:.1f} s"),
            (said["nfev"] != BUDGET, f"{said['nfev']} evaluations of {BUDGET}"),
            (said["nfail"] != 1 + both, f"{said['nfail']} failed"),
            (not said["warnings"], "the hang is not said"),
            (orphans > 0, f"{orphans} processes left"),
        ]
        return next((text for fault, text in wrong if fault), ""), late

    found = beside(once, tries)
    count, held, words = tally([fault for fault, _ in found])
    slowest = max(seconds for _, seconds in found)
    return Outcome(count, held, f"returned after {slowest:.1f} s at most" + f"; {words}" * bool(words))


def peers(program, tries, folder):
    """A peer whose twelfth evaluation hangs: none of them interrupts an evaluation under way."""

    def once(number):
        where = folder / str(number)
        where.mkdir()
        ledger = where / "ledger"
        box = {"ledger": str(ledger), "seconds": 0.002, **PLACES["one in the middle"]}
        child = Child(f"rivals:{program}", where, budget=BUDGET, box=box)
        until(lambda: count_begun(ledger) >= 12, 30.0)
        time.sleep(TIMEOUT + 8.0)
        code = child.process.poll()
        child.end(0.1)
        child.sweep()
        return f"still running {TIMEOUT + 8.0:.1f} s later" if code is None else f"exit code {code}" * bool(code)

    count, held, words = tally(beside(once, tries))
    return Outcome(count, held, words or "returned")


PEERS = {
    "scipy": ("differential_evolution, workers=2", "scipy_evolution_two", "scipy"),
    "pycma": ("optimize, n_jobs=2", "pycma_two", "cma"),
    "nevergrad": ("ProcessPoolExecutor", "nevergrad_two", "nevergrad"),
}
CASES = [
    *(Case("hangs", place, PROMISE, partial(ours, place), 1, 5) for place in PLACES),
    *(
        Case("hangs", f"{way}: one in the middle", PROMISE, partial(peers, program), 0, 2, system, needs)
        for system, (way, program, needs) in PEERS.items()
    ),
]
