"""`ringlog session chat`: one task reads the keyboard, one follows the session."""

import io
import os
import secrets
import sys
from collections.abc import AsyncIterator

import trio

from edge.cli.failure import CommandError, ExitCode
from edge.cli.output import Output, note
from edge.cli.remote import Remote
from edge.cli.socket import Follower
from edge.cli.transcript import Message, read_line, render

READ_BYTES = 64 * 1024


async def converse(
    remote: Remote, session: str, user: str | None, last: int, *, as_json: bool
) -> None:
    """Talk in a session until the input ends and all of it is durable.

    Raises:
        CommandError: the server is not there or refuses; or not all was acknowledged in time.
    """
    remote.check_user(user, f"ringlog session chat {session} --user NAME")

    def tell(text: str) -> None:
        if not as_json:
            note(text)

    def show(line: bytes) -> None:
        if as_json:
            Output(as_json=True).json_line(line)
            return
        read = remote.read(read_line, line)
        # What was typed here stands on the screen already.
        if isinstance(read, Message) and read.client_id in follower.own and sys.stdin.isatty():
            note(f"  ✓ #{read.seq}")
        else:
            print(render(line), flush=True)

    follower = Follower(remote, session, show, user=user, tail=last, create=True, tell=tell)
    if sys.stdin.isatty():
        tell(f"{session}: type and press Enter; Ctrl-D ends")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, follower)
        await _send_lines(follower)
        with trio.move_on_after(remote.timeout_seconds) as scope:
            await follower.wait_acknowledged()
        nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise remote.timed_out()
    if follower.refusals:
        raise _not_sent(follower)


async def _follow(follower: Follower) -> None:
    await follower.run(live=True)


def _not_sent(follower: Follower) -> CommandError:
    last = follower.refusals[-1]
    count = f"{len(follower.refusals)} of {len(follower.own)} messages"
    return CommandError(
        last.code, f"{count} were refused: {last.message}", last.hint, ExitCode.FAILURE
    )


async def _send_lines(follower: Follower) -> None:
    """Send each line of stdin as a message; ids are new for every chat, and so stored once each."""
    prefix = f"chat-{secrets.token_hex(8)}"
    number = 0
    async for text in _lines():
        if text:
            number += 1
            await follower.send(f"{prefix}-{number}", text)


async def _lines() -> AsyncIterator[str]:
    """Give the lines of stdin.

    The thread that waits for a key is abandoned when the session ends first. It reads the descriptor and not
    `sys.stdin`, whose lock it would hold while Python exits.
    """
    try:
        descriptor = sys.stdin.fileno()
    except io.UnsupportedOperation:  # a caller put text in its place
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    rest = b""
    while True:
        try:
            read = await trio.to_thread.run_sync(
                os.read, descriptor, READ_BYTES, abandon_on_cancel=True
            )
        except OSError as error:
            raise CommandError(
                "input",
                f"cannot read stdin: {error.strerror}",
                "type into a terminal, or pipe text in",
            ) from None
        *lines, rest = (rest + read).split(b"\n")
        if not read and rest:
            lines, rest = [rest], b""
        for line in lines:
            yield line.decode(sys.stdin.encoding)
        if not read:
            return
