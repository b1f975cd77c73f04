"""Scores of a chat endpoint, against a real server on this machine that breaks in every way it can."""

import math
import time
import warnings

import numpy as np
import pytest
from fault_server import running

import dfo
from dfo.batch import Items
from dfo.errors import EvaluationWarning, InvalidArgument, InvalidType
from dfo.feedback import Values
from dfo.random import Key
from dfo.testing import check_oracle

KEY = "dfo-canary-5e1f"


def oracle(server, **options):
    return dfo.ChatScore(
        server.url, "small", "say {x}", lambda text, data: float(len(text)), backoff=0.01, timeout=5.0, **options
    )


def ask(scored, items=("a",), **fields) -> Values:
    told, _ = scored.evaluate(Items(list(items), **fields), scored.start(0, Key(0)))
    return told


def test_an_answer_is_scored_and_the_request_is_that_of_the_format(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running() as server:
        told = ask(oracle(server, system="be brief", options={"temperature": 0.0}), ["abc", "d"])
        paths = [path for path, _, _ in server.seen]
        bodies = {body["messages"][1]["content"]: body for _, _, body in server.seen}
        headers = server.seen[0][1]
    assert told.f.tolist() == [7.0, 5.0]  # "say abc" comes back
    assert paths == ["/v1/chat/completions"] * 2
    assert headers["Authorization"] == f"Bearer {KEY}"
    body = bodies["say abc"]
    assert body["model"] == "small"
    assert body["temperature"] == 0.0
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    assert isinstance(body["seed"], int)


@pytest.mark.parametrize("word", ["429", "500", "503", "closed", "truncated", "short", "no text"])
def test_what_passes_is_asked_again(word):
    with running([word, word]) as server:
        told = ask(oracle(server))
        assert len(server.seen) == 3
    assert told.f.tolist() == [5.0]
    assert told.failed is None


@pytest.mark.parametrize(("word", "sent"), [("500", 3), ("truncated", 3), ("400", 1), ("422", 1), ("redirect", 1)])
def test_what_does_not_pass_is_a_failed_evaluation(word, sent):
    with running([word] * 9) as server:
        told = ask(oracle(server, retries=2))
        assert len(server.seen) == sent
    assert told.f.tolist() == [math.inf]
    assert told.failed.tolist() == [True]
    assert "RemoteError" in told.notes[0][1]


def test_retry_after_is_waited_for_and_an_hour_is_not():
    with running(["429 0.4"]) as server:
        ask(oracle(server))
        assert server.times[1] - server.times[0] >= 0.4
    with running(["429 3600"]) as server:
        began = time.monotonic()
        assert ask(oracle(server)).failed.all()
        assert time.monotonic() - began < 5.0
        assert len(server.seen) == 1


@pytest.mark.parametrize("word", ["hang", "slow", "slow head"])
def test_a_request_ends_in_time(word):
    with running([word] * 9) as server:
        scored = dfo.ChatScore(server.url, "m", "{x}", lambda text, data: 0.0, timeout=0.2, retries=1, backoff=0.0)
        began = time.monotonic()
        assert ask(scored).failed.all()
        assert time.monotonic() - began < 5.0
        assert len(server.seen) == 2


def test_no_server_is_a_failure_too():
    with running() as server:
        scored = oracle(server, retries=1)
    assert ask(scored).failed.all()


@pytest.mark.parametrize("word", ["401", "403", "404"])
def test_a_refusal_ends_the_run_with_its_result(word):
    with running(["ok"] * 4 + [word] * 9) as server:
        scored = dfo.ChatScore(server.url, "m", "{x}", lambda text, data: float(text.count("b")), concurrency=1)
        with pytest.raises(RuntimeError, match=f"status {word}") as caught:
            dfo.minimize(scored, dfo.Text("ab", 4), method="random", budget=50, options={"batch": 2})
    assert caught.value.result.nfev >= 4
    assert math.isfinite(caught.value.result.fun)


def test_the_key_is_nowhere_in_what_is_said(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running(["500"] * 9 + ["401"]) as server:
        scored = oracle(server, retries=0)
        told = ask(scored)
        assert KEY not in repr(told) + repr(scored)
        server.plan[:] = ["401"] * 20
        with pytest.raises(Exception, match="stopped") as caught:
            ask(scored)
        assert KEY not in repr(caught.value.__cause__) + str(caught.value.__cause__)


def test_a_redirect_is_not_followed_and_no_other_server_sees_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running() as other, running([]) as server:
        server.plan[:] = [f"away {other.url}/chat/completions"] * 5
        assert ask(oracle(server, retries=1)).failed.all()
        assert (len(server.seen), len(other.seen)) == (1, 0)


def test_an_endless_answer_is_cut_off():
    with running(["endless"] * 5) as server:
        assert ask(oracle(server, retries=1)).failed.all()
        assert len(server.seen) == 1
        assert server.flooded < 1 << 26


def test_a_request_that_is_sent_again_has_the_same_key_of_its_own():
    with running(["500", "closed"]) as server:
        scored = oracle(server, concurrency=1)
        ask(scored, ["a", "b"], data=np.array([1, 2]))
        ask(oracle(server), ["a"], data=np.array([1]))  # as a process does that takes up a run
        sent = [(headers["Idempotency-Key"], body["messages"][0]["content"]) for _, headers, body in server.seen]
    assert len(sent) == 5
    assert len(set(sent)) == 2
    assert all(len(key) == 32 for key, _ in sent)


def test_requests_go_out_in_parallel_and_answers_keep_their_order():
    with running() as server:
        told = ask(oracle(server, concurrency=3), ["a" * k for k in range(12)])
        assert 2 <= server.most <= 3
    assert told.f.tolist() == [4.0 + k for k in range(12)]


def test_equal_numbers_are_equal_requests_and_the_cache_answers_them():
    with running() as server:
        scored = oracle(server, cache=True, tokens=20, concurrency=1)
        told = ask(scored, ["a", "a", "a"], data=np.array([3, 3, 4]))
        seeds = [body["seed"] for _, _, body in server.seen]
        assert len(server.seen) == 2
        assert len(set(seeds)) == 2
        assert told.cost.tolist() == [6.0, 1.0, 6.0]


def test_prompts_and_scores_may_be_functions_of_the_number():
    with running() as server:
        scored = dfo.ChatScore(server.url, "m", lambda x, k: f"{x}/{k}", lambda text, k: float(text.endswith(f"/{k}")))
        assert ask(scored, ["{data}", "b"], data=np.array([5, 6])).f.tolist() == [1.0, 1.0]
        assert ask(scored, ["a"], step=7).f.tolist() == [1.0]
        assert [body["messages"][0]["content"] for _, _, body in server.seen[-1:]] == ["a/7"]


def test_the_budget_counts_tokens_and_failures_count_as_the_most():
    with running(["ok", "400"]) as server:
        scored = dfo.ChatScore(server.url, "m", "{x}", lambda text, k: float(text.count("b")), tokens=30, concurrency=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EvaluationWarning)
            res = dfo.minimize(scored, dfo.Text("ab", 4), method="random", budget=100, options={"batch": 2})
    assert res.nfail == 1
    assert 5 + 30 <= res.cost <= 100
    assert res.cost == 30 + 5 * (res.nfev - 1)


def test_laws():
    with running() as server:
        scored = oracle(server)

        def batch(key, n):
            return Items([f"{'x' * i}" for i in range(n)], data=np.arange(n) % 3)

        check_oracle(scored, batch, seconds=2.0, cases=3).raise_if_failed()


@pytest.mark.parametrize("url", ["https://me:dfo-canary@example.com/v1", "https://example.com/v1?key=dfo-canary"])
def test_an_address_with_a_secret_in_it_is_refused(url):
    with pytest.raises(InvalidArgument, match="key_env") as caught:
        dfo.ChatScore(url, "m", "{x}", lambda text, data: 0.0)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://example.com/v1", "ftp://127.0.0.1", "127.0.0.1:80"])
def test_an_address_without_encryption_is_refused(url):
    with pytest.raises(InvalidArgument, match="expected https"):
        dfo.ChatScore(url, "m", "{x}", lambda text, data: 0.0)


def test_other_mistakes_are_refused():
    with pytest.raises(InvalidType, match="score"):
        dfo.ChatScore("https://example.com/v1", "m", "{x}", 3)
    with pytest.raises(InvalidArgument, match="timeout"):
        dfo.ChatScore("https://example.com/v1", "m", "{x}", lambda text, data: 0.0, timeout=0.0)
    with pytest.raises(InvalidArgument, match="retries"):
        dfo.ChatScore("https://example.com/v1", "m", "{x}", lambda text, data: 0.0, retries=-1)
