"""Other people's optimizers through the same door: same budget, stops, hooks and result.

``"scipy:<method>"`` takes any method of ``scipy.optimize.minimize`` and the global ones
(``differential_evolution``, ``dual_annealing``, ``direct``, ``shgo``, ``basinhopping``); ``"pycma"`` is
pycma's BIPOP-CMA-ES; ``"nevergrad:<name>"`` any entry of nevergrad's registry. Each runs natively, calling
the objective itself; a hard budget ends it from inside the objective. Their internal state is theirs:
they are resumed by replay and exempt from the laws about state.

scipy works in the user's coordinates; pycma and nevergrad in the encoded ones (the unit box).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dfo.arrays import Floats, is_torch, to_numpy
from dfo.batch import Points
from dfo.errors import DfoError, InvalidArgument, InvalidType, unknown
from dfo.feedback import Values
from dfo.run.session import Session
from dfo.spaces import Box, Free

if TYPE_CHECKING:
    from dfo.run.setup import Setup

__all__ = ["PEERS", "SCIPY_GLOBAL", "SCIPY_LOCAL", "as_scipy_method", "is_peer", "peer_is_native", "run_peer"]

SCIPY_LOCAL: Mapping[str, str] = {
    "Nelder-Mead": "maxfev",
    "Powell": "maxfev",
    "CG": "",
    "BFGS": "",
    "L-BFGS-B": "maxfun",
    "TNC": "maxfun",
    "COBYLA": "",
    "COBYQA": "maxfev",
    "SLSQP": "",
    "trust-constr": "",
}
"""Methods of ``scipy.optimize.minimize`` and their option for the most calls."""

SCIPY_GLOBAL = ("differential_evolution", "dual_annealing", "direct", "shgo", "basinhopping")

PEERS = (*(f"scipy:{name}" for name in (*SCIPY_LOCAL, *SCIPY_GLOBAL)), "pycma", "nevergrad:<name>")
"""The names of peers, as users type them."""

_CONSTRAINED = ("COBYLA", "COBYQA", "SLSQP", "trust-constr", "differential_evolution", "shgo")


def is_peer(method: str) -> bool:
    """Tell whether a name is a peer's.

    Raises:
        UnknownName: a scipy method that does not exist.
    """
    family, _, name = method.partition(":")
    if family == "scipy":
        if _scipy_name(name) is None:
            raise unknown("scipy method", name, (*SCIPY_LOCAL, *SCIPY_GLOBAL))
        return True
    return family == "nevergrad" or method == "pycma"


def _scipy_name(name: str) -> str | None:
    return next((known for known in (*SCIPY_LOCAL, *SCIPY_GLOBAL) if known.lower() == name.lower()), None)


class _Over(Exception):
    """Ends a peer from inside the objective."""


class _Objective:
    """What a peer calls: one point in, one finite number out, or the end of the run."""

    def __init__(self, session: Session) -> None:
        self.session, self.worst = session, -math.inf

    def __call__(self, x: Any) -> float:
        session = self.session
        if session.over():
            raise _Over
        batch = Points(np.array(x, dtype=float).reshape(1, -1))
        told = session.evaluate(batch)
        if not isinstance(told, Values):
            raise _Over
        session.after_step(batch, told)
        value = float(told.f[0])
        if math.isfinite(value):
            self.worst = max(self.worst, value)
            return value
        return self.worst if math.isfinite(self.worst) else 1e30  # a wall as high as what was seen


def run_peer(setup: Setup, session: Session, known: Any = None) -> None:
    """Run the peer that ``setup.solver`` names until it or the session ends."""
    family = setup.solver.partition(":")[0]
    objective = _Objective(session)
    options = dict(setup.options)
    restart = bool(options.pop("restart", False))
    start = np.asarray(to_numpy(session.encoding.start), dtype=float)
    box = session.encoding.inner
    run: Callable[[_Objective, Floats, Any, int, Mapping[str, Any], Setup], str]
    run = {"scipy": _scipy, "pycma": _pycma, "nevergrad": _nevergrad}[family]
    attempt = 0
    try:
        while True:
            seed = setup.key.child("peer", attempt).words[0] % (2**31 - 2) + 1  # 0 would mean "time" to some
            before = session.nfev
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                message = run(objective, start, box, seed, options, setup)
            if not restart or session.over() or session.nfev >= session.budget or session.nfev == before:
                break
            attempt += 1
            start = np.asarray(box.sample(setup.key.child("restart", attempt), 1)[0])
        session.end("finished", message)
    except _Over:
        session.end("budget")


# ---------------------------------------------------------------------- scipy


def _scipy(f: _Objective, x0: Floats, space: Any, seed: int, options: Mapping[str, Any], setup: Setup) -> str:
    from scipy import optimize

    name = _scipy_name(setup.solver.partition(":")[2])
    assert name is not None
    bounds = None
    if isinstance(space, Box):
        bounds = optimize.Bounds(space.lower, space.upper)
    if setup.constraints and name not in _CONSTRAINED:
        raise InvalidArgument(f"scipy's {name} takes no constraints; these do: {', '.join(_CONSTRAINED)}.")
    if name in SCIPY_GLOBAL:
        return _scipy_global(name, f, x0, bounds, seed, options, setup)
    options = dict(options)
    tol = options.pop("tol", None)
    cap = SCIPY_LOCAL[name]
    if cap:
        options.setdefault(cap, f.session.budget + 1)
    else:
        options.setdefault("maxiter", f.session.budget + 1)
    if bounds is not None and name in ("CG", "BFGS"):
        bounds = None  # no bounds in these two: points outside are projected before they are evaluated
    inside = f if bounds is not None or not isinstance(space, Box) else _Projected(f, space)
    result = optimize.minimize(
        inside, x0, method=name, bounds=bounds, constraints=setup.constraints or (), tol=tol, options=options
    )
    return str(result.message)


class _Projected:
    def __init__(self, f: _Objective, box: Box) -> None:
        self.f, self.box = f, box

    def __call__(self, x: Floats) -> float:
        return self.f(self.box.project(x))


def _scipy_global(
    name: str, f: _Objective, x0: Floats, bounds: Any, seed: int, options: Mapping[str, Any], setup: Setup
) -> str:
    from scipy import optimize

    fun = getattr(optimize, name)
    if name == "basinhopping":
        return str(fun(f, x0, rng=np.random.default_rng(seed), **options).message)
    if bounds is None or not (np.isfinite(bounds.lb).all() and np.isfinite(bounds.ub).all()):
        raise InvalidArgument(f"scipy's {name} needs finite bounds for every variable. Pass bounds=[(low, high), ...].")
    extra: dict[str, Any] = dict(options)
    if name in ("differential_evolution", "dual_annealing"):
        extra |= {"x0": x0, "rng": np.random.default_rng(seed)}
    if name in ("differential_evolution", "shgo") and setup.constraints:
        extra["constraints"] = setup.constraints
    if name == "direct":
        extra = {"maxfun": f.session.budget + 1, "maxiter": 10**6} | extra
    if name == "shgo":
        bounds = list(zip(bounds.lb, bounds.ub, strict=True))
    return str(fun(f, bounds, **extra).message)


# ---------------------------------------------------------------------- pycma, nevergrad


class _GlobalNumpy:
    """Puts numpy's global random state back: pycma seeds it."""

    def __enter__(self) -> None:
        self.state = np.random.get_state()  # noqa: NPY002

    def __exit__(self, *error: object) -> None:
        np.random.set_state(self.state)  # noqa: NPY002


