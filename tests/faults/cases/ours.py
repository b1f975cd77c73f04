"""What the child processes run of dfo."""

import hashlib
import os
import resource
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from black_box import BlackBox, EveryWorker

DIMENSION = 6


def digest(res):
    """Return the hash of all that a run saw and found."""
    content = hashlib.sha256(np.asarray(res.history.fun).tobytes())
    content.update(np.asarray(res.x).tobytes())
    return content.hexdigest()


def minimize(
    method="cma", budget=48, store=None, workers=None, box=None, dim=DIMENSION, every_worker=False, go=None, limit=None,
    user=None, remove=None, **rest,
):  # fmt: skip
    """Run ``dfo.minimize`` on the black box and return its outcome in words and figures.

    Args:
        method, budget, store, workers, rest: of ``dfo.minimize``; ``"executor"`` is one of two threads.
        box: arguments of the black box.
        dim: number of variables.
        every_worker: whether trouble befalls both workers.
        go: say "ready" and wait for this file.
        limit: most bytes of a file.
        user: become this user first.
        remove: ``[folder, n]``: remove the folder after ``n`` evaluations.
    """
    import dfo
    import dfo.run.minimize
    import dfo.run.store
    import dfo.solvers.cma  # noqa: F401: loaded before files are limited and users changed

    fun = (EveryWorker if every_worker else BlackBox)(**(box or {}))
    fun = fun if remove is None else Removing(fun, *remove)
    given = {"store": store, "workers": workers, **rest}
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if user is not None:
        os.setresuid(user, user, user)
    if go is not None:
        print("ready", flush=True)
        while not os.path.exists(go):
            time.sleep(0.001)
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(2) as threads:
        warnings.simplefilter("always")
        if workers == "executor":
            given["workers"] = threads
        started = time.monotonic()
        try:
            res = dfo.minimize(
                fun, [0.5] * dim, method=method, bounds=[(-2.0, 2.0)] * dim, budget=budget,
                **{name: value for name, value in given.items() if value is not None},
            )  # fmt: skip
        except dfo.errors.RunLocked as error:
            return {"raised": "RunLocked", "text": str(error), "after": time.monotonic() - started}
    return {
        "status": res.status, "nfev": res.nfev, "nfail": res.nfail, "fun": res.fun, "digest": digest(res),
        "history": len(res.history), "seconds": time.monotonic() - started, "ended": time.time(), "pid": os.getpid(),
        "warnings": [[w.category.__name__, str(w.message)] for w in caught],
    }  # fmt: skip


class Removing:
    """An objective during which a folder vanishes."""

    def __init__(self, fun, folder, after):
        self.fun, self.folder, self.left = fun, folder, after

    def __call__(self, x):
        self.left -= 1
        if self.left == 0:
            shutil.rmtree(self.folder)
        return self.fun(x)


def read_along(path, until):
    """Read a store again and again until it holds as many answers; rows once told never change."""
    from dfo.run.store import View

    seen, looks, slowest, changed = {}, 0, 0.0, ""
    while len(seen) < until:
        started = time.monotonic()
        with View.open(path) as view:
            rows = {r.number: (str(r.x), r.value) for r in view.rows() if r.told is not None}
        slowest, looks = max(slowest, time.monotonic() - started), looks + 1
        if gone := [number for number in seen if rows.get(number) != seen[number]]:
            changed = f"row {gone[0]} of {len(seen)} at look {looks}"
        seen = rows
        time.sleep(0.005)
    return {"looks": looks, "slowest": slowest, "changed": changed}


# ---------------------------------------------------------------------- costs


def sphere(x):
    return float(x @ x)


def one_run(budget, batch, store, callback=None):
    import dfo

    clocks = time.perf_counter(), time.process_time()
    dfo.minimize(
        sphere, [0.5] * 10, method="random", bounds=[(-2.0, 2.0)] * 10, budget=budget, batch=batch, store=store,
        callback=callback,
    )  # fmt: skip
    now = time.perf_counter(), time.process_time()
    return [1e6 * (end - begin) / budget for begin, end in zip(clocks, now, strict=True)]


def timed(path, batch, budget, pairs):
    """Return microseconds that a store adds to an evaluation, for each of several pairs of runs."""
    from pathlib import Path

    one_run(batch, batch, None)
    one_run(batch, batch, path)
    found = {"wall": [], "cpu": [], "without": []}
    for pair in range(pairs):
        without = one_run(budget, batch, None)
        kept = one_run(budget, batch, f"{path}.{pair}")
        Path(f"{path}.{pair}").unlink()
        found["wall"].append(kept[0] - without[0])
        found["cpu"].append(kept[1] - without[1])
        found["without"].append(without[0])
    return found | {"without": sorted(found["without"])[pairs // 2]}


def peak(path, budget):
    one_run(budget, 100, path)
    with open("/proc/self/status") as file:  # ru_maxrss would count what the parent had when it started this process
        return {"peak": next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))}


def paced(path, budget):
    """Return how much longer the last tenth of a run took than its first, by the processor's time."""
    marks = []
    wall = one_run(budget, 100, path, lambda progress: marks.append(time.process_time()))[0]
    steps = np.diff(marks)
    tenth = len(steps) // 10
    return {"ratio": float(np.median(steps[-tenth:]) / np.median(steps[:tenth])), "each": wall}
