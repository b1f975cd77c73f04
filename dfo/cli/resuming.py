"""``dfo resume``: a stored run, continued by what its store says."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dfo.bench.posed import problem_of
from dfo.cli.console import Ended, note, say, signalled
from dfo.cli.showing import objective_of, resume_command
from dfo.errors import DfoError, InvalidArgument, short

if TYPE_CHECKING:
    from dfo.run.result import Result

__all__ = ["Wishes", "conclude", "load_objective", "resumable", "resume", "workers_of"]

_DATA = ("x0", "args", "method", "bounds", "constraints", "tol", "options")
_PLAIN = ("seed", "batch", "noise", "vectorized", "on_error", "known")


@dataclass(frozen=True)
class Wishes:
    """What may change when a run is taken up.

    Args:
        budget: evaluations, as :class:`~dfo.bench.Budget` reads them; None for the stored ones.
        workers: a number, or a word such as ``threads:4``.
        eval_timeout: seconds that an evaluation may take.
        accept: names of the configuration that may differ from what is stored.
    """

    budget: str | None = None
    workers: str | None = None
    eval_timeout: float | None = None
    accept: tuple[str, ...] = ()


def resume(path: str, objective: str | None, wishes: Wishes, as_json: bool) -> None:
    """Continue a stored run until it ends, and print its result.

    Raises:
        InvalidArgument: there is no run in the file, or it needs ``--objective``.
        Ended: as :func:`conclude`.
    """
    from dfo.run.store import View

    with View.open(path) as view:
        config, free = dict(view.config or {}), dict(view.free or {})
    if not config:
        raise InvalidArgument(f"{path}: no run was begun in this store yet.")
    if "objective" not in config:
        raise InvalidArgument(f"{path}: a program asks and tells this run (dfo.AskTell); start the program again.")
    problem = problem_of(config)
    if problem is not None:
        from dfo.cli.running import resume_problem

        if objective is not None:
            raise InvalidArgument(f"--objective: this run is on the problem {short(problem)}, which dfo knows by name.")
        resume_problem(path, problem, config, free, wishes, as_json)
        return
    if objective is None:
        raise InvalidArgument(
            f"--objective: expected FILE.py:FUNCTION or MODULE:FUNCTION, got nothing. A store holds data and names no"
            f" code to run; its run was begun with {short(objective_of(config))}."
        )
    _resume_function(path, load_objective(objective), config, free, wishes, as_json)


def _resume_function(
    path: str, fun: Callable[..., Any], config: dict[str, Any], free: dict[str, Any], wishes: Wishes, as_json: bool
) -> None:
    import dfo
    from dfo.bench.budget import Budget
    from dfo.run.rebuilt import rebuilt
    from dfo.run.store import Store

    arguments = {name: rebuilt(name, config.get(name)) for name in (*_DATA, *_PLAIN)}
    arguments["known"] = tuple(arguments["known"]) if arguments["known"] is not None else None
    wanted = None if wishes.budget is None else Budget.of(wishes.budget)
    budget = free.get("budget") if wanted is None else wanted.evaluations(_dim(arguments))
    accept = wishes.accept + (("objective",) if _moved(fun, config.get("objective")) else ())
    door = dfo.maximize if _is_negated(config.get("objective")) else dfo.minimize
    x0, args, method, bounds, constraints, tol, options = (arguments[name] for name in _DATA)
    with resumable(path, config):
        result = door(
            fun, x0, args, method, bounds, constraints, tol, printing(as_json), options,
            **{name: arguments[name] for name in _PLAIN},
            budget=budget, store=Store(path, accept=accept),
            workers=workers_of(wishes.workers) if wishes.workers else _number(free.get("workers")),
            timeout=_number(free.get("timeout")), stop=_stop(free.get("stop")),
            retries=_number(free.get("retries")) or 0,
            eval_timeout=wishes.eval_timeout or _number(free.get("eval_timeout")),
        )  # fmt: skip
    conclude(result, f"{result!r}", result.to_json(), path, config, as_json)


def _dim(arguments: Mapping[str, Any]) -> int:
    from dfo.run.validate import space_and_start

    return int(space_and_start(arguments["x0"], arguments["bounds"])[0].dim)


def _stop(stored: Any) -> Any:
    """Return the stop of the run where it is one of dfo's; a function of the user's stays with the user's program."""
    from dfo.run.rebuilt import rebuilt

    try:
        return rebuilt("stop", stored)
    except InvalidArgument:
        note("The run had a stop of its own making; it goes on without.")
        return None


