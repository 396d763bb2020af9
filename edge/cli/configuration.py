"""`ringlog config …`: which options are in force, and where each came from."""

import typer

from edge.cli.options import Json, takes
from edge.cli.output import Output, note
from edge.config import Config, options, shown, unknown_variables

commands = typer.Typer(help="Options and where they come from.", no_args_is_help=True)


@commands.command("show")
@takes(Config)
def show(*, config: Config, as_json: Json = False) -> None:
    """Show every option of the server: its value and its origin. Secrets are masked.

    \b
      ringlog config show
      RINGLOG_LISTEN=127.0.0.1:4100 ringlog config show --json
    """
    values = shown(config)
    rows = [
        {"option": name, "value": values[name], "origin": config.origins[name]}
        for name in options(Config)
    ]
    Output(as_json=as_json).table(rows, "no options")
    for name in unknown_variables():
        note(f"note: no option reads the variable {name}")
