from random import Random

import pytest

from storage.errors import ArchiveBehindLogError, CorruptLogError
from storage.inspection import (
    DAMAGED_SUFFIX,
    Damage,
    DumpedFrame,
    Lost,
    Repair,
    SegmentReport,
    dump,
    verify,
)
from storage.inspection import repair as repair_log
from storage.record import StoredRecord
from storage.recovery import recover
from storage.segment import segment_name
from tests.fakes.directory import CrashingDirectory, PowerCutError
from tests.storage.logs import (
    NODE_ID,
    WrittenSegment,
    add_frame,
    append,
    open_log,
    record,
    write_segment,
)


def two_segments(directory: CrashingDirectory) -> tuple[WrittenSegment, WrittenSegment]:
    """Return LSNs 0-4 and 5-9, in frames of 2, 3 and 1, 4."""
    first = write_segment(directory, [2, 3])
    return first, write_segment(directory, [1, 4], base_lsn=5, prev_crc=first.chain_crc)


def repair(directory: CrashingDirectory, cursor: int = 0, *, dry_run: bool = False) -> Repair:
    return repair_log(directory, node_id=NODE_ID, cursor=cursor, dry_run=dry_run)


def recovered(directory: CrashingDirectory, cursor: int) -> list[int]:
    """Return the LSNs that a start finds after a power cut: what the archive does not have."""
    recovery = recover(directory.crash(Random(0)), node_id=NODE_ID, epoch=9, cursor=cursor)
    lsns = [each.lsn for each in recovery.survivors]
    assert recovery.next_lsn == cursor + len(lsns)
    return lsns


def dumped(directory: CrashingDirectory, from_lsn: int = 0) -> list[StoredRecord]:
    frames = [each for each in dump(directory, from_lsn) if isinstance(each, DumpedFrame)]
    return [each for frame in frames for each in frame.records]


def damage_of(directory: CrashingDirectory) -> list[Damage]:
    return [each for each in dump(directory) if isinstance(each, Damage)]


# Dump


def test_dump_shows_frames_where_they_lie() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    frames = list(dump(directory))
    assert [each for each in frames if isinstance(each, Damage)] == []
    places = [
        (each.name, each.position + each.bytes) for each in frames if isinstance(each, DumpedFrame)
    ]
    assert places == [(each.name, end) for each in (first, second) for end in each.frame_ends]
    assert dumped(directory) == [record(lsn) for lsn in range(10)]
    assert dumped(directory, 4) == [record(lsn) for lsn in range(4, 10)]


def test_dump_goes_on_after_damage() -> None:
    directory = CrashingDirectory()
    first, _ = two_segments(directory)
    directory.damage(first.name, first.frame_ends[0] - 1)
    assert [each.lsn for each in dumped(directory)] == list(range(2, 10))
    assert [(each.name, each.position) for each in damage_of(directory)] == [(first.name, 4096)]


def test_dump_leaves_out_what_a_later_epoch_voids() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [2, 3, 5], epoch=1)
    write_segment(directory, [1], epoch=2, base_lsn=4)
    assert [each.lsn for each in dumped(directory)] == [0, 1, 2, 3, 4]


def test_dump_of_a_file_without_a_header_says_so() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    directory.damage(first.name, 0)
    assert [each.lsn for each in dumped(directory)] == list(range(5, 10))
    assert damage_of(directory) == [Damage(first.name, 0, "the segment header's checksum is wrong")]
    assert second.name in directory.names()


def test_dump_passes_over_segments_and_frames_below_the_wanted_lsn() -> None:
    directory = CrashingDirectory()
    two_segments(directory)
    assert [each.lsn for each in dumped(directory, 6)] == [6, 7, 8, 9]
    assert len(list(dump(directory, 6))) == 2


def test_dump_shows_a_torn_end_and_a_frame_of_nonsense_as_damage() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    add_frame(directory, second, b"nonsense", count=1, first_lsn=10)
    assert damage_of(directory) == [
        Damage(second.name, second.frame_ends[1], "a record overruns its frame")
    ]
    directory.damage(second.name, second.frame_ends[1] + 8)
    assert damage_of(directory) == [
        Damage(second.name, second.frame_ends[1], "44 bytes cannot be read")
    ]


# Verify


async def test_verify_of_a_healthy_log_finds_nothing() -> None:
    directory = CrashingDirectory()
    async with open_log(directory) as (log, _):
        append(log, 100)
    async with open_log(directory, epoch=2, cursor=60) as (log, _):
        append(log, 10)
    before = {name: bytes(directory.content(name)) for name in directory.names()}
    report = verify(directory)
    assert report.ok
    assert (report.torn, report.lsn_begin, report.lsn_end) == (None, 0, 110)
    ranges = [(each.epoch, each.base_lsn, each.lsn_end) for each in report.segments]
    assert ranges == [(1, 0, 60), (2, 60, 100), (2, 100, 110)]
    assert {name: bytes(directory.content(name)) for name in directory.names()} == before


