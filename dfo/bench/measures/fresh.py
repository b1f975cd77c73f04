"""Measures in fresh processes: one thread, nothing loaded by what was measured before, a memory peak of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from dfo.bench.measures.row import Row

__all__ = ["forget_peak", "fresh", "fresh_rows", "peak"]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def fresh(module: str, expression: str, settings: Mapping[str, str] | None = None) -> Any:
    """Return what an expression over a module of measures gives in a fresh process, by way of JSON.

    Args:
        module: its name within :mod:`dfo.bench.measures`; the expression knows it as ``m``.
        expression: of something that JSON can hold.
        settings: of the environment, beside one thread for every library.

    Raises:
        subprocess.CalledProcessError: the process failed; what it said stands on standard error.
    """
    code = (
        "import json; from dataclasses import asdict; from importlib import import_module;"
        f" m = import_module('dfo.bench.measures.{module}'); print(json.dumps({expression}))"
    )
    given = {**os.environ, **dict.fromkeys(THREADS, "1"), **(settings or {})}
    out = subprocess.run([sys.executable, "-c", code], env=given, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def fresh_rows(module: str, call: str, settings: Mapping[str, str] | None = None) -> list[Row]:
    """Return the rows of a call of a function of the module in a fresh process; arguments as in :func:`fresh`."""
    return [Row(**row) for row in fresh(module, f"[asdict(row) for row in m.{call}]", settings)]


def peak() -> float:
    """Return the largest resident memory of this process since :func:`forget_peak`, in MiB."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Give back what is free, and let the peak begin anew where the system can; else it is that of the process."""
    import ctypes
    import gc
    from contextlib import suppress

    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
