"""Commands that append: `append`, `rate`, `ancestor` and `flush` differ in their load alone."""

from functools import partial
from typing import Annotated

import typer

from bench.commands.options import (
    DIRECTORY,
    Archive,
    Connections,
    ContentBytes,
    Directory,
    Generators,
    InFlight,
    JsonFile,
    Rounds,
    Seconds,
    Url,
    run_scenario,
)
from bench.scenarios.append import ROUNDS_BESIDE_BARE, AppendOptions, run_append

Sessions = Annotated[
    int | None,
    typer.Option(min=1, help="Sessions altogether, in turn. One for each connection by default."),
]
MessagesMax = Annotated[
    int | None, typer.Option("--messages", min=1, help="End after so many, if that is earlier.")
]
BesideBare = Annotated[
    bool, typer.Option("--beside-bare", help="In turn with the least that could do: a ratio.")
]


def append(
    *,
    connections: Connections = 64,
    in_flight: InFlight = 1,
    seconds: Seconds = 10.0,
    content_bytes: ContentBytes = 200,
    sessions: Sessions = None,
    messages: MessagesMax = None,
    url: Url = None,
    archive: Archive = None,
    joined: Annotated[
        bool, typer.Option(help="Whether senders follow their session: a message before each ack.")
    ] = False,
    beside_bare: BesideBare = False,
    archive_down: Annotated[
        bool, typer.Option("--archive-down", help="The archive takes nothing meanwhile (SQLite).")
    ] = False,
    generators: Generators = 1,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Measure so often; medians count. [default: 1; 3 with bare]"),
    ] = None,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Durable appends, closed-loop: N connections with M messages on the way each."""
    options = AppendOptions(
        connections=connections,
        in_flight=in_flight,
        seconds=seconds,
        content_bytes=content_bytes,
        sessions=sessions,
        messages_max=messages,
        url=url,
        archive=archive,
        joined=joined,
        beside_bare=beside_bare,
        archive_down=archive_down,
        generators=generators,
        rounds=rounds or (ROUNDS_BESIDE_BARE if beside_bare else 1),
        directory=directory,
    )
    run_scenario(partial(run_append, options), json)


def rate(
    per_second: Annotated[
        float, typer.Argument(min=1, help="Messages a second, over all connections.")
    ] = 10_000,
    *,
    connections: Connections = 64,
    seconds: Seconds = 10.0,
    content_bytes: ContentBytes = 200,
    sessions: Sessions = None,
    joined: Annotated[
        bool, typer.Option(help="Whether senders follow their session: latency of delivery, too.")
    ] = False,
    url: Url = None,
    archive: Archive = None,
    generators: Generators = 1,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Durable appends at a constant rate, open-loop.

    A message is due at its time whatever the server does, and its latency counts from then: a stall
    is seen by all messages that were due meanwhile (no coordinated omission).
    """
    options = AppendOptions(
        connections=connections,
        per_second=per_second,
        seconds=seconds,
        content_bytes=content_bytes,
        sessions=sessions,
        joined=joined,
        url=url,
        archive=archive,
        generators=generators,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_append, options, "rate"), json)


def ancestor(
    *,
    seconds: Seconds = 10.0,
    url: Url = None,
    archive: Archive = None,
    beside_bare: BesideBare = False,
    rounds: Rounds = 3,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Durable appends in the shape that FleetLM published: 30 connections, 5 in flight each."""
    options = AppendOptions(
        connections=30,
        in_flight=5,
        seconds=seconds,
        url=url,
        archive=archive,
        beside_bare=beside_bare,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_append, options, "ancestor"), json)


def flush(
    *,
    connections: Connections = 50,
    in_flight: InFlight = 16,
    seconds: Seconds = 60.0,
    per_second: Annotated[
        float | None, typer.Option(min=1, help="At this rate, instead of as fast as it goes.")
    ] = None,
    url: Url = None,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Sustained appends, and how far the archive is behind meanwhile."""
    options = AppendOptions(
        connections=connections,
        in_flight=in_flight,
        per_second=per_second,
        seconds=seconds,
        url=url,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_append, options, "flush"), json)
