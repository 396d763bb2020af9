from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from storage.commitlog import LogOptions
from storage.directory import RealDirectory
from storage.errors import (
    CorruptLogError,
)
from storage.frame import SEGMENT_HEADER_BYTES
from storage.recovery import examine
from storage.segment import SegmentReader, segment_name
from tests.fakes.directory import CrashingDirectory
from tests.fakes.run_sync import HeldRunSync
from tests.storage.logs import NODE_ID, PREFIX, append, batches_on_disk, open_log, record

# Appending and committing


async def test_appends_get_consecutive_lsns_and_commit_in_order() -> None:
    got: list[Any] = []
    async with open_log(CrashingDirectory(), on_commit=got.extend) as (log, survivors):
        assert survivors == []
        append(log, 5)
        await trio.lowlevel.checkpoint()
        append(log, 5)
        assert log.next_lsn == 10
        await log.wait_durable(10)
        assert log.durable_lsn == 10
        assert got == list(range(10))


async def test_appends_of_one_turn_share_one_write_and_one_sync() -> None:
    directory = CrashingDirectory()
    async with open_log(directory) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        before = directory.counts.copy()
        append(log, 20)
        await log.sync()
        counts = directory.counts - before
        assert (counts["write"], counts["sync"], counts["all"]) == (1, 1, 2)
    assert batches_on_disk(directory) == [20, 0]


async def test_nothing_is_acknowledged_before_its_sync_has_returned() -> None:
    held = HeldRunSync()
    got: list[Any] = []
    async with open_log(CrashingDirectory(), on_commit=got.extend, run_sync=held) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        held.held = True
        append(log, 3)
        await trio.testing.wait_all_tasks_blocked()
        while_in_flight = (held.waiting, list(got), log.durable_lsn)
        held.held = False
        held.release()
        await log.sync()
    assert while_in_flight == (1, [], 0)
    assert got == [0, 1, 2]


async def test_what_is_acknowledged_survives_a_power_cut_at_that_moment() -> None:
    directory = CrashingDirectory()
    checked = 0

    def on_commit(items: list[Any]) -> None:
        nonlocal checked
        for seed in range(3):
            found = examine(directory.crash(Random(seed)), node_id=NODE_ID, cursor=0)
            assert [each.lsn for each in found.records][items[-1]] == items[-1]
            checked += 1

    async with open_log(directory, on_commit=on_commit) as (log, _):
        for count in (1, 3, 50, 2):
            append(log, count)
            await log.sync()
    assert checked == 12


async def test_one_write_is_in_flight_and_the_next_batch_is_what_arrived_meanwhile() -> None:
    directory = CrashingDirectory()
    held = HeldRunSync()
    commits: list[list[Any]] = []
    async with open_log(directory, on_commit=commits.append, run_sync=held) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        held.held = True
        append(log, 1)
        await trio.testing.wait_all_tasks_blocked()
        append(log, 2)
        await trio.testing.wait_all_tasks_blocked()
        append(log, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert held.waiting == 1
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        assert commits == [[0]]
        held.held = False
        held.release()
        await log.sync()
        assert commits == [[0], [1, 2, 3, 4, 5]]


async def test_a_batch_is_cut_at_its_limit_and_one_record() -> None:
    directory = CrashingDirectory()
    options = LogOptions(segment_bytes=1 << 20, batch_bytes_max=1000)
    async with open_log(directory, options=options) as (log, _):
        for lsn in range(25):
            log.append(PREFIX, b"x" * 300, lsn)
        await log.sync()
    counts = batches_on_disk(directory)
    assert counts == [4, 4, 4, 4, 4, 4, 1, 0]


async def test_a_record_too_large_for_a_segment_is_refused_and_leaves_no_trace() -> None:
    got: list[Any] = []
    async with open_log(CrashingDirectory(), on_commit=got.extend) as (log, _):
        append(log, 1)
        with pytest.raises(ValueError, match="does not fit"):
            log.append(PREFIX, b"x" * 64 * 1024, "too large")
        append(log, 1)
        await log.sync()
        assert got == [0, 1]
        assert [each.lsn for each in log.read(0, 2)] == [0, 1]


async def test_items_without_a_record_follow_what_was_appended_before_them() -> None:
    held = HeldRunSync()
    got: list[Any] = []
    async with open_log(CrashingDirectory(), on_commit=got.extend, run_sync=held) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        log.after_commit("alone")
        assert got == []
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["alone"]
        held.held = True
        append(log)
        await trio.testing.wait_all_tasks_blocked()
        log.after_commit("while in flight")
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["alone"]
        held.held = False
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        append(log)
        log.after_commit("same batch")
        append(log)
        await log.sync()
        assert got == ["alone", 0, "while in flight", 1, "same batch", 2]


async def test_items_without_a_record_are_handed_over_before_the_log_closes() -> None:
    got: list[Any] = []
    async with open_log(CrashingDirectory(), on_commit=got.extend) as (log, _):
        append(log)
        log.after_commit("last")
    assert got == [0, "last"]


async def test_waiting_returns_at_the_lsn_and_not_before() -> None:
    held = HeldRunSync()
    async with (
        open_log(CrashingDirectory(), run_sync=held) as (log, _),
        trio.open_nursery() as nursery,
    ):
        await trio.testing.wait_all_tasks_blocked()
        done: list[int] = []

        async def wait(lsn_end: int) -> None:
            await log.wait_durable(lsn_end)
            done.append(lsn_end)

        held.held = True
        append(log, 2)
        for lsn_end in (3, 2, 0):
            nursery.start_soon(wait, lsn_end)
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0]
        append(log, 1)
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 2]
        held.held = False
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 2, 3]


