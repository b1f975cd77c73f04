"""Budgets, methods, labels and suites as they are written."""

import pytest

from dfo.bench import Budget, Label, Method, Plan, check_method, load_suite, make, packs, split_methods, suite_files
from dfo.errors import DfoWarning, InvalidArgument, InvalidType, UnknownName

SUITE = """
name = "two"
summary = "two problems"
budget = "30d"
targets = "coco"
[[problems]]
pack = "classic"
functions = ["sphere", "levy"]
dims = [2]
"""


@pytest.mark.parametrize(
    ("text", "evaluations", "prefixes"),
    [
        ("100d", 500, "10d 50d 100d"),
        ("200d", 1000, "10d 50d 100d 200d"),
        ("12d", 60, "12d"),
        (2000, 2000, "50 100 300 1000 2000"),
        ("1000000", 1_000_000, "10000 30000 100000 300000 1000000"),
    ],
)
def test_budgets(text, evaluations, prefixes):
    budget = Budget.of(text)
    assert budget.evaluations(5) == evaluations
    assert " ".join(map(str, budget.prefixes())) == prefixes
    assert Budget.of(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "d", "0", "-5", "1.5d", "10D", "1e3", True, None, "9" * 30])
def test_bad_budgets(text):
    with pytest.raises(InvalidArgument, match="budget: expected"):
        Budget.of(text)


def test_methods_with_options():
    assert Method.of("cma") == Method("cma", {})
    assert Method.of("cma[population=20, restarts=ipop,sigma=0.3]").options == {
        "population": 20, "restarts": "ipop", "sigma": 0.3
    }  # fmt: skip
    assert split_methods(" a, b[c=1,d=2] ,,e") == ["a", "b[c=1,d=2]", "e"]


@pytest.mark.parametrize("text", ["", "cma[", "cma[x]", "cma[=3]", "cma]x[", "a b"])
def test_bad_methods(text):
    with pytest.raises(InvalidArgument):
        check_method(text)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("randon", "random"), ("scipy:slsq", "SLSQP"), ("cma[populatio=9]", "population"), ("nevergrad:NGOp", "NGOpt")],
)
def test_unknown_methods_and_options_name_the_nearest(text, nearest):
    if text.startswith("nevergrad"):
        pytest.importorskip("nevergrad")
    with pytest.raises(UnknownName, match=nearest):
        check_method(text)


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidType, match=r"pip install 'dfo-optim\[peers\]'"):
        check_method("pycma")


def test_labels():
    assert Label.of("bbob-f008-i01-d10") == Label("bbob-f008", 1, 10)
    assert Label.of("classic-rotated-ellipsoid-d05") == Label("classic-rotated-ellipsoid", 0, 5)
    assert Label.of("tuning-svc-digits") == Label("tuning-svc-digits")


def test_a_suite_is_read_from_a_file(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(SUITE)
    suite = load_suite(path)
    assert (suite.name, str(suite.budget), suite.targets) == ("two", "30d", "coco")
    assert suite.names() == ["classic-sphere-d02", "classic-levy-d02"]
    assert suite.narrowed(dims=[5], functions=["levy"]).names() == ["classic-levy-d05"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('budget = "30d"', 'budget = "30x"', "budget: expected"),
        ('targets = "coco"', 'targets = "cocoa"', "Did you mean 'coco'"),
        ('targets = "coco"', "targets = 3", "targets: expected a name"),
        ("dims = [2]", "dims = [2.5]", r"problems\[0\].dims: expected a list of integers >= 1, got \[2.5\]"),
        ("dims = [2]", "dims = []", r"problems\[0\].dims"),
        ("dims = [2]", "dimms = [2]", "Did you mean 'dims'"),
        ('pack = "classic"', "", r"problems\[0\].pack: expected the name of a pack"),
        ('summary = "two problems"', "sumary = 1", "Did you mean 'summary'"),
        ("[[problems]]", "[problems]", r"expected at least one \[\[problems\]\]"),
        ('name = "two"', "name = ", "not a TOML file"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, old, new, message):
    path = tmp_path / "two.toml"
    path.write_text(SUITE.replace(old, new))
    with pytest.raises(InvalidArgument, match=message) as caught:
        load_suite(path)
    assert str(path) in str(caught.value)


def test_unknown_words_in_suites_name_the_nearest(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(SUITE.replace('"classic"', '"clasic"'))
    with pytest.raises(UnknownName, match="'classic'"):
        load_suite(path).names()
    with pytest.raises(UnknownName, match="'quick'"):
        load_suite("quik")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_suite(tmp_path / "none.toml")


def test_every_installed_suite_can_be_planned():
    assert suite_files()
    for name in suite_files():
        assert Plan.of(load_suite(name), ["random"]).problems


def test_problems_are_found_by_the_longest_pack_name():
    assert make("classic-sphere-d02").f_opt == 0.0
    assert make("bbob-noisy-f101-i01-d02").noisy
    with pytest.raises(UnknownName, match="Unknown problem"):
        make("nothing-at-all")


def test_a_plan_refuses_what_it_cannot_run():
    suite = load_suite("quick")
    with pytest.raises(UnknownName, match="'cma'"):
        Plan.of(suite, ["cmma"])
    with pytest.raises(InvalidArgument, match="methods: expected at least one"):
        Plan.of(suite, [])
    with pytest.raises(InvalidArgument, match="methods: expected each once"):
        Plan.of(suite, ["random", "random"])
    with pytest.raises(UnknownName, match="baseline"):
        Plan.of(suite, ["random"], baseline="cma")
    with pytest.raises(InvalidArgument, match="seed"):
        Plan.of(suite, ["random"], seeds=[-1])


def test_packs_come_through_entry_points(odd):
    assert odd.select() == ["odd-bowl-i01-d02"]
    assert make("odd-bowl-i01-d02").fun is not None


def test_a_broken_source_of_problems_is_warned_of(monkeypatch, tmp_path):
    from dfo.bench.packs import _sources

    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dfo.problems]\nbroken = no_such_module_at_all:PROBLEMS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _sources.cache_clear()
    try:
        with pytest.warns(DfoWarning, match="no_such_module_at_all"):
            packs()
    finally:
        _sources.cache_clear()
