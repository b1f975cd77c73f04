"""scipy's optimizers, run natively: ``"scipy:<method>"``.

Variables that equal bounds fix are taken out before scipy sees the problem: half of its methods cannot
divide by the width of such an interval.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dfo.arrays import Floats, namespace, to_numpy
from dfo.errors import InvalidArgument
from dfo.run.manners import load
from dfo.run.peers import SCIPY_GLOBAL, SCIPY_LOCAL, Attempt, End, peer_is_native, scipy_name

__all__ = ["run_scipy"]

_CONSTRAINED = ("COBYLA", "COBYQA", "SLSQP", "trust-constr", "differential_evolution", "shgo")
_UNBOUNDED = ("CG", "BFGS")
_DIFFERENCES = dict.fromkeys(("CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP"), "eps")
_DIFFERENCES["trust-constr"] = "finite_diff_rel_step"
_OURS = {"func", "args", "bounds", "callback", "constraints", "rng", "seed", "vectorized", "workers", "x0"}


class _View:
    """The problem in scipy's coordinates: those of the peer that are not fixed."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, box = attempt, attempt.box
        self.bounded = box is not None
        endless = np.full(len(attempt.start), np.inf)
        lower, upper = (-endless, endless) if box is None else (box.lower, box.upper)
        self.free = lower < upper
        self.plain = bool(self.free.all()) and peer_is_native(attempt.setup)
        self.x0, self.lower, self.upper = attempt.start[self.free], lower[self.free], upper[self.free]

    def full(self, z: Any) -> Floats:
        """Return the peer's point, with the fixed variables in their places."""
        if self.free.all():
            return np.reshape(z, -1)
        x = self.attempt.start.copy()
        x[self.free] = np.reshape(z, -1)
        return x

    def __call__(self, z: Any) -> float:
        return self.attempt.f(self.full(z))

    def constraints(self, optimize: Any, name: str) -> Sequence[Any]:
        """Return the user's constraints in scipy's coordinates, in a form that the method takes."""
        given = self.attempt.setup.constraints
        several = list(given) if isinstance(given, (list, tuple)) else [given]
        if name == "shgo":  # which asks a NonlinearConstraint about an infinite point
            return [part for c in several for part in _as_dicts(*self._parts(c))]
        dicts = name != "differential_evolution"
        keep = [self.plain and (dicts or not isinstance(c, Mapping)) for c in several]
        return [c if k else optimize.NonlinearConstraint(*self._parts(c)) for c, k in zip(several, keep, strict=True)]

    def _parts(self, c: Any) -> tuple[Callable[[Any], Floats], Any, Any]:
        """Return a constraint as a function of scipy's point between a lower and an upper bound."""
        user = self.attempt.f.user_point
        if isinstance(c, Mapping):
            fun, args, upper = c["fun"], tuple(c.get("args", ())), 0.0 if c["type"] == "eq" else np.inf
            return lambda z: to_numpy(fun(user(self.full(z)), *args)), 0.0, upper
        if hasattr(c, "A"):
            matrix = np.atleast_2d(np.asarray(c.A, dtype=float))
            return lambda z: matrix @ to_numpy(user(self.full(z))), c.lb, c.ub
        return lambda z: to_numpy(c.fun(user(self.full(z)))), c.lb, c.ub


def _as_dicts(g: Callable[[Any], Floats], lower: Any, upper: Any) -> list[dict[str, Any]]:
    """Return ``lower <= g(z) <= upper`` in scipy's older form."""
    lower, upper = np.atleast_1d(lower), np.atleast_1d(upper)
    if np.array_equal(lower, upper):
        return [{"type": "eq", "fun": lambda z: np.atleast_1d(g(z)) - lower}]
    sides = []
    for sign, bound in ((1.0, lower), (-1.0, upper)):
        rows = np.isfinite(bound)
        if rows.any():
            sides.append({"type": "ineq", "fun": _side(g, sign, bound, rows)})
    return sides


def _side(g: Callable[[Any], Floats], sign: float, bound: Floats, rows: Any) -> Callable[[Any], Floats]:
    def fun(z: Any) -> Floats:
        excess: Floats = sign * (np.atleast_1d(g(z)) - bound)
        return excess if rows.all() else excess[rows]

    return fun


def run_scipy(attempt: Attempt) -> End:
    """Run a method of ``scipy.optimize``; its options are scipy's own."""
    optimize: Any = load("scipy.optimize")
    name = scipy_name(attempt.name.partition(":")[2])
    assert name is not None
    if attempt.setup.constraints and name not in _CONSTRAINED:
        raise InvalidArgument(f"scipy's {name} takes no constraints; these do: {', '.join(_CONSTRAINED)}.")
    view = _View(attempt)
    if not view.free.any():
        view(view.x0)
        return "finished", "All independent variables were fixed by bounds."
    result = (_global if name in SCIPY_GLOBAL else _local)(attempt, view, optimize, name)
    if "nit" in result:
        attempt.f.settle(int(result.nit))
    attempt.f.session.recommended = lambda: attempt.f.user_point(view.full(result.x))
    return _end(result)