def _pycma(f: _Objective, x0: Floats, space: Any, seed: int, options: Mapping[str, Any], setup: Setup) -> str:
    try:
        import cma
    except ImportError:
        raise _missing("pycma", "cma") from None
    options = dict(options)
    bounded = isinstance(space, Box)
    sigma = float(options.pop("sigma", 0.2 if bounded and bool(space.bounded.all()) else 0.5))
    bipop = bool(options.pop("bipop", setup.granted is not None))
    inner = {
        "seed": seed, "verbose": -9, "verb_log": 0, "verb_disp": 0, "maxfevals": f.session.budget + 1,
        "bounds": [space.lower, space.upper] if bounded else None,
    }  # fmt: skip
    if "tol" in options:
        inner |= {"tolx": options["tol"], "tolfun": options.pop("tol")}
    if "population" in options:
        inner["popsize"] = options.pop("population")
    with _GlobalNumpy():
        if len(x0) == 1:
            raise InvalidArgument("pycma needs at least two variables; dfo's own method='cma' takes one.")
        _, es = cma.fmin2(f, x0, sigma, {**inner, **options}, restarts=9 if bipop else 0, bipop=bipop)
    return f"pycma: {dict(es.stop())}"


def _nevergrad(f: _Objective, x0: Floats, space: Any, seed: int, options: Mapping[str, Any], setup: Setup) -> str:
    try:
        import nevergrad
    except ImportError:
        raise _missing("nevergrad", "nevergrad") from None
    name = setup.solver.partition(":")[2] or "NGOpt"
    registry = nevergrad.optimizers.registry
    if name not in registry:
        raise unknown("nevergrad optimizer", name, registry)
    point = nevergrad.p.Array(init=x0)
    if isinstance(space, Box) and space.bounded.all():
        point = point.set_bounds(space.lower, space.upper)
    point.random_state = np.random.RandomState(seed % 2**32)
    with _GlobalNumpy():
        optimizer = registry[name](parametrization=point, budget=f.session.budget, num_workers=1, **options)
        for _ in range(f.session.budget):
            candidate = optimizer.ask()
            optimizer.tell(candidate, f(candidate.value))
    return f"nevergrad's {name} has used its budget."


