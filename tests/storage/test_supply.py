import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from storage.frame import SegmentHeader
from storage.recovery import Span
from storage.segment import FILL_BYTES, segment_name
from storage.supply import FULL_RETRY_SECONDS, PAUSE_FACTOR, SegmentSupply
from storage.syncthread import RunSync
from tests.fakes.directory import CrashingDirectory
from tests.fakes.run_sync import HeldRunSync, run_inline
from tests.storage.logs import NODE_ID, until_cancelled

SMALL = 64 * 1024  # one piece to fill: no pauses
LARGE = 4 * FILL_BYTES


def make_supply(
    directory: CrashingDirectory,
    *,
    run_sync: RunSync = run_inline,
    segment_bytes: int = SMALL,
    retention_seconds: float = 0,
    retention_bytes: int = 1 << 40,
) -> SegmentSupply:
    return SegmentSupply(
        directory,
        run_sync,
        segment_bytes=segment_bytes,
        retention_seconds=retention_seconds,
        retention_bytes=retention_bytes,
    )


@asynccontextmanager
async def running(supply: SegmentSupply) -> AsyncIterator[SegmentSupply]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supply.run)
        yield supply
        nursery.cancel_scope.cancel()


async def spare_ready(supply: SegmentSupply) -> None:
    while not supply.spare_ready:
        await trio.sleep(0.001)


def kept(supply: SegmentSupply) -> list[int]:
    return [span.base for span in supply.spans]


def add_segment(directory: CrashingDirectory, supply: SegmentSupply, base: int, end: int) -> str:
    name = segment_name(base, 1)
    directory.create(name).close()
    header = SegmentHeader(NODE_ID, 1, base, None, 0)
    supply.retire([Span(name, header, base, end, 1000)])
    return name


async def test_a_spare_is_made_filled_and_replaced_when_taken() -> None:
    directory = CrashingDirectory()
    changes = 0

    def on_room_change() -> None:
        nonlocal changes
        changes += 1

    async with running(make_supply(directory, segment_bytes=LARGE)) as supply:
        supply.on_room_change = on_room_change
        assert supply.spare_bytes == 0
        await spare_ready(supply)
        assert supply.spare_bytes == LARGE
        assert directory.counts["write"] == 4
        assert changes == 2  # reserved, filled
        spare = await supply.take()
        assert spare.size == LARGE
        await spare_ready(supply)
        assert directory.names() == ["spare-1.tmp", "spare-2.tmp"]


async def test_room_is_there_as_soon_as_the_spare_is_reserved() -> None:
    directory = CrashingDirectory()
    held = HeldRunSync()
    async with running(make_supply(directory, run_sync=held)) as supply:
        held.held = True
        await trio.testing.wait_all_tasks_blocked()
        assert not supply.room_bytes
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        assert SMALL - 8192 < supply.room_bytes < SMALL
        assert supply.spare_bytes == SMALL
        assert directory.counts["write"] == 0
        held.held = False
        held.release()


async def test_a_writer_that_waits_takes_the_spare_half_filled() -> None:
    directory = CrashingDirectory()
    held = HeldRunSync()
    async with running(make_supply(directory, run_sync=held, segment_bytes=LARGE)) as supply:
        held.held = True
        await trio.testing.wait_all_tasks_blocked()
        held.release()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supply.take)
            await trio.testing.wait_all_tasks_blocked()
            held.release()  # the piece in flight is finished first
            await trio.testing.wait_all_tasks_blocked()
        assert directory.counts["write"] == 1
        held.held = False
        held.release()


async def test_filling_pauses_between_pieces(autojump_clock: trio.testing.MockClock) -> None:
    directory = CrashingDirectory()

    async def slow(function: Callable[..., Any], *args: Any) -> Any:
        await trio.sleep(0.01)
        return function(*args)

    supply = make_supply(directory, run_sync=slow, segment_bytes=LARGE)
    began = trio.current_time()
    await supply.prepare(LARGE)
    assert trio.current_time() - began == pytest.approx(5 * 0.01)  # reserve, four pieces
    await supply.take()
    async with running(supply):
        began = trio.current_time()
        await spare_ready(supply)
        pauses = 3 * PAUSE_FACTOR * 0.01
        assert trio.current_time() - began == pytest.approx(5 * 0.01 + pauses, abs=0.01)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("operation", "nth"), [("allocate", 1), ("create", 1), ("write", 1)])
async def test_full_disk_is_asked_again_every_second(
    operation: str, nth: int, error: int, autojump_clock: trio.testing.MockClock
) -> None:
    directory = CrashingDirectory()
    directory.fail(operation, nth, error)
    async with running(make_supply(directory)) as supply:
        await trio.sleep(FULL_RETRY_SECONDS / 2)
        assert (supply.full, supply.room_bytes, directory.names()) == (True, 0, [])
        await trio.sleep(FULL_RETRY_SECONDS)
        assert (supply.full, supply.spare_ready) == (False, True)


async def test_any_other_disk_error_is_raised() -> None:
    directory = CrashingDirectory()
    directory.fail("sync", 1, errno.EIO)
    with pytest.raises(ExceptionGroup) as caught:
        async with running(make_supply(directory)):
            await until_cancelled()
    assert caught.group_contains(OSError, match="Input/output")


async def test_old_segments_go_when_released_oldest_first() -> None:
    directory = CrashingDirectory()
    async with running(make_supply(directory)) as supply:
        names = [add_segment(directory, supply, base, base + 10) for base in (0, 10, 20)]
        directory.sync()
        await trio.testing.wait_all_tasks_blocked()
        assert kept(supply) == [0, 10, 20]
        supply.release(19)
        await trio.testing.wait_all_tasks_blocked()
        assert kept(supply) == [10, 20]
        assert names[0] not in directory.names()
        assert names[0] not in directory._durable
        supply.release(30)
        await trio.testing.wait_all_tasks_blocked()
        assert kept(supply) == []


async def test_old_segments_stay_for_their_time(autojump_clock: trio.testing.MockClock) -> None:
    directory = CrashingDirectory()
    async with running(make_supply(directory, retention_seconds=60)) as supply:
        add_segment(directory, supply, 0, 10)
        await trio.sleep(30)
        add_segment(directory, supply, 10, 20)
        supply.release(20)
        await trio.sleep(29)
        assert kept(supply) == [0, 10]
        await trio.sleep(2)
        assert kept(supply) == [10]
        await trio.sleep(30)
        assert kept(supply) == []


async def test_old_segments_go_early_when_they_are_too_many() -> None:
    directory = CrashingDirectory()
    async with running(
        make_supply(directory, retention_seconds=3600, retention_bytes=2000)
    ) as supply:
        for base in range(0, 50, 10):
            add_segment(directory, supply, base, base + 10)
        await trio.testing.wait_all_tasks_blocked()
        assert len(kept(supply)) == 5  # nothing is archived yet
        supply.release(40)
        await trio.testing.wait_all_tasks_blocked()
        assert kept(supply) == [20, 30, 40]


async def test_closing_removes_the_spare() -> None:
    directory = CrashingDirectory()
    supply = make_supply(directory)
    await supply.prepare(SMALL)
    assert directory.names() == ["spare-1.tmp"]
    await supply.close()
    await supply.close()
    assert directory.names() == []
