"""`ringlog flush …`: how far the archive is behind the log."""

import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output
from edge.config import ClientConfig

commands = typer.Typer(help="The way from the log into the archive.", no_args_is_help=True)

# The names in `edge/metrics.py`; Prometheus adds _total to what only grows.
SERIES = {
    "ringlog_log_durable_lsn_total": "durable_lsn",
    "ringlog_flush_cursor_total": "flushed_lsn",
    "ringlog_flush_backlog_records": "backlog_records",
    "ringlog_flush_backlog_bytes": "backlog_bytes",
    "ringlog_flush_lag_seconds": "lag_seconds",
    "ringlog_flush_failing": "failing",
}


@commands.command("status")
@takes(ClientConfig)
def status(*, config: ClientConfig, as_json: Json = False) -> None:
    """Show what is durable, what the archive has, and the lag. Exits with 1 while flushing fails.

    \b
      ringlog flush status
      watch -n1 ringlog flush status
    """
    from edge.cli.remote import Remote

    values = _read_series(Remote(config).get("/metrics").decode(errors="replace"))
    missing = set(SERIES.values()) - set(values)
    if missing:
        raise CommandError(
            "no_metrics",
            f"the server's metrics do not tell {', '.join(sorted(missing))}",
            "is it a Ringlog server of this version?",
            ExitCode.FAILURE,
        )
    whole = {name: int(value) for name, value in values.items()}
    fields = whole | {
        "lag_seconds": round(values["lag_seconds"], 3),
        "failing": bool(values["failing"]),
    }
    Output(as_json=as_json).fields(fields)
    if fields["failing"]:
        raise typer.Exit(ExitCode.FAILURE)


def _read_series(text: str) -> dict[str, float]:
    """Return the values of `SERIES`, which have no labels, out of the exposition format."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in SERIES:
            values[SERIES[name]] = float(value)
    return {name: values[name] for name in SERIES.values() if name in values}
