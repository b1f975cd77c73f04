"""``python tests/faults [GROUP ...]``: the fault suite in its long form; interrupted, it goes on.

The outcome of each case is kept as it ends, below ``--state``; when all cases that were asked for have ended, they are
taken over into ``--out``, where the outcomes of other cases stay as they were.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from cases import registry, report


def main():
    arguments = parsed()
    chosen = registry.chosen(arguments.groups)
    if not chosen:
        sys.exit(f"no such case; groups: {', '.join(registry.GROUPS)}")
    begun, measured, broken = time.monotonic(), 0.0, 0
    for place, case in enumerate(chosen, 1):
        record = report.kept(arguments.state, case, tries(case, arguments))
        if record is None:
            record = measure(case, tries(case, arguments))
            report.keep(arguments.state, case, tries(case, arguments), record)
        measured += record["seconds"]
        broken += case.system == "dfo" and record["held"] < record["tries"]
        print(f"[{place}/{len(chosen)}] {case.id}: {record['held']}/{record['tries']} in {record['seconds']:.0f} s;"
              f" {record['outcome']}", flush=True)  # fmt: skip
    report.write(arguments.out, arguments.state, chosen)
    report.forget(arguments.state, chosen)
    print(f"{len(chosen)} cases, {measured:.0f} s ({time.monotonic() - begun:.0f} s now); {broken} promises broken")
    return 1 if broken else 0


def parsed():
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", help=f"groups, or beginnings of cases: {', '.join(registry.GROUPS)}")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/faults.json"))
    parser.add_argument("--state", type=Path, default=Path("build/faults"))
    parser.add_argument("--tries", type=int, help="tries of each case instead of its own number")
    return parser.parse_args()


def tries(case, arguments):
    return arguments.tries or case.long


def measure(case, count):
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        try:
            outcome = case.run(count, Path(folder))
        except Exception as error:
            outcome = registry.Outcome(count, 0, f"the case itself failed: {type(error).__name__}: {error}"[:300])
    return {"group": case.group, "system": case.system, "case": case.name, "promise": case.promise,
            "tries": outcome.tries, "held": outcome.held, "outcome": outcome.words,
            "seconds": round(time.monotonic() - started, 1)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
