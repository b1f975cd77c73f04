"""What goes wrong in runs that know a secret: ``scenarios.py '{"500": "http://...", ...}' [NAME]``, in its own folder.

The secret is in the environment. Each scenario prints what a script would print and leaves its files behind; an
exception that belongs to the script itself is not printed, all others are, with their tracebacks.
"""

import base64
import functools
import json
import os
import signal
import sys
import threading
import traceback
import urllib.parse
import warnings

import dfo
from dfo.errors import DfoError

KEY = os.environ["OPENAI_API_KEY"]
URLS = json.loads(sys.argv[1])
SPACE = dfo.Text("ab", 4)


def show(result):
    print(repr(result), result.message, result.to_json(), flush=True)


def chat(name, **options):
    """Ask an endpoint that answers in one way only, with a store."""
    scored = dfo.ChatScore(
        URLS[name], "m", "{x}", lambda text, k: float(text.count("b")),
        timeout=0.3, retries=1, backoff=0.0, concurrency=1, **options,
    )  # fmt: skip
    try:
        show(dfo.minimize(scored, SPACE, method="random", budget=3, store=f"{name.replace(' ', '-')}.db"))
    except Exception as error:
        traceback.print_exc()
        if hasattr(error, "result"):
            show(error.result)
    print(repr(scored))


def leaking(x):
    """Raise, as clients of services do, with the key in the text, in every spelling."""
    if x[0] > -9:
        spelled = [KEY, urllib.parse.quote(KEY, safe=""), base64.b64encode(b"user:" + KEY.encode()).decode(), KEY[:15]]
        raise RuntimeError(f"401 for key {KEY!r}: " + ", ".join(spelled))
    return 0.0


def cautious(x):
    with open(f"cmdline-{os.getpid()}", "wb") as file, open("/proc/self/cmdline", "rb") as line:
        file.write(line.read())
    return leaking(x)


def kept(name, fun=leaking, **options):
    try:
        show(dfo.minimize(fun, [1.0, 2.0], method="cma", budget=6, store=f"{name}.db", **options))
    except (dfo.errors.DfoError, RuntimeError) as error:
        if hasattr(error, "result"):
            show(error.result)


class Service:
    def __init__(self, api_key):
        self.api_key = api_key

    def __call__(self, x, *args):
        return float(x @ x)


def proxied():
    URLS["proxied"] = URLS["500"]
    os.environ["HTTPS_PROXY"] = os.environ["HTTP_PROXY"] = f"http://user:{urllib.parse.quote(KEY)}@127.0.0.1:9"
    chat("proxied")
    del os.environ["HTTPS_PROXY"], os.environ["HTTP_PROXY"]


def configured():
    key = KEY
    kept("config-args", Service(""), args=(key,))
    kept("config-object", Service(key))
    kept("config-closure", lambda x: float(x @ x) if key else 0.0)
    kept("config-partial", functools.partial(_with, key))
    try:
        dfo.minimize(Service("another"), [1.0, 2.0], method="cma", budget=6, store="config-object.db")
    except DfoError:
        traceback.print_exc()


def _with(key, x):
    return float(x @ x) + 0.0 * len(key)


def bad_score():
    scored = dfo.ChatScore(URLS["ok"], "m", "{x}", lambda text, k: leaking([0.0]), retries=0)
    try:
        dfo.minimize(scored, SPACE, method="random", budget=3, store="score.db")
    except Exception as error:
        show(error.result)


def asked_and_told():
    with dfo.AskTell("cma", [1.0, 2.0], store="told.db") as opt, opt.serve(budget=4) as server:

        def work():
            with dfo.join("told.db") as client:
                for candidate in client:
                    try:
                        leaking(candidate.x)
                    except RuntimeError as error:
                        client.tell(candidate, error)

        threading.Thread(target=work).start()
        print(server.wait(20), opt.best_fun)


def crashed(x):
    print(dfo.secrets.scrub(KEY), file=sys.stderr, flush=True)
    os._exit(3)


def killed():
    calls = []

    def once(x):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return leaking(x)

    kept("killed", once, on_error="record")


def peer():
    kept("peer", on_error="record")
    try:
        dfo.minimize(leaking, [1.0, 2.0], method="scipy:Powell", budget=6, store="scipy.db", on_error="record")
    except Exception as error:
        print(type(error).__name__)


SCENARIOS = {
    **{name: functools.partial(chat, name) for name in URLS if name != "ok"},
    "proxies": proxied,
    "score raises": bad_score,
    "recorded": functools.partial(kept, "recorded", on_error="record"),
    "raised": functools.partial(kept, "raised"),
    "processes": functools.partial(kept, "processes", cautious, on_error="record", workers=2),
    "threads": functools.partial(kept, "threads", on_error="record", workers="threads:2"),
    "text returned": functools.partial(kept, "text", lambda x: f"no value: {KEY}", on_error="record"),
    "worker crashes": functools.partial(kept, "crash", crashed, workers=2, retries=0, on_error="record"),
    "configuration": configured,
    "ask and tell": asked_and_told,
    "peers": peer,
    "killed": killed,
}

if __name__ == "__main__":
    warnings.simplefilter("default")
    for name, scenario in SCENARIOS.items():
        if (len(sys.argv) < 3 and name != "killed") or name in sys.argv[2:3]:
            print("scenario:", name, flush=True)
            scenario()
