"""Stores with flipped bits, cut ends and zeroed blocks."""

import json
import random
import re
from collections import Counter
from functools import partial
from pathlib import Path

from cases.black_box import count_begun
from cases.damage import PAGE
from cases.harness import JOBS, Case, Child, Outcome, beside, until

PROMISE = (
    "what is read is the truth or its beginning, or a typed error says why not; no crash, no hang; "
    "a repair saves all that lies before the damage"
)
EVALUATIONS = 300
FRAME = PAGE + 24


def closed(folder, evaluations=EVALUATIONS):
    """Return a store whose run has ended: one plain file."""
    path = folder / "closed.db"
    child = Child("ours:minimize", folder, store=str(path), budget=evaluations, box={"seconds": 0})
    if child.end() != 0:
        raise RuntimeError(child.complaint()[-300:])
    return path


def torn(folder):
    """Return a store whose process was killed: a file and its log."""
    path, ledger = folder / "torn.db", folder / "ledger"
    box = {"ledger": str(ledger), "seconds": 0}
    child = Child("ours:minimize", folder, store=str(path), budget=100_000, box=box)
    until(lambda: count_begun(ledger) >= EVALUATIONS)
    child.kill()
    return path


def ours(source, damages, tries, folder):
    path = source(folder)
    chosen = damages(path, tries)
    parts = beside(lambda part: tried(path, folder / f"part {part}", chosen[part::JOBS]), JOBS)
    words = [word for part in parts for word in part]
    bad = [word for word in words if re.search(r"wrong|miscounted|only|crash", word)]
    first = Counter(re.sub(r"saved.*", "", word).strip() for word in words)
    text = ", ".join(f"{n:,} {NAMES.get(word, word)}" for word, n in first.most_common(6))
    saved = [int(found[1]) for word in words if (found := re.search(r"saved-(\d+)$", word))]
    if saved:
        text += f"; saved {min(saved):,} to {max(saved):,} evaluations"
    if bad:
        text += f"; broken: {', '.join(f'{n} x {word}' for word, n in Counter(bad).most_common(3))}"
    return Outcome(len(words), len(words) - len(bad), text)


NAMES = {
    "whole whole": "unharmed",
    "whole+said whole+said": "read whole, with a warning",
    "fewer+said fewer+said": "read to the damage, with a warning",
    "refused refused": "refused",
    "fewer fewer": "read to the damage",
    "fewer fewer+said": "read to the damage, with a warning",
    "whole refused": "read by a reader, refused to a writer",
    "refused whole": "refused to a reader, read by a writer",
    "fewer refused": "read to the damage by a reader, refused to a writer",
}


def tried(path, folder, damages):
    """Return a line for each damage; a process that dies of one is started again with the next."""
    folder.mkdir()
    file, words = folder / "words", []
    while len(words) < len(damages):
        child = Child(
            "damage:read_all_of", folder, source=str(path), folder=str(folder), listed=listed(folder, damages),
            start=len(words),
        )  # fmt: skip
        code = child.end(3600.0)
        words = file.read_text().splitlines() if file.exists() else []
        if len(words) < len(damages):
            if code == 3:
                raise RuntimeError(str(child.said()))
            with file.open("a") as more:
                more.write(f"{len(words)} crash or hang ({code})\n")
            words = file.read_text().splitlines()
    return [word.partition(" ")[2] for word in words]


def listed(folder, damages):
    """Write the damages to a file, which has no limit of length as a command line has."""
    path = folder / "damages.json"
    path.write_text(json.dumps(damages))
    return str(path)


def flips(path, tries):
    """Random bits of the file, and of its log where it has one, each part by its size."""
    luck, parts = random.Random(1), {part: Path(f"{path}{part}") for part in ("", "-wal")}
    sizes = {part: file.stat().st_size for part, file in parts.items() if file.exists()}
    found = []
    for _ in range(tries):
        at = luck.randrange(sum(sizes.values()))
        part = "" if at < sizes[""] else "-wal"
        found.append({"part": part, "do": "flip", "at": at - (sizes[""] if part else 0), "bit": luck.randrange(8)})
    return found


def cuts(path, tries):
    """The log cut in its last nine frames, three records at most: each byte of their heads, and each 64th."""
    size = Path(f"{path}-wal").stat().st_size
    places = [at for at in range(max(33, size - 9 * FRAME), size) if (at - 32) % FRAME < 24 or at % 64 == 0]
    step = max(1, len(places) // tries)
    return [{"part": "-wal", "do": "cut", "at": at} for at in places[::step]]


def blocks(path, tries):
    count = path.stat().st_size // PAGE
    luck = random.Random(2)
    chosen = luck.sample(range(count), min(tries, count))
    return [{"do": "zero", "at": PAGE * block} for block in chosen]


def odd(path, tries):
    half = path.stat().st_size // 2
    return [{"do": "cut", "at": 0}, {"do": "cut", "at": half}, {"do": "cut", "at": half - half % PAGE}, {"do": "magic"},
            {"do": "future version"}, {"do": "duplicate"}, {"do": "gap"}]  # fmt: skip


def peers(program, tries, folder):
    """One bit flipped at random places of a peer's kept run."""
    path = folder / ("run.db" if "sqlite" in program else "run")
    Child(f"rivals:{program}", folder, path=str(path), budget=48, box={"seconds": 0}).end(120)
    luck = random.Random(1)
    places = [(luck.randrange(path.stat().st_size), luck.randrange(8)) for _ in range(tries)]
    child = Child("rivals:read_flipped", folder, system=program, source=str(path), flips=places, folder=str(folder))
    code, said = child.end(900.0), child.said() or {}
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
    Case("corruption", "one bit of a closed store", PROMISE, partial(ours, closed, flips), 25, 1000),
    Case("corruption", "one bit of a killed run's store and log", PROMISE, partial(ours, torn, flips), 25, 1000),
    Case("corruption", "the log cut within its last records", PROMISE, partial(ours, torn, cuts), 25, 10**6),
    Case("corruption", "a block of 4 KiB zeroed", PROMISE,
         partial(ours, partial(closed, evaluations=800), blocks), 5, 50),
    Case("corruption", "empty, half, foreign, from the future, a record twice, a gap", PROMISE,
         partial(ours, closed, odd), 7, 7),
    *(
        Case("corruption", f"one bit, {way}", PROMISE, partial(peers, program), 0, 60, system, needs)
        for system, ways in PEERS.items()
        for way, program, needs in ways
    ),
]  # fmt: skip
