"""Damage is found, said, and what is whole before it is saved; nothing is wrong or fewer in silence."""

import os
import shutil
from collections import Counter

import pytest
from stores import CONFIG, ask, contents, flipped, killed, put, rows, write

from dfo.errors import DamagedStore, InvalidArgument, RunLocked, StoreWarning
from dfo.oracles.outcomes import Answer
from dfo.run.store import Run, Store, View, repair
from dfo.run.store.wal import FRAME, HEADER, read_log

MUST_NOT = {"silently fewer", "silently wrong"}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.db")


def test_a_killed_process_loses_nothing_that_it_told(path):
    killed(path, 30)
    before = contents(path)
    with View.open(path) as view:
        assert (view.status, view.told, view.writer) == ("killed", 30, None)
    assert contents(path) == before
    with Run.open(Store(path)) as run:
        run.begin(CONFIG, {})
        assert len(ask(run, *range(31))[1]) == 30
        assert [position for position, _ in run.checkpoints()] == []
    assert len(rows(path)) == 31


@pytest.mark.parametrize("ended", [True, False], ids=["closed", "killed"])
def test_flips_cuts_and_zeroed_blocks(path, ended):
    (write if ended else killed)(path, 120)
    found = flipped(path, 40, seed=1)
    assert not [case for case in found if case[2] in MUST_NOT]
    assert {"same", "DamagedStore" if ended else "warned"} <= {how for _, _, how in found}
    assert len(rows(path)) == 120


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [40, 1500])
def test_two_thousand_flips_cuts_and_zeroed_blocks(path, n, seed):
    (write if seed % 2 else killed)(path, n)
    found = flipped(path, 100, seed)
    assert not [case for case in found if case[2] in MUST_NOT], Counter(how for _, _, how in found)


def test_every_cut_of_the_last_records(path):
    killed(path, 12)
    truth, held = rows(path), contents(path)
    log = read_log(path)
    assert log.lost == 0
    assert log.whole == len(log.good)
    end = HEADER + FRAME * log.whole
    for cut in [*range(1, 40), *range(40, 3 * FRAME, 997), FRAME, 2 * FRAME]:
        put(path, {**held, "-wal": held["-wal"][: end - cut]})
        with pytest.warns(StoreWarning, match=r"of its log, .* frames .*torn-1"):
            run = Run.open(Store(path))
        run.begin(CONFIG, {})
        kept = sum(answer is not None for answer in ask(run, *range(12))[1].values())
        assert 12 - 2 - cut // FRAME <= kept <= 12
        run.tell({k: Answer(float(k)) for k in range(kept, 12)})  # appendable again
        run.close()
        assert rows(path) == truth
        with open(f"{path}.torn-1", "rb") as aside:
            assert aside.read() == held["-wal"][: end - cut]
        os.unlink(f"{path}.torn-1")


def test_a_flip_in_a_page_that_was_written_again_costs_nothing(path):
    killed(path, 20)
    truth, held = rows(path), contents(path)
    data = bytearray(held["-wal"])
    data[HEADER + 10 * FRAME + 500] ^= 4
    put(path, {**held, "-wal": bytes(data)})
    with pytest.warns(StoreWarning, match=" 1 frames"):
        assert rows(path) == truth
    assert repair(path, path + ".new-one").lost >= 0
    with pytest.warns(StoreWarning):
        Run.open(Store(path)).close()
    assert rows(path) == truth == rows(path + ".new-one")
    assert "run.db.torn-1" in os.listdir(os.path.dirname(path))


def test_repair_keeps_what_is_before_the_damage(path):
    write(path, 300)
    truth, data = rows(path), contents(path)[""]
    page = data.index(repr(truth[200][1]).encode()) // 4096 * 4096
    hit = bytearray(data)
    hit[page : page + 4096] = bytes(4096)
    put(path, {"": bytes(hit)})
    with pytest.raises(DamagedStore, match=r"dfo repair .*--to NEW"):
        rows(path)
    salvage = repair(path, path + ".mended")
    assert 180 < salvage.kept <= 200
    assert salvage.lost > 0
    assert salvage.where
    assert rows(path + ".mended") == truth[: salvage.kept]
    with Run.open(Store(path + ".mended")) as run:
        run.begin(CONFIG, {})
        ask(run, *range(300))
        with View.open(path + ".mended") as view:
            assert "repaired" in [event["kind"] for event in view.events]
    assert contents(path) == {"": bytes(hit)}
    with pytest.raises(InvalidArgument, match="taken"):
        repair(path, path + ".mended")
    with pytest.raises(InvalidArgument, match="no store"):
        repair(path + ".nothing", path + ".m")


def test_repair_of_what_is_whole_running_or_nothing(path):
    write(path, 5)
    salvage = repair(path, path + ".copy")
    assert (salvage.kept, salvage.lost, salvage.where) == (5, 0, "")
    assert rows(path) == rows(path + ".copy")
    with Run.open(Store(path)), pytest.raises(RunLocked):
        repair(path, path + ".other")
    with open(path, "wb") as file:
        file.write(os.urandom(50_000))
    with pytest.raises(DamagedStore, match="nothing of a store"):
        repair(path, path + ".other")
    assert not os.path.exists(path + ".other")


def test_a_log_without_its_file(path):
    killed(path, 5)
    os.unlink(path)
    with pytest.raises(DamagedStore, match="the file is gone"):
        Run.open(Store(path))


def test_a_log_that_was_removed_is_missed(path):
    killed(path, 5)
    os.unlink(path + "-wal")
    with pytest.warns(StoreWarning, match="0 questions and 0 answers"):
        Run.open(Store(path)).close()


def test_a_copy_without_the_index_of_the_log(path):
    killed(path, 5)
    for end in ("", "-wal"):
        shutil.copy(path + end, path + ".copy" + end)
    assert rows(path + ".copy") == rows(path)
    Run.open(Store(path + ".copy")).close()
    assert rows(path + ".copy") == rows(path)
