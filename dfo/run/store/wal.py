"""The write-ahead log of SQLite, looked at before SQLite does: it would drop all that follows a bad frame in silence.

A log is a header and frames (24 bytes and a page each). The checksum of a frame continues that of the frame before it,
and carries the salts of its header; frames with other salts are left over from before the log began anew. Checksums are
linear modulo 2^32, so that those of all frames come out of one product.

Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from dfo.run.store.schema import PAGE

__all__ = ["Log", "apply", "read_log"]

HEADER, FRAME = 32, 24 + PAGE
MAGIC = 0x377F0682
_PAIRS = (8 + PAGE) // 8

Words = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
_Said = tuple[int, int, bytes] | None


@dataclass(frozen=True, eq=False)
class Log:
    """What a log holds.

    Args:
        frames: ``(n,)`` records of the frames of this log: ``page``, ``commit`` (pages of the file behind the
            last frame of a transaction, else 0), ``data``.
        good: ``(n,)`` whether a frame's checksum holds.
        whole: frames up to the last transaction before the first bad frame: what SQLite would read.
        lost: frames of finished transactions that are bad or missing; 0 where the log is as it was left.
    """

    frames: npt.NDArray[np.void]
    good: Flags
    whole: int
    lost: int


_FRAME = np.dtype([("page", ">u4"), ("commit", ">u4"), ("salt", ">u4", 2), ("sum", ">u4", 2), ("data", "u1", (PAGE,))])


def read_log(path: str, witness: bool = True) -> Log | None:
    """Look at the log of a store; None where there is none, or an empty one.

    Args:
        path: of the store.
        witness: look at ``-shm`` too, which knows how many frames there were; not while SQLite has it open here.
    """
    try:
        with open(path + "-wal", "rb") as file:
            data = file.read()
    except FileNotFoundError:
        data = b""
    said = _witness(path) if witness else None
    if len(data) < HEADER:
        missing = said[0] - said[1] if said and said[0] > said[1] else 0
        return Log(np.zeros(0, _FRAME), np.zeros(0, bool), 0, missing) if missing or data else None
    head = np.frombuffer(data, ">u4", 8)
    frames = np.frombuffer(data, _FRAME, (len(data) - HEADER) // FRAME, HEADER)
    return _judged(head, frames, (len(data) - HEADER) % FRAME > 0, said)


def _judged(head: npt.NDArray[np.uint32], frames: npt.NDArray[np.void], cut: bool, said: _Said) -> Log:
    """Tell which frames are of this log, good, whole and lost."""
    sums = _fold(_swapped(head[:6])[None])[0]
    header_good = int(head[0]) == MAGIC and bool((sums == head[6:]).all()) and int(head[2]) == PAGE
    salt = head[4:6]
    if not header_good and len(frames) and not (frames["salt"] == salt).all(1).any():
        salt = frames["salt"][0]
    chained = _chained(head[6:8].astype(np.uint32), sums, frames)
    ours = (frames["salt"] == salt).all(1)
    first_other = int(np.argmin(ours)) if not ours.all() else len(ours)
    stray = first_other < len(ours) and bool(chained[first_other])  # a frame of this log whose salt was hit
    last = int(np.flatnonzero(ours)[-1]) + 1 if ours.any() else 0
    n = max(last, first_other + 1 if stray else 0)
    frames, good = frames[:n], (chained & (ours | chained))[:n]
    bad = np.flatnonzero(~(good & ours[:n]))
    prefix = int(bad[0]) if len(bad) else n
    if not header_good:
        prefix = 0
    commits = np.flatnonzero(frames["commit"][:prefix])
    whole = int(commits[-1]) + 1 if len(commits) else 0
    return Log(frames, good, whole, _lost(n, whole, prefix, header_good, cut, said, salt.tobytes()))


def _lost(n: int, whole: int, prefix: int, header_good: bool, cut: bool, said: _Said, salt: bytes) -> int:
    """Return how many frames of finished transactions are gone."""
    if said is not None and said[2] == salt and header_good:
        return max(said[0] - whole, 0)
    if not header_good:
        return max(n, 1)
    return n - whole + cut if prefix < n or cut else 0


def _chained(stored_head: Words, computed_head: Words, frames: npt.NDArray[np.void]) -> Flags:
    """Tell which frames continue the one before them, by its checksum as stored or as it should be."""
    if not len(frames):
        return np.zeros(0, bool)
    words = np.empty((len(frames), 2 * _PAIRS), np.uint32)
    words[:, 0], words[:, 1] = _swapped(frames["page"]), _swapped(frames["commit"])
    words[:, 2:] = np.ascontiguousarray(frames["data"]).view("<u4")
    own = _fold(words)
    jump = _powers()[0]
    stored = frames["sum"].astype(np.uint32)  # (n, 2)
    before = np.concatenate([stored_head[None], stored[:-1]])
    good: Flags = ((own + _moved(jump, before)) == stored).all(1)
    previous = computed_head
    for i in np.flatnonzero(~good):  # rare: a frame behind one whose stored checksum was hit
        if i > 0:
            seed = before[i - 1][None]
            previous = (own[i - 1] + _moved(jump, seed)[0]).astype(np.uint32)
        good[i] = bool(((own[i] + _moved(jump, previous[None])[0]) == stored[i]).all())
    return good


def _swapped(field: npt.NDArray[np.uint32]) -> Words:
    """Return the words of big-endian fields as the checksum reads them."""
    return np.ascontiguousarray(field).view("<u4")


def _fold(words: Words) -> Words:
    """Return ``(n, 2)`` checksums of ``(n, 2 k)`` words, beginning at zero."""
    pairs = words.shape[1] // 2
    weights = _powers()[1][-2 * pairs :]
    folded: Words = np.zeros((len(words), 2), np.uint32)
    for start in range(0, len(words), 512):  # a mebibyte or two at a time
        folded[start : start + 512] = words[start : start + 512] @ weights
    return folded


def _moved(jump: Words, sums: Words) -> Words:
    """Return what ``(n, 2)`` checksums add to those one frame on."""
    moved: Words = sums @ jump.T
    return moved


@cache
def _powers() -> tuple[Words, Words]:
    """Return the step of a checksum over a whole frame, and ``(2 pairs, 2)`` weights of the words of a frame.

    A pair of words (a, b) takes (s, t) to (s + t + a, s + 2 t + a + b): M (s, t) + (a, a + b).
    """
    m = np.array([[1, 1], [1, 2]], np.uint32)
    power, weights = np.eye(2, dtype=np.uint32), []
    for _ in range(_PAIRS):
        weights.append(np.stack([power[:, 0] + power[:, 1], power[:, 1]]))  # rows: of a, of b
        power = power @ m
    return power, np.concatenate(weights[::-1])


def _witness(path: str) -> _Said:
    """Return frames written, frames moved into the file, and salts, as the index of the log knows them."""
    with suppress(OSError), open(path + "-shm", "rb") as file:
        head = file.read(100)
        if len(head) == 100 and head[:48] == head[48:96] and head[12] == 1:
            frames, moved = (int.from_bytes(head[at : at + 4], "little") for at in (16, 96))
            return frames, moved, head[32:40]
    return None


def apply(image: bytearray, frames: npt.NDArray[np.void]) -> None:
    """Put the pages of frames over those of a file, as far as their last transaction."""
    commits = np.flatnonzero(frames["commit"])
    if not len(commits):
        return
    frames = frames[: commits[-1] + 1]
    size = int(frames["commit"][-1]) * PAGE
    if size > len(image) + len(frames) * PAGE:
        return  # no log of this file
    image.extend(bytes(max(size - len(image), 0)))
    pages = frames["page"].astype(np.int64)
    for page, i in {int(page): i for i, page in enumerate(pages)}.items():
        if 0 < page * PAGE <= size:
            image[(page - 1) * PAGE : page * PAGE] = frames["data"][i].tobytes()
    del image[size:]
