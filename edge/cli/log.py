"""`ringlog log …`."""

import typer

commands = typer.Typer(help="The commit log's files: dump, verify, repair.", no_args_is_help=True)
flush_commands = typer.Typer(help="The way from the log into the archive.", no_args_is_help=True)


@flush_commands.command("status")
def status() -> None:
    """X."""


@commands.command("verify")
def verify() -> None:
    """X."""
