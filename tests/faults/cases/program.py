"""``python program.py module:function JSON``: call a function, print what it returns or raises as one line of JSON."""

import importlib
import json
import signal
import sys
import traceback


def main():
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # inherited from a shell's "&"
        signal.signal(signal.SIGINT, signal.default_int_handler)
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        answer = function(**json.loads(sys.argv[2]))
    except Exception as error:
        traceback.print_exc()
        kinds = [kind.__name__ for kind in type(error).__mro__]
        answer = {"raised": type(error).__name__, "kinds": kinds, "text": str(error)[:2000]}
    print("\n" + json.dumps(answer), flush=True)
    return 3 if isinstance(answer, dict) and "raised" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
