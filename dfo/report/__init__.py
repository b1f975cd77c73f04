"""Numbers to eyes: tables, pictures and a one-file page of a stored bench. Runs nothing.

Example:
    >>> from dfo.report import Table, plain
    >>> print(plain(Table("Shares", ("method", "10d"), (("cma", "61.3"),))))
    Shares
    method   10d
    cma     61.3
"""

from dfo.report.text import Table, plain, visible
from dfo.report.write import MissingPackage, Written, check_packages, tables_of, write_report

__all__ = ["MissingPackage", "Table", "Written", "check_packages", "plain", "tables_of", "visible", "write_report"]
