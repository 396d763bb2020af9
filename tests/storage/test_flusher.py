"""The flusher: on a fake archive under a fake clock, then on the databases."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from storage import (
    Archive,
    ArchiveUnavailableError,
    FencedError,
    Flusher,
    FlushOptions,
    FlushThread,
    Ownership,
    Record,
    StorageError,
)
from storage.flusher import FREE_ROWS
from tests.contracts.archive import NODE
from tests.fakes.archive import FakeArchive
from tests.fakes.run_sync import HeldRunSync
from tests.storage.archive_records import message, messages
from tests.storage.flushing import (
    FlushedLog,
    assert_archived,
    make_flusher,
    running,
    settle,
)
from tests.storage.sql import run_sql


def health(flusher: Flusher) -> tuple[StorageError | None, float | None]:
    return flusher.last_error, flusher.failing_since


# When it flushes


async def test_a_lone_record_waits_for_others_but_no_longer_than_the_interval(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    async with running(flusher):
        await settle(5)
        flusher.push(log.append(1)[0])
        await settle(0.29)
        flusher.push(log.append(1)[0])
        assert archive.flushes == []
        assert flusher.lag_seconds() == pytest.approx(0.29)
        await settle(0.02)
        assert archive.flushes == [(0, 2)]
        assert flusher.lag_seconds() == 0
        assert flusher.backlog_rows == 0


async def test_a_full_batch_is_flushed_at_once(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    async with running(flusher):
        await settle(1)
        for record in log.append(25):
            flusher.push(record)
        await settle(0.01)
        assert archive.flushes == [(0, 10), (10, 20)]
        assert flusher.backlog_rows == 5
        await settle(0.3)
        assert archive.flushes == [(0, 10), (10, 20), (20, 25)]


async def test_what_was_pushed_before_it_runs_is_flushed_too(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    flusher.extend(log.append(3))
    async with running(flusher):
        await settle(0.31)
        assert archive.flushes == [(0, 3)]


async def test_waiting_for_a_flush_hurries_it(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    async with running(flusher):
        await settle(1)
        flusher.extend(log.append(3))
        before = trio.current_time()
        await flusher.flush_all()
        assert flusher.cursor == 3
        assert trio.current_time() - before < 0.01
        # A wait for what is not pushed yet hurries it as soon as it comes.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flusher.wait_flushed, 5)
            await settle(1)
            flusher.extend(log.append(2))
            before = trio.current_time()
        assert trio.current_time() - before < 0.01
        await flusher.flush_all()


async def test_a_batch_is_bounded_by_bytes_but_never_empty(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log, FlushOptions(rows_max=10, bytes_max=100))
    sizes = [40, 40, 40, 300, 100, 1]
    async with running(flusher):
        flusher.extend([message(i + 1, body=b"x" * size) for i, size in enumerate(sizes)])
        await flusher.flush_all()
    assert archive.flushes == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6)]


# When it frees


async def test_nothing_is_freed_before_the_archive_has_committed(
    autojump_clock: MockClock,
) -> None:
    archive, log, run_sync = FakeArchive(), FlushedLog(), HeldRunSync()
    flusher = make_flusher(archive, log, run_sync=run_sync)
    run_sync.held = True
    async with running(flusher):
        flusher.extend(log.append(3))
        await settle(1)
        before = (run_sync.waiting, len(log.flushed), flusher.cursor, flusher.backlog_rows)
        # Before anything is asserted: a flush under way cannot be cancelled, and would hang the test.
        run_sync.held = False
        run_sync.release()
        await settle(0)
        assert before == (1, 0, 0, 3)
        assert archive.flushes == [(0, 3)]
        assert (log.flushed, log.cursors) == (log.records, [3])
        assert (flusher.cursor, flusher.backlog_rows) == (3, 0)


async def test_a_large_batch_is_freed_in_pieces_with_others_in_between_and_to_its_end(
    autojump_clock: MockClock,
) -> None:
    archive, log = FakeArchive(), FlushedLog()
    count = 3 * FREE_ROWS + 1
    flusher = make_flusher(archive, log, FlushOptions(rows_max=count))
    flusher.extend(log.append(count))
    cursors_seen: list[int] = []

    async def look(scope: trio.CancelScope) -> None:
        while flusher.cursor == 0:
            await trio.lowlevel.checkpoint()
        cursors_seen.append(flusher.cursor)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, nursery.cancel_scope)
        await flusher.run()
    assert 0 < cursors_seen[0] < count
    assert flusher.cursor == archive.read_cursor(NODE).cursor == count
    assert log.flushed == log.records
    assert log.cursors == [FREE_ROWS, 2 * FREE_ROWS, 3 * FREE_ROWS, count]


async def test_a_failed_flush_frees_nothing_and_is_repeated(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    archive.failures = ["before"]
    seen: list[int] = []
    flush = archive.flush

    def watch(node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        seen.append(len(log.flushed))
        flush(node_id, epoch, cursor, records)

    archive.flush = watch  # type: ignore[method-assign]
    async with running(flusher):
        flusher.extend(log.append(3))
        await flusher.flush_all()
    assert seen == [0, 0]
    assert log.flushed == log.records
    assert log.cursors == [3]


async def test_a_lost_commit_is_found_and_not_repeated(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    archive.failures = ["after", "before", "", "after"]
    async with running(flusher):
        flusher.extend(log.append(3))
        await flusher.flush_all()
        flusher.extend(log.append(2))
        await flusher.flush_all()
    assert archive.flushes == [(0, 3), (3, 5)]
    assert log.flushed == log.records
    assert log.cursors == [3, 5]


async def test_a_batch_in_doubt_is_repeated_as_it_was(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    archive.failures = ["after", "before"]
    async with running(flusher):
        flusher.extend(log.append(3))
        await settle(0.31)
        # More comes while the outcome is unknown: it must not join the batch.
        flusher.extend(log.append(4))
        await flusher.flush_all()
    assert archive.flushes == [(0, 3), (3, 7)]
    assert log.flushed == log.records


async def test_a_flush_that_is_cancelled_is_finished_and_counted(
    autojump_clock: MockClock,
) -> None:
    archive, log, run_sync = FakeArchive(), FlushedLog(), HeldRunSync()
    flusher = make_flusher(archive, log, run_sync=run_sync)
    run_sync.held = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        flusher.extend(log.append(3))
        await settle(1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await settle(1)
            freed_before = len(log.flushed)
            run_sync.release()
    assert freed_before == 0
    assert archive.read_cursor(NODE).cursor == 3
    assert log.flushed == log.records


# Outages


async def test_an_outage_is_outlasted_with_bounded_backoff(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    archive.is_down = True
    async with running(flusher):
        flusher.extend(log.append(3))
        await settle(600)
        error, since = health(flusher)
        assert isinstance(error, ArchiveUnavailableError)
        assert since == pytest.approx(0.3)
        assert flusher.lag_seconds() == pytest.approx(600)
        for record in log.append(40):
            flusher.push(record)
        assert flusher.backlog_rows == 43
        assert log.flushed == []
        archive.is_down = False
        back_at = trio.current_time()
        await flusher.flush_all()
        assert trio.current_time() - back_at <= 5
    assert health(flusher) == (None, None)
    assert log.flushed == log.records
    assert archive.read_messages("default", "s1") == [
        (record.seq, record.body) for record in messages(1, 43)
    ]


async def test_backoff_grows_with_jitter(autojump_clock: MockClock) -> None:
    archive, log = FakeArchive(), FlushedLog()
    flusher = make_flusher(archive, log)
    times: list[float] = []

    def refuse(*_: object) -> None:
        times.append(trio.current_time())
        raise ArchiveUnavailableError("told to fail")

    archive.flush = refuse  # type: ignore[assignment, method-assign]
    async with running(flusher):
        flusher.extend(log.append(1))
        await settle(60)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for attempt, pause in enumerate(pauses):
        longest = min(5.0, 0.05 * 2**attempt)
        assert longest / 2 - 1e-6 <= pause <= longest + 1e-6


# Any interleaving


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(1, 25)),
            st.tuples(st.just("fail"), st.sampled_from(["before", "after"])),
            st.tuples(st.just("restore"), st.integers(0, 40)),
            st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.05, 0.4])),
        ),
        max_size=30,
    )
)
def test_whatever_fails_everything_arrives_once_in_order(
    steps: list[tuple[str, int | float | str]],
) -> None:
    async def play() -> None:
        archive, log = FakeArchive(), FlushedLog()
        flusher = make_flusher(archive, log)
        async with running(flusher):
            for step, value in steps:
                if step == "push":
                    flusher.extend(log.append(int(value)))
                elif step == "fail":
                    archive.failures.append(str(value))
                elif step == "restore":
                    # To the state after one of its own commits: there are no others.
                    ends = [0, *(end for _, end in archive.flushes)]
                    cursor = min(ends[int(value) % len(ends)], archive.cursors[NODE])
                    archive.cursors[NODE] = cursor
                    archive.rows = {k: v for k, v in archive.rows.items() if k[2] <= cursor}
                else:
                    await trio.sleep(float(value))
                assert log.flushed == log.records[: flusher.cursor]
            # A restored archive is noticed by the next flush.
            flusher.extend(log.append(1))
            await flusher.flush_all()
        assert log.flushed == log.records
        assert archive.read_messages("default", "s1") == [
            (record.seq, record.body) for record in messages(1, len(log.records))
        ]

    trio.run(play, clock=MockClock(autojump_threshold=0))


# On the databases


OpenFlusher = Callable[[FlushedLog], AbstractAsyncContextManager[Flusher]]


@pytest.fixture
def open_flusher(archive: Archive) -> OpenFlusher:
    @asynccontextmanager
    async def open_it(log: FlushedLog) -> AsyncIterator[Flusher]:
        ownership = archive.begin_epoch(NODE, "local")
        flusher = Flusher(
            FlushThread(archive),
            NODE,
            ownership.epoch,
            ownership.cursor,
            on_flushed=log.on_flushed,
            reread=log.reread,
            options=FlushOptions(rows_max=100, interval_ms=10),
        )
        async with running(flusher):
            yield flusher

    return open_it


async def test_records_arrive_in_a_database(archive: Archive, open_flusher: OpenFlusher) -> None:
    log = FlushedLog()
    async with open_flusher(log) as flusher:
        for _ in range(5):
            flusher.extend(log.append(250))
            await flusher.flush_all()
    assert_archived(archive, log)


async def test_a_database_that_was_restored_is_brought_up_to_date(
    archive: Archive, archive_url: str, open_flusher: OpenFlusher
) -> None:
    log = FlushedLog()
    async with open_flusher(log) as flusher:
        flusher.extend(log.append(450))
        await flusher.flush_all()
        run_sql(archive_url, "UPDATE flush_cursors SET lsn = 120")
        run_sql(archive_url, "DELETE FROM messages WHERE seq > 120")
        flusher.extend(log.append(1))
        await flusher.flush_all()
    assert_archived(archive, log)


async def test_a_later_start_fences_the_flusher(
    archive: Archive, open_flusher: OpenFlusher
) -> None:
    log = FlushedLog()
    with pytest.raises(FencedError):
        async with open_flusher(log) as flusher:
            assert archive.begin_epoch(NODE, "local") == Ownership(2, 0)
            flusher.extend(log.append(3))
            await trio.sleep(10)
    assert log.flushed == []
    assert archive.read_messages("default", "s1") == []
