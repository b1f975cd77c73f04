"""``import dfo`` loads numpy and nothing else; what is public is what ``__all__`` says."""

import importlib
import json
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import dfo

HEAVY = ("scipy", "torch", "matplotlib", "typer", "rich", "cma", "nevergrad", "cocoex", "pandas", "sklearn", "jinja2")


def loaded(code):
    """The top-level modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_numpy_alone():
    """What ``import dfo`` adds to ``import numpy`` is dfo itself and modules of the standard library."""
    extra = loaded("import numpy, dfo") - loaded("import numpy")
    assert not extra & set(HEAVY)
    assert extra - set(sys.stdlib_module_names) == {"dfo"}


def test_import_time_is_numpy_s():
    """Printed for the curious, not asserted: machines differ."""
    command = [sys.executable, "-X", "importtime", "-c", "import numpy, dfo"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    cost = {}
    for line in report.splitlines()[1:]:
        _, total, name = line.split("|")
        cost[name.strip()] = int(total)
    print(
        f"import dfo costs {cost['dfo'] / cost['numpy']:.1%} of import numpy ({cost['dfo']} us of {cost['numpy']} us)"
    )
    assert "dfo.run" not in cost  # the front door itself opens on use


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import dfo\ndfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method='cma', budget=50)", HEAVY),
        ("import dfo\nopt = dfo.AskTell('nelder-mead', [1.0, 2.0])\nopt.tell(opt.ask(), 1.0)", HEAVY),
        ("import dfo\nrepr(dfo.Named({'a': dfo.Float(0, 1)}))\ndfo.errors\ndfo.Target(1) | dfo.Stalled(3)", HEAVY),
        ("import dfo\ndfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method='scipy:Powell', budget=50)", HEAVY[1:]),
        ("import dfo\ntry: dfo.minimize(len, [1.0], method='cmaa')\nexcept dfo.errors.UnknownName: pass", HEAVY),
    ],
    ids=["minimize", "asktell", "parts", "peer", "error"],
)
def test_heavy_packages_are_loaded_on_use(code, absent):
    assert not loaded(code) & set(absent)


def test_public_names_are_what_all_says():
    assert sorted(dfo.__all__) == sorted(set(dfo.__all__))
    for name in dfo.__all__:
        value = getattr(dfo, name)
        assert name == "__version__" or value.__doc__, name
    assert set(dfo.__all__) <= set(dir(dfo))
    star = {}
    exec("from dfo import *", star)
    assert set(dfo.__all__) <= set(star)


def test_the_stub_for_type_checkers_names_the_same():
    """The imports under ``TYPE_CHECKING`` are what the names resolve to."""
    source = Path(dfo.__file__).read_text(encoding="utf-8")
    for name, module in dfo._NAMES.items():
        assert f"from {module} import {name} as {name}\n" in source
    assert source.count(" as ") == len(dfo._NAMES)


def test_unknown_names_and_rooms():
    with pytest.raises(AttributeError, match="has no attribute 'minimise'"):
        _ = dfo.minimise
    with pytest.raises(ImportError):
        exec("from dfo import minimise")
    assert issubclass(dfo.errors.InvalidArgument, ValueError)
    for room in dfo._ROOMS:
        assert isinstance(getattr(dfo, room), types.ModuleType)


def modules():
    for found in pkgutil.walk_packages(dfo.__path__, "dfo."):
        if not found.name.endswith("__main__"):
            yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_every_module_says_what_is_public(name):
    """A docstring, and an ``__all__`` of names that exist and have docstrings of their own."""
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if isinstance(value, (type, types.FunctionType)):
            assert value.__doc__, public


def test_version():
    from importlib.metadata import version

    assert dfo.__version__ == version("dfo-optim")
