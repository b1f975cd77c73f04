"""One history whatever the hash seed, the threads of the linear algebra, and the number of workers."""

import itertools
from functools import partial

from cases.harness import Case, Child, Outcome, beside

PROMISE = "one history hash over processes with hash seeds 0, 1, 2, BLAS threads 1, 2 and workers 0, 1, 2, 4"
BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SHORT = ((0, 1, None), (1, 2, 2), (2, 1, 1))
GRID = tuple(itertools.product((0, 1, 2), (1, 2), (None, 1, 2, 4)))


def ours(method, tries, folder):
    settings = GRID if tries >= len(GRID) else SHORT[:tries]

    def once(number):
        seed, threads, workers = settings[number]
        around = {"PYTHONHASHSEED": str(seed)} | dict.fromkeys(BLAS, str(threads))
        child = Child(
            "ours:minimize", folder, around, method=method, workers=workers, dim=60, budget=240, box={"seconds": 0}
        )
        child.end()
        said = child.said() or {}
        return said.get("digest") or f"{said.get('raised')} {said.get('text', '')[:150]}"

    found = beside(once, len(settings))
    first = max(set(found), key=found.count)
    odd = sorted({str(s) for s, one in zip(settings, found, strict=True) if one != first})
    text = (
        f"{len(set(found))} {'history' if len(set(found)) == 1 else 'histories'} in {len(found)} processes"
        + f": (seed, threads, workers) {'; '.join(odd[:3])}" * bool(odd)
    )
    return Outcome(len(found), found.count(first) if len(first) == 64 else 0, text)


CASES = [
    Case("determinism", method, PROMISE, partial(ours, method), 3 if method == "cma" else 0, len(GRID))
    for method in ("cma", "genetic", "zo-sgd", "cbo")
]
