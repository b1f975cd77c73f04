"""One of three Ray nodes is killed while evaluations are under way on it; ``test_ray.py`` has the short form."""

import sys
from pathlib import Path

from cases.harness import Case, Outcome

PROMISE = "500 evaluations end with an exact budget and the history of a serial run; what was lost is made again"


def killed(timeout, tries, folder):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ray_cases import run_node_loss

    records = [run_node_loss(eval_timeout=timeout) for _ in range(tries)]
    held = sum(record["kept"] and record["lost"] > 0 for record in records)
    return Outcome(tries, held, "; ".join(record["outcome"] for record in records))


CASES = [
    Case("nodes", name, PROMISE, lambda tries, folder, timeout=timeout: killed(timeout, tries, folder), 1, long,
         needs="ray")
    for name, timeout, long in (("one of three killed", None, 3), ("one of three killed, with a time limit", 60.0, 2))
]  # fmt: skip
