"""`ringlog session …`: look at sessions, follow them, write into them."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import orjson
import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, note
from edge.cli.progress import progress
from edge.config import ClientConfig

# One page of an export: the largest that the server gives.
EXPORT_PAGE_ROWS = 1000

Session = Annotated[str, typer.Argument(metavar="SESSION", help="the session's id")]
User = Annotated[str | None, typer.Option("--user", "-u", metavar="USER", help="the user who acts")]

commands = typer.Typer(help="Sessions: list, show, follow, write, export.", no_args_is_help=True)


@commands.command("list")
@takes(ClientConfig)
def list_sessions(
    *,
    config: ClientConfig,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="USER", help="only this user's sessions")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="how many")] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="go on after a page: its next_cursor")
    ] = None,
    as_json: Json = False,
) -> None:
    """List sessions, newest first.

    \b
      ringlog session list --user alice
      ringlog session list --json | jq -r '.data[].id'
    """
    from edge.cli.remote import Remote
    from edge.cli.transcript import read_listing

    remote = Remote(config)
    answer = remote.get("/v1/sessions", user_id=user, limit=limit, cursor=cursor)
    page = remote.read(read_listing, answer)
    rows = page.data
    if not as_json:
        shown = ("id", "user_id", "members", "state", "created_at", "updated_at")
        rows = [{name: _short(name, row.get(name)) for name in shown} for row in rows]
    Output(as_json=as_json).table(rows, "no sessions", next_cursor=page.next_cursor)
    if page.next_cursor is not None and not as_json:
        note(f"more: --cursor {page.next_cursor}")


@commands.command("show")
@takes(ClientConfig)
def show(*, config: ClientConfig, session: Session, as_json: Json = False) -> None:
    """Show a session: who is in it, its state and its metadata.

    \b
      ringlog session show demo
    """
    from edge.cli.remote import Remote, path_of
    from edge.cli.transcript import read_fields

    remote = Remote(config)
    answer = remote.get(path_of("sessions", session))
    fields = remote.read(read_fields, answer)
    if as_json:
        Output(as_json=True).json_line(answer.strip())
    else:
        Output(as_json=False).fields(fields)


@commands.command("send")
@takes(ClientConfig)
def send(
    *,
    config: ClientConfig,
    session: Session,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="the message; - reads it from stdin")],
    user: User = None,
    client_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="an id of yours: sending it again stores it once"),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="make the session if it is missing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Append a text message and wait until it is durable.

    \b
      ringlog session send demo "hello" --user alice --create
      date | ringlog session send demo - --user cron --client-id nightly-1
    """
    from edge.cli.remote import Remote, path_of
    from edge.cli.transcript import read_ack

    remote = Remote(config)
    remote.check_user(user, f"ringlog session send {session} TEXT --user NAME")
    content = _read_stdin() if text == "-" else text
    message: dict[str, Any] = {"kind": "text", "content": {"text": content}}
    if user is not None:
        message["sender"] = user  # a user token may name its own user only: the server checks
    if client_id is not None:
        message["client_id"] = client_id
    if create:
        remote.ask(
            "POST",
            "/v1/sessions",
            body=orjson.dumps({"id": session} | ({"user_id": user} if user else {})),
        )
    answer = remote.post(path_of("sessions", session, "messages"), message)
    ack = remote.read(read_ack, answer)
    if as_json:
        Output(as_json=True).json_line(answer.strip())
    else:
        note(f"durable as #{ack.seq}" + (" (it was there already)" if ack.duplicate else ""))


@commands.command("tail")
@takes(ClientConfig)
def tail(
    *,
    config: ClientConfig,
    session: Session,
    last: Annotated[
        int,
        typer.Option("--last", "-n", min=0, max=1000, metavar="N", help="how many to begin with"),
    ] = 20,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="SEQ", help="begin after this seq instead")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with what comes")] = False,
    user: User = None,
    as_json: Json = False,
) -> None:
    """Print the newest messages; with --follow stay, and resume by itself when the server restarts.

    \b
      ringlog session tail demo --follow
      ringlog session tail demo --after 0 --json | jq .content
    """
    from edge.cli.remote import Remote
    from edge.cli.socket import Follower
    from edge.cli.transcript import render

    show_line: Callable[[bytes], None]
    if as_json:
        show_line = Output(as_json=True).json_line
    else:

        def show_line(line: bytes) -> None:
            print(render(line), flush=True)

    tail = None if after is not None else last
    tell = _say_nothing if as_json else note
    follower = Follower(
        Remote(config), session, show_line, user=user, last_seq=after, tail=tail, tell=tell
    )
    _run(follower.run, live=follow)


