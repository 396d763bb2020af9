from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from storage.commitlog import CommitLog, LogOptions
from storage.errors import (
    ArchiveBehindLogError,
    LogQueueFullError,
    StorageFullError,
)
from storage.recovery import examine
from storage.segment import segment_name
from tests.fakes.directory import CrashingDirectory
from tests.fakes.run_sync import HeldRunSync
from tests.storage.logs import NODE_ID, PREFIX, append, open_log, record


async def test_a_log_goes_on_through_many_segments() -> None:
    directory = CrashingDirectory()
    options = LogOptions(segment_bytes=16 * 1024, batch_bytes_max=2048)
    got: list[Any] = []
    async with open_log(directory, options=options, on_commit=got.extend) as (log, _):
        for _ in range(100):
            append(log, 50)
            await log.sync()
        assert log.statistics().segments > 8
        assert list(log.read(0, 5000)) == [record(lsn) for lsn in range(5000)]
        assert list(log.read(777, 801)) == [record(lsn) for lsn in range(777, 801)]
    assert got == list(range(5000))
    async with open_log(directory, epoch=2, cursor=123) as (log, survivors):
        assert survivors == [record(lsn) for lsn in range(123, 5000)]
        assert log.next_lsn == 5000


async def test_a_log_that_rests_between_segments_is_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Trailing frames stand in the middle of it, and at the ends of segments."""
    directory = CrashingDirectory()
    options = LogOptions(segment_bytes=16 * 1024, batch_bytes_max=2048)
    async with open_log(directory, options=options) as (log, _):
        for _ in range(100):
            append(log, 50)
            await trio.sleep(2.5)
        assert log.statistics().segments > 8
        assert list(log.read(0, 5000)) == [record(lsn) for lsn in range(5000)]
    async with open_log(directory, epoch=2) as (_, survivors):
        assert survivors == [record(lsn) for lsn in range(5000)]


async def test_a_new_segment_is_durable_before_its_first_record() -> None:
    """A segment whose name is lost takes its acknowledged records along."""
    directory = CrashingDirectory()
    options = LogOptions(segment_bytes=16 * 1024, batch_bytes_max=2048)
    async with open_log(directory, options=options) as (log, _):
        for _ in range(20):
            append(log, 50)
            await log.sync()
            for seed in range(3):
                found = examine(directory.crash(Random(seed)), node_id=NODE_ID, cursor=0)
                assert found.next_lsn == log.durable_lsn


async def test_changing_segments_never_refuses_an_append() -> None:
    directory = CrashingDirectory()
    held = HeldRunSync()
    options = LogOptions(segment_bytes=64 * 1024, batch_bytes_max=2048)
    async with open_log(directory, options=options, run_sync=held) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        held.held = True
        while log.statistics().segments < 4:
            log.check_room(1000)
            log.append(PREFIX, b"x" * 1000, None)
            held.release()
            await trio.testing.wait_all_tasks_blocked()
            log.check_room(1000)
        held.held = False
        held.release()


async def test_a_queue_over_its_limit_refuses_and_recovers() -> None:
    held = HeldRunSync()
    options = LogOptions(segment_bytes=1 << 20, queue_bytes_max=10_000)
    async with open_log(CrashingDirectory(), options=options, run_sync=held) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        held.held = True
        with pytest.raises(LogQueueFullError):
            while True:
                log.check_room(1000)
                log.append(PREFIX, b"x" * 1000, None)
                await trio.testing.wait_all_tasks_blocked()
        assert 8 <= log.next_lsn <= 10
        assert log.statistics().queue_bytes <= 10_000
        held.held = False
        held.release()
        await log.sync()
        assert log.statistics().queue_bytes == 0
        log.check_room(1000)


async def fill_disk(log: CommitLog, random: Random) -> int:
    """Append for as long as there is room; return how many were taken."""
    taken = 0
    while True:
        size = random.randrange(1, 3000)
        try:
            log.check_room(len(PREFIX) + size)
        except LogQueueFullError:
            await log.sync()
            continue
        except StorageFullError:
            return taken
        log.append(PREFIX, b"x" * size, None)
        taken += 1
        if random.random() < 0.3:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(5))
async def test_full_disk_refuses_appends_keeps_all_it_took_and_resumes_by_itself(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    directory = CrashingDirectory()
    directory.faults.capacity_bytes = 200 * 1024
    async with open_log(directory) as (log, _):
        taken = await fill_disk(log, Random(seed))
        await log.sync()
        assert taken > 30
        assert log.durable_lsn == log.next_lsn == taken
        assert log.statistics().full
        assert len(list(log.read(0, taken))) == taken
        directory.faults.capacity_bytes = None
        await trio.sleep(1.5)
        assert not log.statistics().full
        log.check_room(3000)
        append(log)
        await log.sync()


async def test_log_opens_on_a_full_disk_and_resumes_by_itself(
    autojump_clock: trio.testing.MockClock,
) -> None:
    directory = CrashingDirectory()
    directory.faults.capacity_bytes = 1000
    async with open_log(directory) as (log, _):
        assert log.statistics().full
        with pytest.raises(StorageFullError) as refused:
            log.check_room(1)
        assert "no room" in str(refused.value)
        assert "resume by themselves" in refused.value.hint
        directory.faults.capacity_bytes = None
        await trio.sleep(1.5)
        log.check_room(1)
        append(log)
        await log.sync()
        assert log.durable_lsn == 1


async def test_survivors_that_find_no_room_stop_the_start() -> None:
    directory = CrashingDirectory()
    async with open_log(directory) as (log, _):
        append(log, 100)
    directory.faults.capacity_bytes = 0
    with pytest.raises(StorageFullError) as refused:
        async with open_log(directory, epoch=2):
            pytest.fail("it opened")
    # Whoever reads this has a process that ended: nothing resumes by itself.
    assert str(refused.value).startswith("the data directory's disk is full: ")
    assert refused.value.hint == "free space on it, then start again"
    directory.faults.capacity_bytes = None
    async with open_log(directory, epoch=2) as (_, survivors):
        assert len(survivors) == 100


async def test_released_segments_are_removed_and_no_longer_read() -> None:
    directory = CrashingDirectory()
    options = LogOptions(segment_bytes=16 * 1024, batch_bytes_max=2048, retention_seconds=0)
    async with open_log(directory, options=options) as (log, _):
        for _ in range(20):
            append(log, 50)
            await log.sync()
        assert segment_name(0, 1) in directory.names()
        log.release(600)
        await trio.testing.wait_all_tasks_blocked()
        assert segment_name(0, 1) not in directory.names()
        assert [each.lsn for each in log.read(600, 1000)] == list(range(600, 1000))
        with pytest.raises(ArchiveBehindLogError):
            list(log.read(0, 1000))
    async with open_log(directory, epoch=2, cursor=600) as (log, survivors):
        assert [each.lsn for each in survivors] == list(range(600, 1000))
