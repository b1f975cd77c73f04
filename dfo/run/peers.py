"""Other people's optimizers through the same door: same budget, stops, hooks and result.

``"scipy:<method>"`` takes the methods of ``scipy.optimize.minimize`` and the global ones
(:mod:`dfo.run.scipy_peers`); ``"pycma"`` is pycma's BIPOP-CMA-ES and ``"nevergrad:<name>"`` any entry of
nevergrad's registry (:mod:`dfo.run.guest_peers`). Each runs natively and calls the objective itself; the
hard budget, a stop or a failure ends it from inside the objective. Their internal state is theirs: they
are resumed by replay and exempt from the laws about state.

A step of a peer is one of its iterations where it reports them, else one evaluation; hooks are called
after every evaluation. Where an evaluation failed, the peer sees a wall above the worst value so far.
``options={"restart": True}`` starts a peer that has ended again, from random points, while budget is left.

scipy works in the user's coordinates where these are real numbers; everything else in the encoded ones
(the unit box).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np

from dfo.arrays import Floats, as_like, is_torch, to_numpy
from dfo.batch import Points
from dfo.components.restarts import restart_point
from dfo.errors import IncompatibleOracle, InvalidArgument, unknown
from dfo.feedback import Values
from dfo.random import Key
from dfo.run.manners import Guest, quiet
from dfo.run.session import ObjectiveRaised, Session
from dfo.secrets import scrub
from dfo.spaces import Box, Free

if TYPE_CHECKING:
    from dfo.run.setup import Setup

__all__ = [
    "PEERS",
    "SCIPY_GLOBAL",
    "SCIPY_LOCAL",
    "Attempt",
    "End",
    "Objective",
    "as_scipy_method",
    "is_peer",
    "peer_is_native",
    "run_peer",
    "scipy_name",
]

SCIPY_LOCAL: Mapping[str, str] = {
    "Nelder-Mead": "maxfev",
    "Powell": "maxfev",
    "CG": "maxiter",
    "BFGS": "maxiter",
    "L-BFGS-B": "maxfun",
    "TNC": "maxfun",
    "COBYLA": "maxiter",
    "COBYQA": "maxfev",
    "SLSQP": "maxiter",
    "trust-constr": "maxiter",
}
"""Methods of ``scipy.optimize.minimize``, and the option whose default could end them before the budget does."""

SCIPY_GLOBAL = ("differential_evolution", "dual_annealing", "direct", "shgo", "basinhopping")
"""Global optimizers of ``scipy.optimize``."""

PEERS = (*(f"scipy:{name}" for name in (*SCIPY_LOCAL, *SCIPY_GLOBAL)), "pycma", "nevergrad:<name>")
"""The names of peers, as users type them."""

T = TypeVar("T")

End: TypeAlias = tuple[str, str]
"""Status and sentence with which a peer ends by itself."""


def is_peer(method: str) -> bool:
    """Tell whether a name is a peer's.

    Raises:
        UnknownName: a scipy method that does not exist.
    """
    family, _, name = method.partition(":")
    if family == "scipy":
        if scipy_name(name) is None:
            raise unknown("scipy method", name, (*SCIPY_LOCAL, *SCIPY_GLOBAL))
        return True
    return family == "nevergrad" or method == "pycma"


def scipy_name(name: str) -> str | None:
    """Return scipy's spelling of a method, or None."""
    return next((known for known in (*SCIPY_LOCAL, *SCIPY_GLOBAL) if known.lower() == name.lower()), None)


def peer_is_native(setup: Setup) -> bool:
    """Tell whether a peer can work in the user's own coordinates: scipy on real vectors."""
    if not isinstance(setup.solver, str):
        return False
    real = isinstance(setup.space, Free) or (isinstance(setup.space, Box) and not setup.space.integer.any())
    return real and setup.solver.startswith("scipy:") and not is_torch(setup.x0)


# ---------------------------------------------------------------------- what a peer calls


class _Over(BaseException):
    """Ends a peer from inside the objective; not an ``Exception``, because some peers catch these."""


