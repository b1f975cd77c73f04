"""What every test needs."""

import signal


def pytest_configure() -> None:
    """Listen to Ctrl-C even where the tests were started in the background, which ignores it for all children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
