"""Objectives that live and die in ways of their own; a module, so that workers find them by name."""

import ctypes
import faulthandler
import os
import re
import signal
import subprocess
import sys
import threading
import time


class MyError(Exception):
    """Comes back as itself."""


class Fussy(Exception):
    """Cannot be read back from pickle: it wants two arguments."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def value(x):
    return float(x)


def slow(x):
    time.sleep(x)
    return x


def kill(number):
    faulthandler.disable()  # it reports hundreds of lines
    os.kill(os.getpid(), number)
    time.sleep(60)


def raise_(error):
    raise error


def fault(x):
    faulthandler.disable()
    return ctypes.string_at(0)


def closed(x):
    sys.stdout.close()
    os.close(1)
    return x


def hold_pipe_and_die(x):
    """Leave a copy of the worker, with its pipe, in a session of its own: the pipe does not end with the worker."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(3)
        os._exit(0)
    os._exit(9)


ENDS = {
    "os._exit": (lambda x: os._exit(3), "died", "exit status 3"),
    "SIGKILL": (lambda x: kill(signal.SIGKILL), "died", "killed by SIGKILL"),
    "SIGSEGV": (fault, "died", "killed by SIGSEGV"),
    "SIGTERM": (lambda x: kill(signal.SIGTERM), "died", "killed by SIGTERM"),
    "SIGABRT": (lambda x: kill(signal.SIGABRT), "died", "killed by SIGABRT"),
    "pipe held": (hold_pipe_and_die, "died", "exit status 9"),
    "sys.exit": (lambda x: sys.exit(5), "raised", "SystemExit: 5"),
    "interrupt": (lambda x: raise_(KeyboardInterrupt()), "raised", "KeyboardInterrupt"),
    "memory": (lambda x: bytearray(2**60), "raised", "MemoryError"),
    "exception that does not come back": (lambda x: raise_(Fussy(1, 2)), "raised", "Fussy: 1 and 2"),
    "exception with a lock": (lambda x: raise_(MyError(threading.Lock())), "raised", "MyError: <unlocked"),
    "result that cannot be sent": (lambda x: threading.Lock(), "bad_type", "a lock, which cannot be sent"),
    "result that cannot be read": (lambda x: Unreadable(), "bad_type", "cannot be read here"),
    "stdout closed": (closed, None, None),
}
"""How an evaluation may end: objective, kind of failure, beginning or part of its text."""


def refuse():
    raise ValueError("not here")


class Unreadable:
    """Pickles well, and cannot be loaded."""

    def __reduce__(self):
        return refuse, ()


class Deadly:
    """An objective that kills the process that loads it."""

    def __reduce__(self):
        return os._exit, (7,)

    def __call__(self, x):
        return x


class Alone:
    """An objective that only the first process survives to load."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return first_only, (self.path,)

    def __call__(self, x):
        return x


def first_only(path):
    try:
        open(path, "x").close()
    except FileExistsError:
        os._exit(7)
    return slow


def deaf(x):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def with_child(x):
    child = subprocess.Popen(["sleep", "600"])
    with open(x, "w") as file:
        file.write(str(child.pid))
    child.wait()


HANGS = {
    "sleep": lambda x: time.sleep(600),
    "C code that holds the lock": lambda x: ctypes.PyDLL(None).sleep(600),
    "regular expression": lambda x: re.match("(a*)*b", "a" * 40),
    "SIGTERM ignored": deaf,
}
"""Objectives that do not return."""


class Once:
    """Dies at the first evaluation, and leaves a mark at ``path`` so that the next lives."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, x):
        if x == 1 and not os.path.exists(self.path):
            with open(self.path, "w"):
                os._exit(3)
        return x


class Counted:
    """Counts how often it is made bytes of."""

    sent = 0

    def __getstate__(self):
        Counted.sent += 1
        return {}

    def __setstate__(self, state):
        pass

    def __call__(self, x):
        return os.getpid()
