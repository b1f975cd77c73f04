"""Measures in fresh processes: one thread, nothing loaded by what was measured before, a memory peak of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dfo.bench.measures.row import Row

__all__ = ["forget_peak", "fresh", "fresh_rows", "keeping", "peak"]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_KEPT: ContextVar[Path | None] = ContextVar("kept", default=None)


@contextmanager
def keeping(path: Path | None) -> Iterator[None]:
    """Context in which what fresh processes answer is kept in a file, so that an interrupted measure goes on.

    Args:
        path: lines of JSON, removed when the context ends without an exception; None keeps nothing.
    """
    token = _KEPT.set(path)
    try:
        yield
    finally:
        _KEPT.reset(token)
    if path is not None:
        path.unlink(missing_ok=True)


def _answers(path: Path) -> dict[str, Any]:
    """Return what is kept, by call; a line that was cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = {}
    for line in lines:
        try:
            call, answer = json.loads(line)
        except ValueError:
            continue
        kept[call] = answer
    return kept


def fresh(module: str, expression: str, settings: Mapping[str, str] | None = None) -> Any:
    """Return what an expression over a module of measures gives in a fresh process, by way of JSON.

    Args:
        module: its name within :mod:`dfo.bench.measures`; the expression knows it as ``m``.
        expression: of something that JSON can hold.
        settings: of the environment, beside one thread for every library.

    Raises:
        subprocess.CalledProcessError: the process failed; what it said stands on standard error.
    """
    kept, call = _KEPT.get(), f"{module}: {expression} {dict(settings or {})}"
    if kept is not None and call in (before := _answers(kept)):
        return before[call]
    code = (
        "import json; from dataclasses import asdict; from importlib import import_module;"
        f" m = import_module('dfo.bench.measures.{module}'); print(json.dumps({expression}))"
    )
    given = {**os.environ, **dict.fromkeys(THREADS, "1"), **(settings or {})}
    out = subprocess.run([sys.executable, "-c", code], env=given, stdout=subprocess.PIPE, check=True, text=True)
    answer = json.loads(out.stdout.splitlines()[-1])
    if kept is not None:
        with kept.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([call, answer]) + "\n")
    return answer


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
