"""``python -m bench fanout``: one writer, many who follow."""

from functools import partial
from typing import Annotated

import typer

from bench.commands.options import (
    DIRECTORY,
    Archive,
    ContentBytes,
    Directory,
    InFlight,
    JsonFile,
    Rounds,
    Seconds,
    Url,
    run_scenario,
)
from bench.scenarios.fanout import FanoutOptions, run_fanout


def fanout(
    *,
    subscribers: Annotated[
        int, typer.Option(min=1, help="Connections that follow the session.")
    ] = 100,
    in_flight: InFlight = 1,
    per_second: Annotated[
        float | None, typer.Option(min=1, help="Messages a second, open-loop, whatever comes back.")
    ] = None,
    seconds: Seconds = 10.0,
    content_bytes: ContentBytes = 200,
    url: Url = None,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Deliveries of one session to many followers, each checked: once, in order, unchanged."""
    options = FanoutOptions(
        subscribers=subscribers,
        in_flight=in_flight,
        per_second=per_second,
        seconds=seconds,
        content_bytes=content_bytes,
        url=url,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_fanout, options), json)