@commands.command("export")
@takes(ClientConfig)
def export(
    *,
    config: ClientConfig,
    session: Session,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="file to write, instead of stdout (-)"),
    ] = None,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="begin after this seq")] = 0,
    as_json: Json = False,
) -> None:
    """Write every message as one line of JSON each, exactly as it is stored.

    \b
      ringlog session export demo > demo.jsonl
      ringlog session export demo --out demo.jsonl
    """
    from edge.cli.remote import Remote, path_of
    from edge.cli.transcript import read_page

    remote = Remote(config)
    out = None if out == Path("-") else out
    count = 0
    shown = out is not None and not as_json
    with _open_output(out) as stream, progress("messages", shown=shown) as tell:
        more = True
        while more:
            answer = remote.get(
                path_of("sessions", session, "messages"), last_seq=after, limit=EXPORT_PAGE_ROWS
            )
            page = remote.read(read_page, answer)
            lines = [bytes(line) for line in page.data]
            after = check_no_hole(lines, after)
            stream.writelines(line + b"\n" for line in lines)
            count += len(lines)
            more = page.has_more and bool(page.data)
            tell(after, page.head_seq)
    if not as_json:
        note(f"{count} messages, up to #{after}")


@commands.command("chat")
@takes(ClientConfig)
def chat(
    *,
    config: ClientConfig,
    session: Session,
    user: User = None,
    last: Annotated[
        int,
        typer.Option("--last", "-n", min=0, max=1000, metavar="N", help="how many to begin with"),
    ] = 20,
    as_json: Json = False,
) -> None:
    """Talk: each line you type is a message. Ends with Ctrl-D; makes the session if it is missing.

    \b
      ringlog session chat demo --user alice       in one terminal
      ringlog session chat demo --user bob         in another
    """
    from edge.cli.chat import converse
    from edge.cli.remote import Remote

    _run(converse, Remote(config), session, user, last, as_json=as_json)


def _run(main: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Run a trio program, and let what ended it out as itself, not in a group."""
    from functools import partial

    import trio

    try:
        trio.run(partial(main, *args, **options), strict_exception_groups=True)
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        for kind in (KeyboardInterrupt, CommandError, UnicodeDecodeError):
            for error in errors:
                if isinstance(error, kind):
                    raise error from None
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


@contextmanager
def _open_output(path: Path | None) -> Iterator[IO[bytes]]:
    """Give stdout; or a file that appears under its name only when all is in it; or a pipe or device as it is."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        with _draft(Path(os.path.realpath(path))) as stream:
            yield stream
    except OSError as error:
        raise CommandError(
            "output",
            f"cannot write {path}: {error.strerror}",
            "name a file in a directory that you may write to, on a disk with room",
        ) from None


@contextmanager
def _draft(target: Path) -> Iterator[IO[bytes]]:
    """Give a new file beside the target; it takes the target's place at the end, or goes away."""
    draft = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    with draft.open("xb") as stream:
        try:
            yield stream
            stream.flush()
            if target.exists():
                shutil.copymode(target, draft)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _short(name: str, value: object) -> object:
    """Return a time to the minute where a person looks: two of them fit into 80 columns."""
    if name.endswith("_at") and isinstance(value, str) and sys.stdout.isatty():
        return f"{value[:10]} {value[11:16]}Z"
    return value


def _read_stdin() -> str:
    try:
        return sys.stdin.read()
    except OSError as error:
        raise CommandError(
            "input",
            f"cannot read stdin: {error.strerror or error}",
            "give the text as an argument, or pipe it in",
        ) from None


def _say_nothing(_: str) -> None:
    """Keep stderr for errors alone, where a program reads."""


def check_no_hole(lines: Iterable[bytes], after: int) -> int:
    """Return the last seq; every line must be the next one, as the server promises."""
    from edge.cli.transcript import span_of

    for line in lines:
        seq, last = span_of(line)
        # One that was read before may be inside what a gap leaves out.
        if not seq <= after + 1 <= last:
            raise CommandError(
                "hole",
                f"#{seq} follows #{after}",
                "report this, with the server's log",
                ExitCode.FAILURE,
            )
        after = last
    return after
