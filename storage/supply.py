"""Keeps one spare segment ready ahead of the writer, and removes old ones behind it.

The spare is the log's promise that an append will find room: it is reserved on disk before anything relies
on it, so a full disk is met here and not in the middle of a commit. While there is no room the supply is
`full` and asks again every second; nothing else stops.

Filling the spare with zeros goes on beside commits, so it is paced: a small piece, synced, then a pause of
`PAUSE_FACTOR` times what it took. Measured on commits every 0.3 ms: p99 0.25 ms without filling, 0.6 ms
with, 2 ms and more in pieces of 1 MiB without pauses. A writer that cannot wait takes the spare half filled.

A segment is removed when the archive holds all its records and nobody may need them again: after
`retention_seconds`, or earlier if what is kept for that reason exceeds `retention_bytes`. The oldest goes
first, so that what is left has no hole.
"""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

import trio

from storage.directory import Directory
from storage.recovery import Span
from storage.segment import TEMPORARY_SUFFIX, Spare, fill_spare, reserve_spare
from storage.syncthread import RunSync

FULL_RETRY_SECONDS = 1.0
PAUSE_FACTOR = 3
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)  # space that may come back


@dataclass(frozen=True, slots=True)
class _Retired:
    span: Span
    end: int
    retired_at: float


class SegmentSupply:
    """The spare segment in front of the log and the finished ones behind it."""

    def __init__(
        self,
        directory: Directory,
        run_sync: RunSync,
        *,
        segment_bytes: int,
        retention_seconds: float,
        retention_bytes: int,
    ) -> None:
        self._directory = directory
        self._run_sync = run_sync
        self._segment_bytes = segment_bytes
        self._retention_seconds = retention_seconds
        self._retention_bytes = retention_bytes
        self._spare: Spare | None = None
        self._filling = False
        self._numbers = count(1)
        self._cursor = 0
        # Replaced, never changed in place: readers in other threads take it as it is.
        self._retired: tuple[_Retired, ...] = ()
        self._spare_changed = trio.lowlevel.ParkingLot()
        self._wanted = trio.Event()
        self._work = trio.Event()
        self.on_room_change: Callable[[], None] = lambda: None
        self.full = False

    @property
    def room_bytes(self) -> int:
        """Return how long a frame the spare is sure to take: 0 if there is none."""
        return self._spare.room_bytes if self._spare is not None else 0

    @property
    def spare_bytes(self) -> int:
        """Return what the spare takes on disk."""
        return self._spare.size if self._spare is not None else 0

    @property
    def spare_ready(self) -> bool:
        """Return whether a spare is there, filled."""
        return self._spare is not None and not self._filling

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the finished segments that are still there, oldest first."""
        return tuple(retired.span for retired in self._retired)

    async def prepare(self, size: int) -> None:
        """Make the first spare, of `size` bytes, as fast as the disk allows."""
        await self._make_spare(size, pause_factor=0)

    async def take(self) -> Spare:
        """Return the spare; waits while there is none, and cuts its filling short.

        The room it stands for is the caller's from here on.
        """
        self._wanted.set()
        while self._spare is None or self._filling:
            await self._spare_changed.park()
        self._wanted = trio.Event()
        spare, self._spare = self._spare, None
        self._work.set()
        return spare

    def retire(self, spans: Iterable[Span]) -> None:
        """Take over finished segments, in LSN order."""
        now = trio.current_time()
        for span in spans:
            assert span.end is not None
            self._retired += (_Retired(span, span.end, now),)
        self._work.set()

    def release(self, cursor: int) -> None:
        """Note that the archive holds every record below `cursor`."""
        self._cursor = cursor
        self._work.set()

    async def run(self) -> None:
        """Make spares and remove old segments, for ever."""
        while True:
            self._work = trio.Event()
            if self._spare is None:
                await self._make_spare(self._segment_bytes, pause_factor=PAUSE_FACTOR)
            pause = await self._remove_old()
            if self._spare is None:
                pause = min(pause, FULL_RETRY_SECONDS)
            with trio.move_on_after(pause):
                await self._work.wait()

    async def close(self) -> None:
        """Remove the spare: the next start makes its own."""
        if self._spare is not None:
            spare, self._spare = self._spare, None
            await self._run_sync(_discard, self._directory, spare)

    async def _make_spare(self, size: int, *, pause_factor: float) -> None:
        # A name of its own: the spare before this one may not have got its final name yet.
        name = f"spare-{next(self._numbers)}{TEMPORARY_SUFFIX}"
        try:
            spare = await self._run_sync(reserve_spare, self._directory, name, size)
            self._set_spare(spare, filling=True)
            await self._fill(spare, pause_factor)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            await self.close()
            self.full = True
            self._set_spare(None, filling=False)
        else:
            self._set_spare(spare, filling=False)

    async def _fill(self, spare: Spare, pause_factor: float) -> None:
        offset = 0
        while not self._wanted.is_set():
            began = trio.current_time()
            offset = await self._run_sync(fill_spare, spare, offset)
            if offset == spare.size:
                return
            if pause_factor:
                with trio.move_on_after(pause_factor * (trio.current_time() - began)):
                    await self._wanted.wait()

    def _set_spare(self, spare: Spare | None, *, filling: bool) -> None:
        self._spare = spare
        self._filling = filling
        if spare is not None:
            self.full = False
        self._spare_changed.unpark_all()
        self.on_room_change()

    async def _remove_old(self) -> float:
        """Remove what may go; return after how many seconds there may be more."""
        removed = False
        pause = float("inf")
        released = sum(old.span.size for old in self._retired if old.end <= self._cursor)
        while self._retired and self._retired[0].end <= self._cursor:
            oldest = self._retired[0]
            age = trio.current_time() - oldest.retired_at
            if age < self._retention_seconds and released <= self._retention_bytes:
                pause = self._retention_seconds - age
                break
            released -= oldest.span.size
            self._retired = self._retired[1:]
            await self._run_sync(self._directory.unlink, oldest.span.name)
            removed = True
        if removed:
            await self._run_sync(self._directory.sync)
        return pause


def _discard(directory: Directory, spare: Spare) -> None:
    spare.file.close()
    directory.unlink(spare.name)
