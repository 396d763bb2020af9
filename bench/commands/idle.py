"""``python -m bench idle``: many sessions at rest and many silent connections, and what they cost."""

from functools import partial
from typing import Annotated

import typer

from bench.commands.options import (
    DIRECTORY,
    Archive,
    Directory,
    JsonFile,
    Rounds,
    Seconds,
    run_scenario,
)
from bench.scenarios.idle import CONNECTIONS_MAX, IdleOptions, run_idle


def idle(
    *,
    sessions: Annotated[int, typer.Option(min=1, help="Known, at rest.")] = 1_000_000,
    connections: Annotated[
        int, typer.Option(min=1, max=CONNECTIONS_MAX, help="Each has joined one session.")
    ] = CONNECTIONS_MAX,
    seconds: Seconds = 20.0,
    weighed_sessions: Annotated[
        int, typer.Option(min=1, help="In memory, on a server of their own.")
    ] = 20_000,
    weighed_connections: Annotated[int, typer.Option(min=1, help="Likewise.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Chooses the samples.")] = 0,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """What sessions that rest and connections that say nothing cost: memory, processor, time to join."""
    options = IdleOptions(
        sessions=sessions,
        connections=connections,
        seconds=seconds,
        weighed_sessions=weighed_sessions,
        weighed_connections=weighed_connections,
        seed=seed,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_idle, options), json)
