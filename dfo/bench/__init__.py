"""Many runs: suites of problems x methods x seeds, and what can be said about them.

Example:
    >>> from dfo.bench import Plan, bench, load_suite
    >>> plan = Plan.of(load_suite("quick").narrowed(dims=[2], functions=["sphere"]), ["random"], budget="10d")
    >>> [record.evaluations for record in bench(plan, workers=0)]
    [20]
"""

from dfo.bench.budget import Budget
from dfo.bench.cells import run_cell, solve
from dfo.bench.methods import Method, check_method, split_methods
from dfo.bench.packs import Pack, make, packs, suite_folders
from dfo.bench.plan import Cell, Label, Plan
from dfo.bench.record import Failure, Record
from dfo.bench.recorder import Recorder
from dfo.bench.run import Watcher, bench, load_records
from dfo.bench.store import Config, Store, read_config, read_records
from dfo.bench.suite import Selection, Suite, load_suite, suite_files
from dfo.bench.targets import TARGETS

__all__ = [
    "TARGETS",
    "Budget",
    "Cell",
    "Config",
    "Failure",
    "Label",
    "Method",
    "Pack",
    "Plan",
    "Record",
    "Recorder",
    "Selection",
    "Store",
    "Suite",
    "Watcher",
    "bench",
    "check_method",
    "load_records",
    "load_suite",
    "make",
    "packs",
    "read_config",
    "read_records",
    "run_cell",
    "solve",
    "split_methods",
    "suite_files",
    "suite_folders",
]
