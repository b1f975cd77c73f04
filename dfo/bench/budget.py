"""Evaluations granted to a run: a number, or a number times the dimension."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dfo.errors import InvalidArgument, short

__all__ = ["Budget"]

_LADDER = tuple(factor * 10**power for power in range(1, 10) for factor in (1, 3))


@dataclass(frozen=True)
class Budget:
    """A number of evaluations, of the whole run or per variable.

    Args:
        amount: at least 1.
        per_variable: whether ``amount`` is multiplied by the dimension.

    Example:
        >>> from dfo.bench import Budget
        >>> Budget.of("100d").evaluations(5), str(Budget.of(2000)), [str(b) for b in Budget.of("200d").prefixes()]
        (500, '2000', ['10d', '50d', '100d', '200d'])
    """

    amount: int
    per_variable: bool = False

    @classmethod
    def of(cls, text: object) -> Budget:
        """Read ``"100d"``, ``"2000"`` or 2000.

        Raises:
            InvalidArgument: it is neither a positive number nor one with a ``d`` behind it.
        """
        if isinstance(text, Budget):
            return text
        found = re.fullmatch(r"([1-9][0-9]{0,11})(d?)", str(text).strip(), re.ASCII)
        if found is None or isinstance(text, bool):
            raise InvalidArgument(
                f'budget: expected evaluations such as 2000, or per variable such as "100d", got {short(text)}.'
            )
        return cls(int(found[1]), bool(found[2]))

    def evaluations(self, dim: int) -> int:
        """Return the evaluations for a problem with ``dim`` variables."""
        return self.amount * dim if self.per_variable else self.amount

    def prefixes(self) -> tuple[Budget, ...]:
        """Return the budgets at which a run is looked at: up to four on the way, and the budget itself."""
        steps = sorted({50, *_LADDER} - {30})  # 10, 50, 100, 300, 1000, 3000, ...
        below = [step for step in steps if step * 1.5 <= self.amount][-4:]
        return tuple(Budget(step, self.per_variable) for step in [*below, self.amount])

    def __str__(self) -> str:
        return f"{self.amount}{'d' if self.per_variable else ''}"
