"""Commands about clusters: `cluster`, `replicated`, `drain`, `failover` and `ring`."""

from functools import partial
from typing import Annotated

import typer

from bench.commands.options import (
    DIRECTORY,
    Connections,
    ContentBytes,
    Directory,
    InFlight,
    JsonFile,
    Rounds,
    Seconds,
    run_scenario,
)
from bench.scenarios.cluster import ClusterLoadOptions, run_cluster
from bench.scenarios.drain import DrainOptions, run_drain
from bench.scenarios.failover import FailoverOptions, run_failover
from bench.scenarios.replicated import ReplicatedOptions, run_replicated
from bench.scenarios.ring import RingOptions, run_ring

Archive = Annotated[
    str | None,
    typer.Option(help="`postgres` for a private one; SQLite in a fresh directory by default."),
]

Sessions = Annotated[int, typer.Option(min=1, help="Sessions altogether.")]
PerSecond = Annotated[float, typer.Option(min=1, help="Messages a second, over all sessions.")]


def cluster(
    *,
    connections: Connections = 64,
    in_flight: InFlight = 1,
    seconds: Seconds = 8.0,
    content_bytes: ContentBytes = 200,
    sessions: Annotated[
        int | None,
        typer.Option(min=1, help="Sessions altogether. One for each connection by default."),
    ] = None,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Durable appends over a link: an edge with one owner and with two, beside one process that does it all."""
    options = ClusterLoadOptions(
        connections=connections,
        in_flight=in_flight,
        seconds=seconds,
        content_bytes=content_bytes,
        sessions=sessions,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_cluster, options), json)


def replicated(
    *,
    connections: Connections = 50,
    in_flight: InFlight = 16,
    seconds: Seconds = 8.0,
    content_bytes: ContentBytes = 200,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Durable appends with `replicated` durability, beside the same with `local`; on a private PostgreSQL."""
    options = ReplicatedOptions(
        connections=connections,
        in_flight=in_flight,
        seconds=seconds,
        content_bytes=content_bytes,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_replicated, options), json)


def drain(
    *,
    owners: Annotated[int, typer.Option(min=2, help="Processes that own sessions.")] = 3,
    connections: Connections = 50,
    sessions: Sessions = 500,
    per_second: PerSecond = 2_500.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each of the three phases.")] = 8,
    content_bytes: ContentBytes = 200,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """How long sessions pause while an owner is drained, and while it takes its share again."""
    options = DrainOptions(
        owners=owners,
        connections=connections,
        sessions=sessions,
        per_second=per_second,
        seconds=seconds,
        content_bytes=content_bytes,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_drain, options), json)


def failover(
    *,
    owners: Annotated[int, typer.Option(min=1, help="Each of them is killed once.")] = 2,
    connections: Connections = 20,
    sessions: Sessions = 200,
    per_second: PerSecond = 2_000.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="From one kill to the next.")] = 8,
    content_bytes: ContentBytes = 200,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Time from kill -9 of an owner to the first acknowledgement in each of its sessions: by its restart."""
    options = FailoverOptions(
        owners=owners,
        connections=connections,
        sessions=sessions,
        per_second=per_second,
        seconds=seconds,
        content_bytes=content_bytes,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_failover, options), json)


def ring(
    *,
    sets: Annotated[int, typer.Option(min=1, help="Sets of node names.")] = 100,
    seed: Annotated[int, typer.Option(help="Chooses the names.")] = 0,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """How evenly the ring divides, how little moves when a node comes or goes, and how long that takes to work out."""
    run_scenario(partial(run_ring, RingOptions(rounds=sets, seed=seed, directory=directory)), json)
