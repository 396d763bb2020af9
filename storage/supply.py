"""Keeps one spare segment ready ahead of the writer, and removes old ones behind it.

The spare is the log's promise that an append will find room: it is reserved on disk before anything relies
on it, so a full disk is met here and not in the middle of a commit. While there is no room the supply is
`full` and asks again every second; nothing else stops. Filling the spare with zeros is paced, one piece
and one pause, so that commits hardly notice; the writer may take the spare before it is filled.

A segment is removed when the archive holds all its records and nobody may need them again: after
`retention_seconds`, or earlier if what is kept for that reason exceeds `retention_bytes`. The oldest goes
first, so that what is left has no hole.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from storage.directory import Directory
from storage.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from storage.recovery import Span
from storage.segment import TEMPORARY_SUFFIX, Spare, fill_spare, reserve_spare
from storage.syncthread import RunSync

FULL_RETRY_SECONDS = 1.0
SPARE_NAME = f"spare{TEMPORARY_SUFFIX}"
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class _Retired:
    span: Span
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
        self.on_room_change: Callable[[], None] = lambda: None
        self._spare: Spare | None = None
        self._filling = False
        self._wanted = False
        self._cursor = 0
        self._retired: deque[_Retired] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self.full = False

    @property
    def room_bytes(self) -> int:
        """Return how long a frame the spare is sure to take: 0 if there is none."""
        if self._spare is None:
            return 0
        return self._spare.size - SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES

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

    async def take(self) -> Spare:
        """Return the spare; waits while there is none, and cuts its filling short."""
        self._wanted = True
        while self._spare is None or self._filling:
            await self._changed.park()
        self._wanted = False
        spare, self._spare = self._spare, None
        self._work.set()
        self.on_room_change()
        return spare

    def retire(self, spans: Iterable[Span]) -> None:
        """Take over finished segments, in LSN order."""
        now = trio.current_time()
        self._retired.extend(_Retired(span, now) for span in spans)
        self._work.set()

    def release(self, cursor: int) -> None:
        """Note that the archive holds every record below `cursor`."""
        self._cursor = cursor
        self._work.set()

    async def close(self) -> None:
        """Remove the spare: the next start makes its own."""
        if self._spare is not None:
            spare, self._spare = self._spare, None
            await self._run_sync(_discard, self._directory, spare)

    async def run(self) -> None:
        """Make spares and remove old segments, for ever."""
        while True:
            self._work = trio.Event()
            if self._spare is None:
                await self._make_spare(self._segment_bytes, paced=True)
            pause = await self._remove_old()
            if self._spare is None:
                pause = FULL_RETRY_SECONDS
            with trio.move_on_after(pause):
                await self._work.wait()

    async def prepare(self, size: int) -> None:
        """Make the first spare, of `size` bytes, as fast as the disk allows."""
        await self._make_spare(size, paced=False)

    async def _make_spare(self, size: int, *, paced: bool) -> None:
        try:
            spare = await self._run_sync(reserve_spare, self._directory, SPARE_NAME, size)
            self._set_spare(spare, filling=True)
            await self._fill(spare, paced=paced)
        except OSError as error:
            if error.errno not in _FULL_ERRNOS:
                raise
            if self._spare is not None:
                await self._run_sync(_discard, self._directory, self._spare)
            self.full = True
            self._set_spare(None, filling=False)
            return
        self._set_spare(spare, filling=False)

    async def _fill(self, spare: Spare, *, paced: bool) -> None:
        offset = 0
        while offset < spare.size and not self._wanted:
            began = trio.current_time()
            offset = await self._run_sync(fill_spare, spare, offset)
            if paced:
                # As long a pause as the piece took: half of the disk's time stays for commits.
                await trio.sleep(trio.current_time() - began)

    def _set_spare(self, spare: Spare | None, *, filling: bool) -> None:
        self._spare = spare
        self._filling = filling
        if spare is not None:
            self.full = False
        self._changed.unpark_all()
        self.on_room_change()

    async def _remove_old(self) -> float:
        """Remove what may go; return after how many seconds there may be more."""
        removed = False
        pause = float("inf")
        kept_bytes = sum(
            retired.span.size for retired in self._retired if _end(retired.span) <= self._cursor
        )
        while self._retired and _end(self._retired[0].span) <= self._cursor:
            oldest = self._retired[0]
            age = trio.current_time() - oldest.retired_at
            if age < self._retention_seconds and kept_bytes <= self._retention_bytes:
                pause = self._retention_seconds - age
                break
            kept_bytes -= oldest.span.size
            self._retired.popleft()
            await self._run_sync(self._directory.unlink, oldest.span.name)
            removed = True
        if removed:
            await self._run_sync(self._directory.sync)
        return pause


def _end(span: Span) -> int:
    assert span.end is not None
    return span.end


def _discard(directory: Directory, spare: Spare) -> None:
    spare.file.close()
    directory.unlink(spare.name)
