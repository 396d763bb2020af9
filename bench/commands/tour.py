"""``python -m bench tour``: what there is, in two minutes; or everything, into files."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import DIRECTORY, EXIT_BROKEN, Directory
from bench.commands.stored import EXIT_USAGE
from bench.tour import LONG, SHORT, THOROUGH, run_tour


def tour(
    *,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="What the documentation shows: an hour.")
    ] = False,
    long: Annotated[
        bool,
        typer.Option("--long", help="What may grow with messages, sessions, time: two hours."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the stop with this name; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write NAME.json for each into this directory.")
    ] = None,
    directory: Directory = DIRECTORY,
) -> None:
    """Run several scenarios one after the other, and print the command of each."""
    stops = (*(THOROUGH if thorough else ()), *(LONG if long else ())) or SHORT
    names = [stop.name for stop in stops]
    if unknown := set(only or ()) - set(names):
        typer.echo(
            f"bench: no stop {', '.join(sorted(unknown))}; there are {', '.join(names)}", err=True
        )
        raise typer.Exit(EXIT_USAGE)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    failed = run_tour(stops, set(only or ()), directory, output)
    if failed:
        typer.echo(f"bench: failed: {', '.join(failed)}", err=True)
        raise typer.Exit(EXIT_BROKEN)
