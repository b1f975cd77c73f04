"""Points that are no vectors: strings in ``Items``, over a ``dfo.Text`` space.

The exemplar is hill climbing: change one symbol at random, keep the best. It needs an order only, so a
person could guide it as well as a number. One wrong symbol of twelve is hit, and hit right, once in 324
draws over 27 symbols: about ``12 * 27 * (1 + 1/2 + ... + 1/12) = 1005`` draws in all.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import dfo
from dfo.batch import Items
from dfo.components.ranking import merits
from dfo.random import Key, integers
from dfo.run.packing import register
from dfo.run.stopping import MaxSteps

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
TARGET = "climb a hill"
BUDGET = 5000
"""Seven eighths of it are draws; one of the twelve symbols stays unfound with probability 12 (323/324)^4375 = 2e-5."""


def wrong_symbols(text):
    return sum(a != b for a, b in zip(text, TARGET, strict=True))


@register
@dataclass(frozen=True, eq=False)
class State:
    text: str
    key: Key
    step: int


@dataclass(frozen=True)
class HillClimb:
    """The best of a text and its mutants, again and again; the text itself is asked too, so ranks are enough."""

    mutants: int = 7
    space: Any = None

    needs: ClassVar = frozenset({"ranking"})

    def plan(self, task):
        return replace(self, space=task.space)

    def init(self, x0, key):
        return State(x0, key, 0)

    def mutant(self, text, key):
        at = integers(key.child("at"), len(text), (1,))[0]
        symbol = self.space.alphabet[integers(key.child("symbol"), len(self.space.alphabet), (1,))[0]]
        return text[:at] + symbol + text[at + 1 :]

    def ask(self, s):
        return Items([s.text, *(self.mutant(s.text, s.key.child(s.step, i)) for i in range(self.mutants))], step=s.step)

    def tell(self, s, batch, told):
        best = int(np.nanargmin(merits(told)))
        return replace(s, text=batch.member(best), step=s.step + 1)

    def recommend(self, s):
        return s.text


@pytest.mark.parametrize("seed", range(5))
def test_finds_a_text_of_twelve_symbols(seed):
    res = dfo.minimize(
        wrong_symbols, dfo.Text(ALPHABET, len(TARGET)), method=HillClimb(), budget=BUDGET, seed=seed, stop=dfo.Target(0)
    )
    assert res.x == TARGET
    assert res.success
    assert res.fun == 0.0
    assert res.nfev < BUDGET


def test_every_question_is_made_of_points_of_the_space():
    space = dfo.Text(ALPHABET, len(TARGET))
    asked = []
    dfo.minimize(lambda text: asked.append(text) or wrong_symbols(text), space, method=HillClimb(), budget=100)
    assert len(asked) == 100
    assert all(space.contains(text) for text in asked)


def test_a_judge_who_only_compares_will_do():
    """The whole run is the same, since only the order was ever used."""

    def judge(texts):
        return sorted(range(len(texts)), key=lambda i: wrong_symbols(texts[i]))

    space = dfo.Text(ALPHABET, len(TARGET))
    ranked = dfo.minimize(dfo.RankOracle(judge, max_batch=8), space, method=HillClimb(), budget=800)
    valued = dfo.minimize(wrong_symbols, space, method=HillClimb(), budget=800, noise=True)
    assert ranked.nfev == 800
    assert wrong_symbols(ranked.x) <= 6 < wrong_symbols("a" * 12)
    assert wrong_symbols(valued.x) <= 6


def test_a_failed_evaluation_is_not_climbed_to():
    with pytest.warns(dfo.errors.EvaluationWarning, match="ranked last"):
        res = dfo.minimize(
            lambda text: float("nan") if "z" in text else -text.count("z") - text.count("y"),
            dfo.Text("ayz", 6), method=HillClimb(), budget=400,
        )  # fmt: skip
    assert res.x == "y" * 6


def test_vectorized_objectives_get_the_list_of_texts():
    seen = []
    dfo.minimize(
        lambda texts: seen.append(texts) or [wrong_symbols(text) for text in texts],
        dfo.Text(ALPHABET, len(TARGET)), method=HillClimb(), budget=16, vectorized=True,
    )  # fmt: skip
    assert [len(texts) for texts in seen] == [8, 8]
    assert all(isinstance(text, str) for texts in seen for text in texts)


def test_saved_and_loaded_it_goes_on(begin, reloaded):
    def text_after(*stops):
        loop = begin(HillClimb(space=dfo.Text(ALPHABET, 12)), dfo.Function(wrong_symbols), np.zeros(12))
        loop.state = State("a" * 12, Key(3), 0)
        for steps in stops:
            loop.session.stop = MaxSteps(steps)
            loop.go()
            loop.state = reloaded(loop.state)
        return loop.state.text

    assert text_after(7, 50) == text_after(50)
