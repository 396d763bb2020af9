"""``python -m bench peers``: Ringlog beside what a user would otherwise pick."""

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
from bench.peers.catalogue import PEERS
from bench.peers.comparison import run_peers
from bench.peers.measurement import PeersOptions
from bench.peers.table import print_comparison

Only = Annotated[
    str | None,
    typer.Option(help=f"Some of them, with commas: {','.join(peer.name for peer in PEERS)}."),
]


def peers(
    *,
    connections: Connections = 64,
    in_flight: InFlight = 1,
    seconds: Seconds = 10.0,
    content_bytes: ContentBytes = 200,
    rounds: Rounds = 3,
    only: Only = None,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """The same work on the same disk by Redis, PostgreSQL, NATS and others; synced before each ack.

    `bench/peers/install.sh` installs what the system's packages do not have. Exits with 1 if a server,
    ours or another, fails in any round or does not store what it acknowledged.
    """
    options = PeersOptions(
        connections=connections,
        in_flight=in_flight,
        seconds=seconds,
        content_bytes=content_bytes,
        rounds=rounds,
        only=only,
        directory=directory,
    )
    run_scenario(partial(run_peers, options), json, print_comparison)
