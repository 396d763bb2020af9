"""Where the next frame goes: the active segment, its successor, and what writing them took.

Everything that touches the disk goes through `run_sync`, one call at a time. A frame that does not fit goes
into the spare, which first becomes a segment under its final name; since all frames before it are durable
by then, a segment that has a successor is known to be whole.
"""

import time
from collections.abc import Callable, Iterator

import trio

from storage.directory import Directory
from storage.errors import ArchiveBehindLogError, CorruptLogError
from storage.frame import (
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
)
from storage.record import StoredRecord
from storage.recovery import Recovery, Span, read_span
from storage.segment import SegmentReader, SegmentWriter, Spare
from storage.supply import SegmentSupply
from storage.syncthread import RunSync


class LogWriter:
    """Writes frames at the end of the log, through as many segments as it takes."""

    def __init__(
        self,
        directory: Directory,
        supply: SegmentSupply,
        run_sync: RunSync,
        *,
        recovery: Recovery,
        node_id: bytes,
        epoch: int,
        segment_bytes: int,
        on_sync_seconds: Callable[[float], None] | None,
    ) -> None:
        self._directory = directory
        self._run_sync = run_sync
        self._node_id = node_id
        self._epoch = epoch
        self._chain_crc = recovery.chain_crc
        self._active: SegmentWriter | None = None
        self._coming_room_bytes = 0
        self._written_lsn = recovery.next_lsn
        self._covered_lsn = recovery.next_lsn
        self._on_sync_seconds = on_sync_seconds
        self.supply = supply
        self.frame_bytes_max = min(
            FRAME_BYTES_MAX, segment_bytes - SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES
        )
        self.opened_lsn = recovery.next_lsn
        self.commits = 0
        self.fsyncs = 0
        self.bytes = 0
        self.sync_seconds_last = 0.0
        self.sync_seconds_max = 0.0
        self._writing_since: float | None = None

    @property
    def room_bytes(self) -> int:
        """Return the bytes of frames that are sure to fit, together, into one segment that is there."""
        own = self._active.room_bytes if self._active is not None else 0
        return max(own, self._coming_room_bytes, self.supply.room_bytes)

    @property
    def trailing_missing(self) -> bool:
        """Return whether the last batch has nothing after it that says it was synced."""
        active = self._active
        return (
            active is not None
            and self._covered_lsn < self._written_lsn
            and active.size - active.offset >= FRAME_HEADER_BYTES
        )

    @property
    def write_seconds(self) -> float:
        """Return how long the write in flight has been with the disk; 0 if there is none."""
        since = self._writing_since
        return trio.current_time() - since if since is not None else 0.0

    @property
    def segments(self) -> int:
        """Return how many segments the log consists of."""
        return len(self.supply.spans) + (self._active is not None)

    @property
    def bytes_on_disk(self) -> int:
        """Return what the log and its spare take on disk."""
        finished = sum(span.size for span in self.supply.spans)
        active = self._active.size if self._active is not None else 0
        return finished + active + self.supply.spare_bytes

    async def open(self, first_segment_bytes: int) -> None:
        """Begin the first segment, or leave that to the first write if the disk is full."""
        await self.supply.prepare(first_segment_bytes)
        if self.supply.room_bytes:
            await self._begin_segment()

    async def write(self, frame: bytearray, count: int) -> None:
        """Make one batch of `count` records durable.

        Raises:
            OSError: the disk failed; how much was written is unknown.
        """
        active = self._active
        if active is None or len(frame) > active.room_bytes:
            active = await self._begin_segment()
        await self._write(active, frame, count)
        self.commits += 1
        self.bytes += len(frame)

    async def write_trailing(self) -> None:
        """Make an empty frame durable, which says that everything before it is."""
        if self.trailing_missing:
            assert self._active is not None
            await self._write(self._active, bytearray(FRAME_HEADER_BYTES), 0)

    async def close(self) -> None:
        """Close the files."""
        if self._active is not None:
            active, self._active = self._active, None
            await self._run_sync(active.close)
        await self.supply.close()

    def read(self, from_lsn: int, to_lsn: int) -> Iterator[StoredRecord]:
        """Yield the records from `from_lsn` up to `to_lsn`, from disk. Blocking."""
        active = self._active  # looked at first: see `_begin_segment`
        spans = list(self.supply.spans)
        if active is not None:
            base = active.header.base_lsn
            spans.append(Span(active.name, active.header, base, None, active.size))
        if spans and spans[0].base > from_lsn:
            raise ArchiveBehindLogError(from_lsn, spans[0].base)
        return _read_spans(self._directory, spans, from_lsn, to_lsn)

    async def _write(self, active: SegmentWriter, frame: bytearray, count: int) -> None:
        self._writing_since = trio.current_time()
        seconds = await self._run_sync(_write_frame, active, frame, count, self._written_lsn)
        self._writing_since = None
        self._covered_lsn = self._written_lsn
        self._written_lsn += count
        self.fsyncs += 1
        self.sync_seconds_last = seconds
        self.sync_seconds_max = max(self.sync_seconds_max, seconds)
        if self._on_sync_seconds is not None:
            self._on_sync_seconds(seconds)

    async def _begin_segment(self) -> SegmentWriter:
        """Continue the log in the spare; waits for one if the disk was full."""
        spare = await self.supply.take()
        self._coming_room_bytes = spare.room_bytes
        before = self._active
        header = SegmentHeader(
            self._node_id,
            self._epoch,
            self._written_lsn,
            sealed_end=None,
            prev_crc=before.chain_crc if before is not None else self._chain_crc,
        )
        active: SegmentWriter = await self._run_sync(
            _start_segment, self._directory, spare, header, before
        )
        # Retired before it is replaced: `read`, in another thread, must find it in one place or the other.
        if before is not None:
            base = before.header.base_lsn
            self.supply.retire(
                [Span(before.name, before.header, base, self._written_lsn, before.size)]
            )
        self._active = active
        self._coming_room_bytes = 0
        self._covered_lsn = self._written_lsn
        return active


def _write_frame(active: SegmentWriter, frame: bytearray, count: int, lsn: int) -> float:
    """Write and sync a frame in one go; return the seconds that the sync took."""
    active.append(frame, count=count, first_lsn=lsn, durable_upto=lsn)
    began = time.perf_counter()
    active.sync()
    return time.perf_counter() - began


def _start_segment(
    directory: Directory, spare: Spare, header: SegmentHeader, before: SegmentWriter | None
) -> SegmentWriter:
    active = SegmentWriter(spare, header)
    active.publish(directory)
    if before is not None:
        before.close()
    return active


def _read_spans(
    directory: Directory, spans: list[Span], from_lsn: int, to_lsn: int
) -> Iterator[StoredRecord]:
    workspaces: dict[bytes, str] = {}
    lsn = from_lsn
    for span in spans:
        if lsn >= to_lsn or (span.end is not None and span.end <= lsn):
            continue
        with SegmentReader(directory, span.name) as reader:
            for record in read_span(reader, span, workspaces):
                if record.lsn == lsn and lsn < to_lsn:
                    yield record
                    lsn += 1
            if lsn < to_lsn and lsn != span.end:
                raise CorruptLogError(reader.path, reader.offset, f"LSN {lsn} is missing")
