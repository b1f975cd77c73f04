"""A store gives back what it was told, to the last bit, and refuses what does not belong to it."""

import json
import math
import os
import sqlite3
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import CONFIG, ask, question, rows, write

from dfo.batch import Items, Points
from dfo.errors import (
    AlreadyTold,
    CannotWrite,
    DamagedStore,
    InvalidArgument,
    InvalidType,
    RunLocked,
    RunMismatch,
    StoreWarning,
    UnknownCandidate,
)
from dfo.feedback import Ranking, Values
from dfo.oracles.outcomes import KINDS, Answer, Failed
from dfo.run.store import Run, Store, View


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run.db")


def bits(value):
    return value if value is None or isinstance(value, Failed) else struct.pack("<d", value)


def opened(path, config=CONFIG, free=None, **options):
    run = Run.open(Store(path, **options))
    try:
        run.begin(config, free or {})
    except BaseException:
        run.close()
        raise
    return run


numbers = st.floats() | st.sampled_from([-0.0, math.inf, -math.inf, math.nan, 5e-324, 1e308, 3.0])
failures = st.builds(Failed, st.sampled_from(KINDS), st.text(st.characters(codec=None), max_size=20))
answers = st.builds(Answer, numbers | failures, st.none() | numbers)


@settings(max_examples=40, deadline=None)
@given(st.lists(answers, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_answers_come_back_to_the_last_bit(tmp_path_factory, told, luck):
    path = tmp_path_factory.mktemp("store") / "run.db"
    order = list(range(len(told)))
    luck.shuffle(order)
    with opened(path) as run:
        ask(run, *order)
        for i in order:
            run.tell({i: told[i]})
    with opened(path) as run:
        _, known = ask(run, *order)
        f, violation = run.values(len(told))
    for i, answer in enumerate(told):
        value = answer.value
        if isinstance(value, Failed):
            assert known[i].value.kind == value.kind
            assert known[i].value.text == value.text.encode("utf-8", "backslashreplace").decode()
            assert f[i] == math.inf
        else:
            assert bits(known[i].value) == bits(value)
            assert bits(f[i]) == bits(value) if math.isfinite(value) else f[i] == math.inf
        assert bits(known[i].violation) == bits(answer.violation)
    assert (violation is None) == all(answer.violation is None for answer in told)
    with sqlite3.connect(path) as sql:
        plain = [row[0] for row in sql.execute("SELECT value FROM evaluations ORDER BY number")]
    sql.close()
    for value, answer in zip(plain, told, strict=True):
        if isinstance(answer.value, Failed) or math.isnan(answer.value):
            assert value is None
        else:
            assert value == answer.value


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
POINTS = [
    np.array([0.1, -0.0, 5e-324]), np.array([math.nan, math.inf]), np.float32([[1.1, 2.2]]), np.arange(4),
    np.array([True, False]), np.zeros((0,)), np.arange(300) / 7, np.array([1 + 2j]), np.array([1.5], ">f8"),
    "a text \x00 \ud800 é", [1, 5, 7], {"rate": 0.1, "layers": 3, "kind": "sgd"}, {"rate": math.nan},
    {"w": np.ones((2, 3)), "b": np.float32([1.5])}, [np.ones(2), np.zeros((1, 400))],
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{type(p).__name__} {str(p)[:20]!r}")
def test_points_of_every_kind_are_known_again(path, point):
    with opened(path) as run:
        run.ask(Items([point]), [point])
        run.tell({0: Answer(1.0)})
    with opened(path) as run:
        assert run.ask(Items([point]), [point]) == (0, {0: Answer(1.0)})
    with View.open(path) as view:
        (row,) = view.rows()
    if isinstance(point, np.ndarray):
        assert row.x.tobytes() == np.ascontiguousarray(point, point.dtype.newbyteorder("<")).tobytes()
        assert row.x.shape == point.shape
    elif not isinstance(point, dict) or "kind" in point:
        np.testing.assert_equal(row.x, point)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), max_size=4))
