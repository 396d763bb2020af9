import errno
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import (
    ArchiveBehindLogError,
    CorruptLogError,
    FencedError,
    LogBehindCursorError,
    StorageError,
)
from storage.frame import FRAME_BYTES_MAX, SEGMENT_HEADER_BYTES
from storage.record import StoredRecord
from storage.recovery import TORN_SUFFIX, Recovery, examine, recover
from storage.segment import SegmentReader, is_segment_name, segment_name
from tests.fakes.directory import SECTOR_BYTES, CrashingDirectory, PowerCutError
from tests.storage.logs import NODE_ID, WrittenSegment, add_frame, record, write_segment


def run(directory: CrashingDirectory, *, epoch: int = 9, cursor: int = 0) -> Recovery:
    return recover(directory, node_id=NODE_ID, epoch=epoch, cursor=cursor)


def lsns(records: list[StoredRecord]) -> list[int]:
    return [each.lsn for each in records]


def three_batches(directory: CrashingDirectory) -> WrittenSegment:
    """Return a segment with LSNs 0-1, 2-4 and 5-9 in three frames."""
    return write_segment(directory, [2, 3, 5])


def test_an_empty_directory_is_an_empty_log() -> None:
    recovery = run(CrashingDirectory())
    assert (recovery.next_lsn, recovery.survivors, recovery.segments) == (0, [], ())


def test_records_from_the_cursor_on_survive_unchanged() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    for cursor in range(11):
        recovery = recover(directory, node_id=NODE_ID, epoch=9 + cursor, cursor=cursor)
        assert recovery.survivors == [record(lsn) for lsn in range(cursor, 10)]
        assert recovery.next_lsn == 10
        assert recovery.torn_bytes == 0


def test_survivors_are_rewritten_durably_before_anyone_sees_them() -> None:
    """After `kill -9` the records were only in the page cache; once returned, a power cut keeps them."""
    before = CrashingDirectory()
    written = three_batches(before)
    before.forget(written.name, SEGMENT_HEADER_BYTES)
    directory = before.restart()
    assert lsns(run(directory, cursor=3).survivors) == list(range(3, 10))
    for seed in range(10):
        again = run(directory.crash(Random(seed)), epoch=10, cursor=3)
        assert again.survivors == [record(lsn) for lsn in range(3, 10)]


def test_rewritten_survivors_void_what_they_replace() -> None:
    directory = CrashingDirectory()
    old = three_batches(directory)
    recovery = run(directory, cursor=3)
    assert [(span.name, span.base, span.end) for span in recovery.segments] == [
        (old.name, 0, 3),
        (segment_name(3, 9), 3, 10),
    ]
    # What the old segment holds from LSN 3 on no longer matters, damaged or not.
    directory.damage(old.name, old.frame_ends[1] + 50)
    assert lsns(run(directory, epoch=10, cursor=0).survivors) == list(range(10))


def test_wholly_replaced_segments_are_removed() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [5])
    write_segment(directory, [5], base_lsn=5, prev_crc=first.chain_crc)
    run(directory, cursor=3)
    assert directory.names() == [first.name, segment_name(3, 9)]


def test_old_preallocation_is_given_back() -> None:
    directory = CrashingDirectory()
    written = three_batches(directory)
    run(directory, cursor=10)
    assert len(directory.content(written.name)) == written.frame_ends[-1]


def test_temporary_files_are_removed() -> None:
    directory = CrashingDirectory()
    directory.create("spare-1.tmp").close()
    directory.create("rewrite.tmp").close()
    directory.create("lock").close()
    three_batches(directory)
    run(directory)
    assert directory.names() == [segment_name(0, 9), "lock"]


def test_segments_below_the_cursor_are_not_read() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [5])
    write_segment(directory, [5], base_lsn=5, prev_crc=first.chain_crc)
    directory.damage(first.name, first.frame_ends[0] - 1)
    assert lsns(run(directory, cursor=5).survivors) == [5, 6, 7, 8, 9]
    with pytest.raises(CorruptLogError):
        run(directory, epoch=10, cursor=4)


# Where the log ends


