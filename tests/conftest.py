"""What every test needs."""

import signal

collect_ignore_glob = ["guards/scenarios.py", "faults/cases/*", "faults/__main__.py"]  # programs that tests run


def pytest_configure() -> None:
    """Listen to Ctrl-C even where the tests were started in the background, which ignores it for all children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
