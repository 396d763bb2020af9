"""``python -m bench replay``: clients that come back, and how fast they have what they missed."""

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
from bench.scenarios.replay import ReplayOptions, run_replay
from bench.scenarios.tails import TAIL_MESSAGES


def replay(
    *,
    sessions: Annotated[int, typer.Option(min=1, help="Written first.")] = 50,
    messages: Annotated[int, typer.Option(min=1, help="In each session.")] = 4_000,
    clients: Annotated[int, typer.Option(min=1, help="All join at once, sessions in turn.")] = 50,
    content_bytes: ContentBytes = 200,
    passes: Annotated[int, typer.Option(min=1, help="Read so often again, warm.")] = 3,
    short: Annotated[
        int, typer.Option(min=TAIL_MESSAGES, help="Messages of one session whose tail is read,")
    ] = TAIL_MESSAGES,
    long: Annotated[
        int, typer.Option(min=TAIL_MESSAGES, help="and of the one that it stands beside.")
    ] = 1_000_000,
    tails: Annotated[int, typer.Option(min=0, help="Time each tail so often; 0: not.")] = 15,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Replay from the archive, cold and warm; and the end of a short and of a long history.

    Cold is after a restart of the server, with the page cache dropped if this is run by root.
    """
    options = ReplayOptions(
        sessions=sessions,
        messages=messages,
        clients=clients,
        content_bytes=content_bytes,
        passes=passes,
        short=short,
        long=long,
        tails=tails,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_replay, options), json)
