"""An AskTell with a store goes on where it was, to the last bit, whatever ended it."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import dfo
from dfo import errors
from dfo.run.store import View


def sphere(x):
    return float(((np.asarray(x) - 0.3) ** 2).sum())


def rounds(opt, rng, n):
    """Ask a few, tell some of those outstanding in any order, observe now and then; return what was seen."""
    seen, out = [], []
    for i in range(n):
        out += [opt.ask_candidate() for _ in range(rng.integers(1, 6))]
        rng.shuffle(out)
        while len(out) > rng.integers(0, 10):
            candidate = out.pop()
            opt.tell(candidate, float("nan") if candidate.id % 13 == 5 else sphere(candidate.x))
            seen.append((candidate.id, candidate.x.tolist()))
        if i % 5 == 3:
            opt.observe([0.2, 0.1 * i, 0.3], 0.06 + i)
    return seen, sorted(out, key=lambda candidate: candidate.id)


@pytest.mark.parametrize("method", ["cma", "genetic", "zo-sgd", "cbo", "nelder-mead", "random"])
@pytest.mark.parametrize("n", [0, 1, 17])
def test_reopened_equals_never_stopped(tmp_path, method, n):
    def fresh(store=None):
        return dfo.AskTell(method, [1.0, 2.0, 0.5], bounds=[(-3, 3)] * 3, seed=4, budget=500, store=store)

    whole, path = fresh(), tmp_path / "run.db"
    seen, out = rounds(whole, np.random.default_rng(n), n)
    with fresh(path) as kept:
        assert rounds(kept, np.random.default_rng(n), n)[0] == seen
    with fresh(path) as again:
        assert (again.nfev, again.best_fun) == (whole.nfev, whole.best_fun)
        np.testing.assert_array_equal(again.best_x, whole.best_x)
        back = [again.ask_candidate() for _ in out]
        assert [(c.id, c.x.tolist()) for c in back] == [(c.id, c.x.tolist()) for c in out]
        for candidate in back:
            again.tell(candidate, sphere(candidate.x))
            whole.tell(candidate.id, sphere(candidate.x))
        assert rounds(again, np.random.default_rng(9), 20)[0] == rounds(whole, np.random.default_rng(9), 20)[0]


def test_orders_are_kept(tmp_path):
    def fresh(store=None):
        return dfo.AskTell("cma", {"hue": dfo.Float(0, 360), "size": dfo.Int(8, 72)}, batch=6, seed=2, store=store)

    def play(opt, n):
        seen = []
        for i in range(n):
            candidates = opt.ask_batch()
            seen.append([c.x for c in candidates])
            best = sorted(range(6), key=lambda k: abs(candidates[k].x["hue"] - 120))
            opt.tell_order([None, best[:3], [best[0], best[1:3]], np.array(best)][i % 4])
        return seen

    whole, path = fresh(), tmp_path / "run.db"
    seen = play(whole, 11)
    with fresh(path) as kept:
        assert play(kept, 5) == seen[:5]
        kept.ask_batch()
    with fresh(path) as again:
        assert len(again.pending) == 6
        assert [again.ask_candidate().x for _ in range(6)] == seen[5]
        again.tell_order(None)
        assert again.nfev == 36


def test_other_arguments_are_refused_and_named(tmp_path):
    path = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0], seed=1, store=path) as opt:
        opt.tell(opt.ask(), 1.0)
    with pytest.raises(errors.RunMismatch, match=r"(?s)seed: stored 1, now 2"):
        dfo.AskTell("cma", [1.0, 2.0], seed=2, store=path)
    with pytest.raises(errors.RunMismatch, match="method"):
        dfo.AskTell("random", [1.0, 2.0], seed=1, store=path)
    with pytest.raises(errors.RunMismatch, match="front"):
        dfo.minimize(sphere, [1.0, 2.0], store=path, budget=3)
    with dfo.AskTell("cma", [1.0, 2.0], seed=1, store=path) as opt:  # the lock was let go of each time
        assert opt.nfev == 1


def test_one_object_at_a_time(tmp_path):
    with dfo.AskTell("cma", [1.0, 2.0], store=tmp_path / "run.db"), pytest.raises(errors.RunLocked):
        dfo.AskTell("cma", [1.0, 2.0], store=tmp_path / "run.db")


def test_what_is_told_shows(tmp_path):
    path = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0], store=path) as opt:
        first, second, third = (opt.ask_candidate() for _ in range(3))
        opt.tell(second, ValueError("no mesh"))
        opt.tell(first, "seven")
    with View.open(path) as view:
        rows = list(view.rows())
        assert [row.status for row in rows] == ["bad_type", "raised", "asked"]
        assert rows[1].note == "ValueError: 'no mesh'"
        np.testing.assert_array_equal(rows[2].x, third.x)


def test_nothing_changes_where_nothing_can_be_written(tmp_path):
    path = tmp_path / "run.db"
    with dfo.AskTell("cma", [1.0, 2.0], store=path) as opt:
        first = opt.ask_candidate()
        moved = tmp_path / "away.db"
        os.rename(path, moved)
        time.sleep(0.1)  # the writer looks for its files now and then
        with pytest.raises(errors.CannotWrite):
            opt.ask()
        with pytest.raises(errors.CannotWrite):
            opt.tell(first, 1.0)
        os.rename(moved, path)
        assert list(opt.pending) == [0]
        opt.tell(first, 1.0)
        assert opt.ask_candidate().id == 1


KILLED = """
    import sys, numpy as np, dfo
    path, seed = sys.argv[1], int(sys.argv[2])
    opt = dfo.AskTell("cma", [1.0, 2.0, 0.5], seed=3, store=path)
    rng, out = np.random.default_rng(seed), []
    print("ready", flush=True)
    while True:
        out += [opt.ask_candidate() for _ in range(3)]
        while len(out) > 4:
            candidate = out.pop(int(rng.integers(len(out))))
            opt.tell(candidate, float(((candidate.x - 0.3) ** 2).sum()))
            print(candidate.id, flush=True)
"""


def killed_after(path, seed, lines):
    """Run the loop in a process of its own, kill it when it has told so many; return the numbers told for certain."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(seed)], stdout=subprocess.PIPE, text=True
    )
    told = []
    for line in child.stdout:
        told += [int(line)] if line.strip() != "ready" else []
        if len(told) >= lines:
            child.send_signal(signal.SIGKILL)
            break
    told += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait(20)
    child.stdout.close()
    return told


@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.full), pytest.param(3, marks=pytest.mark.full)]
)
def test_a_killed_process_loses_nothing(tmp_path, seed):
    path = tmp_path / "run.db"
    told = set(killed_after(path, seed, 30 + 17 * seed))
    with View.open(path) as view:
        rows = list(view.rows())
    assert told <= {row.number for row in rows if row.told is not None}
    pending = [row.number for row in rows if row.told is None]
    with dfo.AskTell("cma", [1.0, 2.0, 0.5], seed=3, store=path) as opt:
        assert opt.nfev == len(rows) - len(pending)
        assert [opt.ask_candidate().id for _ in pending] == pending
        assert opt.ask_candidate().id == len(rows)
