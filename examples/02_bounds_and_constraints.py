"""Bounds and constraints: the lightest beam that does not bend too far.

A cantilever beam of rectangular section carries a load at its end. Width and height (in meters) are to
be as small as possible, but the end may bend by 5 mm at most and the stress may not pass 100 MPa.
"""

from scipy.optimize import NonlinearConstraint

import dfo

LOAD, LENGTH, YOUNG, DENSITY = 2_000.0, 1.5, 210e9, 7_850.0


def mass(x):
    width, height = x
    return DENSITY * LENGTH * width * height


def limits(x):
    """Bending at the end in mm, and the highest stress in MPa."""
    width, height = x
    inertia = width * height**3 / 12
    return [1e3 * LOAD * LENGTH**3 / (3 * YOUNG * inertia), 1e-6 * LOAD * LENGTH * height / (2 * inertia)]


problem = {
    "x0": [0.1, 0.1],
    "bounds": [(0.01, 0.2), (0.01, 0.2)],
    "constraints": NonlinearConstraint(limits, [0, 0], [5, 100]),
    "budget": 1_000,
}
res = dfo.minimize(mass, **problem)
bending, stress = limits(res.x)
print(f"width {1e3 * res.x[0]:.1f} mm, height {1e3 * res.x[1]:.1f} mm, mass {res.fun:.2f} kg")
print(f"bends by {bending:.2f} mm of 5, stress {stress:.1f} MPa of 100, violation {res.violation:g}")

# The function is smooth and exact. Say so, and a method that models the constraints may be chosen.
exact = dfo.minimize(mass, **problem, noise=False)
for r in (res, exact):
    within = int((r.history.best_fun <= 1.01 * exact.fun).argmax()) + 1
    print(f"{r.method.partition('(')[0]:<13} within 1 % of the lightest after {within:>4} evaluations  # {r.reason}")
