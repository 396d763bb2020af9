"""`ringlog session chat`: one task reads the keyboard, one follows the session."""

import secrets
import sys

import trio

from edge.cli.failure import CommandError, ExitCode
from edge.cli.output import note
from edge.cli.remote import Remote
from edge.cli.socket import Follower
from edge.cli.transcript import read_message, render


async def converse(remote: Remote, session: str, user: str | None, last: int) -> None:
    """Talk in a session until the input ends and all of it is durable.

    Raises:
        CommandError: the server is not there or refuses; or not all was acknowledged in time.
    """
    if user is None and remote.may_name_sender():
        raise CommandError(
            "missing_field",
            "who are you?",
            f"say it: ringlog session chat {session} --user NAME",
            ExitCode.USAGE,
        )

    def show(line: bytes) -> None:
        message = read_message(line)
        # What was typed here stands on the screen already.
        if message.client_id in follower.own and sys.stdin.isatty():
            note(f"  ✓ #{message.seq}")
        else:
            print(render(line), flush=True)

    follower = Follower(remote, session, show, user=user, tail=last, create=True)
    if sys.stdin.isatty():
        note(f"{session}: type and press Enter; Ctrl-D ends")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, follower)
        await _send_lines(follower)
        with trio.move_on_after(remote.timeout_seconds) as scope:
            await follower.wait_acknowledged()
        nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise remote.timed_out()


async def _follow(follower: Follower) -> None:
    await follower.run(live=True)


async def _send_lines(follower: Follower) -> None:
    """Send each line of stdin as a message; ids are new for every chat, and so stored once each."""
    prefix = f"chat-{secrets.token_hex(8)}"
    number = 0
    # Abandoned when the session ends first: the thread waits for a key that may never come.
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        if text := line.rstrip("\n"):
            number += 1
            await follower.send(f"{prefix}-{number}", text)
