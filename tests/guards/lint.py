"""What no module of the package may do, found in its syntax tree: code run from data, shells, hidden global state.

Names are followed through imports and their aliases (``import numpy as np``, ``from pickle import loads as read``), and
a reference counts as a use: ``map(eval, lines)`` is found as ``eval(line)`` is.
"""

import ast
from dataclasses import dataclass, field

CODE = {  # modules whose readers run what a file says
    "pickle", "cPickle", "_pickle", "pickletools", "marshal", "shelve", "dill", "joblib", "cloudpickle", "copyreg",
    "jsonpickle", "code", "codeop", "runpy", "imp", "multiprocessing.managers",
}  # fmt: skip
CALLS = {
    "eval": "eval", "exec": "eval", "compile": "eval", "__import__": "eval",
    "builtins.eval": "eval", "builtins.exec": "eval", "builtins.compile": "eval", "builtins.__import__": "eval",
    "yaml.load": "code", "yaml.load_all": "code", "yaml.unsafe_load": "code", "yaml.unsafe_load_all": "code",
    "yaml.full_load": "code", "yaml.full_load_all": "code",
    "pandas.read_pickle": "code", "torch.save": "code", "torch.jit.load": "code", "torch.package": "code",
    "torch.hub.load": "code",
    "multiprocessing.connection.Client": "code", "multiprocessing.connection.Listener": "code",
    "os.system": "shell", "os.popen": "shell", "subprocess.getoutput": "shell", "subprocess.getstatusoutput": "shell",
    "pty.spawn": "shell", "asyncio.create_subprocess_shell": "shell",
    "tempfile.mktemp": "temporary", "os.tempnam": "temporary", "os.tmpnam": "temporary",
    "ssl._create_unverified_context": "tls", "ssl.CERT_NONE": "tls",
    "torch.manual_seed": "random", "torch.seed": "random", "torch.random": "random", "torch.cuda.manual_seed": "random",
    "torch.cuda.manual_seed_all": "random", "torch.default_generator": "random",
}  # fmt: skip
OWN_STREAMS = {  # of numpy.random and random: what makes a generator of one's own
    "numpy.random.Generator", "numpy.random.BitGenerator", "numpy.random.SeedSequence", "numpy.random.Philox",
    "numpy.random.PCG64", "numpy.random.MT19937", "numpy.random.RandomState", "numpy.random.default_rng",
    "random.Random",
}  # fmt: skip
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
RUNNERS = {"run", "call", "check_call", "check_output", "Popen"}
STATEMENTS = {"execute", "executemany", "executescript"}


@dataclass(frozen=True)
class Finding:
    """One place: a line, the rule that it breaks, and what stands there."""

    line: int
    rule: str
    what: str


@dataclass
class _Lint(ast.NodeVisitor):
    found: list[Finding] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # as written here -> in full
    roots: set[str] = field(default_factory=set)  # top-level modules that are imported

    def add(self, node, rule, what):
        self.found.append(Finding(node.lineno, rule, what))

    # ------------------------------------------------------------------ names

    def full(self, node):
        """Return the full name that an expression stands for, or None."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self.full(node.value)
            return None if base is None else f"{base}.{node.attr}"
        return None

    def visit_Import(self, node):
        for alias in node.names:
            self.module(node, alias.name)
            top = alias.name.partition(".")[0]
            self.roots.add(top)
            self.names[alias.asname or top] = alias.name if alias.asname else top

    def visit_ImportFrom(self, node):
        module = node.module or ""
        if not node.level:
            self.roots.add(module.partition(".")[0])
            self.module(node, module)
        for alias in node.names:
            name = f"{'.' * node.level}{module}.{alias.name}"
            self.names[alias.asname or alias.name] = name
            self.module(node, name)
            self.use(node, name)

    def module(self, node, name):
        if _under(name, CODE):
            self.add(node, "code", f"import {name}")

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.use(node, self.full(node))

    def visit_Attribute(self, node):
        name = self.full(node)
        if name is None:
            self.visit(node.value)
        else:
            self.use(node, name)
        if node.attr in ("enable_load_extension", "load_extension"):
            self.add(node, "code", node.attr)

    def use(self, node, name):
        for bad, rule in CALLS.items():
            if _under(name, {bad}) and name != "torch.random.fork_rng":  # which puts the state back
                self.add(node, rule, name)
        stdlib = "random" in self.roots and name.startswith("random.")
        if (stdlib or _under(name, {"numpy.random"})) and not _under(name, OWN_STREAMS):
            self.add(node, "random", name)

    # ------------------------------------------------------------------ calls

    def visit_Call(self, node):
        name = self.full(node.func) or ""
        words = {word.arg: word.value for word in node.keywords}
        self.loads(node, name, words)
        if "shell" in words and not _is(words["shell"], False):
            self.add(node, "shell", f"{name}(shell=...)")
        if name.startswith("subprocess.") and name.rpartition(".")[2] in RUNNERS and None in words:
            self.add(node, "shell", f"{name}(**...)")
        if "allow_pickle" in words and not _is(words["allow_pickle"], False):
            self.add(node, "code", f"{name}(allow_pickle=...)")
        if name in ("importlib.import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self.module(node, str(node.args[0].value))
        if name.startswith("torch.") and name[6:] in DRAWS and "generator" not in words:
            self.add(node, "random", f"{name} without generator=")
        if name in OWN_STREAMS and not (node.args or node.keywords):
            self.add(node, "random", f"{name}() without a seed")
        if "verify" in words and _is(words["verify"], False):
            self.add(node, "tls", f"{name}(verify=False)")
        self.statement(node)
        self.generic_visit(node)

    def loads(self, node, name, words):
        if name in ("numpy.load", "numpy.lib.format.read_array", "numpy.lib.npyio.NpzFile"):
            if "allow_pickle" not in words:
                self.add(node, "code", f"{name} without allow_pickle=False")
        elif name == "torch.load" and not _is(words.get("weights_only"), True):
            self.add(node, "code", "torch.load without weights_only=True")

    def statement(self, node):
        """SQL that is put together from parts: values go through parameters."""
        if isinstance(node.func, ast.Attribute) and node.func.attr in STATEMENTS and node.args:
            text = node.args[0]
            formatted = (
                isinstance(text, ast.Call) and isinstance(text.func, ast.Attribute) and text.func.attr == "format"
            )
            if formatted or isinstance(text, (ast.JoinedStr, ast.BinOp)):
                self.add(node, "sql", ast.unparse(text)[:60])

    def visit_Assert(self, node):
        """An assertion tells a type checker what is known; what a user may get wrong raises, also under -O."""
        test = node.test
        narrowing = (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.IsNot)) or (
            isinstance(test, ast.Call) and self.full(test.func) == "isinstance"
        )
        if not narrowing:
            self.add(node, "assert", ast.unparse(test)[:60])
        self.generic_visit(node)


def _under(name, roots):
    return any(name == root or name.startswith(root + ".") for root in roots)


def _is(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def findings(source):
    """Return what a module does that it may not, in the order of its lines."""
    tree, lint = ast.parse(source), _Lint()
    for node in ast.walk(tree):  # names first: a function may stand above the import that it uses
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            lint.visit(node)
    imports, lint.found = lint.found, []
    for node in ast.iter_child_nodes(tree):
        lint.visit(node)
    return sorted({*imports, *lint.found}, key=lambda finding: (finding.line, finding.rule))
