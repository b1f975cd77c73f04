"""Damage done to stores, what is read afterwards, and what can be saved: run in a child process."""

import json
import shutil
import signal
import sqlite3
import struct
import warnings
from pathlib import Path

PAGE = 4096
LIMIT = 30  # seconds for one damaged store


def read_all(source, folder, damages, start, whole):
    """Try each damage from ``start`` on; append a line for each to ``folder/words``, so that a crash loses none.

    Args:
        source: the store that is damaged in copies; ``-wal`` beside it belongs to it.
        folder: for copies.
        damages: see :func:`inflict`.
        start: index of the first to try.
        whole: whether to save what can be saved as well.
    """

    truth = rows_of(source)
    bounds = Bounds(source, len(truth), Path(folder))
    for index in range(start, len(damages)):
        signal.alarm(LIMIT)
        word = judged(source, Path(folder), damages[index], truth, bounds if whole else None)
        signal.alarm(0)
        with open(Path(folder, "words"), "a") as file:
            file.write(f"{index} {word}\n")
    return {"rows": len(truth)}


def rows_of(path):
    """Return all that a store says of its evaluations."""
    from dfo.run.store import View

    with View.open(path) as view:
        return [(r.number, r.step, str(r.x), r.data, r.status, r.value, r.violation, r.note) for r in view.rows()]


