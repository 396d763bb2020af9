"""``python -m bench mixed``: clients that come and go."""

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
from bench.scenarios.mixed import MixedOptions, run_mixed


def mixed(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Each comes and goes by itself.")] = 200,
    sessions: Annotated[
        int | None, typer.Option(min=1, help="Two clients share one by default.")
    ] = None,
    burst: Annotated[int, typer.Option(min=1, help="Messages each time a client is back.")] = 16,
    in_flight: InFlight = 4,
    stay: Annotated[float, typer.Option(min=0.01, help="Mean seconds until it hangs up.")] = 0.5,
    away: Annotated[float, typer.Option(min=0.01, help="Mean seconds until it is back.")] = 0.5,
    seconds: Seconds = 10.0,
    content_bytes: ContentBytes = 200,
    seed: Annotated[int, typer.Option(help="Chooses who comes and goes when.")] = 0,
    url: Url = None,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Clients that connect, catch up, say something and vanish; each history is checked."""
    options = MixedOptions(
        clients=clients,
        sessions=sessions,
        burst=burst,
        in_flight=in_flight,
        stay_seconds=stay,
        away_seconds=away,
        seconds=seconds,
        content_bytes=content_bytes,
        seed=seed,
        url=url,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_mixed, options), json)
