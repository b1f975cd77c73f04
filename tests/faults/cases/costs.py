"""What a store costs: time for an evaluation beside the same run without one, memory, and whether either grows."""

import statistics
from functools import partial

from cases.harness import Case, Child, Outcome

LIMITS = {1: 300.0, 64: 50.0}  # microseconds for an evaluation
EVALUATIONS = {1: 4000, 64: 12800}


def overhead(batch, tries, folder):
    """Pairs of runs in one process, with and without a store, in turn; the median of the differences."""
    path = folder / "run.db"
    child = Child("ours:timed", folder, path=str(path), batch=batch, budget=EVALUATIONS[batch], pairs=tries)
    child.end(900)
    said = child.said()
    if said is None or "raised" in said:
        return Outcome(tries, 0, str(said or child.complaint()[-300:]))
    wall, cpu = (statistics.median(said[name]) for name in ("wall", "cpu"))
    held = sum(one <= LIMITS[batch] for one in said["wall"])
    text = f"{wall:.0f} us wall, {cpu:.0f} us CPU (medians of {tries} pairs; without a store {said['without']:.0f} us)"
    return Outcome(tries, held if wall > LIMITS[batch] else tries, text)


def memory(tries, folder):
    """Peak memory of a run of 1e5 evaluations less that of 1e4, for an evaluation."""
    peaks = []
    for count in (10_000, tries):
        child = Child("ours:peak", folder, path=str(folder / f"{count}.db"), budget=count)
        child.end(900)
        peaks.append((child.said() or {}).get("peak", 0))
    each = (peaks[1] - peaks[0]) / (tries - 10_000)
    size = (folder / f"{tries}.db").stat().st_size / tries
    return Outcome(1, int(peaks[0] > 0 and each <= 300.0), f"{each:.0f} bytes of memory, {size:.0f} bytes on disk")


def flat(tries, folder):
    child = Child("ours:paced", folder, path=str(folder / "run.db"), budget=tries)
    child.end(900)
    said = child.said()
    if said is None or "raised" in said:
        return Outcome(1, 0, str(said or child.complaint()[-300:]))
    text = f"last tenth / first tenth: {said['ratio']:.2f}; {said['each']:.0f} us for an evaluation, store included"
    return Outcome(1, int(said["ratio"] <= 1.5), text)


CASES = [
    *(
        Case("costs", f"time, batches of {batch}", f"at most {limit:.0f} us for an evaluation in the median pair",
             partial(overhead, batch), 0, 9)
        for batch, limit in LIMITS.items()
    ),
    Case("costs", "memory, 1e5 evaluations", "at most 300 bytes for an evaluation", memory, 0, 100_000),
    Case("costs", "time of 1e5 evaluations", "the last tenth takes at most 1.5 times the first", flat, 0, 100_000),
]  # fmt: skip
