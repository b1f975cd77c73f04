"""Every registered solver keeps the laws that apply to it, on every array library at hand, in every stage."""

import pytest

import dfo
from dfo.solvers import SOLVERS, solver_class
from dfo.testing import SOLVER_LAWS, check_solver

LIMITS = {"seconds": 300.0, "cases": 6}  # few cases and no hurry: the same on a loaded machine
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
    report = check_solver(name, library=library, device=device, **LIMITS)
    print(report)
    report.raise_if_failed()
    assert {o.law for o in report.outcomes if o.status == "not declared"} <= {
        "translation",
        "rank-invariance",
        "sphere",
    }


VARIANTS = {
    "cbo": [
        {"noise": "isotropic", "heaviside": 0.0, "limit": 1.0},
        {"noise": "covariance", "batch": 5, "restarts": "none", "xtol": 0.3},
        {"scheme": "hopping", "kick": 10.0, "alpha": 100.0},
        {"scheme": "exponential", "heaviside": 1e-3, "batch": 4, "update": "full", "jump_rate": 2.0},
        {"memory": 0.4, "inertia": 0.5, "batch": 5, "xtol": 0.5},
        {"kappa": 1.0, "limit": 0.5, "memory": 0.4, "batch": 5},
        {"mirror": "projection", "kick": 10.0, "batch": 5},
    ],
    "cbs": [{"mode": "sampling", "dt": 0.5}, {"alpha": 1.0, "xtol": 0.5}],
    "cem": [
        {"population": 10, "keep": 0.5, "shrink": 1.3, "floor": 0.1, "restarts": "none"},
        {"elite": 0.5, "extra": 1.0, "extra_steps": 3, "smoothing": 0.5, "restarts": "same", "ftol": 0.5},
        {"horizon": 1, "color": 2.0, "iterations": 4, "keep": 1.0},
    ],
    "cma": [{"restarts": "none"}, {"restarts": "ipop", "population": 4}, {"restarts": "same", "ftol": 0.5}],
    "deep-ga": [
        {"population": 12, "reevaluations": 3, "candidates": 4},
        {"population": 8, "reevaluations": 2, "minibatches": 5, "adapt": "samr"},
    ],
    "es-single": [
        {"population": 4, "rule": "sgd", "max_norm": 1.0},
        {"population": 6, "stagger": 3, "filter": "sign", "rule": "momentum"},
    ],
    "full-es": [{"population": 4, "filter": "clip", "limit": 0.5}],
    "gld": [{"variant": "search", "batch": 6}, {"condition": 9.0, "batch": 4}],
    "genetic": [
        {"again": True, "selection": "truncation", "crossover": "uniform", "population": 8},
        {"adapt": "gesmr", "groups": 3, "crossover": "one-point", "elites": 1, "rate": 0.7},
        {"mutation": "gaussian", "adapt": "none", "crossover": "none", "population": 7},
    ],
    "lm-ma-es": [{"memory": 1, "restarts": "ipop", "ftol": 0.5}, {"population": 3, "restarts": "none"}],
    "snes": [
        {"mirrored": True, "population": 6, "restarts": "none"},
        {"lr": 0.5, "lr_sigma": 0.9, "restarts": "same", "ftol": 0.5},
    ],
    "xnes": [{"mirrored": True, "population": 6, "restarts": "ipop", "ftol": 0.5}, {"lr_shape": 0.9, "lr_sigma": 0.9}],
    "nelder-mead": [{"restarts": False}, {"xtol": 0.1, "ftol": 0.5}],
    "nres": [{"population": 4, "every": 2}],
    "pes": [{"population": 4}, {"population": 6, "share": 3, "every": 2}, {"population": 4, "share": 2, "every": None}],
    "novelty": [
        {"variant": "ns", "population": 8},
        {"variant": "nsr", "population": 6, "means": 2},
        {"variant": "nsra", "population": 4, "patience": 2},
    ],
    "ars": [
        {"population": 5, "top": 1, "schedule": "constant"},
        {"directions": "orthogonal", "schedule": "exponential"},
    ],
    "guided-es": [
        {"alpha": 0.0, "subspace": 2, "rule": "clipup"},
        {"shaping": "none", "rule": "sgd", "lr": 0.1, "subspace": 3},
    ],
    "openai-es": [
        {"population": 5, "directions": "rademacher", "rule": "clipup", "l2": 0.1, "average": True},
        {"mirrored": False, "shaping": "standardized", "rule": "sgd", "schedule": "constant"},
        {"directions": "sphere", "rule": "momentum", "shaping": "nes", "anchor": 0.1, "schedule": "exponential"},
    ],
    "pgpe": [
        {"population": 5, "rule": "adam", "schedule": "cosine", "average": True},
        {"shaping": "standardized", "rule": "sgd", "lr_sigma": 3.0, "xtol": 0.1},
    ],
    "random": [{"batch": 3, "decades": 0.5}],
    "sep-cma": [{"restarts": "same", "ftol": 0.5}],
    "truncated-es": [{"population": 4, "filter": "standardized", "rule": "amsgrad"}],
    "zo-rank-sgd": [
        {"search": 0, "lr": 0.1, "decay": 0.5, "radius_decay": 0.5},
        {"population": 6, "top": 2, "lr": 1.0, "radius": 0.1, "search": 3, "accumulate": False},
        {"radius": 0.05, "directions": "orthogonal"},
        {"xtol": 0.1, "restarts": True},
    ],
    "zo-acsa": [{"lipschitz": 4.0, "eps": 0.1, "steps": 6, "samples": 2, "distance": 1.0, "rounds": 2}, {"steps": 20}],
    "zo-mirror": [
        {"average": True, "scheme": "forward", "directions": "gaussian", "minibatches": 3},
        {"lr": 0.01, "decay": 0.5, "scheme": "residual", "filter": "clip"},
        {"scheme": "one-point", "filter": "sign", "directions": "coordinate"},
    ],
    "zo-fw": [
        {"scheme": "kwsa", "difference": "forward"},
        {"scheme": "rdsa", "minibatches": 3, "look": 0},
        {"scheme": "deterministic", "gap_tol": 0.5},
        {"faithful": True, "horizon": 20},
    ],
    "zo-sgd": [
        {"rule": "conservative"},
        {"rule": "svrg", "period": 3, "minibatches": 2},
        {"rule": "momentum", "scheme": "forward", "directions": "gaussian"},
        {"rule": "adam", "scheme": "one-point", "directions": "rademacher"},
        {"rule": "amsgrad", "scheme": "residual", "directions": "orthogonal", "lr": 1e-3},
        {"rule": "sign", "directions": "coordinate", "filter": "clip"},
        {"directions": "sparse", "filter": "standardized", "decay": 0.5},
    ],
}
"""Configurations that take a solver where its defaults do not go: other rules, restarts within a few steps."""

