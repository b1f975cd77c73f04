"""Every public name is documented: it has a docstring, and a page of the reference."""

import importlib
import inspect
import json
import sys

import pytest
from pages import ROOT

sys.path.insert(0, str(ROOT / "docs"))
import generate


@pytest.mark.parametrize("name", generate.modules())
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{public}"
            members = vars(value).items() if inspect.isclass(value) else ()
            for member, function in members:
                default = member in getattr(value, "__dataclass_fields__", {})
                if inspect.isfunction(function) and not member.startswith("_") and not default:
                    assert inspect.getdoc(function), f"{name}.{public}.{member}"


def test_every_name_of_the_package_is_on_a_page() -> None:
    assert generate.undocumented(ROOT / "docs") == []


def test_a_new_name_without_a_page_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfo.__all__", ["minimize", "brand_new"])
    assert generate.undocumented(ROOT / "docs") == ["brand_new"]


def test_every_solver_has_a_row(tmp_path) -> None:
    assert "nelder-mead" in generate.solver_table(ROOT / "docs" / "solvers.csv")
    (tmp_path / "solvers.csv").write_text("name,good for,noise,integers,variables\ncma,much,yes,yes,2\n")
    with pytest.raises(SystemExit, match="one row for each"):
        generate.solver_table(tmp_path / "solvers.csv")


def test_tables_of_results_take_what_is_there(tmp_path) -> None:
    assert "No measured results" in generate.benchmark_tables([])
    (tmp_path / "a.json").write_text('{"title": "A", "tables": [{"columns": ["x"], "rows": [[1.23456789]]}]}')
    (tmp_path / "b.json").write_text('[{"method": "cma", "share": 0.5}, {"method": "random"}]')
    (tmp_path / "c.json").write_text('{"evaluations": {"cma": 10}, "versions": {"dfo": "0.1.0"}}')
    row = {"claim": "fast", "measured": 2.0, "holds": True}
    (tmp_path / "d.json").write_text(json.dumps({"name": "overhead", "command": "dfo measure overhead", "rows": [row]}))
    text = generate.benchmark_tables(sorted(tmp_path.glob("*.json")))
    assert "| 1.235 |" in text
    assert "| method | share |" in text
    assert "| cma | 10 |" in text
    assert "versions: dfo 0.1.0" in text
    assert "## overhead" in text
    assert "| fast | 2 | yes |" in text
    assert "- command: `dfo measure overhead`" in text
