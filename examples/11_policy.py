"""Policy search: the pole of CartPole is balanced without gradients, episodes as the only evaluations.

Needs gymnasium (pip install "dfo-optim[rl]"). All candidates of a step meet the same episodes, which is fair.
"""

import dfo
from dfo.batch import Points


def act(weights, seen):
    """Push left or right, by the sign of a linear function of position, speed, angle and angular speed."""
    return int(weights @ seen > 0)


pole = dfo.Policy("CartPole-v1", act)
res = dfo.minimize(pole, [0.0] * 4, method="openai-es", budget=120, noise=True)
print(f"{res.nfev} episodes, weights {res.x.round(2)}")

fresh, _ = dfo.Policy("CartPole-v1", act, episodes=5).evaluate(Points(res.x[None], step=10**6), dfo.Key(1))
print(f"mean return of five fresh episodes: {-fresh.f[0]:.0f} of 500")
