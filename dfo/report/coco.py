"""A stored run as a data folder of COCO, which ``cocopp`` reads.

::

    FOLDER/bbobexp_f8.info                     what ran, and the gap that it reached
    FOLDER/data_f8/bbobexp_f8_DIM2.dat         a line for every gap 10^(k/5) that was reached, and the last
    FOLDER/data_f8/bbobexp_f8_DIM2.tdat        a line at 10^(i/20) evaluations and 1, 2, 5 x 10^i x d, and the last

Each line: evaluations of f and of the constraints, lowest gap, value, lowest value, point. The gap is that of
:class:`~dfo.bench.Recorder`: without noise, constraints counted.

Source: Hansen et al. (2021), COCO, Optimization Methods and Software 36(1); data format ``bbob-new2``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dfo.bench.packs import make
from dfo.bench.plan import Label
from dfo.bench.posed import merit, problem_of
from dfo.errors import CannotWrite, InvalidArgument, short
from dfo.protocols import Problem

if TYPE_CHECKING:
    from dfo.run.store import Row, View

__all__ = ["SUITES", "export_coco"]

SUITES = ("bbob", "bbob-noisy", "bbob-constrained", "bbob-mixint", "bbob-largescale")
"""The suites that ``cocopp`` knows, by the packs of the same names."""

PRECISION = 1e-8


@dataclass(frozen=True)
class _Line:
    """The books after an evaluation."""

    count: int
    checks: int
    gap: float
    value: float
    lowest: float
    x: tuple[float, ...]

    def __str__(self) -> str:
        point = " ".join(f"{v:+.4e}" for v in self.x)
        return f"{self.count} {self.checks} {self.gap:+.9e} {self.value:+.9e} {self.lowest:+.9e} {point}"


def export_coco(view: View, folder: Path) -> int:
    """Write a run as a COCO data folder; return its evaluations.

    Args:
        view: a run begun by ``dfo run PROBLEM --store``, of a problem of :data:`SUITES`.
        folder: new, or empty.

    Raises:
        InvalidArgument: another run, or a folder with something in it.
        CannotWrite: the folder cannot be written.
    """
    problem = make(_named(view.config))
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InvalidArgument(f"--to: {short(str(folder))} is there already. Name a new folder.")
    lines = _lines(problem, view.rows())
    first = next(lines, None)
    if first is None:
        raise InvalidArgument("--format coco: no evaluation of this run has a value yet.")
    try:
        return _write(problem, str((view.config or {}).get("method")), first, lines, folder)
    except OSError as error:
        raise CannotWrite(f"--to: {short(str(folder))} cannot be written: {error.strerror or error}.") from error


def _named(config: Mapping[str, Any] | None) -> str:
    name = problem_of(config or {})
    if name is None or re.fullmatch(r"(.+)-f\d+-i\d+-d\d+", name, re.ASCII) is None or _suite(name) not in SUITES:
        what = "a function of yours" if name is None else short(name)
        raise InvalidArgument(
            f"--format coco: expected a run on a problem of {', '.join(SUITES)}, begun by `dfo run NAME --store`;"
            f" this one is on {what}. Export to csv, jsonl or parquet."
        )
    return name


def _suite(name: str) -> str:
    return Label.of(name).function.rpartition("-f")[0]


def _lines(problem: Problem, rows: Iterable[Row]) -> Iterator[_Line]:
    """Return the books after every evaluation with a value, and after the last."""
    assert problem.f_opt is not None
    gap = lowest = math.inf
    line: _Line | None = None
    count = 0
    for row in rows:
        if row.status == "asked":
            continue
        count += 1
        value = math.nan if row.value is None else float(row.value)
        gap = min(gap, merit(problem, row.x, row.value) - problem.f_opt)
        lowest = lowest if math.isnan(value) else min(lowest, value)
        line = _Line(count, count if problem.constraint is not None else 0, gap, value, lowest, tuple(row.x))
        if math.isfinite(gap):
            yield line


def _write(problem: Problem, method: str, first: _Line, others: Iterable[_Line], folder: Path) -> int:
    label, suite = Label.of(problem.name), _suite(problem.name)
    function, dim = int(label.function.rpartition("-f")[2]), int(problem.space.dim)
    stem = f"bbobexp_f{function}"
    data = folder / f"data_f{function}"
    data.mkdir(parents=True)
    with ExitStack() as open_files:
        reached, timed = (
            open_files.enter_context((data / f"{stem}_DIM{dim}.{end}").open("w", encoding="ascii", newline="\n"))
            for end in ("dat", "tdat")
        )
        last = _log(first, others, problem, reached, timed)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", method)[:60]
    head = (
        f"suite = '{suite}', funcId = {function}, DIM = {dim}, Precision = {PRECISION:.3e}, algId = '{name}',"
        f" coco_version = '', logger = '{suite}', data_format = 'bbob-new2', settings = ''"
    )
    entry = f"{data.name}/{stem}_DIM{dim}.dat, {label.instance}:{last.count}|{last.gap:.1e}"
    (folder / f"{stem}.info").write_text(f"{head}\n% exported by dfo\n{entry}\n", encoding="ascii")
    return last.count


def _log(first: _Line, others: Iterable[_Line], problem: Problem, reached: TextIO, timed: TextIO) -> _Line:
    head = (
        f"% f evaluations | g evaluations | best noise-free fitness - Fopt ({problem.f_opt:.12e}) + sum g_i+ |"
        " measured fitness | best measured fitness | x1 | x2...\n"
    )
    reached.write(head)
    timed.write(head)
    level, moment, last = math.inf, 1.0, first
    shown = [first, first]
    for line in chain([first], others):
        if line.gap <= level:
            level, shown[0] = _next_level(line.gap), line
            reached.write(f"{line}\n")
        if line.count >= moment:
            moment, shown[1] = _next_moment(line.count, problem.space.dim), line
            timed.write(f"{line}\n")
        last = line
    for file, line_shown in ((reached, shown[0]), (timed, shown[1])):
        if line_shown is not last:
            file.write(f"{last}\n")
    return last


def _next_level(gap: float) -> float:
    """Return the largest 10^(k/5) below a gap; the least that is logged is the precision."""
    if gap <= PRECISION:
        return -math.inf
    level: float = 10.0 ** ((math.ceil(5.0 * math.log10(gap)) - 1) / 5.0)
    return level if level < gap else 10.0 ** ((math.ceil(5.0 * math.log10(gap)) - 2) / 5.0)


def _next_moment(count: int, dim: int) -> int:
    """Return the next number of evaluations that is logged."""
    power: int = 10 ** max(len(str(count // dim)) - 1, 0)
    by_dim = next(dim * m * power for m in (1, 2, 5, 10) if dim * m * power > count)
    i = math.floor(20 * math.log10(count)) + 1
    while math.floor(math.pow(10.0, i / 20)) <= count:
        i += 1
    return min(by_dim, math.floor(math.pow(10.0, i / 20)))
