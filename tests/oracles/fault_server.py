"""A real HTTP server on this machine that answers chat completions, and misbehaves on demand."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers request number i as ``plan[i]`` says, and well after its end.

    Args:
        plan: words: ``"ok"``, a status such as ``"500"`` or ``"429 0.2"`` (Retry-After), ``"hang"``, ``"slow"``,
            ``"truncated"``, ``"short"``, ``"closed"``, ``"no text"``, ``"redirect"``, ``"endless"``,
            ``"slow head"``, ``"away URL"``.
        reply: function of the prompt that makes the text of an answer.
    """

    daemon_threads = True

    def __init__(self, plan=(), reply=lambda prompt: prompt):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.reply = list(plan), reply
        self.seen, self.times, self.lock = [], [], threading.Lock()
        self.under_way = self.most = self.flooded = 0
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Say nothing of connections that the client gave up."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            at = len(server.seen)
            server.seen.append((self.path, dict(self.headers), body))
            server.times.append(time.monotonic())
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        try:
            self.answer(server.plan[at] if at < len(server.plan) else "ok", body)
        finally:
            with server.lock:
                server.under_way -= 1

    def answer(self, word, body):
        text = self.server.reply(body["messages"][-1]["content"])
        good = json.dumps({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": len(text) + 1}})
        if word == "closed":
            self.connection.close()
        elif word == "hang":
            self.server.released.wait(10)
        elif word == "truncated":
            self.send(200, good[: len(good) // 2])
        elif word == "short":
            self.send(200, good[: len(good) // 2], length=len(good))
        elif word == "no text":
            self.send(200, json.dumps({"choices": []}))
        elif word == "slow":
            self.drip(good)
        elif word == "endless":
            self.flood()
        elif word == "slow head":
            self.drip("", head=True)
        elif word.startswith("away "):
            self.send(307, "", {"Location": word[5:]})
        elif word == "redirect":
            self.send(307, "", {"Location": self.server.url + "/elsewhere"})
        elif word == "ok":
            time.sleep(0.003)
            self.send(200, good)
        else:
            status, _, after = word.partition(" ")
            echo = json.dumps({"error": self.headers.get("Authorization", "")})  # as careless servers do
            self.send(int(status), echo, {"Retry-After": after} if after else {})

    def send(self, status, text, headers=(), length=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text) if length is None else length))
        self.end_headers()
        self.wfile.write(text.encode())

    def drip(self, text, head=False):
        self.send_response(200)
        if head:
            self.flush_headers()
            text = "X-Slow: " + "x" * 1000
        else:
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
        for letter in text:
            if self.server.released.wait(0.05):
                return
            self.wfile.write(letter.encode())
            self.wfile.flush()

    def flood(self):
        """Send a gibibyte, as far as the client lets."""
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 30))
        self.end_headers()
        part = b" " * (1 << 16)
        for _ in range(1 << 14):
            self.wfile.write(part)
            self.server.flooded += len(part)

    def log_message(self, *args):
        pass


@contextmanager
def running(plan=(), **options):
    """Run a server for the length of a block."""
    server = Server(plan, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
