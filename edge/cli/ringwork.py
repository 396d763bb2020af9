"""What the commands that look at the ring or change it share: listening, asking, making a change, waiting for it."""

import getpass
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from edge.cli.archive import open_existing_archive
from edge.cli.failure import CommandError, ExitCode
from edge.cli.output import Output, confirm
from edge.cli.progress import progress
from edge.config import Config

if TYPE_CHECKING:
    from edge.http_bodies import RingPair
    from runtime import Ask, Plan, RollCall, SessionCount
    from storage import Archive, Ring

POLL_SECONDS = 0.2

SAY_SECONDS = 1.0
"""Between two lines about what is on its way, where there is no terminal for a bar."""

RANGES_SHOWN = 5
"""Of a pair's ranges of slots, on a terminal."""


class Steps(NamedTuple):
    """What is to be done with a change: only show it, go on without a look at who lives, wait for it.

    `question` is asked first, if there is one; `why` is said where there is nobody to ask.
    """

    question: str | None = None
    why: str = ""
    dry_run: bool = False
    force: bool = False
    wait_seconds: float | None = None


@contextmanager
def open_ring(config: Config) -> "Iterator[tuple[Archive, Ring]]":
    """Open the archive that is there, and read its ring."""
    with open_existing_archive(config) as archive:
        from runtime import read_ring

        yield archive, read_ring(archive)


def listen(archive: "Archive", until_heard: set[str] | None = None) -> "RollCall":
    """Listen to the nodes' heartbeats, until these were heard of, or for as long as one that lives may take."""
    from runtime import LISTEN_LOOKS, LISTEN_SECONDS, RollCall

    beats = RollCall(archive.read_beats())
    for _ in range(LISTEN_LOOKS):
        if until_heard is not None and beats.heard(until_heard):
            break
        threading.Event().wait(LISTEN_SECONDS)
        beats.hear(archive.read_beats())
    return beats


def count_sessions(count: "SessionCount", output: Output) -> None:
    """Count all sessions, however many there are."""
    with progress("sessions counted", shown=not output.as_json) as tell:
        while count.read_page():
            tell(count.counted, None)


def change_ring(config: Config, ask: "Ask", steps: Steps, output: Output) -> None:
    """Work a change out, say what it moves, make it, and wait for it, as was asked."""
    import msgspec

    from edge.ringview import view_change
    from runtime import carry_out, check_lives, work_out

    actor = _actor()
    with open_ring(config) as (archive, ring):
        plan = work_out(ring, ask, actor)
        version = ring.version
        _say_moves(plan, output)
        if not steps.dry_run:
            beats = None if steps.force else listen(archive, plan.looked_at)
            if beats is not None:
                check_lives(plan, beats)
            if steps.question is not None:
                confirm(steps.question, steps.why)
            plan, version = carry_out(archive, ask, actor, beats)
        output.note(_outcome(ask, version, steps))
        if output.as_json:
            changed = msgspec.to_builtins(view_change(plan, version))
            output.json(changed | {"dry_run": steps.dry_run})
        if steps.wait_seconds is not None and not steps.dry_run:
            wait_settled(archive, steps.wait_seconds, output)


def wait_settled(archive: "Archive", seconds: float, output: Output) -> None:
    """Wait until every slot has the owner that it should have, and nobody drains any more."""
    try:
        _wait_settled(archive, seconds, output)
    except KeyboardInterrupt:
        output.note("the change goes on by itself; to wait for it again: ringlog ring wait")
        raise


def slot_text(ranges: "list[tuple[int, int]]", *, whole: bool = True) -> str:
    """Return ranges of slots on one line: 0-3, 7; the first few, and how many more, unless `whole`."""
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    if whole or len(parts) <= RANGES_SHOWN:
        return ", ".join(parts)
    return f"{', '.join(parts[:RANGES_SHOWN])}, … {len(parts) - RANGES_SHOWN} more"


def named(pair: "RingPair") -> tuple[str, str]:
    """Return from whom to whom, in words."""
    return pair.source or "nobody", pair.target or "nobody"


def _say_moves(plan: "Plan", output: Output) -> None:
    from edge.ringview import view_pairs

    for pair in view_pairs(plan.moves):
        source, target = named(pair)
        output.note(f"{pair.slots} slots: {source} → {target}")
    output.note(f"{len(plan.moves)} of {len(plan.ring.owners)} slots move")


def _outcome(ask: "Ask", version: int, steps: Steps) -> str:
    if steps.dry_run:
        return "nothing was changed"
    if ask.action == "remove":
        return f"{ask.node_id} is removed"
    on = "" if steps.wait_seconds is not None else "; to wait for them: ringlog ring wait"
    return f"the ring is at version {version}, and the nodes carry it out{on}"


def _wait_settled(archive: "Archive", seconds: float, output: Output) -> None:
    from runtime import progress_of
    from storage import ArchiveUnavailableError

    give_up_at = time.monotonic() + seconds
    plain = not sys.stderr.isatty()
    said, say_at, total = -1, 0.0, 0
    with progress("slots moved", shown=not output.as_json) as tell:
        while True:
            try:
                found = progress_of(archive.read_ring())
            except ArchiveUnavailableError:
                if time.monotonic() > give_up_at:
                    raise
            else:
                total = max(total, found.slots)
                tell(total - found.slots, total)
                now = time.monotonic()
                if found.done:
                    break
                if plain and found.slots != said and now > say_at:
                    output.note(f"{found.slots} slots on their way")
                    said, say_at = found.slots, now + SAY_SECONDS
                if now > give_up_at:
                    raise _too_long(found.slots, found.draining, seconds)
            threading.Event().wait(POLL_SECONDS)
    output.note("0 slots on their way")


def _too_long(slots: int, draining: list[str], seconds: float) -> CommandError:
    what = f"{slots} slots are on their way"
    if not slots:
        what = f"node {', '.join(draining)} still drains"
    return CommandError(
        "timeout",
        f"{what} after {seconds:g} seconds",
        "it goes on by itself: see `ringlog ring show` and the logs of their owners; wait on with `ringlog ring wait`",
        ExitCode.TIMEOUT,
    )


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "?"
