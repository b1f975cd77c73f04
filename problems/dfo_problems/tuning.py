"""Black boxes with no formula: the cross-validated error of a model, over its named settings.

Data sets are those that scikit-learn ships; nothing is downloaded. An evaluation fits the model three
times, on one thread and from fixed seeds, so that equal settings have equal errors. Errors lie between
0 and 1, the lowest is not known (``f_opt`` is None), and settings interact: the degree of a kernel
matters to one kernel only, more trees want smaller steps.

Source: the shape of the task is that of Bergstra and Bengio (2012), Random search for hyper-parameter
optimization, J. Machine Learning Research 13; models and data are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from dfo.arrays import Array
from dfo.protocols import Problem
from dfo.spaces import Choice, Float, Int, Named
from dfo_problems.pack import Cell, Pack

__all__ = ["TASKS", "TUNING", "CrossValidated", "Task"]

Settings: TypeAlias = Mapping[str, Any]

FOLDS = 3


@dataclass(frozen=True)
class Task:
    """A data set, a model with settings, and an error.

    Args:
        data: name of scikit-learn's loader, without ``load_``.
        samples: how many of its samples are used, from the first.
        space: the settings.
        model: builds an estimator from settings.
        error: takes a fitted estimator and a test set to a number in [0, 1].
        reference: of the data.
    """

    data: str
    samples: int
    space: Named
    model: Callable[[Settings], Any]
    error: Callable[[Any, Array, Array], float]
    reference: str


def _sklearn() -> Any:
    try:
        import sklearn
    except ImportError as error:
        raise ImportError("Tuning needs scikit-learn. Install it: pip install 'dfo-optim[bench]'.") from error
    return sklearn


@lru_cache(maxsize=4)
def _folds(data: str, samples: int) -> list[tuple[Array, Array, Array, Array]]:
    """Return (points to fit, targets to fit, points to test, targets to test) of every fold."""
    _sklearn()
    from sklearn import datasets
    from sklearn.model_selection import KFold, StratifiedKFold

    X, y = getattr(datasets, f"load_{data}")(return_X_y=True)
    X, y = X[:samples], y[:samples]
    splitter = KFold if y.dtype.kind == "f" else StratifiedKFold
    parts = splitter(FOLDS, shuffle=True, random_state=0).split(X, y)
    return [(X[fit], y[fit], X[test], y[test]) for fit, test in parts]


def _support_vectors(s: Settings) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    machine = SVC(C=s["C"], kernel=s["kernel"], gamma=s["gamma"], degree=s["degree"], coef0=s["coef0"])
    return make_pipeline(StandardScaler(), machine)


def _boosting(s: Settings) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(**s, random_state=0)


def _trees(s: Settings) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(**s, random_state=0, n_jobs=1)


def misclassified(model: Any, X: Array, y: Array) -> float:
    """Share of samples given the wrong class."""
    return float(np.mean(model.predict(X) != y))


def brier(model: Any, X: Array, y: Array) -> float:
    """Mean squared error of the probability of class 1 (Brier 1950): smooth where error rates have steps."""
    return float(np.mean((model.predict_proba(X)[:, 1] - y) ** 2))


def unexplained(model: Any, X: Array, y: Array) -> float:
    """Mean squared error over the variance of the targets, cut at 1 (as bad as the mean or worse)."""
    return min(float(np.mean((model.predict(X) - y) ** 2) / np.var(y)), 1.0)


TASKS: dict[str, Task] = {
    "svc-digits": Task(
        data="digits",
        samples=800,
        space=Named(
            {
                "C": Float(1e-3, 1e3, log=True),
                "gamma": Float(1e-5, 1.0, log=True),
                "kernel": Choice(["sigmoid", "poly", "rbf"]),
                "degree": Int(2, 5),
                "coef0": Float(0.0, 1.0),
            }
        ),
        model=_support_vectors,
        error=misclassified,
        reference="Alpaydin and Kaynak (1998), optical recognition of handwritten digits; first 800",
    ),
    "boosting-cancer": Task(
        data="breast_cancer",
        samples=569,
        space=Named(
            {
                "learning_rate": Float(1e-3, 1.0, log=True),
                "n_estimators": Int(5, 40),
                "max_depth": Int(1, 4),
                "subsample": Float(0.3, 1.0),
                "max_features": Choice(["sqrt", "log2", None]),
                "min_samples_leaf": Int(1, 64, log=True),
            }
        ),
        model=_boosting,
        error=brier,
        reference="Street, Wolberg and Mangasarian (1993), breast cancer Wisconsin (diagnostic)",
    ),
    "trees-diabetes": Task(
        data="diabetes",
        samples=442,
        space=Named(
            {
                "n_estimators": Int(8, 128, log=True),
                "max_depth": Int(1, 16, init=2),
                "max_features": Float(0.1, 1.0),
                "min_samples_leaf": Int(1, 64, log=True),
                "bootstrap": Choice([False, True]),
            }
        ),
        model=_trees,
        error=unexplained,
        reference="Efron, Hastie, Johnstone and Tibshirani (2004), Annals of Statistics 32(2)",
    ),
}
"""The tasks by label."""


@dataclass(frozen=True)
class CrossValidated:
    """Mean error of a task over its three folds.

    Args:
        label: of the task in :data:`TASKS`.
    """

    label: str

    def __call__(self, settings: Settings) -> float:
        """Return the error, in [0, 1], of the model with these settings."""
        task = TASKS[self.label]
        errors = []
        for X, y, X_test, y_test in _folds(task.data, task.samples):
            errors.append(task.error(task.model(settings).fit(X, y), X_test, y_test))
        return float(np.mean(errors))


def _build(cell: Cell) -> Problem:
    _sklearn()
    task = TASKS[cell.function]
    return Problem(
        name=cell.name,
        space=task.space,
        fun=CrossValidated(cell.function),
        x0=task.space.start,
        group=TUNING.group(cell.function),
        tags=frozenset({"named", "mixed"}),
        reference=task.reference,
    )


TUNING = Pack(
    name="tuning",
    summary="cross-validated errors of three models over named settings; no formula, no known minimum",
    groups={"classification": ("svc-digits", "boosting-cancer"), "regression": ("trees-diabetes",)},
    build=_build,
)
"""The pack of tuning tasks."""
