"""Every registered solver keeps the laws that apply to it, on every array library at hand."""

import pytest

from dfo.solvers import SOLVERS, solver_class
from dfo.testing import SOLVER_LAWS, check_solver

SECONDS = 4.0
PLACES = [
    pytest.param("numpy", "cpu", id="numpy"),
    pytest.param("torch", "cpu", id="torch"),
    pytest.param("torch", "cuda", id="cuda", marks=pytest.mark.cuda),
]


@pytest.mark.parametrize(("library", "device"), PLACES)
@pytest.mark.parametrize("name", SOLVERS)
def test_laws(name, library, device):
    if library == "torch":
        torch = pytest.importorskip("torch")
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    report = check_solver(name, library=library, device=device, seconds=SECONDS)
    print(report)
    report.raise_if_failed()
    assert {o.law for o in report.outcomes if o.status == "not declared"} <= {
        "translation",
        "rank-invariance",
        "sphere",
    }


@pytest.mark.parametrize("name", SOLVERS)
def test_declared_laws_exist(name):
    assert set(solver_class(name).laws) <= {law for law, entry in SOLVER_LAWS.items() if entry.declared}
