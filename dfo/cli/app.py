"""The commands and their options; what they do stands in the modules beside this one, loaded when used."""

from __future__ import annotations

from typing import Annotated

import typer

from dfo.cli.console import guarded

__all__ = ["app"]

app = typer.Typer(
    name="dfo",
    help="Black-box and derivative-free optimization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lists = typer.Typer(help="List solvers, problems or suites.", no_args_is_help=True)
app.add_typer(lists, name="list")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Dims = Annotated[str | None, typer.Option(help="Dimensions, such as 2,5.")]
Functions = Annotated[str | None, typer.Option(help="Functions, such as 1,8 or sphere,levy.")]
Stored = Annotated[str, typer.Argument(metavar="RUN.db", help="File of a stored run.")]
Workers = Annotated[
    str | None, typer.Option(help="Evaluate at the same time: 4 processes, threads:8, ray. The result is the same.")
]
Limit = Annotated[float | None, typer.Option(help="Seconds that one evaluation may take before it has failed.")]
Instances = Annotated[str | None, typer.Option(help="Instances, such as 1-5.")]


def _version(wanted: bool) -> None:
    if wanted:
        from dfo import __version__

        typer.echo(f"dfo {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Black-box and derivative-free optimization."""


@lists.command("solvers")
def list_solvers(json: Json = False) -> None:
    """List the methods: dfo's own, and the peers that run through the same door."""
    from dfo.cli.listing import solvers

    with guarded():
        solvers(json)


@lists.command("problems")
def list_problems(
    pack: Annotated[str | None, typer.Argument(help="A pack, to list the names of its problems.")] = None,
    dims: Dims = None,
    functions: Functions = None,
    instances: Instances = None,
    json: Json = False,
) -> None:
    """List the packs of problems, or the problems of one pack."""
    from dfo.cli.listing import packs_of_problems, problems_of

    with guarded():
        if pack is None:
            packs_of_problems(json)
        else:
            problems_of(pack, dims, functions, instances, json)


@lists.command("suites")
def list_suites(json: Json = False) -> None:
    """List the suites that `dfo bench` knows by name."""
    from dfo.cli.listing import suites

    with guarded():
        suites(json)


@app.command()
def run(  # noqa: PLR0913  (the options of a command line are its signature)
    problem: Annotated[str, typer.Argument(help="Name of a problem, such as bbob-f008-i01-d05.")],
    *,
    method: Annotated[str, typer.Option(help="A method, with options in brackets: cma[population=20].")] = "auto",
    budget: Annotated[str, typer.Option(help="Evaluations: 1000, or 100d for 100 per variable.")] = "100d",
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal runs.")] = 0,
    out: Annotated[str | None, typer.Option(help="Write the result to this JSON file.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Keep every evaluation in this file; the same command goes on where it ended.")
    ] = None,
    workers: Workers = None,
    eval_timeout: Limit = None,
    json: Json = False,
) -> None:
    """Minimize one problem with one method."""
    from dfo.cli.resuming import Wishes
    from dfo.cli.running import run_problem

    with guarded():
        run_problem(problem, method, seed, out, store, Wishes(budget, workers, eval_timeout), json)


@app.command()
def show(
    store: Stored,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print a line for every new best until the run ends.")
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="List so many of the last evaluations.")] = 0,
    json: Json = False,
) -> None:
    """Show a stored run, also while it runs: state, counts, best point, failures, and the command that goes on."""
    from dfo.cli import showing

    with guarded():
        if follow:
            showing.follow(store, json)
        else:
            showing.show(store, json, rows)


@app.command()
def resume(
    store: Stored,
    objective: Annotated[
        str | None,
        typer.Option(
            help="FILE.py:FUNCTION or MODULE:FUNCTION, for a run begun in Python. A store is data and names no code to"
            " run. Runs begun by `dfo run` know their problem by name."
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="A new budget, to extend the run: 5000, or 100d.")] = None,
    workers: Workers = None,
    eval_timeout: Limit = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="An argument that may differ from what is stored, such as objective.")
    ] = None,
    json: Json = False,
) -> None:
    """Continue a stored run where it was stopped or killed, or extend one that has ended.

    Seed, method and space are those of the store: another seed is another run.
    """
    from dfo.cli import resuming

    with guarded():
        wishes = resuming.Wishes(budget, workers, eval_timeout, tuple(accept or ()))
        resuming.resume(store, objective, wishes, json)


@app.command()
def export(
    store: Stored,
    to: Annotated[str, typer.Option(help="File to write; a new folder for coco.")],
    format: Annotated[str | None, typer.Option(help="csv, jsonl, parquet or coco; by the suffix of --to.")] = None,
) -> None:
    """Write the evaluations of a stored run for spreadsheets, data frames or COCO's cocopp."""
    from dfo.cli.exporting import export_store

    with guarded():
        export_store(store, to, format)


@app.command()
def repair(
    store: Stored,
    to: Annotated[str, typer.Option(help="File to write what can be saved to; it must not exist.")],
    json: Json = False,
) -> None:
    """Save what is whole in a damaged store into a new one, and say what is lost."""
    from dfo.cli.exporting import repair_store

    with guarded():
        repair_store(store, to, json)


@app.command()
def bench(  # noqa: PLR0913  (the options of a command line are its signature)
    suite: Annotated[
        str, typer.Argument(help="Name of a suite, the path of its .toml file, or paper-FAMILY for published figures.")
    ],
    *,
    methods: Annotated[str, typer.Option(help="Methods, such as cma,random,scipy:SLSQP.")] = "",
    dims: Dims = None,
    functions: Functions = None,
    instances: Instances = None,
    budget: Annotated[str | None, typer.Option(help="Evaluations of a run: 2000, or 100d per variable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method on each problem.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 runs in this one.")] = 1,
    baseline: Annotated[str | None, typer.Option(help="Compare with this method; the first by default.")] = None,
    out: Annotated[str | None, typer.Option(help="Directory to store runs and report in, and to go on from.")] = None,
    json: Json = False,
) -> None:
    """Compare methods on a suite of problems, or hold a family of solvers against its papers.

    ``dfo bench paper-FAMILY`` measures the published figures of a family again and exits with 1 if one is not reached.
    With --out, the same command goes on where it was interrupted, and methods, problems or seeds can be added.
    """
    from dfo.cli.benching import narrowed, run_bench
    from dfo.cli.measuring import run_measure

    with guarded():
        if suite.startswith("paper-"):
            return run_measure(suite, out, json)
        if not methods:
            raise typer.BadParameter("expected names such as cma,random,scipy:SLSQP, got none.", param_hint="--methods")
        run_bench(narrowed(suite, dims, functions, instances), methods, budget, seeds, workers, baseline, out, json)
    return None


@app.command()
def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Directory of a bench.")],
    json: Json = False,
) -> None:
    """Write the report of a stored bench anew."""
    from dfo.cli.benching import rebuild

    with guarded():
        rebuild(folder, json)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of a solver or of a problem.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Time granted: more of it tries more cases.")] = 10.0,
    json: Json = False,
) -> None:
    """Check a solver or a problem against the laws that it has to keep."""
    from dfo.cli.checking import check_subject

    with guarded():
        check_subject(name, seconds, json)


@app.command()
def measure(
    name: Annotated[str, typer.Argument(help="Name of a measure; a wrong one lists them.")],
    out: Annotated[str | None, typer.Option(help="Write the record to this JSON file.")] = None,
    json: Json = False,
) -> None:
    """Measure published figures again; exit with 1 if one is not reached."""
    from dfo.cli.measuring import run_measure

    with guarded():
        run_measure(name, out, json)
