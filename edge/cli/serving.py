"""`ringlog serve`: run a server in this process. `ringlog up`: run a cluster of them."""

import gc
import sys
from typing import Annotated

import typer

from edge.cli.options import takes
from edge.cli.streams import say
from edge.config import Config
from edge.values import Address


@takes(Config)
def serve(*, config: Config) -> None:
    """Start a server; it runs until it is told to stop (Ctrl-C, SIGTERM).

    \b
      ringlog serve
      ringlog serve --listen 127.0.0.1:4100 --data /var/lib/ringlog
      ringlog serve --archive postgresql://ringlog@localhost/ringlog
    """
    # Hardly anything made while starting is garbage; looking for it costs a fifth of the time. Turned on
    # again when the server is ready.
    gc.disable()
    from edge.serve import run_server

    sys.exit(run_server(config))


@takes(Config, "listen", "data", "archive", "secrets_key", "agent_networks", "log_format")
def up(
    *,
    config: Config,
    edges: Annotated[int, typer.Option(min=1, max=64, help="processes that serve clients")] = 1,
    owners: Annotated[int, typer.Option(min=1, max=64, help="processes that own sessions")] = 2,
) -> None:
    """Run a cluster on this machine: edges, owners, and one archive. Ctrl-C stops all of it.

    The first edge listens on --listen, each other one on the port after. A process that ends is started again.
    All seal the secrets of agents with the keys in secrets.key in --data, made if missing, unless others are given.

    \b
      ringlog up
      ringlog up --edges 2 --owners 4 --archive postgresql://ringlog@localhost/ringlog
    """
    from edge.supervisor import Part, run_cluster
    from storage import make_directory

    make_directory(config.data)
    common = [f"--archive={config.archive}", f"--log-format={config.log_format}"]
    common += _secrets_key(config)
    common += [f"--agent-networks={network}" for network in config.agent_networks]

    def part(role: str, number: int, *more: str) -> Part:
        name = f"{role}-{number}"
        return Part(
            name, ["serve", f"--role={role}", f"--data={config.data / name}", *common, *more]
        )

    listen = config.listen
    run_cluster(
        [
            part("owner", number, "--listen=127.0.0.1:0", "--link=127.0.0.1:0")
            for number in range(owners)
        ],
        [
            part("edge", number, f"--listen={Address(listen.host, listen.port + number)}")
            for number in range(edges)
        ],
        lambda name, line: say(f"{name:<9}  {line}"),
    )


def _secrets_key(config: Config) -> list[str]:
    """Return the flag that gives every process the same keys; nothing if they find them in their environment."""
    from agents import make_key_file
    from edge.secretsvault import SECRETS_KEY_NAME, open_vault
    from edge.values import HiddenText

    if config.secrets_key is None:
        path = config.data / SECRETS_KEY_NAME
        make_key_file(path)
        return [f"--secrets-key={path}"]
    open_vault(config)
    return (
        []
        if isinstance(config.secrets_key, HiddenText)
        else [f"--secrets-key={config.secrets_key}"]
    )