def test_any_table_has_one_digest_whatever_its_order(table):
    from dfo.run.store.points import encoded

    first, second = encoded(table), encoded(dict(reversed(table.items())))
    assert first == second
    json.loads(first.x)


def test_points_that_differ_in_the_last_bit_or_the_dtype_are_others(path):
    x = question(0)
    with opened(path) as run:
        run.ask(Points(x[None]), [x])
    for other in (np.nextafter(x, 2.0), x.astype(np.float32), x[None], -x, list(x)):
        with opened(path) as run, pytest.raises(RunMismatch, match=r"question 0 .*Stored: \[0.0, .*Now: "):
            run.ask(Items([other]), [other])
    with opened(path) as run, pytest.raises(RunMismatch, match=r"data None.*data 3"):
        run.ask(Points(x[None], data=np.array([3])), [x])


def test_points_too_large_to_keep_are_known_by_their_digest(path, monkeypatch):
    monkeypatch.setattr("dfo.run.session.KEEP_LIMIT", 300)
    x = question(0, 400)
    with opened(path) as run:
        run.ask(Points(x[None]), [x])
    with opened(path) as run, pytest.raises(RunMismatch, match="digest"):
        run.ask(Points(x[None]), [x + 1])
    with View.open(path) as view:
        assert next(view.rows()).x is None


def test_torch_points(path):
    torch = pytest.importorskip("torch")
    points = [torch.tensor([1.5, -2.25], dtype=dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)]
    points.append(torch.arange(600, dtype=torch.bfloat16))
    with opened(path) as run:
        run.ask(Items(points), points)
    with opened(path) as run:
        run.ask(Items(points), points)
    with View.open(path) as view:
        assert all(torch.equal(row.x, x) and row.x.dtype == x.dtype for row, x in zip(view.rows(), points, strict=True))


def test_in_flight_questions_keep_their_numbers(path):
    with opened(path) as run:
        ask(run, 0, 1, 2)
        run.tell({1: Answer(5.0)})
        assert not run.replaying
    with opened(path) as run:
        assert ask(run, 0, 1, 2, 3) == (0, {1: Answer(5.0)})
        run.tell({0: Answer(1.0), 2: Answer(2.0)})
        assert run.position == 4
        with pytest.raises(AlreadyTold, match="2"):
            run.tell({2: Answer(2.0)})
        with pytest.raises(UnknownCandidate, match="4"):
            run.tell({4: Answer(2.0)})
        with pytest.raises(InvalidArgument, match="seek"):
            run.seek(5)
    assert [(row[0], row[2]) for row in rows(path)] == [(0, "ok"), (1, "ok"), (2, "ok"), (3, "asked")]


def test_last_words_of_a_budget_are_not_asked_again_when_it_grows(path):
    with opened(path) as run:
        ask(run, 0, 1)
        run.final = 4
        first, _ = ask(run, 8, 9)
        run.tell({first: Answer(8.0), first + 1: Answer(9.0)})
        run.final = 0
        assert run.position == 2
    with opened(path) as run:
        ask(run, 0, 1)
        assert (run.finals(4), run.finals(5)) == (0, 2)
        assert ask(run, 2)[0] == 2
        run.final = 4
        assert ask(run, 8, 9) == (first, {first: Answer(8.0), first + 1: Answer(9.0)})
        run.final = 9
        assert ask(run, 7) == (10 * 10**9, {})
    with View.open(path) as view:
        assert [row.number for row in view.rows(2)] == [2, first, first + 1, 10 * 10**9]
        assert [row.number for row in view.rows(4)] == [first + 1, 10 * 10**9]
        assert view.count == 6


