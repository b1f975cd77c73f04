"""Inner problems that are unrolled a few steps at a time, each on a lane of its own.

An inner problem is a loop that depends on the point ``theta``: a training with these hyper-parameters, a
simulation with these constants, a recurrent network with these weights. Its state moves by ``s_{t+1} =
step(theta, s_t, t)`` and every step has a loss. Evaluating a point to the end of the loop costs ``T`` steps; an
oracle with *lanes* runs ``K`` of them, tells the loss of these, and keeps the state for the next question.

References: Metz et al. 2019, arXiv:1810.10180 (truncation bias); Vicol, Metz and Sohl-Dickstein 2021,
arXiv:2112.13835 (PES); Vicol, Kolter and Swersky 2023, arXiv:2304.11153 (ES-Single, telescoping losses); Li et
al. 2023, arXiv:2304.12180 (lanes out of step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dfo.arrays import Floats, copy, is_array, to_numpy
from dfo.batch import Batch, Items, Linear, Points
from dfo.errors import BadObjective, InvalidArgument, InvalidType, short
from dfo.feedback import Values
from dfo.oracles.function import Halted, members
from dfo.oracles.lanes import BEFORE, Draws, Ints, blank, put, rows, stacked
from dfo.oracles.values import values_of_array
from dfo.random import Key, uniform

__all__ = ["Reduce", "Unrolled", "UnrolledMemory"]

Reduce = Literal["sum", "mean", "last", "min"]
REDUCTIONS: tuple[Reduce, ...] = ("sum", "mean", "last", "min")
NEVER = 1 << 62
"""End of an episode without a horizon."""


@dataclass(frozen=True, eq=False)
class UnrolledMemory:
    """The lanes of an :class:`Unrolled` oracle."""

    states: Any  # tree of (lanes, ...) arrays; None before the first unroll
    age: Ints  # (lanes,) steps done in this episode; 0: the next unroll begins with a reset
    end: Ints  # (lanes,) age at which this episode ends
    level: Floats  # (lanes,) what reduce="last" and "min" told so far
    episode: Ints  # (lanes,) episodes done
    key: Key  # draws of members without a data number
    count: int  # members answered without lane and number


@dataclass(frozen=True, eq=False)
class _Rows:
    """The inner problems of some members, in the middle of an unroll."""

    state: Any  # tree of (m, ...)
    age: Ints  # (m,)
    end: Ints  # (m,)
    level: Floats  # (m,)


@dataclass(frozen=True, eq=False)
class Unrolled:
    """Losses of an inner problem, ``steps`` of its ``horizon`` steps at a time.

    One evaluation is one unroll of one member; what its values add up to over an episode, from a reset to the
    end, is the loss of the point. ``reduce`` says which: ``"sum"`` of the losses (a step size for it shrinks like
    1/T), their ``"mean"`` (each unroll tells its sum over T), the ``"last"`` loss or the ``"min"`` of them; the last
    two are told as differences ``p_u = L_u - L_{u-1}``, which telescope. An episode that ends inside an unroll
    ends the unroll (``Values.ended``; the rest of ``Values.losses`` is NaN), and the lane is reset when it
    is asked again. A member without a lane gets a fresh inner problem for one unroll, which is not kept.

    ``Batch.data`` numbers the randomness: all draws of ``reset`` and ``step`` are functions of (``seed``, number,
    t). Members that share a number see the same data; without numbers every episode of a lane has its own.

    Args:
        reset: ``data -> state`` of one inner problem: an array, a number, or a tuple or dictionary of these;
            ``data`` (:class:`~dfo.oracles.lanes.Draws`) draws what is random. With ``vectorized``, of ``n`` of them,
            for the ``(n,)`` numbers ``data.number``: arrays with a leading lane axis.
        step: ``(theta, state, t, data) -> (state, loss)`` or ``(state, loss, done)``, where ``done`` says that
            the inner problem ended with this step. With ``vectorized``: ``(n, d)`` points (named parameters: a
            dictionary of ``(n,)`` arrays), arrays with a lane axis, ``(n,)`` times, ``(n,)`` losses. It may overwrite
            its arguments.
        steps: inner steps of one unroll, K.
        horizon: inner steps of an episode, T; ``math.inf`` for one that ends by ``done`` only, or never.
        reduce: ``"sum"``, ``"mean"``, ``"last"`` or ``"min"``.
        vectorized: whether ``reset`` and ``step`` take all lanes at once.
        final: ``(state, data) -> loss`` of a state, for ``reduce="last"``: evaluated at the end of every unroll
            on the data of the reset, so that differences are taken on the same data. The last step's loss by default.
        phase: the first episode of a lane ends after a random share of the horizon, so that lanes fall out of
            step; lanes with one data number keep in step.
        worst: losses that are larger, or no number, count as this: the loss of a constant predictor, say.
        chunk: most lanes that one call of ``step`` gets, or None; changes memory, not results.
        seed: of the data.

    Raises:
        InvalidType: ``reset`` or ``step`` is no function.
        InvalidArgument: ``steps``, ``horizon``, ``chunk`` below 1, an unknown ``reduce``, a mean without a horizon.

    Example:
        >>> import dfo, numpy as np
        >>> # learning rates of gradient descent on half a parabola from 1: the loss after 20 steps
        >>> oracle = dfo.Unrolled(
        ...     lambda data: 1.0,
        ...     lambda theta, w, t, data: ((1 - np.exp(theta[0])) * w, 0.5 * w * w),
        ...     steps=5, horizon=20,
        ... )
        >>> res = dfo.minimize(oracle, [-3.0], method=dfo.ESSingle(lr=0.1), budget=4000)
        >>> oracle.full(res.x) < 1.0 < 4.0 < oracle.full([-3.0])
        True
    """

    reset: Callable[[Draws], Any]
    step: Callable[[Any, Any, Any, Draws], tuple[Any, ...]]
    steps: int = 1
    horizon: float = math.inf
    reduce: Reduce = "sum"
    vectorized: bool = False
    final: Callable[[Any, Draws], Any] | None = None
    phase: bool = False
    worst: float | None = None
    chunk: int | None = None
    seed: int = 0
    gives: frozenset[str] = frozenset({"values", "ended"})
    max_batch: int | None = None
    price: float = 1.0

    def __post_init__(self) -> None:
        for name in ("reset", "step"):
            if not callable(getattr(self, name)):
                raise InvalidType(f"{name}: expected a function, got {short(getattr(self, name))}.")
        for name in ("steps", "horizon", "chunk"):
            value = getattr(self, name)
            whole = value is None or value == math.inf or value == int(value)
            if value is not None and not (value >= 1 and whole and (name == "horizon" or value < math.inf)):
                raise InvalidArgument(f"{name}: expected a whole number of at least 1, got {value!r}.")
        if self.reduce not in REDUCTIONS:
            raise InvalidArgument(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {self.reduce!r}.")
        if self.horizon == math.inf and (self.reduce == "mean" or self.phase):
            raise InvalidArgument("horizon: a mean and a phase need a finite one. Use reduce='sum', or give it.")

    # ------------------------------------------------------------------ the contract

    def start(self, lanes: int, key: Key) -> UnrolledMemory:
        """Return lanes that are all to be reset."""
        zero = np.zeros(lanes, np.int64)
        return UnrolledMemory(None, zero, zero + self._last, np.zeros(lanes), zero, key, 0)

    def evaluate(self, batch: Batch, memory: Any) -> tuple[Values, Any]:
        """Unroll every member by ``steps`` steps, or to the end of its episode.

        Raises:
            Halted: ``reset`` or ``step`` raised.
        """
        n, memory = len(batch), memory if isinstance(memory, UnrolledMemory) else self.start(0, Key(self.seed))
        if not n:
            return Values(np.empty(0), ended=np.zeros(0, bool), losses=np.empty((0, self.steps))), memory
        theta, draws = _points(batch, self.vectorized), self._draws(batch, memory)
        told, parts = [], []
        for at in range(0, n, self.chunk or n):
            index = np.arange(at, min(at + (self.chunk or n), n))
            lane = None if batch.lane is None else np.asarray(batch.lane)[index]
            try:
                begun = self._begun(lane, len(index), memory, draws.take(index))
                values, after = self._unrolled(rows(theta, index), begun, draws.take(index))
            except Exception as error:
                raise Halted(Values(np.empty(0)), n, error) from error
            told.append(values)
            parts.append(after)
        answer = told[0]
        for values in told[1:]:
            answer = answer.joined(values)
        if batch.lane is None:
            return answer, replace(memory, count=memory.count + n) if batch.data is None else memory
        return answer, self._kept(np.asarray(batch.lane), parts, answer, memory) if batch.commit else memory

    def whole(self) -> Unrolled:
        """Return the oracle whose unroll is an episode, for methods without lanes; an evaluation costs T/K."""
        if self.horizon == math.inf:
            raise InvalidArgument("horizon: whole() needs a finite one.")
        gives = frozenset({"values", "ranking"})
        return replace(
            self, steps=int(self.horizon), phase=False, gives=gives, price=math.ceil(self.horizon / self.steps)
        )

    def full(self, theta: Any, data: int | Sequence[int] = 0, steps: int | None = None) -> Any:
        """Return the loss of a whole episode, a mean over the data numbers ``data``.

        Args:
            theta: one point: ``(d,)``, a list, or named parameters; or ``(n, d)`` points.
            data: one number, or several.
            steps: length of the episode, the horizon by default.

        Returns:
            A number, or ``(n,)`` numbers for ``(n, d)`` points; infinite where the losses are no finite numbers.

        Raises:
            InvalidArgument: neither a horizon nor ``steps``.
        """
        length = self.horizon if steps is None else steps
        if length == math.inf:
            raise InvalidArgument("steps: an episode without a horizon has no end; say how many steps to run.")
        numbers = np.atleast_1d(np.asarray(data, dtype=np.int64))
        X: Any = theta if isinstance(theta, dict) or is_array(theta) else np.asarray(theta, dtype=float)
        several = is_array(X) and X.ndim == 2
        n = len(X) if several else 1
        tiled = np.tile(numbers, n)
        if isinstance(X, dict):
            batch: Batch = Items([X] * len(numbers), data=tiled)
        else:
            batch = Points((X if several else X[None])[np.repeat(np.arange(n), len(numbers))], data=tiled)
        runs = replace(self, steps=int(length), horizon=length, phase=False)
        try:
            told, _ = runs.evaluate(batch, ())
        except Halted as halted:
            raise (halted.__cause__ or halted) from None
        losses = told.f.reshape(n, -1).mean(axis=1)
        return losses if several else float(losses[0])

    # ------------------------------------------------------------------ inside

    @property
    def _last(self) -> int:
        return NEVER if self.horizon == math.inf else int(self.horizon)

    def _draws(self, batch: Batch, memory: UnrolledMemory) -> Draws:
        """Return the members' randomness: by number, else by lane and episode, else one after the other."""
        n, stream = len(batch), memory.key.child("data")
        if batch.data is not None:
            number, stream = np.asarray(batch.data, dtype=np.int64), Key(self.seed, ("data",))
        elif batch.lane is not None:
            lane = np.asarray(batch.lane)
            number = memory.episode[lane] * len(memory.age) + lane
        else:
            number, stream = memory.count + np.arange(n), memory.key.child("fresh")
        return Draws(number, np.full(n, BEFORE), stream)

    def _begun(self, lane: Ints | None, m: int, memory: UnrolledMemory, draws: Draws) -> _Rows:
        """Return the inner problems before the unroll: kept ones, and resets where an episode begins."""
        zero = np.zeros(m, np.int64)
        age = zero if lane is None else memory.age[lane]
        end = zero + self._last if lane is None else memory.end[lane]
        level = np.zeros(m) if lane is None else memory.level[lane]
        new = np.flatnonzero(age == 0)
        if len(new) == m:
            state = rows(self._reset(draws), np.arange(m))
        else:
            state = rows(memory.states, lane)
            if len(new):
                state = put(state, new, self._reset(draws.take(new)))
        if self.phase and lane is not None and len(new):
            end = np.where((age == 0) & (memory.episode[lane] == 0), self._last - self._offset(draws), end)
        return _Rows(state, age, end, level)

    def _offset(self, draws: Draws) -> Ints:
        """Return by how many steps each lane's first episode is shorter: equal for equal numbers."""
        stream = draws.key.child("phase")
        share = [float(uniform(stream.child(int(number)), (1,))[0]) for number in draws.number]
        return np.asarray(np.array(share) * self._last, dtype=np.int64)

    def _unrolled(self, theta: Any, begun: _Rows, draws: Draws) -> tuple[Values, _Rows]:
        """Run up to ``steps`` steps of each inner problem; those that end stand still."""
        m, state, age, end = len(begun.age), begun.state, begun.age, begun.end
        losses, ran = np.full((m, self.steps), np.nan), np.zeros((m, self.steps), bool)
        for k in range(self.steps):
            live = np.flatnonzero(age < end)
            if not len(live):
                break
            if len(live) == m:
                state, loss, done = self._step(theta, state, age, draws.at(age))
            else:
                part = self._step(rows(theta, live), rows(state, live), age[live], draws.take(live).at(age[live]))
                state, loss, done = put(state, live, part[0]), part[1], part[2]
            age = age.copy()
            age[live] += 1
            if done is not None:
                end = end.copy()
                end[live] = np.where(done, age[live], end[live])
            losses[live, k], ran[live, k] = loss, True
        after = _Rows(state, age, end, begun.level)
        f, level = self._merit(losses, ran, begun, after, draws)
        told = replace(values_of_array(f, m), ended=age >= end, losses=losses)
        return told, replace(after, level=level)

    def _merit(self, losses: Floats, ran: Any, begun: _Rows, after: _Rows, draws: Draws) -> tuple[Floats, Floats]:
        """Return ``(m,)`` values of the unroll, and the level of "last" and "min" after it."""
        with np.errstate(invalid="ignore", over="ignore"):
            if self.reduce in ("sum", "mean"):
                total = np.where(ran, losses, 0.0).sum(axis=1)
                return (total / self.horizon if self.reduce == "mean" else total), begun.level
            before = np.where(begun.age == 0, 0.0, begun.level)
            if self.reduce == "min":
                lowest = np.where(ran, losses, np.inf).min(axis=1, initial=np.inf)
                level = np.minimum(lowest, np.where(begun.age == 0, np.inf, begun.level))
            elif self.final is not None:
                level = self._clamped(self._final(after.state, draws))
            else:
                count = np.maximum(ran.sum(axis=1), 1)
                level = losses[np.arange(len(losses)), count - 1]
            return level - before, level

    def _kept(self, lane: Ints, parts: list[_Rows], told: Values, memory: UnrolledMemory) -> UnrolledMemory:
        """Return the lanes after an unroll; the memory before stays what it was."""
        age, end, level = (np.concatenate([getattr(p, name) for p in parts]) for name in ("age", "end", "level"))
        ended: Any = told.ended
        states = memory.states
        if states is None:
            states = blank(parts[0].state, len(memory.age))
        for at, part in zip(np.split(lane, np.cumsum([len(p.age) for p in parts])[:-1]), parts, strict=True):
            states = put(states, at, part.state)
        ages, ends, episodes, levels = memory.age.copy(), memory.end.copy(), memory.episode.copy(), memory.level.copy()
        ages[lane], ends[lane] = np.where(ended, 0, age), np.where(ended, self._last, end)
        levels[lane] = np.where(ended | ~np.isfinite(level), 0.0, level)
        episodes[lane] += ended
        return replace(memory, states=states, age=ages, end=ends, level=levels, episode=episodes)

    def _reset(self, draws: Draws) -> Any:
        if self.vectorized:
            return self.reset(draws)
        return stacked([self.reset(draws.take(i)) for i in range(len(draws.number))])

    def _step(self, theta: Any, state: Any, t: Ints, draws: Draws) -> tuple[Any, Floats, Any]:
        if self.vectorized:
            after, loss, *more = _answered(self.step(theta, state, t, draws))
            done = np.asarray(to_numpy(more[0]), bool) if more else None
            if np.shape(to_numpy(loss)) not in ((len(t),), (len(t), 1)):
                raise BadObjective(
                    f"step: expected {len(t)} losses, one a lane, got the shape {np.shape(to_numpy(loss))}."
                    " Take means within a lane only."
                )
            return after, self._clamped(loss), done
        each = [_answered(self.step(theta[i], rows(state, i), int(t[i]), draws.take(i))) for i in range(len(t))]
        done = np.array([bool(out[2]) for out in each]) if len(each[0]) > 2 else None
        return stacked([out[0] for out in each]), self._clamped([out[1] for out in each]), done

    def _final(self, state: Any, draws: Draws) -> Any:
        assert self.final is not None
        if self.vectorized:
            return self.final(state, draws)
        return [self.final(rows(state, i), draws.take(i)) for i in range(len(draws.number))]

    def _clamped(self, loss: Any) -> Floats:
        x = [float(v) for v in loss] if isinstance(loss, list) else to_numpy(loss)
        f = np.asarray(x, dtype=float).reshape(-1)
        return f if self.worst is None else np.where(f <= self.worst, f, self.worst)


def _answered(out: Any) -> Any:
    """Return what a step returned, if it is a pair or a triple.

    Raises:
        BadObjective: it is neither.
    """
    if not isinstance(out, (tuple, list)) or len(out) not in (2, 3):
        raise BadObjective(f"step: expected (state, loss) or (state, loss, done), got {short(out)}.")
    return out


def _points(batch: Batch, vectorized: bool) -> Any:
    """Return private copies of the members: one array, a dictionary of arrays, or a list."""
    if not vectorized:
        return list(members(batch))
    if isinstance(batch, Linear):
        return copy(batch.dense())
    items = members(batch)
    if items and isinstance(items[0], dict):
        return {name: np.array([item[name] for item in items]) for name in items[0]}
    return list(items)
