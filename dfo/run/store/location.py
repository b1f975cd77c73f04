"""Where a store lies, the files beside it, and what may not be a store."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from urllib.parse import quote

from dfo.errors import CannotWrite, InvalidArgument, InvalidType, short

__all__ = ["Store", "beside", "make_private", "path_of", "plain_file", "sync_folder", "uri"]

MODE_FILE, MODE_FOLDER = 0o600, 0o700


@dataclass(frozen=True)
class Store:
    """Where and how a run is kept.

    Args:
        path: the file; created if it does not exist, continued if it does.
        fsync: whether each answer outlives a power failure too; without it, it outlives the process.
        accept: names of the configuration that may differ from what is stored, such as ``("objective",)``; a dot
            leads into tables (``"options.sigma"``).
        every: least number of seconds between two states of the solver that are kept.

    Raises:
        InvalidType: the path is no path.
        InvalidArgument: the path holds a NUL, or ``every`` is negative.

    Example:
        >>> from dfo.run.store import Store
        >>> Store("run.db", accept=("objective",)).every
        5.0
    """

    path: str | os.PathLike[str]
    fsync: bool = False
    accept: tuple[str, ...] = ()
    every: float = 5.0

    def __post_init__(self) -> None:
        path_of(self.path)
        given: object = self.accept
        if not isinstance(given, (tuple, list)) or not all(isinstance(name, str) for name in given):
            raise InvalidType(f'Store: expected accept as names such as ("objective",), got {short(given)}.')
        object.__setattr__(self, "accept", tuple(self.accept))
        if not float(self.every) >= 0.0:
            raise InvalidArgument(f"Store: expected every >= 0 seconds, got {short(self.every)}.")


def path_of(path: str | os.PathLike[str]) -> str:
    """Return a path as absolute text.

    Raises:
        InvalidType: it is no path.
        InvalidArgument: it is empty, or holds a NUL.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise InvalidType(f'store: expected a path such as "run.db", got {short(path)}.') from None
    if not text or "\0" in text:
        raise InvalidArgument(f"store: expected a path without NUL characters, got {short(text)}.")
    return os.path.abspath(text)


def beside(path: str, what: str) -> str:
    """Return the path of a file that belongs to a store: ``"-wal"``, ``".lock"``, ``".blobs"``."""
    return path + what


def uri(path: str, options: str) -> str:
    """Return the address of a file for SQLite, whatever characters the path has."""
    return f"file:{quote(os.fsencode(path))}?{options}"


def plain_file(path: str) -> bool:
    """Tell whether a plain file is there; nothing at all is False.

    Raises:
        CannotWrite: a link, a folder or a device stands there, or the folder cannot be looked into.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CannotWrite(
            error.errno, f"store: expected a path in a readable folder ({error.strerror})", path
        ) from None
    if stat.S_ISREG(mode):
        return True
    kinds = {
        stat.S_IFLNK: ("a symbolic link; name the file itself", errno.ELOOP),
        stat.S_IFDIR: ("a folder", errno.EISDIR),
    }
    what, number = kinds.get(stat.S_IFMT(mode), ("a device, pipe or socket", errno.EINVAL))
    raise CannotWrite(number, f"store: expected a plain file or a new name, got {what}", path)


def make_private(path: str) -> int:
    """Create a file that only its owner may read, whatever the umask; return it open for writing.

    Raises:
        OSError: it exists already, or cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(path, flags, MODE_FILE)
    if hasattr(os, "fchmod"):
        os.fchmod(handle, MODE_FILE)
    return handle


def sync_folder(folder: str) -> None:
    """Make renames in a folder outlive a power failure, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