def test_a_run_begun_otherwise_is_refused_with_every_difference(path):
    opened(path, {"method": "cma", "seed": 1, "options": {"sigma": 0.3, "elite": None}}, {"budget": 5}).close()
    now = {"method": "ars", "seed": 1, "options": {"sigma": 0.25}}
    with pytest.raises(RunMismatch) as caught:
        opened(path, now)
    for line in ("method: stored 'cma', now 'ars'", "options.sigma: stored 0.3, now 0.25", "elite: stored None, now n"):
        assert line in str(caught.value)
    opened(path, now, {"budget": 9}, accept=("method", "options")).close()
    opened(path, now, {"budget": 9}).close()
    with View.open(path) as view:
        assert [event["kind"] for event in view.events] == ["accepted", "changed"]
        assert len(view.sessions) == 3
    with pytest.raises(InvalidType, match=r"config\.f"):
        opened(path + "2", {"f": object()})


def test_whole_batches_and_their_memory(path):
    told = Values(np.array([1.0, np.inf, -0.0]), failed=np.array([False, True, False]), notes=((1, "no mesh"),))
    with opened(path) as run:
        ask(run, 0, 1, 2)
        assert run.answered(0, 3) is None
        run.answer(0, 3, told, {"state": np.arange(4)})
        ask(run, 3, 4)
        run.answer(3, 2, Ranking(np.array([1.0, 0.0])), ())
    with opened(path) as run:
        again, memory = run.answered(0, 3)
        assert again.f.tobytes() == told.f.tobytes()
        assert again.notes == told.notes
        assert memory["state"].tolist() == [0, 1, 2, 3]
        f, violation = run.values(5)
        np.testing.assert_array_equal(f, [1.0, np.inf, -0.0, np.nan, np.nan])
        assert violation is None
    with View.open(path) as view:
        assert [(row.status, row.note) for row in view.rows()][:2] == [("ok", None), ("nonfinite", "no mesh")]


def test_two_states_are_kept_and_large_arrays_lie_beside(path):
    large = np.arange(200_000.0)
    with opened(path) as run:
        ask(run, 0, 1, 2)
        for i in range(3):
            run.checkpoint(i, {"x": large + i, "small": np.float32([i])})
    assert len(os.listdir(path + ".blobs")) == 2
    assert os.stat(path + ".blobs").st_mode & 0o777 == 0o700
    for name in os.listdir(path + ".blobs"):
        assert os.stat(os.path.join(path + ".blobs", name)).st_mode & 0o777 == 0o600
    with opened(path) as run:
        found = list(run.checkpoints())
        assert [position for position, _ in found] == [2, 1]
        assert found[0][1]["x"].tobytes() == (large + 2).tobytes()
        run.checkpoint(3, {"x": large})
        newest = max(os.scandir(path + ".blobs"), key=lambda entry: entry.stat().st_mtime_ns).path
        with open(newest, "r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x55")
        with pytest.warns(StoreWarning, match="evaluation 3 is damaged"):
            assert [position for position, _ in run.checkpoints()] == [2]


