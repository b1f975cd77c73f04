"""``kill -9`` at a random moment of a run, then the same call again."""

import json
import random
import shutil
import sqlite3
import statistics
from collections import Counter
from functools import partial
from pathlib import Path

from cases.black_box import Account, count_begun, key
from cases.harness import Case, Child, Outcome, beside, tally, until

BUDGET = 48
SECONDS = 0.0025
METHODS = ("cma", "genetic", "zo-sgd", "cbo")
PROMISE = (
    "no told evaluation lost, none repeated but those in flight, history identical to the uninterrupted run's, "
    "no process left"
)


def stored(path, folder):
    """Return what a store holds by number, as plain SQL sees it in a copy: the point's hash and the value."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("", "-wal"):
        if Path(f"{path}{part}").exists():
            shutil.copy(f"{path}{part}", folder / f"copy.db{part}")
    if not (folder / "copy.db").exists():
        return {}
    base = sqlite3.connect(folder / "copy.db")
    try:
        rows = base.execute("SELECT number, x, value FROM evaluations WHERE told IS NOT NULL ORDER BY number")
        return {number: (key(json.loads(x)), value) for number, x, value in rows}
    except sqlite3.OperationalError:  # killed before the tables were there
        return {}
    finally:
        base.close()


def killed_at(child, ledger, share, luck):
    """Kill a child after a share of its evaluations and a few milliseconds; false if it had ended before."""
    if not until(lambda: count_begun(ledger) >= max(1, round(share * BUDGET)) or child.process.poll() is not None):
        child.end(0.1)
        return False
    until(lambda: False, luck.uniform(0.0, 2 * SECONDS), 0.0001)
    return child.kill()


def attempts(number, again=5):
    """Yield a random generator for each attempt of a try: a run that ended before its kill is no try."""
    for attempt in range(again):
        yield attempt, random.Random(f"{number} {attempt}")


def ours(method, workers, tries, folder):
    def start(where, store):
        box = {"ledger": str(where / "ledger"), "seconds": SECONDS}
        return Child("ours:minimize", where, method=method, budget=BUDGET, store=store, workers=workers, box=box)

    whole = start(folder / "whole", str(folder / "whole.db"))
    whole.end()
    told, expected = stored(folder / "whole.db", folder / "whole"), whole.said()
    if expected is None or "raised" in expected:
        return Outcome(tries, 0, f"the uninterrupted run failed: {expected or whole.complaint()[-300:]}")

    def once(number):
        for attempt, luck in attempts(number):
            where = folder / f"{number}.{attempt}"
            first = start(where, str(where / "run.db"))
            if not killed_at(first, where / "ledger", luck.uniform(0.05, 0.98), luck):
                continue
            orphans = first.orphans()
            before, done = stored(where / "run.db", where / "copy"), Account.read(where / "ledger")
            second = start(where, str(where / "run.db"))
            code = second.end()
            said, after = second.said(), stored(where / "run.db", where / "copy after")
            account = Account.read(where / "ledger")
            faults = judge(expected, said, told, before, done, after, account, workers or 1)
            if code != 0:
                faults = [f"exit code {code}: {str(said or second.complaint())[-200:]}"]
            faults += [f"{orphans + second.orphans()} processes left"] * bool(orphans)
            shutil.rmtree(where)
            lost = sum(done.ended.values()) - len(before)
            return {"fault": faults[0] if faults else "", "same": (said or {}).get("digest") == expected["digest"],
                    "lost": lost, "twice": sum(account.begun.values()) - BUDGET}  # fmt: skip
        return {"fault": "the run ended before its kill", "same": False, "lost": 0, "twice": 0}

    return summed(tries, beside(once, tries))


def judge(expected, said, told, before, done, after, account, in_flight):
    """Return what went wrong in a try."""
    faults = []
    names = {name for name, _ in before.values()}
    if any(told.get(number) != row for number, row in before.items()):
        faults.append("the store held what the whole run never saw")
    missing = sum((done.ended - account_of(before)).values())
    if missing > in_flight:
        faults.append(f"{missing} finished evaluations not in the store")
    if any(after.get(number) != row for number, row in before.items()):
        faults.append("told evaluations lost")
    twice = sum(account.begun.values()) - BUDGET
    if twice > in_flight:
        faults.append(f"{twice} evaluations repeated")
    again = [name for name in names if account.begun[name] > sum(1 for n, _ in told.values() if n == name) + in_flight]
    if again:
        faults.append("a stored evaluation was repeated")
    if said is None or said.get("digest") != expected["digest"]:
        faults.append("another history")
    return faults


def account_of(rows):
    return Counter(name for name, _ in rows.values())


def summed(tries, found):
    count, held, words = tally([one["fault"] for one in found])
    same = sum(one["same"] for one in found)
    lost, twice = ([one[name] for one in found] for name in ("lost", "twice"))
    text = (
        f"{same}/{count} identical; finished but not stored: mean {statistics.mean(lost):.2f}, most {max(lost)}; "
        f"evaluated twice: mean {statistics.mean(twice):.2f}, most {max(twice)}"
    )
    return Outcome(tries, held, f"{text}; {words}" if words else text)


def peers(program, tries, folder):
    """The same kill and the same question, to a peer with its own way of keeping a run."""

    def start(where):
        box = {"ledger": str(where / "ledger"), "seconds": SECONDS}
        return Child(f"rivals:{program}", where, path=str(where / "run"), budget=BUDGET, box=box)

    whole = start(folder / "whole")
    whole.end(120)
    expected = whole.said()
    total = sum(Account.read(folder / "whole" / "ledger").begun.values())

    def once(number):
        for attempt, luck in attempts(number):
            where = folder / f"{number}.{attempt}"
            first = start(where)
            if not killed_at(first, where / "ledger", luck.uniform(0.05, 0.98), luck):
                continue
            done = Account.read(where / "ledger")
            second = start(where)
            code, said = second.end(), second.said()
            twice = sum(Account.read(where / "ledger").begun.values()) - total
            shutil.rmtree(where)
            lost = sum(done.ended.values()) - (said or {}).get("found", 0)
            same = bool(said) and said.get("digest") == expected["digest"]
            fault = f"resume failed ({said['raised'] if said and 'raised' in said else code})" if code != 0 else ""
            fault = fault or ("more than one evaluation lost" if lost > 1 or twice > 1 else "") or (
                "" if same else "another history")  # fmt: skip
            return {"fault": fault, "same": same, "lost": lost, "twice": max(0, twice)}
        return {"fault": "the run ended before its kill", "same": False, "lost": 0, "twice": 0}

    return summed(tries, beside(once, tries))


CASES = [
    *(
        Case("kill", f"{'serial' if not workers else f'{workers} workers'}, {method}", PROMISE,
             partial(ours, method, workers), 1, 50)
        for workers in (None, 2)
        for method in METHODS
    ),
    Case("kill", "pickle after each generation", PROMISE, partial(peers, "pycma_pickle"), 0, 50, "pycma", "cma"),
    Case("kill", "journal file", PROMISE, partial(peers, "optuna_journal"), 0, 50, "optuna", "optuna"),
    Case("kill", "sqlite", PROMISE, partial(peers, "optuna_sqlite"), 0, 50, "optuna", "optuna"),
    Case("kill", "dump after each tell", PROMISE, partial(peers, "nevergrad_dump"), 0, 50, "nevergrad", "nevergrad"),
]  # fmt: skip
