"""The program: every command by name, and what happens when one fails."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Annotated

import typer

from edge.cli import (
    agent,
    check,
    configuration,
    flush,
    keys,
    log,
    node,
    ring,
    serving,
    session,
    slot,
)
from edge.cli.failure import CommandError, ExitCode, command_error
from edge.cli.streams import OutputError, abandon, flush_stdout, prepare_streams, say
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


def build(*added: typer.Typer) -> typer.Typer:
    """Return the program with all its commands, and groups of commands that are added to it."""
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
    program.command("up")(serving.up)
    program.command("doctor")(check.doctor)
    program.command("health")(check.health)
    program.add_typer(session.commands, name="session")
    program.add_typer(agent.commands, name="agent")
    program.add_typer(log.commands, name="log")
    program.add_typer(flush.commands, name="flush")
    program.add_typer(configuration.commands, name="config")
    program.add_typer(keys.commands, name="key")
    program.add_typer(node.commands, name="node")
    program.add_typer(ring.commands, name="ring")
    program.add_typer(slot.commands, name="slot")
    for commands in added:
        program.add_typer(commands)
    return program


def run(*added: typer.Typer) -> None:
    """Run the command that the arguments name, and exit with its code."""
    prepare_streams()
    arguments = sys.argv[1:]
    as_json = "--json" in list(takewhile(lambda argument: argument != "--", arguments))
    code = _run_command(arguments, added, as_json=as_json)
    try:
        flush_stdout()
    except OutputError as failure:
        code = code or _fail(failure, as_json=as_json)
    sys.exit(code)


def report(failure: CommandError, *, as_json: bool) -> None:
    """Say on stderr what failed and what to do about it."""
    if as_json:
        fields = {"code": failure.code, "message": failure.message, "hint": failure.hint}
        say(json.dumps({"error": fields}))
        return
    say(f"ringlog: {escape(failure.message)}")
    if failure.hint:
        say(f"  hint: {escape(failure.hint)}")


def _run_command(arguments: list[str], added: Sequence[typer.Typer], *, as_json: bool) -> int:
    try:
        _check_text(arguments)
        return int(
            build(*added)(arguments, prog_name="ringlog", standalone_mode=False) or ExitCode.OK
        )
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        return _refuse_usage(error, as_json=as_json)
    except UnicodeDecodeError as error:
        failure = CommandError("not_text", f"the input is not text in {error.encoding}: {error.reason}", "give it in UTF-8")  # fmt: skip
        return _fail(failure, as_json=as_json)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        failure = CommandError("system", f"{what}{error.strerror or error}")
        return _fail(failure, as_json=as_json)
    except Exception as error:
        known = command_error(error)
        if known is None:
            raise
        return _fail(known, as_json=as_json)


def _fail(failure: CommandError, *, as_json: bool) -> int:
    """Report a failure, and return the exit code that it stands for."""
    if isinstance(failure, OutputError):
        abandon(sys.stdout)
    if failure.exit_code != ExitCode.OK:
        report(failure, as_json=as_json)
    return failure.exit_code


def _check_text(arguments: list[str]) -> None:
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise CommandError(
                "usage",
                f"argument {number} is not valid UTF-8: {shown}",
                "give names and texts in UTF-8",
                ExitCode.USAGE,
            ) from None


def _refuse_usage(error: typer.TyperException, *, as_json: bool) -> int:
    """Say that the command or an option is wrong: with the usage, or as JSON."""
    if not as_json:
        with suppress(OSError):
            error.show()  # type: ignore[attr-defined]  # all that typer raises have it
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ringlog"
    hint = f"{command} -h"
    if command == "ringlog serve" and getattr(error, "option_name", "") == "--json":
        hint = "what it logs is JSON with --log-format json"
    report(CommandError("usage", error.format_message(), hint, ExitCode.USAGE), as_json=True)
    return error.exit_code


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        print(f"ringlog {VERSION}")
        raise typer.Exit


def _root(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    pass
