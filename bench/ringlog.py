"""The `ringlog` command as it is installed: the one of `edge`, and `demo`.

A demonstration needs clients and a checker, which are in `bench`; imports point down, so `edge` cannot know of them.
The two are put together here, at the top. `python -m edge` is the same command without demonstrations, and what
servers are started with.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge import CommandError, ExitCode, main

if TYPE_CHECKING:
    from bench.demos.performance import Result

Archive = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="postgresql://… of an empty database; SQLite, removed afterwards, by default",
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="where the throw-away directory is made; where temporary files are, by default",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]

commands = typer.Typer(
    name="demo",
    help="Show what happens to real clients when something fails, in a cluster of its own: half a minute each.",
    no_args_is_help=True,
)


@commands.command("crash")
def crash(*, archive: Archive = None, directory: Directory = None, as_json: Json = False) -> None:
    """Kill an owner and an edge under load, start them again, and check every message.

    \b
      ringlog demo crash
    """
    _show("crash", archive, directory, as_json=as_json)


@commands.command("drain")
def drain(*, archive: Archive = None, directory: Directory = None, as_json: Json = False) -> None:
    """Move everything off an owner under load, stop it, bring it back, and check every message.

    \b
      ringlog demo drain
    """
    _show("drain", archive, directory, as_json=as_json)


@commands.command("failover")
def failover(
    *, archive: Archive = None, directory: Directory = None, as_json: Json = False
) -> None:
    """Lose an owner with its disk under load, see another take over, and check every message.

    Needs PostgreSQL: this machine's, for a private server that is removed afterwards, or an empty database.

    \b
      ringlog demo failover
      ringlog demo failover --archive postgresql://ringlog@localhost/empty
    """
    from bench.postgres import PostgresError, open_private_postgres

    if archive is not None:
        _show("failover", archive, directory, as_json=as_json)
        return
    try:
        # It must outlive the demonstration, and dies with this thread.
        with open_private_postgres({}) as server:
            url = server.url(server.create_database())
            _show("failover", url, directory, as_json=as_json)
    except PostgresError as error:
        raise CommandError(
            "postgres_missing",
            str(error),
            "install it (apt-get install postgresql), or give an empty database: --archive postgresql://…",
        ) from error


def _show(name: str, archive: str | None, directory: Path | None, *, as_json: bool) -> None:
    """Perform one, say how it went, and exit: with 1 if the promise was not kept."""
    from bench.demos.acts import ACTS
    from bench.demos.performance import FAILURES, perform

    _check_empty(archive)
    try:
        result = perform(ACTS[name], archive, directory, _keep_silent if as_json else _print)
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        raise CommandError(
            "demo_failed",
            f"the demonstration broke off: {reason}",
            "try again on a quieter machine",
        ) from error
    if as_json:
        print(json.dumps({"demo": name, **result.fields()}))
    else:
        _print_verdict(result)
    if not result.ok:
        raise typer.Exit(ExitCode.FAILURE)


def _print(line: str) -> None:
    print(line, flush=True)


def _keep_silent(line: str) -> None:
    """Tell a program nothing but the end."""


def _print_verdict(result: "Result") -> None:
    """Say what came of it."""
    for example in result.findings.examples:
        print(f"  {example}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in result.kinds().items())
    print(
        f"{result.acknowledged:,} acknowledged, {result.replayed:,} replayed,"
        f" {result.archived:,} in the archive: {kinds}"
    )
    if result.ok:
        print(f"Every message is there, once, in order, unchanged. ({result.seconds:.0f} s)")
    else:
        print("The promise was broken.")


def _check_empty(archive: str | None) -> None:
    """Refuse a database that is in use: nodes of a demonstration would be left in its ring.

    Raises:
        CommandError: it has tables of Ringlog's.
        StorageError: it does not answer.
    """
    from storage import probe_archive

    if archive is not None and probe_archive(archive).found is not None:
        raise CommandError(
            "archive_in_use",
            "that database belongs to a Ringlog already; a demonstration needs one of its own",
            "make an empty one: createdb ringlog_demo",
            ExitCode.USAGE,
        )


def run() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    main(commands)


if __name__ == "__main__":
    run()
