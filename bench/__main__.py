"""``python -m bench``: the questions that can be asked of a server, from the command line."""

from pathlib import Path
from typing import Annotated, NoReturn

import trio
import typer

from bench.child import ChildError
from bench.demo import DemoOptions, run_demo
from bench.outage import OutageError
from bench.report import print_append, print_demo, print_memory, write_json
from bench.scenarios.append import (
    ROUNDS_BESIDE_BARE,
    AppendOptions,
    OptionsError,
    run_append,
)
from bench.scenarios.memory import MemoryOptions, run_memory
from bench.server import ServerError, end_on_sigterm
from bench.writer import CONTENT_BYTES_MIN

app = typer.Typer(
    help="Measure Ringlog, and check that it kept its promise while it was measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Directory = Annotated[
    Path,
    typer.Option(
        help="Where fresh data directories are made: on the disk that is to be measured.",
        resolve_path=True,
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the report as JSON to a file; - is stdout.")
]
DIRECTORY = Path(".ringlog")


@app.command()
def append(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    connections: Annotated[int, typer.Option(min=1)] = 64,
    in_flight: Annotated[int, typer.Option(min=1, help="Messages on the way, each.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1)] = 10.0,
    content_bytes: Annotated[
        int, typer.Option("--bytes", min=CONTENT_BYTES_MIN, help="Length of each content.")
    ] = 200,
    url: Annotated[str | None, typer.Option(help="A running server: ws://…/v1/ws.")] = None,
    archive: Annotated[str | None, typer.Option(help="Archive of the server we start.")] = None,
    joined: Annotated[  # noqa: FBT002 - typer makes --joined/--no-joined of it
        bool, typer.Option(help="Whether senders follow their session: a message before each ack.")
    ] = False,
    beside_bare: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--beside-bare", help="In turn with the least that could do: a ratio.")
    ] = False,
    archive_down: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--archive-down", help="The archive takes nothing meanwhile (SQLite).")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Take the median of so many. [default: 1; 3 with bare]"),
    ] = None,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Durable appends, closed-loop; exits with 1 if the replay is not what was acknowledged."""
    options = AppendOptions(
        connections=connections,
        in_flight=in_flight,
        seconds=seconds,
        content_bytes=content_bytes,
        joined=joined,
        directory=directory,
        url=url,
        archive=archive,
        beside_bare=beside_bare,
        archive_down=archive_down,
        rounds=rounds or (ROUNDS_BESIDE_BARE if beside_bare else 1),
    )
    try:
        report = trio.run(run_append, options)
    except (ChildError, OptionsError, OutageError, ServerError) as error:
        _give_up(error)
    if json is not None:
        write_json(report, json)
    if str(json) != "-":
        print_append(report)
    raise typer.Exit(0 if report.verdict["ok"] else 1)


@app.command()
def memory(
    sessions: Annotated[int, typer.Option(min=1)] = 20_000,
    connections: Annotated[int, typer.Option(min=1)] = 2_000,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Resident memory per active session and per idle connection."""
    options = MemoryOptions(sessions, connections, directory)
    try:
        report = trio.run(run_memory, options)
    except ServerError as error:
        _give_up(error)
    if json is not None:
        write_json(report, json)
    if str(json) != "-":
        print_memory(report)


@app.command()
def demo(
    archive: Annotated[
        str | None, typer.Option(help="postgresql://…; SQLite in the data directory by default.")
    ] = None,
    conversations: Annotated[
        int | None, typer.Option(min=1, help="Play only the first so many of 7,168.")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, help="WebSocket connections.")] = 8,
    kills: Annotated[int, typer.Option(min=0, help="How often the server is killed.")] = 2,
    seed: Annotated[int, typer.Option(help="Chooses when.")] = 0,
    directory: Directory = DIRECTORY,
) -> None:
    """Play real conversations through a server that is killed on the way; compare the archive."""
    options = DemoOptions(directory, archive, conversations, clients, kills, seed)
    try:
        result = trio.run(run_demo, options)
    except ServerError as error:
        _give_up(error)
    print_demo(result)
    raise typer.Exit(0 if result.findings.ok else 1)


def _give_up(error: Exception) -> NoReturn:
    typer.echo(f"bench: {error}", err=True)
    raise typer.Exit(2)


end_on_sigterm()
app(prog_name="python -m bench")
