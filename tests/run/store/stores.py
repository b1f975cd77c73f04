"""What the tests of stores share: a small run, what a store holds, and damage."""

import os
import random
import subprocess
import warnings

import numpy as np

from dfo.batch import Points
from dfo.errors import DfoError, StoreWarning
from dfo.oracles.outcomes import Answer
from dfo.run.store import Run, Store, View

CONFIG = {"method": "cma", "seed": 1}
PARTS = ("", "-wal", "-shm")


def question(i, d=10):
    return np.arange(d) / 7.0 + i


def ask(run, *numbers):
    X = np.array([question(i) for i in numbers])
    return run.ask(Points(X, step=numbers[0]), list(X))


def write(path, n, ended=True):
    """Write ``n`` evaluations, and a state after every hundredth."""
    run = Run.open(Store(path))
    run.begin(CONFIG, {"budget": n})
    for i in range(n):
        ask(run, i)
        run.tell({i: Answer(float(i))})
        if i % 100 == 50:
            run.checkpoint(i + 1, {"x": np.arange(300.0) + i})
    if ended:
        run.finish("budget", "The budget is used up.", {"nfev": n})
        run.close()
    return run


def killed(path, n):
    """Write ``n`` evaluations in a process that is killed."""
    child = os.fork()
    if not child:
        try:
            write(path, n, ended=False)
        finally:
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)


def rows(path):
    with View.open(path) as view:
        return [(row.number, row.x.tolist(), row.status, row.value) for row in view.rows()]


def contents(path):
    """Return the files of a store, read by another process: a file closed here would lose SQLite's locks."""
    return {
        end: subprocess.run(["cat", f"{path}{end}"], stdout=subprocess.PIPE, check=True).stdout
        for end in PARTS
        if os.path.exists(f"{path}{end}")
    }


def put(path, held):
    """Put files of a store in the place of what is there."""
    for end in PARTS:
        if os.path.exists(f"{path}{end}"):
            os.unlink(f"{path}{end}")
    for end, data in held.items():
        with open(f"{path}{end}", "wb") as file:
            file.write(data)


def damages(held, n, seed):
    """Yield ``n`` times a name and the files of a store with a flipped bit, a cut end or a zeroed block."""
    luck = random.Random(seed)
    for _ in range(n):
        how, part = luck.choice(("flip", "flip", "flip", "cut", "zero")), luck.choice(sorted(set(held) - {"-shm"}))
        data = bytearray(held[part])
        at = luck.randrange(len(data))
        if how == "flip":
            data[at] ^= 1 << luck.randrange(8)
        elif how == "cut":
            del data[at:]
        else:
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))
        rest = {end: held[end] for end in held if end != "-shm" or luck.random() < 0.5}
        yield f"{how} at {at} of {part or 'the file'}", {**rest, part: bytes(data)}


def outcome(read, truth):
    """Return what became of reading a damaged store: ``same``, ``warned``, the error's name, or what must not be."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            got = read()
        except DfoError as error:
            return type(error).__name__
    if got == truth:
        return "same"
    prefix = len(got) <= len(truth) and all(
        a == b or (a[:2] == b[:2] and a[2] == "asked") for a, b in zip(got, truth, strict=False)
    )
    warned = any(issubclass(w.category, StoreWarning) for w in heard)
    return ("warned" if warned else "silently fewer") if prefix else "silently wrong"


def flipped(path, n, seed):
    """Damage a store ``n`` times and read it in every way; the store is as it was afterwards.

    Returns:
        Triples of damage, way and outcome; ``silently fewer``, ``silently wrong`` and ``lost`` must not be.
    """
    from dfo.run.store import repair

    truth, held, found = rows(path), contents(path), []
    other, mended = f"{path}.other", f"{path}.mended"

    def reopened():
        Run.open(Store(other)).close()
        return rows(other)

    def repaired():
        kept = repair(other, mended).kept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = rows(mended)
        assert kept == len(got)
        warnings.warn("it was damaged", StoreWarning, stacklevel=1)
        return got

    for name, files in damages(held, n, seed):
        for way in (lambda: rows(other), repaired, reopened):
            put(other, files)
            found.append((name, way.__name__, outcome(way, truth)))
            put(mended, {})
    put(other, {})
    return found
