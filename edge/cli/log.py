"""`ringlog log …`."""

import typer

commands = typer.Typer(help="The commit log's files: dump, verify, repair.", no_args_is_help=True)


@commands.command("verify")
def verify() -> None:
    """X."""
