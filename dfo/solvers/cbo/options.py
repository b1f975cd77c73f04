"""The options of consensus-based optimisation: what is allowed, and what is filled in for a task."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from dfo.errors import DfoWarning, InvalidArgument
from dfo.protocols import Task
from dfo.solvers.cbo.dynamics import NOISES, Noise
from dfo.solvers.cbo.mirror import MIRRORS

if TYPE_CHECKING:
    from dfo.solvers.cbo.solver import CBO

__all__ = ["MANY", "UNSTABLE", "at_step", "check", "filled"]

MANY = 100
"""Variables from which on the default noise is isotropic."""

UNSTABLE = 1.56
"""``sigma sqrt(dt)`` above which ``E ln|1 - lambda dt + sigma sqrt(dt) z| > 0``: particles leave almost surely."""

NAMES: dict[str, tuple[str | None, ...]] = {
    "update": ("partial", "full"),
    "noise": (*NOISES, None),
    "scheme": ("euler", "exponential", "hopping"),
    "mirror": MIRRORS,
    "restarts": ("same", "none", None),
}
POSITIVE = ("dt", "drift", "eta", "limit", "kappa", "size")
NOT_NEGATIVE = ("alpha", "sigma", "jump_rate", "heaviside", "memory", "memory_sigma", "jump_sigma", "kick", "xtol")


def at_step(number: Any, step: int) -> float:
    """Return a number, or what a schedule says at a step; None is 0."""
    return float(number(step)) if callable(number) else float(number or 0.0)


def check(o: CBO) -> None:
    """Judge options one by one, then together.

    Raises:
        InvalidArgument: a name that does not exist, a number out of its range, or two that exclude each other.
    """
    for name, known in NAMES.items():
        if getattr(o, name) not in known:
            words = ", ".join(map(str, known))
            raise InvalidArgument(f"{name}: expected one of {words}, got {getattr(o, name)!r}.")
    if isinstance(o.alpha, str) and o.alpha != "ess":
        raise InvalidArgument(f'alpha: expected "ess", a number or a function of the step, got {o.alpha!r}.')
    for name in (*POSITIVE, *NOT_NEGATIVE):
        value, least = getattr(o, name), "above" if name in POSITIVE else "at or above"
        most = 1.0 if name == "eta" else 1e150  # a share of the particles
        if isinstance(value, (int, float)) and not (0 < value <= most or (value == 0 and name in NOT_NEGATIVE)):
            raise InvalidArgument(f"{name}: expected a number {least} 0 and at most {most:g}, got {value!r}.")
    for name in ("population", "batch"):
        value = getattr(o, name)
        if value is not None and (value != int(value) or value < 2):
            raise InvalidArgument(f"{name}: expected an integer >= 2, got {value!r}.")
    _together(o)


def _together(o: CBO) -> None:
    if not 0 <= o.inertia < 1:
        raise InvalidArgument(f"inertia: expected a mass in [0, 1), got {o.inertia!r}.")
    if o.scheme != "exponential" and o.drift * (o.dt or 0.0) > 1.0:
        raise InvalidArgument(f"drift * dt: expected at most 1, got {o.drift * (o.dt or 0.0):g}. Lower dt.")
    extra = [name for name in ("memory", "inertia", "kappa", "limit") if getattr(o, name)]
    if extra and (o.noise == "covariance" or o.scheme == "hopping"):
        raise InvalidArgument(f"{extra[0]}: not with covariance noise or hopping. Drop one of the two.")
    if o.noise == "covariance" and o.update == "full":
        raise InvalidArgument("update: covariance noise moves the particles that made it. Use update='partial'.")


def filled(o: CBO, task: Task) -> dict[str, Any]:
    """Return the fields that a task decides.

    Below :data:`MANY` variables noise is anisotropic, strong and short-lived (``sigma sqrt(dt) = 0.9``). From there
    on the coordinates of such a swarm fall asleep one by one: noise is isotropic, drift takes all, and a particle
    keeps 95 % of its squared distance in the mean, ``(1 - lambda dt)^2 + d sigma^2 dt = 0.95``.
    """
    d = task.space.dim
    noise: Noise = o.noise or ("anisotropic" if d < MANY else "isotropic")
    usual = 10 + 10 * math.log(d) if d < MANY else 100
    population = o.population or max(10, task.batch or 0, round(min(usual, (task.budget or 10**9) / 50)))
    curved = o.mirror in ("entropy", "barrier")
    dt = o.dt or (1.0 if noise == "isotropic" or o.scheme == "hopping" or curved else 0.2)
    sigma = _usual_sigma(o, noise, dt, d) if o.sigma is None else o.sigma
    strength = at_step(sigma, 0) * math.sqrt(dt)
    if strength > UNSTABLE and noise == "anisotropic" and o.scheme != "hopping" and not (o.limit or curved):
        warnings.warn(
            f"sigma sqrt(dt) is {strength:.3g}: above {UNSTABLE} particles leave almost surely. Lower sigma or dt.",
            DfoWarning, stacklevel=4,
        )  # fmt: skip
    wanted = task.batch is not None and task.batch < population
    return {
        "population": population, "noise": noise, "dt": dt, "sigma": sigma, "space": o.space or task.space,
        "batch": max(2, task.batch or 0) if o.batch is None and wanted else o.batch,
        "size": o.size or (1.0 if d < MANY else 0.3),
        "kick": o.kick if o.kick is not None else (1e-5 if task.noisy else 0.0),
        "restarts": o.restarts or ("none" if task.budget is None or task.noisy else "same"),
    }  # fmt: skip


def _usual_sigma(o: CBO, noise: Noise, dt: float, d: int) -> float:
    if o.scheme == "hopping":
        return 0.1
    if noise == "anisotropic":  # a mirror map of this kind shortens steps four times and more
        return (4.0 if o.mirror in ("entropy", "barrier") else 0.9) / math.sqrt(dt)
    lost = 0.95 - (1.0 - o.drift * dt) ** 2  # what drift takes of a squared distance, noise brings back
    return math.sqrt(max(lost, 0.01) / (dt * (d if noise == "isotropic" else 1)))
