"""Scores of the answers of a language model behind an OpenAI-compatible HTTP endpoint.

Failures are part of such an oracle: a busy or broken server is asked again, waiting as long as it says; what
does not answer in the end is a failed evaluation and never a score. Only the standard library is used.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dfo.batch import Batch
from dfo.errors import InvalidArgument, InvalidType, short
from dfo.feedback import Values
from dfo.oracles.function import Halted
from dfo.oracles.values import values_of
from dfo.random import Key, integers, uniform
from dfo.secrets import register

__all__ = ["ChatScore", "RemoteError"]

LARGEST = 1 << 23
"""Most bytes of an answer that are read."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which a request is sent again."""

REFUSED = frozenset({401, 403, 404})
"""HTTP statuses that no repetition and no other prompt will mend: the run ends."""


class RemoteError(RuntimeError):
    """A request that got no answer; the message holds neither the key nor what the server wrote.

    Args:
        message: why.
        wait: seconds after which to send it again, or None where that is of no use.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class RemoteRefused(RemoteError):
    """The endpoint refuses this key, model or address."""


@dataclass(frozen=True)
class _Answer:
    text: str
    tokens: float | None


@dataclass(frozen=True, eq=False)
class ChatScore:
    """``score(text, data)`` of what a model answers to a prompt made from a point.

    Requests of a batch go out in parallel. A request is sent again after a lost connection, a timeout, an answer
    that is no JSON of the expected form, and the statuses 408, 409, 425, 429 and 5xx, waiting as long as
    ``Retry-After`` says, else twice as long each time. In the end the evaluation has failed. 401, 403 and 404 end the
    run, with its result kept.

    ``Batch.data`` numbers what a member sees: the number is handed to ``prompt`` and ``score`` and gives the request
    its ``seed``. Without numbers, the step's own number serves.

    Every request has an ``Idempotency-Key``, a function of its content: one that is sent again, by this process or
    after a resumption, need not be charged twice. Redirects are not followed, and the key is masked in all that dfo
    writes (:mod:`dfo.secrets`).

    Args:
        url: base address such as ``"http://127.0.0.1:8080/v1"``; https, or this machine; without a password in it.
        model: its name.
        prompt: a text in which ``{x}`` and ``{data}`` stand for the point and the data number, or a function of both.
        score: function of the answer and the data number; lower is better.
        system: a text to begin with, or None.
        options: further fields of the request, such as ``{"temperature": 0.0, "max_tokens": 64}``.
        tokens: most tokens that one evaluation takes; the budget then counts tokens. None counts evaluations.
        key_env: name of the environment variable that holds the key; without a key none is sent.
        timeout: seconds for one request.
        retries: how often a request is sent again.
        backoff: seconds before the first repetition; up to half more is added, so that requests spread.
        patience: longest wait in seconds; who is asked to wait longer gives up at once.
        concurrency: most requests under way at once.
        cache: answer equal requests from memory, at a cost of 1.

    Raises:
        InvalidArgument: an address without encryption on another machine, or a number out of range.
        InvalidType: ``score`` is no function.
    """

    url: str
    model: str
    prompt: str | Callable[[Any, int], str]
    score: Callable[[str, int], float]
    _: KW_ONLY
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    key_env: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0
    patience: float = 60.0
    concurrency: int = 4
    cache: bool = False
    gives: frozenset[str] = field(default=frozenset({"values", "ranking"}), init=False, repr=False)
    max_batch: int | None = field(default=None, init=False, repr=False)
    kept: dict[str, _Answer] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.score):
            raise InvalidType(f"score: expected a function of a text and a data number, got {short(self.score)}.")
        if isinstance(self.prompt, str) and "{x}" not in self.prompt:
            raise InvalidArgument(f"prompt: expected {{x}} where the point goes, got {short(self.prompt)}.")
        self._check_url()
        for name in ("timeout", "concurrency", "tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidArgument(f"{name}: expected a positive number, got {value!r}.")
        for name in ("retries", "backoff", "patience"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidArgument(f"{name}: expected a number >= 0, got {getattr(self, name)!r}.")

    def _check_url(self) -> None:
        where = urlsplit(self.url)
        if where.username is not None or where.password is not None or where.query:
            raise InvalidArgument(
                "url: expected an address without user, password or query: what is secret goes into an environment"
                " variable, named by key_env."
            )
        if where.scheme != "https" and not (where.scheme == "http" and self._local):
            raise InvalidArgument(f"url: expected https, or http on this machine, got {short(self.url)}.")

    @property
    def price(self) -> float:
        """What one evaluation costs at most."""
        return float(self.tokens or 1)

    @property
    def _local(self) -> bool:
        return urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")

    def start(self, lanes: int, key: Key) -> Key:
        """Return the key of the seeds."""
        return key

    def evaluate(self, batch: Batch, memory: Key) -> tuple[Values, Key]:
        """Ask about every member and score the answers.

        Raises:
            Halted: the endpoint refuses all requests, or the prompt or the score raised.
        """
        numbers = [batch.step] * len(batch) if batch.data is None else [int(k) for k in batch.data]
        raw: list[Any] = []
        try:
            bodies = [self._body(batch.member(i), k, memory) for i, k in enumerate(numbers)]
            with ThreadPoolExecutor(self.concurrency) as pool:
                answers = list(pool.map(self._answered, bodies))
            raw += [
                a if isinstance(a, RemoteError) else self.score(a.text, k)
                for a, k in zip(answers, numbers, strict=True)
            ]
        except Exception as error:
            raise Halted(Values(np.empty(0)), len(batch), error) from error
        told = values_of(raw)
        cost = None if self.tokens is None else np.array([self._cost(a) for a in answers])
        return Values(told.f, failed=told.failed, notes=told.notes, cost=cost), memory

    def _cost(self, answer: _Answer | RemoteError) -> float:
        """Return the tokens; what failed may have been charged, so it counts as the most."""
        return self.price if isinstance(answer, RemoteError) or answer.tokens is None else max(answer.tokens, 1.0)

    # ------------------------------------------------------------------ one request

    def _body(self, x: Any, number: int, key: Key) -> str:
        """Return a request as text; equal points and numbers make equal requests."""
        if callable(self.prompt):
            text = self.prompt(x, number)
            if not isinstance(text, str):
                raise InvalidType(f"prompt: expected a function that returns text, got {short(text)}.")
        else:
            text = self.prompt.replace("{data}", str(number)).replace("{x}", str(x))
        messages = [{"role": "user", "content": text}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        seed = int(integers(key.child("seed", number), 2**31, (1,))[0])
        return json.dumps({"model": self.model, "messages": messages, "seed": seed, **self.options})

    def _answered(self, body: str) -> _Answer | RemoteError:
        """Return the answer to a request, or why there is none after all repetitions.

        Raises:
            RemoteRefused: no repetition will mend it.
        """
        if body in self.kept:
            return _Answer(self.kept[body].text, 1.0)
        answer: _Answer | RemoteError = RemoteError("not asked")
        for attempt in range(self.retries + 1):
            try:
                answer = self._sent(body)
            except RemoteRefused:
                raise
            except RemoteError as error:
                answer, wait = error, error.wait
                if wait is None or wait > self.patience or attempt == self.retries:
                    break
                time.sleep(max(wait, min(self._pause(body, attempt), self.patience)))
            else:
                if self.cache:
                    self.kept[body] = answer
                break
        return answer

    def _pause(self, body: str, attempt: int) -> float:
        spread = uniform(Key(0, ("pause", body, attempt)), (1,))[0]
        return float(self.backoff * 2.0**attempt * (1.0 + 0.5 * spread))

    def _sent(self, body: str) -> _Answer:
        """Send a request once.

        Raises:
            RemoteError: there was no answer of use.
        """
        content = body.encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Idempotency-Key": blake2b(content, digest_size=16).hexdigest(),
        }
        if secret := os.environ.get(self.key_env):
            register(secret)
            headers["Authorization"] = f"Bearer {secret}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", content, headers, method="POST")
        until = time.monotonic() + self.timeout
        try:
            with _opener(self._local, self.timeout) as opener, opener.open(request, timeout=self.timeout) as reply:
                return _parsed(_read(reply, until))
        except urllib.error.HTTPError as error:
            error.close()
            kind = RemoteRefused if error.code in REFUSED else RemoteError
            wait = _asked(error.headers.get("Retry-After")) if error.code in AGAIN else None
            raise kind(f"the endpoint answered with status {error.code}", wait) from None
        except (OSError, HTTPException) as error:
            raise RemoteError(f"no answer ({type(error).__name__})", 0.0) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a redirect would carry the key elsewhere."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Known:
    """Opens connections that can be cut: a server may send a byte of its header now and then, for ever."""

    connection: type[HTTPConnection] = HTTPConnection

    def __init__(self) -> None:
        super().__init__()
        self.made: list[HTTPConnection] = []

    def _new(self, host: str, **options: Any) -> HTTPConnection:
        self.made.append(self.connection(host, **options))
        return self.made[-1]


class _Http(_Known, urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(self._new, request)


class _Https(_Known, urllib.request.HTTPSHandler):
    connection = HTTPSConnection

    def https_open(self, request: Any) -> Any:
        return self.do_open(self._new, request)


@contextmanager
def _opener(local: bool, timeout: float) -> Iterator[urllib.request.OpenerDirector]:
    """Context with what opens addresses; a connection whose answer has not begun in time is cut."""
    plain, encrypted = _Http(), _Https()

    def cut() -> None:
        for connection in [*plain.made, *encrypted.made]:
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    proxies = [urllib.request.ProxyHandler({})] if local else []
    timer = threading.Timer(timeout, cut)
    timer.daemon = True
    timer.start()
    try:
        yield urllib.request.build_opener(_NoRedirect, plain, encrypted, *proxies)
    finally:
        timer.cancel()


def _read(reply: Any, until: float) -> bytes:
    """Return the body, unless it is too long or too slow.

    Raises:
        RemoteError: it is.
    """
    parts, size = [], 0
    while part := reply.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise RemoteError(f"the answer is longer than {LARGEST} bytes")
        if time.monotonic() > until:
            raise RemoteError("no answer in time", 0.0)
    return b"".join(parts)


def _parsed(content: bytes) -> _Answer:
    """Return the text and the tokens of an answer.

    Raises:
        RemoteError: it is no chat completion.
    """
    try:
        reply = json.loads(content)
        text = reply["choices"][0]["message"]["content"]
        used = (reply.get("usage") or {}).get("total_tokens")
        if not isinstance(text, str):
            raise TypeError
        return _Answer(text, None if used is None else float(used))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise RemoteError("the answer is no chat completion", 0.0) from None


def _asked(after: str | None) -> float:
    """Return the seconds of a Retry-After header: a number, or a date; 0 without one."""
    if not after:
        return 0.0
    try:
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return 0.0
