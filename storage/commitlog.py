"""The commit log: appends become durable in batches, in order, or the log says that it failed.

::

    append ──▶ gathering ──cut at batch_bytes_max──▶ full batches ──▶ one write, one fdatasync ──▶ on_commit
      │            └──────────── taken as it is when the disk is idle ──────────▲
      └─ returns the LSN at once; nothing is durable yet

Invariants:

- One write is in flight; the next batch is what arrived meanwhile. So LSN order, file order and the order of
  `on_commit` are one.
- `on_commit` is called from the one place that saw the fdatasync of its batch return. `durable_lsn` is moved
  just before, and nowhere else.
- A write or sync that fails poisons the log: nothing is retried, because after a failed fsync the kernel may
  call lost pages clean. The batch is never acknowledged, every later call raises, the task ends with
  `LogPoisonedError`. What is on disk is found out by the next start.
- A frame is only written where room was reserved, so a full disk is met by `check_room`, before an LSN.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

import trio

from storage.batches import Batch
from storage.errors import (
    ArchiveUnavailableError,
    LogPoisonedError,
    LogQueueFullError,
    StorageFullError,
)
from storage.frame import (
    BATCH_BYTES_LIMIT,
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    encode_length,
)
from storage.logwriter import LogWriter
from storage.record import RECORD_LENGTH_BYTES, StoredRecord
from storage.replica import Replica

SYNC_DELAY_MS_MAX = 25
# Frame and record headers of what one `check_room` stands for: hundreds of small records.
_ROOM_SLACK_BYTES = 4096


ABANDON_SECONDS = 15.0
"""Longer than an archive is waited for."""

_CLOSED = "it is closed"


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How the log trades latency, memory and disk."""

    segment_bytes: int = 128 * 1024 * 1024
    # Filled with zeros before the first append, so kept small: 0.1 s at 250 MB/s.
    first_segment_bytes: int = 24 * 1024 * 1024
    batch_bytes_max: int = 512 * 1024
    sync_delay_ms: float = 0
    queue_bytes_max: int = 64 * 1024 * 1024
    retention_seconds: float = 3600
    retention_bytes: int = 1024 * 1024 * 1024
    idle_sync_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sync_delay_ms <= SYNC_DELAY_MS_MAX:
            raise ValueError(f"sync_delay_ms is {self.sync_delay_ms}, not 0 to {SYNC_DELAY_MS_MAX}")
        if not 0 < self.batch_bytes_max <= BATCH_BYTES_LIMIT:
            raise ValueError(f"batch_bytes_max is {self.batch_bytes_max}, over {BATCH_BYTES_LIMIT}")
        if self.segment_bytes < 4 * SEGMENT_HEADER_BYTES:
            raise ValueError(f"segment_bytes is {self.segment_bytes}: too small to hold a batch")


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """What the log has done since it was opened, and how it is."""

    commits: int
    records: int
    bytes: int
    fsyncs: int
    fdatasync_seconds_last: float
    fdatasync_seconds_max: float
    write_seconds: float
    segments: int
    bytes_on_disk: int
    spare_ready: bool
    queue_bytes: int
    poisoned: bool
    full: bool


class _Batch(NamedTuple):
    frame: bytearray
    items: list[Any]
    lsn_end: int