def _number(value: Any) -> Any:
    """Return a stored setting if it is a number; what was an object then has to be given again."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def workers_of(word: str | None) -> int | str | None:
    """Return what ``--workers`` says: a number, or a word that :func:`dfo.minimize` knows."""
    return int(word) if word is not None and word.isdecimal() else word


def printing(as_json: bool) -> Any:
    """Return the hook that shows progress on a terminal, or None."""
    if not sys.stderr.isatty() or as_json:
        return None
    from dfo.run.hooks import Print

    return Print(every=2.0)


# ---------------------------------------------------------------------- the end


@contextmanager
def resumable(path: str, config: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Say what is kept and how to go on, where a run ends by an exception.

    Raises:
        Ended: 1 if the objective raised.
        KeyboardInterrupt: as it came.
    """
    try:
        yield
    except KeyboardInterrupt:
        _interrupted(path, config)
        raise
    except Exception as error:
        if getattr(error, "result", None) is None:
            raise
        note("".join(traceback.format_exception(error)))
        note(f"Error: the objective raised {type(error).__name__}. To go on: {_command(path, config)}")
        raise Ended(1) from None


def conclude(
    result: Result, text: str, content: str, path: str | None, config: Mapping[str, Any] | None, as_json: bool
) -> None:
    """Print a result, and end as it ended.

    Raises:
        Ended: 1 if no evaluation gave a value, the objective raised or the store could not be written; 130 or 143
            after a signal.
    """
    if as_json:
        print(content)
    else:
        say(text)
    if result.status == "interrupted":
        if path is not None:
            _interrupted(path, config)
        raise Ended(signalled())
    if result.status in ("error", "all_failed", "unstored"):
        note(f"Error: {result.message}")
        raise Ended(1)


def _interrupted(path: str, config: Mapping[str, Any] | None) -> None:
    from dfo.run.store import View

    try:
        view = View.open(path)
    except DfoError:  # there may be nothing yet
        return
    with view:
        best = view.best
        low = "" if best is None else f", best {best.value:.10g} at evaluation {best.number}"
        command = resume_command(path, view.config or config or {})
        note(f"Interrupted: {view.told} evaluations are kept{low}. To go on: {command}")


def _command(path: str, config: Mapping[str, Any] | None) -> str:
    return resume_command(path, config or {})


# ---------------------------------------------------------------------- the user's function


def load_objective(words: str) -> Callable[..., Any]:
    """Return the function that ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION`` names; its module is run.

    Raises:
        InvalidArgument: no such file, module or function.
    """
    where, _, name = words.rpartition(":")
    if not where or not name:
        raise InvalidArgument(f"--objective: expected FILE.py:FUNCTION or MODULE:FUNCTION, got {short(words)}.")
    found: Any = _file(Path(where)) if where.endswith(".py") else _module(where)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InvalidArgument(f"--objective: {short(where)} has no function {short(name)}.")
    function: Callable[..., Any] = found
    return function


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidArgument(f"--objective: there is no file {short(str(path))}.")
    sys.path.insert(0, str(path.resolve().parent))  # as for a script: what lies beside it can be imported
    name = path.stem if path.stem not in sys.modules else f"_objective_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"--objective: {short(str(path))} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidArgument(f"--objective: there is no module {short(name)}.") from None
        raise


def _is_negated(stored: Any) -> bool:
    return isinstance(stored, Mapping) and stored.get("object") == "dfo.run.minimize:_Negated"


def _moved(fun: Callable[..., Any], stored: Any) -> bool:
    """Tell whether a function is the stored one under another name of its module, such as ``__main__``."""
    from dfo.run.identity import identity
    from dfo.run.minimize import _Negated

    now = identity(_Negated(fun) if _is_negated(stored) else fun)
    return bool(now != stored and _unplaced(now) == _unplaced(stored))


def _unplaced(content: Any) -> Any:
    """Return an identity without the modules of functions and classes."""
    if isinstance(content, Mapping):
        return {
            name: str(part).partition(":")[2] if name in ("function", "object", "class") else _unplaced(part)
            for name, part in content.items()
        }
    return [_unplaced(part) for part in content] if isinstance(content, list) else content
