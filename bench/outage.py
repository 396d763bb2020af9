"""An outage of the archive, made by holding SQLite's write lock: the server can read, but not flush.

It is what the server is built to outlast. Its flushes fail after their busy timeout and are repeated with
backoff for ever; what is durable stays in the log and in memory, up to `unflushed_bytes_max`. So a run
under such an outage shows what the log does by itself, without the flusher's share of the processor and
of the disk.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from bench.probe import Probe

LOCK_SECONDS_MAX = 30.0
"""How long a flush that is under way is waited for."""

LOOK_SECONDS = 0.1

STUCK_SECONDS_MAX = 60.0
"""Ten times the longest pause between two attempts of the flusher: a backlog that stays is stuck."""

RATE_MAX = 200_000
"""Messages a second, twice what any server in Python has done; only a bound on memory is made from it."""

MESSAGE_BYTES_MAX = 2048
"""What a message counts beside its content: its line and a kibibyte, rounded up."""

LIMIT_BYTES_MAX = 64 * 2**30
"""What the server takes as a limit."""

_SQLITE = "sqlite:///"


class OutageError(Exception):
    """The archive could not be held back, or did not catch up."""


def archive_file(url: str) -> Path | None:
    """Return the file of an SQLite archive; None for another one."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def unflushed_bytes_max(seconds: float, content_bytes: int) -> int:
    """Return a limit that no server reaches in this time: what waits is bounded by the rate alone."""
    return min(LIMIT_BYTES_MAX, int(RATE_MAX * seconds * (content_bytes + MESSAGE_BYTES_MAX)))


@asynccontextmanager
async def hold_archive(file: Path) -> AsyncIterator[None]:
    """Let nobody write into an SQLite archive until the block ends.

    Raises:
        OutageError: Somebody else holds it.
    """
    connection = sqlite3.connect(
        file, timeout=LOCK_SECONDS_MAX, isolation_level=None, check_same_thread=False
    )
    try:
        try:
            await trio.to_thread.run_sync(partial(connection.execute, "BEGIN IMMEDIATE"))
        except sqlite3.OperationalError as error:
            raise OutageError(f"{file} could not be held back: {error}") from error
        yield
    finally:
        # This rolls back; nothing was written.
        connection.close()


async def wait_caught_up(probe: Probe) -> float:
    """Return how many seconds it took until the archive had everything.

    Raises:
        OutageError: The backlog does not shrink.
    """
    began = shrunk_at = trio.current_time()
    least: int | None = None
    while trio.current_time() < shrunk_at + STUCK_SECONDS_MAX:
        sample = await probe.look()
        if sample is not None and (least is None or sample.backlog_records < least):
            least = sample.backlog_records
            shrunk_at = trio.current_time()
        if least == 0:
            return trio.current_time() - began
        await trio.sleep(LOOK_SECONDS)
    raise OutageError(f"the archive does not catch up: {least} records wait")
