"""A fresh ledger for each test, and a guard against hangs."""

import signal

import pytest
from ledger import Ledger


@pytest.fixture(autouse=True)
def no_hang(request):
    """Fail a test that runs for more than 30 seconds, or than its module's ``SECONDS``."""
    seconds = getattr(request.module, "SECONDS", 30)

    def late(number, frame):
        raise TimeoutError(f"the case is still running after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ledger():
    return Ledger()
