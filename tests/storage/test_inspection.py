from random import Random

import pytest

from storage.inspection import (
    DAMAGED_SUFFIX,
    Damage,
    DumpedFrame,
    SegmentReport,
    dump,
    repair,
    verify,
)
from storage.record import StoredRecord
from storage.recovery import examine, recover
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
        Damage(second.name, second.frame_ends[1], "44 bytes of no frame")
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
    assert not repair(directory, dry_run=False).needed
    directory.damage(second.name, second.frame_ends[1] - 1)
    assert not repair(directory, dry_run=False).needed


def test_a_dry_run_says_what_would_be_lost_and_changes_nothing() -> None:
    directory = CrashingDirectory()
    first, second = two_segments(directory)
    directory.damage(first.name, first.frame_ends[1] - 1)
    names = directory.names()
    plan = repair(directory)
    assert plan.needed
    assert (plan.cut, plan.set_aside, plan.lsn_end, plan.lost_to) == (
        first.name,
        (second.name,),
        2,
        10,
    )
    assert directory.names() == names
    assert not verify(directory).ok


@pytest.mark.parametrize("segment", [0, 1])
@pytest.mark.parametrize("frame", [0, 1])
def test_a_repaired_log_ends_before_the_damage_and_serves(segment: int, frame: int) -> None:
    directory = CrashingDirectory()
    segments = two_segments(directory)
    write_segment(directory, [2], base_lsn=10, prev_crc=segments[1].chain_crc)
    damaged = segments[segment]
    directory.damage(damaged.name, damaged.frame_ends[frame] - 1)
    originals = {name: bytes(directory.content(name)) for name in directory.names()}
    plan = repair(directory, dry_run=False)
    lsn_end = [[0, 2], [5, 6]][segment][frame]
    assert (plan.lsn_end, plan.lost_to) == (lsn_end, 12)
    report = verify(directory)
    assert report.ok
    assert report.lsn_end == lsn_end
    assert dumped(directory) == [record(lsn) for lsn in range(lsn_end)]
    for name in {plan.cut, *plan.set_aside} - {None}:
        assert bytes(directory.content(f"{name}{DAMAGED_SUFFIX}")) == originals[str(name)]
    after = directory.crash(Random(0))
    recovery = recover(after, node_id=NODE_ID, epoch=9, cursor=0)
    assert recovery.next_lsn == lsn_end


def test_a_sealed_segment_can_be_cut() -> None:
    directory = CrashingDirectory()
    sealed = write_segment(directory, [2, 3], sealed_end=5)
    directory.damage(sealed.name, sealed.frame_ends[1] - 1)
    assert repair(directory, dry_run=False).cut == sealed.name
    assert examine(directory, node_id=NODE_ID, cursor=0).next_lsn == 2


def test_segments_without_a_header_are_left_out() -> None:
    directory = CrashingDirectory()
    _, second = two_segments(directory)
    third = write_segment(directory, [2], base_lsn=10, prev_crc=second.chain_crc)
    directory.damage(second.name, 50)
    plan = repair(directory, dry_run=False)
    assert plan.set_aside == (second.name, third.name)
    assert (plan.lsn_end, plan.lost_to) == (5, 12)
    assert examine(directory, node_id=NODE_ID, cursor=0).next_lsn == 5


def test_a_damaged_file_that_does_not_count_is_left_out_alone() -> None:
    directory = CrashingDirectory()
    write_segment(directory, [5], epoch=1)
    voided = write_segment(directory, [5], epoch=1, base_lsn=5)
    write_segment(directory, [5], epoch=2, base_lsn=5)
    directory.damage(voided.name, 50)
    plan = repair(directory, dry_run=False)
    assert (plan.cut, plan.set_aside, plan.lsn_end) == (None, (voided.name,), 10)
    assert verify(directory).ok


def test_a_repair_interrupted_at_any_step_can_be_repeated() -> None:
    cut_at = 0
    finished = False
    while not finished:
        cut_at += 1
        directory = CrashingDirectory()
        first, _ = two_segments(directory)
        directory.damage(first.name, first.frame_ends[1] - 1)
        directory.faults.power_cut_at = directory.counts["all"] + cut_at
        try:
            repair(directory, dry_run=False)
            finished = True
        except PowerCutError:
            pass
        after = directory.crash(Random(cut_at))
        repair(after, dry_run=False)
        report = verify(after)
        assert report.ok
        assert report.lsn_end == 2
    assert cut_at > 10
