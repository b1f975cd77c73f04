"""What the cases share: outcomes, marked child processes, and tries beside each other."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
JOBS = int(os.environ.get("FAULTS_JOBS", "2"))
ROOM = 0.0
"""Seconds by which a limit of time may be passed: the tests grant some to a machine under load."""
MARK = "DFO_FAULTS_MARK"


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Args:
        tries: how often it was tried.
        held: how often the promise held.
        words: what happened, with figures.
    """

    tries: int
    held: int
    words: str


@dataclass(frozen=True)
class Case:
    """A fault.

    Args:
        group: the table that it belongs to.
        name: which of them.
        promise: what is to hold.
        run: makes the tries: ``run(tries, folder) -> Outcome``.
        short: tries in the tests.
        long: tries in the long form.
        system: whose promise; a peer's rows stand beside.
        needs: a package without which the case is left out.
    """

    group: str
    name: str
    promise: str
    run: Callable[[int, Path], Outcome]
    short: int
    long: int
    system: str = "dfo"
    needs: str = ""

    @property
    def id(self):
        return "/".join((self.group, self.system, self.name))

    @property
    def available(self):
        return not self.needs or find_spec(self.needs) is not None


def beside(function, count, jobs=JOBS):
    """Return ``function(i)`` for ``i < count``, a few at the same time."""
    with ThreadPoolExecutor(max(1, min(jobs, count))) as pool:
        return list(pool.map(function, range(count)))


def tally(faults):
    """Return an outcome from a list with the fault of each try: an empty text where the promise held."""
    bad = [fault for fault in faults if fault]
    return len(faults), len(faults) - len(bad), "; ".join(sorted(set(bad))[:3])


class Child:
    """A process of its own session that calls ``module:function`` with keywords and prints what it returned.

    Its descendants are known by a mark in their environment, whatever becomes of their parents.
    """

    def __init__(self, function, folder, environment=None, /, **config):
        self.mark = secrets.token_hex(8)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = (self.folder / f"{self.mark}.{end}" for end in ("out", "err"))
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        around = {"PYTHONPATH": str(HERE), "PYTHONWARNINGS": "default", "TMPDIR": str(self.folder)}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "program.py"), function, json.dumps(config)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, cwd=self.folder,
                env={**os.environ, **one, **around, MARK: self.mark, **(environment or {})},
            )  # fmt: skip
        self.pid = self.process.pid

    def end(self, limit=60.0):
        """Wait and return the exit code; None if it still runs at the limit, when it is killed with its family."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.sweep()
            return None

    def kill(self):
        """``kill -9`` of this one process; returns false if it had ended before."""
        ended = self.process.poll() is not None
        self.process.kill()
        self.process.wait()
        return not ended and self.process.returncode == -signal.SIGKILL

    def said(self):
        """Return what the function returned (or ``{"raised": ...}``); None if it never did."""
        lines = self.out.read_text(errors="replace").splitlines()
        for line in reversed(lines):
            if line.startswith("{"):
                with contextlib.suppress(json.JSONDecodeError):
                    return json.loads(line)
        return None

    def complaint(self):
        return self.err.read_text(errors="replace")

    def family(self):
        """Return the processes, other than the first, that were started by it or by its descendants."""
        word = f"{MARK}={self.mark}".encode()
        found = []
        for entry in os.scandir("/proc") if Path("/proc").is_dir() else ():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                with contextlib.suppress(OSError):
                    if word in Path(entry.path, "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def orphans(self, patience=5.0):
        """Return how many of the family are left after ``patience`` seconds, and end those."""
        late = time.monotonic() + patience
        while self.family():
            if time.monotonic() > late:
                return self.sweep()
            time.sleep(0.05)
        return 0

    def sweep(self):
        left = self.family()
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return len(left)


def until(condition, limit=30.0, pause=0.0005):
    """Wait for a condition; false if it does not come within the limit."""
    late = time.monotonic() + limit
    while not condition():
        if time.monotonic() > late:
            return False
        time.sleep(pause)
    return True
