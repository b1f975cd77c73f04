"""The family in one class, and its members by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from dfo.arrays import Array, Floats, as_like, copy, zeros
from dfo.batch import Batch, Points
from dfo.components import descent
from dfo.components.borders import into_box, onto_line
from dfo.components.descent import Moments
from dfo.errors import InvalidArgument
from dfo.feedback import Feedback
from dfo.protocols import Task
from dfo.random import Key
from dfo.solvers.unrolled_es.outer import Flags, Ints, Outer, answers, length, noise

__all__ = ["GPES", "NRES", "PES", "ESSingle", "FullES", "GPESState"]


@dataclass(frozen=True, eq=False)
class GPESState:
    """The memory of :class:`GPES`."""

    x: Array  # (d,) free coordinates
    g: Array  # (d,) the last estimate
    total: Array  # (d,) what the unrolls since the last update have given
    trail: Array | None  # (pairs, d) unit noise of this episode before the present one; None with one an episode
    delta: Floats  # (pairs,) loss differences not yet credited
    seen: Flags  # (pairs,) answered since the last update ...
    broken: Flags  # (pairs,) ... or not, once
    drawn: Ints  # (pairs,) number of the present noise
    served: Ints  # (pairs,) unrolls it has served
    episode: Ints  # (pairs,) episodes done
    resting: Flags  # (pairs, 2) members whose episode is over while others' are not
    moments: Moments
    window: int  # unrolls since the last update
    key: Key
    step: int


@dataclass(frozen=True)
class GPES(Outer):
    """Generalised persistent evolution strategies: one noise for ``share`` unrolls, an update after ``every``.

    ``GPES(share=1)`` is PES and ``GPES(share=None)`` is ES-Single; ``every=None`` makes the latter full ES. An
    answer that is missing leaves its pair out of the estimate, which is a mean over the pairs that were answered.

    Args:
        sigma: standard deviation of the noise: 0.1 to 0.3 for logarithms of hyper-parameters, 0.01 for weights of
            networks; a share of the box between two bounds.
        lr: step size of the rule; 0.01 for hyper-parameters, 0.001 for networks.
        population: members N, an even number; 32, or ``batch``, by default.
        rule: one of :data:`dfo.components.descent.RULES`.
        betas: decay of the first and second moment; (0.99, 0.999) for hyper-parameters in the PES paper's code.
        eps: of Adam.
        max_norm: longest estimate, in euclidean length; longer ones are shortened.
        filter: ``"none"``, or what makes loss differences robust at the price of bias: their ``"sign"``, ``"clip"``
            to +-``limit``, or ``"standardized"`` over the pairs.
        limit: for ``"clip"``.
        space: where to search; filled in by the run.
        share: unrolls for which a pair keeps its noise; None for the whole episode.
        every: unrolls between updates; None: when all members' episodes are over.
        stagger: the first episodes begin one pair after the other, over so many unrolls, so that an update sees
            all phases of the episode; the number of unrolls of an episode is right.

    Raises:
        InvalidArgument: a name that does not exist, or a number that is not positive; an odd population.

    Example:
        >>> import dfo, numpy as np
        >>> oracle = dfo.Unrolled(
        ...     lambda data: np.zeros(2),
        ...     lambda theta, s, t, data: (0.9 * s + theta, float(((s - 1.0) ** 2).sum())),
        ...     steps=4, horizon=12,
        ... )
        >>> res = dfo.minimize(oracle, [1.0, -1.0], method=dfo.PES(population=16, lr=0.1), budget=3000)
        >>> oracle.full(res.x) < 0.3 * oracle.full([1.0, -1.0])
        True
    """

    share: int | None = 1
    every: int | None = 1
    stagger: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("share", "every", "stagger"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e150:
                raise InvalidArgument(f"{name}: expected a whole number of at least 1, got {value!r}.")

    @property
    def lanes(self) -> int:
        """Persistent inner states: one a member."""
        return 2 * self.pairs

    def init(self, x0: Array, key: Key) -> GPESState:
        """Return the state before the first question."""
        x, n = copy(onto_line(self.space, x0)), self.pairs
        zero, no = np.zeros(n, np.int64), np.zeros(n, bool)
        trail = None if self.share is None else zeros(noise(key, zero, x))
        return GPESState(
            x, zeros(x), zeros(x), trail, np.zeros(n), no, no, zero, zero, zero, np.zeros((n, 2), bool),
            descent.first_moments(self.rule, x), 0, key, 0,
        )  # fmt: skip

    def ask(self, s: GPESState) -> Batch:
        """Ask about the next unroll of every member whose episode goes on."""
        X: Any = self._members(s.x, noise(s.key, s.drawn, s.x))
        begun = np.arange(self.pairs) * (self.stagger or 1) // self.pairs <= s.step
        lane = np.flatnonzero((begun[:, None] & ~s.resting).reshape(-1))
        data = s.episode * self.pairs + np.arange(self.pairs)  # both members of a pair see the same
        return Points(X if len(lane) == len(X) else X[lane], lane=lane, data=data[lane // 2], step=s.step)

    def tell(self, s: GPESState, batch: Batch, told: Feedback) -> GPESState:
        """Credit the loss differences, move when it is time, and begin what has ended anew."""
        assert batch.lane is not None
        f, ended = answers(told, s.x)
        losses, asked, over = np.zeros((3, 2 * self.pairs))
        losses[batch.lane], asked[batch.lane], over[batch.lane] = np.nan_to_num(f, nan=0.0), 1.0, ended
        missing = np.zeros(2 * self.pairs, bool)
        missing[batch.lane] = np.isnan(f)
        pair = losses.reshape(-1, 2)
        answered = (asked > 0).reshape(-1, 2).any(axis=1)
        return self._credited(
            replace(
                s,
                delta=s.delta + pair[:, 0] - pair[:, 1],
                seen=s.seen | answered,
                broken=s.broken | missing.reshape(-1, 2).any(axis=1),
                served=s.served + answered,
                resting=s.resting | (over > 0).reshape(-1, 2),
                window=s.window + 1,
                step=s.step + 1,
            )
        )

    def _credited(self, s: GPESState) -> GPESState:
        """Return the state after an unroll was answered: differences credited, noise renewed where due."""
        everybody = bool(s.resting.all())
        done: Any = np.full(self.pairs, everybody) if self.every is None else s.resting.all(axis=1)
        due = everybody if self.every is None else s.window >= self.every
        renewed: Any = done if self.share is None else done | (s.served >= self.share)
        closed = renewed | due  # what was said until now belongs to the noise until now
        z: Any = noise(s.key, s.drawn, s.x)
        credit: Any = z if s.trail is None else s.trail + z
        weights = np.where(closed, self._weights(np.where(s.broken, np.nan, s.delta)), 0.0)
        trail: Any = s.trail
        if trail is not None:
            kept, grown = (as_like(flag[:, None].astype(float), s.x) for flag in (~done, renewed & ~done))
            trail = trail * kept + z * grown
        s = replace(
            s,
            total=s.total + as_like(weights, s.x) @ credit,
            trail=trail,
            delta=np.where(closed, 0.0, s.delta),
            drawn=s.drawn + renewed,
            served=np.where(renewed, 0, s.served),
            episode=s.episode + done,
            resting=s.resting & ~done[:, None],
        )
        return self._updated(s) if due else s

    def _updated(self, s: GPESState) -> GPESState:
        """Return the state after an update with the mean over the pairs that were answered."""
        live, no = int((s.seen & ~s.broken).sum()), np.zeros(self.pairs, bool)
        if live:
            total: Any = s.total
            x, g, moments = self._moved(s.x, total / live, s.moments)
            s = replace(s, x=x, g=g, moments=moments)
        return replace(s, seen=no, broken=no, window=0, total=zeros(s.x))

    def recommend(self, s: GPESState) -> Array:
        """Return the point around which the members are drawn."""
        x: Array = copy(into_box(self.space, s.x))
        return x

    def gauges(self, s: GPESState) -> dict[str, float]:
        """Return updates done, the length of the last estimate, and the mean number of episodes done."""
        return {"updates": s.moments.count, "slope": length(s.g), "episodes": float(s.episode.mean())}


@dataclass(frozen=True)
class FullES(GPES):
    """Full evolution strategies: one noise an episode, one update at its end (unbiased, T/K unrolls an update).

    Arguments are those of :class:`GPES`. Members whose episodes end early wait for the others.

    Example:
        >>> import dfo
        >>> dfo.FullES(sigma=0.3, population=8).pairs
        4
    """

    share: int | None = None
    every: int | None = None


@dataclass(frozen=True)
class ESSingle(GPES):
    """ES-Single: one noise an episode, an update after every unroll; its variance does not depend on their number.

    Arguments are those of :class:`GPES`. Pairs draw anew when their own episode ends.

    Example:
        >>> import dfo
        >>> dfo.ESSingle() == dfo.ESSingle(share=None, every=1)
        True
    """

    share: int | None = None


@dataclass(frozen=True)
class PES(GPES):
    """Persistent evolution strategies: new noise every unroll, credited together with that of the episode so far.

    Arguments are those of :class:`GPES`.

    Example:
        >>> import dfo
        >>> dfo.PES() == dfo.PES(share=1, every=1)
        True
    """


@dataclass(frozen=True)
class NRES(ESSingle):
    """Noise-reuse evolution strategies: ES-Single with pairs out of step, so that an update sees all phases.

    Arguments are those of :class:`GPES`; ``stagger``, by default one pair an unroll, is best the number of unrolls
    of an episode. With an oracle whose ``phase`` is true, lanes fall out of step by themselves: ``stagger=1``.

    Example:
        >>> import dfo
        >>> dfo.NRES(population=8).plan(dfo.Task(dfo.Free(2))).stagger
        4
    """

    stagger: int | None = None

    def plan(self, task: Task) -> Self:
        """Fill in the population, the space and the stagger."""
        planned = super().plan(task)
        return replace(planned, stagger=planned.stagger or planned.pairs)