class Objective:
    """One point in, one finite number out, or the end of the run.

    Args:
        session: the books.

    Attributes:
        violation: total constraint violation of the point evaluated last.
        error: what is to be raised in place of the end of the peer.
        guest: the peer's claim on numpy's global generator, if it has one.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.violation = 0.0
        self.error: Exception | None = None
        self.guest: Guest | None = None
        self._best, self._worst = math.inf, -math.inf
        self._steps: int | None = None
        self._settled = 0

    def __call__(self, x: Any) -> float:
        """Evaluate a point; one outside the bounds is projected first."""
        return self._as_host(lambda: self._value(x))

    def proceed(self) -> None:
        """End the run if no evaluation can follow, for peers that must not even be asked for one more."""
        self._as_host(self._check_room)

    def _as_host(self, call: Callable[[], T]) -> T:
        """Run what is the user's: with the user's random state, and with exceptions that no peer can swallow."""
        try:
            if self.guest is None:
                return call()
            with self.guest.away():
                return call()
        except Exception as error:
            self.error = error
            raise _Over from error

    def _check_room(self) -> None:
        session = self.session
        if session.spent + session.price > session.budget:
            session.end("budget")
        if session.over():
            raise _Over

    def _value(self, x: Any) -> float:
        session = self.session
        if self.error is not None or session.over():
            raise _Over
        batch = Points(self._point(x)[None])
        told = session.evaluate(batch)
        if not isinstance(told, Values):
            raise _Over
        if told.violation is not None:
            self.violation = float(told.violation[0])
        session.after_step(batch, told)  # a hook sees the number of the iteration in progress
        if self._steps is not None:
            session.nit = self._steps
        value = float(told.f[0])
        if not math.isfinite(value):
            return self._wall()
        self._best, self._worst = min(self._best, value), max(self._worst, value)
        return value

    def _wall(self) -> float:
        """Return what a peer sees of a failure: worse than all values so far, and of their scale."""
        if self._worst == -math.inf:
            return 1e20
        return min(self._worst + max(self._worst - self._best, 1e-3 * abs(self._worst), 1e-9), sys.float_info.max)

    def _point(self, x: Any) -> Any:
        point, space = np.array(x, dtype=float).reshape(-1), self.session.encoding.inner
        return as_like(space.project(point) if isinstance(space, Box) else point, self.session.encoding.start)

    def user_point(self, x: Any) -> Any:
        """Return a point of the peer as the user's functions see it."""
        return self.session.encoding.decode(self._point(x)[None])[0]

    def step(self, *_: object, **__: object) -> None:
        """Count an iteration; a peer's callback."""
        self._steps = (self._steps or 0) + 1
        self.session.nit = self._steps

    def settle(self, iterations: int) -> None:
        """Take the peer's own count of its iterations, when it has ended."""
        self._settled += iterations
        self._steps = self.session.nit = self._settled


@dataclass(frozen=True, eq=False)
class Attempt:
    """What a peer is given: the first attempt, or one that ``restart`` adds.

    Args:
        f: the objective, in the peer's coordinates.
        setup: the run.
        start: ``(d,)`` in the peer's coordinates.
        key: stream of this attempt.
    """

    f: Objective
    setup: Setup
    start: Floats
    key: Key

    @property
    def name(self) -> str:
        """The peer, as the user typed it."""
        return str(self.setup.solver)

    @property
    def seed(self) -> int:
        """A seed for the peer's own generator; never 0, which would mean "the time" to some."""
        return self.key.words[0] % (2**31 - 2) + 1

    @property
    def cap(self) -> int:
        """A limit of evaluations or iterations that comes after the budget."""
        return 2 * self.f.session.budget + 1000

    @property
    def box(self) -> Box | None:
        """The bounds in the peer's coordinates, or None where no variable has any."""
        space = self.f.session.encoding.inner
        if not isinstance(space, Box):
            return None
        return space if bool((np.isfinite(space.lower) | np.isfinite(space.upper)).any()) else None

    def options(self, known: Collection[str] | None = None) -> dict[str, Any]:
        """Return the user's options for the peer; given what it knows, others are refused.

        Raises:
            UnknownName: names the nearest one.
        """
        options = {name: value for name, value in self.setup.options.items() if name != "restart"}
        for option in options:
            if known is None or option in known:
                continue
            if option == "tol":
                raise InvalidArgument(f"tol: {self.name} has no tolerance. Use stop=dfo.Stalled(n) instead.")
            raise unknown(f"option of {self.name}", option, {*known, "restart"})
        return options


# ---------------------------------------------------------------------- the run


