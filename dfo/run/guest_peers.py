"""pycma and nevergrad, run natively: ``"pycma"`` and ``"nevergrad:<name>"``.

Both work in encoded coordinates and both draw from numpy's global generator, which they are lent
(:mod:`dfo.run.manners`). Neither prints, and pycma writes no files.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from dfo.arrays import Floats
from dfo.components.restarts import restart_point
from dfo.errors import InvalidArgument, MissingPackage, unknown
from dfo.run.manners import Guest, load
from dfo.run.peers import Attempt, End

__all__ = ["run_nevergrad", "run_pycma"]


def _load(peer: str, package: str) -> Any:
    try:
        return load(package)
    except ImportError as error:
        raise MissingPackage(
            f"method: {peer!r} needs the package {package} ({error}). Run: pip install 'dfo-optim[peers]'."
        ) from None


def _lend(attempt: Attempt) -> Guest:
    attempt.f.guest = Guest(attempt.seed)
    return attempt.f.guest


def run_pycma(attempt: Attempt) -> End:
    """Run pycma's ``fmin2``, with BIPOP restarts from random points where a budget was granted.

    Its options are those of ``cma.CMAOptions``, and ``sigma``, ``population``, ``bipop`` and ``tol``.
    """
    with _lend(attempt).here():
        cma = _load("pycma", "cma")
        options = attempt.options([*cma.CMAOptions.defaults(), "sigma", "population", "bipop", "tol"])
        if attempt.setup.constraints:
            raise InvalidArgument("pycma takes no constraints here; method='cma' does.")
        box = attempt.box
        sigma = float(options.pop("sigma", 0.2 if box is not None and bool(box.bounded.all()) else 0.5))
        bipop = bool(options.pop("bipop", attempt.setup.granted is not None and not attempt.setup.noisy))
        if "population" in options:
            options["popsize"] = options.pop("population")
        if "tol" in options:
            options["tolx"] = options["tolfun"] = options.pop("tol")
        fixed = {"verbose": -9, "verb_log": 0, "verb_disp": 0, "maxfevals": attempt.cap, "seed": attempt.seed}
        bounds = {} if box is None else {"bounds": [box.lower, box.upper]}
        numbers = count()

        def begin() -> Floats:
            number = next(numbers)
            if not number:
                return attempt.start
            return restart_point(attempt.box, attempt.start, sigma, attempt.key.child("restart", number))

        def note(es: Any) -> None:
            session = attempt.f.session
            session.recommended = lambda: attempt.f.user_point(es.result.xfavorite)
            session.gauges = lambda: {"sigma": float(es.sigma), "population": float(es.popsize)}

        _, es = cma.fmin2(
            attempt.f, begin, sigma, {**fixed, **bounds, **options},
            restarts=9 if bipop else 0, bipop=bipop, callback=attempt.f.step, init_callback=note,
        )  # fmt: skip
    reasons = dict(es.stop())
    limited = reasons.keys() & {"maxiter", "maxfevals", "timeout"}
    return "steps" if limited else "finished", f"pycma: {', '.join(f'{name}={v}' for name, v in reasons.items())}."


def run_nevergrad(attempt: Attempt) -> End:
    """Ask and tell an optimizer of nevergrad's registry; its only option is ``num_workers``."""
    guest = _lend(attempt)
    with guest.here():
        nevergrad = _load(attempt.name, "nevergrad")
        f, name = attempt.f, attempt.name.partition(":")[2] or "NGOpt"
        registry = nevergrad.optimizers.registry
        if name not in registry:
            raise unknown("nevergrad optimizer", name, registry)
        options = {"num_workers": 1, **attempt.options(["num_workers"])}
        box = attempt.box
        sides = {} if box is None or not box.bounded.all() else {"lower": box.lower, "upper": box.upper}
        space = nevergrad.p.Array(init=attempt.start, **sides)
        space.random_state = np.random.RandomState(attempt.seed)
        optimizer = registry[name](parametrization=space, budget=max(f.session.budget, 1), **options)

        def recommended() -> Any:
            with guest.here():
                return f.user_point(optimizer.provide_recommendation().value)

        f.session.recommended = recommended
        try:
            while True:
                f.proceed()
                candidate = optimizer.ask()
                value = f(candidate.value)
                optimizer.tell(candidate, value, *([f.violation] if attempt.setup.constraints else []))
        except nevergrad.errors.NevergradEarlyStopping as reason:
            return "finished", f"nevergrad's {name} stopped: {reason}."
