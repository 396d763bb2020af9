from contextlib import closing

import pytest

from storage.errors import ArchiveBehindLogError, CorruptLogError
from storage.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, append_record
from storage.logwriter import LogWriter
from storage.recovery import Recovery, examine
from storage.segment import segment_name
from storage.supply import SegmentSupply
from tests.fakes.directory import CrashingDirectory
from tests.fakes.run_sync import run_inline
from tests.storage.logs import NODE_ID, record

SEGMENT_BYTES = 16 * 1024


def make_writer(directory: CrashingDirectory, *, next_lsn: int = 0) -> LogWriter:
    supply = SegmentSupply(
        directory,
        run_inline,
        segment_bytes=SEGMENT_BYTES,
        retention_seconds=0,
        retention_bytes=0,
    )
    return LogWriter(
        directory,
        supply,
        run_inline,
        recovery=Recovery(next_lsn, 0, [], 0, ()),
        node_id=NODE_ID,
        epoch=1,
        segment_bytes=SEGMENT_BYTES,
        on_sync_seconds=None,
    )


def frame_of(lsn: int, count: int, body: bytes | None = None) -> bytearray:
    frame = bytearray(FRAME_HEADER_BYTES)
    for each in range(lsn, lsn + count):
        append_record(frame, record(each, body))
    return frame


async def test_frames_continue_at_the_recovered_lsn() -> None:
    directory = CrashingDirectory()
    writer = make_writer(directory, next_lsn=70)
    await writer.open(SEGMENT_BYTES)
    await writer.write(frame_of(70, 2), 2)
    await writer.write(frame_of(72, 1), 1)
    assert directory.names() == [segment_name(70, 1)]
    assert list(writer.read(70, 73)) == [record(70), record(71), record(72)]


async def test_a_frame_that_does_not_fit_begins_the_next_segment() -> None:
    directory = CrashingDirectory()
    writer = make_writer(directory)
    await writer.open(SEGMENT_BYTES)
    room = writer.room_bytes
    assert room == SEGMENT_BYTES - SEGMENT_HEADER_BYTES - FRAME_HEADER_BYTES
    overhead = len(frame_of(0, 1, b"x")) - 1
    exact = frame_of(0, 1, b"x" * (room - overhead))
    assert len(exact) == room == writer.frame_bytes_max
    await writer.write(exact, 1)
    assert writer.segments == 1
    await writer.supply.prepare(SEGMENT_BYTES)
    await writer.write(frame_of(1, 1), 1)
    assert writer.segments == 2
    assert examine(directory, node_id=NODE_ID, cursor=0).next_lsn == 2


async def test_a_trailing_frame_fits_behind_a_full_segment_once() -> None:
    directory = CrashingDirectory()
    writer = make_writer(directory)
    await writer.open(SEGMENT_BYTES)
    missing = [writer.trailing_missing]
    overhead = len(frame_of(0, 1, b"x")) - 1
    await writer.write(frame_of(0, 1, b"x" * (writer.room_bytes - overhead)), 1)
    missing.append(writer.trailing_missing)
    await writer.write_trailing()
    missing.append(writer.trailing_missing)
    await writer.write_trailing()
    assert missing == [False, True, False]
    assert (writer.fsyncs, writer.commits) == (2, 1)
    assert len(directory.content(segment_name(0, 1))) == SEGMENT_BYTES
    assert examine(directory, node_id=NODE_ID, cursor=0).next_lsn == 1


async def test_room_never_shrinks_to_nothing_while_a_segment_is_begun() -> None:
    """The spare that was taken counts until its segment is there."""
    directory = CrashingDirectory()
    writer = make_writer(directory)
    seen: list[int] = []

    async def watching(function: object, *args: object) -> object:
        seen.append(writer.room_bytes)
        return await run_inline(function, *args)  # type: ignore[arg-type]

    await writer.open(SEGMENT_BYTES)
    await writer.write(frame_of(0, 1, b"x" * 10_000), 1)
    await writer.supply.prepare(SEGMENT_BYTES)
    writer._run_sync = watching
    await writer.write(frame_of(1, 1, b"x" * 10_000), 1)
    assert len(seen) == 2
    assert min(seen) > 12_000


async def test_reading_refuses_what_is_gone_or_not_there() -> None:
    directory = CrashingDirectory()
    writer = make_writer(directory, next_lsn=10)
    with pytest.raises(CorruptLogError, match="LSN 10 is missing"):
        await writer.open(SEGMENT_BYTES)
        list(writer.read(10, 11))
    with pytest.raises(ArchiveBehindLogError) as caught:
        writer.read(9, 11)
    assert (caught.value.cursor, caught.value.oldest_lsn) == (9, 10)


async def test_reading_may_stop_anywhere() -> None:
    directory = CrashingDirectory()
    writer = make_writer(directory)
    await writer.open(SEGMENT_BYTES)
    await writer.write(frame_of(0, 50), 50)
    with closing(writer.read(0, 50)) as records:  # type: ignore[type-var]
        assert next(records) == record(0)
    assert list(writer.read(20, 20)) == []
