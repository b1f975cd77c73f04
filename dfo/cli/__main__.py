"""``python -m dfo.cli``."""

from dfo.cli import main

main()
