"""Several processes at one store: racing to create it, locked out, after a dead one, reading meanwhile."""

import shutil
import time
from functools import partial

from cases import harness
from cases.black_box import Account, count_begun
from cases.harness import Case, Child, Outcome, beside, tally, until

BUDGET = 120
PROMISE = "one writer; each other is refused within a second by a typed error that names it; nothing is evaluated twice"
TAKEN = "a store whose writer died is taken over at once, without a word from the user"
READ = "readers see a growing truth, are never blocked, and leave every file as it was"


def write(where, seconds=0.01, **more):
    box = {"ledger": str(where / "ledger"), "seconds": seconds}
    return Child("ours:minimize", where, store=str(where / "run.db"), budget=BUDGET, box=box, **more)


def race(processes, tries, folder):
    def once(number):
        where, go = folder / str(number), folder / f"go{number}"
        where.mkdir()
        children = [write(where, go=str(go)) for _ in range(processes)]
        until(lambda: all(child.out.read_text().startswith("ready") for child in children), 120, 0.01)
        go.touch()
        codes = [child.end() for child in children]
        said = [child.said() or {} for child in children]
        begun = sum(Account.read(where / "ledger").begun.values())
        shutil.rmtree(where)
        locked = [one for one in said if one.get("raised") == "RunLocked"]
        late = max((one["after"] for one in locked), default=0.0)
        wrong = [
            (codes.count(0) != 1, f"{codes.count(0)} wrote"),
            (len(locked) != processes - 1, f"{len(locked)} refused: {[o.get('raised') for o in said]}"),
            (late > 1.0 + harness.ROOM, f"refused after {late:.1f} s"),
            (begun != BUDGET, f"{begun} evaluations"),
        ]
        return next((text for fault, text in wrong if fault), ""), late

    found = beside(once, tries, 1)
    count, held, words = tally([fault for fault, _ in found])
    slowest = max(late for _, late in found)
    return Outcome(count, held, words or f"1 wrote, {processes - 1} refused after {slowest:.2f} s at most")


def live(tries, folder):
    def once(number):
        where = folder / str(number)
        first = write(where, 0.03)
        until(lambda: count_begun(where / "ledger") > 5)
        second = write(where)
        second.end()
        said, code = second.said() or {}, first.end()
        shutil.rmtree(where)
        wrong = [
            (said.get("raised") != "RunLocked", f"the second: {said.get('raised', 'ran')}"),
            (str(first.pid) not in said.get("text", ""), f"the writer is not named: {said.get('text', '')[:100]}"),
            (code != 0, f"the first ended with {code}"),
        ]
        return next((text for fault, text in wrong if fault), "")

    count, held, words = tally(beside(once, tries))
    return Outcome(count, held, words or "refused, the writer named by its process")


def stale(tries, folder):
    def once(number):
        where = folder / str(number)
        first = write(where)
        until(lambda: count_begun(where / "ledger") > 5 + number)
        first.kill()
        second = write(where)
        code, said = second.end(), second.said() or {}
        shutil.rmtree(where)
        return "" if code == 0 and said["nfev"] == BUDGET else f"{said.get('raised')} {said.get('text', '')[:150]}"

    count, held, words = tally(beside(once, tries))
    return Outcome(count, held, words or "taken over")


def readers(tries, folder):
    def once(number):
        where = folder / str(number)
        writer = write(where, 0.01)
        until(lambda: count_begun(where / "ledger") > 3)
        reader = Child("ours:read_along", where, path=str(where / "run.db"), until=BUDGET)
        codes = writer.end(), reader.end()
        said = reader.said() or {}
        files = sorted(path.name for path in where.iterdir() if path.name.startswith("run.db"))
        before = {name: (where / name).read_bytes() for name in files}
        after_reader = Child("ours:read_along", where, path=str(where / "run.db"), until=BUDGET)
        after_reader.end()
        now = {p.name: p.read_bytes() for p in where.iterdir() if p.name.startswith("run.db")}
        shutil.rmtree(where)
        wrong = [
            (codes != (0, 0), f"exit codes {codes}: {said.get('raised')} {said.get('text', '')[:150]}"),
            (said.get("changed", "?") != "", f"told rows changed: {said.get('changed')}"),
            (said.get("looks", 0) < 2, "looked once only"),
            (now != before, "a reader changed the files"),
        ]
        return next((text for fault, text in wrong if fault), ""), said.get("looks", 0), said.get("slowest", 0.0)

    found = beside(once, tries, 1)
    count, held, words = tally([fault for fault, *_ in found])
    text = f"{sum(looks for _, looks, _ in found):,} looks, {max(slow for *_, slow in found):.2f} s for the slowest"
    return Outcome(count, held, f"{text}; {words}" if words else text)


def optuna_race(tries, folder):
    def once(number):
        where, go = folder / str(number), folder / f"go{number}"
        where.mkdir()
        children = [Child("rivals:optuna_create", where, path=str(where / "run.db"), go=str(go)) for _ in range(8)]
        time.sleep(8.0)
        go.touch()
        codes = [child.end(120) for child in children]
        return "" if codes.count(0) == 8 else f"{8 - codes.count(0)} of 8 crashed"

    count, held, words = tally(beside(once, tries, 1))
    return Outcome(count, held, words or "all came in")


CASES = [
    Case("writers", "2 processes create one store", PROMISE, partial(race, 2), 1, 5),
    Case("writers", "8 processes create one store", PROMISE, partial(race, 8), 0, 5),
    Case("writers", "a second writer", PROMISE, live, 1, 5),
    Case("writers", "the writer was killed", TAKEN, stale, 1, 10),
    Case("writers", "readers while it is written", READ, readers, 1, 5),
    Case("writers", "8 processes create one sqlite study", PROMISE, optuna_race, 0, 2, "optuna", "optuna"),
]
