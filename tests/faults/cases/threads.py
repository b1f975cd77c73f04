"""Eight threads that ask and tell one object at the same time."""

import sys
import threading
import warnings
from collections import Counter
from functools import partial

import numpy as np

from cases.harness import Case, Outcome

THREADS, ROUNDS = 8, 1000
PROMISE = "no exception, no candidate twice, as many asked and told as the rounds of all threads"
BOUNDS = [(-2.0, 2.0)] * 4


def solvers():
    """Return the solvers that can be asked for points between bounds."""
    import dfo
    from dfo.solvers import SOLVERS

    found = []
    for name in SOLVERS:
        try:
            dfo.AskTell(name, [0.5] * 4, bounds=BOUNDS)
        except (dfo.errors.DfoError, TypeError):
            continue
        found.append(name)
    return found


def ours(method, tries, folder):
    """``tries`` is the number of rounds of each thread."""
    import dfo

    shared = dfo.AskTell(method, [0.5] * 4, bounds=BOUNDS, seed=1)
    errors, told, numbers = [], [0] * THREADS, [[] for _ in range(THREADS)]

    def rounds(thread):
        for _ in range(tries):
            try:
                x = shared.ask()
                numbers[thread].append(np.asarray(x).tobytes())
                shared.tell(x, float(((x - 0.3) ** 2).sum()))
                told[thread] += 1
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}"[:120])

    together(rounds)
    asked = sum(map(len, numbers))
    total = THREADS * tries
    exact = asked == sum(told) == shared.nfev == total
    words = f"asked {asked:,}, told {sum(told):,}, counted {shared.nfev:,} of {total:,}; {len(errors)} exceptions"
    if errors:
        words += f": {Counter(errors).most_common(1)[0][0]}"
    return Outcome(total, total if exact and not errors else min(sum(told), total - 1), words)


def together(function):
    """Run ``function(i)`` in eight threads that are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=function, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def peers(system, tries, folder):
    from cases import asked_peers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask, tell, counted = asked_peers.MADE[system](THREADS * tries)
        errors, asked, told = [], [0] * THREADS, [0] * THREADS

        def rounds(thread):
            for _ in range(tries):
                try:
                    one = ask()
                    asked[thread] += 1
                    tell(one)
                    told[thread] += 1
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}"[:120])

        together(rounds)
        total, count = THREADS * tries, counted()
    words = f"asked {sum(asked):,}, told {sum(told):,}, counted {count:,} of {total:,}; {len(errors)} exceptions"
    if errors:
        words += f": {Counter(errors).most_common(1)[0][0]}"
    return Outcome(total, total if sum(told) == count == total else min(sum(told), count, total - 1), words)


CASES = [
    *(Case("threads", name, PROMISE, partial(ours, name), 100 if name == "cma" else 0, ROUNDS) for name in solvers()),
    Case("threads", "CMA", PROMISE, partial(peers, "nevergrad"), 0, 100, "nevergrad", "nevergrad"),
    Case("threads", "CMAEvolutionStrategy", PROMISE, partial(peers, "pycma"), 0, 100, "pycma", "cma"),
    Case("threads", "TPE in memory", PROMISE, partial(peers, "optuna"), 0, 20, "optuna", "optuna"),
]
