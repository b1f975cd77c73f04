"""Every reader of the project on every file of a folder, each in a forked process with little memory.

``readers.py FOLDER`` reads FOLDER/READER/CASE/... and prints JSON lines: reader, case, how it ended, seconds of
CPU. How it ended is the name of an exception, after a ``!`` if it is none of dfo's own, ``"returned"``, ``"warned"``
or ``"!killed by N"``. Who wants more than 512 MiB gets a MemoryError.
"""

import json
import os
import resource
import signal
import sys
import warnings
from pathlib import Path

from dfo.errors import DfoError, DfoWarning

MEMORY = 512 << 20
SECONDS = 20


def packing(where):
    from dfo.run.packing import load

    load(where / "state.npz")


def bench_config(where):
    from dfo.bench.store import read_config

    read_config(where)


def bench_records(where):
    from dfo.bench.store import read_records

    read_records(where)


def bench_store(where):
    from dfo.bench.plan import Plan
    from dfo.bench.store import Store

    Store(where, Plan.from_json(PLAN)).close()


def suite(where):
    from dfo.bench.suite import load_suite

    load_suite(where / "suite.toml").names()


def log(where):
    from dfo.nn.replay import ReplayLog

    with ReplayLog.open(where / "run.log") as held:
        list(held)


def snapshot(where):
    from dfo.nn.snapshots import Snapshots

    found = Snapshots(where).latest()
    if found is not None:
        found.tensors()


def mapped(where):
    from dfo.nn.mapped import File

    list(File(where / "weights.safetensors").tensors())


def store_view(where):
    from dfo.run.store import View

    view = View.open(where / "run.db")
    try:
        _ = view.config, view.free, view.status, view.best, list(view.rows(0)), view.sessions, view.events, view.summary
    finally:
        view.close()


def store_run(where):
    from dfo.run.store import Run, Store

    run = Run.open(Store(where / "run.db"))
    try:
        if not run.fresh:
            run.begin(run.config or {}, {})
            run.values(10)
            list(run.checkpoints())
    finally:
        run.close()


def store_repair(where):
    from dfo.run.store import repair

    repair(where / "run.db", where / "mended.db")


PLAN = {
    "suite": "quick", "summary": "", "problems": ["sphere-2d"], "methods": ["cma"], "seeds": [0], "budget": "10d",
    "targets": None, "baseline": None,
}  # fmt: skip
FILES = {
    packing: "state.npz", bench_config: "config.json", bench_records: "results.jsonl", bench_store: "results.jsonl",
    suite: "suite.toml", log: "run.log", snapshot: "step-000000000003.safetensors", mapped: "weights.safetensors",
    store_view: "run.db", store_run: "run.db", store_repair: "run.db",
}  # fmt: skip

NEED_TORCH = (log, snapshot, mapped)


def once(reader, where):
    """Run a reader here; return how it ended."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            reader(where)
        except DfoError as error:
            return type(error).__name__
        except BaseException as error:
            return f"!{type(error).__name__}: {error}"
    return "warned" if any(issubclass(warning.category, DfoWarning) for warning in heard) else "returned"


def pages():
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def apart(reader, where):
    """Run a reader in a forked process with a limit on its memory."""
    back, forth = os.pipe()
    child = os.fork()
    if not child:
        os.close(back)
        resource.setrlimit(resource.RLIMIT_AS, (pages() + MEMORY, pages() + MEMORY))
        signal.alarm(SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(forth, once(reader, where).encode()[:4000])
        os._exit(0)
    os.close(forth)
    with os.fdopen(back, "rb") as pipe:
        how = pipe.read().decode()
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        how = f"!killed by {os.WTERMSIG(status)}"
    return how, used.ru_utime + used.ru_stime


def main(folder):
    import dfo.bench.store
    import dfo.bench.suite
    import dfo.run.packing
    import dfo.run.store

    for reader in sorted(FILES, key=lambda reader: reader in NEED_TORCH):  # forks are cheap while torch is not loaded
        if reader in NEED_TORCH:
            import dfo.nn.mapped
            import dfo.nn.replay  # noqa: F401
        for where in sorted((folder / reader.__name__).iterdir()):
            print(json.dumps([reader.__name__, where.name, *apart(reader, where)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