def _missing(peer: str, package: str) -> DfoError:
    return InvalidType(f"method: {peer!r} needs the package {package}. Run: pip install 'dfo-optim[peers]'.")


# ---------------------------------------------------------------------- dfo as a method of scipy


def as_scipy_method(method: Any = "auto", **fixed: Any) -> Callable[..., Any]:
    """Return a dfo method in the form that ``scipy.optimize.minimize(method=...)`` takes.

    Args:
        method: as in :func:`dfo.minimize`.
        **fixed: other arguments of :func:`dfo.minimize`, such as ``budget=500, seed=3``.

    Returns:
        A function ``(fun, x0, args, **options)`` that returns scipy's ``OptimizeResult``.

    Example:
        >>> import dfo, scipy.optimize
        >>> f = lambda x: float(x @ x)
        >>> scipy.optimize.minimize(f, [1.0, 2.0], method=dfo.as_scipy_method("cma", budget=500)).fun < 1e-6
        True
    """

    def run(fun: Callable[..., Any], x0: Any, args: tuple[Any, ...] = (), **options: Any) -> Any:
        from scipy.optimize import OptimizeResult

        from dfo.run.minimize import minimize

        ours = {k: options.pop(k) for k in ("bounds", "callback", "tol") if options.get(k) is not None}
        constraints = options.pop("constraints", None)
        for unused in ("jac", "hess", "hessp", "bounds", "callback", "tol"):
            options.pop(unused, None)
        if constraints is not None and constraints not in ((), []):
            ours["constraints"] = constraints
        result = minimize(fun, x0, args, method, options=options or None, **ours, **fixed)
        return OptimizeResult({name: result[name] for name in result})

    return run


def peer_is_native(setup: Setup) -> bool:
    """Tell whether a peer can work in the user's own coordinates: scipy on real vectors."""
    real = isinstance(setup.space, Free) or (isinstance(setup.space, Box) and not setup.space.integer.any())
    return real and setup.solver.startswith("scipy:") and not is_torch(setup.x0)
