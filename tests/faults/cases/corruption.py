"""Stores with flipped bits, cut ends and zeroed blocks."""

import random
from functools import partial

from cases.harness import Case, Child, Outcome

PROMISE = "what is read is a prefix of the truth, or a typed error says so; never a crash or a hang"


def peers(program, tries, folder):
    """One bit flipped at random places of a peer's kept run."""
    path = folder / ("run.db" if "sqlite" in program else "run")
    Child(f"rivals:{program}", folder, path=str(path), budget=48, box={"seconds": 0}).end(120)
    luck = random.Random(1)
    flips = [(luck.randrange(path.stat().st_size), luck.randrange(8)) for _ in range(tries)]
    child = Child("rivals:read_flipped", folder, system=program, source=str(path), flips=flips, folder=str(folder))
    code, said = child.end(600.0), child.said() or {}
    if code != 0:
        return Outcome(tries, 0, f"exit code {code}: {said.get('text', '')[:150]}")
    words = said["words"]
    kinds = {kind: words.count(kind) for kind in sorted(set(words))}
    bad = sum(words.count(kind) for kind in ("silently wrong", "silently fewer", "crash or hang"))
    return Outcome(tries, tries - bad, ", ".join(f"{n} {kind}" for kind, n in kinds.items()))


PEERS = {
    "pycma": [("pickle", "pycma_pickle", "cma")],
    "optuna": [("journal file", "optuna_journal", "optuna"), ("sqlite", "optuna_sqlite", "optuna")],
    "nevergrad": [("dump", "nevergrad_dump", "nevergrad")],
}
CASES = [
    Case("corruption", f"one bit, {way}", PROMISE, partial(peers, program), 0, 60, system, needs)
    for system, ways in PEERS.items()
    for way, program, needs in ways
]