def test_last_batch_torn_at_every_byte_is_dropped_and_kept_beside_the_log() -> None:
    source = CrashingDirectory()
    written = three_batches(source)
    whole = bytes(source.content(written.name))
    begin, end = written.frame_ends[1], written.frame_ends[2]
    for size in range(begin, end):
        directory = CrashingDirectory()
        three_batches(directory)
        directory.content(written.name)[:] = whole[:size] + bytes(len(whole) - size)
        recovery = run(directory)
        assert recovery.survivors == [record(lsn) for lsn in range(5)]
        assert recovery.next_lsn == 5
        torn = whole[begin:size].rstrip(b"\0")
        assert recovery.torn_bytes == len(torn)
        copies = [name for name in directory.names() if name.endswith(TORN_SUFFIX)]
        assert [bytes(directory.content(name)) for name in copies] == [torn] * bool(torn)


def test_file_cut_at_every_byte_of_the_last_batch_keeps_the_batches_before() -> None:
    source = CrashingDirectory()
    written = three_batches(source)
    whole = bytes(source.content(written.name))
    for size in range(written.frame_ends[1], written.frame_ends[2]):
        directory = CrashingDirectory()
        three_batches(directory)
        directory.content(written.name)[:] = whole[:size]
        assert run(directory).survivors == [record(lsn) for lsn in range(5)]


def test_last_batch_with_any_subset_of_its_sectors_is_whole_or_dropped() -> None:
    source = CrashingDirectory()
    written = write_segment(source, [2, 150])
    whole = bytes(source.content(written.name))
    begin, end = written.frame_ends
    sectors = range(begin // SECTOR_BYTES, -(-end // SECTOR_BYTES))
    assert len(sectors) <= 12
    for subset in range(2 ** len(sectors)):
        content = bytearray(whole)
        for bit, sector in enumerate(sectors):
            if not subset >> bit & 1:
                start = max(sector * SECTOR_BYTES, begin)
                stop = (sector + 1) * SECTOR_BYTES
                content[start:stop] = bytes(stop - start)
        directory = CrashingDirectory()
        write_segment(directory, [2, 150])
        directory.content(written.name)[:] = content
        findings = examine(directory, node_id=NODE_ID, cursor=0)
        assert findings.next_lsn == (152 if bytes(content) == whole else 2)


def test_any_flipped_bit_is_refused_or_touches_no_record() -> None:
    source = CrashingDirectory()
    written = write_segment(source, [2, 3, 0])
    content = source.content(written.name)
    last_batch_end = written.frame_ends[1]
    want = [record(lsn) for lsn in range(5)]
    for bit in range((written.frame_ends[2] + 8) * 8):
        content[bit // 8] ^= 1 << bit % 8
        if bit // 8 < last_batch_end:
            # The trailing frame proves both batches.
            with pytest.raises(CorruptLogError) as caught:
                examine(source, node_id=NODE_ID, cursor=0)
            assert caught.value.position <= bit // 8
        else:
            assert examine(source, node_id=NODE_ID, cursor=0).records == want
        content[bit // 8] ^= 1 << bit % 8


def test_damage_before_a_valid_frame_names_file_and_offset() -> None:
    directory = CrashingDirectory()
    written = three_batches(directory)
    names = directory.names()
    directory.damage(written.name, written.frame_ends[0] + 4)
    with pytest.raises(CorruptLogError, match="a valid frame after it") as caught:
        run(directory)
    assert caught.value.path.endswith(written.name)
    assert caught.value.position == written.frame_ends[0]
    assert "log verify" in caught.value.hint
    assert directory.names() == names


def test_zeroed_frame_before_a_valid_one_is_corruption() -> None:
    directory = CrashingDirectory()
    written = three_batches(directory)
    begin, end = written.frame_ends[0], written.frame_ends[1]
    directory.content(written.name)[begin:end] = bytes(end - begin)
    with pytest.raises(CorruptLogError):
        run(directory)


def test_damage_longer_than_one_write_is_corruption() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [2], size=2 * FRAME_BYTES_MAX)
    begin = written.frame_ends[0]
    content = directory.content(written.name)
    content[begin : begin + FRAME_BYTES_MAX] = b"x" * FRAME_BYTES_MAX
    assert examine(directory, node_id=NODE_ID, cursor=0).next_lsn == 2
    content[begin + FRAME_BYTES_MAX] = 1
    with pytest.raises(CorruptLogError, match="more than one write"):
        run(directory)


def test_valid_frame_that_no_writer_makes_is_corruption() -> None:
    directory = CrashingDirectory()
    written = three_batches(directory)
    add_frame(directory, written, b"not a record", count=1, first_lsn=10)
    with pytest.raises(CorruptLogError, match="overruns its frame") as caught:
        run(directory)
    assert caught.value.position == written.frame_ends[2]


def test_torn_end_below_the_cursor_is_corruption() -> None:
    directory = CrashingDirectory()
    written = three_batches(directory)
    directory.damage(written.name, written.frame_ends[2] - 1)
    assert examine(directory, node_id=NODE_ID, cursor=5).next_lsn == 5
    with pytest.raises(CorruptLogError, match="below the flushed cursor 6"):
        run(directory, cursor=6)


def test_clean_end_below_the_cursor_is_refused() -> None:
    directory = CrashingDirectory()
    three_batches(directory)
    with pytest.raises(LogBehindCursorError) as caught:
        run(directory, cursor=11)
    assert (caught.value.log_end, caught.value.cursor) == (10, 11)
    with pytest.raises(LogBehindCursorError):
        run(CrashingDirectory(), cursor=1)


def test_log_that_begins_after_the_cursor_is_refused() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [2], base_lsn=100)
    with pytest.raises(ArchiveBehindLogError) as caught:
        run(directory, cursor=99)
    assert (caught.value.cursor, caught.value.oldest_lsn) == (99, 100)


# Several segments and epochs


def test_damage_in_a_segment_with_a_successor_is_corruption_even_at_its_end() -> None:
    directory = CrashingDirectory()
    first = three_batches(directory)
    write_segment(directory, [], base_lsn=10, prev_crc=first.chain_crc)
    directory.damage(first.name, first.frame_ends[2] - 1)
    with pytest.raises(CorruptLogError, match="LSN 5 to 10") as caught:
        run(directory)
    assert caught.value.position == first.frame_ends[1]


def test_missing_middle_segment_is_corruption() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [5])
    second = write_segment(directory, [5], base_lsn=5, prev_crc=first.chain_crc)
    write_segment(directory, [5], base_lsn=10, prev_crc=second.chain_crc)
    directory.unlink(second.name)
    with pytest.raises(CorruptLogError, match="LSN 5 to 10"):
        run(directory)


