"""Methods as words: a name that :func:`dfo.minimize` takes, with options in brackets.

``"cma"``, ``"cma[population=20]"``, ``"scipy:SLSQP"``, ``"nevergrad:NGOpt"``. A method is a word because
worker processes and stored results have nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfo.errors import InvalidArgument, InvalidType, short, unknown

__all__ = ["Method", "check_method", "split_methods"]


@dataclass(frozen=True)
class Method:
    """A method and its options.

    Args:
        name: as :func:`dfo.minimize` takes it.
        options: its options.

    Example:
        >>> from dfo.bench import Method
        >>> Method.of("cma[population=20, sigma=0.3]")
        Method(name='cma', options={'population': 20, 'sigma': 0.3})
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Method:
        """Read a method; values are JSON (numbers, true, null), and text where they are not.

        Raises:
            InvalidArgument: the text is not of the form ``name`` or ``name[option=value, ...]``.
        """
        found = re.fullmatch(r"\s*([^\s\[\],=]+)\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
        if found is None:
            raise InvalidArgument(f'methods: expected a name or "name[option=value]", got {short(text)}.')
        return cls(found[1], dict(_option(part, text) for part in split_methods(found[2] or "")))


def _option(part: str, text: str) -> tuple[str, Any]:
    name, equals, value = (piece.strip() for piece in part.partition("="))
    if not name or not equals or not value:
        raise InvalidArgument(f"methods: expected option=value in the brackets of {short(text)}, got {short(part)}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def split_methods(text: str) -> list[str]:
    """Split at the commas that stand outside brackets; empty pieces are left out.

    Example:
        >>> split_methods("random, cma[population=20,sigma=0.3]")
        ['random', 'cma[population=20,sigma=0.3]']
    """
    pieces, depth, current = [], 0, ""
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            pieces.append(current)
            current = ""
        else:
            current += letter
    return [piece.strip() for piece in (*pieces, current) if piece.strip()]


def check_method(text: str) -> Method:
    """Return the method if it exists, with options that it has.

    Raises:
        UnknownName: no such method or option; the nearest one is named.
        InvalidArgument: an option has a value that it cannot have.
        InvalidType: the method needs a package that is not installed.
    """
    from dfo.run.minimize import minimize
    from dfo.run.peers import is_peer

    method = Method.of(text)
    if is_peer(method.name):
        _check_peer(method.name)
    else:  # nothing is evaluated: the front door judges the name and the options, as it will for the run
        bounds = [(-1.0, 1.0)] * 2 if _is_bounded(method.name) else None
        never, options = _Never(method.name), method.options or None
        minimize(never, [0.0, 0.0], method=method.name, bounds=bounds, options=options, budget=0)
    return method


def _is_bounded(name: str) -> bool:
    """Tell whether a method moves in bounded spaces only."""
    from dfo.solvers import SOLVERS, solver_class

    return name in SOLVERS and "vector" not in getattr(solver_class(name), "spaces", {"vector"})


class _Never:
    """An oracle that would give whatever the method needs, and is never asked."""

    max_batch = None

    def __init__(self, method: str) -> None:
        from dfo.solvers import SOLVERS, solver_class

        needs = solver_class(method).needs if method in SOLVERS else frozenset()
        self.gives: frozenset[str] = frozenset({"values", "ranking"}) | needs

    def start(self, lanes: int, key: object) -> tuple[()]:
        return ()

    def evaluate(self, batch: object, memory: tuple[()]) -> Any:
        raise AssertionError("a budget of 0 evaluates nothing")


def _check_peer(name: str) -> None:
    from importlib.util import find_spec

    package = {"pycma": "cma", "nevergrad": "nevergrad"}.get(name.partition(":")[0])
    if package is not None and find_spec(package) is None:
        raise InvalidType(f"Method {name!r} needs the package {package}. Run: pip install 'dfo-optim[peers]'.")
    if package == "nevergrad" and ":" in name:
        from nevergrad import optimizers

        if (wanted := name.partition(":")[2]) not in optimizers.registry:
            raise unknown("nevergrad optimizer", wanted, optimizers.registry)