async def test_gathering_waits_for_the_delay_but_not_with_a_full_batch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    options = LogOptions(segment_bytes=1 << 20, batch_bytes_max=1000, sync_delay_ms=20)
    async with open_log(CrashingDirectory(), options=options) as (log, _):
        began = trio.current_time()
        append(log, 1)
        await log.wait_durable(1)
        assert trio.current_time() - began == pytest.approx(0.02)
        began = trio.current_time()
        for _ in range(4):
            log.append(PREFIX, b"x" * 300, None)
        await log.wait_durable(5)
        assert trio.current_time() == began


@pytest.mark.parametrize(
    "wrong",
    [
        {"sync_delay_ms": 26},
        {"batch_bytes_max": 0},
        {"batch_bytes_max": 1 << 30},
        {"segment_bytes": 4096},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LogOptions(**wrong)


# The end of the file


async def test_an_idle_log_ends_in_a_trailing_frame(autojump_clock: trio.testing.MockClock) -> None:
    directory = CrashingDirectory()
    async with open_log(directory) as (log, _):
        append(log, 3)
        await log.sync()
        assert batches_on_disk(directory) == [3]
        await trio.sleep(2.5)
        assert batches_on_disk(directory) == [3, 0]
        await trio.sleep(5)
        assert batches_on_disk(directory) == [3, 0]
        append(log, 1)
        await trio.sleep(2.5)
        assert batches_on_disk(directory) == [3, 0, 1, 0]
        # Now damage in the last batch is told from a torn write.
        with SegmentReader(directory, segment_name(0, 1)) as reader:
            *_, last, _ = [reader.offset for _ in reader.frames()]
        directory.damage(segment_name(0, 1), last + 50)
        with pytest.raises(CorruptLogError):
            examine(directory, node_id=NODE_ID, cursor=0)


async def test_a_closed_log_ends_in_a_durable_trailing_frame() -> None:
    directory = CrashingDirectory()
    async with open_log(directory) as (log, _):
        append(log, 3)
    after = directory.crash(Random(0))
    assert batches_on_disk(after) == [3, 0]
    assert not [name for name in directory.names() if name.endswith(".tmp")]


async def test_an_unused_log_writes_no_trailing_frame(
    autojump_clock: trio.testing.MockClock,
) -> None:
    directory = CrashingDirectory()
    async with open_log(directory):
        await trio.sleep(5)
    assert batches_on_disk(directory) == []


# Watching, and the real thing


async def test_statistics_and_observer_tell_what_was_done() -> None:
    seconds: list[float] = []
    async with open_log(CrashingDirectory(), on_sync_seconds=seconds.append) as (log, _):
        await trio.testing.wait_all_tasks_blocked()
        append(log, 5)
        await log.sync()
        append(log, 5)
        statistics = log.statistics()
        assert statistics.queue_bytes > 0
        await log.sync()
        statistics = log.statistics()
    assert (statistics.commits, statistics.records, statistics.fsyncs) == (2, 10, 2)
    assert statistics.bytes > 200
    assert statistics.fdatasync_seconds_last == seconds[1]
    assert statistics.fdatasync_seconds_max == max(seconds[:2])
    assert (statistics.segments, statistics.bytes_on_disk) == (1, 2 * 64 * 1024)
    assert (statistics.spare_ready, statistics.poisoned, statistics.full) == (True, False, False)
    assert len(seconds) == 3  # the trailing frame too


async def test_real_files_and_real_threads(tmp_path: Path) -> None:
    got: list[Any] = []
    options = LogOptions(segment_bytes=1 << 20)
    with RealDirectory(tmp_path) as directory:
        async with open_log(directory, options=options, on_commit=got.extend, run_sync=None) as (
            log,
            _,
        ):
            for _ in range(100):
                append(log, 600)
                await log.sync()
            assert log.statistics().segments > 1
            read = await trio.to_thread.run_sync(lambda: list(log.read(0, 60_000)))
            assert read == [record(lsn) for lsn in range(60_000)]
        assert got == list(range(60_000))
        async with open_log(directory, epoch=2, cursor=59_000, run_sync=None) as (log, survivors):
            assert survivors == [record(lsn) for lsn in range(59_000, 60_000)]


async def test_first_segment_may_be_smaller_than_the_others() -> None:
    directory = CrashingDirectory()
    options = LogOptions(segment_bytes=256 * 1024, first_segment_bytes=32 * 1024)
    async with open_log(directory, options=options) as (log, _):
        assert len(directory.content(segment_name(0, 1))) == 32 * 1024
        append(log, 3000)
        await log.sync()
        assert log.durable_lsn == 3000
        assert SEGMENT_HEADER_BYTES < 32 * 1024
