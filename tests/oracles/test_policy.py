"""Policies in gymnasium's environments."""

import math
import warnings

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

import dfo  # noqa: E402
from dfo.batch import Points  # noqa: E402
from dfo.errors import EvaluationWarning, InvalidArgument, InvalidType  # noqa: E402
from dfo.random import Key, normal  # noqa: E402
from dfo.testing import check_oracle  # noqa: E402


def push(theta, seen):
    return int(theta @ seen > 0)


def pole(**options):
    return dfo.Policy("CartPole-v1", push, **options)


def values(oracle, X, **fields):
    return oracle.evaluate(Points(np.atleast_2d(X), **fields), Key(0))[0]


class Corridor:
    """Walk right for a reward; ends at 3, is cut after 5 steps; a point may ask for trouble."""

    spec = None

    def __init__(self):
        self.closed = False

    def reset(self, *, seed):
        self.at = self.steps = 0
        return np.zeros(1), {}

    def step(self, action):
        self.at, self.steps = self.at + action, self.steps + 1
        reward = {9: math.nan, 8: math.inf}.get(action, float(action))
        return np.array([self.at]), reward, self.at >= 3, self.steps >= 5, {}

    def close(self):
        self.closed = True


def corridor(**options):
    return dfo.Policy(Corridor, lambda theta, seen: int(theta[0]), **options)


@pytest.mark.parametrize("method", ["zo-mirror", "openai-es"])
def test_a_linear_policy_balances_the_pole(method):
    """500 on each of five episodes that were not trained on."""
    options = {"radius": 0.3} if method == "zo-mirror" else {}
    res = dfo.minimize(pole(), [0.0] * 4, method=method, budget=160, noise=True, options=options)
    assert values(pole(episodes=5), res.x, step=10**6).f[0] == -500.0


def test_the_value_is_minus_the_mean_return_of_gymnasiums_own_loop():
    from dfo.random import integers

    theta = np.array([0.0, 0.1, 1.0, 0.5])
    env, returns = gymnasium.make("CartPole-v1"), []
    for k in range(3):
        seen, _ = env.reset(seed=int(integers(Key(0).child(7, k), 2**31, (1,))[0]))
        total, over = 0.0, False
        while not over:
            seen, reward, ended, cut, _ = env.step(push(theta, seen))
            total, over = total + reward, ended or cut
        returns.append(total)
    told = values(pole(episodes=3), theta, data=np.array([7]))
    assert told.f[0] == -np.mean(returns)
    assert told.stderr[0] == pytest.approx(np.std(returns, ddof=1) / math.sqrt(3))


def test_equal_numbers_are_equal_episodes_and_a_step_is_one_number():
    theta = np.tile([1.0, 0.0, 0.0, 0.0], (4, 1))
    told = values(pole(), theta, data=np.array([1, 2, 1, 3]))
    assert told.f[0] == told.f[2]
    assert len(set(told.f.tolist())) > 1
    steps = [values(pole(), theta, step=k).f for k in range(5)]
    assert all((f == f[0]).all() for f in steps)
    assert len({f[0] for f in steps}) > 1


def test_episodes_end_are_cut_and_are_limited():
    assert values(corridor(), [1.0]).f.tolist() == [-3.0]  # ends
    assert values(corridor(), [0.0]).f.tolist() == [0.0]  # is cut
    told = values(corridor(max_steps=2, unit="steps", episodes=2), [[1.0], [3.0]])
    assert told.f.tolist() == [-2.0, -3.0]
    assert told.cost.tolist() == [4.0, 2.0]


def test_the_budget_counts_episodes_or_steps():
    res = dfo.minimize(pole(episodes=3), [0.0] * 4, method="random", budget=20, noise=True)
    assert res.nfev == 6  # 3 episodes each
    steps = pole(unit="steps")
    assert steps.price == 500.0
    res = dfo.minimize(steps, [0.0] * 4, method="random", budget=2000, noise=True, options={"batch": 2})
    assert res.cost <= 2000
    assert res.nfev > 4  # most fall early, and only what they took is paid
    with pytest.raises(InvalidArgument, match="max_steps"):
        _ = corridor(unit="steps").price


def test_a_return_that_is_no_number_is_a_failed_evaluation():
    told = values(corridor(), [[1.0], [9.0], [8.0]])
    assert told.failed.tolist() == [False, True, True]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)
        res = dfo.minimize(corridor(), dfo.Box([0.0], [10.0]), method="random", budget=40)
    assert res.nfail > 0
    assert math.isfinite(res.fun)


def test_what_the_policy_raises_comes_out_with_the_result():
    def trips(theta, seen):
        if theta[0] > 1.0:
            raise ZeroDivisionError("tripped")
        return 1

    with pytest.raises(ZeroDivisionError, match="tripped") as caught:
        dfo.minimize(dfo.Policy(Corridor, trips), [0.0], method="random", budget=200)
    assert caught.value.result.nfev >= 1


def test_laws():
    def batch(key, n):
        return Points(normal(key, (n, 4)), data=np.arange(n) % 3)

    check_oracle(pole(max_steps=30), batch, seconds=3.0, cases=5).raise_if_failed()


def test_an_environment_is_made_once_and_closed():
    oracle = corridor()
    values(oracle, [[1.0], [0.0]])
    made = oracle._made
    oracle.close()
    assert made.closed
    assert values(oracle, [1.0]).f.tolist() == [-3.0]


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ((3, push), InvalidType, "env"),
        (("CartPole-v1", 3), InvalidType, "act"),
        (("CartPole-v1", push, {"episodes": 0}), InvalidArgument, "episodes"),
        (("CartPole-v1", push, {"unit": "hours"}), InvalidArgument, "unit"),
    ],
)
def test_mistakes_are_refused(arguments, error, word):
    options = arguments[2] if len(arguments) == 3 else {}
    with pytest.raises(error, match=word):
        dfo.Policy(*arguments[:2], **options)
