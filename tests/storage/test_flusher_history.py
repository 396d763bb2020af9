"""The flusher and an archive with another history than its own: restored, fenced, in conflict."""

import pytest
import trio
from trio.testing import MockClock

from storage import (
    ArchiveBehindLogError,
    ArchiveConflictError,
    CursorMismatchError,
    FencedError,
    FlushOptions,
    Record,
)
from tests.contracts.archive import NODE
from tests.fakes.archive import FakeArchive
from tests.storage.archive_records import message, messages
from tests.storage.flushing import FlushedLog, make_flusher, running, settle


async def test_what_a_restored_archive_lost_is_flushed_again_from_the_log(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    async with running(flusher):
        flusher.extend(log.append(35))
        await flusher.flush_all()
        archive.cursors[NODE] = 4
        archive.rows = {key: body for key, body in archive.rows.items() if key[2] <= 4}
        archive.failures = ["", "", "before", "after"]
        flusher.extend(log.append(3))
        await flusher.flush_all()
    assert archive.read_messages("default", "s1") == [
        (record.seq, record.body) for record in messages(1, 38)
    ]
    assert log.flushed == log.records
    assert log.cursors[-1] == 38
    assert {start for start, _ in log.rereads} >= {4, 14, 24, 34}
    assert all(end - start <= 10 for start, end in log.rereads)


async def test_an_archive_may_go_back_again_while_it_is_brought_up_to_date(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()
    reread = log.reread

    def go_back(cursor: int) -> None:
        archive.cursors[NODE] = cursor
        archive.rows = {key: body for key, body in archive.rows.items() if key[2] <= cursor}

    def reread_late(from_lsn: int, to_lsn: int, bytes_max: int) -> list[Record]:
        if len(log.rereads) == 1:
            go_back(3)
        return reread(from_lsn, to_lsn, bytes_max)

    log.reread = reread_late  # type: ignore[method-assign]
    flusher = make_flusher(archive, log)
    async with running(flusher):
        flusher.extend(log.append(35))
        await flusher.flush_all()
        go_back(14)
        flusher.extend(log.append(1))
        await flusher.flush_all()
    assert [start for start, _ in log.rereads][:3] == [14, 24, 3]
    assert log.flushed == log.records
    assert archive.cursors[NODE] == 36
    assert len(archive.read_messages("default", "s1")) == 36


async def test_a_doubted_cursor_is_compared_even_if_there_is_nothing_to_flush(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    async with running(flusher):
        flusher.extend(log.append(15))
        await flusher.flush_all()
        flusher.doubt_cursor()
        await settle(1)
        assert log.rereads == []
        archive.cursors[NODE] = 4
        await settle(1000)
        assert archive.cursors[NODE] == 4
        flusher.doubt_cursor()
        await settle(1)
        assert archive.cursors[NODE] == 15
        assert log.flushed == log.records


async def test_what_a_restored_archive_lost_is_kept_in_the_log_and_read_in_bounded_pieces(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log, FlushOptions(rows_max=10, bytes_max=100))
    async with running(flusher):
        flusher.extend([message(i + 1, body=b"x" * 40) for i in range(9)])
        log.records = [message(i + 1, body=b"x" * 40) for i in range(9)]
        await flusher.flush_all()
        archive.cursors[NODE] = 3
        archive.flushes.clear()
        log.cursors.clear()
        flusher.doubt_cursor()
        await settle(1)
    assert archive.flushes[:3] == [(3, 5), (5, 7), (7, 9)]
    # The log is told how far the archive went back before anything is read from it.
    assert log.cursors == [3, 5, 7, 9]


async def test_it_ends_where_the_log_no_longer_has_what_a_restored_archive_lost(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()

    def gone(from_lsn: int, to_lsn: int, bytes_max: int) -> list[Record]:
        raise ArchiveBehindLogError(from_lsn, to_lsn)

    log.reread = gone  # type: ignore[method-assign]
    flusher = make_flusher(archive, log)
    with pytest.raises(ArchiveBehindLogError):
        async with running(flusher):
            flusher.extend(log.append(5))
            await flusher.flush_all()
            archive.cursors[NODE] = 2
            flusher.extend(messages(6, 6))
            await settle(10)
    assert archive.read_cursor(NODE).cursor == 2


@pytest.mark.parametrize("found", [4, 6, 100])
async def test_a_cursor_that_nobody_here_moved_is_fatal(
    autojump_clock: MockClock, found: int
) -> None:
    await meet_another_cursor(found, failures=[])


@pytest.mark.parametrize("found", [4, 5, 7, 100])
async def test_a_repeated_flush_takes_only_its_own_cursor_for_its_own(
    autojump_clock: MockClock, found: int
) -> None:
    await meet_another_cursor(found, failures=["before"])


async def meet_another_cursor(found: int, failures: list[str]) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    with pytest.raises(CursorMismatchError):
        async with running(flusher):
            flusher.extend(log.append(3))
            await flusher.flush_all()
            archive.cursors[NODE] = found
            archive.failures = failures
            flusher.extend(log.append(3))
            await settle(10)
    assert log.cursors == [3]


async def test_being_fenced_is_fatal_and_frees_nothing(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    with pytest.raises(FencedError):
        async with running(flusher):
            archive.begin_epoch(NODE, "local")
            flusher.extend(log.append(3))
            await settle(10)
    assert log.flushed == []
    assert flusher.backlog_rows == 3


async def test_a_conflicting_row_is_fatal(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    archive.rows["default", "s1", 2] = b"another"
    with pytest.raises(ArchiveConflictError):
        async with running(flusher):
            flusher.extend(log.append(3))
            await settle(10)
    assert log.flushed == []


async def test_who_waits_for_a_flusher_that_ended_is_told(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    flusher.extend(log.append(3))
    archive.is_down = True
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as waiters:
            waiters.start_soon(flusher.wait_flushed, 3)
            async with running(flusher):
                await settle(1)
    with pytest.raises(trio.ClosedResourceError):
        await flusher.flush_all()
