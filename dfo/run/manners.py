"""How a foreign package is kept from touching what belongs to the whole process.

Warnings filters, numpy's global generator and Python's own are one per process: a library that changes them
changes programs that it knows nothing of. Here they are put back, also when several threads run peers.
"""

from __future__ import annotations

import random
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["Guest", "load", "quiet"]

_numpy: Any = np.random  # its stubs leave out the functions that exchange the generator
_THEIRS = r"(scipy|cma|nevergrad|dfo\.run\.\w*peers)(\.|$)"  # modules whose warnings are the peers' own
_lock = threading.RLock()
_open = 0
_filters: Any = None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what peers warn about; what the objective warns about stays the user's.

    One set of filters serves all threads; the last to leave puts the user's back. (Where Python keeps the
    filters by context, as without a global lock, each run has its own.)
    """
    global _open, _filters  # noqa: PLW0603  (the filters are the process's, too)
    if getattr(sys.flags, "context_aware_warnings", False):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=_THEIRS)
            yield
        return
    with _lock:
        if not _open:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=_THEIRS)
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                _filters.__exit__(None, None, None)


def load(package: str) -> Any:
    """Import a package, without its warnings and without its draws from Python's generator."""
    if sys.modules.get(package) is not None:
        return import_module(package)
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = random.getstate()
        try:
            return import_module(package)
        finally:
            random.setstate(state)


class Guest:
    """Lends numpy's global generator to a peer that draws from it.

    Inside ``with guest.here():`` the generator is the peer's; inside ``with guest.away():``, which is where
    the objective runs, it is the user's. A lock keeps the peers of two threads apart; it is free while an
    objective runs. (Exchanging the bit generator costs 2 us, exchanging its state 150.)

    Args:
        seed: of the peer's generator.
    """

    _lock = threading.Lock()

    def __init__(self, seed: int) -> None:
        self._own = np.random.MT19937(seed)
        self._users: Any = None

    @contextmanager
    def here(self) -> Iterator[None]:
        """Put the peer's generator in place, and the user's back as it was."""
        with Guest._lock:
            self._users = _numpy.get_bit_generator()
            before = _numpy.get_state(legacy=False)
            _numpy.set_bit_generator(self._own)
            try:
                yield
            finally:
                _numpy.set_bit_generator(self._users)
                if before["has_gauss"] and _same(before, _numpy.get_state(legacy=False)):
                    _numpy.set_state(before)  # the exchange forgets the second normal of a pair

    @contextmanager
    def away(self) -> Iterator[None]:
        """Put the user's generator in place, for a while."""
        _numpy.set_bit_generator(self._users)
        Guest._lock.release()
        try:
            yield
        finally:
            Guest._lock.acquire()
            self._users = _numpy.get_bit_generator()
            _numpy.set_bit_generator(self._own)


def _same(before: Any, after: Any) -> bool:
    a, b = before["state"], after["state"]
    return bool(a.keys() == b.keys() and all(np.array_equal(a[part], b[part]) for part in a))