ALWAYS = [name for name, law in SOLVER_LAWS.items() if not law.declared]


def variants():
    for name, several in VARIANTS.items():
        for options in several:
            yield pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values()))}")


@pytest.mark.parametrize(("name", "options"), list(variants()))
def test_laws_of_other_configurations(name, options):
    check_solver(solver_class(name)(**options), seconds=300.0, cases=4, laws=ALWAYS).raise_if_failed()


def test_runs_are_resumed_in_every_stage_of_every_solver():
    for name in SOLVERS:
        cls = solver_class(name)
        reached = set()
        for options in [{}, *VARIANTS.get(name, [])]:
            report = check_solver(cls(**options), seconds=300.0, cases=4, laws=["resume"])
            report.raise_if_failed()
            reached |= set(report["resume"].message.removeprefix("in the stages ").split(", ")) - {""}
        assert reached == set(getattr(cls, "stages", ()))


@pytest.mark.parametrize("name", SOLVERS)
def test_declared_laws_exist(name):
    assert set(solver_class(name).laws) <= {law for law, entry in SOLVER_LAWS.items() if entry.declared}


def test_a_bounded_solver_keeps_the_laws_where_it_may_not_move_freely():
    report = check_solver(dfo.CMA(sigma=1e3), laws=["bounds", "failures", "budget"], **LIMITS)
    report.raise_if_failed()


class OnlyText(dfo.RandomSearch):
    spaces = frozenset({"text"})


def test_a_solver_of_strings_is_tried_on_strings():
    report = check_solver(OnlyText(), **LIMITS)
    report.raise_if_failed()
    assert {"unchanged", "ask-twice", "resume", "state-is-data", "global-rng"} <= set(report.passed)
    assert report["bounds"].status == "skipped"
