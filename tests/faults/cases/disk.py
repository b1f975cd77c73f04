"""Disks that are full, read-only, closed to this user, out of inodes, or gone."""

import contextlib
import os
import subprocess
from functools import partial
from pathlib import Path

from cases.harness import Case, Child, Outcome
from cases.kill import stored

BUDGET = 600
PROMISE = (
    "a result with a warning, or a typed error before the first evaluation; what was stored before is intact; "
    "with space again the same call ends with the uninterrupted history"
)
ROOM = 64 * 2**20
SIZES = (16, 64, 96, 128, 192, 256)  # KiB


def start(folder, path, **more):
    box = {"ledger": str(folder / "ledger"), "seconds": 0}
    return Child("ours:minimize", folder, store=str(path), budget=BUDGET, box=box, **more)


def expected(folder):
    whole = start(folder / "whole", folder / "whole" / "run.db")
    whole.end()
    return whole.said()["digest"], stored(folder / "whole" / "run.db", folder / "whole")


def judge(folder, path, first, second, truth, kept):
    """Return what was broken, and what happened, in words.

    Args:
        folder: for copies.
        path: the store.
        first: the child that met the fault, ended.
        second: starts the same call after the fault is mended.
        truth: hash and rows of an uninterrupted run.
        kept: rows that lay in the store after the fault.
    """
    said = first.said()
    if said is None:
        return f"exit code {first.process.returncode}: {first.complaint()[-200:]}", ""
    wrong = []
    if "raised" in said:
        happened = f"{said['raised']} before the first evaluation"
        if "DfoError" not in said["kinds"]:
            wrong.append(f"an error of no type of ours: {said['raised']}: {said['text'][:100]}")
        if Path(folder, "ledger").exists():
            wrong.append("no result: the error came after evaluations")
    else:
        happened = f"{said['nfev']} evaluations, {len(kept)} stored, {said['status']}"
        if len(kept) < BUDGET and not any(kind == "StoreWarning" for kind, _ in said["warnings"]):
            wrong.append("no warning")
        if said["status"] != "unstored" or not 0 < said["history"] == said["nfev"] < BUDGET:
            wrong.append("no result of what was evaluated")
    if any(truth[1].get(number) != row for number, row in kept.items()):
        wrong.append("the store holds what never was")
    child = second()
    child.end()
    again = child.said() or {}
    if again.get("digest") != truth[0]:
        wrong.append(f"did not resume: {again.get('raised')} {again.get('text', '')[:150]}")
    elif any(stored(path, folder / "after").get(number) != row for number, row in kept.items()):
        wrong.append("stored evaluations lost")
    return "; ".join(wrong), happened


@contextlib.contextmanager
def mounted(where, options):
    """A file system in memory; raises PermissionError where this user may not mount."""
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", where], capture_output=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.decode())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], capture_output=True, check=False)


def remount(where, options):
    subprocess.run(["mount", "-o", f"remount,{options}", where], check=True)


def can_mount(folder):
    try:
        with mounted(folder / "probe", "size=16k"):
            return True
    except (PermissionError, FileNotFoundError):
        return False


def full(size, tries, folder):
    """A file system, or where none can be mounted a limit on the size of files, of ``size`` KiB."""
    truth, place = expected(folder), folder / "disk"
    if not can_mount(folder):
        return limited(size, tries, folder)
    with mounted(place, f"size={size}k"):
        path = place / "run.db"
        first = start(folder, path)
        first.end()
        kept = stored(path, folder / "kept")
        remount(place, f"size={ROOM}")
        return outcome(judge(folder, path, first, lambda: start(folder, path), truth, kept))


def limited(size, tries, folder):
    """A limit on the size of this process's files."""
    truth, path = expected(folder), folder / "run.db"
    first = start(folder, path, limit=1024 * size)
    first.end()
    return outcome(judge(folder, path, first, lambda: start(folder, path), truth, stored(path, folder / "kept")))


def inodes(tries, folder):
    truth, place = expected(folder), folder / "disk"
    if not can_mount(folder):
        return Outcome(0, 0, "left out: needs root")
    with mounted(place, "size=64m,nr_inodes=3"):  # the root, the store and one more
        path = place / "run.db"
        first = start(folder, path)
        first.end()
        kept = stored(path, folder / "kept")
        remount(place, "nr_inodes=1000")
        return outcome(judge(folder, path, first, lambda: start(folder, path), truth, kept))