def test_verify_of_an_empty_directory_finds_nothing() -> None:
    report = verify(CrashingDirectory())
    assert report.ok
    assert (report.segments, report.lsn_end) == ((), 0)


def test_verify_tells_a_torn_end_from_damage() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    directory.damage(second.name, second.frame_ends[1] - 1)
    report = verify(directory)
    assert report.ok
    assert report.torn is not None
    assert (report.torn.name, report.torn.offset) == (second.name, second.frame_ends[0])
    assert report.torn.torn_bytes == second.frame_ends[1] - second.frame_ends[0]
    assert report.lsn_end == 6


def test_verify_reports_all_damage_with_its_place() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    third = write_segment(directory, [5], base_lsn=10, prev_crc=second.chain_crc)
    write_segment(directory, [1], base_lsn=15, prev_crc=third.chain_crc ^ 1)
    directory.damage(first.name, first.frame_ends[1] - 1)
    directory.damage(second.name, 4096)
    report = verify(directory)
    assert not report.ok
    assert [(each.name, each.position) for each in report.damage] == [
        (first.name, first.frame_ends[0]),
        (second.name, 4096),
        (segment_name(15, 1), 0),
    ]
    assert report.lsn_end == 2
    assert report.segments[1] == SegmentReport(second.name, 1, 5, 5, 10, 64 * 1024)


def test_verify_counts_no_frame_that_continues_nothing() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [2, 3])
    add_frame(directory, written, b"", count=9, first_lsn=5, prev_crc=1)
    report = verify(directory)
    assert [each.position for each in report.damage] == [written.frame_ends[1]]
    assert report.segments[0].lsn_seen == 5
    directory.damage(written.name, 4096 + 40)
    report = verify(directory)
    assert [each.position for each in report.damage] == [4096]
    assert (report.lsn_end, report.segments[0].lsn_seen) == (0, 5)


def test_verify_finds_a_missing_segment() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    write_segment(directory, [5], base_lsn=10, prev_crc=second.chain_crc)
    directory.unlink(second.name)
    (damage,) = verify(directory).damage
    assert "LSN 5 to 10" in damage.reason


# Repair


def test_a_healthy_or_torn_log_needs_no_repair() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    for cursor in (0, 3, 5, 10):
        assert not repair(directory, cursor).needed
    directory.damage(second.name, second.frame_ends[1] - 1)
    assert not repair(directory, 6).needed
    assert not repair(CrashingDirectory()).needed


def test_a_dry_run_says_what_would_be_lost_and_changes_nothing() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    directory.damage(first.name, first.frame_ends[1] - 1)
    names = directory.names()
    plan = repair(directory, dry_run=True)
    assert plan.needed
    assert (plan.set_aside, plan.lsn_end) == ((first.name, second.name), 2)
    assert plan.lost == (Lost(2, 5, readable=False), Lost(5, 10, readable=True))
    assert directory.names() == names
    assert not verify(directory).ok


@pytest.mark.parametrize("cursor", range(13))
@pytest.mark.parametrize("segment", [0, 1])
@pytest.mark.parametrize("frame", [0, 1])
def test_a_repaired_log_starts_and_lacks_only_what_the_archive_has_or_is_said_to_be_lost(
    segment: int, frame: int, cursor: int
) -> None:
    directory = CrashingDirectory()
    segments = two_segments(directory)
    write_segment(directory, [2], base_lsn=10, prev_crc=segments[1].chain_crc)
    damaged = segments[segment]
    directory.damage(damaged.name, damaged.frame_ends[frame] - 1)
    originals = {name: bytes(directory.content(name)) for name in directory.names()}
    begin, end = [[(0, 2), (2, 5)], [(5, 6), (6, 10)]][segment][frame]
    plan = repair(directory, cursor)
    if cursor >= end:
        assert plan.lost == ()
        assert recovered(directory, cursor) == list(range(cursor, 12))
    else:
        lost_from = max(cursor, begin)
        assert recovered(directory, cursor) == list(range(cursor, lost_from))
        left_out = Lost(end, 12, readable=True)
        assert plan.lost == (Lost(lost_from, end, readable=False), left_out)
    assert verify(directory).ok
    assert not repair(directory, cursor).needed
    assert damaged.name in plan.set_aside
    for name in plan.set_aside:
        assert bytes(directory.content(f"{name}{DAMAGED_SUFFIX}")) == originals[name]
    assert {*originals} - {*directory.names()} == {*plan.set_aside}