def _end(result: Any) -> End:
    message = result.message if isinstance(result.message, str) else "; ".join(map(str, result.message))
    if result.success:
        return "finished", message
    limited = re.search(r"(?i)\blimit\b|max\w*\.? (number|no\b)|maxfun|maxfev|maxiter", message)
    return "steps" if limited else "unconverged", message


# ---------------------------------------------------------------------- scipy.optimize.minimize


def _local(attempt: Attempt, view: _View, optimize: Any, name: str) -> Any:
    options = attempt.options()
    tol = options.pop("tol", None)
    _check(attempt, optimize, name)
    options = {**_defaults(attempt, view, name), **options}
    bounds = None
    if view.bounded and name not in _UNBOUNDED:  # for these two, points outside are projected
        inside = bool(((view.lower < view.x0) & (view.x0 < view.upper)).all())
        bounds = optimize.Bounds(view.lower, view.upper, keep_feasible=name == "trust-constr" and inside)
    return optimize.minimize(
        view, view.x0, method=name, bounds=bounds, tol=tol, options=options, callback=attempt.f.step,
        constraints=view.constraints(optimize, name) if attempt.setup.constraints else (),
    )  # fmt: skip


def _check(attempt: Attempt, optimize: Any, name: str) -> None:
    """Refuse options that scipy would only warn about, by its own documentation."""
    text = optimize.show_options("minimize", name, disp=False) or ""
    section = re.split(r"\n\s*Options\n\s*-{3,}", text)[-1]
    section = re.split(r"\n\s*(?:Returns|Notes|References|Examples)\n\s*-{3,}", section)[0]
    documented = re.findall(r"^ *(\w+(?:, *\w+)*) ?: ", section, re.MULTILINE)
    known = {word for words in documented for word in re.split(r", *", words)} - _OURS | {"tol"}
    if len(known) > 1:  # python -OO leaves nothing to read
        attempt.options(known)


def _defaults(attempt: Attempt, view: _View, name: str) -> dict[str, Any]:
    """Return the options whose defaults in scipy do not fit this run."""
    options: dict[str, Any] = {SCIPY_LOCAL[name]: attempt.cap}
    if name in _DIFFERENCES:
        options |= _step(attempt, _DIFFERENCES[name])
    if name in _UNBOUNDED and view.bounded:  # a difference across the bound would be taken on a flat part
        step = options.get("eps", 1.5e-8)
        options["eps"] = np.where(view.x0 + step > view.upper, -step, step)
    quarter = float((view.upper - view.lower).min()) / 4
    if name == "COBYLA" and quarter < 1.0:  # its first steps, of length 1, would leave the box
        options |= {"rhobeg": quarter, "tol": 1e-4 * quarter}
    return options


def _step(attempt: Attempt, word: str) -> dict[str, float]:
    """Return the option for differences where scipy's step does not fit: in single precision, x + 1.5e-8 is x."""
    like = attempt.f.session.encoding.start
    precision = float(namespace(like).finfo(like.dtype).eps)
    return {word: precision**0.5} if precision > 1e-12 else {}


# ---------------------------------------------------------------------- the global ones


def _global(attempt: Attempt, view: _View, optimize: Any, name: str) -> Any:
    fun = getattr(optimize, name)
    accepted = set(inspect.signature(fun).parameters)
    extra = _global_options(attempt, name, accepted - _OURS)
    if "x0" in accepted:
        extra["x0"] = view.x0
    if accepted & {"rng", "seed"}:  # "seed" before scipy 1.15
        extra["rng" if "rng" in accepted else "seed"] = np.random.default_rng(attempt.seed)
    if attempt.setup.constraints:
        extra["constraints"] = view.constraints(optimize, name)
    if name != "dual_annealing":  # which calls back when it has found a minimum, not after an iteration
        extra["callback"] = attempt.f.step
    if name == "basinhopping":
        tol, inner = extra.pop("tol", None), dict(extra.pop("minimizer_kwargs", {}))
        if view.bounded:
            inner = {"method": "L-BFGS-B", "bounds": optimize.Bounds(view.lower, view.upper), **inner}
        return fun(view, **extra, minimizer_kwargs={"tol": tol, "options": _step(attempt, "eps"), **inner})
    if not np.isfinite([view.lower, view.upper]).all():
        raise InvalidArgument(f"scipy's {name} needs finite bounds for every variable. Pass bounds=[(low, high), ...].")
    return fun(view, list(zip(view.lower, view.upper, strict=True)), **extra)


def _global_options(attempt: Attempt, name: str, known: set[str]) -> dict[str, Any]:
    limits = {"direct": ("maxfun", "maxiter"), "dual_annealing": ("maxfun",)}.get(name, ())
    options = attempt.options(known | {"tol"} if name == "basinhopping" else known)
    return {**dict.fromkeys(limits, attempt.cap), **options}
