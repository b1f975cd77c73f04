"""Files that others may have written: opened if they are files, read up to a size, parsed without surprises."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO

from dfo.errors import BadState, short

__all__ = ["content", "opened", "replacing", "strict_json"]


def opened(path: str | os.PathLike[str], write: bool = False) -> BinaryIO:
    """Open a regular file, without a buffer; a pipe, a device or a folder is none, and is not waited for.

    Args:
        path: of the file, which exists.
        write: to write to it too.

    Raises:
        BadState: it is something else.
        OSError: it does not exist or cannot be opened.
    """
    flags = os.O_RDWR if write else os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    handle = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadState(f"{short(str(path))}: expected a file, got a pipe, a device or a folder.")
        return os.fdopen(handle, "r+b" if write else "rb", buffering=0)
    except BaseException:
        os.close(handle)
        raise


def content(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: of the file.
        most: so many bytes it may have.

    Raises:
        BadState: it is longer, or no file.
        OSError: it does not exist or cannot be read.
    """
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise BadState(f"{short(str(path))}: expected at most {most} bytes.")
        return file.read(most)


@contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Context with a new file that takes the place of ``path`` when all is written: a reader sees the old or the new.

    A link at ``path`` is replaced and not followed.

    Args:
        path: to write to.
        mode: ``"w"`` for text in UTF-8, lines as they come; ``"wb"`` for bytes.

    Raises:
        OSError: the folder does not exist or cannot be written; what was there is there still.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    target = os.path.abspath(path)
    handle, fresh = tempfile.mkstemp(".tmp", ".dfo-", os.path.dirname(target))
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
        os.chmod(fresh, 0o666 & ~_umask())
        os.replace(fresh, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh)
        raise


def _umask() -> int:
    """Return the mask of this process for new files, without a moment in which it is another."""
    with suppress(OSError, IndexError, ValueError), open("/proc/self/status", "rb") as file:
        return next((int(line.split()[1], 8) for line in file if line.startswith(b"Umask:")), 0o077)
    return 0o077


def strict_json(text: str | bytes) -> Any:
    """Return what a JSON text says: every name once, no NaN and no Infinity, nested as deep as Python can follow.

    Raises:
        BadState: it is something else.
    """
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except BadState:
        raise
    except (ValueError, RecursionError) as error:
        raise BadState(f"not JSON ({type(error).__name__}: {short(str(error))}).") from None


def _no_number(token: str) -> Any:
    raise BadState(f"expected a number, got {token}.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        counts: dict[str, int] = {}
        for name, _ in pairs:
            counts[name] = counts.get(name, 0) + 1
        twice = max(counts, key=lambda name: counts[name])
        raise BadState(f"the name {short(twice)} occurs twice.")
    return table