def test_whole_segments_that_lead_up_to_the_cursor_stay() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    third = write_segment(directory, [2, 2], base_lsn=10, prev_crc=second.chain_crc)
    directory.damage(third.name, third.frame_ends[0] - 1)
    assert repair(directory, 8).set_aside == (third.name,)
    assert dumped(directory) == [record(lsn) for lsn in range(10)]
    directory.damage(first.name, first.frame_ends[0] - 1)
    plan = repair(directory, 8)
    assert (plan.set_aside, plan.rewrites, plan.lost) == ((first.name,), False, ())
    assert dumped(directory) == [record(lsn) for lsn in range(5, 10)]
    assert recovered(directory, 8) == [8, 9]


def test_a_log_that_ends_below_the_cursor_begins_again_there() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    directory.damage(second.name, second.frame_ends[1] - 1)
    plan = repair(directory, 10)
    assert (plan.lsn_end, plan.lost) == (10, (Lost(10, None, readable=False),))
    assert recovered(directory, 10) == []
    assert not repair(directory, 10).needed


def test_a_log_of_which_nothing_is_left_begins_again_at_the_cursor() -> None:
    directory = CrashingDirectory()
    plan = repair(directory, 5)
    assert (plan.set_aside, plan.lost) == ((), (Lost(5, None, readable=False),))
    assert recovered(directory, 5) == []


def test_a_sealed_segment_that_lacks_its_end_says_how_much() -> None:
    directory = CrashingDirectory()
    sealed = write_segment(directory, [2, 3], sealed_end=5)
    directory.damage(sealed.name, sealed.frame_ends[1] - 1)
    assert repair(directory).lost == (Lost(2, 5, readable=False),)
    assert recovered(directory, 0) == [0, 1]


def test_segments_without_a_header_are_left_out() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    third = write_segment(directory, [2], base_lsn=10, prev_crc=second.chain_crc)
    directory.damage(second.name, 50)
    plan = repair(directory, 2)
    # The first one too: its own end is known only by what follows it.
    assert plan.set_aside == (first.name, second.name, third.name)
    assert plan.lost == (Lost(5, 10, readable=False), Lost(10, 12, readable=True))
    assert recovered(directory, 2) == [2, 3, 4]


def test_what_a_last_segment_without_a_header_held_cannot_be_known() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    directory.damage(second.name, 50)
    plan = repair(directory, 2)
    assert (plan.set_aside, plan.lost) == ((second.name,), (Lost(5, None, readable=False),))
    assert recovered(directory, 2) == [2, 3, 4]


def test_a_damaged_file_that_does_not_count_is_left_out_alone() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5], epoch=1)
    voided = write_segment(directory, [5], epoch=1, base_lsn=5)
    write_segment(directory, [5], epoch=2, base_lsn=5)
    directory.damage(voided.name, 50)
    plan = repair(directory)
    assert plan == Repair(0, 10, rewrites=False, set_aside=(voided.name,), lost=())
    assert verify(directory).ok


def test_what_continues_another_history_is_not_taken_for_its_continuation() -> None:
    directory = CrashingDirectory()
    first = write_segment(directory, [2, 3])
    write_segment(directory, [1, 4], base_lsn=5, prev_crc=first.chain_crc ^ 1)
    plan = repair(directory, 1)
    assert plan.lost == (Lost(5, 10, readable=True),)
    assert recovered(directory, 1) == [1, 2, 3, 4]


def test_a_log_that_begins_above_the_cursor_or_is_anothers_is_not_repaired() -> None:
    directory = CrashingDirectory()
    written = write_segment(directory, [2, 2], base_lsn=5)
    directory.damage(written.name, written.frame_ends[0] - 1)
    with pytest.raises(ArchiveBehindLogError):
        repair(directory, 4)
    with pytest.raises(CorruptLogError):
        repair_log(directory, node_id=b"another-node-id!", cursor=5)


@pytest.mark.parametrize("cursor", [0, 3, 7])
def test_a_repair_interrupted_at_any_step_can_be_repeated(cursor: int) -> None:
    cut_at = 0
    finished = False
    while not finished:
        cut_at += 1
        directory = CrashingDirectory()
        first, second = two_segments(directory)
        directory.damage(first.name, first.frame_ends[1] - 1)
        originals = {name: bytes(directory.content(name)) for name in directory.names()}
        directory.faults.power_cut_at = directory.counts["all"] + cut_at
        try:
            repair(directory, cursor)
            finished = True
        except PowerCutError:
            pass
        after = directory.crash(Random(cut_at))
        repair(after, cursor)
        assert verify(after).ok
        expected = {0: [0, 1], 3: [], 7: [7, 8, 9]}[cursor]
        assert recovered(after, cursor) == expected
        kept = [first.name] if cursor == 7 else [first.name, second.name]
        for name in kept:
            copies = {name, f"{name}{DAMAGED_SUFFIX}"} & {*after.names()}
            assert originals[name] in [bytes(after.content(each)) for each in copies]
    assert cut_at > 2
