"""The store of a run: one SQLite file that one process writes and any number read.

:class:`Run` is the writer and a :class:`~dfo.oracles.outcomes.Ledger`; :class:`View` reads while it writes;
:func:`repair` saves what is whole in a damaged file. The tables are described in ``docs/reference/store.md``.
"""

from dfo.run.store.location import Store
from dfo.run.store.repair import Salvage, repair
from dfo.run.store.rows import Row
from dfo.run.store.run import Run
from dfo.run.store.view import View

__all__ = ["Row", "Run", "Salvage", "Store", "View", "repair"]
