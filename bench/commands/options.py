"""Options that several commands share, and how each of them runs and ends."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn

import trio
import typer

from bench.child import ChildError
from bench.cluster import UnsettledError
from bench.commands.stored import give_up
from bench.outage import OutageError
from bench.postgres import PostgresError
from bench.report import Report, write_json
from bench.scenarios.run import OptionsError
from bench.server import ServerError
from bench.table import print_report
from bench.wire import WireError
from bench.writer import CONTENT_BYTES_MIN

DIRECTORY = Path(".ringlog")
"""Where the server keeps its data too, when nobody says where."""

EXIT_BROKEN = 1
"""The promise was not kept, or a round could not be measured."""

GIVE_UP = (
    *(ChildError, OptionsError, OutageError, PostgresError, ServerError, UnsettledError, WireError),
    *(ConnectionError, TimeoutError),  # of the bench's own set-up
)
"""Why there may be nothing to report; anything else is a bug, and shows where."""

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
Url = Annotated[str | None, typer.Option(help="A running server: ws://…/v1/ws.")]
Archive = Annotated[
    str | None,
    typer.Option(
        help="Archive of the server we start: an URL, or `postgres` for a private one."
        " SQLite in its data directory by default."
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="Measure so often; medians count.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long it is measured, a round.")]
Connections = Annotated[int, typer.Option(min=1, help="WebSocket connections.")]
InFlight = Annotated[int, typer.Option(min=1, help="Messages on the way, each.")]
ContentBytes = Annotated[
    int, typer.Option("--bytes", min=CONTENT_BYTES_MIN, help="Length of each content.")
]
Generators = Annotated[
    int, typer.Option(min=1, help="Processes that make the load; each wants a core.")
]


def run_scenario(
    scenario: Callable[[], Awaitable[Report]],
    json: Path | None,
    show: Callable[[Report], None] = print_report,
) -> NoReturn:
    """Run, write and print a report, and exit: with 1 if the promise was broken or a round failed."""
    if json is not None and not json.absolute().parent.is_dir():
        give_up(OptionsError(f"--json {json}: there is no such directory"))
    try:
        report = trio.run(scenario)
    except GIVE_UP as error:
        give_up(error)
    if json is not None:
        write_json(report, json)
    if str(json) != "-":
        show(report)
    raise typer.Exit(0 if report.ok and report.is_whole else EXIT_BROKEN)
