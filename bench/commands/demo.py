"""``python -m bench demo``: a check that is pleasant to watch."""

from typing import Annotated

import trio
import typer
from rich.console import Console

from bench.commands.options import DIRECTORY, EXIT_BROKEN, Directory
from bench.commands.stored import give_up
from bench.demo import DemoOptions, DemoResult, run_demo
from bench.server import ServerError
from bench.table import print_findings, print_rows


def demo(
    *,
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
        give_up(error)
    print_demo(result)
    raise typer.Exit(0 if result.findings.ok else EXIT_BROKEN)


def print_demo(result: DemoResult) -> None:
    """Print what was played, and whether the archive holds it."""
    console = Console()
    findings = result.findings
    if not findings.ok:
        print_findings(console, findings.verdict(), findings.examples)
        return
    rate = result.messages / result.play_seconds
    rows = {
        "conversations": f"{result.conversations:,}",
        "messages acknowledged": f"{result.messages:,} in {result.play_seconds:.1f} s ({rate:,.0f} /s)",
        "kill -9": f"{result.kills}",
        "connections lost and resumed": f"{result.reconnects}",
        "messages in the archive": f"{result.archived:,}",
    }
    print_rows(console, rows)
    console.print("All there, in order, once, byte for byte.", style="bold green")
