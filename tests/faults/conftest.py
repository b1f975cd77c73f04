"""A fresh ledger for each test, and a guard against hangs."""

import signal

import pytest
from ledger import Ledger


@pytest.fixture(autouse=True)
def no_hang():
    """Fail a test that runs for more than 30 seconds."""

    def late(number, frame):
        raise TimeoutError("the case is still running after 30 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ledger():
    return Ledger()
