"""What the child processes run of dfo."""

import hashlib
import os
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


def minimize(method="cma", budget=48, store=None, workers=None, box=None, dim=DIMENSION, every_worker=False, **rest):
    """Run ``dfo.minimize`` on the black box and return its outcome in words and figures."""
    import dfo

    fun = (EveryWorker if every_worker else BlackBox)(**(box or {}))
    given = {"store": store, "workers": workers, **rest}
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(2) as threads:
        warnings.simplefilter("always")
        if workers == "executor":
            given["workers"] = threads
        started = time.monotonic()
        res = dfo.minimize(
            fun, [0.5] * dim, method=method, bounds=[(-2.0, 2.0)] * dim, budget=budget,
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        seconds = time.monotonic() - started
    return {
        "status": res.status, "nfev": res.nfev, "nfail": res.nfail, "fun": res.fun, "digest": digest(res),
        "history": len(res.history), "seconds": seconds, "ended": time.time(), "pid": os.getpid(),
        "warnings": [[w.category.__name__, str(w.message)] for w in caught],
    }  # fmt: skip
