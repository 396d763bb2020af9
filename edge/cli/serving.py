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


@takes(Config, "listen", "data", "archive", "log_format")
def up(
    *,
    config: Config,
    edges: Annotated[int, typer.Option(min=1, max=64, help="processes that serve clients")] = 1,
    owners: Annotated[int, typer.Option(min=1, max=64, help="processes that own sessions")] = 2,
) -> None:
    """Run a cluster on this machine: edges, owners, and one archive. Ctrl-C stops all of it.

    The first edge listens on --listen, each other one on the port after. A process that ends is started again.

    \b
      ringlog up
      ringlog up --edges 2 --owners 4 --archive postgresql://ringlog@localhost/ringlog
    """
    from edge.supervisor import Part, run_cluster

    common = [f"--archive={config.archive}", f"--log-format={config.log_format}"]

    def part(role: str, number: int, *more: str) -> Part:
        name = f"{role}-{number}"
        return Part(
            name, ["serve", f"--role={role}", f"--data={config.data / name}", *common, *more]
        )

    listen = config.listen
    config.data.mkdir(parents=True, exist_ok=True)
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
