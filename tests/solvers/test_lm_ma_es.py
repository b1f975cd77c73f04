"""LM-MA-ES: its transformation against the loop of the paper, and many variables."""

import numpy as np
import pytest

import dfo
from dfo.bench.measures.nes import cigar, evolved, planned, progress, sphere
from dfo.feedback import Values
from dfo.random import Key
from dfo.solvers.lm_ma_es import _undone


def settled(d, count, seed=0):
    solver = planned("lm-ma-es", d)
    return solver, evolved(solver, cigar, solver.init(np.ones(d), Key(seed)), count)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_steps_are_those_of_the_loop_in_the_paper(count):
    solver, state = settled(9, count)
    n, m = state.run.regime.population, len(state.M)
    assert state.used == min(count, m)
    z = (planned("lm-ma-es", 9).ask(solver.init(np.zeros(9), state.key)).X / 0.5) if count == 0 else None
    X = solver.ask(state).X
    steps = (X - state.mean) / state.sigma
    if z is not None:
        np.testing.assert_allclose(steps, z, rtol=1e-9)
    c_d = np.minimum(1 / (1.5 ** np.arange(m) * 9), 0.5)
    for y in steps[: min(n, 4)]:
        drawn = _undone(y, state.M[: state.used], c_d)
        again = drawn.copy()
        for i in range(state.used):  # algorithm 1, lines 6 to 8
            again = (1 - c_d[i]) * again + c_d[i] * state.M[i] * (state.M[i] @ again)
        np.testing.assert_allclose(again, y, rtol=1e-9, atol=1e-12)


def test_the_steps_undone_are_standard_normal():
    solver, state = settled(30, 60)
    c_d = 1 / (1.5 ** np.arange(len(state.M)) * 30)
    z = []
    for step in range(60):
        X = solver.ask(dfo.solvers.lm_ma_es.replace(state, step=step)).X
        z += [_undone((x - state.mean) / state.sigma, state.M[: state.used], c_d) for x in X]
    z = np.array(z)  # (840, 30)
    assert abs(z.mean()) < 0.03  # 4.7 standard errors
    assert abs(z.std() - 1) < 0.02


@pytest.mark.parametrize("d", [2, 3, 2000])
def test_few_and_many_variables_give_numbers(d):
    solver = planned("lm-ma-es", d)
    state = evolved(solver, sphere, solver.init(np.ones(d), Key(0)), 200)
    assert np.isfinite(state.mean).all()
    assert np.isfinite(state.M).all()
    assert sphere(state.mean) < 0.5 * d


def test_a_long_axis_that_no_coordinate_has_is_learned():
    assert progress("lm-ma-es", cigar, 200, 8000) < 0.1 * progress("sep-cma", cigar, 200, 8000)


def test_single_precision_of_torch_in_many_variables():
    torch = pytest.importorskip("torch")
    solver = planned("lm-ma-es", 2000)
    state = solver.init(torch.ones(2000, dtype=torch.float32), Key(0))
    for _ in range(60):
        batch = solver.ask(state)
        state = solver.tell(state, batch, Values((batch.X.double() ** 2).sum(dim=1).numpy()))
    assert state.M.dtype == state.mean.dtype == torch.float32
    assert bool(torch.isfinite(state.M).all())
    assert float((state.mean**2).sum()) < 1900


def test_memory_has_to_be_a_count():
    with pytest.raises(dfo.errors.InvalidArgument, match="memory"):
        dfo.LMMAES(memory=0)
