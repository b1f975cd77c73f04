"""The objective of the fault suite: an account of its evaluations that outlives every process, and trouble on order.

The account is a file of lines, each written by one ``write`` in append mode: ``b`` before an evaluation and ``e``
after it, with the process, a hash of the point, and the value. Nothing here imports dfo.
"""

import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def key(x):
    """Return the hash by which the account knows a point."""
    return hashlib.blake2b(np.asarray(x, dtype=float).tobytes(), digest_size=8).hexdigest()


def note(path, *words):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


@dataclass(frozen=True)
class Account:
    """What a ledger file says: hashes of points, as often as each was begun and ended."""

    begun: Counter
    ended: Counter
    order: list

    @classmethod
    def read(cls, path):
        path = Path(path)
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        order = [line[2] for line in lines if line[0] == "e"]
        return cls(Counter(line[2] for line in lines if line[0] == "b"), Counter(order), order)


def count_begun(path):
    """Return how many evaluations have begun; cheap enough to be asked every millisecond."""
    try:
        return Path(path).read_bytes().count(b"b ")
    except FileNotFoundError:
        return 0


class BlackBox:
    """A sphere around 0.3, 0.3, ... that notes each evaluation in a file.

    Args:
        ledger: the file; None notes nothing.
        seconds: what an evaluation takes.
        trouble: a name of :data:`TROUBLE`, befalling one evaluation.
        at: the evaluation that it befalls, counted from 1 over all processes.
        sticky: the point brings its trouble again when it is evaluated again.
    """

    def __init__(self, ledger=None, seconds=0.0025, trouble=None, at=1, sticky=False):
        self.ledger, self.seconds, self.trouble, self.at, self.sticky = ledger, seconds, trouble, at, sticky

    def __call__(self, x):
        x = np.asarray(x, dtype=float)
        name = key(x)
        if self.ledger is not None:
            note(self.ledger, "b", os.getpid(), name)
        if self.trouble is not None and self.strikes(name):
            answer = TROUBLE[self.trouble]()
            if answer is not None:
                return answer
        time.sleep(self.seconds)
        value = float(((x - 0.3) ** 2).sum())
        if self.ledger is not None:
            note(self.ledger, "e", os.getpid(), name, value.hex())
        return value

    def strikes(self, name):
        """Tell whether this evaluation is the one; the first to come after ``at`` others were begun takes it."""
        marked = Path(f"{self.ledger}.struck")
        if not marked.exists():
            if count_begun(self.ledger) < self.at:
                return False
            try:
                with open(marked, "x") as file:
                    file.write(name)
            except FileExistsError:
                return False
            return True
        return self.sticky and marked.read_text() == name


class EveryWorker(BlackBox):
    """Its trouble befalls two evaluations that follow each other: both workers at the same time."""

    def strikes(self, name):
        if count_begun(self.ledger) < self.at:
            return False
        for one in "12":
            with contextlib.suppress(FileExistsError):
                open(f"{self.ledger}.struck.{one}", "x").close()
                return True
        return False


# ---------------------------------------------------------------------- trouble


class Unsendable(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def raise_unsendable():
    raise Unsendable("the mesh has no cells")


class UnsendableNumber(float):
    """A result that cannot be pickled."""

    def __reduce_ex__(self, protocol):
        raise TypeError("this number stays here")


def without_memory():
    """Take memory up to a limit of this process, and then end as the kernel's killer would: at once."""
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    try:
        kept = [bytearray(2**24) for _ in range(200)]
        del kept
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


def close_stdout():
    os.close(1)
    os.close(2)
    sys.stdout = sys.stderr = None


def too_deep(level=0):
    """Recur with a frame of C at each level until the stack is used up."""
    sys.setrecursionlimit(10**9)
    return next(map(too_deep, [level + 1]))


def hang():
    time.sleep(600)


def hang_in_c():
    """Sleep in C and hold the interpreter's lock."""
    ctypes.PyDLL(None).sleep(600)


def hang_deaf():
    """Hang with SIGTERM and SIGINT ignored."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        time.sleep(1)


TROUBLE = {
    "os._exit": lambda: os._exit(3),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5),
    "out of memory": without_memory,
    "sys.exit": lambda: sys.exit(5),
    "exception that cannot be pickled": raise_unsendable,
    "result that cannot be pickled": lambda: UnsendableNumber(0.1),
    "stdout closed": close_stdout,
    "stack overflow": too_deep,
    "hang": hang,
    "hang in C": hang_in_c,
    "hang, deaf to signals": hang_deaf,
}
