"""Logs for tests: written record by record into a directory, or opened with small sizes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import trio

from storage.commitlog import CommitLog, LogOptions
from storage.directory import Directory
from storage.frame import FRAME_HEADER_BYTES, SegmentHeader, append_record, seal_frame
from storage.logopening import open_commit_log
from storage.ownership import Ownership
from storage.record import RecordType, StoredRecord, record_prefix
from storage.segment import SegmentReader, SegmentWriter, is_segment_name, reserve_spare
from storage.syncthread import RunSync
from tests.fakes.run_sync import run_inline

NODE_ID = b"node-of-the-test"
PREFIX = record_prefix(RecordType.MESSAGE, "default")
SMALL = LogOptions(segment_bytes=64 * 1024, batch_bytes_max=4096)


def record(lsn: int, body: bytes | None = None) -> StoredRecord:
    """Return a message record; its body says which it is."""
    return StoredRecord(lsn, RecordType.MESSAGE, "default", body or b'{"n":%d}' % lsn)


@dataclass(frozen=True)
class WrittenSegment:
    """What `write_segment` wrote: the file, the offset after each frame, and the last CRC."""

    name: str
    frame_ends: tuple[int, ...]
    chain_crc: int


def write_segment(
    directory: Directory,
    batches: Sequence[int],
    *,
    epoch: int = 1,
    base_lsn: int = 0,
    prev_crc: int = 0,
    sealed_end: int | None = None,
    size: int = 64 * 1024,
) -> WrittenSegment:
    """Write a durable segment with one frame for each of `batches`, of so many records."""
    spare = reserve_spare(directory, "building.tmp", size)
    writer = SegmentWriter(spare, SegmentHeader(NODE_ID, epoch, base_lsn, sealed_end, prev_crc))
    ends = []
    lsn = base_lsn
    for count in batches:
        frame = bytearray(FRAME_HEADER_BYTES)
        for each in range(lsn, lsn + count):
            append_record(frame, record(each))
        writer.append(frame, count=count, first_lsn=lsn, durable_upto=lsn)
        ends.append(writer.offset)
        lsn += count
    writer.publish(directory)
    writer.close()
    return WrittenSegment(writer.name, tuple(ends), writer.chain_crc)


def add_frame(
    directory: Directory,
    written: WrittenSegment,
    payload: bytes,
    *,
    count: int,
    first_lsn: int,
    prev_crc: int | None = None,
    durable_upto: int | None = None,
) -> None:
    """Write one more frame at the end of a segment: valid by its checksum, whatever it says."""
    with SegmentReader(directory, written.name) as reader:
        salt = reader.header.salt
    frame = bytearray(FRAME_HEADER_BYTES) + payload
    seal_frame(
        frame,
        salt=salt,
        offset=written.frame_ends[-1],
        count=count,
        first_lsn=first_lsn,
        durable_upto=first_lsn if durable_upto is None else durable_upto,
        prev_crc=written.chain_crc if prev_crc is None else prev_crc,
    )
    file = directory.open(written.name, writable=True)
    file.write_at(written.frame_ends[-1], frame)
    file.close()


def open_log(
    directory: Directory,
    *,
    epoch: int = 1,
    cursor: int = 0,
    ownership: Ownership | None = None,
    options: LogOptions = SMALL,
    on_commit: Callable[[list[Any]], None] = lambda items: None,
    run_sync: RunSync | None = run_inline,
    on_sync_seconds: Callable[[float], None] | None = None,
) -> AbstractAsyncContextManager[tuple[CommitLog, list[StoredRecord]]]:
    """Open a log as the node of the tests."""
    return open_commit_log(
        directory,
        node_id=NODE_ID,
        ownership=ownership or Ownership(epoch, cursor),
        options=options,
        on_commit=on_commit,
        run_sync=run_sync,
        on_sync_seconds=on_sync_seconds,
    )


def append(log: CommitLog, count: int = 1) -> None:
    """Append so many records whose bodies and items say which they are."""
    for _ in range(count):
        lsn = log.next_lsn
        assert log.append(PREFIX, record(lsn).body, lsn) == lsn


async def until_cancelled() -> None:
    """Wait for the failure that a test expects, but not for ever."""
    with trio.fail_after(2):
        await trio.sleep_forever()


def batches_on_disk(directory: Directory) -> list[int]:
    """Return the number of records of every frame of the newest segment."""
    name = max(filter(is_segment_name, directory.names()))
    with SegmentReader(directory, name) as reader:
        return [frame.count for frame in reader.frames()]
