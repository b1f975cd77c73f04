"""The package runs no code from data, starts no shell, touches no global random state; the lint finds what does."""

from pathlib import Path

import pytest
from lint import findings

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for room in ("dfo", "problems", "examples") for path in (ROOT / room).rglob("*.py"))

ALLOWED = {
    ("dfo/run/crew/wire.py", "code"): "the pipe between a parent and the workers it started is the one place of pickle",
    ("dfo/run/store/", "sql"): "names of the project's own tables and columns; values go in as parameters",
    ("dfo/run/manners.py", "random"): "lends the global generators to peers that draw from them, and puts them back",
    ("dfo/testing/solver_state.py", "random"): "seeds the global generators to prove that solvers do not look at them",
    ("dfo/nn/common.py", "random"): "reads torch's generator to tell whether a model drew from it, and puts it back",
    ("dfo/bench/measures/", "random"): "networks are built and fed in processes that do nothing but measure",
    ("examples/13_network_forward_only.py", "random"): "a script of the user's, who may seed what is the user's",
    ("dfo/bench/measures/genetic.py", "assert"): "a measurement that checks its own formula before it is stored",
}
"""What breaks a rule and may, with the reason; a folder stands for all in it."""


def allowed(name, rule):
    return any(rule == which and name.startswith(where) for where, which in ALLOWED)


def broken(path):
    name = path.relative_to(ROOT).as_posix()
    return name, findings(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_breaks_a_rule(path):
    name, found = broken(path)
    found = [f"{name}:{f.line}: {f.rule}: {f.what}" for f in found if not allowed(name, f.rule)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "rule"), ALLOWED, ids=[f"{name}-{rule}" for name, rule in ALLOWED])
def test_what_is_allowed_is_needed(name, rule):
    paths = [path for path in MODULES if path.relative_to(ROOT).as_posix().startswith(name)]
    assert any(f.rule == rule for path in paths for f in broken(path)[1])


BAD = {
    "import pickle": "code",
    "import cloudpickle as c": "code",
    "from pickle import loads as read": "code",
    "import joblib.numpy_pickle": "code",
    "from multiprocessing import managers": "code",
    "def f():\n    import marshal": "code",
    "import importlib\nimportlib.import_module('dill')": "code",
    "from importlib import import_module as get\nget('shelve')": "code",
    "__import__('pickle')": "eval",
    "eval('1')": "eval",
    "list(map(eval, lines))": "eval",
    "run = exec": "eval",
    "import builtins\nbuiltins.exec('x')": "eval",
    "compile('x', 'x', 'exec')": "eval",
    "import yaml\nyaml.load(text)": "code",
    "from yaml import unsafe_load\nunsafe_load(text)": "code",
    "import numpy as np\nnp.load(p)": "code",
    "import numpy\nnumpy.load(p, allow_pickle=True)": "code",
    "from numpy import load\nload(p, allow_pickle=flag)": "code",
    "import torch\ntorch.load(p)": "code",
    "import torch as t\nt.load(p, weights_only=False)": "code",
    "import torch\ntorch.save(x, p)": "code",
    "import pandas as pd\npd.read_pickle(p)": "code",
    "from multiprocessing.connection import Client": "code",
    "db.enable_load_extension(True)": "code",
    "import subprocess\nsubprocess.run(c, shell=True)": "shell",
    "from subprocess import Popen\nPopen(c, shell=flag)": "shell",
    "import subprocess as s\ns.check_output(c, **options)": "shell",
    "import os\nos.system(c)": "shell",
    "from os import popen": "shell",
    "import tempfile\ntempfile.mktemp()": "temporary",
    "import ssl\nssl._create_unverified_context()": "tls",
    "get(url, verify=False)": "tls",
    "import numpy as np\nnp.random.rand(3)": "random",
    "import numpy as np\nr = np.random\n": "random",
    "from numpy import random\nrandom.seed(1)": "random",
    "from numpy.random import normal": "random",
    "import numpy as np\nnp.random.default_rng()": "random",
    "import random\nrandom.random()": "random",
    "from random import shuffle\nshuffle(x)": "random",
    "import torch\ntorch.randn(3)": "random",
    "import torch\ntorch.manual_seed(0)": "random",
    "db.execute(f'select {x}')": "sql",
    "db.executemany('select %s' % x, rows)": "sql",
    "db.execute('select {}'.format(x))": "sql",
    "assert x > 0": "assert",
    "def f(x):\n    assert x, 'give x'": "assert",
}
GOOD = (
    "import re\nre.compile('x')",
    "from re import compile as regex\nregex('x')",
    "model.eval()\nmodel.compile()",
    "import json\njson.loads(text)\njson.load(file)",
    "import numpy as np\nnp.load(p, allow_pickle=False)",
    "import torch\ntorch.load(p, weights_only=True)",
    "import torch\ntorch.randn(3, generator=g)",
    "import subprocess\nsubprocess.run(['ls'], check=True)",
    "import numpy as np\nnp.random.Generator(np.random.Philox(key=3))",
    "import numpy as np\nnp.random.default_rng(3)",
    "from dfo import random\nrandom.normal(key, (3,))",
    "from dfo.random import normal\nnormal(key, (3,))",
    "import tempfile\ntempfile.mkstemp()",
    "import torch\nwith torch.random.fork_rng():\n    pass",
    "import yaml\nyaml.safe_load(text)",
    "db.execute('select ?', (x,))",
    "db.execute(STATEMENT, (x,))",
    "import ast\nast.literal_eval(text)",
    "assert isinstance(x, int)\nassert x is not None",
)


@pytest.mark.parametrize(("snippet", "rule"), BAD.items(), ids=[text.replace("\n", "; ") for text in BAD])
def test_the_lint_catches(snippet, rule):
    assert rule in {found.rule for found in findings(snippet)}


@pytest.mark.parametrize("snippet", GOOD, ids=[text.replace("\n", "; ") for text in GOOD])
def test_the_lint_lets_pass(snippet):
    assert findings(snippet) == []
