"""The fault suite in its short form: the cases of the long one (``make faults``), with a few tries each."""

import shutil

import pytest
from cases import harness
from cases.registry import CASES

harness.ROOM = 15.0

SHORT = [case for case in CASES if case.short and case.available and case.group != "nodes"]
"""Lost nodes have short forms of their own, beside this file."""


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.id)
def test_faults(case, tmp_path):
    outcome = case.run(case.short, tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert outcome.held == outcome.tries, outcome.words
