"""Says once when a lasting trouble begins, and once when it is over; the retries in between say nothing.

The archive and the log wait an outage out by themselves, and they do not write to the log of the process:
this looks at their state from time to time instead. What comes and goes between two looks is not told.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from runtime import DISK_STALLED_SECONDS, Node
from storage import StorageFullError

WATCH_SECONDS = 0.5
"""Soon enough for a person who watches; two attribute reads each time."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Outage:
    began: float
    cursor: int


class Watch:
    """What a node is waiting for, as far as it was told."""

    def __init__(self, node: Node, clock: Callable[[], float] = trio.current_time) -> None:
        self._node = node
        self._clock = clock
        self._outage: _Outage | None = None
        self._full_since: float | None = None
        self._stalled_since: float | None = None

    async def run(self) -> None:
        """Look at the node's state, for ever."""
        while True:
            self.look()
            await trio.sleep(WATCH_SECONDS)

    def look(self) -> None:
        """Tell what has begun or ended since the last look."""
        self._look_at_flusher()
        self._look_at_disk()

    def _look_at_flusher(self) -> None:
        flusher = self._node.flusher
        since, outage = flusher.failing_since, self._outage
        if outage is not None and outage.began != since:
            self._outage = None
            log.info(
                "archive_back",
                seconds=round(self._clock() - outage.began, 1),
                records_flushed=flusher.cursor - outage.cursor,
                records_waiting=flusher.backlog_rows,
            )
        if since is not None and self._outage is None:
            self._outage = _Outage(since, flusher.cursor)
            log.warning(
                "archive_failing",
                reason=str(flusher.last_error),
                records_waiting=flusher.backlog_rows,
                next="flushing is retried; sessions in memory go on",
            )

    def _look_at_disk(self) -> None:
        statistics = self._node.log.statistics()
        self._look_at_write(statistics.write_seconds)
        full = statistics.full
        if full and self._full_since is None:
            self._full_since = self._clock()
            log.warning("storage_full", reason=str(StorageFullError()), hint=StorageFullError.hint)
        elif not full and self._full_since is not None:
            log.info("storage_free", seconds=round(self._clock() - self._full_since, 1))
            self._full_since = None

    def _look_at_write(self, seconds: float) -> None:
        stalled = seconds > DISK_STALLED_SECONDS
        if stalled and self._stalled_since is None:
            self._stalled_since = self._clock() - seconds
            log.warning(
                "disk_stalled",
                reason=f"the disk has had a write for {seconds:.0f} s",
                hint="look at the disk (dmesg); nothing is acknowledged until it answers",
            )
        elif not stalled and self._stalled_since is not None:
            log.info("disk_answers", seconds=round(self._clock() - self._stalled_since, 1))
            self._stalled_since = None
