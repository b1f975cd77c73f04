"""Ranking: a person compares, and never gives a number. Here a judge function stands for the person.

The judge sees at most six colors at a time, names the best three, and sometimes is tired and skips. A method
that needs only rankings finds the color that the judge likes.
"""

import numpy as np

import dfo

FAVORITE = np.array([0.13, 0.55, 0.42])  # red, green, blue; unknown to the solver
questions = []


def judge(colors):
    """Returns the indices of the best three, best first; None skips the question."""
    questions.append(colors)
    if len(questions) % 7 == 0:
        return None
    distance = [np.abs(color - FAVORITE).sum() for color in colors]
    return np.argsort(distance)[:3].tolist()


res = dfo.minimize(
    dfo.RankOracle(judge, max_batch=6),
    bounds=[(0, 1)] * 3,
    budget=240,
    seed=1,
)

print(f"chosen: {res.method.partition('(')[0]}, because {res.reason}")
print(f"{len(questions)} questions of at most six colors, {res.nfev} colors shown")
print(f"recommended: {res.x.round(2)}")
print(f"favorite:    {FAVORITE}")
