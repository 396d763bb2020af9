"""What commands print: tables and fields for people, JSON for programs, and never a raw control character."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from edge.cli.failure import CommandError, ExitCode
from edge.cli.streams import say
from edge.printable import escape


class Output:
    """Prints a command's data on stdout, in the form that was asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def table(self, rows: Sequence[Mapping[str, Any]], empty: str, **extra: Any) -> None:
        """Print rows of the same keys; `extra` are fields of the JSON object beside `data`."""
        if self.as_json:
            self.json({"data": list(rows), **extra})
        elif rows:
            _print_table(rows)
        else:
            note(empty)

    def fields(self, fields: Mapping[str, Any]) -> None:
        """Print one thing: a name and a value a line."""
        if self.as_json:
            self.json(fields)
            return
        width = max((len(name) for name in fields), default=0)
        for name, value in fields.items():
            print(f"{name:<{width}}  {cell(value)}")

    def note(self, text: str) -> None:
        """Tell the person something that is not data, and a program nothing."""
        if not self.as_json:
            note(text)

    def json(self, value: object) -> None:
        """Print one JSON value on one line."""
        sys.stdout.buffer.write(orjson.dumps(value, default=str) + b"\n")
        sys.stdout.buffer.flush()

    def json_line(self, line: bytes) -> None:
        """Print JSON that is already encoded, unchanged."""
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Tell the person something that is not data."""
    say(text)


def confirm(question: str, why: str) -> None:
    """Ask on the terminal whether to go on.

    Raises:
        CommandError: the answer is no, or there is nobody to ask.
        KeyboardInterrupt: Ctrl-C.
    """
    if not sys.stdin.isatty():
        raise CommandError("not_confirmed", why, "add --yes to do it", ExitCode.USAGE)
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        note("")
        raise
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("not_confirmed", "nothing was changed", "answer y to do it")


def cell(value: object) -> str:
    """Return a value as text on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(cell(part) for part in value) or "–"
    if isinstance(value, dict):
        return escape(orjson.dumps(value, default=str).decode())
    return escape(str(value))


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        # Text, not str: brackets in a value are not markup.
        table.add_row(*(Text(cell(value)) for value in row.values()))
    console = Console()
    if not console.is_terminal:
        _print_plain(rows)
        return
    console.print(table)


def _print_plain(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print tab-separated lines with a header, for pipes: nothing is cut or wrapped."""
    rows = list(rows)
    print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(cell(value) for value in row.values()))