def test_segment_that_continues_another_history_is_corruption() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [5])
    write_segment(directory, [5], base_lsn=5, prev_crc=first.chain_crc ^ 1)
    with pytest.raises(CorruptLogError, match="does not continue"):
        run(directory)


def test_a_segment_may_continue_one_that_ends_in_a_trailing_frame() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [5, 0])
    write_segment(directory, [5], base_lsn=5, prev_crc=first.chain_crc)
    assert lsns(run(directory).survivors) == list(range(10))


def test_damage_at_the_end_of_a_sealed_segment_is_corruption() -> None:
    directory = CrashingDirectory()
    sealed = write_segment(directory, [5, 5], sealed_end=10)
    assert examine(directory, node_id=NODE_ID, cursor=0).next_lsn == 10
    directory.damage(sealed.name, sealed.frame_ends[1] - 1)
    with pytest.raises(CorruptLogError, match="LSN 5 to 10"):
        run(directory)


def test_later_epoch_voids_the_end_of_earlier_ones() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5, 5], epoch=1)
    write_segment(directory, [3], epoch=2, base_lsn=7)
    write_segment(directory, [1], epoch=3, base_lsn=8)
    findings = examine(directory, node_id=NODE_ID, cursor=0)
    assert [(span.header.epoch, span.base, span.end) for span in findings.spans] == [
        (1, 0, 7),
        (2, 7, 8),
        (3, 8, None),
    ]
    assert lsns(findings.records) == list(range(9))
    assert findings.next_lsn == 9


def test_later_epoch_may_begin_where_a_frame_of_an_earlier_one_does() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5, 5], epoch=1)
    write_segment(directory, [1], epoch=2, base_lsn=5)
    assert lsns(run(directory).survivors) == list(range(6))


