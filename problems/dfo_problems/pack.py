"""What a pack of problems is: a grammar of names, and a way to build the problem that a name says.

A problem is rebuilt from its name alone, so that a worker process or a stored run needs nothing but
a string. The grammar is one for all packs::

    <pack>-<function>[-i<instance>][-d<dim>]        bbob-f008-i01-d10   classic-rosenbrock-d05   tuning-svc-digits

``dfo`` finds packs through the entry-point group ``dfo.problems`` and uses of a pack only ``name``,
``summary``, ``select`` and ``make``; any object with these four will do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dfo.errors import unknown
from dfo.protocols import Problem

__all__ = ["Cell", "Pack"]


@dataclass(frozen=True)
class Cell:
    """What the name of a problem says.

    Args:
        pack: name of the pack.
        function: label of the function within the pack, such as ``"f008"`` or ``"rosenbrock"``.
        instance: number of the instance, from 1; None in packs without instances.
        dim: number of coordinates; None in packs whose functions have one dimension only.
    """

    pack: str
    function: str
    instance: int | None = None
    dim: int | None = None

    @property
    def name(self) -> str:
        """The name in canonical form, numbers padded to two digits."""
        instance = "" if self.instance is None else f"-i{self.instance:02d}"
        dim = "" if self.dim is None else f"-d{self.dim:02d}"
        return f"{self.pack}-{self.function}{instance}{dim}"


@dataclass(frozen=True, eq=False)
class Pack:
    """A family of problems that share a grammar of names; no problem is built before it is asked for.

    Args:
        name: of the pack, and first part of the names of its problems.
        summary: one sentence for listings.
        groups: labels of the functions by the group over which results are averaged, in order.
        build: turns a cell that lies in the pack into its problem.
        dims: dimensions that ``select`` lists when none are asked for; empty where names carry none.
        instances: instances that ``select`` lists when none are asked for; empty where names carry none.
        max_dim: largest dimension that a name may carry; 0 allows ``dims`` and no others.
        max_instance: largest instance that a name may carry; 0 allows ``instances`` and no others.
    """

    name: str
    summary: str
    groups: Mapping[str, tuple[str, ...]]
    build: Callable[[Cell], Problem]
    dims: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    max_dim: int = 0
    max_instance: int = 0

    @property
    def functions(self) -> tuple[str, ...]:
        """Labels of the functions, in the order of the groups."""
        return tuple(label for labels in self.groups.values() for label in labels)

    def group(self, function: str) -> str:
        """Return the group to which the function with this label belongs."""
        return next(group for group, labels in self.groups.items() if function in labels)

    def names(self) -> list[str]:
        """Return the names of all problems with the listed dimensions and instances."""
        return self.select()

    def select(
        self,
        dims: Sequence[int] | None = None,
        functions: Sequence[str | int] | None = None,
        instances: Sequence[int] | None = None,
    ) -> list[str]:
        """Return names: dimension by dimension, then function by function, then instance by instance.

        Args:
            dims: dimensions wanted; all that the pack lists by default.
            functions: labels wanted, where 8 stands for ``"f008"``; all by default.
            instances: instances wanted; all that the pack lists by default.

        Raises:
            UnknownName: the pack has no such function, dimension or instance.
        """
        labels = self.functions if functions is None else [self._label(f) for f in functions]
        spans = self._wanted("dimension", dims, self.dims, self.max_dim)
        copies = self._wanted("instance", instances, self.instances, self.max_instance)
        return [Cell(self.name, f, i, d).name for d in spans for f in labels for i in copies]

    def make(self, name: str) -> Problem:
        """Build the problem with this name; numbers need no padding.

        Raises:
            UnknownName: no problem of the pack has this name; the nearest one is named.
        """
        return self.build(self.cell(name))

    def cell(self, name: str) -> Cell:
        """Return what a name says.

        Raises:
            UnknownName: no problem of the pack has this name; the nearest one is named.
        """
        found = re.fullmatch(rf"{re.escape(self.name)}-(.+?)(?:-i(\d+))?(?:-d(\d+))?", name, re.ASCII)
        if found is None or found.group(1) not in self.functions:
            raise unknown(f"problem of pack {self.name!r}", name, self.names())
        label = found.group(1)
        instance, dim = (None if digits is None else int(digits) for digits in found.group(2, 3))
        if not (_fits(instance, self.instances, self.max_instance) and _fits(dim, self.dims, self.max_dim)):
            raise unknown(f"problem of pack {self.name!r}", name, self.select(functions=[label]))
        return Cell(self.name, label, instance, dim)

    def _label(self, function: str | int) -> str:
        label = f"f{function:03d}" if isinstance(function, int) else function
        if label not in self.functions:
            raise unknown(f"function of pack {self.name!r}", function, self.functions)
        return label

    def _wanted(self, what: str, asked: Iterable[int] | None, listed: tuple[int, ...], most: int) -> list[int | None]:
        if asked is None or not listed:  # a pack without dimensions has its problems in every selection of them
            return [*listed] or [None]
        for number in (wanted := list(asked)):
            if not _fits(number, listed, most):
                raise unknown(f"{what} of pack {self.name!r}", number, map(str, listed))
        return [*wanted]


def _fits(number: int | None, listed: tuple[int, ...], most: int) -> bool:
    if number is None or not listed:
        return number is None and not listed
    return number in listed or min(listed) <= number <= most