def half_stored(folder, path):
    """Leave a run in the store whose process was killed in its middle."""
    from cases.black_box import count_begun
    from cases.harness import until

    child = start(folder, path)
    until(lambda: count_begun(folder / "ledger") >= BUDGET // 2 or child.process.poll() is not None)
    child.kill()
    Path(folder, "ledger").unlink()
    return stored(path, folder / "half")


def read_only(tries, folder):
    """A stored run on a file system that has become read-only."""
    truth, place = expected(folder), folder / "disk"
    if not can_mount(folder):
        return Outcome(0, 0, "left out: needs root")
    with mounted(place, "size=64m"):
        path = place / "run.db"
        before = half_stored(folder, path)
        remount(place, "ro")
        first = start(folder, path)
        first.end()
        kept = stored(path, folder / "kept")
        remount(place, "rw")
        found = judge(folder, path, first, lambda: start(folder, path), truth, kept)
    return outcome(found if kept == before else (f"{found[0]}; stored evaluations changed", found[1]))


def forbidden(tries, folder):
    """A folder of another user's."""
    if os.geteuid():
        closed = folder / "closed"
        closed.mkdir(mode=0o500)
        user = None
    else:
        closed, user = folder / "closed", 65534
        closed.mkdir(mode=0o755)
        for above in (folder, *folder.parents):
            if above.stat().st_uid == 0 and not above.stat().st_mode & 1:
                os.chmod(above, above.stat().st_mode | 0o011)
        os.chmod(folder, 0o777)
    truth, path = expected(folder), closed / "run.db"
    first = start(folder, path, user=user)
    first.end()
    os.chmod(closed, 0o700)
    return outcome(judge(folder, path, first, lambda: start(folder, path), truth, stored(path, folder / "kept")))


def deleted(tries, folder):
    """The folder is removed while the run is under way."""
    truth, place = expected(folder), folder / "gone"
    place.mkdir()
    path = place / "run.db"
    first = start(folder, path, remove=[str(place), BUDGET // 3])
    first.end()
    left = stored(path, folder / "kept") if path.exists() else {}
    place.mkdir(exist_ok=True)
    return outcome(judge(folder, path, first, lambda: start(folder, path), truth, left))


def outcome(found):
    broken, happened = found
    return Outcome(1, 0 if broken else 1, f"{happened}; {broken}" if broken else f"{happened}; resumed")


def peers(program, size, tries, folder):
    """A peer's own way of keeping a run, on a full disk: is the last whole checkpoint still there?"""
    if not can_mount(folder):
        return Outcome(0, 0, "left out: needs root")
    place = folder / "disk"
    with mounted(place, f"size={size}k"):
        box = {"ledger": str(folder / "ledger"), "seconds": 0}
        path = place / ("run.db" if "sqlite" in program else "run")
        first = Child(f"rivals:{program}", folder, path=str(path), budget=BUDGET, box=box)
        first.end(240)
        ended = (first.said() or {}).get("raised", "finished")
        remount(place, f"size={ROOM}")
        again = Child(f"rivals:{program}", folder, path=str(path), budget=BUDGET, box=box)
        code, said = again.end(240), again.said() or {}
    resumed = f"resumed with {said.get('found')}" if code == 0 else f"not resumed: {said.get('raised')}"
    return Outcome(1, int(code == 0 and ended == "finished"), f"{size} KiB: {ended}; with space again {resumed}")


PEERS = {
    "pycma": ("pickle", "pycma_pickle", "cma", 12),
    "optuna journal": ("journal file", "optuna_journal", "optuna", 64),
    "optuna": ("sqlite", "optuna_sqlite", "optuna", 256),
    "nevergrad": ("dump", "nevergrad_dump", "nevergrad", 64),
}
CASES = [
    *(Case("disk", f"{size} KiB", PROMISE, partial(full, size), int(size in (16, 192)), 1) for size in SIZES),
    *(Case("disk", f"files of at most {size} KiB", PROMISE, partial(limited, size), 0, 1) for size in (16, 112)),
    Case("disk", "out of inodes", PROMISE, inodes, 0, 1),
    Case("disk", "read-only in the middle of a stored run", PROMISE, read_only, 1, 1),
    Case("disk", "a folder that may not be written", PROMISE, forbidden, 0, 1),
    Case("disk", "the folder is deleted on the way", PROMISE, deleted, 1, 1),
    *(
        Case("disk", f"{way}, {size} KiB", PROMISE, partial(peers, program, size), 0, 1, system.split()[0], needs)
        for system, (way, program, needs, size) in PEERS.items()
    ),
]
