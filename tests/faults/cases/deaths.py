"""Workers that die, each in its own way, in the middle of a run."""

import shutil
from functools import partial

from cases.black_box import TROUBLE, Account
from cases.hangs import HANGS
from cases.harness import Case, Child, Outcome, beside, tally

KINDS = [kind for kind in TROUBLE if kind not in HANGS]
BUDGET = 40
LIMIT = 40.0
PROMISE = "the run ends with its exact budget, the error is said, the history is that of any other run, no process left"
RAISED = {"sys.exit", "exception that cannot be pickled", "result that cannot be pickled"}
"""Kinds that fail the evaluation; after the others it is made again by another worker."""
HARMLESS = {"stdout closed"}


def ours(kind, tries, folder):
    """Half of the tries befall one evaluation once, the other half each time that its point comes again."""
    whole = start("ours:minimize", folder / "whole", budget=BUDGET, workers=2, method="cma")
    whole.end(LIMIT)
    expected = (whole.said() or {}).get("digest")

    def once(number):
        where, sticky = folder / str(number), bool(number % 2)
        box = {"trouble": kind, "at": 3 + 5 * number % 31, "sticky": sticky}
        store = str(where / "run.db")
        child = start(
            "ours:minimize", where, box, budget=BUDGET, workers=2, method="cma", store=store, on_error="record"
        )
        code, said = child.end(LIMIT), child.said() or {}
        orphans, account = child.orphans(), Account.read(where / "ledger")
        shutil.rmtree(where)
        if code is None:
            return "hang"
        if code != 0:
            return f"exit code {code}: {' '.join(child.complaint().split())[-300:]}"
        fails = kind in RAISED or (sticky and kind not in HARMLESS)
        wrong = [
            (said["nfev"] != BUDGET, f"{said['nfev']} evaluations of {BUDGET}"),
            (said["nfail"] != fails, f"{said['nfail']} failed, expected {int(fails)}"),
            (len(account.ended) != BUDGET - fails, f"{len(account.ended)} points evaluated to their end"),
            (fails and not any(text for _, text in said["warnings"]), "the error is not said"),
            (not fails and said["digest"] != expected, "another history"),
            (orphans > 0, f"{orphans} processes left"),
        ]
        return next((text for fault, text in wrong if fault), "")

    count, held, words = tally(beside(once, tries))
    return Outcome(count, held, words or "every run complete")


def peers(program, tries, folder):
    """Each kind once or more; a peer that still runs after 20 s hangs: without a fault it takes two or three."""

    def once(number):
        where, kind = folder / str(number), KINDS[number % len(KINDS)]
        child = start(f"rivals:{program}", where, {"trouble": kind, "at": 11}, budget=BUDGET)
        code, said = child.end(LIMIT / 2), child.said() or {}
        orphans = child.orphans(2.0)
        if code is None:
            return "hang", kind
        if code != 0:
            return f"run lost, {said.get('raised', f'exit code {code}')}", kind
        return f"{orphans} processes left" if orphans else "complete", kind

    found = beside(once, tries, jobs=4)
    words = [f"{word}: {', '.join(k for w, k in found if w == word)}" for word in sorted({w for w, _ in found})]
    return Outcome(tries, sum(word == "complete" for word, _ in found), "; ".join(words))


def start(program, where, box=None, **config):
    where.mkdir(parents=True, exist_ok=True)
    return Child(program, where, box={"ledger": str(where / "ledger"), "seconds": 0.002, **(box or {})}, **config)


PEERS = {
    "scipy": ("differential_evolution, workers=2", "scipy_evolution_two", "scipy"),
    "pycma": ("optimize, n_jobs=2", "pycma_two", "cma"),
    "nevergrad": ("ProcessPoolExecutor", "nevergrad_two", "nevergrad"),
}
CASES = [
    *(Case("deaths", kind, PROMISE, partial(ours, kind), 1, 10) for kind in KINDS),
    *(
        Case("deaths", f"{way}, each kind", PROMISE, partial(peers, program), 0, len(KINDS), system, needs)
        for system, (way, program, needs) in PEERS.items()
    ),
]
