"""Returns of a policy in a gymnasium environment, as values to be minimised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from dfo.batch import Batch
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.feedback import Values
from dfo.oracles.function import Halted
from dfo.oracles.values import values_of
from dfo.random import Key, integers

__all__ = ["Policy"]


class Policy:
    """Minus the mean return of ``act(theta, observation) -> action``.

    ``Batch.data`` numbers the episodes: equal numbers are the same episodes, start and chance alike. Without numbers,
    the step's own number serves: all members of a step are compared on common random numbers. An episode ends when
    the environment ends or cuts it, or after ``max_steps``; a return that is no finite number is a failed
    evaluation, an exception ends the run with its result kept.

    Args:
        env: the id of an environment, or a function that makes one; one is made, when it is first needed.
        act: gets a point and an observation, as the environment gives it, and returns an action.
        episodes: in one evaluation.
        max_steps: most steps of an episode, or None for the environment's own limit.
        unit: what the budget counts: ``"episodes"``, or ``"steps"`` of the environment.

    Raises:
        InvalidType: ``env`` or ``act`` is nothing of the kind.
        InvalidArgument: a number below 1, an unknown unit, or steps to be counted without a limit.

    Example:
        >>> import dfo
        >>> pole = dfo.Policy("CartPole-v1", lambda theta, seen: int(theta @ seen > 0), episodes=3)  # doctest: +SKIP
        >>> dfo.minimize(pole, [0.0] * 4, method="cma", budget=300, noise=True).fun  # doctest: +SKIP
        -500.0
    """

    gives: frozenset[str] = frozenset({"values", "ranking"})
    max_batch: int | None = None

    def __init__(
        self,
        env: str | Callable[[], Any],
        act: Callable[[Any, Any], Any],
        *,
        episodes: int = 1,
        max_steps: int | None = None,
        unit: Literal["episodes", "steps"] = "episodes",
    ) -> None:
        if not isinstance(env, str) and not callable(env):
            raise InvalidType(f"env: expected an id such as 'CartPole-v1' or a function, got {short(env)}.")
        if not callable(act):
            raise InvalidType(f"act: expected a function of a point and an observation, got {short(act)}.")
        for name, value in (("episodes", episodes), ("max_steps", max_steps)):
            if value is not None and value < 1:
                raise InvalidArgument(f"{name}: expected at least 1, got {value!r}.")
        if unit not in ("episodes", "steps"):
            raise InvalidArgument(f'unit: expected "episodes" or "steps", got {unit!r}.')
        self.env, self.act, self.episodes, self.max_steps, self.unit = env, act, episodes, max_steps, unit
        self._made: Any = None

    @property
    def price(self) -> float:
        """What one evaluation costs at most.

        Raises:
            InvalidArgument: steps are counted, and neither the environment nor ``max_steps`` limits them.
        """
        if self.unit == "episodes":
            return float(self.episodes)
        limit = self.max_steps or getattr(getattr(self._world(), "spec", None), "max_episode_steps", None)
        if limit is None:
            raise InvalidArgument('max_steps: unit="steps" needs a limit, and the environment has none. Pass one.')
        return float(self.episodes * limit)

    def start(self, lanes: int, key: Key) -> Key:
        """Return the key of the episodes."""
        return key

    def evaluate(self, batch: Batch, memory: Key) -> tuple[Values, Key]:
        """Play the episodes of every member.

        Raises:
            Halted: the policy or the environment raised.
        """
        played: list[tuple[list[float], int]] = []
        for i in range(len(batch)):
            number = batch.step if batch.data is None else int(batch.data[i])
            try:
                played.append(self._evaluated(batch.member(i), memory.child(number)))
            except Exception as error:
                raise Halted(self._values(played), len(played) + 1, error) from error
        return self._values(played), memory

    def _values(self, played: list[tuple[list[float], int]]) -> Values:
        told = values_of([-float(np.mean(returns)) for returns, _ in played])
        spread = [np.std(r, ddof=1) if len(r) > 1 and np.isfinite(r).all() else 0.0 for r, _ in played]
        return Values(
            told.f, failed=told.failed, notes=told.notes,
            stderr=np.array(spread) / math.sqrt(self.episodes) if self.episodes > 1 else None,
            cost=np.array([steps for _, steps in played], dtype=float) if self.unit == "steps" else None,
        )  # fmt: skip

    def _evaluated(self, theta: Any, key: Key) -> tuple[list[float], int]:
        """Return the returns of the episodes, and the steps taken."""
        returns, steps = [], 0
        for k in range(self.episodes):
            total, taken = self._episode(theta, int(integers(key.child(k), 2**31, (1,))[0]))
            returns.append(total)
            steps += taken
        return returns, steps

    def _episode(self, theta: Any, seed: int) -> tuple[float, int]:
        env, total, steps, over = self._world(), 0.0, 0, False
        seen, _ = env.reset(seed=seed)
        while not over and (self.max_steps is None or steps < self.max_steps):
            seen, reward, ended, cut, _ = env.step(self.act(theta, seen))
            total, steps, over = total + float(reward), steps + 1, bool(ended or cut)
        return total, steps

    def _world(self) -> Any:
        """Return the environment, made when it is first needed.

        Raises:
            ImportError: gymnasium is not installed.
        """
        if self._made is None:
            if isinstance(self.env, str):
                try:
                    import gymnasium
                except ImportError:
                    raise ImportError("Policy needs gymnasium. Run: pip install 'dfo-optim[rl]'.") from None
                self._made = gymnasium.make(self.env)
            else:
                self._made = self.env()
        return self._made

    def close(self) -> None:
        """Close the environment; the next evaluation makes a new one."""
        made, self._made = self._made, None
        if made is not None:
            made.close()
