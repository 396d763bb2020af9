"""Reports that other runs left in files: reading them, or saying in one line why that is not possible."""

from pathlib import Path
from typing import NoReturn

import msgspec
import typer

from bench.report import Report, read_report

EXIT_USAGE = 2
"""What was asked for cannot be done."""


def read_stored(path: Path) -> Report:
    """Return the report in a file, or end the command."""
    try:
        return read_report(path)
    except OSError as error:
        give_up(f"{path}: {error.strerror or error}; give a file that --json wrote")
    except msgspec.DecodeError as error:
        give_up(f"{path}: not a report ({error}); give a file that --json wrote")


def give_up(error: object, code: int = EXIT_USAGE) -> NoReturn:
    """End the command with one line on stderr."""
    typer.echo(f"bench: {error}", err=True)
    raise typer.Exit(code)
