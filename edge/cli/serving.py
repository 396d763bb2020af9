"""`ringlog serve`: run a server in this process."""

import gc
import sys

from edge.cli.options import takes
from edge.config import Config


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
