"""Recovery where an archive has batches too: what was taken over is set aside, what only it has is added."""

from random import Random
from typing import Any

import pytest
import trio

from storage.commitlog import LogOptions
from storage.errors import CorruptLogError, LogBehindCursorError
from storage.ownership import Ownership
from storage.recovery import SET_ASIDE_SUFFIX, Recovery, recover
from storage.segment import segment_name
from tests.fakes.directory import CrashingDirectory, PowerCutError
from tests.storage.logs import NODE_ID, append, open_log, record, write_segment
from tests.storage.test_recovery import lsns, three_batches


def rewrite(directory: CrashingDirectory, **more: Any) -> Recovery:
    return recover(directory, node_id=NODE_ID, **{"epoch": 9, "cursor": 0} | more)


def aside(directory: CrashingDirectory) -> list[str]:
    return [name for name in directory.names() if name.endswith(SET_ASIDE_SUFFIX)]


@pytest.mark.parametrize("cursor", [0, 4, 9])
def test_records_of_a_sealed_epoch_past_the_cursor_are_set_aside(cursor: int) -> None:
    directory = CrashingDirectory()
    written = three_batches(directory)
    recovery = rewrite(directory, cursor=cursor, sealed_epoch=1)
    assert (recovery.survivors, recovery.next_lsn) == ([], cursor)
    assert aside(directory) == [written.name + SET_ASIDE_SUFFIX]
    # And stay so: what comes next continues at the cursor.
    for epoch in (10, 11):
        again = rewrite(directory, epoch=epoch, cursor=cursor, sealed_epoch=1)
        assert (again.survivors, again.next_lsn) == ([], cursor)


async def test_a_log_goes_on_at_the_cursor_and_its_old_segments_go_in_time() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    options = LogOptions(segment_bytes=64 * 1024, retention_seconds=0, retention_bytes=0)
    ownership = Ownership(9, 4, sealed_epoch=1)
    async with open_log(directory, ownership=ownership, options=options) as (log, survivors):
        assert (survivors, log.next_lsn) == ([], 4)
        append(log, 500)
        await log.sync()
        log.release(400)
        with trio.fail_after(5):
            while segment_name(0, 1) in directory.names():
                await trio.sleep(0.01)
        assert [each.lsn for each in log.read(100, 110)] == list(range(100, 110))
    again = rewrite(directory, epoch=10, cursor=400, sealed_epoch=1)
    assert lsns(again.survivors) == list(range(400, 504))


def test_a_log_that_was_only_opened_again_keeps_its_records_whatever_was_sealed_before() -> None:
    """The difference of epochs says nothing: only what was sealed was taken over."""
    directory = CrashingDirectory()
    write_segment(directory, [2, 3, 5], epoch=5)
    recovery = rewrite(directory, epoch=20, cursor=4, sealed_epoch=4)
    assert lsns(recovery.survivors) == list(range(4, 10))
    assert aside(directory) == []


def test_nothing_is_set_aside_where_the_archive_has_all() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    recovery = rewrite(directory, cursor=10, sealed_epoch=1)
    assert (recovery.survivors, recovery.next_lsn, aside(directory)) == ([], 10, [])


def test_a_sealed_log_may_end_below_the_cursor() -> None:
    """Its last batch was in the archive before it was on the disk, and was taken over from there."""
    directory = CrashingDirectory()
    three_batches(directory)
    with pytest.raises(LogBehindCursorError):
        rewrite(directory, cursor=12)
    recovery = rewrite(directory, cursor=12, sealed_epoch=1)
    assert (recovery.survivors, recovery.next_lsn) == ([], 12)
    again = rewrite(directory, epoch=10, cursor=12, sealed_epoch=1)
    assert (again.survivors, again.next_lsn) == ([], 12)


def test_a_sealed_log_may_be_torn_below_the_cursor() -> None:
    """The power was lost while its last batch was written, which the archive had by then."""
    directory = CrashingDirectory()
    written = three_batches(directory)
    directory.damage(written.name, written.frame_ends[1] + 60)
    with pytest.raises(CorruptLogError, match="below the flushed cursor"):
        rewrite(directory, cursor=10)
    recovery = rewrite(directory, cursor=10, sealed_epoch=1)
    assert (recovery.survivors, recovery.next_lsn) == ([], 10)
    assert aside(directory) == []
    again = rewrite(directory, epoch=10, cursor=10, sealed_epoch=1)
    assert (again.survivors, again.next_lsn) == ([], 10)


@pytest.mark.parametrize("sealed_epoch", [0, 1])
def test_what_only_the_archive_has_is_added(sealed_epoch: int) -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    replicated = [record(lsn) for lsn in range(4, 13)]
    recovery = rewrite(directory, cursor=4, sealed_epoch=sealed_epoch, replicated=replicated)
    assert (recovery.survivors, recovery.next_lsn) == (replicated, 13)
    again = rewrite(directory, epoch=10, cursor=4)
    assert (again.survivors, again.next_lsn) == (replicated, 13)


def test_what_only_a_sealed_log_has_is_set_aside() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    replicated = [record(lsn) for lsn in range(4, 7)]
    recovery = rewrite(directory, cursor=4, sealed_epoch=1, replicated=replicated)
    assert (recovery.survivors, recovery.next_lsn) == (replicated, 7)
    assert len(aside(directory)) == 1


def test_what_only_an_unsealed_log_has_stays() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    recovery = rewrite(directory, cursor=4, replicated=[record(lsn) for lsn in range(4, 7)])
    assert lsns(recovery.survivors) == list(range(4, 10))


def test_a_log_and_an_archive_that_differ_are_refused() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    with pytest.raises(CorruptLogError, match="at byte 5: the archive has another record"):
        rewrite(directory, cursor=4, replicated=[record(4), record(5, b"{}")])
    assert aside(directory) == []


def test_power_cuts_while_a_log_is_set_aside_lose_nothing_of_what_counts() -> None:
    replicated = [record(lsn) for lsn in range(4, 7)]
    for cut_at in range(1, 40):
        directory = CrashingDirectory()
        three_batches(directory)
        directory.faults.power_cut_at = cut_at
        try:
            rewrite(directory, cursor=4, sealed_epoch=1, replicated=replicated)
        except PowerCutError:
            pass
        else:
            assert cut_at > 10
        for seed in range(6):
            again = rewrite(
                directory.crash(Random(seed)),
                epoch=10,
                cursor=4,
                sealed_epoch=1,
                replicated=replicated,
            )
            assert (again.survivors, again.next_lsn) == (replicated, 7)
