"""What a run returns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dfo.arrays import Floats, is_array, to_numpy
from dfo.random import RNG_VERSION

__all__ = ["STATUS", "History", "Result", "versions"]

STATUS: Mapping[str, str] = {
    "target": "The target value was reached.",
    "finished": "The solver finished.",
    "unconverged": "The solver gave up before it converged.",
    "budget": "The evaluation budget is spent.",
    "steps": "The number of steps granted is reached.",
    "time": "The time granted is over.",
    "stagnation": "The lowest value has not fallen for the evaluations granted.",
    "callback": "A hook ended the run.",
    "interrupted": "The run was interrupted.",
    "error": "The objective raised an exception.",
    "unstored": "The run ended because its store could not be written.",
    "all_failed": "No evaluation gave a usable value.",
}
"""Every status with its sentence; ``success`` is true for ``target`` and ``finished`` alone."""


@dataclass(frozen=True, eq=False)
class History:
    """The values of a run in the order of evaluation.

    Args:
        fun: ``(nfev,)`` values; infinite where an evaluation failed.
        violation: ``(nfev,)`` constraint violations, or None without constraints; infinite where a query that
            would have been the lowest lay beside the convex set of the run.
        sign: -1 when high values are better.
    """

    fun: Floats
    violation: Floats | None = None
    sign: int = 1

    @property
    def best_fun(self) -> Floats:
        """``(nfev,)`` best feasible value up to each evaluation; infinite before there is one."""
        cost = self.sign * self.fun
        feasible = cost if self.violation is None else np.where(self.violation <= 0.0, cost, np.inf)
        return self.sign * np.fmin.accumulate(feasible) if feasible.size else feasible

    @property
    def nfev(self) -> npt.NDArray[np.int64]:
        """``(nfev,)`` evaluation numbers from 1, for the x axis of a plot."""
        return np.arange(1, self.fun.size + 1)

    def __len__(self) -> int:
        return int(self.fun.size)

    def __repr__(self) -> str:
        return f"<History of {len(self)} values" + (f", best {self.best_fun[-1]:.6g}>" if len(self) else ">")


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of a run; every field is always there.

    Args:
        x: the point to use: the best feasible evaluated point, or the recommendation where values are noisy.
        fun: its value: as evaluated, or the mean of re-evaluations where values are noisy. NaN if unknown.
        success: whether the target was reached or the solver finished. Running out of budget or time is not
            success, although ``x`` is as good as it got.
        status: a key of :data:`STATUS`.
        message: the sentence that goes with it.
        nfev: evaluations spent.
        cost: what they cost in the oracle's unit; the same number where each costs 1.
        nit: steps (batches told).
        nfail: evaluations that gave no usable value.
        seconds: wall-clock duration.
        best_x: the point of the lowest value seen (with noise: lucky).
        best_fun: that value.
        fun_stderr: standard error of ``fun`` where values are noisy, else 0.
        violation: total constraint violation at ``x``; 0 where feasible.
        history: values in the order of evaluation.
        method: what ran, as it would be written in Python.
        reason: why ``auto`` chose it; empty if it did not choose.
        seed: the seed of the run.
        gauges: what the solver last reported about itself.
        versions: versions that made the numbers.

    Example:
        >>> import dfo
        >>> res = dfo.minimize(lambda x: float(x @ x), [1.0, 2.0], method="cma", budget=400)
        >>> res.fun < 1e-6, res.nfev <= 400
        (True, True)
    """

    x: Any
    fun: float
    success: bool
    status: str
    message: str
    nfev: int
    nit: int
    nfail: int
    seconds: float
    best_x: Any
    best_fun: float
    cost: float = 0.0
    fun_stderr: float = 0.0
    violation: float = 0.0
    history: History = field(default_factory=lambda: History(np.empty(0)))
    method: str = ""
    reason: str = ""
    seed: int = 0
    gauges: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def keys(self) -> list[str]:
        """Return the names of the fields, as scipy's result does."""
        return [f.name for f in fields(self)]

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def to_json(self) -> str:
        """Return everything but the history as one JSON object; numbers that JSON lacks become null."""
        content = {name: _plain(self[name]) for name in self.keys() if name != "history"}
        return json.dumps(content, indent=2)

    def negated(self) -> Result:
        """Return the result with the sign of every value turned, as :func:`dfo.maximize` reports it."""
        return replace(
            self,
            fun=-self.fun,
            best_fun=-self.best_fun,
            history=replace(self.history, fun=-self.history.fun, sign=-self.history.sign),
        )

    def __repr__(self) -> str:
        rows: list[tuple[str, Any]] = [
            ("message", self.message),
            ("success", self.success),
            ("status", self.status),
            ("fun", f"{self.fun:.10g}" + (f" +- {self.fun_stderr:.2g}" if self.fun_stderr else "")),
            ("x", _brief(self.x)),
            ("nfev", f"{self.nfev}" + (f" ({self.nfail} failed)" if self.nfail else "")),
            ("nit", self.nit),
            ("seconds", f"{self.seconds:.3g}"),
            ("method", self.method + (f"  # {self.reason}" if self.reason else "")),
            ("seed", self.seed),
        ]
        if self.violation:
            rows.insert(4, ("violation", f"{self.violation:.3g}"))
        return "\n".join(f"{name:>9}: {value}" for name, value in rows)


def _brief(x: Any) -> str:
    if is_array(x):
        return np.array2string(to_numpy(x), precision=6, threshold=12)
    text = repr(x)
    return text if len(text) < 400 else text[:397] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return _plain(value.item())
    if is_array(value):
        return [_plain(v) for v in to_numpy(value).tolist()]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, str)) else repr(value)


def versions() -> dict[str, str]:
    """Return the versions that a result's numbers depend on."""
    from dfo.version import __version__

    return {"dfo": __version__, "numpy": np.__version__, "rng": str(RNG_VERSION)}