def judged(source, folder, damage, truth, bounds):
    """Return what came of a damage: ``whole``, ``fewer``, ``refused`` or ``wrong``, and the same for a repair."""
    from dfo.errors import DfoError
    from dfo.run.store import Run, Store, repair

    path = copied(source, folder / "damaged.db")
    inflict(path, damage)
    seen = []
    for look in (rows_of, lambda p: written(Run, Store, p)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                seen.append(compared(look(path), truth) + ("+said" if caught else ""))
            except DfoError:
                seen.append("refused")
            except Exception as error:
                seen.append(f"crash-{type(error).__name__}")
        if look is rows_of:
            path = copied(source, folder / "damaged.db")
            inflict(path, damage)
    if bounds is None:
        return " ".join(seen)
    path = copied(source, folder / "damaged.db")
    inflict(path, damage)
    (folder / "saved.db").unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            salvage = repair(path, folder / "saved.db")
            saved = rows_of(folder / "saved.db")
    except DfoError:
        saved, salvage = [], None
    except Exception as error:
        return " ".join((*seen, f"saved-crash-{type(error).__name__}"))
    least = bounds.least(damage)
    if saved != truth[: len(saved)] and compared(saved, truth) == "wrong":
        return " ".join((*seen, "saved-wrong"))
    if salvage is not None and salvage.kept != len(saved):
        return " ".join((*seen, f"saved-miscounted-{salvage.kept}-{len(saved)}"))
    return " ".join((*seen, f"saved-{len(saved)}" if len(saved) >= least else f"saved-only-{len(saved)}-of-{least}"))


def written(run, store, path):
    """Open as the next session of the run would, close, and return what it left."""
    run.open(store(path)).close()
    return rows_of(path)


def compared(rows, truth):
    """A row without its answer, at the end, is a shorter truth: it is asked again."""
    if rows == truth:
        return "whole"
    if len(rows) > len(truth):
        return "wrong"
    for row, true in zip(rows, truth, strict=False):
        if row != true and (row[:4] != true[:4] or row[4:] != ("asked", None, None, None)):
            return "wrong"
    return "fewer"


def copied(source, path):
    for part in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{part}").unlink(missing_ok=True)
        if part in ("", "-wal") and Path(f"{source}{part}").exists():
            shutil.copyfile(f"{source}{part}", f"{path}{part}")
    return path


def inflict(path, damage):
    """Damage a file: ``{"part": "" | "-wal", "do": ..., "at": ...}``."""
    what, target = damage["do"], Path(f"{path}{damage.get('part', '')}")
    if what in SQL:
        base = sqlite3.connect(path)
        base.executescript(SQL[what])
        base.commit()
        base.close()
        return
    content = bytearray(target.read_bytes())
    at = damage.get("at", 0)
    if what == "flip":
        content[at] ^= 1 << damage["bit"]
    elif what == "cut":
        del content[at:]
    elif what == "zero":
        content[at : at + PAGE] = bytes(len(content[at : at + PAGE]))
    elif what == "magic":
        content[:16] = b"not a database!\0"
    target.write_bytes(bytes(content))


SQL = {
    "future version": "PRAGMA user_version = 99",
    "duplicate": """UPDATE answers SET (turn, told, status, value, violation, note, bits, checksum) =
        (SELECT turn, told, status, value, violation, note, bits, checksum FROM answers WHERE number = 5)
        WHERE number = 6""",
    "gap": "DELETE FROM answers WHERE number = 5; DELETE FROM questions WHERE number = 5",
}


class Bounds:
    """How many evaluations lie before a damage, and so must be saved: from the pages of the file itself."""

    def __init__(self, source, total, folder):
        self.source, self.total, self.folder = source, total, folder
        self.frames = {}
        self.plain = not Path(f"{source}-wal").exists()
        self.before = self.pages() if self.plain else {}

    def least(self, damage):
        if damage["do"] in SQL:
            return {"duplicate": 6, "gap": 5}.get(damage["do"], 0)
        if damage.get("part") == "-wal" and damage["do"] in ("flip", "cut"):
            return self.committed(damage["at"])
        if not self.plain or damage["do"] not in ("flip", "zero"):
            return 0
        return self.before.get(damage["at"] // PAGE + 1, 0)

    def committed(self, at):
        """Return how many evaluations are in the file and in the frames before an offset of the log."""
        frame = max(0, (at - 32) // (24 + PAGE))
        if frame not in self.frames:
            path = copied(self.source, self.folder / "bound.db")
            inflict(path, {"part": "-wal", "do": "cut", "at": 32 + frame * (24 + PAGE)})
            base = sqlite3.connect(path)
            try:
                self.frames[frame] = base.execute("SELECT count(*) FROM questions").fetchone()[0]
            except sqlite3.DatabaseError:
                self.frames[frame] = 0
            base.close()
        return 0 if at < 32 else self.frames[frame]

    def pages(self):
        """Return for each page the number of evaluations that need neither it nor what comes after it."""
        base = sqlite3.connect(f"file:{self.source}?mode=ro", uri=True)
        roots = dict(base.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
        base.close()
        content = Path(self.source).read_bytes()
        count = len(content) // PAGE
        before = dict.fromkeys(range(1, count + 1), 0)
        for table in ("questions", "answers"):
            for page, first in walked(content, roots[table]):
                before[page] = first
        for table in ("checkpoints", "events", "feedback"):
            for page, _ in walked(content, roots[table]):
                before[page] = self.total
        return before


def walked(content, page):
    """Yield each page of a table's tree with the smallest row number below it."""
    start = (page - 1) * PAGE
    head = start + (100 if page == 1 else 0)
    kind, cells = content[head], struct.unpack(">H", content[head + 3 : head + 5])[0]
    places = struct.unpack(f">{cells}H", content[head + (12 if kind == 5 else 8) :][: 2 * cells])
    if kind == 13:
        rows = [varint(content, varint(content, start + place)[1])[0] for place in places]
        yield page, min(rows, default=0)
        return
    children = [struct.unpack(">I", content[start + place : start + place + 4])[0] for place in places]
    children.append(struct.unpack(">I", content[head + 8 : head + 12])[0])
    lowest = None
    for child in children:
        for inner, first in walked(content, child):
            lowest = first if lowest is None else min(lowest, first)
            yield inner, first
    yield page, lowest or 0


def varint(content, at):
    value = 0
    for _ in range(9):
        byte = content[at]
        at += 1
        value = value << 7 | byte & 127
        if byte < 128:
            break
    return value, at


def read_all_of(source, folder, listed, start):
    return read_all(source, folder, json.loads(Path(listed).read_text()), start, True)
