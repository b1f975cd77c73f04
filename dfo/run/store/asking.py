"""The asks and tells of a :class:`~dfo.AskTell` in a store, and how they are played back in their order.

A candidate is a question, under its number; its value is an answer. Points that were never asked and orders are events
(``observed``, ``order``) that say after how many answers they came. So do candidates beyond the batch, whose point
depends on all that was told before: their ``step`` is -1 minus the number of answers. Candidates of a batch depend on
the answers to earlier batches alone.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.batch import Items
from dfo.errors import BadState, CannotWrite, InvalidArgument, InvalidType, RunMismatch, short
from dfo.files import strict_json
from dfo.oracles.outcomes import Answer, Failed
from dfo.oracles.values import number as number_of
from dfo.random import RNG_VERSION
from dfo.run.finish import describe
from dfo.run.identity import identity
from dfo.run.store.location import Store, path_of
from dfo.run.store.points import decoded, encoded
from dfo.run.store.rows import answer_of
from dfo.run.store.run import Run
from dfo.run.store.schema import GROUP
from dfo.run.store.view import View
from dfo.secrets import scrub

if TYPE_CHECKING:
    from dfo.run.asktell import AskTell

__all__ = ["Journal"]

OBSERVED, ORDER = "observed", "order"


class Journal:
    """What an :class:`~dfo.AskTell` was asked and told, in a store.

    Args:
        store: a path, or how it is kept.
        begun: the arguments of the object, which have to be the same when it is taken up.
        solver: as it was resolved.
        budget: as it was given; it may change.

    Raises:
        InvalidType: the store is neither a path nor a :class:`dfo.Store`.
        RunMismatch: it was begun with other arguments.
        RunLocked, DamagedStore, CannotWrite: see :class:`dfo.Store`.
    """

    def __init__(self, store: Any, begun: Mapping[str, Any], solver: Any, budget: int | None) -> None:
        self._turns = 0
        self._ours = not isinstance(store, Run)  # else it was begun by, and is closed by, who opened it
        if isinstance(store, Run):
            self.run, self.path = store, path_of(store.store.path)
            return
        if isinstance(store, (str, os.PathLike)):
            store = Store(store)
        if not isinstance(store, Store):
            raise InvalidType(f'store: expected a path such as "run.db", or a dfo.Store, got {short(store)}.')
        self.path = path_of(store.path)
        self.run = Run.open(store)
        try:
            config = {"front": "asktell", **{name: identity(value) for name, value in begun.items()}}
            self.run.begin({**config, "solver": describe(solver), "rng": RNG_VERSION}, {"budget": budget})
        except BaseException:
            self.run.close()
            raise

    # ------------------------------------------------------------------ writing

    def asked(self, number: int, x: Any, step: int | None, data: int | None) -> None:
        """Enter a candidate before it is handed out; without a step it lies beyond the batch."""
        at = -1 - self._turns if step is None else step
        batch = Items([x], step=at, data=None if data is None else np.array([data]))
        first, _ = self.run.ask(batch, [x])
        if first != number:
            raise BadState(f"{self.path}: expected question {number} to be the next, got {first}.")

    def told(self, number: int, value: Any) -> None:
        """Enter what was told of a candidate, before the solver learns it."""
        self.run.tell({number: Answer(_kept(value))})
        self._turns += 1

    def observed(self, x: Any, value: float) -> None:
        """Enter a point that was never asked."""
        form, content, _ = encoded(x)
        if content is None:
            raise InvalidArgument("observe: the point has too many coordinates to be kept in a store.")
        point = {"x": content} if isinstance(content, str) else {"bytes": b64encode(content).decode()}
        self.run.note(OBSERVED, {"turn": self._turns, "form": form, "value": value, **point})

    def ordered(self, order: Sequence[Any] | None) -> None:
        """Enter a ranking of the present batch."""
        self.run.note(ORDER, {"turn": self._turns, "order": _nested(order)})

    def close(self, opt: AskTell) -> None:
        """Write how far it came, and let go of the store."""
        if not self._ours:
            return
        with suppress(CannotWrite):
            best = {"fun": opt.best_fun, "x": identity(opt.best_x), "nfev": opt.nfev}
            self.run.finish("open", "Candidates can be asked and told again at any time.", best)
        self.run.close()

    # ------------------------------------------------------------------ reading

    def play(self, opt: AskTell) -> None:
        """Ask and tell a new object everything that is stored, and have it hand out again what was not told.

        Raises:
            RunMismatch: it asks other questions than are stored.
            DamagedStore: a row makes no sense.
        """
        count = 0
        try:
            with View.open(self.path) as view:
                questions, told = [row for row in view.table("questions") if row[0] < GROUP], _Told(opt, view)
            for number, step, _, _, _, _, digest in questions:
                told.before(number, step)
                candidate = opt.ask_candidate()
                if candidate.id != number or encoded(candidate.x).digest != digest:
                    raise RunMismatch(
                        f"{self.path}: candidate {number} is another one than it was. Take the run up with the version"
                        " of dfo that began it, or with another store."
                    )
                count = number + 1
            told.rest()
        except BaseException:
            self.run.close()
            raise
        opt.give_back(opt.pending)
        self.run.seek(count)
        self._turns = told.turn


class _Told:
    """What a store holds beside questions, applied to an object in the order in which it came."""

    def __init__(self, opt: AskTell, view: View) -> None:
        self.opt, self.turn, self._at = opt, 0, 0
        answers = [row for row in view.table("answers") if row[0] < GROUP]  # others are of a recommendation
        self.answers = sorted(answers, key=lambda row: int(row[1]))
        self.events = [
            (after, kind, strict_json(content))
            for _, _, after, kind, content in view.table("events")
            if kind in (OBSERVED, ORDER)
        ]

    def before(self, number: int, step: int) -> None:
        """Apply what came before a question was asked, as far as its point depends on it."""
        while self._at < len(self.events) and self.events[self._at][0] <= number:
            self._event()
        if step < 0:
            self._until(-1 - step)
        while step >= 0 and self.opt.ahead and self.turn < len(self.answers):
            self._until(self.turn + 1)

    def rest(self) -> None:
        """Apply what is left."""
        while self._at < len(self.events):
            self._event()
        self._until(len(self.answers))

    def _until(self, turn: int) -> None:
        for number, _, _, *columns in self.answers[self.turn : turn]:
            self.opt.tell(number, answer_of(*columns).value)
        self.turn = max(self.turn, min(turn, len(self.answers)))

    def _event(self) -> None:
        _, kind, content = self.events[self._at]
        self._at += 1
        self._until(int(content["turn"]))
        if kind == ORDER:
            self.opt.tell_order(content["order"])
            return
        x = content["x"] if "x" in content else b64decode(content["bytes"])
        self.opt.observe(decoded(content["form"], x), content["value"])


def _kept(value: Any) -> float | Failed:
    """Return a value as it is stored: a number, or why there is none."""
    if isinstance(value, Failed):
        return value
    if isinstance(value, Exception):
        return Failed("raised", f"{type(value).__name__}: {short(scrub(str(value)), 2000)}", value)
    found = number_of(value)
    return found if isinstance(found, float) else Failed("bad_type", f"returned {found}")


def _nested(order: Any) -> Any:
    """Return an order as JSON holds it: numbers, and groups of these."""
    if order is None or isinstance(order, str):
        return order
    return [_nested(part) for part in order] if isinstance(order, Iterable) else int(order)
