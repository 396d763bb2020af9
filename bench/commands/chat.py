"""``python -m bench chat``: real conversations."""

from functools import partial
from typing import Annotated

import typer

from bench.commands.options import (
    DIRECTORY,
    Archive,
    Connections,
    Directory,
    JsonFile,
    Rounds,
    Url,
    run_scenario,
)
from bench.scenarios.chat import ChatOptions, run_chat


def chat(
    *,
    conversations: Annotated[
        int, typer.Option(min=1, max=7168, help="The first so many of 7,168.")
    ] = 2000,
    speed_up: Annotated[
        float, typer.Option(min=1, help="So much faster than they were written.")
    ] = 1000.0,
    connections: Connections = 64,
    url: Url = None,
    archive: Archive = None,
    rounds: Rounds = 1,
    directory: Directory = DIRECTORY,
    json: JsonFile = None,
) -> None:
    """Real conversations at a multiple of their pace, open-loop, each with a reader."""
    options = ChatOptions(
        conversations=conversations,
        speed_up=speed_up,
        connections=connections,
        url=url,
        archive=archive,
        rounds=rounds,
        directory=directory,
    )
    run_scenario(partial(run_chat, options), json)
