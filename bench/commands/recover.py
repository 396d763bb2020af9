"""``python -m bench recover``: kill a server that has much to make up for, and time its return."""

from functools import partial
from typing import Annotated

import typer

from bench.commands.options import (
    DIRECTORY,
    Archive,
    ContentBytes,
    Directory,
    JsonFile,
    Rounds,
    run_scenario,
)
from bench.scenarios.recover import (
    HISTORY_MESSAGES,
    UNFLUSHED_MIB,
    RecoverOptions,
    run_recover,
)


def recover(
    *,
    unflushed: Annotated[
        list[int] | None,
        typer.Option(min=0, help="MiB that it lacks; repeat it. By default 0, 16 and 64."),
    ] = None,
    history: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Messages it has; repeat it. By default 0 and 200,000."),
    ] = None,
    content_bytes: ContentBytes = 200,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Time to serve again after kill -9, by what the archive lacks and by what it has.

    The archive is locked while that is written, so that it stays in the log. Each case has an archive
    of its own: SQLite, or a database of a private server with `--archive postgres`.
    """
    options = RecoverOptions(
        unflushed=unflushed or UNFLUSHED_MIB,
        history=history or HISTORY_MESSAGES,
        content_bytes=content_bytes,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_recover, options), json)
