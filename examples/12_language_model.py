"""Prompts: the wording of a prompt is chosen by what a language model behind an HTTP endpoint answers.

The endpoint here is a toy on this machine that adds numbers, better when it is asked well; any OpenAI-compatible one
will do. The budget counts tokens, and a busy server is asked again.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dfo

SUMS = [(12, 30), (7, 5), (40, 2), (8, 9), (31, 17)]
requests = []


class Toy(BaseHTTPRequestHandler):
    """Gets one sum more right for every good word in the prompt, and finds itself busy now and then."""

    def do_POST(self):
        """Answer a chat completion."""
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        requests.append(text)
        if len(requests) % 7 == 3:
            return self.reply(503, {})
        skill = 2 * ("step by step" in text) + text.count("Example") - ("hurry" in text)
        sums = re.findall(r"(\d+) \+ (\d+) = \?", text)
        answer = " ".join(str(int(a) + int(b) + (i >= skill)) for i, (a, b) in enumerate(sums))
        usage = {"total_tokens": len(text.split()) + len(sums)}
        return self.reply(200, {"choices": [{"message": {"content": answer}}], "usage": usage})

    def reply(self, status, message):
        """Send a status and a message."""
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(message).encode())

    def log_message(self, *args):
        """Say nothing."""


def prompt(words, number):
    """Return the prompt that a choice of words makes."""
    examples = " ".join(f"Example: {k} + {k} = {2 * k}." for k in range(words["examples"]))
    return f"{words['tone']} {examples} " + " ".join(f"{a} + {b} = ?" for a, b in SUMS)


def wrong(text, number):
    """Return how many sums are wrong."""
    return float(sum(answer != str(a + b) for answer, (a, b) in zip(text.split(), SUMS, strict=True)))


server = ThreadingHTTPServer(("127.0.0.1", 0), Toy)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = dfo.ChatScore(f"http://127.0.0.1:{server.server_port}/v1", "toy", prompt, wrong, tokens=100, backoff=0.01)
space = {"tone": dfo.Choice(["Please answer.", "Now hurry!", "Think step by step."]), "examples": dfo.Int(0, 3)}
res = dfo.minimize(model, space, method="random", budget=3000, batch=4, stop=dfo.Target(0.0))
server.shutdown()
print(f"{res.x}: {res.fun:.0f} of {len(SUMS)} wrong, {res.cost:.0f} tokens in {res.nfev} evaluations")
