"""Who writes: process, machine, command line without secrets, versions."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Sequence

from dfo.secrets import MASK, scrub

__all__ = ["command_line", "session"]

_SECRET = re.compile(r"key|token|secret|passw|pwd|credential|auth|bearer|cookie|signature|canary", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_KNOWN = re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|glpat|hf|xox[abps]|AKIA|AIza|eyJ)[-_A-Za-z0-9]{12,}[-._A-Za-z0-9]*")
_VERSIONS = ("dfo", "numpy", "scipy", "torch", "cma", "nevergrad", "ray")


def session() -> tuple[float, int, str, str, str, str]:
    """Return started, pid, host, command line (JSON), versions (JSON) and the version of Python."""
    versions = {name: str(getattr(sys.modules[name], "__version__", "")) for name in _VERSIONS if name in sys.modules}
    command = json.dumps(command_line(sys.argv))
    return time.time(), os.getpid(), socket.gethostname(), command, json.dumps(versions), platform.python_version()


def command_line(argv: Sequence[str]) -> list[str]:
    """Return a command line with what looks like a secret masked.

    Example:
        >>> command_line(["run.py", "--api-key", "abc", "--token=xyz", "--seed", "3"])
        ['run.py', '--api-key', '***', '--token=***', '--seed', '3']
    """
    shown, hide = [], False
    for word in argv:
        name, sign, _ = word.partition("=")
        if hide and not word.startswith("-"):
            shown.append(MASK)
        elif sign and _SECRET.search(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(_KNOWN.sub(MASK, _LOGIN.sub(f"{MASK}@", scrub(word))))
        hide = not sign and word.startswith("-") and _SECRET.search(word) is not None
    return shown
