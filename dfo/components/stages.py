"""The one pattern for solvers with phases: a state names its stage, a stage is a pair of methods.

A staged solver's state has a field ``stage`` and the solver lists its ``stages``; for each stage it
has ``ask_<stage>`` and ``tell_<stage>``. A phase is then ordinary data: it is saved, resumed and
tested like everything else in the state, and nothing is kept in a generator or on the call stack.

Example:
    >>> from dataclasses import dataclass, replace
    >>> import numpy as np
    >>> from dfo.batch import Points
    >>> from dfo.components.stages import Staged
    >>> @dataclass(frozen=True)
    ... class State:
    ...     x: float
    ...     stage: str = "probe"
    >>> class Halver(Staged):
    ...     stages = ("probe", "rest")
    ...     def ask_probe(self, s): return Points(np.array([[s.x]]))
    ...     def tell_probe(self, s, batch, told): return replace(s, stage="rest")
    ...     def ask_rest(self, s): return Points(np.array([[s.x / 2]]))
    ...     def tell_rest(self, s, batch, told): return replace(s, x=s.x / 2, stage="probe")
    >>> Halver().ask(State(8.0, "rest")).X
    array([[4.]])
"""

from __future__ import annotations

from typing import Any, ClassVar

from dfo.batch import Batch
from dfo.feedback import Feedback

__all__ = ["Staged"]


class Staged:
    """Mixin that sends ``ask`` and ``tell`` to the methods of the state's stage.

    Raises:
        TypeError: a subclass lists a stage without its two methods (when the class is made).
    """

    stages: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        for stage in cls.stages:
            for verb in ("ask", "tell"):
                if not callable(getattr(cls, f"{verb}_{stage}", None)):
                    raise TypeError(f"{cls.__name__}: stage {stage!r} has no method {verb}_{stage}.")

    def ask(self, state: Any) -> Batch:
        """Return the question of the state's stage."""
        batch: Batch = getattr(self, "ask_" + state.stage)(state)
        return batch

    def tell(self, state: Any, batch: Batch, told: Feedback) -> Any:
        """Return the state after the answer to the question of its stage."""
        return getattr(self, "tell_" + state.stage)(state, batch, told)
