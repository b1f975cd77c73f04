"""Begin or join a Ray cluster without a trace in this process.

Ray, left to its defaults, listens on every interface of the machine, writes a token readable by everybody into the home
directory, and changes this process: its SIGTERM handler, ``sys.excepthook``, the environment, warnings filters and the
fault handler. A cluster that begins here listens on loopback alone, asks for a token that lives only in the environment
of its own processes, and sends no statistics; and what Ray changes in this process is put back.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from dfo.errors import InvalidArgument, MissingPackage

__all__ = ["end", "join", "load"]

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's word for "this machine only, on loopback"


def load() -> Any:
    """Return the module ``ray``.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        with _as_it_was():
            return import_module("ray")
    except ImportError as error:
        raise MissingPackage(
            f"workers='ray' needs the package ray ({error}). Run: pip install 'dfo-optim[ray]'."
        ) from None


def join(address: str | None) -> Literal["there", "joined", "begun"]:
    """Connect this process to a cluster, unless it is connected; tell what it took.

    Args:
        address: ``host:port`` of a head, ``ray://host:port`` of a client server, ``"auto"`` for a running cluster,
            ``"local"`` for a new one on loopback, or None for a running one if there is one, else a new one.

    Raises:
        MissingPackage: ``ray`` is not installed, or ``grpcio`` for a ``ray://`` address.
        InvalidArgument: nothing answers at the address.
    """
    ray = load()
    if ray.is_initialized():
        return "there"
    address = _found() or "local" if address is None else address
    _check(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with _as_it_was(), ExitStack() as stack:
        if address == "local" or _answers_on_loopback_only(ray, address):
            stack.enter_context(_loopback(own=address == "local"))
        try:
            ray.init(address, log_to_driver=False, configure_logging=False, **options)
        except ImportError as error:
            raise MissingPackage(f"workers={address!r}: {error}. Run: pip install 'ray[client]'.") from None
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InvalidArgument(f"workers: no Ray cluster at {address!r} ({_line(error)}).") from error
    return "begun" if address == "local" else "joined"


def end() -> None:
    """Disconnect; a cluster that began with :func:`join` ends."""
    ray = load()
    with _as_it_was():
        ray.shutdown()
        _forget_token()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _found() -> str | None:
    """Return the address of a running cluster: the user's word, or a head that this user began on this machine."""
    told = os.environ.get("RAY_ADDRESS")
    if told:
        return told if told == "local" else "auto"
    file = Path(os.environ.get("RAY_TMPDIR") or _temporary(), "ray", "ray_current_cluster")
    try:  # a head of somebody else could send us any pickle
        address = file.read_text().strip() if file.stat().st_uid == os.getuid() else ""
    except (OSError, AttributeError):
        return None
    place = _place(address)
    return address if place is not None and _answers(*place) else None


def _temporary() -> str:
    return "/tmp" if sys.platform != "win32" else tempfile.gettempdir()  # Ray's choice, whatever TMPDIR says


def _place(address: str) -> tuple[str, int] | None:
    """Return host and port of an address, or None where Ray is to find or begin a cluster."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() else None


def _check(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would wait for minutes, then end the process."""
    place = _place(address)
    if place is None:
        if address not in ("auto", "local"):
            raise InvalidArgument(
                f"workers: expected an address such as 'host:6379' of a Ray cluster, got {address!r}."
            )
    elif not _answers(*place, patience=10.0):
        raise InvalidArgument(f"workers: nothing listens at {place[0]}:{place[1]}; is the Ray cluster running?")


def _answers(host: str, port: int, patience: float = 1.0) -> bool:
    try:
        socket.create_connection((host, port), timeout=patience).close()
    except OSError:
        return False
    return True


def _answers_on_loopback_only(ray: Any, address: str) -> bool:
    """Tell whether this is a head of loopback alone: Ray would turn 127.0.0.1 into an address of the network."""
    place = _place(address)
    if place is None or address.startswith("ray://") or place[0] not in ("127.0.0.1", "localhost", "::1"):
        return False
    return not _answers(ray.util.get_node_ip_address(), place[1])


@contextmanager
def _loopback(own: bool) -> Iterator[None]:
    """Let Ray take this machine for one that is on no network, and mint a token for a cluster of our own."""
    constants: Any = import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    os.environ |= _LOOPBACK
    if own:
        os.environ |= _QUIET
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            import_module("ray._raylet").AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _forget_token() -> None:
    """Let the next connection of this process read the environment again."""
    raylet = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Put back what Ray changes in this process."""
    environment, filters, hook = dict(os.environ), list(warnings.filters), sys.excepthook
    logger = logging.getLogger("ray")
    level, faults = logger.level, faulthandler.is_enabled()
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if main and signal.getsignal(signal.SIGTERM) is not handler:
            signal.signal(signal.SIGTERM, handler)
        if faulthandler.is_enabled() and not faults:
            faulthandler.disable()
        sys.excepthook = hook
        warnings.filters[:] = filters  # type: ignore[index]
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
