"""Every row of the tables on the page of promises that states a call."""

import re

import numpy as np  # noqa: F401  (rows may use it)
import pytest
from pages import ROOT

import dfo
import dfo.errors

PAGE = (ROOT / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(dfo\..+)` \| `(\w+)` \| `(\w+)` \|$", PAGE, re.MULTILINE)
nan = float("nan")


def f(x):
    raise AssertionError("evaluated before the arguments were judged")


@pytest.mark.parametrize(("call", "error", "builtin"), ROWS, ids=[row[0] for row in ROWS])
def test_bad_input_raises_before_the_first_evaluation(call: str, error: str, builtin: str) -> None:
    with pytest.raises(getattr(dfo.errors, error)) as raised:
        eval(call, globals())
    assert type(raised.value).__name__ == error
    assert isinstance(raised.value, getattr(__import__("builtins"), builtin))
    assert len(str(raised.value)) > 20


def test_there_are_rows() -> None:
    assert len(ROWS) > 25
