from pathlib import Path

import pytest

from dfo.bench import Plan, Suite, packs
from dfo.bench.budget import Budget
from dfo.bench.packs import _sources
from dfo.bench.suite import Selection

SUPPORT = Path(__file__).parent / "support"


@pytest.fixture
def odd(monkeypatch):
    """Make the pack of misbehaving problems known, in this process and in those that it starts."""
    monkeypatch.syspath_prepend(str(SUPPORT))
    _sources.cache_clear()
    assert "odd" in packs()
    yield packs()["odd"]
    _sources.cache_clear()


@pytest.fixture
def plan(odd):
    """Return a function that plans a bench over functions of the pack."""

    def plan_of(functions, methods=("random",), *, dims=(2,), seeds=(0,), budget="20d", targets="coco", instances=(1,)):
        suite = Suite(
            "odd", "", (Selection("odd", tuple(functions), tuple(dims), tuple(instances)),), Budget.of(budget), targets
        )
        return Plan.of(suite, methods, seeds)

    return plan_of
