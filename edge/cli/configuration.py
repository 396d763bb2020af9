"""`ringlog config …`: which options are in force, and where each came from."""

import typer

from edge.cli.options import Json, takes
from edge.cli.output import Output
from edge.config import Config, load_client_config, options, shown, unknown_variables

commands = typer.Typer(help="Options and where they come from.", no_args_is_help=True)


@commands.command("show")
@takes(Config)
def show(*, config: Config, config_file: str | None, as_json: Json = False) -> None:
    """Show every option of the server and of the commands: value and origin. Secrets are masked.

    \b
      ringlog config show
      RINGLOG_LISTEN=127.0.0.1:4100 ringlog config show --json
    """
    rows = []
    for settings in (config, load_client_config(file=config_file)):
        values = shown(settings)
        rows += [
            {"option": name, "value": values[name], "origin": settings.origins[name]}
            for name in options(type(settings))
        ]
    unknown = unknown_variables()
    output = Output(as_json=as_json)
    output.table(rows, "no options", unknown_variables=unknown)
    for name in unknown:
        output.note(f"note: no option reads the variable {name}")