class CommitLog:
    """One owner's log, open for appending; made by `open_commit_log`."""

    def __init__(
        self,
        writer: LogWriter,
        options: LogOptions,
        on_commit: Callable[[list[Any]], None],
        next_lsn: int,
        replica: Replica | None = None,
    ) -> None:
        self.next_lsn = next_lsn
        self.durable_lsn = next_lsn
        self._writer = writer
        self._options = options
        self._on_commit = on_commit
        self._replica = replica
        self._in_flight: list[Any] = []
        self._gathering = bytearray(FRAME_HEADER_BYTES)
        self._items: list[Any] = []
        self._full_batches: deque[_Batch] = deque()
        self._queued_bytes = 0
        self._room_bytes = 0
        self._cut_bytes = min(options.batch_bytes_max, writer.frame_bytes_max // 2)
        # One flag for all that is rare, tested once per append: the commit task sleeps, or has ended.
        self._attention = False
        self._failure: str | None = None
        self._asleep = trio.lowlevel.ParkingLot()
        self._gathered = trio.lowlevel.ParkingLot()
        self._trailing_wanted = False
        self._waiters: list[tuple[int, int, trio.Event]] = []
        self._waiter_numbers = count()
        writer.supply.on_room_change = self.update_room
        if replica is not None:
            replica.on_change = self.update_room
            replica.waiting = self._waiting_items
        self.update_room()

    def check_room(self, size: int) -> None:
        """Refuse an append of `size` bytes (prefix and body) that could not be kept.

        When it returns, appends of that many bytes made before the next checkpoint will fit on disk.

        Raises:
            StorageFullError: the disk is full; until space returns there is only what was reserved.
            LogQueueFullError: more waits for the disk than the options allow.
            ArchiveUnavailableError: the second copy of what was appended before is long in coming.
            LogPoisonedError: the log failed.
        """
        if self._queued_bytes + len(self._gathering) + size > self._room_bytes:
            self._refuse(size)

    def append(self, prefix: bytes, body: bytes, item: object) -> int:
        """Add a record to the gathering batch and return its LSN; nothing is durable yet.

        `prefix` is what `record_prefix` returned. `item` goes to `on_commit` when the record is durable.
        """
        if self._attention:
            self._attend()
        frame = self._gathering
        frame += encode_length(len(prefix) + len(body))
        frame += prefix
        frame += body
        self._items.append(item)
        lsn = self.next_lsn
        self.next_lsn = lsn + 1
        if len(frame) >= self._cut_bytes:
            self._cut(RECORD_LENGTH_BYTES + len(prefix) + len(body))
        return lsn

    def after_commit(self, item: object) -> None:
        """Hand `item` to `on_commit` once all that was appended so far is durable."""
        if self._attention:
            self._attend()
        self._items.append(item)

    async def wait_durable(self, lsn_end: int) -> None:
        """Return when every record below `lsn_end` is durable.

        Raises:
            LogPoisonedError: the log failed before; whether they are is unknown.
        """
        if self.durable_lsn >= lsn_end:
            await trio.lowlevel.checkpoint()
            return
        self._check_alive()
        event = trio.Event()
        heappush(self._waiters, (lsn_end, next(self._waiter_numbers), event))
        await event.wait()
        if self.durable_lsn < lsn_end:
            self._check_alive()

    async def sync(self) -> None:
        """Return when everything appended so far is durable."""
        self._gathered.unpark_all()
        await self.wait_durable(self.next_lsn)

    async def drain(self) -> None:
        """Return when everything appended is durable and every item was handed to `on_commit`."""
        while self._items or self._full_batches or self.durable_lsn < self.next_lsn:
            self._check_alive()
            await self.sync()

    def release(self, cursor: int) -> None:
        """Note that the archive holds every record below `cursor`: old segments may go in time."""
        self._writer.supply.release(cursor)

    def read(self, from_lsn: int, to_lsn: int) -> Iterator[StoredRecord]:
        """Return the durable records from `from_lsn` up to `to_lsn`, read from disk. Blocking.

        Raises:
            ArchiveBehindLogError: the first of them is no longer retained.
            CorruptLogError: they cannot be read.
        """
        return self._writer.read(from_lsn, min(to_lsn, self.durable_lsn))

    def statistics(self) -> LogStatistics:
        """Return the log's counters and state."""
        writer = self._writer
        return LogStatistics(
            commits=writer.commits,
            records=self.durable_lsn - writer.opened_lsn,
            bytes=writer.bytes,
            fsyncs=writer.fsyncs,
            fdatasync_seconds_last=writer.sync_seconds_last,
            fdatasync_seconds_max=writer.sync_seconds_max,
            write_seconds=writer.write_seconds,
            segments=writer.segments,
            bytes_on_disk=writer.bytes_on_disk,
            spare_ready=writer.supply.spare_ready,
            queue_bytes=self._queued_bytes + len(self._gathering) - FRAME_HEADER_BYTES,
            poisoned=self._failure is not None,
            full=writer.supply.full,
        )

    async def run_supply(self) -> None:
        """Keep a spare segment ready and remove old ones, for ever; the caller gives this a task.

        Raises:
            LogPoisonedError: the disk failed otherwise than by being full.
        """
        try:
            await self._writer.supply.run()
        except OSError as error:
            self.end(str(error))
            raise LogPoisonedError(str(error)) from error

    async def close(self) -> None:
        """End the file with a trailing frame and close it; the tasks have ended.

        Raises:
            LogPoisonedError: the disk failed.
        """
        self.end(_CLOSED)
        try:
            if self._failure is _CLOSED:
                await self._writer.write_trailing()
            await self._writer.close()
        except OSError as error:
            # A log that failed before has said so: what closing it meets adds nothing.
            if self._failure is _CLOSED:
                raise LogPoisonedError(str(error)) from error

    async def run(self) -> None:
        """Commit batches, for ever; the caller gives this a task.

        Raises:
            LogPoisonedError: a write or sync failed.
            FencedError: this owner's epoch is over; only with a replica.
        """
        try:
            while True:
                if self._options.sync_delay_ms and self._items and not self._full_batches:
                    await self._gather()
                batch = self._take()
                if batch is not None:
                    await self._commit(batch)
                elif self._trailing_wanted:
                    self._trailing_wanted = False
                    await self._writer.write_trailing()
                else:
                    self._attention = True
                    await self._asleep.park()
        except OSError as error:
            self.end(str(error))
            raise LogPoisonedError(str(error)) from error
        except Exception as error:
            self.end(f"its commit task ended: {error!r}")
            raise
        finally:
            self.end(_CLOSED)

    async def watch(self) -> None:
        """Ask for a trailing frame whenever the log has been idle for a while, for ever."""
        while True:
            commits = self._writer.commits
            await trio.sleep(self._options.idle_sync_seconds)
            if commits == self._writer.commits and self._attention and self._failure is None:
                self._trailing_wanted = self._writer.trailing_missing
                if self._trailing_wanted:
                    self._attend()

    def end(self, reason: str) -> None:
        """Refuse everything from now on; the first reason stays."""
        if self._failure is None:
            self._failure = reason
        self._attention = True
        self._room_bytes = -1
        for _, _, event in self._waiters:
            event.set()

    def update_room(self) -> None:
        """Work out how many bytes may wait: all of them must fit into one segment that is there."""
        if self._failure is None:
            room_on_disk = self._writer.room_bytes - _ROOM_SLACK_BYTES
            self._room_bytes = min(self._options.queue_bytes_max, room_on_disk)
            if self._replica is not None and self._replica.stalled is not None:
                self._room_bytes = -1

    async def _commit(self, batch: _Batch) -> None:
        """Make a batch durable, then say so: the order of the last lines is the log's whole promise."""
        records = batch.lsn_end - self.durable_lsn
        if records:
            await self._write(batch, records)
            self.durable_lsn = batch.lsn_end
        self._queued_bytes -= len(batch.frame)
        self.update_room()
        self._on_commit(batch.items)
        while self._waiters and self._waiters[0][0] <= self.durable_lsn:
            heappop(self._waiters)[2].set()
        if not records:
            await trio.lowlevel.checkpoint()

    async def _write(self, batch: _Batch, records: int) -> None:
        replica = self._replica
        if replica is None:
            await self._writer.write(batch.frame, records)
            return
        self._in_flight = batch.items
        # Before the frame's header is filled in; the records after it stay as they are.
        payload = bytes(memoryview(batch.frame)[FRAME_HEADER_BYTES:])
        replica.begin(Batch(self.durable_lsn, batch.lsn_end, payload))
        try:
            await self._writer.write(batch.frame, records)
        except BaseException:
            # The thread is at work for no longer than that, or the end of the log would wait for it.
            with trio.move_on_after(ABANDON_SECONDS, shield=True):
                await replica.abandon()
            raise
        await replica.finish()
        self._in_flight = []

    def _waiting_items(self) -> list[Any]:
        """Return the items of all that is not durable."""
        queued = [item for batch in self._full_batches for item in batch.items]
        return [*self._in_flight, *queued, *self._items]

    async def _gather(self) -> None:
        with trio.move_on_after(self._options.sync_delay_ms / 1000):
            await self._gathered.park()

    def _take(self) -> _Batch | None:
        if not self._full_batches:
            if not self._items:
                return None
            self._cut()
        return self._full_batches.popleft()

    def _cut(self, last_bytes: int = 0) -> None:
        """Close the gathering batch, whose last record takes `last_bytes`, and begin another."""
        frame = self._gathering
        if len(frame) > self._writer.frame_bytes_max:
            del frame[-last_bytes:]
            self._items.pop()
            self.next_lsn -= 1
            raise ValueError(f"a record of {last_bytes} bytes does not fit into a segment")
        self._full_batches.append(_Batch(frame, self._items, self.next_lsn))
        self._queued_bytes += len(frame)
        self._gathering = bytearray(FRAME_HEADER_BYTES)
        self._items = []
        self._gathered.unpark_all()

    def _attend(self) -> None:
        self._check_alive()
        self._attention = False
        self._asleep.unpark()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise LogPoisonedError(self._failure)

    def _refuse(self, size: int) -> None:
        self._check_alive()
        if self._replica is not None and self._replica.stalled is not None:
            # A new one: one that is raised again and again would keep all that it passed.
            stalled = self._replica.stalled
            raise ArchiveUnavailableError(stalled.reason, stalled.hint)
        waiting = self._queued_bytes + len(self._gathering)
        if self._writer.supply.full and waiting + size <= self._options.queue_bytes_max:
            raise StorageFullError
        raise LogQueueFullError
