"""The program: every command by name, and what happens when one fails."""

import os
import sys
from typing import Annotated

import orjson
import typer

from edge.cli import check, configuration, flush, keys, log, node, serving, session
from edge.cli.failure import CommandError, ExitCode, command_error
from edge.printable import escape
from edge.version import VERSION

HELP = """A durable session runtime: an ordered log for each session, over WebSocket and HTTP.

\b
  ringlog serve                                  start a server on 127.0.0.1:4000
  ringlog session chat demo --user alice         talk in a session, from two terminals
  ringlog session tail demo --follow             watch it
  ringlog doctor                                 check this machine before you rely on it
"""
EPILOG = """Options come from flags, RINGLOG_* variables, ringlog.toml and defaults, in this order;
`ringlog config show` says which. Exit codes: 0 done, 1 failed, 2 usage, 3 not found or conflict,
4 unreachable, 5 timeout."""


def build() -> typer.Typer:
    """Return the program with all its commands."""
    # Plain help: rich's panels cost a quarter of a second and hold no more.
    program = typer.Typer(
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(_root)
    program.command("serve")(serving.serve)
    program.command("doctor")(check.doctor)
    program.command("health")(check.health)
    program.add_typer(session.commands, name="session")
    program.add_typer(log.commands, name="log")
    program.add_typer(flush.commands, name="flush")
    program.add_typer(configuration.commands, name="config")
    program.add_typer(keys.commands, name="key")
    program.add_typer(node.commands, name="node")
    return program


def run() -> None:
    """Run the command that the arguments name, and exit with its code."""
    try:
        build()(prog_name="ringlog")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our stdout has left (`ringlog session export x | head`): that is no failure, and
        # Python must not try to flush into the closed pipe on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)
    except Exception as error:
        failure = command_error(error)
        if failure is None:
            raise
        report(failure, as_json="--json" in sys.argv)
        sys.exit(failure.exit_code)


def report(failure: CommandError, *, as_json: bool) -> None:
    """Say on stderr what failed and what to do about it."""
    if as_json:
        fields = {"code": failure.code, "message": failure.message, "hint": failure.hint}
        print(orjson.dumps({"error": fields}).decode(), file=sys.stderr)
        return
    print(f"ringlog: {escape(failure.message)}", file=sys.stderr)
    if failure.hint:
        print(f"  hint: {escape(failure.hint)}", file=sys.stderr)


def _root(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="print the version and exit")
    ] = False,
) -> None:
    if show_version:
        print(f"ringlog {VERSION}")
        raise typer.Exit
