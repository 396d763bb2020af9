"""The command line: `ringlog COMMAND`.

Data goes to stdout and everything else to stderr; `--json` gives every command a stable form for
programs; the exit codes are in `edge/cli/failure.py`. Commands import what they need when they run, so
that `ringlog --help` is quick.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main(*added: "typer.Typer") -> None:
    """Run the command that the process's arguments name, and exit with its code.

    `added` are groups of commands of those who build upon this package.
    """
    from edge.cli.program import run

    run(*added)
