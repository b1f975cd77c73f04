"""Named tensors on disk, whole or not at all: safetensors files with a hash, pruned by policy.

A file is written under a name of its own, synchronised and then renamed, so whatever kills the process leaves the
earlier snapshots as they were. It is written tensor by tensor; nothing of the size of the weights is held beside them.
The format is that of the safetensors package (no code can hide in it), which reads the files back. Their metadata are
``step``, ``sha256`` (:func:`fingerprint` of what they hold) and ``run`` (the hash of the replay log's header).
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import torch

from dfo.errors import BadState, CannotWrite, DfoWarning, InvalidArgument, InvalidType, MissingPackage, short
from dfo.files import opened

__all__ = ["DTYPES", "Snapshot", "Snapshots", "fingerprint"]

FORMAT = "1"
_NAME = re.compile(r"step-(\d{12})\.safetensors")
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors files call the types of numbers."""


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and numbers of tensors, in the order of their names, in hex."""
    digest = sha256()
    for name in sorted(tensors):
        digest.update(_title(name, tensors[name]))
        digest.update(_content(tensors[name]))
    return digest.hexdigest()


def _title(name: str, tensor: torch.Tensor) -> bytes:
    return f"{len(name)}:{name} {tensor.dtype} {tuple(tensor.shape)};".encode()


def _content(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor in C order; a view where it lies so on the host."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


@dataclass(frozen=True)
class Snapshot:
    """One file.

    Args:
        path: where it is.
        step: steps that the weights had seen.
        sha256: :func:`fingerprint` of its tensors, as its metadata say.
        run: hash of the replay log's header that it belongs to, or nothing.
    """

    path: Path
    step: int
    sha256: str
    run: str

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors, on the host.

        Raises:
            BadState: the file is damaged.
        """
        held = dict(_read(self.path))
        if fingerprint(held) != self.sha256:
            raise BadState(f"{self.path}: the hash does not fit its content; the file is damaged. Use an earlier one.")
        return held

    def load_into(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy into tensors of the same names, shapes and dtypes, one after the other.

        Raises:
            BadState: the file is damaged, or holds other tensors; then nothing has been copied.
        """
        if not self.intact():
            raise BadState(f"{self.path}: the hash does not fit its content; the file is damaged. Use an earlier one.")
        stored = {name: (tuple(held.shape), held.dtype) for name, held in _read(self.path)}
        wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        if stored != wanted:
            name = next(n for n in sorted({*stored, *wanted}) if stored.get(n) != wanted.get(n))
            raise BadState(
                f"{self.path}: expected {name!r} as {wanted.get(name, 'absent')}, got {stored.get(name, 'nothing')}."
                " Load it into the model that it was saved from."
            )
        with torch.no_grad():
            for name, held in _read(self.path):
                tensors[name].detach().copy_(held)

    def intact(self) -> bool:
        """Return whether the content has its hash; reads the file, one tensor at a time."""
        digest = sha256()
        try:
            for name, held in _read(self.path):
                digest.update(_title(name, held))
                digest.update(_content(held))
        except BadState:
            return False
        return digest.hexdigest() == self.sha256


class Snapshots:
    """The snapshots of one run, in a folder of their own, written by one process.

    Args:
        folder: made if need be.
        keep: so many of the last ones stay, at least 1.
        every: those whose step is a multiple of it stay too.
        milestones: steps whose snapshots stay too.
        run: hash of the header of the run's log; snapshots of other runs are passed over.

    Raises:
        InvalidArgument: ``keep`` or ``every`` is below 1.
        CannotWrite: the folder cannot be made.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> snapshots = Snapshots(folder.name, keep=2)
        >>> for step in range(5):
        ...     path = snapshots.save(step, {"weight": torch.full((3,), float(step))})
        >>> snapshots.steps()
        [3, 4]
        >>> snapshots.latest(before=4).tensors()["weight"].tolist()
        [3.0, 3.0, 3.0]
        >>> folder.cleanup()
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 3,
        every: int | None = None,
        milestones: Collection[int] = (),
        run: str = "",
    ) -> None:
        if keep < 1 or (every is not None and every < 1):
            raise InvalidArgument(f"Snapshots: expected keep >= 1 and every >= 1 or None, got {keep} and {every}.")
        self.folder, self.keep, self.every = Path(folder), keep, every
        self.milestones, self.run = frozenset(milestones), run
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """Return the steps of the files, damaged or not, in increasing order."""
        return sorted(
            int(found[1])
            for entry in os.scandir(self.folder)
            if (found := _NAME.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)
        )

    def save(self, step: int, tensors: Mapping[str, torch.Tensor]) -> Path:
        """Write a snapshot, then delete those that need not stay.

        Args:
            step: steps that the weights have seen, >= 0.
            tensors: by name, at least one.

        Returns:
            The file.

        Raises:
            InvalidArgument: the step is negative or too large, there is nothing to save, or a name cannot be used.
            InvalidType: a tensor has a dtype that the format lacks.
            CannotWrite: disk full, folder read-only, ...; earlier snapshots are as they were.
        """
        path, header = self._path(step), _Header(step, self.run, tensors)
        fresh = path.with_name(f".{path.name}.tmp")
        with _writing(self.folder):
            self._sweep()
            try:
                with open(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "wb") as file:
                    header.write(file, tensors)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(path)
            except BaseException:
                with suppress(OSError):
                    fresh.unlink()
                raise
            _synchronise(self.folder)
            self._prune()
        return path

    def latest(self, before: int | None = None) -> Snapshot | None:
        """Return the newest intact snapshot, or None; damaged ones and those of other runs are passed over aloud.

        Args:
            before: only those of a smaller step.
        """
        for step in reversed(self.steps()):
            if before is not None and step >= before:
                continue
            try:
                found = self._open(step)
            except BadState as error:
                warnings.warn(f"{error} An earlier snapshot is used.", DfoWarning, stacklevel=2)
                continue
            return found
        return None

    def truncate(self, step: int) -> None:
        """Delete the snapshots of later steps than this one, as a run that goes on from here will write its own.

        Raises:
            CannotWrite: a file cannot be deleted.
        """
        with _writing(self.folder):
            for later in self.steps():
                if later > step:
                    self._path(later).unlink()

    def _open(self, step: int) -> Snapshot:
        path = self._path(step)
        about = _metadata(path)
        found = Snapshot(path, step, about.get("sha256", ""), about.get("run", ""))
        if about.get("format") != FORMAT or about.get("step") != str(step):
            raise BadState(f"{path}: expected format {FORMAT} and step {step}, got {short(about)}.")
        if self.run and found.run != self.run:
            raise BadState(f"{path}: it belongs to another run.")
        if not found.intact():
            raise BadState(f"{path}: the hash does not fit its content; the file is damaged.")
        return found

    def _path(self, step: int) -> Path:
        if not 0 <= step < 10**12:
            raise InvalidArgument(f"step: expected 0 <= step < 10**12, got {step}.")
        return self.folder / f"step-{int(step):012d}.safetensors"

    def _prune(self) -> None:
        for step in self.steps()[: -self.keep]:
            if not (step in self.milestones or (self.every is not None and step % self.every == 0)):
                self._path(step).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what a killed process left half written."""
        for entry in list(os.scandir(self.folder)):
            if entry.name.endswith(".tmp") and _NAME.fullmatch(entry.name[1:-4]):
                os.unlink(entry.path)


class _Header:
    """The head of a safetensors file: eight bytes of length, then JSON, padded with spaces to a multiple of eight."""

    def __init__(self, step: int, run: str, tensors: Mapping[str, torch.Tensor]) -> None:
        if not tensors or "__metadata__" in tensors:
            raise InvalidArgument("tensors: expected at least one, none of them named '__metadata__'.")
        self.about = {"format": FORMAT, "step": str(int(step)), "run": run, "sha256": "0" * 64}
        self.table: dict[str, object] = {"__metadata__": self.about}
        end = 0
        for name in sorted(tensors):
            tensor = tensors[name]
            if tensor.dtype not in DTYPES:
                raise InvalidType(f"{name}: a tensor of {tensor.dtype} cannot be saved; convert it.")
            start, end = end, end + tensor.numel() * tensor.element_size()
            self.table[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }

    def write(self, file: BinaryIO, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write head and tensors; the hash is put in when it is known."""
        digest = sha256()
        file.write(self._bytes())
        for name in sorted(tensors):
            content = _content(tensors[name])
            digest.update(_title(name, tensors[name]))
            digest.update(content)
            file.write(content)
        self.about["sha256"] = digest.hexdigest()
        file.seek(0)
        file.write(self._bytes())

    def _bytes(self) -> bytes:
        text = json.dumps(self.table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


@contextmanager
def _writing(where: Path) -> Iterator[None]:
    """Say in one kind of error that something could not be written, and why."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(
            f"{where}: expected a folder to write to, with room ({error.strerror or error})."
            " Free some space or choose another folder."
        ) from error


def _synchronise(folder: Path) -> None:
    """Have a renaming survive a loss of power, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _opened(path: Path) -> Iterator[object]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingPackage("snapshots need safetensors: pip install 'dfo-optim[torch]'.") from None
    try:
        with opened(path) as head:  # a pipe would be waited for
            length = int.from_bytes(head.read(8), "little")
        if not 0 < length <= os.path.getsize(path) - 8:
            raise ValueError("the header is longer than the file, or empty")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BadState(f"{path}: no safetensors file, or a damaged one ({short(str(error))}).") from error


def _metadata(path: Path) -> dict[str, str]:
    with _opened(path) as file:
        return dict(file.metadata() or {})  # type: ignore[attr-defined]


def _read(path: Path) -> Iterable[tuple[str, torch.Tensor]]:
    with _opened(path) as file:
        for name in sorted(file.keys()):  # type: ignore[attr-defined]
            yield name, file.get_tensor(name)  # type: ignore[attr-defined]