def run_peer(setup: Setup, session: Session, known: Any = None) -> None:
    """Run the peer that ``setup.solver`` names until it or the session ends.

    Raises:
        IncompatibleOracle: the oracle gives no values, or the points are no vectors.
        InvalidArgument: an option or a constraint that the peer does not take.
        ObjectiveRaised: the objective raised, or the peer did after its first evaluation.
    """
    _check(setup, session)
    session.recommended = lambda: session.best_x
    start = session.encoding.start
    if known is not None and len(known[1]):
        lowest = int(np.argmin(known[1]))
        session.note_known(known[0][lowest], float(known[1][lowest]))
        if not setup.given:
            start = session.encoding.encode(known[0][lowest])
    f, end = Objective(session), None
    try:
        with quiet():
            end = _attempts(f, setup, np.array(to_numpy(start), dtype=float))
    except _Over:
        pass
    except Exception as error:
        if f.error is None:
            _give_up(setup, session, error)
    if f.error is not None:
        raise f.error
    if end is not None and not session.over():
        session.end(*end)


def _give_up(setup: Setup, session: Session, error: Exception) -> None:
    """Raise what the peer itself raised, with what was learned before."""
    if not session.nfev:
        raise error
    session.end("error", f"{setup.solver} raised {type(error).__name__}: {scrub(str(error))}")
    error.add_note(f"{setup.solver} raised this, not dfo, after {session.nfev} evaluations; see error.result.")
    raise ObjectiveRaised(error) from error


def _check(setup: Setup, session: Session) -> None:
    if "values" not in session.oracle.gives:
        raise IncompatibleOracle(
            f"{setup.solver} needs values, but the oracle gives {', '.join(sorted(session.oracle.gives))}."
            " These methods would do: cma, sep-cma, random."
        )
    if not isinstance(session.encoding.inner, (Free, Box)):
        raise IncompatibleOracle(f"{setup.solver} moves vectors, but the points are text. Use method='random'.")


def _attempts(f: Objective, setup: Setup, start: Floats) -> End:
    from dfo.run.guest_peers import run_nevergrad, run_pycma
    from dfo.run.scipy_peers import run_scipy

    family = str(setup.solver).partition(":")[0]
    run: Callable[[Attempt], End] = {"scipy": run_scipy, "pycma": run_pycma, "nevergrad": run_nevergrad}[family]
    session, number, x0 = f.session, 0, start
    while True:
        before = session.nfev
        attempt = Attempt(f, setup, x0, setup.key.child("peer", number))
        end = run(attempt)
        if not setup.options.get("restart") or session.nfev == before or session.over():
            return end
        number += 1
        x0 = restart_point(attempt.box, start, 0.5, setup.key.child("restart", number))


# ---------------------------------------------------------------------- dfo as a method of scipy


def as_scipy_method(  # noqa: PLR0913  (what scipy's own signature has no word for)
    method: Any = "auto",
    *,
    budget: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    workers: Any = None,
    known: Any = None,
    noise: bool | float | None = None,
    timeout: float | str | None = None,
    stop: Any = None,
    on_error: Literal["raise", "record"] = "raise",
) -> Callable[..., Any]:
    """Return a dfo method in the form that ``scipy.optimize.minimize(method=...)`` takes.

    Args:
        method: as in :func:`dfo.minimize`, like all that follows.
        budget: most evaluations.
        seed: any integer >= 0.
        batch: evaluations per step.
        workers: processes, an executor or a ``map``.
        known: points and values from before.
        noise: whether equal points may get different values.
        timeout: seconds, or a text such as ``"10m"``.
        stop: further reasons to end.
        on_error: ``"raise"`` or ``"record"``.

    Returns:
        A function ``(fun, x0, args, **options)`` that returns scipy's ``OptimizeResult`` with the fields of
        :class:`~dfo.Result`; ``status`` is 0 on success and 1 otherwise, as scipy's users expect.

    Example:
        >>> import dfo, scipy.optimize
        >>> f = lambda x: float(x @ x)
        >>> scipy.optimize.minimize(f, [1.0, 2.0], method=dfo.as_scipy_method("cma", budget=500)).fun < 1e-6
        True
    """

    def run(fun: Callable[..., Any], x0: Any, args: tuple[Any, ...] = (), **options: Any) -> Any:
        from scipy.optimize import OptimizeResult

        from dfo.run.minimize import minimize

        for gradient in ("jac", "hess", "hessp"):
            options.pop(gradient, None)
        bounds, callback, tol = (options.pop(name, None) for name in ("bounds", "callback", "tol"))
        constraints = options.pop("constraints", ())
        result = minimize(
            fun, x0, args, method, bounds, constraints, tol, callback, options,
            budget=budget, seed=seed, batch=batch, workers=workers, known=known, noise=noise, timeout=timeout,
            stop=stop, on_error=on_error,
        )  # fmt: skip
        return OptimizeResult({**{name: result[name] for name in result}, "status": 0 if result.success else 1})

    return run
