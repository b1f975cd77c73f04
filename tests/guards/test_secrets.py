"""A key that a run knows is found nowhere: in no store, no output, no command line of a child, nothing exported."""

import base64
import json
import os
import secrets
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

import dfo
from dfo.run.store import View
from dfo.secrets import scrub, scrubbed

HERE = Path(__file__).parent
KEY = f"dfo-canary/{secrets.token_hex(10)}+x="
WORDS = ("401", "403", "404", "422", "429", "429 0.01", "500", "503", "hang", "truncated", "short", "closed")
WORDS += ("no text", "slow", "slow head", "redirect")


def spellings(key):
    """Return how a key may stand in a file, the base64 forms without the characters that share a byte with others."""
    data = key.encode()
    base = [base64.b64encode(b"\0" * shift + data + b"\0" * 3)[4:-8] for shift in range(3)]
    quoted = quote(key, safe="").encode(), quote_plus(key).encode()
    return [data, data[: len(data) // 2 + 1], data[len(data) // 2 :], *quoted, *base, data.hex().encode()]


def traces(*contents):
    return [form for content in contents for form in spellings(KEY) if form in content]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Run every scenario; return the folder and what was printed."""
    sys.path.insert(0, str(HERE.parent / "oracles"))
    from fault_server import running

    folder = tmp_path_factory.mktemp("run")
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "NO_PROXY": "", "OMP_NUM_THREADS": "1"}
    printed = []

    def run(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=False,
            timeout=120,
        )
        printed.append(done.stdout + done.stderr)
        return done.returncode

    with ExitStack() as stack:
        other = stack.enter_context(running())
        servers = {word: stack.enter_context(running([word] * 99)) for word in ("ok", *WORDS)}
        servers["away"] = stack.enter_context(running([f"away {other.url}/chat/completions"] * 99))
        urls = json.dumps({word: server.url for word, server in servers.items()})
        assert run(HERE / "scenarios.py", urls) == 0, printed[-1].decode()
        assert run(HERE / "scenarios.py", urls, "killed") == -9
        assert [word for word, server in servers.items() if not server.seen] == [], printed[0].decode()
        assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers, _ in servers["500"].seen)
        assert other.seen == []
    assert run(HERE / "scenarios.py", "{}", "recorded", f"--key={KEY}") == 0  # a user's mistake: not in the store
    for store in ("recorded.db", "killed.db", "500.db"):
        run("-m", "dfo.cli", "show", store)
        run("-m", "dfo.cli", "show", store, "--json")
    return folder, printed


def test_the_key_is_in_no_file(left):
    files = [path for path in left[0].rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".db"]) >= 25
    assert {path.name: found for path in files if (found := traces(path.read_bytes()))} == {}


def test_the_key_is_in_nothing_that_was_printed(left):
    printed = b"\n".join(left[1])
    assert printed.count(b"scenario:") >= 25
    assert traces(printed) == []


def test_the_key_is_on_no_command_line_of_a_child(left):
    lines = [path.read_bytes() for path in left[0].glob("cmdline-*")]
    assert lines
    assert traces(*lines) == []


def test_what_went_wrong_is_still_said(left):
    with View.open(left[0] / "recorded.db") as view:
        notes = [row.note for row in view.rows()]
    assert all("401 for key" in note and "***" in note for note in notes)


# ---------------------------------------------------------------------- the mask itself


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", KEY)


def test_every_spelling_is_masked(known):
    quoted = [quote(KEY), quote(KEY, safe=""), quote_plus(KEY), quote(KEY, safe="").lower()]
    based = [base64.b64encode(b"u" * n + KEY.encode() + b"v" * n).decode() for n in range(5)]
    url_safe = base64.urlsafe_b64encode(b"user:" + KEY.encode()).decode()
    cut = [f"cut {KEY[:20]}...", f"cut '{KEY[:7]}...'", f"<{KEY[:25]}>"]
    plain = [KEY, repr({"key": KEY}), json.dumps({"key": KEY}), KEY.encode().hex()]
    for text in (*plain, *quoted, *based, url_safe, *cut):
        assert traces(scrub(f"said {text}").encode()) == []
        assert "***" in scrub(f"said {text}")
    for text in (*plain[:3], *quoted):
        assert len(scrub(text)) < 16  # nothing of it is left over


def test_other_texts_stay_as_they_are(known, monkeypatch):
    monkeypatch.setenv("SHORT_KEY", "abc")
    for text in ("", "abc", "ValueError: no mesh at x = [1.0, 2.0]", "dfo-canari", "key " * 1000):
        assert scrub(text) == text
    assert scrubbed({"a": [1, 2.5, None, ("x",)]}) == {"a": [1, 2.5, None, ["x"]]}


def test_data_is_masked_in_depth(known):
    assert scrubbed({"a": [{"b": f"k={KEY}"}], KEY: 1}) == {"a": [{"b": "k=***"}], "***": 1}


def test_what_is_registered_is_masked(monkeypatch):
    monkeypatch.setattr(dfo.secrets, "_registered", set())
    assert scrub("correct horse") == "correct horse"
    dfo.secrets.register("correct horse")
    dfo.secrets.register("abc")
    assert scrub("the abc of a correct horse") == "the abc of a ***"