def test_later_epoch_that_begins_lower_voids_whole_segments() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [5], epoch=1)
    second = write_segment(directory, [5], epoch=1, base_lsn=5, prev_crc=first.chain_crc)
    third = write_segment(directory, [9], epoch=2, base_lsn=10)
    write_segment(directory, [1], epoch=3, base_lsn=4)
    findings = examine(directory, node_id=NODE_ID, cursor=0)
    assert sorted(findings.voided) == sorted([second.name, third.name])
    assert findings.next_lsn == 5


def test_gap_between_epochs_is_corruption() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5], epoch=1)
    write_segment(directory, [5], epoch=2, base_lsn=7)
    with pytest.raises(CorruptLogError, match="LSN 5 to 7"):
        run(directory)


def test_torn_copy_of_an_epoch_that_a_later_one_voids_is_ignored() -> None:
    directory = CrashingDirectory()
    old = three_batches(directory)
    directory.damage(old.name, old.frame_ends[2] - 1)
    write_segment(directory, [4], epoch=2, base_lsn=5)
    assert run(directory).next_lsn == 9


def test_epoch_that_is_not_new_is_fenced() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5], epoch=4)
    for epoch in (3, 4):
        with pytest.raises(FencedError) as caught:
            run(directory, epoch=epoch)
        assert (caught.value.node_id, caught.value.epoch) == (NODE_ID.hex(), epoch)


def test_log_of_another_node_is_refused() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5])
    with pytest.raises(CorruptLogError, match=f"belongs to node {NODE_ID.hex()}"):
        recover(directory, node_id=b"x" * 16, epoch=9, cursor=0)


def test_large_survivors_are_rewritten_in_several_frames() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [30_000] * 4, size=8 << 20)
    recovery = run(directory, cursor=100)
    assert recovery.next_lsn == 120_000
    with SegmentReader(directory, segment_name(100, 9)) as reader:
        assert sum(frame.count for frame in reader.frames()) == 119_900


# Crashes and faults while recovering


def test_power_cut_at_every_step_of_recovery_loses_nothing() -> None:
    for cut_at in range(1, 30):
        directory = CrashingDirectory()
        written = write_segment(directory, [2, 3, 5])
        directory.damage(written.name, written.frame_ends[1] + 60)
        directory.create("spare-1.tmp").close()
        directory.faults.power_cut_at = cut_at
        try:
            run(directory, epoch=9, cursor=1)
        except PowerCutError:
            pass
        else:
            assert cut_at > 10
        for seed in range(6):
            again = run(directory.crash(Random(seed)), epoch=10, cursor=1)
            assert again.survivors == [record(lsn) for lsn in range(1, 5)]
            assert again.next_lsn == 5


@pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync_directory", "truncate"])
def test_disk_error_while_recovering_is_raised_and_harmless(operation: str) -> None:
    source = CrashingDirectory()
    three_batches(source)
    directory = source.crash(Random(0))
    directory.fail(operation, 1, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        run(directory, cursor=1)
    assert lsns(run(directory.crash(Random(1)), epoch=10, cursor=1).survivors) == list(range(1, 10))


@given(
    batches=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    durable=st.integers(0, 8),
    cursor=st.integers(0, 48),
    seed=st.integers(0, 2**32),
)
def test_recovery_of_a_durable_prefix_and_a_torn_tail_is_the_prefix(
    batches: list[int], durable: int, cursor: int, seed: int
) -> None:
    """One write is in flight at most: a prefix of the batches is durable, the next one is torn."""
    durable = min(durable, len(batches))
    directory = CrashingDirectory()
    written = write_segment(directory, batches[: durable + 1])
    whole = bytes(directory.content(written.name))
    begin = written.frame_ends[durable - 1] if durable else SEGMENT_HEADER_BYTES
    torn = bytearray(whole)
    random = Random(seed)
    for start in range(begin, len(whole), 16):
        if random.random() < 0.3:
            torn[start : start + 16] = bytes(len(torn[start : start + 16]))
    directory.content(written.name)[:] = torn
    lsn_end = sum(batches[: durable + (bytes(torn) == whole)])
    try:
        recovery = run(directory, cursor=cursor)
    except StorageError:
        assert cursor > lsn_end
    else:
        assert recovery.survivors == [record(lsn) for lsn in range(cursor, lsn_end)]
        assert recovery.next_lsn == lsn_end
        assert all(is_segment_name(span.name) for span in recovery.segments)
