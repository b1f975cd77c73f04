"""An AskTell that is saved and restored goes on as if nothing had happened."""

import numpy as np
import pytest

import dfo


def quadratic(x):
    return float(((x - 0.3) ** 2).sum())


def play(opt, n, value=quadratic):
    xs = []
    for _ in range(n):
        x = opt.ask()
        xs.append(np.array(x))
        opt.tell(x, value(x))
    return np.array(xs)


@pytest.mark.parametrize("method", ["cma", "sep-cma", "nelder-mead", "zo-sgd", "random"])
@pytest.mark.parametrize("at", [0, 1, 7, 30])
def test_restored_equals_never_stopped(tmp_path, method, at):
    def fresh():
        return dfo.AskTell(method, [1.0, 2.0, 0.5], bounds=[(-3, 3)] * 3, seed=4, budget=200)

    whole = play(fresh(), 60)
    first = fresh()
    head = play(first, at)
    first.save(tmp_path / "run.npz")
    second = fresh()
    second.restore(tmp_path / "run.npz")
    tail = play(second, 60 - at)
    np.testing.assert_array_equal(whole, np.concatenate([head.reshape(-1, 3), tail]))
    assert second.nfev == 60


def test_pending_candidates_are_handed_out_again_under_their_numbers(tmp_path):
    opt = dfo.AskTell("cma", [1.0, 2.0], seed=1)
    out = [opt.ask_candidate() for _ in range(8)]  # six of the batch and two beyond it
    opt.tell(out[1], quadratic(out[1].x))
    opt.save(tmp_path / "run.npz")
    again = dfo.AskTell("cma", [1.0, 2.0], seed=1)
    again.restore(tmp_path / "run.npz")
    back = [again.ask_candidate() for _ in range(7)]
    assert [c.id for c in back] == [0, 2, 3, 4, 5, 6, 7]
    for c in back:
        np.testing.assert_array_equal(c.x, out[c.id].x)
        again.tell(c, quadratic(c.x))
    with pytest.raises(dfo.errors.AlreadyTold):
        again.tell(1, 0.0)
    assert again.ask_candidate().id == 8


def test_a_file_of_another_solver_is_refused(tmp_path):
    dfo.AskTell("cma", [1.0, 2.0]).save(tmp_path / "run.npz")
    with pytest.raises(dfo.errors.BadState, match="RandomSearch"):
        dfo.AskTell("random", [1.0, 2.0]).restore(tmp_path / "run.npz")


def test_named_parameters_are_kept(tmp_path):
    space = {"lr": dfo.Float(1e-4, 1, log=True), "n": dfo.Int(1, 9), "kind": dfo.Choice(["a", "b", "c"])}
    opt = dfo.AskTell("cma", space, seed=2)
    x = opt.ask()
    opt.tell(x, 1.0)
    waiting = opt.ask()
    opt.save(tmp_path / "run.npz")
    again = dfo.AskTell("cma", space, seed=2)
    again.restore(tmp_path / "run.npz")
    assert again.best_x == x
    assert again.ask() == waiting


def test_a_failed_candidate_completes_its_batch():
    opt = dfo.AskTell("cma", [1.0, 2.0], options={"population": 4})
    for i in range(4):
        opt.tell(opt.ask(), [None, float("nan"), 1.0, "oops"][i])
    assert opt.ask_candidate().id == 4
    assert not opt.pending.keys() - {4}
    assert opt.best_fun == 1.0


def test_a_batch_outlives_what_was_observed_after_it_was_drawn(tmp_path):
    opt = dfo.AskTell("cma", [1.0, 2.0], seed=1)
    opt.observe([0.3, -0.2], 0.0)
    waiting = opt.ask()
    opt.save(tmp_path / "run.npz")
    again = dfo.AskTell("cma", [1.0, 2.0], seed=1)
    again.restore(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.ask(), waiting)
