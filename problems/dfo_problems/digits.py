"""The 8 x 8 digits that scikit-learn ships: standardised, split once and for all.

Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dfo.arrays import Floats
from dfo.random import Key, permutation

__all__ = ["TRAIN", "load_digits", "split"]

TRAIN = 1437
"""Images to train on; the other 360 are the test."""

Labels = npt.NDArray[np.int64]


def split(X: Any, y: Any, train: int, key: Key) -> tuple[Floats, Labels, Floats, Labels]:
    """Return (X_train, y_train, X_test, y_test): shuffled by a key, columns standardised by the training part.

    Args:
        X: ``(n, p)`` samples.
        y: ``(n,)`` classes.
        train: samples in the training part.
        key: of the order.
    """
    order = permutation(key, len(X))
    points, classes = np.asarray(X, dtype=float)[order], np.asarray(y, dtype=np.int64)[order]
    mean, deviation = points[:train].mean(axis=0), points[:train].std(axis=0)
    points = (points - mean) / np.where(deviation > 0, deviation, 1.0)  # a constant pixel becomes 0 in training
    parts = points[:train], classes[:train], points[train:], classes[train:]
    for part in parts:
        part.flags.writeable = False
    return parts


@lru_cache(maxsize=2)
def load_digits(order: int = 0) -> tuple[Floats, Labels, Floats, Labels]:
    """Return (X_train ``(1437, 64)``, y_train, X_test ``(360, 64)``, y_test); the arrays cannot be written.

    Args:
        order: number of the random order before the split.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("The digits need scikit-learn. Install it: pip install 'dfo-optim[bench]'.") from error
    X, y = datasets.load_digits(return_X_y=True)
    return split(X, y, TRAIN, Key(order, ("digits",)))
