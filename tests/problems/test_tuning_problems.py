"""Tuning tasks: errors of real models, equal for equal settings."""

import numpy as np
import pytest

from dfo.random import Key
from dfo.spaces import Choice
from dfo_problems import make
from dfo_problems.tuning import TASKS, TUNING, _folds

NAMES = TUNING.names()
GOOD = {
    "tuning-svc-digits": {"C": 30.0, "gamma": 0.003, "kernel": "rbf"},
    "tuning-boosting-cancer": {"learning_rate": 0.3, "n_estimators": 40, "max_depth": 3, "subsample": 0.7},
    "tuning-trees-diabetes": {"n_estimators": 100, "max_depth": 8, "min_samples_leaf": 6},
}


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_shares_and_repeat_exactly(name):
    problem = make(name)
    assert problem.f_opt is None
    assert not problem.noisy
    points = problem.space.sample(Key(7), 3)
    errors = [problem.fun(x) for x in points]
    assert all(0.0 < error < 1.0 for error in errors)
    assert len(set(errors)) == 3
    _folds.cache_clear()  # as in another process
    assert make(name).fun(points[0]) == errors[0]


@pytest.mark.parametrize("name", NAMES)
def test_there_is_something_to_be_found(name):
    problem = make(name)
    good = problem.x0 | GOOD[name]
    assert problem.space.contains(good)
    assert problem.fun(good) < 0.97 * problem.fun(problem.x0)


@pytest.mark.parametrize("name", NAMES)
def test_every_category_decodes_and_counts(name):
    problem = make(name)
    label, parameter = next((k, p) for k, p in problem.space.parameters.items() if isinstance(p, Choice))
    # from a point at which the category is known to matter
    base = problem.x0 | GOOD[name] | ({"max_features": "sqrt"} if "boosting" in name else {})
    errors = []
    for option in parameter.options:
        decoded = problem.space.decode(problem.space.encode(base | {label: option}))
        assert decoded[label] == option
        errors.append(problem.fun(decoded))
    assert len(set(errors)) >= 2


def test_folds_cover_the_data_once():
    for task in TASKS.values():
        folds = _folds(task.data, task.samples)
        assert sum(len(y_test) for *_, y_test in folds) == task.samples
        rows = np.vstack([X_test for _, _, X_test, _ in folds])
        assert len(rows) == task.samples
        assert all(len(X) + len(X_test) == task.samples for X, _, X_test, _ in folds)