def test_large_arrays_without_safetensors(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    large = np.arange(200_000.0)
    with opened(path) as run:
        run.checkpoint(0, large)
        assert [name[-4:] for name in os.listdir(path + ".blobs")] == [".npz"]
        assert next(run.checkpoints())[1].tobytes() == large.tobytes()


def test_what_a_view_says(path):
    before = os.umask(0)
    try:
        run = opened(path, free={"budget": 7})
    finally:
        os.umask(before)
    with View.open(path) as view:
        assert (view.status, view.best, view.count, view.summary) == ("running", None, 0, None)
        assert view.writer["pid"] == os.getpid()
        ask(run, 0, 1, 2, 3)
        run.tell({0: Answer(-9.0, 1.0), 1: Answer(3.0, 0.0), 2: Answer(2.5, -0.0), 3: Answer(Failed("died", "x"), 0.0)})
        run.retry(3, "killed by SIGSEGV")
        assert (view.count, view.told, view.failed, view.best.number) == (4, 4, 1, 2)
        assert view.events[0]["content"] == {"number": 3, "text": "killed by SIGSEGV"}
        assert {os.stat(path + end).st_mode & 0o777 for end in ("", "-wal", "-shm", ".lock")} == {0o600}
    run.finish("target", "The target is reached.", {"fun": 2.5})
    run.close()
    assert sorted(os.listdir(os.path.dirname(path))) == ["run.db"]
    with View.open(path) as view:
        assert (view.status, view.summary, view.writer) == ("target", {"fun": 2.5}, None)
        assert view.message == "The target is reached."
    opened(path).close()
    with View.open(path) as view:
        assert view.status == "killed"
        assert view.summary is None


def test_secrets_stay_out_of_the_command_line(path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "environment-secret-1")
    argv = ["run.py", "--api-key", "abc123", "--token=t0ken", "PASSWORD=pw", "https://me:hunter2@host/", "--seed", "3"]
    monkeypatch.setattr("sys.argv", [*argv, "environment-secret-1", "sk-abcdefghijklmnopqrstuv"])
    opened(path, {"note": "environment-secret-1"}).close()
    with View.open(path) as view:
        text = json.dumps([view.sessions[0]["command"], view.config])
    assert '"run.py", "--api-key", "***", "--token=***", "PASSWORD=***", "https://***@host/", "--seed", "3"' in text
    for secret in ("abc123", "t0ken", "hunter2", "environment-secret", "ghijkl"):
        assert secret not in text


def test_paths(tmp_path):
    for name in ("a b%20?mode=ro#x", "é'\"", ":memory:", "-x"):
        write(tmp_path / name, 1)
        assert len(rows(tmp_path / name)) == 1
    os.symlink(tmp_path / "-x", tmp_path / "link")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe", "."):
        with pytest.raises(CannotWrite, match="expected a plain file"):
            Run.open(Store(tmp_path / name))
    assert not (tmp_path / "nowhere").exists()
    for bad in ("", "a\0b"):
        with pytest.raises(InvalidArgument, match="NUL"):
            Store(bad)
    with pytest.raises(InvalidType, match="path"):
        Store(3)
    with pytest.raises(InvalidArgument, match="every"):
        Store("x", every=-1.0)
    with pytest.raises(InvalidArgument, match="no store"):
        View.open(tmp_path / "missing")
    with pytest.raises(CannotWrite, match="gone"):
        Run.open(Store(tmp_path / "missing" / "run.db"))


def test_a_second_writer_in_the_same_process_is_refused(path):
    with opened(path), pytest.raises(RunLocked) as caught:
        Run.open(Store(path))
    assert (caught.value.pid, bool(caught.value.host), bool(caught.value.since)) == (os.getpid(), True, True)
    opened(path).close()


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" + bytes(4000), b"PK\3\4" * 3000])
def test_foreign_files(path, content):
    with open(path, "wb") as file:
        file.write(content)
    for read in (lambda: Run.open(Store(path)), lambda: View.open(path)):
        with pytest.raises(DamagedStore, match="dfo repair"):
            read()
    with open(path, "rb") as file:
        assert file.read() == content


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 99", "version 99"),
        ("PRAGMA application_id = 5", "no store of dfo"),
        ("CREATE TABLE more(x)", "more"),
        ("CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM questions; END", "tables"),
        ("UPDATE answers SET value = 3.0 WHERE number = 4", "row 4"),
        ("UPDATE answers SET status = 'died' WHERE number = 4", "row 4"),
        ("UPDATE questions SET x = '[1.0]' WHERE number = 5", "row 5"),
        ("UPDATE questions SET data = 1 WHERE number = 5", "row 5"),
        ("DELETE FROM questions WHERE number = 3", "number 3 is missing"),
        ("DELETE FROM answers WHERE number = 3", "answers are missing"),
        ("UPDATE run SET content = '{}' WHERE id = 0", "table run"),
    ],
)
def test_tampering_is_noticed(path, statement, words):
    write(path, 8)
    sql = sqlite3.connect(path, isolation_level=None)
    sql.execute(statement)
    sql.close()
    for read in (lambda: Run.open(Store(path)), lambda: View.open(path)):
        with pytest.raises(DamagedStore, match=words):
            read()
