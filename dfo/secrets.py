"""Keys and passwords stay out of what is written and said.

A text that dfo passes on (why an evaluation failed, the configuration and notes in a store, lines of the command line)
first goes through :func:`scrub`, which puts ``***`` for every secret that this process knows of: what was given to
:func:`register`, and the values of environment variables whose names contain KEY, TOKEN, SECRET, PASSW or CREDENTIAL.
It knows them plain, quoted for a URL, escaped as in JSON, in hexadecimal and in base64, there also as a part of
something longer (``user:password``), and where a text was cut within a secret.

Not covered: an exception that is raised again to its owner, points and numbers of a run, files that the objective
writes, secrets of fewer than eight characters, and other disguises (reversed, encrypted, split in two).

Nothing is searched where nothing failed: an evaluation that succeeds costs nothing.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["MASK", "register", "scrub", "scrubbed"]

MASK = "***"
"""What stands for a secret."""

SHORTEST = 8
"""Characters; what is shorter would be found in innocent words."""

_STUMP = 6  # characters of a secret at the end of a text, that was cut there
_NAMES = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_registered: set[str] = set()


def register(secret: str) -> None:
    """Have a text masked from now on, wherever dfo writes; fewer than eight characters are not.

    Example:
        >>> import dfo
        >>> dfo.secrets.register("correct horse")
        >>> dfo.secrets.scrub("login failed: correct horse")
        'login failed: ***'
    """
    if len(secret) >= SHORTEST:
        _registered.add(secret)


def scrub(text: str) -> str:
    """Return a text with every known secret masked."""
    return _clean(text, _forms(_known()))


def scrubbed(value: Any) -> Any:
    """Return data (as of JSON) with every known secret masked in its texts, those of names included."""
    forms = _forms(_known())

    def clean(part: Any) -> Any:
        if isinstance(part, str):
            return _clean(part, forms)
        if isinstance(part, Mapping):
            return {clean(name): clean(inner) for name, inner in part.items()}
        return [clean(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    return clean(value) if forms else value


def _known() -> tuple[str, ...]:
    here = {value for name, value in os.environ.items() if len(value) >= SHORTEST and _NAMES.search(name)}
    return tuple(sorted(here | _registered))


@lru_cache(maxsize=8)
def _forms(known: tuple[str, ...]) -> tuple[str, ...]:
    """Return all spellings of the secrets, the longest first."""
    found: set[str] = set()
    for secret in known:
        data = secret.encode("utf-8", "surrogateescape")
        escaped = quote(data, safe="")
        plus = quote_plus(data)
        found |= {secret, quote(data), escaped, escaped.lower(), plus, plus.lower(), repr(secret)[1:-1]}
        found |= {re.sub(r'(["\\])', r"\\\1", secret), data.hex(), data.hex().upper()}
        for shift in range(3):  # base64 spells a text in one of three ways, as it begins within a group
            whole, first = (shift + len(data)) * 8 // 6, -(-shift * 8 // 6)
            padded = b"\0" * shift + data
            found |= {encode(padded).decode()[first:whole] for encode in (b64encode, urlsafe_b64encode)}
    return tuple(sorted((form for form in found if len(form) >= SHORTEST), key=lambda form: (-len(form), form)))


def _clean(text: str, forms: tuple[str, ...]) -> str:
    for form in forms:
        text = text.replace(form, MASK)
    for form in forms:
        text = _without(text, form)
    return text


def _without(text: str, form: str) -> str:
    """Mask what is left of a spelling: its first half with what else of it follows, and a stump of it at the end."""
    head = form[: max(SHORTEST, len(form) // 2)]
    parts, done = [], 0
    while (at := text.find(head, done)) >= 0:
        end = at + len(head)
        while end < len(text) and end - at < len(form) and text[end] == form[end - at]:
            end += 1
        parts += [text[done:at], MASK]
        done = end
    text = "".join([*parts, text[done:]]) if parts else text
    bare = text.rstrip(".…'\" )\n")
    for length in range(min(len(head) - 1, len(bare)), _STUMP - 1, -1):
        if bare.endswith(form[:length]):
            return bare[:-length] + MASK + text[len(bare) :]
    return text
